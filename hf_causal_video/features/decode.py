"""Frames of a clip at stated instants, through PyAV.

Why: an answer is only evidence if the frame behind it is the frame that was on the screen at that second. So the
instants are decided first, from the clock of the clip (its packets, read without decoding), and each is then decoded
exactly: the frame shown at second t is the last one whose time is not after t. A clip that cannot give every frame
asked for is an error that counts those it can give; a frame is never repeated to fill a gap.
Pixels that are not square are made so, as on a screen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from hf_causal_video.features.clock import Clock, check_size, find_stream, open_clip, packets, read_clock
from hf_causal_video.utils.errors import CausalVideoError, require, reworded

if TYPE_CHECKING:
    from av.video.stream import VideoStream

# an instant on the edge of two frames takes the later one, whatever the rounding of the container's clock
EDGE_S = 1e-4
MOST_INSTANTS = 10**7


@dataclass
class DecodedVideo:
    """Hold the frames that were asked for.

    Args:
        frames: T arrays (height, width, 3), RGB uint8, upright.
        timestamps_s: (T,) float32, the instants asked for, in seconds from the first frame.
        duration_s: seconds from the first frame to the end of the last.
        size: width and height in pixels, as shown.
        missing: instants that were left out since the clip has no frame of its own for them, see `allow_fewer`.
    """

    frames: list[np.ndarray]
    timestamps_s: np.ndarray
    duration_s: float
    size: tuple[int, int]
    missing: int = 0


def decode_video(
    path: str | Path, sampling: str | Sequence[float] = "uniform-16", *, allow_fewer: bool = False
) -> DecodedVideo:
    """Decode the frames of a clip at stated instants.

    Args:
        path: mp4, mkv, webm, avi, gif or whatever else FFmpeg opens.
        sampling: "uniform-N" (centres of N equal slices of the clip), "fps-R" (centres of slices of 1/R seconds),
            "seconds-a,b,c" or a sequence of seconds.
        allow_fewer: of a whole clip that has fewer frames than "uniform-N" or "fps-R" looks at, take each frame once,
            at the middle of its instants, and count the rest as `missing`. A file that is cut off stays an error.

    Raises:
        CausalVideoError: the file cannot be opened, is a playlist, has no picture, changes its size, or does not hold
            every frame asked for.

    Example:
        >>> decode_video("no.mp4")
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: no.mp4 is not a video: ...
    """
    path = Path(path)
    clock, instants, shown, missing = _choose_frames(path, sampling, allow_fewer)
    frames = None if clock.is_counted or not clock.keys.size else _decode_exactly(path, clock, shown)
    if frames is None:
        frames = _decode_through(path, clock, shown)
    if len(frames) < len(instants):
        raise _too_few(path, len(frames), len(instants), clock)
    sizes = sorted({frame.shape[:2] for frame in frames})
    problem = " and ".join(f"{wide} x {high}" for high, wide in sizes)
    what = f"{path.name} changes the size of its picture"
    require(len(sizes) == 1, what, found=problem, expected="one size", fix="encode it again to one size")
    height, width = frames[0].shape[:2]
    timestamps_s = instants.astype(np.float32)
    return DecodedVideo(frames, timestamps_s, clock.duration_s, (width, height), missing)


def instants_with_frames(path: str | Path, sampling: str) -> tuple[np.ndarray, int]:
    """Find the instants that `decode_video` looks at with `allow_fewer`, without decoding a frame.

    Args:
        path: the clip.
        sampling: "uniform-N" or "fps-R".

    Returns:
        (T,) seconds, a frame of its own for each; and how many instants were left out, 0 if the clip is fast enough.

    Raises:
        CausalVideoError: as `decode_video`.
    """
    _, instants, _, missing = _choose_frames(Path(path), sampling, allow_fewer=True)
    return instants, missing


def _choose_frames(
    path: Path, sampling: str | Sequence[float], allow_fewer: bool
) -> tuple[Clock, np.ndarray, np.ndarray, int]:
    """Clock of a clip, instants (T,) in seconds, frame shown at each (T,), and the number of instants left out."""
    with open_clip(path) as container:
        clock = read_clock(container, path)
    instants = sample_instants(sampling, clock.duration_s)
    shown = np.searchsorted(clock.times, instants + EDGE_S, side="right") - 1
    exists = (shown >= 0) & (instants < clock.end_s + EDGE_S)
    distinct = len(set(shown[exists].tolist()))
    missing = len(instants) - distinct
    if missing:
        by_rule = isinstance(sampling, str) and not sampling.startswith("seconds")
        if not (allow_fewer and by_rule and clock.duration_s <= clock.end_s):
            raise _too_few(path, distinct, len(instants), clock)
        shown, group = np.unique(shown, return_inverse=True)
        instants = np.bincount(group, weights=instants) / np.bincount(group)  # the middle of a frame's instants
    return clock, instants, shown, missing


def pictures(frames: Iterable[ArrayLike | Tensor]) -> list[np.ndarray]:
    """Frames (T, H, W, 3) uint8 RGB as a list; channels may come first, pictures may be tensors or PIL images.

    Args:
        frames: T pictures of one size.

    Raises:
        CausalVideoError: no frames, or of another shape, kind of number, or several sizes.

    Example:
        >>> pictures(np.zeros((2, 3, 48, 64), np.uint8))[0].shape
        (48, 64, 3)
    """
    read = [np.asarray(frame.cpu() if isinstance(frame, Tensor) else frame) for frame in frames]
    if read and read[0].ndim == 3 and read[0].shape[2] != 3 and read[0].shape[0] == 3:
        read = [frame.transpose(1, 2, 0) for frame in read]
    wrong = [f for f in read if f.ndim != 3 or f.shape[2] != 3 or f.dtype != np.uint8 or f.shape != read[0].shape]
    problem = f"{wrong[0].dtype} {wrong[0].shape}" if wrong else "no frames"
    expected = "(height, width, 3) RGB uint8, all of one size"
    fix = "decode the clip to such frames, or pass its path"
    require(read and not wrong, "frames of a clip", found=problem, expected=expected, fix=fix)
    return read


def sample_instants(sampling: str | Sequence[float], duration_s: float) -> np.ndarray:
    """Turn a sampling rule into seconds.

    Args:
        sampling: see `decode_video`.
        duration_s: length of the clip in seconds.

    Returns:
        (T,) float64, strictly increasing.

    Example:
        >>> sample_instants("uniform-4", 8.0).tolist(), sample_instants("fps-0.5", 5.0).tolist()
        ([1.0, 3.0, 5.0, 7.0], [1.0, 3.0])
    """
    count: float = 0
    rule, value = (sampling, "") if not isinstance(sampling, str) else sampling.partition("-")[::2]
    try:
        if rule == "uniform" and (count := int(value)) > 0:
            if count <= MOST_INSTANTS:
                return (np.arange(count) + 0.5) * duration_s / count
        elif rule == "fps" and 0 < float(value) < np.inf:
            count = duration_s * float(value) + EDGE_S
            if count <= MOST_INSTANTS:
                return (np.arange(int(count)) + 0.5) / float(value) if count >= 1 else np.array([duration_s / 2])
        seconds = np.array([float(s) for s in value.split(",")] if rule == "seconds" else rule, dtype=np.float64)
        if seconds.ndim == 1 and seconds.size and np.isfinite(seconds).all() and seconds[0] >= 0:
            if (np.diff(seconds) > 0).all():
                return seconds
    except (ValueError, TypeError):
        pass
    problem = f"{count:.3g} of {sampling!r} in {duration_s:.6g} s"
    fix = "ask for fewer; if the clip is not that long, its header is damaged: fetch it again"
    is_few = count <= MOST_INSTANTS
    require(is_few, "too many instants", found=problem, expected=f"at most {MOST_INSTANTS:,}", fix=fix)
    expected = '"uniform-16", "fps-1", "seconds-0.5,2" or increasing seconds from 0'
    raise CausalVideoError("unknown sampling", found=repr(sampling), expected=expected, fix="use one of these forms")


def _decode_exactly(path: Path, clock: Clock, shown: np.ndarray) -> list[np.ndarray] | None:
    """Jump to the key frame before each instant; None if the clip cannot be read that way."""
    import av
    from av.video.reformatter import VideoReformatter

    frames: list[np.ndarray] = []
    convert = VideoReformatter()
    with open_clip(path) as container:
        stream = find_stream(container, clock)
        position: float = -np.inf
        decoder: Iterator = iter(())
        for target in clock.pts[shown].tolist():
            key = int(clock.keys[max(np.searchsorted(clock.keys, target, side="right") - 1, 0)])
            try:
                if key > position:
                    container.seek(key, stream=stream)
                    decoder = container.decode(stream)
                frame = next((f for f in decoder if f.pts is not None and f.pts >= target), None)
            except (av.error.FFmpegError, IndexError):
                return None
            if frame is None or frame.pts != target or frame.is_corrupt:
                return None
            frames.append(_as_shown(frame, convert, stream, path))
            position = target
    return frames


def _decode_through(path: Path, clock: Clock, shown: np.ndarray) -> list[np.ndarray]:
    """Decode from the beginning to the last instant; the list is short if frames are missing or damaged."""
    from av.video.reformatter import VideoReformatter

    wanted = set(clock.pts[shown].tolist())
    convert = VideoReformatter()
    frames = []
    with open_clip(path) as container:
        stream = find_stream(container, clock)
        for number, frame in enumerate(_intact_frames(container, stream)):
            if (number if clock.is_counted else frame.pts) in wanted and not frame.is_corrupt:
                frames.append(_as_shown(frame, convert, stream, path))
                if len(frames) == len(wanted):
                    break
    return frames


def _intact_frames(container, stream) -> Iterator:
    import av

    for packet in packets(container, stream):
        try:
            yield from packet.decode()
        except av.error.FFmpegError:
            continue


def _as_shown(frame, convert, stream: VideoStream, path: Path) -> np.ndarray:
    """Give a picture as RGB with square pixels, turned and mirrored as the display matrix of the clip says."""
    import av
    from av.sidedata.sidedata import Type

    aspect = float(stream.sample_aspect_ratio or 1)  # width of a pixel over its height
    width = round(frame.width * max(aspect, 1.0))
    height = round(frame.height / min(aspect, 1.0))
    check_size(path, width, height)
    what = f"a picture of {path.name} with pixel format {frame.format.name} cannot be shown"
    expected = "one that FFmpeg turns into RGB"
    with reworded((av.error.FFmpegError, ValueError), what, expected=expected, fix="encode the clip again"):
        # threads=1, else threads start for every picture
        image = convert.reformat(frame, width, height, format="rgb24", threads=1).to_ndarray()
    matrix = frame.side_data.get(Type.DISPLAYMATRIX)
    if matrix is None:
        return image
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()  # x' = a x + c y, y' = b x + d y
    if abs(b) > abs(a):
        image = image.swapaxes(0, 1)
        a = c
        d = b
    return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def _too_few(path: Path, decodable: int, asked: int, clock: Clock) -> CausalVideoError:
    missing = f", its picture ends at {clock.end_s:.2f} s of {clock.duration_s:.2f} s"
    return CausalVideoError(
        f"{path.name} does not hold the frames asked for",
        found=f"{decodable} different decodable frames ({len(clock.pts)} in the file"
        f"{missing if clock.duration_s > clock.end_s else ''})",
        expected=f"{asked} different frames",
        fix="ask for fewer frames, or fetch the file again if it is cut off",
    )
