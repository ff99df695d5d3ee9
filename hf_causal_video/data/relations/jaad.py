"""JAAD: pedestrians before a driving car, their tracks and what they do, with a long tail, in windows of 30 frames.

Why: real tracks with labels that anyone may redistribute are rare. Here a relation is what a pedestrian does in front
of the recording car; of 11 labels the most frequent holds in 86 of 100 windows and the rarest in 3 of 1,000. The car
is the other track: its box is the whole frame, its appearance the state of motion that was recorded.

Source: Rasouli, Kotseruba and Tsotsos, ICCV Workshops 2017; annotations of JAAD 2.0 (github.com/ykotseruba/JAAD, MIT),
official split "all_videos". The windows are ours: consecutive, not overlapping, of 30 annotated boxes of a track (ten
of the 4,165 pass over frames without a box, which are closed up).
"""

import lzma
import math
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import torch
from torch import Tensor

from hf_causal_video.tracks.track import check_track
from hf_causal_video.utils.checks import check_choice, check_whole
from hf_causal_video.utils.errors import CausalVideoError, require, reworded

JAAD_LABELS = (
    "walking",
    "standing",
    "looking",
    "not-looking",
    "crossing",
    "not-crossing",
    "clear_path",
    "speed_up",
    "slow_down",
    "hand_gesture",
    "nodding",
)
STATES = ("action", "look", "cross")  # always one of two: a window has the one that holds in most of its frames
EVENTS = ("reaction", "hand_gesture", "nod")  # mostly absent: a window has one that occurs in any of its frames
CAR_STATES = ("stopped", "moving_slow", "moving_fast", "decelerating", "accelerating")
JAAD_SPLITS = ("train", "val", "test")
SOURCE = "https://github.com/ykotseruba/JAAD"


@dataclass(frozen=True)
class JaadWindows:
    """Windows of one split; n windows, T frames, P labels.

    Args:
        boxes: (n, T, 4) the pedestrian, xyxy in [0, 1].
        car: (n, T) index into `CAR_STATES`.
        labels: (n, P) 0/1, by `JAAD_LABELS`.
        video_ids: the video of each window.
        start_frames: (n,) its first frame.
    """

    boxes: Tensor
    car: Tensor
    labels: Tensor
    video_ids: list[str]
    start_frames: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, index: Tensor) -> dict[str, Tensor]:
        """Inputs of a relation model with `feature_dim=5`: a segment per window, the pair <pedestrian, car>.

        Example:
            >>> car, labels = torch.zeros(3, 30).long(), torch.zeros(3, 11)
            >>> windows = JaadWindows(torch.rand(3, 30, 4), car, labels, [], torch.zeros(3))
            >>> windows.batch(torch.arange(2))["track_features"].shape
            torch.Size([2, 2, 30, 5])
        """
        boxes, rows = self.boxes[index], len(index)
        whole = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand_as(boxes)
        car = torch.nn.functional.one_hot(self.car[index], len(CAR_STATES)).to(boxes.dtype)  # (B, T, 5)
        return {
            "track_boxes": torch.stack([boxes, whole], 1),  # (B, 2, T, 4)
            "track_features": torch.stack([torch.zeros_like(car), car], 1),  # (B, 2, T, 5)
            "pair_index": torch.tensor([[0, 1]]).repeat(rows, 1, 1),  # (B, 1, 2)
            "predicate_labels": self.labels[index].unsqueeze(1),  # (B, 1, P)
        }


class _Sighting(NamedTuple):
    frame: int
    box: list[float]
    labels: set[str]


def read_jaad(path: str | Path, split: str, window: int = 30, stride: int | None = None) -> JaadWindows:
    """Read the windows of one official split.

    Args:
        path: `jaad_annotations.tar.xz`, another tar of the repository's annotation folders, or the repository itself.
        split: "train" (188 videos, 2,075 windows), "val" (32, 336) or "test" (126, 1,754).
        window: boxes per window; a shorter track gives none.
        stride: boxes from one window to the next, the window itself by default.

    Raises:
        CausalVideoError: no such file or split, a video of the split without annotation, an unknown state or label, an
            inverted box, boxes that are not in the order of frames or beyond the picture.

    Source: Rasouli et al. 2017, JAAD.

    Example:
        >>> read_jaad("no/such.tar.xz", "train")
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: ...
    """
    stride = window if stride is None else stride
    check_choice("split of JAAD", split, JAAD_SPLITS)
    check_whole("window", window)
    check_whole("stride", stride)
    files = dict(_files(Path(path)))
    wanted = files.get(f"split_ids/all_videos/{split}.txt")
    _expect(wanted is not None, f"{path} is not JAAD", "no split_ids/all_videos", "the annotation folders of JAAD 2.0")
    boxes, cars, labels, videos, starts = [], [], [], [], []
    for video in bytes(wanted or b"").decode(errors="replace").split():
        sources = [
            files.get(name.format(video)) for name in ("annotations/{}.xml", "annotations_vehicle/{}_vehicle.xml")
        ]
        _expect(None not in sources, f"JAAD {video}", "no annotation", "annotations and annotations_vehicle")
        states, size, tracks = _video(video, *map(bytes, sources))  # type: ignore[arg-type]
        for seen in tracks:
            if not seen:
                continue
            corners = np.array([one.box for one in seen])
            check_track([one.frame for one in seen], corners, f"JAAD {video}", frame_size=(size[0], size[1]))
            for first in range(0, len(seen) - window + 1, stride):
                part = seen[first : first + window]
                missing = [one.frame for one in part if one.frame not in states]
                _expect(not missing, f"JAAD {video}", f"no state of the car in frames {missing[:3]}", "one per frame")
                boxes.append((corners[first : first + window] / size).clip(0, 1))
                cars.append([states[one.frame] for one in part])
                labels.append(_labels(part))
                videos.append(video)
                starts.append(part[0].frame)
    return JaadWindows(
        torch.tensor(np.array(boxes), dtype=torch.float32).reshape(-1, window, 4),
        torch.tensor(cars).reshape(-1, window).long(),
        torch.tensor(labels).reshape(-1, len(JAAD_LABELS)),
        videos,
        torch.tensor(starts).long(),
    )


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names below the repository's root, and contents, of what is read."""
    folders = ("annotations", "annotations_vehicle", "split_ids")
    if path.is_dir():
        for folder in folders:
            for file in sorted((path / folder).rglob("*.*")):
                yield file.relative_to(path).as_posix(), file.read_bytes()
        return
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                parts = Path(member.name).parts
                place = next((i for i, part in enumerate(parts) if part in folders), None)
                content = archive.extractfile(member) if member.isfile() and place is not None else None
                if content is not None:
                    yield "/".join(parts[place:]), content.read()
    except (OSError, EOFError, tarfile.TarError, lzma.LZMAError, zlib.error) as error:
        expected = "a tar of its annotation folders, or the folder"
        raise CausalVideoError(f"{path} is not JAAD", found=error, expected=expected, fix=f"get {SOURCE}") from error


def _video(video: str, people: bytes, car: bytes) -> tuple[dict[int, int], list[float], list[list[_Sighting]]]:
    """States of the car by frame, the size of the picture (twice), and the sightings of each pedestrian."""
    faults = (ElementTree.ParseError, ValueError, LookupError)
    with reworded(faults, f"JAAD {video} cannot be read", expected="the XML of JAAD 2.0", fix=f"get {SOURCE}"):
        annotation, vehicle = (ElementTree.fromstring(source) for source in (people, car))
        size = [float(annotation.findtext(f".//original_size/{side}") or 0) for side in ("width", "height")] * 2
        tracks = [
            [_sighting(box, video) for box in track.iterfind("box") if box.get("outside") == "0"]
            for track in annotation.iterfind("track[@label='pedestrian']")
        ]
        states = _car_states(vehicle, video)
    is_size = all(0 < side < math.inf for side in size)
    _expect(is_size, f"JAAD {video}: original_size", size[:2], "width and height in pixels")
    return states, size, tracks


def _car_states(vehicle: ElementTree.Element, video: str) -> dict[int, int]:
    states = {int(frame.get("id", -1)): frame.get("action") for frame in vehicle.iterfind("frame")}
    for state in set(states.values()) - set(CAR_STATES):
        check_choice(f"state of the car of JAAD {video}", state, CAR_STATES, fix=f"get {SOURCE}")
    return {frame: CAR_STATES.index(str(state)) for frame, state in states.items()}


def _sighting(box: ElementTree.Element, video: str) -> _Sighting:
    corners = [float(box.get(name, "nan")) for name in ("xtl", "ytl", "xbr", "ybr")]
    frame = int(box.get("frame", -1))
    attributes = {one.get("name"): one.text for one in box.iterfind("attribute")}
    present = {str(attributes.get(name)) for name in STATES}
    for event in EVENTS:
        value = attributes.get(event, "__undefined__")
        if value != "__undefined__":  # JAAD 2.0 has one kind of gesture, "other"
            present.add("hand_gesture" if event == "hand_gesture" else str(value))
    for label in present - set(JAAD_LABELS):
        check_choice(f"label of JAAD {video}, frame {frame}", label, JAAD_LABELS, fix=f"get {SOURCE}")
    return _Sighting(frame, corners, present)


def _labels(part: list[_Sighting]) -> list[float]:
    """(P,) 0/1: of two states the one of most frames (the first seen, of equals), and every event."""
    counts = Counter(label for one in part for label in sorted(one.labels, key=JAAD_LABELS.index))
    pairs = [JAAD_LABELS[i : i + 2] for i in range(0, 2 * len(STATES), 2)]
    first = part[0].labels
    states = {max(pair, key=lambda label: (counts[label], label in first)) for pair in pairs}
    return [
        float(label in states if place < 2 * len(STATES) else counts[label] > 0)
        for place, label in enumerate(JAAD_LABELS)
    ]


def _expect(condition: object, what: str, found: object, expected: str) -> None:
    require(condition, what, found=found, expected=expected, fix=f"get {SOURCE}")
