"""Spans of time in seconds from scores or kept frames, by three rules; and frames from spans.

Why: a model that keeps frames claims that the answer lies there; only seconds let that claim be checked
against an annotation, drawn under a clip, or cut out of it.

Every rule rests on the slice of time that a frame owns (`frame_slices`): frames at 1, 3, 5 s own 0-2, 2-4, 4-6 s.

Source: window growth and Gaussian fit after the post-hoc and the learned grounding of NExT-GQA (arXiv
2309.01327).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from hf_causal_video.models.frame_times import ROUNDING_S, batch_of_times, check_same_shape, frame_slices
from hf_causal_video.utils.checks import check_number
from hf_causal_video.utils.errors import CausalVideoError, require

Span = tuple[float, float, float]  # start_s, end_s, score


def kept_frames_to_spans(
    kept: Tensor,
    timestamps: Tensor,
    scores: Tensor | None = None,
    frame_mask: Tensor | None = None,
    duration_s: float | Tensor | None = None,
) -> list[list[Span]]:
    """Kept frames as spans: each kept frame gives its slice, and slices of neighbouring kept frames merge.

    With frames at 1, 3, 5, 7, 9 s and 1, 2, 4 kept, the slices are 2-4, 4-6 and 8-10 s, so the spans are 2-6
    and 8-10 s.

    Args:
        kept: (B, T) bool, or (B, K) int indices of frames, where an index may repeat.
        timestamps: (B, T), or (T,) for all rows.
        scores: (B, T) frame scores; a span's score is the mean over its frames, or 1.0 without scores.
        frame_mask: (B, T) true for real frames.
        duration_s: as in `frame_slices`.

    Returns:
        For each row its spans (start_s, end_s, score) in order of time.

    Raises:
        CausalVideoError: as `frame_slices`; an index outside the real frames; scores that are not finite.

    Example:
        >>> kept_frames_to_spans(torch.tensor([[1, 2, 4]]), torch.tensor([1.0, 3.0, 5.0, 7.0, 9.0]))
        [[(2.0, 6.0, 1.0), (8.0, 10.0, 1.0)]]
    """
    timestamps = batch_of_times(timestamps, kept)
    frame_mask = torch.ones_like(timestamps, dtype=torch.bool) if frame_mask is None else frame_mask.bool()
    slices = frame_slices(timestamps, frame_mask, duration_s).tolist()
    chosen = kept if kept.dtype == torch.bool else _index_mask(kept, timestamps.shape[1])
    check_same_shape(chosen, timestamps, "kept")
    padding = (chosen & ~frame_mask).nonzero()
    require(not len(padding), "a kept frame is padding", found=padding[:9].tolist, expected="real frames only")
    weights = torch.ones_like(timestamps) if scores is None else _finite_scores(scores, frame_mask)
    check_same_shape(weights, timestamps, "scores")
    return [_runs(*row) for row in zip(chosen.tolist(), slices, weights.tolist(), strict=True)]


def grow_window(
    scores: Tensor,
    timestamps: Tensor,
    fraction: float = 0.5,
    frame_mask: Tensor | None = None,
    duration_s: float | Tensor | None = None,
) -> list[Span]:
    """One span per row: from the highest score outwards, while the score stays at or above a part of it.

    With scores 1, 6, 8, 5, 7 at 1, 3, 5, 7, 9 s and `fraction` 0.7 the bound is 5.6: the peak at 5 s takes in
    3 s but not 7 s, and what lies beyond is out of reach. The span is 2-6 s, its score the mean 7.

    Args:
        scores: (B, T), not negative, such as attention or probabilities.
        timestamps: (B, T), or (T,) for all rows.
        fraction: in (0, 1]; 1 keeps the peak and its equals.
        frame_mask: (B, T) true for real frames.
        duration_s: as in `frame_slices`.

    Returns:
        For each row (start_s, end_s, mean score).

    Raises:
        CausalVideoError: as `frame_slices`; scores below 0 or all 0; a fraction outside (0, 1].

    Example:
        >>> times = torch.tensor([1.0, 3.0, 5.0, 7.0, 9.0])
        >>> grow_window(torch.tensor([[1.0, 6.0, 8.0, 5.0, 7.0]]), times, fraction=0.7)
        [(2.0, 6.0, 7.0)]
    """
    check_number("fraction", fraction, above=0, most=1, fix="try 0.5")
    weights, slices, mask = _weighted(scores, timestamps, frame_mask, duration_s)
    peak, start = weights.max(dim=1)  # (B,), (B,)
    high = (weights >= fraction * peak[:, None]) & mask  # (B, T)
    # A frame belongs to the window when no frame between it and the peak is low: their counts of low frames agree.
    low_before = (~high).cumsum(1)  # (B, T) low frames up to and with this one
    reached = high & (low_before == low_before.gather(1, start[:, None]))
    return [_runs(*row)[0] for row in zip(reached.tolist(), slices.tolist(), weights.tolist(), strict=True)]


def fit_gaussian(
    scores: Tensor,
    timestamps: Tensor,
    gamma: float = 1.0,
    frame_mask: Tensor | None = None,
    duration_s: float | Tensor | None = None,
) -> list[Span]:
    """One span per row: the weighted mean time plus and minus `gamma` weighted standard deviations.

    With scores 1, 2, 1 at 2, 4, 6 s the mean is 4 and the deviation sqrt(2) s; `gamma` 1 gives 2.59-5.41 s.
    The span is cut to the slices of the clip, and always holds the slice of the frame nearest to the mean, so
    that it is never empty.

    Args:
        scores: (B, T), not negative.
        timestamps: (B, T), or (T,) for all rows.
        gamma: half width in deviations, positive.
        frame_mask: (B, T) true for real frames.
        duration_s: as in `frame_slices`.

    Returns:
        For each row (start_s, end_s, share of the total score on frames inside).

    Raises:
        CausalVideoError: as `grow_window`; a gamma that is not positive.

    Example:
        >>> [(start, end, share)] = fit_gaussian(torch.tensor([[1.0, 2.0, 1.0]]), torch.tensor([2.0, 4.0, 6.0]))
        >>> round(start, 2), round(end, 2), share
        (2.59, 5.41, 0.5)
    """
    check_number("gamma", gamma, above=0, fix="try 1.0")
    weights, slices, mask = _weighted(scores, timestamps, frame_mask, duration_s)
    times = batch_of_times(timestamps, weights).double().masked_fill(~mask, 0.0)  # (B, T)
    share = weights / weights.sum(1, keepdim=True)  # (B, T)
    mean = (share * times).sum(1, keepdim=True)  # (B, 1)
    deviation = (share * (times - mean).square()).sum(1, keepdim=True).sqrt()  # (B, 1)
    nearest = (times - mean).abs().masked_fill(~mask, float("inf")).argmin(1)  # (B,)
    floor = slices[torch.arange(len(slices)), nearest]  # (B, 2)
    first, last = slices[:, 0, :1], slices[..., 1].amax(1, keepdim=True)  # (B, 1)
    start = torch.minimum((mean - gamma * deviation).maximum(first), floor[:, :1])
    end = torch.maximum((mean + gamma * deviation).minimum(last), floor[:, 1:])
    inside = (share * ((times >= start) & (times <= end))).sum(1)  # (B,)
    return [tuple(row) for row in torch.stack([start[:, 0], end[:, 0], inside], dim=1).tolist()]


def best_span(spans: list[Span]) -> Span:
    """The span of the highest score; among equals the longest, then the earliest.

    Example:
        >>> best_span([(0.0, 2.0, 1.0), (5.0, 9.0, 1.0)])
        (5.0, 9.0, 1.0)
    """
    require(spans, "spans", found="none", expected="at least 1", fix="keep a frame")
    return best_first(spans)[0]


def best_first(spans: list[Span]) -> list[Span]:
    """Spans in the order of `best_span`: the higher score first, then the longer, then the earlier.

    Example:
        >>> best_first([(0.0, 2.0, 1.0), (3.0, 4.0, 2.0), (5.0, 9.0, 1.0)])
        [(3.0, 4.0, 2.0), (5.0, 9.0, 1.0), (0.0, 2.0, 1.0)]
    """
    return sorted(spans, key=lambda span: (-span[2], span[0] - span[1], span[0]))


def frames_in_spans(timestamps: Tensor, spans: Sequence[Sequence[float]]) -> Tensor:
    """Frames that lie in spans of seconds.

    A frame belongs to a span when its time does, ends included; a span that falls between two frames takes the one
    nearest to its middle, so that every span has a frame. With frames at 1, 3, 5, 7, 9 s the spans 2.5-5.5 and
    7.6-7.9 s give 3, 5 and 7 s.

    Args:
        timestamps: (T,) seconds, increasing.
        spans: [start_s, end_s], such as annotated ones.

    Returns:
        (T,) bool.

    Raises:
        CausalVideoError: as `frame_slices`; an invalid interval, or one outside the clip.

    Example:
        >>> frames_in_spans(torch.tensor([1.0, 3.0, 5.0, 7.0, 9.0]), [(2.5, 5.5), (7.6, 7.9)]).tolist()
        [False, True, True, True, False]
    """
    slices = frame_slices(timestamps[None])[0]  # (T, 2)
    times = timestamps.double()
    inside = torch.zeros_like(times, dtype=torch.bool)
    for start, end in map(_pair, spans):
        covered = (times >= start) & (times <= end)  # (T,)
        if not covered.any() and start <= end:
            middle = (start + end) / 2
            nearest = int((times - middle).abs().argmin())
            left, right = slices[nearest].tolist()
            allowed = max(ROUNDING_S, right - left)  # annotated seconds are rounded
            covered[nearest] = left - allowed <= middle <= right + allowed
        problem = f"{start:g} to {end:g} s, frames from {times[0].item():g} to {times[-1].item():g} s"
        expected = "start_s <= end_s, in seconds, within the clip"
        require(covered.any(), "a span lies outside the frames", found=problem, expected=expected)
        inside |= covered
    return inside


def _pair(span: Sequence[float]) -> tuple[float, float]:
    try:
        start, end = float(span[0]), float(span[1])
    except (TypeError, ValueError, OverflowError, IndexError) as error:
        raise CausalVideoError(
            "invalid span", found=span, expected="[start_s, end_s]", fix="pass two numbers in seconds"
        ) from error
    return start, end


def _runs(chosen: list[bool], slices: list[list[float]], weights: list[float]) -> list[Span]:
    """Merge runs of neighbouring chosen frames into (start, end, mean weight)."""
    spans: list[Span] = []
    begin = None
    for index, take in enumerate([*chosen, False]):
        if take and begin is None:
            begin = index
        elif not take and begin is not None:
            spans.append((slices[begin][0], slices[index - 1][1], sum(weights[begin:index]) / (index - begin)))
            begin = None
    return spans


def _weighted(
    scores: Tensor, timestamps: Tensor, frame_mask: Tensor | None, duration_s: float | Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the scores (B, T), none below 0, the slice of each frame (B, T, 2) and the mask (B, T)."""
    timestamps = batch_of_times(timestamps, scores)
    check_same_shape(scores, timestamps, "scores")
    mask = torch.ones_like(timestamps, dtype=torch.bool) if frame_mask is None else frame_mask.bool()
    slices = frame_slices(timestamps, mask, duration_s)
    weights = _finite_scores(scores, mask)
    fits = (weights >= 0).all() and (weights.sum(1) > 0).all()
    expected = "none below 0, and one above 0 in each row, such as scores.softmax(-1)"
    require(fits, "scores do not weigh frames", found=lambda: f"least {weights.min().item():g}", expected=expected)
    return weights, slices, mask


def _finite_scores(scores: Tensor, mask: Tensor) -> Tensor:
    check_same_shape(scores, mask, "scores")
    weights = scores.detach().double().masked_fill(~mask, 0.0)
    fix = "check the features for NaN, and mask padded frames with frame_mask"
    require(weights.isfinite().all(), "frame scores", found="NaN or infinity", expected="finite scores", fix=fix)
    return weights


def _index_mask(kept: Tensor, frames: int) -> Tensor:
    integers = kept.dim() == 2 and kept.numel() and not kept.dtype.is_floating_point
    bounds = f" from {kept.min().item()} to {kept.max().item()}" if kept.numel() else ""
    fits = integers and kept.min() >= 0 and kept.max() < frames
    problem = f"{kept.dtype} {tuple(kept.shape)}{bounds}"
    expected = f"(batch, kept) integers from 0 to {frames - 1}, or a bool mask"
    require(fits, "invalid frame indices", found=problem, expected=expected)
    return torch.zeros(kept.shape[0], frames, dtype=torch.bool, device=kept.device).scatter(1, kept.long(), True)
