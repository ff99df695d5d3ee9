"""Pairs of tracks with their predicates, one segment per pair: the relation world and the windows of JAAD.

Why a file of its own: here nothing is cut, detected or assigned, so a number about pairs is about the head alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_causal_video.data.relations.jaad import CAR_STATES, JAAD_LABELS, JaadWindows
from hf_causal_video.utils.errors import CausalVideoError
from hf_causal_video.worlds.relations import PARTS, RelationWorldConfig, RelationWorldSplit, generate_relation_world

WORLD_SIZES = {"train_pairs": 6000, "eval_pairs": 2000, "seed": 0}


class RelationPairs(torch.utils.data.Dataset):
    """A map-style dataset of pairs, items as of `RelationSegments`.

    Args:
        boxes: (n, 2, T, 4) subject and object, xyxy as fractions of the frame.
        features: (n, 2, C) or (n, 2, T, C) appearance.
        labels: (n,) predicates, exactly one a pair, or (n, P) 0/1.
        track_labels: (n, 2) object classes, -100 where classes are unknown.
        object_classes, predicates: the names, by index.
        ids: name of each pair.
        parts: head, body and tail, as slices of the predicates; None where these are not defined.
    """

    def __init__(
        self,
        boxes: Tensor,
        features: Tensor,
        labels: Tensor,
        track_labels: Tensor,
        object_classes: Sequence[str],
        predicates: Sequence[str],
        ids: Sequence[str],
        parts: Mapping[str, slice] | None = None,
    ):
        self.boxes = boxes.numpy()
        self.features = features.numpy()
        self.labels = labels
        self.track_labels = track_labels
        self.object_classes = list(object_classes)
        self.predicates = list(predicates)
        self.ids = list(ids)
        self.parts = parts
        self.multi_label = labels.dim() == 2
        self.feature_dim = features.shape[-1]
        self.segment_frames = boxes.shape[2]
        self.provenance: dict[str, object] = {}

    @classmethod
    def of_world(cls, split: RelationWorldSplit, name: str) -> "RelationPairs":
        """The pairs of the relation world."""
        classes = int(split.classes.max()) + 1
        predicates = max(part.stop for part in PARTS.values())
        ids = [f"{name}-{number:05d}" for number in range(len(split))]
        dataset = cls(
            split.boxes,
            split.features,
            split.predicates,
            split.classes,
            [f"class {i}" for i in range(classes)],
            [f"predicate {i}" for i in range(predicates)],
            ids,
            PARTS,
        )
        dataset.provenance = {"tracks": "the relation world"}
        return dataset

    @classmethod
    def of_jaad(cls, windows: JaadWindows) -> "RelationPairs":
        """The windows of JAAD, each the pair <pedestrian, recording car>."""
        inputs = windows.batch(torch.arange(len(windows)))
        frames = inputs["track_boxes"].shape[2]
        ids = [
            f"{video}:{start}" for video, start in zip(windows.video_ids, windows.start_frames.tolist(), strict=True)
        ]
        ids = [f"{name}#{number}" for number, name in enumerate(ids)]  # two pedestrians may share a window
        nobody = torch.full((len(windows), 2), -100)
        dataset = cls(
            inputs["track_boxes"],
            inputs["track_features"],
            windows.labels,
            nobody,
            ["pedestrian", "car"],
            JAAD_LABELS,
            ids,
        )
        dataset.provenance = {"tracks": f"JAAD 2.0, windows of {frames} frames", "appearance": list(CAR_STATES)}
        return dataset

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        boxes, features = self.boxes[index], self.features[index]
        return {
            "question_id": self.ids[index],
            "tracks": [{"start": 0, "boxes": boxes[side], "features": features[side]} for side in range(2)],
            "track_labels": self.track_labels[index],
            "pair_index": torch.tensor([[0, 1]]),
            "predicate_labels": self.labels[index].unsqueeze(0),
        }

    def set_epoch(self, epoch: int) -> None:
        """Nothing is drawn here."""

    def training_counts(self, items: Sequence[int] | None = None) -> tuple[np.ndarray, int]:
        """(P,) annotations of each predicate among these items (all if None), and the number of pairs."""
        labels = self.labels if items is None else self.labels[list(items)]
        if not self.multi_label:
            labels = torch.nn.functional.one_hot(labels, len(self.predicates))
        return labels.sum(0).numpy().astype(float), len(labels)


def relation_world_pairs(split: str, options: Mapping[str, object] | None = None) -> RelationPairs:
    """A split of the relation world as a dataset.

    Args:
        split: train, validation, iid or balanced.
        options: train_pairs (6000), eval_pairs (2000), seed, and any field of `RelationWorldConfig`, whose world_seed
            follows the seed where it is not given.

    Raises:
        CausalVideoError: an unknown option or split.

    Example:
        >>> len(relation_world_pairs("iid", {"eval_pairs": 30, "seed": 7}))
        30
    """
    settings: dict[str, Any] = {**WORLD_SIZES, **(options or {})}
    sizes = {"train": settings.pop("train_pairs")}
    seed = settings.pop("seed")
    pairs = sizes.get(split, settings.pop("eval_pairs"))
    if unknown := sorted(set(settings) - set(RelationWorldConfig.__dataclass_fields__)):
        raise CausalVideoError(
            "invalid relation world",
            found=f"unknown options {unknown}",
            expected=f"{', '.join(WORLD_SIZES)}, or a field of RelationWorldConfig: "
            f"{', '.join(RelationWorldConfig.__dataclass_fields__)}",
            fix="fix the world options",
        )
    config = RelationWorldConfig(**{"world_seed": seed, **settings})
    return RelationPairs.of_world(generate_relation_world(config, split, pairs, seed), split)
