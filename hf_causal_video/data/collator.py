"""From dataset items to one batch of model inputs; the processor does the padding, this file only gathers."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hf_causal_video.errors import CausalVideoError

IGNORED_LABEL = -100  # what torch's cross entropy leaves out


@dataclass
class VideoQACollator:
    """Gather the items of `VideoQADataset` and let the processor tokenize, pad and stack them.

    Args:
        processor: a `VideoQAProcessor`, or any callable with its keyword arguments.
        with_labels: hand the answers over as labels; an unknown answer (-1) becomes -100, which the loss
            leaves out. Turn it off for questions whose answers nobody knows.
        with_video_ids: also hand over `video_ids` (B,), for models that swap frames between videos.

    Raises:
        CausalVideoError: no items, or a batch that mixes open-ended with multiple-choice questions, or videos
            with and without objects.

    Example:
        >>> collator = VideoQACollator(processor=lambda **inputs: sorted(inputs))
        >>> item = {"question": "who runs", "choices": [], "answer": 3, "frame_features": torch.zeros(16, 64)}
        >>> collator([item])
        ['frame_features', 'labels', 'question', 'return_tensors']
    """

    processor: Callable[..., Any]
    with_labels: bool = True
    with_video_ids: bool = False

    def __call__(self, items: Sequence[dict[str, Any]]) -> Any:
        if not items:
            raise CausalVideoError(
                "an empty batch", found="0 items", expected="1 or more", fix="check the batch sampler"
            )
        inputs: dict[str, Any] = {
            "question": [item["question"] for item in items],
            "frame_features": [item["frame_features"] for item in items],
        }
        if _all_or_none([bool(item["choices"]) for item in items], "multiple-choice"):
            inputs["choices"] = [list(item["choices"]) for item in items]
        if _all_or_none(["object_features" in item for item in items], "with object features"):
            for name in ("object_features", "object_boxes", "object_mask"):
                inputs[name] = [item[name] for item in items]
        if self.with_labels:
            inputs["labels"] = torch.tensor(
                [a if (a := item["answer"]) >= 0 else IGNORED_LABEL for item in items]
            )
        batch = self.processor(**inputs, return_tensors="pt")
        if self.with_video_ids:
            batch["video_ids"] = torch.tensor([video_number(item["video_id"]) for item in items])
        return batch


def video_number(video_id: str) -> int:
    """A whole number for a video, the same in every process and run; different videos have different ones.

    Example:
        >>> video_number("4010069381") == video_number("4010069381") != video_number("4010069382")
        True
    """
    return int.from_bytes(hashlib.blake2b(video_id.encode(), digest_size=8).digest()) >> 1  # fits int64


def _all_or_none(flags: list[bool], what: str) -> bool:
    if any(flags) and not all(flags):
        raise CausalVideoError(
            "a batch of two kinds of items",
            found=f"{sum(flags)} of {len(flags)} are {what}",
            expected="all or none of them",
            fix="split the questions into two datasets",
        )
    return all(flags)
