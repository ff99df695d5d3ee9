"""From dataset items to one batch of model inputs; the processor does the padding, this file only gathers."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hf_causal_video.utils.checks import check_fields, check_whole, is_list, is_text
from hf_causal_video.utils.errors import require

IGNORED_LABEL = -100  # what torch's cross entropy leaves out


@dataclass
class VideoQACollator:
    """Gather the items of `VideoQADataset` and let the processor tokenize, pad and stack them.

    Args:
        processor: a `VideoQAProcessor`, or any callable with its keyword arguments.
        with_labels: hand the answers over as labels; an unknown answer (-1) becomes -100, which the loss
            leaves out. Turn it off for questions whose answers nobody knows.
        with_video_ids: also hand over `video_ids` (B,), for models that swap frames between videos.
        share_videos: hand each video over once, with `video_index` (B,) for the row of each question's video.

    Raises:
        CausalVideoError: no items, an item without a key that is needed or whose answer is not among its choices, or a
            batch that mixes open-ended with multiple-choice questions, or videos with and without objects.

    Example:
        >>> collator = VideoQACollator(processor=lambda **inputs: sorted(inputs))
        >>> item = {"question": "who runs", "choices": [], "answer": 3, "frame_features": torch.zeros(16, 64)}
        >>> collator([item])
        ['frame_features', 'labels', 'question', 'return_tensors']
    """

    processor: Callable[..., Any]
    with_labels: bool = True
    with_video_ids: bool = False
    share_videos: bool = False

    def __call__(self, items: Sequence[dict[str, Any]]) -> Any:
        require(is_list(items) and items, "an empty batch", found=lambda: repr(items)[:80], expected="1 item or more")
        for item in items:
            self._check(item)
        videos = list(items)
        inputs: dict[str, Any] = {"question": [item["question"] for item in items]}
        if self.share_videos:
            rows = {name: row for row, name in enumerate(dict.fromkeys(item["video_id"] for item in items))}
            inputs["video_index"] = [rows[item["video_id"]] for item in items]
            first = {item["video_id"]: item for item in reversed(items)}
            videos = [first[name] for name in rows]
        inputs["frame_features"] = [item["frame_features"] for item in videos]
        if _all_or_none([bool(item["choices"]) for item in items], "multiple-choice"):
            inputs["choices"] = [list(item["choices"]) for item in items]
        if _all_or_none(["object_features" in item for item in items], "with object features"):
            for name in ("object_features", "object_boxes", "object_mask"):
                inputs[name] = [item[name] for item in videos]
        if self.with_labels:
            inputs["labels"] = torch.tensor([a if (a := item["answer"]) >= 0 else IGNORED_LABEL for item in items])
        batch = self.processor(**inputs, return_tensors="pt")
        if self.with_video_ids:
            batch["video_ids"] = torch.tensor([video_number(item["video_id"]) for item in items])
        return batch

    def _check(self, item: Mapping[str, Any]) -> None:
        needed = {"question", "frame_features", "choices"}
        needed |= {"answer"} if self.with_labels else set()
        needed |= {"video_id"} if self.with_video_ids or self.share_videos else set()
        if isinstance(item, Mapping) and "object_features" in item:
            needed |= {"object_boxes", "object_mask"}
        row = check_fields("item of a batch", item, sorted(needed), fix="take the items of VideoQADataset")
        choices = row["choices"]
        require(is_list(choices), "choices of an item of a batch", found=repr(choices), expected="a list")
        if self.with_labels:
            most = len(choices) - 1 if len(choices) else 2**31 - 1
            check_whole(f"answer of question {row.get('question_id')!r}", row["answer"], -1, most)


def video_number(video_id: str) -> int:
    """A whole number for a video, the same in every process and run; different videos have different ones.

    Example:
        >>> video_number("4010069381") == video_number("4010069381") != video_number("4010069382")
        True
    """
    require(is_text(video_id), "a video id", found=repr(video_id), expected="text", fix="use str(id)")
    return int.from_bytes(hashlib.blake2b(video_id.encode(), digest_size=8).digest()) >> 1  # fits int64


def _all_or_none(flags: list[bool], what: str) -> bool:
    is_one_kind = all(flags) or not any(flags)
    problem = f"{sum(flags)} of {len(flags)} are {what}"
    require(is_one_kind, "a batch of two kinds of items", found=problem, expected="one kind", fix="split the dataset")
    return all(flags)
