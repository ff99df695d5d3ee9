"""From segments to one batch of a relation model; the processor pads the tracks, this file lays labels beside them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hf_causal_video.errors import CausalVideoError

IGNORED_LABEL = -100


@dataclass
class RelationCollator:
    """Gather the items of `RelationSegments` or `RelationPairs` into the inputs and labels of a relation model.

    Args:
        processor: a `VideoRelationProcessor`.

    Raises:
        CausalVideoError: no items, or an item that is longer than a segment or has no track.
    """

    processor: Callable[..., Any]

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        sizes = [item["frame_size"] for item in items if item.get("frame_size")]
        inputs = self.processor([item["tracks"] for item in items], frame_size=sizes or None)
        if not items or [segment.video for segment in inputs.segments] != list(range(len(items))):
            raise CausalVideoError(
                "a batch of segments", found=f"{len(items)} items, {len(inputs.segments)} segments",
                expected="one segment an item", fix="cut videos into segments of the processor's length",
            )  # fmt: skip
        shape = inputs["track_boxes"].shape[:2]
        labels = torch.full(shape, IGNORED_LABEL)
        for row, item in enumerate(items):
            labels[row, : len(item["tracks"])] = torch.as_tensor(item["track_labels"])
        counts = torch.tensor([len(item["pair_index"]) for item in items])
        return {
            **inputs,
            "track_labels": labels,
            "pair_index": torch.cat([item["pair_index"].reshape(-1, 2) for item in items]).long(),
            "pair_video": torch.arange(len(items)).repeat_interleave(counts),
            "predicate_labels": torch.cat([item["predicate_labels"] for item in items]),
        }
