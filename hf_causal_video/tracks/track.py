"""Tracks: the same object from frame to frame, linked from detections or given by whoever annotated them.

Why: a relation such as *follow* is in how two objects move, so boxes have to be known as one object's before anything
can be said. Detections come from any detector (`ObjectEncoder`); which of them are one object is decided by a tracking
library, not by us. Ground truth and third-party trajectories enter through the same `Track`.

Source: ByteTrack (Zhang et al., ECCV 2022) as implemented by the package `trackers`. A class a tracker, suppression of
duplicates at IoU 0.7 and interpolated gaps follow VidVRD-II (Shang et al., ACM MM 2021), whose linker is Seq-NMS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from hf_causal_video.utils.checks import check_number, check_whole, is_number
from hf_causal_video.utils.errors import require, reworded
from hf_causal_video.utils.geometry import check_boxes, iou

if TYPE_CHECKING:
    from supervision import Detections

DUPLICATE_IOU = 0.7
EDGE = 0.01  # of the picture, by which an annotated box may reach over its edge
FIRST_SIGHT_IOU = 0.3  # overlap by which the first sighting of a track is found again
SCALE = 1000.0  # trackers tune their motion noise in pixels; every clip is tracked as if it were this large


class TrackDict(TypedDict, total=False):
    """A track as `VideoRelationProcessor` reads it: first frame, boxes (L, 4), and what else is known of it."""

    start: int
    boxes: np.ndarray
    label: str
    score: float
    features: np.ndarray  # (L, C) or (C,)


@dataclass
class Track:
    """One object over the frames [start_frame, start_frame + L).

    A box that reaches over the edge of the frame is cut there. A track of one frame is a track.

    Args:
        start_frame: first frame, counted from 0.
        boxes: (L, 4) xyxy in [0, 1], one box per frame, L at least 1.
        scores: (L,) confidence; 1 where it was not measured.
        label: class in words, "" where unknown.
        features: (L, C) or (C,) appearance, where there is any.

    Raises:
        CausalVideoError: no boxes, boxes that are inverted, not finite, in pixels or wholly outside the frame, scores
            or features of another length, a start before 0.

    Example:
        >>> track = Track(3, [[0.1, 0.1, 0.3, 0.5], [0.1, 0.1, 1.2, 0.5]], label="dog")
        >>> track.end_frame, track.boxes[1].tolist()
        (5, [0.1..., 0.1..., 1.0, 0.5])
    """

    start_frame: int
    boxes: np.ndarray
    scores: np.ndarray | None = None
    label: str = ""
    features: np.ndarray | None = None

    def __post_init__(self) -> None:
        is_start = is_number(self.start_frame) and self.start_frame % 1 == 0 and self.start_frame >= 0
        self._expect(is_start, "invalid start", self.start_frame, "a frame, counted from 0")
        self.start_frame = int(self.start_frame)
        self.boxes = self._checked(np.asarray(self.boxes, dtype=np.float32))
        self.scores = np.ones(len(self)) if self.scores is None else np.asarray(self.scores, dtype=np.float64)
        are_scores = self.scores.shape == (len(self),) and np.isfinite(self.scores).all()
        self._expect(are_scores, "scores", self.scores.shape, f"({len(self)},), finite")
        if self.features is not None:
            self.features = np.asarray(self.features, dtype=np.float32)
            shape = self.features.shape
            fits = len(shape) == 1 or len(shape) == 2 and shape[0] == len(self)
            self._expect(fits, "features", shape, f"(C,) or ({len(self)}, C)")

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def end_frame(self) -> int:
        """The frame after the last."""
        return self.start_frame + len(self)

    @classmethod
    def from_sightings(
        cls,
        frames: Sequence[int],
        boxes: ArrayLike,
        frame_size: tuple[float, float] | None = None,
        scores: ArrayLike | None = None,
        label: str = "",
        features: ArrayLike | None = None,
    ) -> Track:
        """Make a track from the frames in which the object was seen; those between are interpolated.

        Args:
            frames: n increasing frames.
            boxes: (n, 4) xyxy, in pixels with `frame_size` (width, height), else as fractions of the frame.
            scores: (n,), see the class. label, features (n, C) or (C,): likewise.

        Raises:
            CausalVideoError: see the class; frames that do not increase.

        Example:
            >>> Track.from_sightings([4, 6], [[0, 0, 10, 10], [20, 0, 30, 10]], (100, 50)).boxes[:, 0].tolist()
            [0.0, 0.1..., 0.2...]
        """
        seen = np.asarray(frames)
        boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4) / (1.0 if frame_size is None else [*frame_size] * 2)
        check_track(seen, boxes, f"track {label!r}")
        cls(int(seen[0]), boxes, label=label)  # refuses bad boxes before they are spread over gaps

        def fill(known: ArrayLike) -> np.ndarray:
            values = np.asarray(known, dtype=np.float64)
            every = np.arange(seen[0], seen[-1] + 1)
            columns = values.reshape(len(seen), -1).T
            return np.stack([np.interp(every, seen, column) for column in columns], -1).reshape(-1, *values.shape[1:])

        appearance = None if features is None else np.asarray(features)
        if appearance is not None and appearance.ndim == 2:  # (n, C)
            appearance = fill(appearance)
        return cls(int(seen[0]), fill(boxes), None if scores is None else fill(scores), label, appearance)

    def part(self, start: int, end: int) -> Track | None:
        """The track within the frames [start, end); None where it is not there.

        Example:
            >>> Track(2, [[0, 0, 1, 1]] * 5).part(0, 4).end_frame
            4
        """
        first = max(start, self.start_frame)
        last = min(end, self.end_frame)
        if first >= last:
            return None
        inside = slice(first - self.start_frame, last - self.start_frame)
        per_frame = self.features is not None and self.features.ndim == 2
        features = self.features[inside] if per_frame else self.features  # type: ignore[index]
        return Track(first, self.boxes[inside], self.scores[inside], self.label, features)  # type: ignore[index]

    def to_dict(self, frame_size: tuple[float, float] | None = None) -> dict[str, Any]:
        """The track as `VideoRelationProcessor` reads it, in pixels where a frame size is given."""
        boxes = self.boxes.astype(np.float64) * (1.0 if frame_size is None else [*frame_size] * 2)
        track: dict[str, Any] = {"start": self.start_frame, "boxes": boxes, "label": self.label}
        return track if self.features is None else track | {"features": self.features}

    def _checked(self, boxes: np.ndarray) -> np.ndarray:
        is_list_of_boxes = boxes.ndim == 2 and boxes.shape[1] == 4 and len(boxes)
        fix = "leave out tracks without a box"
        self._expect(is_list_of_boxes, "no boxes", boxes.shape, "(L, 4), L at least 1", fix)
        low = boxes[:, :2]
        high = boxes[:, 2:]
        faults = (
            (~np.isfinite(boxes).all(1) | (high < low).any(1), "inverted or infinite", "convert x, y, w, h boxes"),
            ((boxes > 2).any(1), "in pixels", "divide by width and height (frame_size)"),
            ((low >= 1).any(1) | (high <= 0).any(1), "outside the frame", "cut the track where it leaves"),
        )
        for bad, what, fix in faults:
            place = int(np.argmax(bad))
            problem = f"{boxes[place].tolist()} in frame {self.start_frame + place}"
            self._expect(not bad.any(), f"a box {what}", problem, "x1 <= x2 and y1 <= y2, partly in [0, 1]", fix)
        return boxes.clip(0, 1)

    def _expect(self, condition: object, what: str, found: object, expected: str, fix: str = "correct it") -> None:
        require(condition, f"track {self.label!r}: {what}", found=found, expected=expected, fix=fix)


class FrameTracker(Protocol):
    """A tracker of the package `trackers`."""

    def update(self, detections: Detections) -> Detections:
        """Name the detections of the next frame; -1 where they belong to no track."""


def link_detections(
    detections: Mapping[str, ArrayLike | Tensor],
    labels: Mapping[int, str] | None = None,
    *,
    frame_rate: float = 30.0,
    max_gap: int = 15,
    min_frames: int = 2,
    min_score: float = 0.5,
    make_tracker: Callable[[], FrameTracker] | None = None,
) -> list[Track]:
    """Link detections of consecutive frames to tracks, each class by itself.

    Args:
        detections: what `ObjectEncoder` returns: `object_boxes` (T, N, 4), `object_scores` (T, N), `object_labels`
            (T, N), and `object_features` (T, N, C) if wanted; scores of 0 are padding.
        labels: class names by index, `detector.config.id2label`; the index itself without.
        frame_rate: frames per second.
        max_gap: frames for which an unseen object is remembered; gaps are interpolated.
        min_frames: tracks seen in fewer frames are left out. The library never confirms what it saw once, so 2 is the
            least it can give.
        min_score: least score that starts a track; fainter detections can only continue one.
        make_tracker: makes another tracker of the package `trackers`, one for each class.

    Returns:
        Tracks by their first frame; none without detections.

    Raises:
        CausalVideoError: the package `trackers` is absent, arrays do not fit each other, a box is inverted or not
            finite, a rate that is not above 0.

    Example:
        >>> link_detections({"object_boxes": np.zeros((3, 0, 4)), "object_scores": np.zeros((3, 0)),
        ...                  "object_labels": np.zeros((3, 0), int)})
        []
    """
    boxes, scores, kinds = (_array(detections[f"object_{name}"]) for name in ("boxes", "scores", "labels"))
    features = None if detections.get("object_features") is None else _array(detections["object_features"])
    fits = boxes.shape == (*scores.shape, 4) and kinds.shape == scores.shape and np.isfinite(scores).all()
    problem = f"boxes {boxes.shape}, scores {scores.shape}, labels {kinds.shape}"
    expected = "(T, N, 4), (T, N) finite scores, (T, N)"
    require(fits, "detections", found=problem, expected=expected, fix="pass what ObjectEncoder returns")
    check_whole("min_frames", min_frames, 2)
    check_whole("max_gap", max_gap, 0)
    check_number("frame_rate", frame_rate, above=0, fix="pass the rate of the frames; 30.0 where it is unknown")
    real = scores > 0
    check_boxes(boxes[real], "detections", np.nonzero(real)[0])
    if make_tracker is None:
        make_tracker = _byte_tracker(frame_rate, max_gap, min_score)
    tracks = []
    for kind in np.unique(kinds[scores > 0]).tolist():
        rows = [_distinct(boxes[t], scores[t], (kinds[t] == kind) & (scores[t] > 0)) for t in range(len(boxes))]
        for sightings in _linked(make_tracker(), boxes, scores, rows):
            if len(sightings) < min_frames:
                continue
            t, n = np.array(sightings).T
            tracks.append(
                Track.from_sightings(
                    t,
                    boxes[t, n],
                    None,
                    scores[t, n],
                    (labels or {}).get(kind, str(kind)),
                    None if features is None else features[t, n],
                )
            )
    return sorted(tracks, key=lambda track: (track.start_frame, -len(track)))


def _array(values: ArrayLike | Tensor) -> np.ndarray:
    """An array; tensors of any precision and device too."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() else values
    return np.asarray(values)


def check_track(
    frames: ArrayLike,
    boxes: np.ndarray,
    name: str,
    num_frames: int | None = None,
    frame_size: tuple[float, float] | None = None,
) -> None:
    """Check an annotated track: one box per frame, forward in time, in order and inside the picture.

    Args:
        frames: (L,) frame of each box.
        boxes: (L, 4) xyxy.
        name: what holds the track, for the message.
        num_frames: frames of the video, if known.
        frame_size: width and height in the unit of the boxes; a box may reach over the edge by 1 % of them. Without
            it only the order of a box is checked (the boxes of VidVRD and VidOR may reach over the edge).

    Raises:
        CausalVideoError: no box, frames that do not ascend or lie outside the video, an inverted box, NaN, or a box
            beyond the picture.

    Example:
        >>> check_track([4, 3], np.array([[0, 0, 9, 9]] * 2), "track 0")
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: track 0: found frames [4, 3] ... 3; expected ascending, ...
    """
    frames = np.asarray(frames)
    has_boxes = frames.ndim == 1 and len(frames) > 0 and boxes.shape == (len(frames), 4)
    problem = f"frames {frames.shape}, boxes {boxes.shape}"
    expected = "(L,) whole numbers and (L, 4) numbers, L at least 1"
    require(has_boxes, name, found=problem, expected=expected, fix="drop empty tracks")
    ascend = (np.diff(frames) > 0).all() and frames[0] >= 0 and (num_frames is None or frames[-1] < num_frames)
    problem = f"frames {frames[:3].tolist()} ... {frames[-1]}"
    expected = f"ascending{'' if num_frames is None else f' in 0..{num_frames - 1}'}, one box per frame"
    require(ascend, name, found=problem, expected=expected, fix="sort the boxes by frame, and keep one per frame")
    check_boxes(boxes, name, frames)
    if frame_size is None:
        return
    side = np.array([*frame_size, *frame_size])
    beyond = ((boxes < -EDGE * side) | (boxes > (1 + EDGE) * side)).any(1)
    worst = int(beyond.argmax())
    problem = f"{boxes[worst].tolist()} in frame {frames[worst]}"
    expected = f"a box inside the picture of {frame_size[0]:g} x {frame_size[1]:g}"
    fix = "cut boxes at the edge of the picture, or correct its size"
    require(not beyond.any(), name, found=problem, expected=expected, fix=fix)


def _byte_tracker(frame_rate: float, max_gap: int, min_score: float) -> Callable[[], FrameTracker]:
    fix = 'pip install "hf-causal-video[track]", or give tracks'
    with reworded(ImportError, "objects cannot be tracked", expected="the package trackers", fix=fix):
        from trackers import ByteTrackTracker
    return lambda: ByteTrackTracker(
        lost_track_buffer=round(max_gap * 30 / frame_rate),
        frame_rate=frame_rate,
        minimum_consecutive_frames=2,
        track_activation_threshold=min_score,
        high_conf_det_threshold=min_score,
    )


def _distinct(boxes: np.ndarray, scores: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Rows of one frame without duplicates: of two boxes that overlap by more than 0.7 the better stays."""
    kept: list[int] = []
    for row in sorted(np.flatnonzero(present).tolist(), key=lambda row: -scores[row]):
        if not kept or iou(boxes[row], boxes[kept]).max() <= DUPLICATE_IOU:
            kept.append(row)
    return np.array(kept, dtype=np.int64)


def _linked(
    tracker: FrameTracker, boxes: np.ndarray, scores: np.ndarray, rows: list[np.ndarray]
) -> list[list[tuple[int, int]]]:
    """(frame, row) of each sighting, track by track."""
    import supervision

    sightings: dict[int, list[tuple[int, int]]] = {}
    loose: list[int] = []  # rows of the last frame that no track has taken
    for frame, here in enumerate(rows):
        seen = supervision.Detections(
            xyxy=boxes[frame, here].astype(np.float64).reshape(-1, 4) * SCALE,
            confidence=scores[frame, here].astype(np.float64),
            data={"row": here},
        )
        tracked = tracker.update(seen)
        before = loose
        loose = []
        names = [] if tracked.tracker_id is None else tracked.tracker_id.tolist()
        for row, name in zip(tracked.data.get("row", []), names, strict=True):
            if name < 0:
                loose.append(int(row))
                continue
            if name not in sightings:  # named at the second sight; the first is the loose box it grew from
                overlaps = iou(boxes[frame, row], boxes[frame - 1, before]) if before else np.zeros(1)
                first = int(overlaps.argmax())
                sightings[name] = [(frame - 1, before.pop(first))] if overlaps[first] > FIRST_SIGHT_IOU else []
            sightings[name].append((frame, int(row)))
    return list(sightings.values())
