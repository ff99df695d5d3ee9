"""Frames of a clip at stated instants, through PyAV.

Why: an answer is only evidence if the frame behind it is the frame that was on the screen at that second. So the
instants are decided first, from the clock of the clip (its packets, read without decoding), and each is then decoded
exactly: the frame shown at second t is the last one whose time is not after t. A clip that cannot give every frame
asked for is an error that counts those it can give; a frame is never repeated to fill a gap.

A clip comes from anywhere. It is one file: what it says of other files or of addresses is not followed, and neither
its name nor what its header claims can make this process open, wait for or allocate what is not there.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hf_causal_video.utils.errors import CausalVideoError

# an instant on the edge of two frames takes the later one, whatever the rounding of the container's clock
EDGE_S = 1e-4
# demuxers that open what a file names, or what its own name stands for: playlists, streams, picture series
FOLLOWING = {"concat", "dash", "hls", "image2", "image2pipe", "lavfi", "rtp", "rtsp", "sap", "sdp", "vobsub"}
MOST_INSTANTS = 10**7
MOST_PIXELS = 2**26  # of a picture


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
        CausalVideoError: the file cannot be opened, is a playlist, has no picture, changes its size, or does not hold
            every frame asked for.

    Example:
        >>> decode_video("no.mp4")
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: no.mp4 is not a video: ...
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
    frames = None if clock.is_counted or not clock.keys.size else _decode_exactly(path, clock, shown)
    if frames is None:
        frames = _decode_through(path, clock, shown)
    if len(frames) < len(instants):
        raise _too_few(path, len(frames), len(instants), clock)
    if sizes := {frame.shape[:2] for frame in frames} - {frames[0].shape[:2]}:
        raise CausalVideoError(
            f"{path.name} changes the size of its picture",
            found=" and ".join(f"{wide} x {high}" for high, wide in [frames[0].shape[:2], *sorted(sizes)]),
            expected="one size",
            fix="encode it again to one size",
        )
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
    if count > MOST_INSTANTS:
        raise CausalVideoError(
            "too many instants",
            found=f"{count:.3g} of {sampling!r} in {duration_s:.6g} s",
            expected=f"at most {MOST_INSTANTS:,}",
            fix="ask for fewer; if the clip is not that long, its header is damaged: fetch it again",
        )
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
        # "file:" since FFmpeg takes a name such as "concat:a|b" for an address
        return av.open(f"file:{path}", metadata_errors="ignore", options={"format_whitelist": _containers()})
    except (av.error.FFmpegError, OSError, ValueError) as error:
        is_empty = path.name and "\0" not in str(path) and path.is_file() and path.stat().st_size == 0
        reason = "an empty file" if is_empty else getattr(error, "strerror", None) or error
        if isinstance(error, av.error.ArgumentError):  # its format is not among `_containers`
            reason = "a playlist or the address of a stream, if anything"
        raise CausalVideoError(
            f"{path.name} is not a video",
            found=reason,
            expected="a file that FFmpeg opens",
            fix="check the path, or fetch the file again: it may be cut off or damaged",
        ) from error


@functools.cache
def _containers() -> str:
    import av

    return ",".join(sorted({name for names in av.formats_available for name in names.split(",")} - FOLLOWING))


def _picture(container, path: Path):
    from av.stream import Disposition

    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams or streams[0].codec_context is None:
        kinds = sorted({s.type for s in container.streams}) or "no streams"
        raise CausalVideoError(
            f"{path.name} has no picture", found=kinds, expected="a video stream", fix="leave this file out"
        )
    _check_size(path, streams[0].width, streams[0].height)
    return streams[0]


def _check_size(path: Path, width: int, height: int) -> None:
    """Before anything is decoded, and again for each picture: a damaged or hostile header claims any size."""
    if width * height > MOST_PIXELS:
        raise CausalVideoError(
            f"the picture of {path.name} is too large",
            found=f"{width} x {height}",
            expected=f"at most {MOST_PIXELS:,} pixels",
            fix="scale the clip down, or fetch it again if its header is damaged",
        )


def _read_clock(container, path: Path) -> _Clock:
    stream = _picture(container, path)
    presented, keys = [], []
    decoded: list[int | None] = []
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
        before = decoded[-1] if decoded else None
        if packet.dts is not None and before is not None and before - packet.dts > 1 / packet.time_base:
            raise CausalVideoError(
                f"the clock of {path.name} starts again",
                found=f"{float(packet.dts * packet.time_base):.2f} s after {float(before * packet.time_base):.2f} s",
                expected="times that go on",
                fix="join the parts with FFmpeg's concat, which counts on, or fetch the file again",
            )
        decoded.append(packet.dts)
        if packet.pts is None:
            is_counted = True
        elif not packet.is_discard:
            end = max(end, packet_end)
            presented.append(packet.pts)
            keys += [packet.pts] if packet.is_keyframe else []
    rate = float(stream.guessed_rate or stream.average_rate or 0)
    ticks: np.ndarray
    if is_counted and None not in decoded:
        ticks = np.unique([tick for tick in decoded if tick is not None])
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
    except (av.error.FFmpegError, IndexError):  # PyAV's index: at the end of a file whose damage looks like a stream
        return


def _declared(stream, container, start: float, every_end: float) -> float | None:
    """Give the length of the picture that the file's header claims, if it claims one."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    tag = re.fullmatch(r"(\d{1,4}):(\d\d):(\d\d(?:\.\d+)?)\0?", stream.metadata.get("DURATION", ""), re.ASCII)
    if tag:
        return int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3]) - start
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
            except (av.error.FFmpegError, IndexError):
                return None
            if frame is None or frame.pts != target or frame.is_corrupt:
                return None
            frames.append(_upright(frame, convert, path))
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
                frames.append(_upright(frame, convert, path))
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


def _upright(frame, convert, path: Path) -> np.ndarray:
    """Give a picture as RGB, turned and mirrored as the display matrix of the clip says."""
    import av
    from av.sidedata.sidedata import Type

    _check_size(path, frame.width, frame.height)
    try:
        image = convert.reformat(frame, format="rgb24", threads=1).to_ndarray()  # else threads start for every picture
    except (av.error.FFmpegError, ValueError) as error:
        raise CausalVideoError(
            f"a picture of {path.name} cannot be shown",
            found=f"{error}, pixel format {frame.format.name}",
            expected="one that FFmpeg turns into RGB",
            fix="encode the clip again",
        ) from error
    matrix = frame.side_data.get(Type.DISPLAYMATRIX)
    if matrix is None:
        return image
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()  # x' = a x + c y, y' = b x + d y
    if abs(b) > abs(a):
        image, a, d = image.swapaxes(0, 1), c, b
    return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def _too_few(path: Path, decodable: int, asked: int, clock: _Clock) -> CausalVideoError:
    missing = f", its picture ends at {clock.end_s:.2f} s of {clock.duration_s:.2f} s"
    return CausalVideoError(
        f"{path.name} does not hold the frames asked for",
        found=f"{decodable} different decodable frames ({len(clock.pts)} in the file"
        f"{missing if clock.duration_s > clock.end_s else ''})",
        expected=f"{asked} different frames",
        fix="ask for fewer frames, or fetch the file again if it is cut off",
    )
