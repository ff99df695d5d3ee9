"""Laws of tagging: a perfect list, an empty one, hand-counted ones, and thirds of the predicates."""

import math

import pytest

from hf_causal_video.evaluation.relations.tagging import tagging_metrics
from hf_causal_video.utils.errors import CausalVideoError

CHASE, BITE, WATCH = ("dog", "chase", "cat"), ("dog", "bite", "cat"), ("cat", "watch", "dog")
TRUTH = {"v": {CHASE, WATCH}, "w": {CHASE, BITE}}
COUNTS = {"chase": 90, "watch": 9, "bite": 1}


def test_precision_and_recall_are_those_counted_by_hand() -> None:
    found = tagging_metrics({"v": [CHASE, BITE, WATCH], "w": [WATCH]}, TRUTH, COUNTS)
    assert found["P@1"] == 50 and found["P@5"] == pytest.approx(20)
    assert found["R@50"] == 50 and found["mR@50"] == pytest.approx((50 + 100 + 0) / 3)
    assert (found["head"], found["body"], found["tail"]) == (50, 100, 0)


def test_a_perfect_list_a_missing_video_and_a_late_hit() -> None:
    perfect = tagging_metrics({name: list(triplets) for name, triplets in TRUTH.items()}, TRUTH, COUNTS)
    assert all(perfect[name] == 100 for name in ("P@1", "R@50", "mR@100", "head", "tail"))
    assert tagging_metrics({}, TRUTH)["R@100"] == 0
    late = [("dog", f"p{number}", "cat") for number in range(60)] + [CHASE]
    found = tagging_metrics({"v": late}, {"v": {CHASE}})
    assert found["R@50"] == 0 and found["R@100"] == 100


def test_a_third_without_annotation_has_no_number() -> None:
    assert math.isnan(tagging_metrics({}, {"v": {CHASE}}, COUNTS)["tail"])


@pytest.mark.parametrize(
    ("ranked", "truth", "counts", "message"),
    [
        ({"v": [CHASE, CHASE]}, TRUTH, COUNTS, "twice"),
        ({}, {"v": set()}, COUNTS, "annotated"),
        ({}, TRUTH, {"chase": 1}, "bite"),
    ],
)
def test_what_cannot_be_measured_is_refused(ranked, truth, counts, message) -> None:
    with pytest.raises(CausalVideoError, match=message):
        tagging_metrics(ranked, truth, counts)
