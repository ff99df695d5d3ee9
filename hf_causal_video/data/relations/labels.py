"""Labels of a segment: which tracks are which object, and which predicates hold between two of them.

Why: a head learns from the tracks it will be asked about, not from annotated ones alone. A track that follows an
annotated track closely takes its class and its relations, one that follows none is background and an example of "no
relation", and what lies between is left out, since its label would be a guess.

Source: a *reconstruction* after the configurations of VidVRD-II (Shang et al., ACM MM 2021): vIoU above 0.9 is
positive, below 0.5 negative; a relation counts where it covers 20 frames of the segment (VidVRD) or 3 (VidOR);
64 pairs per segment.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from hf_causal_video.data.relations.rows import VideoRow
from hf_causal_video.utils.checks import check_choice
from hf_causal_video.utils.geometry import area, over_union, shared_area

IGNORED = -100
Segment = tuple[int, int]  # first frame, and the frame after the last


@dataclass(frozen=True)
class PairRule:
    """How labels are assigned; the defaults are those of VidVRD, `min_overlap=3` is VidOR's.

    Args:
        positive: a track above this vIoU with an annotated track is that object.
        negative: a track below this vIoU with every annotated track is background.
        min_overlap: frames of the segment that a relation must cover, or all of a shorter relation or segment.
        max_pairs: pairs kept of a segment: those with a relation first, then others at random.
        inclusive: boxes are inclusive pixels (+1).
    """

    positive: float = 0.9
    negative: float = 0.5
    min_overlap: int = 20
    max_pairs: int = 64
    inclusive: bool = True


def segment_targets(
    tracks: Sequence[tuple[int, np.ndarray]],
    row: VideoRow,
    segment: Segment,
    object_classes: Sequence[str],
    predicates: Sequence[str],
    rule: PairRule | None = None,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Labels of one segment.

    Args:
        tracks: first frame and boxes (L, 4) in pixels of each of N tracks.
        row: the relation row of the video.
        segment: [first frame, frame after the last).
        object_classes, predicates: the vocabularies, by index.
        rule: thresholds; `PairRule()` otherwise.
        generator: source of the choice among pairs without a relation.

    Returns:
        `track_labels` (N,): class, `len(object_classes)` for background, -100 in between; `pair_index` (R, 2) and
        `predicate_labels` (R, P) 0/1, of pairs of which each side is decided and which share a frame.

    Raises:
        CausalVideoError: a class or predicate outside the vocabularies.

    Example:
        >>> boxes = [[[0, 0, 9, 9]] * 4, [[30, 0, 39, 9]] * 4]
        >>> track = [{"category": "dog", "frames": range(4), "boxes": one} for one in boxes]
        >>> row = {"video_id": "v", "tracks": track,
        ...        "relations": [{"subject": 0, "predicate": "left", "object": 1, "start": 0, "end": 4}]}
        >>> found = segment_targets([(0, np.array(one)) for one in boxes], row, (0, 4), ["dog"], ["left"])
        >>> found["pair_index"].tolist(), found["predicate_labels"].tolist()
        ([[0, 1], [1, 0]], [[1.0], [0.0]])
    """
    rule = rule or PairRule()
    track_boxes, present = _dense(_framed(tracks), segment)
    wanted, annotated = _dense([(track["frames"], track["boxes"]) for track in row["tracks"]], segment)
    viou = _viou(track_boxes, present, wanted, annotated, rule.inclusive)  # (N, G)
    best = viou.max(axis=1, initial=0.0)
    is_object = best > rule.positive
    is_nothing = best < rule.negative

    background = len(object_classes)
    classes = np.array(
        [_index(object_classes, track["category"], row, "class") for track in row["tracks"]] or [background]
    )
    nearest = viou.argmax(axis=1) if viou.shape[1] else np.zeros(len(tracks), dtype=np.int64)
    labels = np.where(is_object, classes[nearest], np.where(is_nothing, background, IGNORED))

    decided = is_object | is_nothing
    meet = (present[:, None] & present[None]).any(axis=2) & ~np.eye(len(tracks), dtype=bool)  # (N, N)
    targets = np.zeros((len(tracks), len(tracks), len(predicates)), dtype=np.float32)
    for relation in row["relations"]:
        shared = min(relation["end"], segment[1]) - max(relation["start"], segment[0])
        enough = min(rule.min_overlap, relation["end"] - relation["start"], segment[1] - segment[0])
        if shared >= max(1, enough):
            follows = viou > rule.positive
            pairs = follows[:, None, relation["subject"]] & follows[None, :, relation["object"]]
            targets[pairs, _index(predicates, relation["predicate"], row, "predicate")] = 1
    index = torch.tensor(np.argwhere(meet & decided[:, None] & decided[None]).reshape(-1, 2))
    values = torch.tensor(targets)[index[:, 0], index[:, 1]]
    order = torch.rand(len(index), generator=generator) + values.any(1)  # those with a relation first
    kept = order.argsort(descending=True)[: rule.max_pairs].sort().values
    return {"track_labels": torch.tensor(labels), "pair_index": index[kept], "predicate_labels": values[kept]}


def tracks_viou(
    one: Sequence[tuple[int, np.ndarray]],
    two: Sequence[tuple[int, np.ndarray]],
    segment: Segment,
    inclusive: bool = True,
) -> np.ndarray:
    """vIoU inside a segment of each track of one list with each of another, (N, G); tracks as in `segment_targets`."""
    return _viou(*_dense(_framed(one), segment), *_dense(_framed(two), segment), inclusive)


def _framed(tracks: Sequence[tuple[int, np.ndarray]]) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(start + np.arange(len(boxes)), boxes) for start, boxes in tracks]


def _dense(tracks: Sequence[tuple[ArrayLike, ArrayLike]], segment: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (tracks, F, 4) of the F frames of a segment, and where there are any (tracks, F)."""
    length = segment[1] - segment[0]
    boxes = np.zeros((len(tracks), length, 4))
    present = np.zeros((len(tracks), length), dtype=bool)
    for place, (frames, track_boxes) in enumerate(tracks):
        step = np.asarray(frames, dtype=np.int64) - segment[0]
        inside = (step >= 0) & (step < length)
        boxes[place, step[inside]] = np.asarray(track_boxes, dtype=np.float64).reshape(-1, 4)[inside]
        present[place, step[inside]] = True
    return boxes, present


def _viou(a: np.ndarray, in_a: np.ndarray, b: np.ndarray, in_b: np.ndarray, inclusive: bool) -> np.ndarray:
    """vIoU inside the segment of every track with every annotated track, (N, G)."""
    one, two = ((area(boxes, inclusive) * present).sum(1) for boxes, present in ((a, in_a), (b, in_b)))
    shared = shared_area(a[:, None], b[None], inclusive) * (in_a[:, None] & in_b[None])  # (N, G, F)
    return over_union(shared.sum(2), one[:, None], two[None])


def _index(names: Sequence[str], name: str, row: VideoRow, what: str) -> int:
    if name not in names:  # asked of every track: no text in advance
        fix = "build the vocabulary from the training split, or drop the annotation"
        check_choice(f"{what} of video {row['video_id']}", name, names, fix=fix)
    return list(names).index(name)
