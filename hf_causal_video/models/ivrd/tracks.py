"""Tracks as users have them, read once and checked: boxes, first frame, appearance, size of the frame.

Why a file of its own: an inverted box or a missing feature changes every relation of its track, so it is refused where
it comes in, with the track's name.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TypeGuard

import numpy as np
import torch
from torch import Tensor

from hf_causal_video.utils.checks import is_number
from hf_causal_video.utils.errors import require
from hf_causal_video.utils.geometry import check_boxes


def read_frame_sizes(values: object, count: int) -> list[tuple[float, float] | None]:
    """Width and height in pixels of `count` videos, from one pair, one each, or None (boxes are fractions)."""
    if values is None:
        return [None] * count
    pairs = numbers(values)
    if pairs.shape == (2,):
        pairs = np.tile(pairs, (count, 1))
    fits = pairs.shape == (count, 2) and (np.isfinite(pairs) & (pairs > 0)).all()
    expected = f"(width, height) in pixels, or {count} of them"
    require(fits, "frame_size", found=lambda: repr(values)[:80], expected=expected)
    return [(width, height) for width, height in pairs.tolist()]


def numbers(values: object) -> np.ndarray:
    """Nested lists of numbers as float64; an empty array for other values or ragged lists."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, OverflowError):
        return np.empty(0)
    return array.astype(np.float64) if array.dtype.kind in "iuf" else np.empty(0)


def read_videos(tracks: object) -> list[list[Mapping[str, object]]]:
    """The tracks of each video, from those of one video or of several; every track has boxes."""
    values = list(tracks) if _is_list(tracks) else [None]
    videos: list = [values] if not values or isinstance(values[0], Mapping) else values
    for number, video in enumerate(videos):
        fits = _is_list(video) and all(isinstance(track, Mapping) and "boxes" in track for track in video)
        problem = partial("{!r:.80}".format, video)
        require(fits, f"tracks of video {number}", found=problem, expected='a list of {"start", "boxes"}')
    return videos


def _is_list(value: object) -> TypeGuard[Sequence]:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def read_start(track: Mapping[str, object]) -> int:
    """First frame of a track, 0 by default."""
    start = track.get("start", 0)
    fits = is_number(start) and 0 <= start < 2**31 and not start % 1
    require(fits, "track", found=f"start {start}", expected="a frame, 0 or later")
    return int(start)  # type: ignore[call-overload]


def read_boxes(track: Mapping[str, object], name: str) -> np.ndarray:
    """Boxes of a track, (L, 4), each of them finite and in order."""
    boxes = numbers(track["boxes"])
    fits = boxes.ndim == 2 and boxes.shape[1] == 4 and len(boxes)
    require(fits, name, found=f"boxes {boxes.shape}", expected="(L, 4), L >= 1", fix="drop empty tracks")
    check_boxes(boxes, name)
    return boxes


def as_fractions(boxes: np.ndarray, size: tuple[float, float] | None) -> Tensor:
    """Boxes as fractions of the frame, cut at its edge."""
    fix = "pass frame_size=(width, height) for boxes in pixels"
    fits = size is not None or boxes.max() <= 2
    require(fits, "boxes", found=f"{boxes.max():g} without a frame size", expected="fractions of the frame", fix=fix)
    scale = np.array([1.0] * 4 if size is None else [*size, *size])
    return torch.tensor((boxes / scale).clip(0, 1), dtype=torch.float32)


def read_features(
    videos: Sequence[Sequence[Mapping[str, object]]], boxes: Sequence[Sequence[np.ndarray]]
) -> list[list[Tensor]] | None:
    """Appearance of every track at every frame, (L, C) each; None where no track has any."""
    has = [track.get("features") is not None for tracks in videos for track in tracks]
    if not any(has):
        return None
    require(all(has), "features", found="tracks with and without", expected="all or none", fix="extract the rest")
    parts: list[list[Tensor]] = []
    for tracks, lengths in zip(videos, boxes, strict=True):
        parts.append([])
        for track, one in zip(tracks, lengths, strict=True):
            feature = torch.as_tensor(numbers(track["features"]), dtype=torch.float32)
            feature = feature.expand(len(one), -1) if feature.dim() == 1 else feature
            fits = feature.dim() == 2 and feature.numel() and len(feature) == len(one) and feature.isfinite().all()
            problem = f"other lengths than the boxes, or NaN: {tuple(feature.shape)} for {len(one)} boxes"
            require(fits, "features", found=problem, expected="(C,) or (L, C) finite numbers per track")
            parts[-1].append(feature)
    widths = sorted({feature.shape[-1] for video in parts for feature in video})
    require(len(widths) == 1, "features", found=f"widths {widths}", expected="one width")
    return parts
