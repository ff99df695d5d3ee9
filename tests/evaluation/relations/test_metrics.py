"""Laws of relation metrics: vIoU by hand, each annotated relation once, thirds by frequency, bad input refused."""

import math
import time

import numpy as np
import pytest

from hf_causal_video.evaluation.relations.metrics import METRICS, vidvrd_metrics
from hf_causal_video.evaluation.relations.tracks import trajectory_viou
from hf_causal_video.utils.errors import CausalVideoError

LEFT, RIGHT = [0, 0, 9, 9], [20, 0, 29, 9]


def relation(predicate: str = "chase", start: int = 0, end: int = 10, box=LEFT, score: float | None = None) -> dict:
    row = {
        "triplet": ["dog", predicate, "cat"],
        "duration": [start, end],
        "sub_traj": [box] * (end - start),
        "obj_traj": [RIGHT] * (end - start),
    }
    return row if score is None else row | {"score": score}


def test_viou_by_hand() -> None:
    # 2 of 4 frames shared, boxes of 10 x 10 pixels of which 10 x 5 agree: 100 / (300 + 300 - 100)
    one, two = [LEFT] * 3, [[0, 5, 9, 14]] * 3
    assert trajectory_viou(one, [0, 3], two, [1, 4]) == pytest.approx(100 / 500)
    # without the +1 the boxes are 9 x 9, of which 9 x 4 agree
    assert trajectory_viou(one, [0, 3], two, [1, 4], inclusive=False) == pytest.approx(72 / (2 * 243 - 72))


def test_fractions_of_the_frame_need_boxes_without_the_plus_one() -> None:
    one, two = [[0.0, 0.0, 0.2, 0.2]], [[0.1, 0.0, 0.3, 0.2]]
    assert trajectory_viou(one, [0, 1], two, [0, 1], inclusive=False) == pytest.approx(1 / 3)
    assert trajectory_viou(one, [0, 1], two, [0, 1]) > 0.8


@pytest.mark.parametrize("inclusive", [True, False])
def test_viou_is_symmetric_bounded_and_one_for_itself(inclusive: bool) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        corner = rng.integers(0, 20, (2, 6, 2))
        tracks = [np.concatenate([low, low + rng.integers(1, 15, (6, 2))], 1).tolist() for low in corner]
        spans = [[start, start + 6] for start in rng.integers(0, 8, 2).tolist()]
        forth = trajectory_viou(tracks[0], spans[0], tracks[1], spans[1], inclusive)
        assert forth == pytest.approx(trajectory_viou(tracks[1], spans[1], tracks[0], spans[0], inclusive))
        assert 0 <= forth <= 1
        assert trajectory_viou(tracks[0], spans[0], tracks[0], spans[0], inclusive) == pytest.approx(1)


def test_a_perfect_prediction_is_perfect_and_none_is_nothing() -> None:
    gold = {"v": [relation(), relation("watch", 5, 9)], "empty": []}
    perfect = vidvrd_metrics({"v": [row | {"score": 0.5} for row in gold["v"]]}, gold)
    assert {perfect[name] for name in METRICS} == {1.0}
    nothing = vidvrd_metrics({}, gold)
    assert {nothing[name] for name in METRICS} == {0.0}
    assert perfect["counts"] == {"videos": 1, "gt_relations": 2, "predictions": 2, "ignored_videos": 0}


def test_a_duplicate_is_a_false_detection_and_one_tag() -> None:
    gold = {"v": [relation(), relation("watch")]}
    predicted = [relation(score=0.9), relation(score=0.8), relation("watch", score=0.7)]
    result = vidvrd_metrics({"v": predicted}, gold)
    assert result["mAP"] == pytest.approx((1 + 2 / 3) / 2)
    assert result["P@5"] == 1.0  # two distinct triplets, both annotated
    assert result["per_video"]["v"]["true_positives"] == 2


def test_both_trajectories_must_overlap() -> None:
    far = relation(score=0.9) | {"obj_traj": [[200, 0, 209, 9]] * 10}
    assert vidvrd_metrics({"v": [far]}, {"v": [relation()]})["R@50"] == 0.0


def test_scores_order_only() -> None:
    rng = np.random.default_rng(1)
    gold = {"v": [relation(p, s, s + 8) for p in "abc" for s in (0, 20)]}
    rows = [
        relation(p, int(s), int(s) + 8, score=float(rng.random())) for p in "abcd" for s in rng.integers(0, 30, 20)
    ]
    one = vidvrd_metrics({"v": rows}, gold)
    two = vidvrd_metrics({"v": [row | {"score": 7 * row["score"] - 3} for row in reversed(rows)]}, gold)
    assert one == two


def test_recall_by_predicate_and_thirds() -> None:
    gold = {"v": [relation(p, 20 * i, 20 * i + 8) for i, p in enumerate(["a", "a", "a", "b", "c"])]}
    result = vidvrd_metrics(
        {"v": [row | {"score": 1.0} for row in gold["v"][:4]]}, gold, training_counts={"a": 9, "b": 2}
    )
    assert result["R@50"] == pytest.approx(4 / 5) and result["mR@50"] == pytest.approx(2 / 3)
    assert result["per_predicate"]["a"] == {"R@50": 1.0, "R@100": 1.0, "relations": 3}
    assert [result[f"{part} mR@50"] for part in ("head", "body", "tail")] == [1.0, 1.0, 0.0]  # c was never seen


def test_only_the_first_n_of_a_video_count_for_recall() -> None:
    wrong = [relation("other", score=1.0 - i / 1000) for i in range(60)]
    result = vidvrd_metrics({"v": [*wrong, relation(score=0.1)]}, {"v": [relation()]})
    assert (result["R@50"], result["R@100"]) == (0.0, 1.0)


def test_zero_shot_settings() -> None:
    gold = {"v": [relation(), relation("watch")], "w": [relation()]}
    predicted = {"v": [relation(score=0.9), relation("watch", score=0.8)]}
    result = vidvrd_metrics(predicted, gold, training_triplets=[["dog", "chase", "cat"]])
    assert result["zero_shot"]["mAP"] == 1.0 and result["zero_shot"]["videos"] == 1
    assert result["generalized_zero_shot"]["mAP"] == 0.5  # the seen triplet ranks first and is false here
    nothing = vidvrd_metrics(predicted, gold, training_triplets=[r["triplet"] for r in gold["v"]])["zero_shot"]
    assert nothing["mAP"] is None and nothing["gt_relations"] == 0


def test_unknown_videos_are_counted_or_refused_and_all_unknown_is_an_error() -> None:
    gold = {"v": [relation()]}
    rows = {"v": [relation(score=1.0)], "x": [relation(score=1.0)]}
    assert vidvrd_metrics(rows, gold)["counts"]["ignored_videos"] == 1
    with pytest.raises(CausalVideoError, match="without ground truth"):
        vidvrd_metrics(rows, gold, unknown_videos="error")
    with pytest.raises(CausalVideoError, match="without ground truth"):
        vidvrd_metrics({"x": []}, gold)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sub_traj": [[9, 0, 0, 9]] * 10}, "sub_traj of relation 1, frame 0: found .*x1 <= x2"),
        ({"obj_traj": [[0, 0, math.inf, 9]] * 10}, "obj_traj of relation 1, frame 0: .*finite"),
        ({"sub_traj": [LEFT] * 9}, "duration differ"),
        ({"sub_traj": [[0, 0, 9]] * 10}, "no boxes"),
        ({"sub_traj": [[0, 0, 9], [0, 0, 9, 9, 9]] * 5}, "no boxes"),
        ({"duration": [10, 0]}, "no duration"),
        ({"duration": [0, 9.5]}, "no duration"),
        ({"score": math.nan}, "score: found nan"),
        ({"score": "high"}, "score: found 'high'"),
        ({"score": None}, "score: found None"),
        ({"triplet": ["dog", "chase"]}, "no triplet"),
    ],
)
def test_bad_relations_are_named(change: dict, message: str) -> None:
    row = relation(score=0.5) | change
    with pytest.raises(CausalVideoError, match=message) as caught:
        vidvrd_metrics({"clip7": [relation(score=0.9), row]}, {"clip7": [relation()]})
    assert "clip7" in str(caught.value)


def test_arrays_are_as_good_as_lists() -> None:
    row = relation(score=np.float32(0.5))
    row["sub_traj"] = np.array(row["sub_traj"])
    assert vidvrd_metrics({"v": [row]}, {"v": [relation()]})["mAP"] == 1.0


@pytest.mark.slow
def test_a_split_as_large_as_vidor_takes_under_a_minute() -> None:
    rng = np.random.default_rng(0)

    def track(length: int) -> list:
        corner = np.cumsum(rng.integers(-3, 4, (length, 2)), 0) + rng.integers(0, 300, 2)
        return np.concatenate([corner, corner + rng.integers(40, 200, 2)], 1).tolist()

    def row() -> dict:
        start, length = int(rng.integers(0, 300)), int(rng.integers(15, 45))
        triplet = [f"o{rng.integers(4)}", f"p{rng.integers(50)}", f"o{rng.integers(4)}"]
        return dict(triplet=triplet, duration=[start, start + length], sub_traj=track(length), obj_traj=track(length))

    gold = {f"v{i}": [row() for _ in range(30)] for i in range(835)}
    base = [row() for _ in range(170)]
    predicted = {key: [r | {"score": float(rng.random())} for r in [*base, *rows]] for key, rows in gold.items()}
    begin = time.process_time()
    result = vidvrd_metrics(predicted, gold)
    assert time.process_time() - begin < 60
    assert result["counts"]["predictions"] == 835 * 200 and result["R@100"] > 0.3
