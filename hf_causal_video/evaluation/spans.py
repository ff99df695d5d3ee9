"""Intervals in time: how they are read, and how two of them overlap.

Why: IoU asks whether a predicted span is the annotated one; IoP asks only whether it stays inside, which is
the fair question when a short look is enough to answer. Source: Xiao et al. 2024, NExT-GQA.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
from numpy.typing import ArrayLike

from hf_causal_video.evaluation.inputs import Row, Rows, by_key, whole_number
from hf_causal_video.utils.errors import require

PASS = "pass the content of gsub_<split>.json, or question rows with spans"


@dataclass(frozen=True)
class Annotated:
    """The true spans of one question, (spans, 2) seconds, with the video's length (0.0 unknown) and the answer."""

    spans: np.ndarray
    duration_s: float
    answer: int | None


def span_overlap(annotated: ArrayLike, predicted: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Intersection over union and over prediction, pair by pair; negative where two intervals are disjoint.

    Args:
        annotated: (..., 2) start and end of the true spans.
        predicted: (..., 2) start and end of the predicted spans, in the same unit. A span of zero length has
            IoU 0, and IoP 1 where it lies inside the annotated span (ends included), else 0.

    Returns:
        IoU (...) and IoP (...), float64.

    Example:
        >>> iou, iop = span_overlap([[2.0, 6.0], [0.0, 1.0]], [[4.0, 8.0], [0.5, 0.5]])
        >>> iou.round(3).tolist(), iop.tolist()
        ([0.333, 0.0], [0.5, 1.0])
    """
    annotated = np.asarray(annotated, np.float64)
    predicted = np.asarray(predicted, np.float64)
    inner = np.minimum(annotated[..., 1], predicted[..., 1]) - np.maximum(annotated[..., 0], predicted[..., 0])
    union = np.maximum(annotated[..., 1], predicted[..., 1]) - np.minimum(annotated[..., 0], predicted[..., 0])
    length = predicted[..., 1] - predicted[..., 0]
    point = length == 0
    iou = np.where(point, 0.0, inner / np.where(union > 0, union, 1.0))
    iop = np.where(point, (inner >= 0).astype(np.float64), inner / np.where(point, 1.0, length))
    return iou, iop


def read_span(key: str, row: Row) -> list[float]:
    """The one span [start, end] of a row: its `span`, the single entry of `spans`, or `start_s` and `end_s`."""
    value = row.get("span")
    spans = row.get("spans")
    if value is None and spans is not None:
        value = spans[0] if _is_list(spans) and len(spans) == 1 else spans
    if value is None and row.get("start_s") is not None:
        value = [row["start_s"], row.get("end_s")]
    return _interval(key, value, "predicted")


def read_grounding(annotations: Rows) -> dict[str, Annotated]:
    """True spans by question key, from the published NExT-GQA file or from question rows with `spans`.

    Example:
        >>> sorted(read_grounding({"v": {"duration": 9, "location": {"0": [[1, 2]], "1": [[3, 4]]}}}))
        ['v_0', 'v_1']
    """
    gold: dict[str, Annotated] = {}
    entries = annotations if isinstance(annotations, Mapping) else {}
    by_video = [
        (video, entry) for video, entry in entries.items() if isinstance(entry, Mapping) and "location" in entry
    ]
    if isinstance(annotations, Mapping) and len(by_video) == len(annotations):
        for video, entry in by_video:
            located = entry["location"]
            what = f"annotated spans of video {video}"
            is_by_question = isinstance(located, Mapping)
            require(
                is_by_question, what, found=repr(located)[:80], expected="{qid: [[start_s, end_s], ...]}", fix=PASS
            )
            for qid, spans in located.items():
                gold[f"{video}_{qid}"] = _annotated(f"{video}_{qid}", spans, entry.get("duration"), None)
    else:
        for key, row in by_key(annotations, "spans").items():
            spans = row.get("spans")
            if spans is not None and not (_is_list(spans) and len(spans) == 0):
                answer = None if row.get("answer") is None else whole_number(row["answer"], key, "answer")
                duration = row.get("duration_s") if row.get("duration_s") is not None else row.get("duration")
                gold[key] = _annotated(key, spans, duration, None if answer == -1 else answer)
    require(gold, "no annotated spans", found="0 questions with spans", expected="at least 1", fix=PASS)
    return gold


def _annotated(key: str, spans: object, duration: object, answer: int | None) -> Annotated:
    listed = list(spans) if _is_list(spans) else []
    what = f"annotated spans of question {key}"
    require(listed, what, found=repr(spans)[:80], expected="[[start_s, end_s], ...]", fix=PASS)
    pairs = [_interval(key, span, "annotated") for span in listed]
    length = 0.0 if duration is None else _number(duration)
    what = f"duration of the video of {key}"
    require(0 <= length < np.inf, f"invalid {what}", found=repr(duration), expected="seconds, 0 if unknown")
    return Annotated(np.array(pairs).reshape(-1, 2), length, answer)


def _is_list(value: object) -> TypeGuard[Sequence]:
    """Tell whether a value is a list, an array or a tensor with an axis."""
    is_sized = hasattr(value, "__len__") and hasattr(value, "__getitem__") and getattr(value, "ndim", 1) > 0
    return is_sized and not isinstance(value, str | bytes | Mapping)


def _number(value: object) -> float:
    """Return `value` as a float; NaN if it is not a number."""
    try:
        return np.nan if isinstance(value, bool | np.bool_) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return np.nan


def _interval(key: str, value: object, what: str) -> list[float]:
    start, end = map(_number, value) if _is_list(value) and len(value) == 2 else (np.nan, np.nan)
    fits = np.isfinite(start) and np.isfinite(end) and start <= end
    name = f"the {what} span of {key} is not an interval"
    fix = "pass one span per question (best_span of hf_causal_video.models.spans picks it)"
    require(fits, name, found=lambda: str(value)[:80], expected="[start, end], finite, start <= end", fix=fix)
    return [start, end]
