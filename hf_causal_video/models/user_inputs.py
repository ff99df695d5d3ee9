"""Checks and conversions of what a user passes to the question processor, and of a model's output.

Why a file of its own: a label too many, a box without its frame or a kept frame of another clip changes a number or a
drawing without a trace, so each is refused where it enters.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import BatchFeature
from transformers.video_utils import VideoMetadata

from hf_causal_video.models.outputs import VideoQAOutput
from hf_causal_video.utils.checks import is_list, is_text
from hf_causal_video.utils.errors import CausalVideoError, require

INPUT_NAMES = (
    "input_ids",
    "attention_mask",
    "choice_input_ids",
    "choice_attention_mask",
    "frame_features",
    "frame_mask",
    "object_features",
    "object_boxes",
    "object_mask",
    "video_index",
)


class VideoQAInputs(BatchFeature):
    """Model inputs; what is not an input of the model is kept outside the mapping, so `model(**inputs)` stays plain.

    Args:
        timestamps_s: seconds of the frames, (T,) for each question; None where they were not passed.
        unknown_words: for each question the words of it and of its choices that the tokenizer does not know.
    """

    timestamps_s: list[Tensor] | None = None
    unknown_words: list[list[str]] = []

    def __getstate__(self) -> dict[str, object]:
        """Keep the seconds and the words through pickle, `copy.deepcopy` and data loader workers."""
        return {**super().__getstate__(), "timestamps_s": self.timestamps_s, "unknown_words": self.unknown_words}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.timestamps_s = state["timestamps_s"]
        self.unknown_words = state["unknown_words"]


def either(name: str, value: object, alias: str, other: object) -> Any:
    """Return the value of an argument that has two names."""
    both = value is not None and other is not None
    fix = f"remove {alias}: {alias} is another name of {name}"
    require(not both, name, found=f"{name}=... and {alias}=...", expected="one of them", fix=fix)
    return other if value is None else value


def read_texts(name: str, value: object, fix: str) -> list[str]:
    """Return one or more texts as a list; none may be blank."""
    texts = [value] if isinstance(value, str) else list(value) if is_list(value) else []
    _check(texts and all(map(_is_filled, texts)), name, value, f"text in every {name}", fix)
    return texts


def read_choices(choices: object, count: int) -> list[list[str]]:
    """Return a list of choices for each of `count` questions; a single list belongs to a single question."""
    items = list(choices) if is_list(choices) else []
    lists = [items] if items and isinstance(items[0], str) else items
    filled = all(is_list(one) and len(one) and all(map(_is_filled, one)) for one in lists)
    expected = f"{count} lists of at least one non-empty choice"
    _check(len(lists) == count and filled, "choices", lists, expected, "pass the choices of each question")
    return [list(one) for one in lists]


def read_labels(value: object, count: int) -> Tensor:
    """Return the indices of the right answers, (B,), -100 where unknown."""
    labels = _tensor(value)
    fits = labels.numel() == count and labels.dim() <= 1 and _is_integer(labels)
    _check(fits, "labels", value, f"{count} integers, one per question, -100 where unknown")
    return labels.long().reshape(-1)


def read_video_index(value: object, count: int) -> tuple[Tensor, int]:
    """Return the row of each question's video (B,), and how many videos there are; each must be asked about."""
    index = _tensor(value)
    fits = index.shape == (count,) and _is_integer(index)
    rows = sorted(set(index.tolist())) if fits else []
    expected = f"{count} rows of videos, none left out"
    _check(fits and rows == list(range(len(rows))), "video_index", value, expected, "pass only videos asked about")
    return index.long(), len(rows)


def as_list(name: str, value: object, dims: int, count: int) -> list[Tensor]:
    """Return one tensor of `dims` axes for each of `count` questions; a single one serves all of them.

    Args:
        name: of the argument, for the message.
        value: a tensor or array of `dims` or `dims + 1` axes, a list of them, or nested lists of numbers, as an
            unformatted row of `datasets` holds them.
        dims: axes of one item.
        count: number of questions.
    """
    items: list[object] = []
    value = _plain_tensor(value, dims)
    if isinstance(value, Tensor):
        items = [value] * count if value.dim() == dims else list(value) if value.dim() == dims + 1 else []
    elif is_list(value):
        items = [_plain_tensor(item, dims) for item in value]
    tensors = [item for item in items if isinstance(item, Tensor) and item.dim() == dims and 0 not in item.shape]
    require(
        len(tensors) == len(items) == count and len({item.shape[1:] for item in tensors}) == 1,
        name,
        found=lambda: f"shapes {[_shape(item) for item in items[:4]]}" if items else repr(value)[:80],
        expected=f"{count} tensors of {dims} axes, none empty, that differ in the first axis at most",
        fix="pass the features of each question's video",
    )
    return tensors


def stack(name: str, value: object, dims: int, count: int) -> tuple[Tensor, Tensor]:
    """Pad the first axis to the longest: (B, T, ...) in float32, and the mask (B, T) of real entries."""
    items = [item.to(torch.float32) for item in as_list(name, value, dims, count)]
    padded = torch.nn.utils.rnn.pad_sequence(items, batch_first=True)  # (B, T, ...)
    extremes = torch.stack(torch.aminmax(padded))  # one pass over the batch, without a mask of all elements
    require(
        extremes.isfinite().all(),
        name,
        found=lambda: f"NaN or infinity in rows {[row for row, x in enumerate(items) if not x.isfinite().all()]}",
        expected="finite numbers",
        fix="extract them again",
    )
    lengths = torch.tensor([len(item) for item in items])
    return padded, torch.arange(padded.shape[1]) < lengths.unsqueeze(1)  # (B, T)


def read_objects(values: Mapping[str, object], mask: Tensor) -> dict[str, Tensor]:
    """Return objects as the model reads them, for the frames of the frame features.

    Args:
        values: `object_features`, and `object_boxes` and `object_mask` or None.
        mask: (B, T) frame mask of the frame features.
    """
    objects: dict[str, Tensor] = {}
    for name, value in values.items():
        if value is None:
            continue
        objects[name], frames = stack(name, value, 2 if name == "object_mask" else 3, len(mask))
        features = objects.get("object_features")
        width = 4 if name == "object_boxes" else objects[name].shape[-1]
        matches = features is not None and objects[name].shape[1:3] == features.shape[1:3]
        fits = matches and objects[name].shape[-1] == width and torch.equal(frames, mask)
        problem = f"shape {tuple(objects[name].shape)}, frames {frames.sum(1).tolist()}"
        expected = f"objects of the frames {mask.sum(1).tolist()}, and boxes (T, N, 4) and mask (T, N) of these"
        require(fits, name, found=problem, expected=expected)
    if "object_mask" in objects:
        present = objects["object_mask"]  # (B, T, N)
        binary = ((present == 0) | (present == 1)).all()
        require(binary, "object_mask", found="other values", expected="True or False", fix="pass scores > threshold")
        objects["object_mask"] = present.bool()
    return objects


def seconds_of(value: object) -> Any:
    """Return the frame times that `VideoMetadata` states, alone or in a list; anything else as it is.

    Example:
        >>> seconds_of(VideoMetadata(total_num_frames=50, fps=25.0, frames_indices=[0, 25]))
        [0.0, 1.0]
    """
    if isinstance(value, list | tuple) and value and all(isinstance(item, VideoMetadata) for item in value):
        return [torch.tensor(seconds_of(item), dtype=torch.float64) for item in value]
    if not isinstance(value, VideoMetadata):
        return value
    fix = "set fps and frames_indices, or pass seconds"
    known = value.fps and value.frames_indices is not None
    _check(known, "timestamps", value, "VideoMetadata with a rate and the indices of the frames", fix)
    return value.timestamps


def read_times(value: object, lengths: Sequence[int]) -> list[Tensor]:
    """Return the seconds of the frames, (T,) for each question."""
    items = as_list("timestamps", seconds_of(value), 1, len(lengths))
    counts = [len(item) for item in items]
    fits = counts == list(lengths) and all(item.isfinite().all() for item in items)
    require(fits, "timestamps", found=f"{counts} times", expected=f"{list(lengths)} finite seconds, one per frame")
    return items


def read_durations(value: object, count: int) -> Tensor | None:
    """Return the length of each question's clip in seconds, () or (B,); 0 where unknown."""
    if value is None:
        return None
    lengths = _tensor(value, torch.float64)
    fits = lengths.shape in ((), (count,)) and (lengths >= 0).all()
    _check(fits, "duration_s", value, f"seconds, one number or {count}", "leave it out")
    return lengths


def check_evidence(output: VideoQAOutput) -> None:
    """Refuse an output whose parts do not belong together, or are not finite."""
    logits = output.logits
    scores = output.frame_scores
    kept = output.kept_frames
    if logits is None or scores is None or kept is None:
        raise CausalVideoError(
            "evidence",
            found="an output without frame_scores and kept_frames",
            expected="the output of a model that chooses frames",
            fix="pass the model's own output",
        )
    finite = logits.float().softmax(-1).isfinite() if logits.dim() == 2 else torch.ones(1, 1, dtype=torch.bool)
    require(
        finite.all(),
        "answer",
        found=lambda: f"NaN among the logits of {int((~finite).any(1).sum())} of {len(logits)} questions",
        expected="finite logits",
        fix="check the features for NaN; in half precision, try bfloat16",
    )
    _check_output(logits.dim() == 2 and 0 not in logits.shape, "logits", logits, "(B, A)")
    _check_output(scores.dim() == 2 and len(scores) == len(logits), "frame_scores", scores, "(B, T)")
    finite_scores = not (scores.isnan() | (scores == torch.inf)).any()
    _check_output(finite_scores, "frame_scores", scores, "numbers, -inf at padding")
    _check_indices("kept_frames", kept, scores.shape[:1], scores.shape[1])
    object_scores = output.object_scores
    objects = output.kept_objects
    boxes = output.kept_boxes
    if objects is None or object_scores is None:
        return
    shaped = object_scores.dim() == 3 and object_scores.shape[:2] == kept.shape
    _check_output(shaped, "object_scores", object_scores, "(B, K, N)")
    finite_scores = not (object_scores.isnan() | (object_scores == torch.inf)).any()
    _check_output(finite_scores, "object_scores", object_scores, "numbers, or -inf")
    _check_indices("kept_objects", objects, kept.shape, object_scores.shape[2])
    if boxes is not None:
        fits = boxes.shape == (*objects.shape, 4) and bool(boxes.isfinite().all())
        _check_output(fits, "kept_boxes", boxes, "(B, K, M, 4) finite numbers")


def _check_indices(name: str, indices: Tensor, leading: Sequence[int], limit: int) -> None:
    shaped = indices.dim() == len(leading) + 1 and indices.shape[:-1] == tuple(leading)
    inside = shaped and _is_integer(indices) and bool(((indices >= 0) & (indices < limit)).all())
    _check_output(inside, name, indices, f"indices from 0 to {limit - 1}")


def _check_output(condition: bool, name: str, tensor: Tensor, expected: str) -> None:
    require(
        condition,
        f"{name} of the output",
        found=lambda: f"{tensor.dtype} {tuple(tensor.shape)}",
        expected=expected,
        fix="pass the model's own output for this batch",
    )


def _check(fits: object, name: str, value: object, expected: str, fix: str = "correct it") -> None:
    require(fits, name, found=lambda: repr(value)[:80], expected=expected, fix=fix)


def _plain_tensor(value: object, dims: int) -> object:
    """Return a tensor from an array or from nested lists of numbers; the value itself where that fails."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return torch.from_numpy(value)
    if not is_list(value) or not len(value):
        return value
    if isinstance(value[0], Tensor | np.ndarray):  # a list of tensors: one item each, or the rows of a single one
        parts = [_tensor(item) for item in value]
        single = len({part.shape for part in parts}) == 1 and parts[0].dim() == dims - 1
        return torch.stack([part.double() for part in parts]) if single else value
    try:
        array = np.asarray(value)
    except ValueError:  # lists of different lengths
        return value
    return torch.from_numpy(array) if array.dtype.kind in "fiub" else value


def _shape(value: object) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _is_integer(tensor: Tensor) -> bool:
    return not tensor.dtype.is_floating_point and not tensor.dtype.is_complex and tensor.dtype != torch.bool


def _tensor(value: object, dtype: torch.dtype | None = None) -> Tensor:
    """Return a tensor; where that fails, an empty one of nine axes, which no check accepts."""
    try:
        return torch.as_tensor(value, dtype=dtype)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return torch.empty([0] * 9)


def _is_filled(value: object) -> bool:
    return is_text(value) and bool(value.strip())
