"""From segments to one batch of a relation model; the processor pads the tracks, this file lays labels beside them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hf_causal_video.data.rows import is_list
from hf_causal_video.utils.errors import CausalVideoError

IGNORED_LABEL = -100
NEEDED = {"tracks", "track_labels", "pair_index", "predicate_labels"}


@dataclass
class RelationCollator:
    """Gather the items of `RelationSegments` or `RelationPairs` into the inputs and labels of a relation model.

    Args:
        processor: a `VideoRelationProcessor`.

    Raises:
        CausalVideoError: no items, an item that is longer than a segment or has no track, or labels and pairs that do
            not belong to its tracks.
    """

    processor: Callable[..., Any]

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        if not is_list(items):
            raise CausalVideoError(
                "a batch of segments", found=repr(items)[:80], expected="a list of items", fix="check the sampler"
            )
        for number, item in enumerate(items):
            if not isinstance(item, Mapping) or (lacking := NEEDED - set(item)):
                raise CausalVideoError(
                    f"item {number} of a batch", found=f"no {sorted(lacking)}" if isinstance(item, Mapping) else item,
                    expected=", ".join(sorted(NEEDED)), fix="take the items of RelationSegments or RelationPairs",
                )  # fmt: skip
        sizes = [item["frame_size"] for item in items if item.get("frame_size")]
        inputs = self.processor([item["tracks"] for item in items], frame_size=sizes or None)
        if not items or [segment.video for segment in inputs.segments] != list(range(len(items))):
            raise CausalVideoError(
                "a batch of segments", found=f"{len(items)} items, {len(inputs.segments)} segments",
                expected="one segment an item", fix="cut videos into segments of the processor's length",
            )  # fmt: skip
        shape = inputs["track_boxes"].shape[:2]
        labels = torch.full(shape, IGNORED_LABEL)
        pairs, predicates = [], []
        for row, item in enumerate(items):
            classes, index, targets = _labels(item, f"item {row} of a batch")
            labels[row, : len(classes)] = classes
            pairs.append(index)
            predicates.append(targets)
        if len({(targets.dim(), targets.shape[1:]) for targets in predicates}) != 1:
            raise CausalVideoError(
                "predicate labels of a batch", found=f"shapes {[tuple(one.shape) for one in predicates][:4]}",
                expected="(R,), or (R, P), of all items alike", fix="take the items of one dataset",
            )  # fmt: skip
        counts = torch.tensor([len(index) for index in pairs])
        return {
            **inputs,
            "track_labels": labels,
            "pair_index": torch.cat(pairs),
            "pair_video": torch.arange(len(items)).repeat_interleave(counts),
            "predicate_labels": torch.cat(predicates),
        }


def _labels(item: Mapping[str, Any], name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Classes of the tracks (N,), pairs (R, 2) and predicates (R,) or (R, P) of an item."""
    try:
        classes, index, targets = (
            torch.as_tensor(item[field]) for field in ("track_labels", "pair_index", "predicate_labels")
        )
        index = index.reshape(-1, 2) if index.numel() == 0 else index
        count = len(item["tracks"])
        good = (
            classes.shape == (count,) and index.shape == (len(targets), 2) and targets.dim() in (1, 2)
            and not classes.dtype.is_floating_point and not (index.numel() and index.dtype.is_floating_point)
            and bool(((index >= 0) & (index < count)).all())
            and (targets.dim() == 1 or bool(((targets == 0) | (targets == 1)).all()))
        )  # fmt: skip
    except (TypeError, ValueError, RuntimeError, OverflowError):
        good = False
    if not good:
        raise CausalVideoError(
            name, found="labels or pairs that do not fit the tracks",
            expected="track_labels (N,), pair_index (R, 2) below N, predicate_labels (R,) or (R, P) of 0 and 1",
            fix="take the items of RelationSegments or RelationPairs",
        )  # fmt: skip
    return classes.long(), index.long(), targets
