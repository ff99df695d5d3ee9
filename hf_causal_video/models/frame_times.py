"""The slice of time that each sampled frame owns: the one convention behind every span and drawing.

Why: a model sees frames, an annotator marks seconds. A frame stands for the time from the midpoint to its
left neighbour up to the midpoint to its right neighbour. The first and last slice reach as far outwards as
they do inwards, but never before 0 and never past the clip's end where that is known; a lone frame at t owns
[0, 2t]. Frames at 1, 3, 5, 7 s own 0-2, 2-4, 4-6 and 6-8 s: the slices tile the clip.
"""

import torch
from torch import Tensor

from hf_causal_video.utils.errors import require

ROUNDING_S = 1.0  # annotated lengths are whole seconds, so a frame may lie a little past the stated end


def frame_slices(
    timestamps: Tensor, frame_mask: Tensor | None = None, duration_s: float | Tensor | None = None
) -> Tensor:
    """The slice of time that each frame owns.

    Args:
        timestamps: (B, T) seconds, increasing within a row.
        frame_mask: (B, T) true for real frames, padding at the end of a row; all real by default.
        duration_s: length of the clip, one number or (B,); 0 or None where unknown.

    Returns:
        (B, T, 2) float64 start and end in seconds; both 0 for padding.

    Raises:
        CausalVideoError: times that do not increase, are negative or not finite, masks of another shape, or a length
            below 0.

    Example:
        >>> frame_slices(torch.tensor([[1.0, 3.0, 5.0]]), duration_s=5.5)[0].tolist()
        [[0.0, 2.0], [2.0, 4.0], [4.0, 5.5]]
    """
    times, mask, end = _checked(timestamps, frame_mask, duration_s)  # (B, T), (B, T), (B,)
    last = mask.sum(1, keepdim=True) - 1  # (B, 1)
    middle = (times[:, :-1] + times[:, 1:]) / 2  # (B, T-1)
    left = torch.cat([torch.zeros_like(times[:, :1]), middle], dim=1)  # (B, T)
    right = torch.cat([middle, torch.zeros_like(times[:, :1])], dim=1)  # (B, T)
    single = last[:, 0] == 0
    first_right = torch.where(single, 2 * times[:, 0], right[:, 0])
    left[:, 0] = 2 * times[:, 0] - first_right
    right[:, 0] = first_right
    outer = 2 * times.gather(1, last) - left.gather(1, last)  # (B, 1)
    right = torch.where(single[:, None], right, right.scatter(1, last, outer))
    bounds = torch.stack([left, right], dim=-1).clamp(min=0)  # (B, T, 2)
    return torch.minimum(bounds, end[:, None, None]) * mask[..., None]


def batch_of_times(timestamps: Tensor, like: Tensor) -> Tensor:
    """Timestamps as (B, T): one row of times, (T,), stands for every clip of a batch such as `like`, (B, ...)."""
    if like.dim() == 0:
        check_same_shape(like, timestamps, "a single number")
    return timestamps.expand(len(like), -1) if timestamps.dim() == 1 else timestamps


def check_same_shape(tensor: Tensor, timestamps: Tensor, what: str) -> None:
    """Raise where a tensor does not have one entry for each time."""
    problem = f"{tuple(tensor.shape)} and {tuple(timestamps.shape)}"
    fits = tensor.shape == timestamps.shape
    require(fits, f"shapes of {what} and timestamps", found=problem, expected="one time for each scored frame")


def _checked(
    timestamps: Tensor, frame_mask: Tensor | None, duration_s: float | Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the times (B, T) in float64, the mask (B, T) and the end of each clip (B,), infinite where unknown."""
    times = timestamps.detach().double()
    mask = torch.ones_like(times, dtype=torch.bool) if frame_mask is None else frame_mask.bool()
    require(
        times.dim() == 2 and times.shape[1] > 0 and mask.shape == times.shape and mask[:, 0].all(),
        "frame times",
        found=f"times {tuple(times.shape)}, frame mask {tuple(mask.shape)}",
        expected="(batch, frames) each, with at least one real frame per row and padding at its end",
    )
    gaps = (mask[:, 1:] & ~mask[:, :-1]).any()
    require(not gaps, "frame mask", found="padding between real frames", expected="padding at the end")
    steps = (times[:, 1:] - times[:, :-1] > 0) | ~mask[:, 1:]  # (B, T-1); NaN compares as false
    valid = ((times >= 0) & times.isfinite()) | ~mask  # (B, T)

    def wrong_times() -> str:
        row = int((steps.all(1) & valid.all(1)).int().argmin())
        return f"{times[row][mask[row]].tolist()[:8]} in row {row}"

    require(
        steps.all() and valid.all(),
        "timestamps are not increasing",
        found=wrong_times,
        expected="finite seconds from 0 on, each larger than the one before",
        fix="sort the frames by time, drop repeated ones, and pass seconds",
    )
    end = torch.as_tensor(0.0 if duration_s is None else duration_s, dtype=torch.float64, device=times.device)
    fits = end.shape in ((), times.shape[:1]) and (end >= 0).all()
    require(fits, "duration_s", found=end.tolist, expected=f"seconds, one number or {len(times)}, 0 where unknown")
    end = torch.where(end > 0, end, torch.inf).expand(times.shape[0])
    times = times.masked_fill(~mask, 0.0)
    excess = times.amax(1) - end  # (B,)
    require(
        not (excess > ROUNDING_S).any(),
        "frames past the end of their clip",
        found=lambda: f"a frame {excess.max().item():g} s behind the end",
        expected="frames up to the stated duration, both in seconds",
    )
    return times, mask, end
