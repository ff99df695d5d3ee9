"""Relations of a video as arrays, and how much two trajectories overlap in space and time (vIoU).

Why a file of its own: every error that an annotation can hold (an inverted box, a trajectory shorter than its
duration) moves vIoU silently, so it is refused here, once, where boxes are read. The overlap itself is one ragged
sum over all pairs of a video, without a loop over frames.

Source: Shang et al., ACM MM 2017 (ImageNet-VidVRD) and VidVRD-helper, which counts inclusive pixels (+1 on widths and
heights). Boxes as fractions of the frame need `inclusive=False`; the two give different numbers.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from hf_causal_video.evaluation.inputs import Row
from hf_causal_video.utils.checks import check_fields, check_number, is_list, is_number, is_text
from hf_causal_video.utils.errors import CausalVideoError, require
from hf_causal_video.utils.geometry import area, check_boxes, over_union, shared_area

Triplet = tuple[str, str, str]


@dataclass(frozen=True)
class VideoRelations:
    """The R relations of one video; the boxes of all their frames lie one after the other.

    Args:
        triplets: (subject class, predicate, object class) of each.
        scores: (R,) float64, 0 for ground truth.
        starts, ends: (R,) first frame, and the frame after the last.
        offsets: (R,) where the boxes of each begin.
        subject, object: (all frames, 4) left, top, right, bottom.
    """

    triplets: list[Triplet]
    scores: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    offsets: np.ndarray
    subject: np.ndarray
    object: np.ndarray

    def __len__(self) -> int:
        return len(self.triplets)

    def select(self, keep: np.ndarray) -> "VideoRelations":
        """Some of the relations, by mask or by index; the boxes stay where they are."""
        positions = np.arange(len(self))[keep]
        columns = (self.scores[positions], self.starts[positions], self.ends[positions], self.offsets[positions])
        return VideoRelations([self.triplets[place] for place in positions], *columns, self.subject, self.object)


def read_video_relations(video_id: str, rows: Iterable[Row], what: str) -> VideoRelations:
    """Check the relations of one video and put them in arrays.

    Args:
        video_id, what: for the error messages; `what` is "prediction", which needs scores, or "ground truth".
        rows: `{"triplet", "duration": [first, after the last], "sub_traj", "obj_traj"}`, and "score" in predictions.

    Raises:
        CausalVideoError: a missing field, a triplet that is not three names, an empty duration, a trajectory of
            another length than its duration, an inverted or infinite box, a score that is not a finite number.
    """
    is_list_of_rows = isinstance(rows, Iterable) and not isinstance(rows, str | Mapping)
    name = f"relations of video {video_id} ({what})"
    require(is_list_of_rows, name, found=type(rows).__name__, expected="a list of relations")
    triplets: list[Triplet] = []
    scores: list[float] = []
    spans: list[tuple[int, int]] = []
    tracks: dict[str, list[Sequence]] = {"sub_traj": [], "obj_traj": []}
    for number, row in enumerate(rows):
        name = f"{what} {number} of video {video_id}"
        check_fields(name, row, ("triplet", "duration", *tracks, *(["score"] if what == "prediction" else [])))
        start, end = _span(row["duration"], name)
        for side, values in tracks.items():
            boxes = row[side]
            if not is_list(boxes) or len(boxes) != end - start:
                problem = f"{len(boxes)} boxes" if is_list(boxes) else repr(boxes)
                expected = f"{end - start}, one for each frame of [{start}, {end})"
                what_differs = f"{name}: {side} and duration differ"
                raise CausalVideoError(what_differs, found=problem, expected=expected, fix="interpolate the gaps")
            values.append(boxes)
        triplets.append(read_triplet(row["triplet"], name))
        scores.append(_score(row["score"], name) if what == "prediction" else 0.0)
        spans.append((start, end))
    starts, ends = np.array(spans, dtype=np.int64).reshape(-1, 2).T
    offsets = np.cumsum(ends - starts) - (ends - starts)
    sides = [_boxes(values, f"{what} of video {video_id}", side) for side, values in tracks.items()]
    return VideoRelations(triplets, np.array(scores, dtype=np.float64), starts, ends, offsets, *sides)


def pair_viou(
    one: VideoRelations, two: VideoRelations, i: np.ndarray, j: np.ndarray, inclusive: bool = True
) -> np.ndarray:
    """vIoU of relation i[k] of `one` and j[k] of `two`: the lesser of their subjects' and their objects', (pairs,).

    Volumes are sums of box areas over the *full* durations; the intersection is summed over the common frames.
    """
    first = np.maximum(one.starts[i], two.starts[j])
    common = np.maximum(np.minimum(one.ends[i], two.ends[j]) - first, 0)  # (pairs,) frames shared
    owner = np.repeat(np.arange(len(i)), common)  # (all shared frames,)
    step = np.arange(len(owner)) - np.repeat(np.cumsum(common) - common, common)
    rows = [
        np.repeat(side.offsets[index] + first - side.starts[index], common) + step
        for side, index in ((one, i), (two, j))
    ]
    vious = []
    for name in ("subject", "object"):
        a, b = getattr(one, name), getattr(two, name)
        shared = np.bincount(owner, shared_area(a[rows[0]], b[rows[1]], inclusive), minlength=len(i))
        vious.append(over_union(shared, _volumes(a, one, i, inclusive), _volumes(b, two, j, inclusive)))
    return np.minimum(*vious)


def trajectory_viou(
    traj_1: Sequence, duration_1: Sequence[int], traj_2: Sequence, duration_2: Sequence[int], inclusive: bool = True
) -> float:
    """vIoU of two trajectories.

    Args:
        traj_1, traj_2: one box [left, top, right, bottom] a frame.
        duration_1, duration_2: [first frame, frame after the last].
        inclusive: boxes are inclusive pixels (+1 on widths and heights); False for boxes in [0, 1].

    Raises:
        CausalVideoError: as `read_video_relations`.

    Example:
        >>> trajectory_viou([[0, 0, 9, 9]] * 2, [0, 2], [[0, 0, 9, 4]] * 2, [1, 3])
        0.2
    """
    rows = [
        {"triplet": ("x", "y", "z"), "duration": span, "sub_traj": track, "obj_traj": track}
        for track, span in ((traj_1, duration_1), (traj_2, duration_2))
    ]
    one, two = (read_video_relations("given", [row], "track") for row in rows)
    return float(pair_viou(one, two, np.array([0]), np.array([0]), inclusive)[0])


def read_triplet(value: object, name: str) -> Triplet:
    """Three names; an error names what they belong to."""
    parts = [part for part in value if is_text(part) and part] if is_list(value) else []
    fits = is_list(value) and len(parts) == len(value) == 3
    require(fits, f"{name}: no triplet", found=repr(value), expected="[subject class, predicate, object class]")
    return parts[0], parts[1], parts[2]


def _volumes(boxes: np.ndarray, relations: VideoRelations, index: np.ndarray, inclusive: bool) -> np.ndarray:
    """Sum of box areas over the duration of the relations named by `index`."""
    sums = np.concatenate([[0.0], np.cumsum(area(boxes, inclusive))])
    begin = relations.offsets[index]
    return sums[begin + relations.ends[index] - relations.starts[index]] - sums[begin]


def _boxes(tracks: list[Sequence], what: str, side: str) -> np.ndarray:
    """All trajectories of a video as one array (frames, 4), with every box in order."""
    rows = list(chain.from_iterable(tracks))
    try:
        if set(map(len, rows)) - {4}:
            raise ValueError("a row is not four numbers")
        boxes = np.fromiter(chain.from_iterable(rows), np.float64, 4 * len(rows)).reshape(-1, 4)
    except (TypeError, ValueError, OverflowError):
        problem = "rows other than four numbers"
        require(False, f"{what}: {side} holds no boxes", found=problem, expected="[left, top, right, bottom]")
    are_boxes = np.isfinite(boxes).all() and (boxes[:, 2:] >= boxes[:, :2]).all()
    for number, track in enumerate([] if are_boxes else tracks):  # which one it is, is only asked if it matters
        check_boxes(np.array(track, dtype=np.float64), f"{what}: {side} of relation {number}")
    return boxes


def _span(value: object, name: str) -> tuple[int, int]:
    pair = [int(frame) for frame in value if is_number(frame) and frame % 1 == 0] if is_list(value) else []
    fits = is_list(value) and len(pair) == len(value) == 2 and 0 <= pair[0] < pair[1] < 2**62
    expected = "[first frame, frame after the last], not empty"
    require(fits, f"{name}: no duration", found=value, expected=expected)
    return pair[0], pair[1]


def _score(value: object, name: str) -> float:
    check_number(f"{name}: score", value, fix="look for NaN in the model's output")
    return float(value)  # type: ignore[arg-type]
