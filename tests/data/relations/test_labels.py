"""Laws of label assignment: close tracks take class and relations, far ones are background, others no lesson."""

import numpy as np
import pytest
import torch

from hf_causal_video.data.relations.labels import IGNORED, PairRule, segment_targets
from hf_causal_video.utils.errors import CausalVideoError

CLASSES, PREDICATES = ["dog", "cat"], ["chase", "watch"]


def boxes(left: float, length: int = 30) -> np.ndarray:
    return np.tile([left, 0, left + 99, 99], (length, 1)).astype(float)


def row(start: int = 0, end: int = 30) -> dict:
    frames = list(range(60))
    return {
        "video_id": "v",
        "tracks": [
            {"category": "dog", "frames": frames, "boxes": boxes(0, 60)},
            {"category": "cat", "frames": frames, "boxes": boxes(300, 60)},
        ],
        "relations": [{"subject": 0, "predicate": "chase", "object": 1, "start": start, "end": end}],
    }


def targets(tracks: list, **more) -> dict:
    return segment_targets(tracks, row(**{k: more.pop(k) for k in ("start", "end") if k in more}), (0, 30),
                           CLASSES, PREDICATES, **more)  # fmt: skip


def test_classes_by_overlap() -> None:
    close, between, far = (0, boxes(2)), (0, boxes(20)), (0, boxes(80))
    assert targets([close, between, far])["track_labels"].tolist() == [0, IGNORED, 2]
    assert targets([(0, boxes(301))])["track_labels"].tolist() == [1]


def test_a_relation_goes_to_its_ordered_pair_alone_and_undecided_tracks_to_none() -> None:
    found = targets([(0, boxes(1)), (0, boxes(299)), (0, boxes(20)), (0, boxes(600))])
    pairs = {
        tuple(pair): labels
        for pair, labels in zip(found["pair_index"].tolist(), found["predicate_labels"].tolist(), strict=True)
    }
    assert set(pairs) == {(a, b) for a in (0, 1, 3) for b in (0, 1, 3) if a != b}
    assert [pair for pair, labels in pairs.items() if any(labels)] == [(0, 1)] and pairs[0, 1] == [1, 0]


@pytest.mark.parametrize(("end", "counts"), [(19, False), (20, True), (5, True)])
def test_a_relation_must_cover_enough_of_the_segment(end: int, counts: bool) -> None:
    """19 of 20 demanded frames are too few of a relation that began before; one that is itself short counts whole."""
    start = -10 if end == 19 else 0
    found = targets([(0, boxes(0)), (0, boxes(300))], start=start, end=end)
    assert bool(found["predicate_labels"].any()) == counts
    vidor = targets([(0, boxes(0)), (0, boxes(300))], start=start, end=end, rule=PairRule(min_overlap=3))
    assert vidor["predicate_labels"].any()


def test_overlap_is_measured_inside_the_segment() -> None:
    """A track of 30 frames follows an annotated track of 60 perfectly."""
    assert targets([(0, boxes(0))])["track_labels"].tolist() == [0]


def test_pairs_with_a_relation_are_kept_when_pairs_are_dropped() -> None:
    crowd = [(0, boxes(0)), (0, boxes(300)), *((0, boxes(600 + 200 * i)) for i in range(12))]
    generator = torch.Generator().manual_seed(0)
    found = targets(crowd, rule=PairRule(max_pairs=5), generator=generator)
    assert len(found["pair_index"]) == 5 and [0, 1] in found["pair_index"].tolist()
    assert found["predicate_labels"].sum() == 1


def test_tracks_that_never_meet_make_no_pair_and_nothing_makes_nothing() -> None:
    assert not len(targets([(0, boxes(0, 10)), (15, boxes(300, 10))])["pair_index"])
    empty = targets([])
    assert empty["track_labels"].shape == (0,) and empty["predicate_labels"].shape == (0, 2)
    alone = segment_targets(
        [(0, boxes(0))], {"video_id": "v", "tracks": [], "relations": []}, (0, 30), CLASSES, PREDICATES
    )
    assert alone["track_labels"].tolist() == [2]


def test_names_outside_the_vocabulary_are_errors() -> None:
    for classes, predicates in ((["dog"], PREDICATES), (CLASSES, ["watch"])):
        with pytest.raises(CausalVideoError, match="build the vocabulary"):
            segment_targets([(0, boxes(0)), (0, boxes(300))], row(), (0, 30), classes, predicates)
