"""Tracks of many videos on disk: one safetensors file a video, and one JSON that says what made them.

Why: tracking is far slower than learning from tracks, so it is done once; and a relation head is right only about
tracks that were made as those it learned from, so the folder carries the tracker's provenance, which the checkpoint
takes over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tqdm.auto import tqdm

from hf_causal_video.features.store.writer import claim_folder
from hf_causal_video.tracks.track import TrackDict
from hf_causal_video.utils.errors import CausalVideoError, require, reworded
from hf_causal_video.utils.files import remove_partial, whole_file, write_whole

if TYPE_CHECKING:
    from hf_causal_video.tracks.tracker import ClipTracker, TrackedClip

CARD = "tracks.json"
FOLDER = "tracks"
DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # names that Windows keeps for itself


class TrackSet(Mapping[str, list[TrackDict]]):
    """The tracks of a folder by video id, read when they are asked for.

    A track is `{"start": first frame, "boxes": (L, 4) pixels, "label", "score", "features": (L, C)}`.

    Args:
        folder: as `track_folder` writes it.
        appearance: whether tracks bring their features.

    Raises:
        CausalVideoError: no track set there, or one whose card is damaged; on reading, a video that it does not have,
            or a damaged file.

    Example:
        >>> TrackSet.open("no/such/folder")
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: ...
    """

    def __init__(self, folder: str | Path, appearance: bool = True):
        self.folder = Path(folder)
        problem = f"no {CARD} in {folder}"
        expected = "a folder that `hf-causal-video track` wrote"
        fix = "check the path, or track the videos first"
        require(self.is_one(folder), "no track set", found=problem, expected=expected, fix=fix)
        with _undamaged(self.folder / CARD):
            card = json.loads((self.folder / CARD).read_text(encoding="utf-8"))
            self.provenance: dict[str, object] = dict(card["provenance"])
            self.feature_dim: int = int(card["feature_dim"]) if appearance else 0
        self._ids = sorted(path.stem for path in (self.folder / FOLDER).glob("*.safetensors"))

    @classmethod
    def open(cls, folder: str | Path, appearance: bool = True) -> TrackSet:
        """The track set of a folder."""
        return cls(folder, appearance)

    @staticmethod
    def is_one(folder: str | Path) -> bool:
        """Return True if a folder is a track set."""
        return (Path(folder) / CARD).is_file()

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._ids

    def __getitem__(self, video_id: str) -> list[TrackDict]:
        problem = f"not among {len(self)} videos of {self.folder}"
        fix = "track it: the same command goes on where it stopped"
        require(
            video_id in self, f"tracks of video {video_id!r}", found=problem, expected="a video of the set", fix=fix
        )
        path = track_file(self.folder, video_id)
        with _undamaged(path), safe_open(path, "numpy") as file:
            about = json.loads(file.metadata()["clip"])
            start, length, boxes, scores = (file.get_tensor(name) for name in ("start", "length", "boxes", "scores"))
            features = file.get_tensor("features") if self.feature_dim else None
            size = np.array([*about["frame_size"]] * 2)
            tracks: list[TrackDict] = []
            for first, count, end, label in zip(start, length, length.cumsum(), about["labels"], strict=True):
                rows = slice(end - count, end)
                score = float(scores[rows].mean())
                tracks.append({"start": int(first), "boxes": boxes[rows] * size, "label": label, "score": score})
                if features is not None:
                    tracks[-1]["features"] = features[rows].astype(np.float32)
            return tracks


def track_file(folder: str | Path, video_id: str) -> Path:
    """File of the tracks of a video in a track set: never outside it, whatever the video is called.

    Raises:
        CausalVideoError: an id that is not a plain file name on every system.

    Example:
        >>> track_file("set", "../../etc/x")
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: video id '../../etc/x' is not a file name: ...
    """
    name = str(video_id)
    plain = PureWindowsPath(name).name == name and not DEVICES.fullmatch(name) and name.isprintable()
    fits = plain and 0 < len(name.encode(errors="replace")) <= 200
    problem = "separators, a drive, a device, or signs that do not print"
    expected = "a plain name of at most 200 bytes"
    require(fits, f"video id {name!r} is not a file name", found=problem, expected=expected, fix="rename the video")
    return Path(folder) / FOLDER / f"{name}.safetensors"


def write_tracks(folder: str | Path, video_id: str, clip: TrackedClip) -> None:
    """Write the tracks of one video into a track set, whole or not at all."""
    path = track_file(folder, video_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    tracks = clip.tracks
    about = {
        "labels": [track.label for track in tracks],
        "frame_size": list(clip.frame_size),
        "num_frames": len(clip.times_s),
    }
    columns: dict[str, np.ndarray] = {
        "start": np.array([track.start_frame for track in tracks], dtype=np.int64),
        "length": np.array([len(track) for track in tracks], dtype=np.int64),
        "boxes": np.concatenate([np.zeros((0, 4)), *(track.boxes for track in tracks)]).astype(np.float32),
        "scores": np.concatenate([np.zeros(0), *(np.asarray(track.scores) for track in tracks)]).astype(np.float32),
        "times_s": np.asarray(clip.times_s, dtype=np.float64),
    }
    if tracks and tracks[0].features is not None:
        columns["features"] = np.concatenate([np.asarray(track.features) for track in tracks]).astype(np.float16)
    else:
        columns["features"] = np.zeros((0, 0), dtype=np.float16)
    with whole_file(path) as partial:
        save_file(columns, partial, metadata={"clip": json.dumps(about)})


def track_folder(
    videos: str | Path | Iterable[str | Path], output: str | Path, tracker: ClipTracker, progress: bool = True
) -> dict[str, str]:
    """Track the objects of videos; run it again after a kill and it goes on.

    Args:
        videos: a folder (searched in depth) or files; a file's name without ending is its video id.
        output: folder of the track set.
        tracker: what makes the tracks.
        progress: show a bar.

    Returns:
        The reason for each video that could not be read, also in `failed.json`.

    Raises:
        CausalVideoError: no videos, a folder whose tracks were made in another way, or another run that writes there.
    """
    from hf_causal_video.features.extract import find_videos

    files = find_videos(videos)
    with claim_folder(Path(output)):
        return _track_files(files, Path(output), tracker, progress)


def _track_files(files: Mapping[str, Path], folder: Path, tracker: ClipTracker, progress: bool) -> dict[str, str]:
    card = {"provenance": tracker.provenance, "feature_dim": tracker.detector.dim}
    if TrackSet.is_one(folder):
        present = TrackSet(folder)
        before = {"provenance": present.provenance, "feature_dim": present.feature_dim}
        is_same = before == json.loads(json.dumps(card))
        what = f"{folder} holds tracks made in another way"
        require(is_same, what, found=card, expected=before, fix="take another --output")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / CARD, card)
    remove_partial(folder)
    remove_partial(folder / FOLDER)
    failed: dict[str, str] = {}
    for video_id, file in tqdm(files.items(), desc="track", unit="video", disable=not progress):
        try:
            if track_file(folder, video_id).is_file():
                continue
            write_tracks(folder, video_id, tracker(file))
        except CausalVideoError as error:
            failed[video_id] = str(error)
    _write(folder / "failed.json", failed)
    return failed


def _write(path: Path, content: object) -> None:
    write_whole(path, json.dumps(content, indent=2) + "\n")


def _undamaged(path: Path) -> AbstractContextManager[None]:
    faults = (OSError, SafetensorError, ValueError, KeyError, TypeError, IndexError)
    fix = "delete it and track again: it goes on where it stopped"
    return reworded(faults, f"{path} cannot be read", expected="what `hf-causal-video track` wrote", fix=fix)
