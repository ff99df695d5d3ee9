"""From relations of short segments to relations of a video: suppress duplicates, then join what continues.

Why: a head judges segments of a second; an answer is one relation with two trajectories as long as it lasts.

Source: a *reconstruction* after the greedy association of VidVRD-helper and VidVRD-II (Shang et al., ACM MM 2017
and 2021), which join over consecutive segments by triplet and by the overlap of both trajectories on their common
frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from hf_causal_video.utils.geometry import area, over_union, shared_area

Triplet = tuple[str, str, str]


@dataclass
class Relation:
    """A relation over the frames [start, start + L): two trajectories (L, 4), kept as sums so that joining averages.

    Args:
        triplet: subject class, predicate, object class.
        scores: the score in each segment.
        start: first frame.
        boxes: (2, L, 4) sums of subject and object boxes.
        count: (L,) segments that saw each frame; 0 in a gap.
    """

    triplet: Triplet
    scores: list[float]
    start: int
    boxes: np.ndarray
    count: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        if not len(self.count):
            self.count = np.ones(self.boxes.shape[1])

    @property
    def end(self) -> int:
        """The frame after the last."""
        return self.start + self.boxes.shape[1]

    def trajectories(self) -> np.ndarray:
        """(2, L, 4) mean boxes, gaps interpolated."""
        seen = np.flatnonzero(self.count)
        means = self.boxes[:, seen] / self.count[seen, None]
        frames = np.arange(len(self.count))
        columns = [[np.interp(frames, seen, side[:, i]) for i in range(4)] for side in means]
        return np.array(columns).transpose(0, 2, 1)

    def join(self, other: "Relation") -> None:
        """Take in another relation of the same triplet."""
        start, end = min(self.start, other.start), max(self.end, other.end)
        boxes = np.zeros((2, end - start, 4))
        count = np.zeros(end - start)
        for one in (self, other):
            boxes[:, one.start - start : one.end - start] += one.boxes
            count[one.start - start : one.end - start] += one.count
        self.scores = self.scores + other.scores
        self.start = start
        self.boxes = boxes
        self.count = count

    def to_dict(self, score: Literal["sum", "mean"]) -> dict[str, Any]:
        """The relation in the layout of the public evaluation."""
        subject, other = self.trajectories().tolist()
        total = float(sum(self.scores)) / (1 if score == "sum" else len(self.scores))
        return {
            "triplet": list(self.triplet),
            "score": total,
            "duration": [self.start, self.end],
            "sub_traj": subject,
            "obj_traj": other,
        }


def suppress(relations: Sequence[Relation], threshold: float) -> list[Relation]:
    """Drop a relation that overlaps one of the same triplet and a better score by vIoU above the threshold."""
    kept: list[Relation] = []
    for one in sorted(relations, key=lambda relation: -sum(relation.scores)):
        same = (other for other in kept if other.triplet == one.triplet)
        if all(overlap(one, other, common_frames_only=False) <= threshold for other in same):
            kept.append(one)
    return kept


def associate(segments: Sequence[Sequence[Relation]], threshold: float = 0.5, max_gap: int = 30) -> list[Relation]:
    """Join relations over consecutive segments, greedily by score.

    Args:
        segments: the relations of each segment, in temporal order.
        threshold: both trajectories must overlap by more than this on the frames they share; where they share none,
            the nearest two boxes must.
        max_gap: frames that may lie between two parts; they are interpolated.

    Example:
        >>> boxes = np.tile([0.0, 0.0, 9.0, 9.0], (2, 4, 1))
        >>> parts = [Relation(("a", "on", "b"), [0.5], start, boxes) for start in (0, 2)]
        >>> [joined] = associate([parts[:1], parts[1:]])
        >>> joined.start, joined.end, joined.to_dict("sum")["score"]
        (0, 6, 1.0)
    """
    joined: list[Relation] = []
    for relations in segments:
        taken: set[int] = set()
        fresh: list[Relation] = []
        for one in sorted(relations, key=lambda relation: -relation.scores[0]):
            near = [
                place
                for place, other in enumerate(joined)
                if place not in taken and other.triplet == one.triplet and one.start - other.end <= max_gap
            ]
            overlaps = [overlap(joined[place], one) for place in near]
            if overlaps and max(overlaps) > threshold:
                best = near[int(np.argmax(overlaps))]
                joined[best].join(one)
                taken.add(best)
            else:
                fresh.append(one)
        joined += fresh
    return joined


def overlap(one: Relation, two: Relation, common_frames_only: bool = True) -> float:
    """The lesser vIoU of subject and object, over the common frames (their nearest boxes if none) or all frames."""
    first, last = max(one.start, two.start), min(one.end, two.end)
    a, b = one.trajectories(), two.trajectories()  # (2, L, 4)
    if first >= last and not common_frames_only:
        return 0.0
    if first >= last:
        before, after = (a, b) if one.start < two.start else (b, a)
        part_a, part_b = before[:, -1:], after[:, :1]
    else:
        part_a = a[:, first - one.start : last - one.start]
        part_b = b[:, first - two.start : last - two.start]
    whole_a, whole_b = (part_a, part_b) if common_frames_only else (a, b)
    shared = shared_area(part_a, part_b).sum(-1)  # (2,)
    return float(over_union(shared, area(whole_a).sum(-1), area(whole_b).sum(-1)).min())
