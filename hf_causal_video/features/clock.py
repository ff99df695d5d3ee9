"""When each frame of a clip is shown, read from its packets without decoding; and which track of a file is the film.

The film is the track that a player would show: never a cover or a track of one picture, the one marked as default
first, then the largest.

A clip comes from anywhere. It is one file: what it says of other files or of addresses is not followed, and neither
its name nor what its header claims can make this process open, wait for or allocate what is not there.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hf_causal_video.utils.errors import CausalVideoError, require, reworded

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

# demuxers that open what a file names, or what its own name stands for: playlists, streams, picture series
FOLLOWING = {"concat", "dash", "hls", "image2", "image2pipe", "lavfi", "rtp", "rtsp", "sap", "sdp", "vobsub"}
MOST_PIXELS = 2**26  # of a picture


@dataclass
class Clock:
    """When each frame of a clip is shown, known without decoding."""

    stream_index: int
    pts: np.ndarray  # (frames,) container ticks, or the frame's number if is_counted
    times: np.ndarray  # (frames,) seconds from the first frame
    keys: np.ndarray  # ticks of the frames that decoding can start from
    is_counted: bool  # the container does not say which frame is shown when, only in which order
    end_s: float
    duration_s: float  # longer than end_s if the file has less than it declares


@dataclass
class _Track:
    """The packets of one video stream."""

    stream: VideoStream
    presented: list[int] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    decoded: list[int | None] = field(default_factory=list)
    restart: tuple[int, int] | None = None  # where the clock jumps back: ticks before and after
    has_unknown_times: bool = False
    end_s: float = 0.0
    cut_end_s: float = 0.0


def open_clip(path: Path) -> InputContainer:
    """Open one video file, and nothing that it names.

    Raises:
        CausalVideoError: PyAV is not installed, or the file is empty, damaged or a playlist.
    """
    fix = 'pip install "hf-causal-video[video]"'
    with reworded(ImportError, "videos cannot be decoded", expected="the package av", fix=fix):
        import av
    try:
        # "file:" since FFmpeg takes a name such as "concat:a|b" for an address
        return av.open(f"file:{path}", metadata_errors="ignore", options={"format_whitelist": _containers()})
    except (av.error.FFmpegError, OSError, ValueError) as error:
        is_empty = path.name and "\0" not in str(path) and path.is_file() and path.stat().st_size == 0
        reason = "an empty file" if is_empty else getattr(error, "strerror", None) or error
        if isinstance(error, av.error.ArgumentError):  # its format is not among `_containers`
            reason = "a playlist or the address of a stream, if anything"
        fix = "check the path, or fetch the file again: it may be cut off or damaged"
        what = f"{path.name} is not a video"
        raise CausalVideoError(what, found=reason, expected="a file that FFmpeg opens", fix=fix) from error


@functools.cache
def _containers() -> str:
    import av

    return ",".join(sorted({name for names in av.formats_available for name in names.split(",")} - FOLLOWING))


def read_clock(container: InputContainer, path: Path) -> Clock:
    """Read when each frame of the film is shown.

    Raises:
        CausalVideoError: no track that can be decoded, no frames, or a clock that jumps back.
    """
    tracks, every_end = _read_packets(container)
    film = _choose_film(tracks, container, path)
    stream = film.stream
    decoded = film.decoded
    assert stream.time_base is not None
    if film.restart is not None:
        before, after = (float(tick * stream.time_base) for tick in film.restart)
        problem = f"{after:.2f} s after {before:.2f} s"
        fix = "join the parts with FFmpeg's concat, which counts on, or fetch the file again"
        what = f"the clock of {path.name} starts again"
        raise CausalVideoError(what, found=problem, expected="times that go on", fix=fix)
    # avi stores the order of decoding only
    is_counted = container.format.name == "avi" or film.has_unknown_times
    rate = float(stream.guessed_rate or stream.average_rate or 0)
    ticks: np.ndarray
    if is_counted and None not in decoded:
        ticks = np.unique([tick for tick in decoded if tick is not None])
    elif is_counted and rate:
        ticks = np.arange(len(decoded)) / (rate * float(stream.time_base))
    else:
        ticks = np.unique(film.presented)
    problem = f"{len(decoded)} pictures at {rate} a second"
    expected = "at least one picture with a time"
    require(ticks.size, f"{path.name} has no frames", found=problem, expected=expected, fix="leave this file out")
    start = float(ticks[0] * stream.time_base)
    times = ticks * float(stream.time_base) - start
    step = float(np.median(np.diff(times))) if len(times) > 1 else 1 / (rate or 25.0)
    end = film.end_s - start if not is_counted and film.end_s - start > times[-1] else float(times[-1]) + step
    declared = _declared(stream, container, start, every_end)
    duration = max(end, film.cut_end_s - start)
    if declared is not None and declared > end + max(2 * step, 0.1):
        duration = declared
    pts = np.arange(len(ticks)) if is_counted else ticks
    keys = np.unique(np.array(film.keys, dtype=np.int64))
    return Clock(stream.index, pts, times, keys, is_counted, end, duration)


def _read_packets(container: InputContainer) -> tuple[list[_Track], float]:
    """Read the clocks of all video streams except covers, and the end of the longest stream in seconds."""
    from av.stream import Disposition

    covers = Disposition.attached_pic | Disposition.timed_thumbnails
    tracks = {s.index: _Track(s) for s in container.streams.video if not s.disposition & covers}
    every_end = 0.0
    for packet in packets(container):
        packet_end = 0.0
        if packet.pts is not None:
            packet_end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            every_end = max(every_end, packet_end)
        track = tracks.get(packet.stream.index)
        if track is None or not packet.size:
            continue
        if packet.is_corrupt:  # cut off inside this frame: it was there, and cannot be shown
            track.cut_end_s = max(track.cut_end_s, packet_end)
            continue
        before = track.decoded[-1] if track.decoded else None
        if packet.dts is not None and before is not None and before - packet.dts > 1 / packet.time_base:
            track.restart = track.restart or (before, packet.dts)
        track.decoded.append(packet.dts)
        if packet.pts is None:
            track.has_unknown_times = True
        elif not packet.is_discard:
            track.end_s = max(track.end_s, packet_end)
            track.presented.append(packet.pts)
            if packet.is_keyframe:
                track.keys.append(packet.pts)
    return list(tracks.values()), every_end


def find_stream(container: InputContainer, clock: Clock) -> VideoStream:
    """Give the film of a container that was opened again."""
    return next(stream for stream in container.streams.video if stream.index == clock.stream_index)


def packets(container: InputContainer, *streams: VideoStream) -> Iterator[Packet]:
    """Give the packets of a container up to a damaged tail; what is missing shows against the declared length."""
    import av

    try:
        yield from container.demux(*streams)
    except (av.error.FFmpegError, IndexError):  # PyAV's index: at the end of a file whose damage looks like a stream
        return


def _declared(stream: VideoStream, container: InputContainer, start: float, every_end: float) -> float | None:
    """Give the length of the picture that the file's header claims, if it claims one."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    tag = re.fullmatch(r"(\d{1,4}):(\d\d):(\d\d(?:\.\d+)?)\0?", stream.metadata.get("DURATION", ""), re.ASCII)
    if tag:
        return int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3]) - start
    whole = (container.duration or 0) / 1e6
    # a container's length may be that of the sound: it counts only if no stream reaches it
    return whole - start if whole > every_end + 0.5 else None


def _choose_film(tracks: list[_Track], container: InputContainer, path: Path) -> _Track:
    """Choose the track that a player shows, among those that can be decoded."""
    from av.stream import Disposition

    films = [track for track in tracks if len(track.decoded) > 1] or tracks  # one picture next to a film is a preview
    readable = [track for track in films if track.stream.codec_context is not None]
    problem = f"{sorted({s.type for s in container.streams})}" + ", without a decoder" * bool(films)
    fix = "encode it again, or leave this file out"
    expected = "a video stream that FFmpeg decodes"
    require(readable, f"{path.name} has no picture", found=problem, expected=expected, fix=fix)

    def rank(track: _Track) -> tuple[bool, int]:
        return bool(track.stream.disposition & Disposition.default), track.stream.width * track.stream.height

    film = max(readable, key=rank)  # the first of equals
    check_size(path, film.stream.width, film.stream.height)
    return film


def check_size(path: Path, width: int, height: int) -> None:
    """Refuse a picture that is too large, before anything is decoded and again for each picture.

    Why: a damaged or hostile header claims any size.
    """
    what = f"the picture of {path.name} is too large"
    expected = f"at most {MOST_PIXELS:,} pixels"
    fix = "scale the clip down, or fetch it again if its header is damaged"
    require(width * height <= MOST_PIXELS, what, found=f"{width} x {height}", expected=expected, fix=fix)
