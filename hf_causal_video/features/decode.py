"""Frames of a clip at stated instants, through PyAV.

Why: an answer is only evidence if the frame behind it is the frame that was on the screen at that second. So the
instants are decided first, from the clock of the clip (its packets, read without decoding), and each is then decoded
exactly: the frame shown at second t is the last one whose time is not after t. A clip that cannot give every frame
asked for is an error that counts those it can give; a frame is never repeated to fill a gap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hf_causal_video.errors import CausalVideoError

# an instant on the edge of two frames takes the later one, whatever the rounding of the container's clock
EDGE_S = 1e-4


@dataclass
class DecodedVideo:
    """Hold the frames that were asked for.

    Args:
        frames: T arrays (height, width, 3), RGB uint8, upright.
        timestamps_s: (T,) float32, the instants asked for, in seconds from the first frame.
        duration_s: seconds from the first frame to the end of the last.
        size: width and height in pixels.
    """

    frames: list[np.ndarray]
    timestamps_s: np.ndarray
    duration_s: float
    size: tuple[int, int]


@dataclass
class _Clock:
    """When each frame of a clip is shown, known without decoding."""

    pts: np.ndarray  # (frames,) container ticks, or the frame's number if is_counted
    times: np.ndarray  # (frames,) seconds from the first frame
    keys: np.ndarray  # ticks of the frames that decoding can start from
    is_counted: bool  # the container does not say which frame is shown when, only in which order
    end_s: float
    duration_s: float  # longer than end_s if the file has less than it declares


def decode_video(path: str | Path, sampling: str | Sequence[float] = "uniform-16") -> DecodedVideo:
    """Decode the frames of a clip at stated instants.

    Args:
        path: mp4, mkv, webm, avi, gif or whatever else FFmpeg opens.
        sampling: "uniform-N" (centres of N equal slices of the clip), "fps-R" (centres of slices of 1/R seconds),
            "seconds-a,b,c" or a sequence of seconds.

    Raises:
        CausalVideoError: the file cannot be opened, has no picture, or does not hold every frame asked for.

    Example:
        >>> decode_video("no.mp4")
        Traceback (most recent call last):
        hf_causal_video.errors.CausalVideoError: no.mp4 is not a video: ...
    """
    path = Path(path)
    with _open(path) as container:
        clock = _read_clock(container, path)
    instants = sample_instants(sampling, clock.duration_s)
    shown = np.searchsorted(clock.times, instants + EDGE_S, side="right") - 1
    there = (shown >= 0) & (instants < clock.end_s + EDGE_S)
    distinct = len(set(shown[there].tolist()))
    if distinct < len(instants):
        raise _too_few(path, distinct, len(instants), clock)
    frames = None if clock.is_counted else _decode_exactly(path, clock, shown)
    if frames is None:
        frames = _decode_through(path, clock, shown)
    if len(frames) < len(instants):
        raise _too_few(path, len(frames), len(instants), clock)
    height, width = frames[0].shape[:2]
    return DecodedVideo(frames, instants.astype(np.float32), clock.duration_s, (width, height))


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
    rule, value = (sampling, "") if not isinstance(sampling, str) else sampling.partition("-")[::2]
    try:
        if rule == "uniform" and int(value) > 0:
            return (np.arange(int(value)) + 0.5) * duration_s / int(value)
        if rule == "fps" and 0 < float(value) < np.inf:
            count = int(duration_s * float(value) + EDGE_S)
            return (np.arange(count) + 0.5) / float(value) if count else np.array([duration_s / 2])
        seconds = np.array([float(s) for s in value.split(",")] if rule == "seconds" else rule, dtype=np.float64)
        if seconds.ndim == 1 and seconds.size and np.isfinite(seconds).all() and seconds[0] >= 0:
            if (np.diff(seconds) > 0).all():
                return seconds
    except (ValueError, TypeError):
        pass
    raise CausalVideoError(
        "unknown sampling",
        found=repr(sampling),
        expected='"uniform-16", "fps-1", "seconds-0.5,2" or increasing seconds from 0',
        fix="use one of these forms",
    )


def _open(path: Path):
    try:
        import av
    except ImportError as error:
        raise CausalVideoError(
            "videos cannot be decoded",
            found="no PyAV",
            expected="the package av",
            fix='pip install "hf-causal-video[video]"',
        ) from error
    try:
        return av.open(str(path), metadata_errors="ignore")
    except (av.error.FFmpegError, OSError) as error:
        reason = "an empty file" if path.is_file() and path.stat().st_size == 0 else error.strerror or error
        raise CausalVideoError(
            f"{path.name} is not a video",
            found=reason,
            expected="a file that FFmpeg opens",
            fix="check the path, or fetch the file again: it may be cut off or damaged",
        ) from error


def _picture(container, path: Path):
    from av.stream import Disposition

    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams or streams[0].codec_context is None:
        kinds = sorted({s.type for s in container.streams}) or "no streams"
        raise CausalVideoError(
            f"{path.name} has no picture", found=kinds, expected="a video stream", fix="leave this file out"
        )
    return streams[0]


def _read_clock(container, path: Path) -> _Clock:
    stream = _picture(container, path)
    presented, decoded, keys = [], [], []
    end = every_end = cut_end = 0.0
    is_counted = container.format.name == "avi"  # it stores the order of decoding only
    for packet in _packets(container):
        if packet.pts is not None:
            packet_end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            every_end = max(every_end, packet_end)
        if packet.stream is not stream or not packet.size:
            continue
        if packet.is_corrupt:  # cut off inside this frame: it was there, and cannot be shown
            cut_end = max(cut_end, packet_end if packet.pts is not None else 0.0)
            continue
        decoded.append(packet.dts)
        if packet.pts is None:
            is_counted = True
        elif not packet.is_discard:
            end = max(end, packet_end)
            presented.append(packet.pts)
            keys += [packet.pts] if packet.is_keyframe else []
    rate = float(stream.guessed_rate or stream.average_rate or 0)
    if is_counted and None not in decoded:
        ticks = np.unique(decoded)
    elif is_counted and rate:
        ticks = np.arange(len(decoded)) / (rate * float(stream.time_base))
    else:
        ticks = np.unique(presented)
    if not ticks.size:
        raise CausalVideoError(
            f"{path.name} has no frames",
            found=f"{len(decoded)} pictures at {rate} a second",
            expected="at least one picture with a time",
            fix="leave this file out",
        )
    start = float(ticks[0] * stream.time_base)
    times = ticks * float(stream.time_base) - start
    step = float(np.median(np.diff(times))) if len(times) > 1 else 1 / (rate or 25.0)
    end = end - start if not is_counted and end - start > times[-1] else float(times[-1]) + step
    declared = _declared(stream, container, start, every_end)
    duration = declared if declared is not None and declared > end + max(2 * step, 0.1) else max(end, cut_end - start)
    pts = np.arange(len(ticks)) if is_counted else ticks
    return _Clock(pts, times, np.unique(np.array(keys, dtype=np.int64)), is_counted, end, duration)


def _packets(container, *streams) -> Iterator:
    """Give the packets of a container up to a damaged tail; what is missing shows against the declared length."""
    import av

    try:
        yield from container.demux(*streams)
    except av.error.FFmpegError:
        return


def _declared(stream, container, start: float, every_end: float) -> float | None:
    """Give the length of the picture that the file's header claims, if it claims one."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    tag = stream.metadata.get("DURATION", "").split(":")
    if len(tag) == 3:
        return int(tag[0]) * 3600 + int(tag[1]) * 60 + float(tag[2]) - start
    whole = (container.duration or 0) / 1e6
    # a container's length may be that of the sound: it counts only if no stream reaches it
    return whole - start if whole > every_end + 0.5 else None


def _decode_exactly(path: Path, clock: _Clock, shown: np.ndarray) -> list[np.ndarray] | None:
    """Jump to the key frame before each instant; None if the clip cannot be read that way."""
    import av
    from av.video.reformatter import VideoReformatter

    frames: list[np.ndarray] = []
    convert = VideoReformatter()
    with _open(path) as container:
        stream = _picture(container, path)
        position: float = -np.inf
        decoder: Iterator = iter(())
        for target in clock.pts[shown].tolist():
            key = int(clock.keys[max(np.searchsorted(clock.keys, target, side="right") - 1, 0)])
            try:
                if key > position:
                    container.seek(key, stream=stream)
                    decoder = container.decode(stream)
                frame = next((f for f in decoder if f.pts is not None and f.pts >= target), None)
            except av.error.FFmpegError:
                return None
            if frame is None or frame.pts != target or frame.is_corrupt:
                return None
            frames.append(_upright(frame, convert))
            position = target
    return frames


def _decode_through(path: Path, clock: _Clock, shown: np.ndarray) -> list[np.ndarray]:
    """Decode from the beginning to the last instant; the list is short if frames are missing or damaged."""
    from av.video.reformatter import VideoReformatter

    wanted, convert = set(clock.pts[shown].tolist()), VideoReformatter()
    frames = []
    with _open(path) as container:
        for number, frame in enumerate(_intact_frames(container, _picture(container, path))):
            if (number if clock.is_counted else frame.pts) in wanted and not frame.is_corrupt:
                frames.append(_upright(frame, convert))
                if len(frames) == len(wanted):
                    break
    return frames


def _intact_frames(container, stream) -> Iterator:
    import av

    for packet in _packets(container, stream):
        try:
            yield from packet.decode()
        except av.error.FFmpegError:
            continue


def _upright(frame, convert) -> np.ndarray:
    image = convert.reformat(frame, format="rgb24", threads=1).to_ndarray()  # else threads start for every picture
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def _too_few(path: Path, decodable: int, asked: int, clock: _Clock) -> CausalVideoError:
    missing = f", its picture ends at {clock.end_s:.2f} s of {clock.duration_s:.2f} s"
    return CausalVideoError(
        f"{path.name} does not hold the frames asked for",
        found=f"{decodable} different decodable frames ({len(clock.pts)} in the file"
        f"{missing if clock.duration_s > clock.end_s else ''})",
        expected=f"{asked} different frames",
        fix="ask for fewer frames, or fetch the file again if it is cut off",
    )
