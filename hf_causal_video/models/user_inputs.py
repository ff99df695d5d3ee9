"""What is given to the question processor and what a model gave back, read once and checked.

Why a file of its own: a label too many, a box without its frame or a kept frame of another clip moves a number or a
drawing without a trace, so each is refused where it comes in.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_causal_video.models.outputs import VideoQAOutput
from hf_causal_video.utils.errors import CausalVideoError


def read_texts(name: str, value: Any, fix: str) -> list[str]:
    """One or more texts, none of them blank."""
    texts = [value] if isinstance(value, str) else list(value) if _is_list(value) else []
    if not texts or not all(map(_is_text, texts)):
        raise CausalVideoError(name, found=repr(value)[:80], expected=f"text in every {name}", fix=fix)
    return texts


def read_choices(choices: Any, count: int) -> list[list[str]]:
    """A list of choices for each of `count` questions; a single list is that of a single question."""
    given: list[Any] = list(choices) if _is_list(choices) else []
    lists = [given] if given and isinstance(given[0], str) else given
    good = all(_is_list(one) and len(one) and all(map(_is_text, one)) for one in lists)
    if len(lists) != count or not good:
        raise CausalVideoError(
            "choices",
            found=f"{len(lists)} lists, {repr(lists)[:80]}",
            expected=f"{count} lists of at least one non-empty choice",
            fix="give each question its choices",
        )
    return [list(one) for one in lists]


def read_labels(value: Any, count: int) -> Tensor:
    """Indices of the right answers, (B,), -100 where unknown."""
    labels = _tensor(value)
    if labels is None or labels.numel() != count or labels.dim() > 1 or _kind(labels) != "whole":
        raise CausalVideoError(
            "labels", found=repr(value)[:80], expected=f"{count} whole numbers, one a question",
            fix="give the index of the right answer of each question, -100 where it is unknown",
        )  # fmt: skip
    return labels.long().reshape(-1)


def as_list(name: str, value: Any, dims: int, count: int) -> list[Tensor]:
    """One tensor of `dims` axes for each of `count` questions; a single one serves all."""
    value = torch.from_numpy(value) if isinstance(value, np.ndarray) and value.dtype.kind in "fiub" else value
    if isinstance(value, Tensor):
        items: list[Any] = [value] * count if value.dim() == dims else list(value) if value.dim() == dims + 1 else []
    else:
        items = [_tensor(item) for item in value] if _is_list(value) else []
        if dims == 1 and items and all(item is not None and item.dim() == 0 for item in items):  # a list of numbers
            items = [torch.stack([item.double() for item in items])] * count
    good = len(items) == count and all(i is not None and i.dim() == dims and 0 not in i.shape for i in items)
    if not good or len({item.shape[1:] for item in items}) != 1:
        shapes = [None if item is None else tuple(item.shape) for item in items[:4]]
        raise CausalVideoError(
            name,
            found=f"shapes {shapes}" if items else repr(value)[:80],
            expected=f"{count} tensors of {dims} axes, none empty, that differ in the first axis at most",
            fix="give each question the features of its video",
        )
    return items


def stack(name: str, value: Any, dims: int, count: int) -> tuple[Tensor, Tensor]:
    """Pad the first axis to the longest: (B, T, ...) in float32, and the mask (B, T) of what is real."""
    items = [item.to(torch.float32) for item in as_list(name, value, dims, count)]
    if bad := [i for i, item in enumerate(items) if not item.isfinite().all()]:
        raise CausalVideoError(
            name, found=f"NaN or infinity in rows {bad}", expected="finite numbers", fix="extract them again"
        )
    lengths = torch.tensor([len(item) for item in items])
    mask = torch.arange(int(lengths.max())) < lengths.unsqueeze(1)
    return torch.nn.utils.rnn.pad_sequence(items, batch_first=True), mask


def read_objects(given: dict[str, Any], mask: Tensor) -> dict[str, Tensor]:
    """Objects as the model reads them, of the same frames as the frame features, whose mask (B, T) this is.

    Args:
        given: `object_features`, and `object_boxes` and `object_mask` or None.
        mask: (B, T).
    """
    found: dict[str, Tensor] = {}
    for name, value in given.items():
        if value is None:
            continue
        found[name], there = stack(name, value, 2 if name == "object_mask" else 3, len(mask))
        first = found.get("object_features")
        width = 4 if name == "object_boxes" else found[name].shape[-1]
        beside = first is not None and found[name].shape[1:3] == first.shape[1:3] and found[name].shape[-1] == width
        if not beside or not torch.equal(there, mask):
            raise CausalVideoError(
                name,
                found=f"shape {tuple(found[name].shape)}, frames {there.sum(1).tolist()}",
                expected=f"objects of the frames {mask.sum(1).tolist()}, and boxes (T, N, 4) and mask (T, N) of these",
                fix="pass object features, boxes and mask of the same video",
            )
    if "object_mask" in found:
        if not ((found["object_mask"] == 0) | (found["object_mask"] == 1)).all():
            raise CausalVideoError(
                "object_mask", found="other values", expected="True or False", fix="pass scores > threshold"
            )
        found["object_mask"] = found["object_mask"].bool()
    return found


def read_times(value: Any, lengths: Sequence[int]) -> list[Tensor]:
    """Seconds of the frames, (T,) for each question."""
    items = as_list("timestamps", value, 1, len(lengths))
    if [len(item) for item in items] != list(lengths) or not all(item.isfinite().all() for item in items):
        raise CausalVideoError(
            "timestamps", found=f"{[len(item) for item in items]} times", fix="pass the times of these frames",
            expected=f"{list(lengths)} finite seconds, one a frame",
        )  # fmt: skip
    return items


def read_durations(value: Any, count: int) -> Tensor | None:
    """Length of the clip of each question in seconds, () or (B,); 0 where unknown."""
    if value is None:
        return None
    lengths = _tensor(value, torch.float64)
    if lengths is None or lengths.shape not in ((), (count,)) or not (lengths >= 0).all():
        raise CausalVideoError(
            "duration_s", found=repr(value)[:80], expected=f"seconds, one number or {count}", fix="leave it out"
        )
    return lengths


def check_evidence(output: VideoQAOutput) -> None:
    """Refuse an output whose parts do not belong together, or are no numbers."""
    logits, scores, kept = output.logits, output.frame_scores, output.kept_frames
    if logits is None or scores is None or kept is None:
        raise CausalVideoError(
            "evidence",
            found="an output without frame_scores and kept_frames",
            expected="the output of a model that chooses frames",
            fix="pass the model's own output",
        )
    if logits.dim() == 2 and not (finite := logits.float().softmax(-1).isfinite()).all():
        raise CausalVideoError(
            "answer",
            found=f"NaN among the logits of {int((~finite).any(1).sum())} of {len(logits)} questions",
            expected="finite logits",
            fix="check the features for NaN; in half precision, try bfloat16",
        )
    _require(logits.dim() == 2 and 0 not in logits.shape, "logits", logits, "(B, A)")
    _require(scores.dim() == 2 and len(scores) == len(logits), "frame_scores", scores, "(B, T)")
    _require(not (scores.isnan() | (scores == torch.inf)).any(), "frame_scores", scores, "numbers, -inf at padding")
    _check_places("kept_frames", kept, scores.shape[:1], scores.shape[1])
    chances, objects, boxes = output.object_scores, output.kept_objects, output.kept_boxes
    if objects is None or chances is None:
        return
    _require(chances.dim() == 3 and chances.shape[:2] == kept.shape, "object_scores", chances, "(B, K, N)")
    _require(not (chances.isnan() | (chances == torch.inf)).any(), "object_scores", chances, "numbers, or -inf")
    _check_places("kept_objects", objects, kept.shape, chances.shape[2])
    if boxes is not None:
        _require(boxes.shape == (*objects.shape, 4) and bool(boxes.isfinite().all()), "kept_boxes", boxes,
                 "(B, K, M, 4) finite numbers")  # fmt: skip


def _check_places(name: str, places: Tensor, leading: Sequence[int], limit: int) -> None:
    whole = _kind(places) == "whole" and places.dim() == len(leading) + 1 and places.shape[:-1] == tuple(leading)
    _require(whole and bool(((places >= 0) & (places < limit)).all()), name, places, f"indices from 0 to {limit - 1}")


def _require(right: bool, name: str, found: Tensor, expected: str) -> None:
    if not right:
        raise CausalVideoError(
            f"{name} of the output", found=f"{found.dtype} {tuple(found.shape)}", expected=expected,
            fix="pass the model's own output for this batch",
        )  # fmt: skip


def _kind(tensor: Tensor) -> str:
    is_whole = not tensor.dtype.is_floating_point and not tensor.dtype.is_complex and tensor.dtype != torch.bool
    return "whole" if is_whole else "other"


def _tensor(value: Any, dtype: torch.dtype | None = None) -> Tensor | None:
    try:
        return torch.as_tensor(value, dtype=dtype)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes)


def _is_text(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(value.strip()) and bool(value.encode())
    except UnicodeEncodeError:
        return False
