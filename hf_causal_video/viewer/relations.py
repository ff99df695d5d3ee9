"""The relations of one clip with all that a picture of them needs; the picture and the page draw the same case.

Why: a predicted relation brings two trajectories and no identity. To say "dog 1 chases cat 2, then lies near it" the
trajectories that are one object have to be found again, once, before anything is drawn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hf_causal_video.utils.errors import require
from hf_causal_video.utils.geometry import iou
from hf_causal_video.viewer.frames import read_frames
from hf_causal_video.viewer.words import axis_ticks

SAME_OBJECT = 0.5  # mean overlap on common frames above which two trajectories are one object
COLOURS = ("#e8590c", "#1971c2", "#2b8a3e", "#9c36b5", "#b08900", "#c2255c", "#0b7285", "#5f3dc4")
Box = tuple[float, float, float, float]
Row = Mapping[str, Any]  # a relation as it was predicted


@dataclass
class DrawnObject:
    """One object of the clip: its number, its class in words, and where it is seen.

    Args:
        number: from 1, by the score of the best relation that it is part of.
        label: class.
        boxes: by frame, xyxy in [0, 1].
    """

    number: int
    label: str
    boxes: dict[int, Box]

    @property
    def colour(self) -> str:
        """Its colour; it comes again after eight objects, the number does not."""
        return COLOURS[(self.number - 1) % len(COLOURS)]


@dataclass
class DrawnRelation:
    """One predicate between two objects, over one or more stretches of frames [start, end), with its best score."""

    subject: DrawnObject
    predicate: str
    object: DrawnObject
    score: float | None
    spans: list[tuple[int, int]]

    @property
    def words(self) -> str:
        """The predicate as it is read."""
        return self.predicate.replace("_", " ")

    def holds(self, moment: int) -> bool:
        """True if the relation holds in a frame."""
        return any(start <= moment < end for start, end in self.spans)


@dataclass
class RelationCase:
    """A clip, its relations, and some of its frames.

    Args:
        relations: as `pipeline("video-relation-detection")` or a VidVRD prediction file gives them: `triplet`,
            `duration` [first frame, frame after the last], `sub_traj`, `obj_traj`, and `score` if predicted.
        frames: pictures, (H, W, 3) uint8 RGB; none at all draws the boxes on blank paper.
        frame_indices: which frame of the clip each picture is, increasing.
        frame_size: width and height in pixels that the boxes refer to; None: they are fractions of the frame.
        times_s: seconds of every frame of the clip; without, the axis counts frames.
        title: a line above, such as the name of the clip.
        most: relations that are drawn, best first; the same predicate of the same two objects is one.

    Raises:
        CausalVideoError: invalid pictures, or pictures out of order, a trajectory that does not fit its duration,
            relations that go on after the last known time, boxes in pixels without a frame size.

    Example:
        >>> relation = {"triplet": ["dog", "chase", "cat"], "score": 0.9, "duration": [2, 4],
        ...             "sub_traj": [[0, 0, 9, 9]] * 2, "obj_traj": [[20, 0, 30, 9]] * 2}
        >>> case = RelationCase([relation, relation | {"triplet": ["dog", "near", "cat"]}], frame_size=(40, 20))
        >>> [(one.subject.number, one.predicate, one.object.number) for one in case.shown], case.end
        ([(1, 'chase', 2), (1, 'near', 2)], 4)
    """

    relations: Sequence[Row]
    frames: Sequence[np.ndarray] = ()
    frame_indices: Sequence[int] = ()
    frame_size: tuple[int, int] | None = None
    times_s: Sequence[float] | None = None
    title: str = ""
    most: int = 14
    objects: list[DrawnObject] = field(init=False, repr=False)
    shown: list[DrawnRelation] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.frames = read_frames(self.frames)
        self.frame_indices = [int(index) for index in self.frame_indices]
        require(
            len(self.frames) == len(self.frame_indices) and not (np.diff(self.frame_indices) <= 0).any(),
            "pictures of a clip",
            found=lambda: f"{len(self.frames)} of frames {self.frame_indices[:8]}",
            expected="increasing frames, one a picture",
            fix="pass both from one result",
        )
        self.objects = []
        self.shown = []
        for number, row in enumerate(sorted(self.relations, key=lambda one: -float(one.get("score") or 0.0))):
            self._add(row, number)
        require(
            self.times_s is None or len(self.times_s) >= self.end,
            "times of a clip",
            found=lambda: len(self.times_s or ()),
            expected=f"{self.end}, one per frame",
            fix="pass the times of all frames that were looked at",
        )

    @property
    def end(self) -> int:
        """The frame after the last that matters."""
        ends = [end for one in self.shown for _, end in one.spans] + [index + 1 for index in self.frame_indices]
        return max(ends + [len(self.times_s) if self.times_s is not None else 1])

    @property
    def shape(self) -> tuple[int, int]:
        """Width and height of a picture."""
        if self.frames:
            return self.frames[0].shape[1], self.frames[0].shape[0]
        return self.frame_size or (160, 90)

    @property
    def moments(self) -> list[int]:
        """Frames that can be shown: those with a picture, else 24 spread over the clip."""
        if self.frame_indices:
            return list(self.frame_indices)
        return sorted(set(np.linspace(0, self.end - 1, 24).round().astype(int).tolist()))

    def picture(self, moment: int) -> np.ndarray:
        """The picture of a moment, blank where the clip itself is not here."""
        if self.frame_indices:
            return self.frames[self.frame_indices.index(moment)]
        scale = 480 / max(self.shape)
        return np.full((round(self.shape[1] * scale), round(self.shape[0] * scale), 3), 238, np.uint8)

    def active(self, moment: int) -> list[DrawnRelation]:
        """The relations that hold at a moment, best first."""
        return [one for one in self.shown if one.holds(moment)]

    def present(self, moment: int) -> list[DrawnObject]:
        """The objects of these relations."""
        numbers = {obj.number for one in self.active(moment) for obj in (one.subject, one.object)}
        return [obj for obj in self.objects if obj.number in numbers]

    def best_moments(self, count: int) -> list[int]:
        """Up to `count` moments, in order of time: those that show the best relations, then those far from these."""
        chosen: list[int] = []
        for one in self.shown:
            inside = [moment for moment in self.moments if one.holds(moment)]
            if len(chosen) < count and inside and not set(inside) & set(chosen):
                chosen.append(inside[len(inside) // 2])
        free = [moment for moment in self.moments if moment not in chosen and self.active(moment)]
        while chosen and free and len(chosen) < count:
            chosen.append(max(free, key=lambda moment: min(abs(moment - other) for other in chosen)))
            free.remove(chosen[-1])
        return sorted(chosen) or self.moments[len(self.moments) // 2 :][:1]

    def label_of(self, moment: int) -> str:
        """A moment in words."""
        return f"frame {moment}" if self.times_s is None else f"{self.times_s[moment]:.1f} s"

    def position(self, frame: float) -> float:
        """Position of a frame's beginning on the time axis, in [0, 1]; frames are evenly spaced."""
        return frame / self.end

    def ticks(self, most: int = 12) -> list[tuple[float, str]]:
        """Positions in [0, 1] and labels of round numbers on the axis."""
        if self.times_s is None or len(self.times_s) < 2:
            return axis_ticks(self.end, most, in_seconds=False)
        return axis_ticks(float(np.median(np.diff(self.times_s))) * self.end, most)

    def _add(self, row: Row, number: int) -> None:
        first, end = (int(frame) for frame in row["duration"])
        words = [str(word) for word in row["triplet"]]
        tracks = [self._fractions(row[side], number) for side in ("sub_traj", "obj_traj")]  # (frames, 4) each
        require(
            len(words) == 3 and 0 <= first < end and not any(len(track) != end - first for track in tracks),
            f"relation {number}",
            found=lambda: f"{words}, frames [{first}, {end}), {[len(track) for track in tracks]} boxes",
            expected="three words, one box per frame of its duration",
            fix="pass relations as they were predicted",
        )
        seen = [dict(zip(range(first, end), map(tuple, track.tolist()), strict=True)) for track in tracks]
        subject = self._find(seen[0], None)
        other = self._find(seen[1], subject)
        for one in self.shown:
            if one.subject is subject and one.object is other and one.predicate == words[1]:
                one.spans = _union([*one.spans, (first, end)])
                break
        else:
            if len(self.shown) == self.most:
                return
            subject = subject or self._new(words[0])
            other = other or self._new(words[2])
            score = None if row.get("score") is None else float(row["score"])
            self.shown.append(DrawnRelation(subject, words[1], other, score, [(first, end)]))
        for thing, boxes in zip((subject, other), seen, strict=True):
            thing.boxes = boxes | thing.boxes

    def _fractions(self, boxes: Sequence[Sequence[float]], number: int) -> np.ndarray:
        track = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
        require(
            np.isfinite(track).all() and (track[:, 2:] >= track[:, :2]).all(),
            f"relation {number}",
            found="inverted or infinite boxes",
            expected="left, top, right, bottom",
            fix="convert left, top, width, height boxes",
        )
        require(
            self.frame_size is not None or not track.size or track.max() <= 2,
            f"relation {number}",
            found=lambda: f"a box edge at {track.max():g}",
            expected="fractions of the frame, or pixels and their frame_size",
            fix="pass frame_size=(width, height)",
        )
        return (track / (1.0 if self.frame_size is None else [*self.frame_size] * 2)).clip(0, 1)

    def _find(self, seen: dict[int, Box], partner: DrawnObject | None) -> DrawnObject | None:
        """The object that a trajectory belongs to, if one overlaps it; the partner is another one."""
        overlaps = [0.0 if one is partner else _overlap(one.boxes, seen) for one in self.objects]
        best = int(np.argmax(overlaps)) if overlaps else 0
        return self.objects[best] if overlaps and overlaps[best] > SAME_OBJECT else None

    def _new(self, label: str) -> DrawnObject:
        self.objects.append(DrawnObject(len(self.objects) + 1, label, {}))
        return self.objects[-1]


def _union(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Stretches of frames without overlap, in order."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _overlap(one: Mapping[int, Box], two: Mapping[int, Box]) -> float:
    """Mean intersection over union on common frames, 0 without any."""
    common = sorted(set(one) & set(two))
    if not common:
        return 0.0
    first = np.array([one[frame] for frame in common])  # (common, 4)
    second = np.array([two[frame] for frame in common])
    return float(iou(first, second).mean())
