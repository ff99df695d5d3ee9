"""Tracks as users have them, read once and checked: boxes, first frame, appearance, size of the frame.

Why a file of its own: an inverted box or a missing feature changes every relation of its track, so it is refused where
it comes in, with the track's name.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_causal_video.utils.errors import CausalVideoError, require
from hf_causal_video.utils.geometry import check_boxes


def read_frame_sizes(values: Any, count: int) -> list[tuple[float, float] | None]:
    """Width and height in pixels of `count` videos, from one pair, one each, or None (boxes are fractions)."""
    if values is None:
        return [None] * count
    pairs = numbers(values)
    if pairs.shape == (2,):
        pairs = np.tile(pairs, (count, 1))
    sizes: list[Any] = [tuple(size) for size in pairs.tolist()] if pairs.ndim == 2 else []
    require(
        pairs.shape == (count, 2) and (np.isfinite(pairs) & (pairs > 0)).all(),
        "frame_size",
        found=lambda: repr(values)[:80],
        expected=f"(width, height), or {count} of them",
        fix="give the size in pixels of each video",
    )
    return sizes


def numbers(values: Any) -> np.ndarray:
    """Nested lists of numbers as float64; an empty array for other values or ragged lists."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, OverflowError):
        return np.empty(0)
    return array.astype(np.float64) if array.dtype.kind in "iuf" else np.empty(0)


def read_videos(tracks: Any) -> list[Any]:
    """The tracks of each video, from those of one video or of several; every track has boxes."""
    values: list[Any] = list(tracks) if _is_list(tracks) else [None]
    videos: list[Any] = [values] if not values or isinstance(values[0], Mapping) else values
    for number, video in enumerate(videos):
        require(
            _is_list(video) and all(isinstance(track, Mapping) and "boxes" in track for track in video),
            f"tracks of video {number}",
            found=partial("{!r:.80}".format, video),
            expected='a list of {"start", "boxes"}',
            fix="pass the tracks of one video, or a list of them for each video",
        )
    return videos


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def read_start(track: Mapping[str, Any]) -> int:
    """First frame of a track, 0 by default."""
    start: Any = track.get("start", 0)
    known = isinstance(start, int | float | np.integer) and not isinstance(start, bool)
    require(
        known and 0 <= start < 2**31 and not start % 1,
        "track",
        found=f"start {start}",
        expected="a frame, 0 or later",
        fix="count frames from 0",
    )
    return int(start)


def read_boxes(track: Mapping[str, Any], name: str) -> np.ndarray:
    """Boxes of a track, (L, 4), each of them finite and in order."""
    boxes = numbers(track["boxes"])
    require(
        boxes.ndim == 2 and boxes.shape[1] == 4 and len(boxes),
        name,
        found=lambda: f"boxes {boxes.shape}",
        expected="(L, 4), L >= 1",
        fix="drop empty tracks",
    )
    check_boxes(boxes, name)
    return boxes


def as_fractions(boxes: np.ndarray, size: tuple[float, float] | None) -> Tensor:
    """Boxes as fractions of the frame, cut at its edge."""
    if size is None and boxes.max() > 2:
        raise CausalVideoError(
            "boxes",
            found=f"{boxes.max():g} without a frame size",
            expected="fractions of the frame",
            fix="pass frame_size=(width, height) for boxes in pixels",
        )
    scale = np.array([1.0] * 4 if size is None else [*size, *size])
    return torch.tensor((boxes / scale).clip(0, 1), dtype=torch.float32)


def read_features(videos: list, boxes: list[list[np.ndarray]]) -> list[list[Tensor]] | None:
    """Appearance of every track at every frame, (L, C) each; None where no track has any."""
    values = [track.get("features") for tracks in videos for track in tracks]
    if all(feature is None for feature in values):
        return None
    if any(feature is None for feature in values):
        raise CausalVideoError(
            "features", found="tracks with and without", expected="all or none", fix="extract the rest"
        )
    parts: list[list[Tensor]] = []
    for tracks, lengths in zip(videos, boxes, strict=True):
        parts.append([])
        for track, one in zip(tracks, lengths, strict=True):
            feature = torch.as_tensor(numbers(track["features"]), dtype=torch.float32)
            parts[-1].append(feature.expand(len(one), -1) if feature.dim() == 1 else feature)
    flat = [[one for group in side for one in group] for side in (parts, boxes)]
    fits = all(
        feature.dim() == 2 and feature.numel() and len(feature) == len(box) and feature.isfinite().all()
        for feature, box in zip(*flat, strict=True)
    )
    require(
        fits and len({feature.shape[-1] for feature in flat[0]}) == 1,
        "features",
        found="other lengths than the boxes, several widths, or NaN",
        expected="(C,) or (L, C) finite numbers a track",
        fix="extract them again",
    )
    return parts
