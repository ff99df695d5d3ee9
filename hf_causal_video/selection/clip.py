"""Candidates of a selector: the moments of one clip, with their seconds, as pictures or as features.

Why: a frame without its second cannot serve as evidence, and a selector that guesses seconds makes every timestamp in
a prompt wrong. So a clip without times, or with times that do not increase, is refused before anything is scored.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from hf_causal_video.features.decode import EDGE_S, decode_video, pictures, sample_instants
from hf_causal_video.features.store.reader import VideoFeatures
from hf_causal_video.utils.checks import check_file
from hf_causal_video.utils.errors import CausalVideoError

# a path; frames (T, H, W, 3); features, their fields as a dictionary, or frame features (T, C)
Source: TypeAlias = str | os.PathLike | VideoFeatures | dict[str, Any] | Tensor | np.ndarray | Sequence


@dataclass
class Clip:
    """The T candidates of one clip.

    Args:
        times_s: (T,) seconds, increasing.
        positions: (T,) which frame of the given clip each candidate is; 0..T-1 for a file or for features.
        frames: T arrays (height, width, 3) uint8 RGB, or None.
        features: their features, or None.
        duration_s: length of the clip where it is known.

    Example:
        >>> clip = Clip.read(torch.zeros(4, 8), timestamps_s=[0.5, 1.5, 2.5, 3.5])
        >>> len(clip), clip.features.frame_features.shape
        (4, torch.Size([4, 8]))
    """

    times_s: np.ndarray
    positions: np.ndarray
    frames: list[np.ndarray] | None = None
    features: VideoFeatures | None = None
    duration_s: float | None = None

    def __len__(self) -> int:
        return len(self.times_s)

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width in pixels, where there are pictures."""
        return None if self.frames is None else (self.frames[0].shape[0], self.frames[0].shape[1])

    @classmethod
    def read(
        cls,
        video: Source,
        timestamps_s: Sequence[float] | Tensor | None = None,
        sampling: str = "uniform-64",
        allow_fewer: bool = True,
    ) -> "Clip":
        """Make the candidates of a clip.

        Args:
            video: a path; frames (T, H, W, 3) uint8 or a list of them; `VideoFeatures` or its fields as a dictionary;
                or frame features (T, C).
            timestamps_s: (T,) seconds of frames or features that do not bring their own.
            sampling: which moments of a file, or of more frames than that, become candidates, see `decode_video`.
            allow_fewer: take all frames of a file that has fewer; otherwise refuse it.

        Raises:
            CausalVideoError: no frames, times that are missing, of another count or not increasing.
        """
        if isinstance(video, str | os.PathLike):
            if timestamps_s is not None:
                raise _times("times in addition to a file", "read from the file", "leave timestamps_s out")
            decoded = decode_video(check_file("clip", os.fspath(video)), sampling, allow_fewer=allow_fewer)
            times = decoded.timestamps_s.astype(np.float64)
            return cls(times, np.arange(len(times)), decoded.frames, duration_s=decoded.duration_s)
        if isinstance(video, dict):
            video = VideoFeatures(**{"video_id": "clip", **video})
        if isinstance(video, Tensor | np.ndarray) and video.ndim == 2:
            rows = torch.as_tensor(video)
            video = VideoFeatures("clip", torch.from_numpy(check_times(timestamps_s, len(rows))), rows)
        if isinstance(video, VideoFeatures):
            times = check_times(video.timestamps_s, len(video.frame_features))
            return cls(times, np.arange(len(times)), features=video)
        frames = pictures(video)
        times = check_times(timestamps_s, len(frames))
        wanted = candidate_positions(times, sampling)
        return cls(times[wanted], wanted, [frames[i] for i in wanted])


def check_times(times: Sequence[float] | np.ndarray | Tensor | None, count: int) -> np.ndarray:
    """Read seconds as (T,) float64.

    Example:
        >>> check_times([0, 2, 1], 3)
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: the times of the frames: found [0.0, 2.0, 1.0]; expected ...
    """
    if times is None:
        raise _times("no times", f"{count} increasing seconds, one for each frame", "pass timestamps_s")
    values = times.detach().cpu().double().numpy() if isinstance(times, Tensor) else np.asarray(times, np.float64)
    if count == 0 or values.shape != (count,):
        raise _times(f"{values.size} times for {count} frames", "one for each of at least one frame", "pass them all")
    if not (np.isfinite(values).all() and values[0] >= 0 and (np.diff(values) > 0).all()):
        first = [round(float(value), 3) for value in values[:8]]
        raise _times(first, "finite seconds from 0 on that increase", "sort the frames and drop repeated ones")
    return values


def candidate_positions(times_s: np.ndarray, sampling: str) -> np.ndarray:
    """Positions of the frames on screen at the instants of a sampling, each once.

    Example:
        >>> candidate_positions(np.arange(8) / 2.0, "uniform-2").tolist()
        [2, 6]
    """
    step = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 1.0
    instants = times_s[0] + sample_instants(sampling, float(times_s[-1] - times_s[0]) + step)
    if len(instants) >= len(times_s):
        return np.arange(len(times_s))
    shown = np.searchsorted(times_s, instants + EDGE_S, side="right") - 1
    return np.unique(shown.clip(0, len(times_s) - 1))


def _times(found: object, expected: str, fix: str) -> CausalVideoError:
    return CausalVideoError("the times of the frames", found=found, expected=expected, fix=fix)
