"""From segments to one batch of a relation model; the processor pads the tracks, this file adds the labels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hf_causal_video.utils.checks import check_fields, is_list
from hf_causal_video.utils.errors import require

IGNORED_LABEL = -100
VALUES = torch.tensor([0, 1, IGNORED_LABEL])
NEEDED = ("tracks", "track_labels", "pair_index", "predicate_labels")
TAKE = "take the items of one RelationSegments or RelationPairs"


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
        require(is_list(items), "a batch of segments", found=lambda: repr(items)[:80], expected="a list of items")
        for number, item in enumerate(items):
            check_fields(f"item {number} of a batch", item, NEEDED, fix=TAKE)
        sizes = [item["frame_size"] for item in items if item.get("frame_size")]
        inputs = self.processor([item["tracks"] for item in items], frame_size=sizes or None)
        require(
            items and [segment.video for segment in inputs.segments] == list(range(len(items))),
            "a batch of segments",
            found=f"{len(items)} items, {len(inputs.segments)} segments",
            expected="one segment per item",
            fix="cut videos into segments of the processor's length",
        )
        labels = [_labels(item, f"item {row} of a batch") for row, item in enumerate(items)]
        shapes = [tuple(one.predicates.shape) for one in labels]
        are_alike = len({(len(shape), shape[1:]) for shape in shapes}) == 1
        expected = "(R,), or (R, P), the same for all items"
        require(are_alike, "predicate labels of a batch", found=shapes[:4], expected=expected, fix=TAKE)

        def padded(values: list[Tensor]) -> Tensor:
            return pad_sequence(values, batch_first=True, padding_value=IGNORED_LABEL)

        return {
            **inputs,
            "track_labels": padded([one.classes for one in labels]),
            "pair_index": padded([one.pairs for one in labels]),
            "predicate_labels": padded([one.predicates for one in labels]),
        }


@dataclass
class _Labels:
    """Classes of the tracks (N,), pairs (R, 2) and predicates (R,) or (R, P) of an item."""

    classes: Tensor
    pairs: Tensor
    predicates: Tensor


def _labels(item: Mapping[str, Any], name: str) -> _Labels:
    """Read the labels of an item; the model checks their range."""
    try:
        classes, pairs, predicates = (
            torch.as_tensor(item[field]) for field in ("track_labels", "pair_index", "predicate_labels")
        )
        pairs = pairs.reshape(-1, 2) if pairs.numel() == 0 else pairs
        count = len(item["tracks"])
        valid = (
            classes.shape == (count,)
            and pairs.shape == (len(predicates), 2)
            and predicates.dim() in (1, 2)
            and (predicates.dim() == 1 or bool(torch.isin(predicates, VALUES.to(predicates)).all()))
            and not classes.dtype.is_floating_point
            and not (pairs.numel() and pairs.dtype.is_floating_point)
            and bool(((pairs >= 0) & (pairs < count)).all())  # padding is negative: a negative track would vanish
        )
    except (TypeError, ValueError, RuntimeError, OverflowError):
        valid = False
    require(
        valid,
        name,
        found="labels or pairs that do not fit the tracks",
        expected="track_labels (N,), pair_index (R, 2) below N, predicate_labels (R,) or (R, P) of 0, 1 and -100",
        fix=TAKE,
    )
    return _Labels(classes.long(), pairs.long(), predicates)
