"""Laws of grounding: layouts agree, overlaps are bounded and symmetric where they must be, bad spans are errors."""

import math

import numpy as np
import pytest

from hf_causal_video.evaluation import intersect_predictions, nextgqa_metrics, span_overlap
from hf_causal_video.utils.errors import CausalVideoError

GOLD = {
    "v": {"duration": 20, "fps": 30, "location": {"0": [[2.0, 6.0]], "1": [[8.0, 9.0], [12.0, 16.0]]}},
    "w": {"duration": 10, "fps": 30, "location": {"0": [[0, 5]]}},
}
SPANS = {"v_0": [4.0, 6.0], "v_1": [15.0, 19.0], "w_0": [7.0, 9.0]}
ANSWERS = {"v_0": (1, 1), "v_1": (2, 2), "w_0": (0, 3)}  # predicted, true


def rows(with_answer: bool = True) -> list[dict]:
    return [
        {"question_id": f"{video}_{qid}", "video_id": video, "spans": spans, "duration_s": float(entry["duration"])}
        | ({"answer": ANSWERS[f"{video}_{qid}"][1]} if with_answer else {"answer": -1})
        for video, entry in GOLD.items()
        for qid, spans in entry["location"].items()
    ] + [{"question_id": "x_0", "video_id": "x", "spans": [], "duration_s": 5.0, "answer": 1}]


def metrics_of(result: dict) -> dict:
    return {name: value for name, value in result.items() if name != "counts"}


def test_every_layout_gives_the_same_metrics() -> None:
    qa = {key: {"prediction": guess, "answer": true} for key, (guess, true) in ANSWERS.items()}
    together = {key: {"span": span} | qa[key] for key, span in SPANS.items()}
    listed = [
        {"question_id": key, "start_s": start, "end_s": end, "prediction": ANSWERS[key][0]}
        for key, (start, end) in SPANS.items()
    ]
    results = [
        nextgqa_metrics(SPANS, GOLD, answers=qa),
        nextgqa_metrics(SPANS, GOLD, answers=qa | {"other_1": {"prediction": 0, "answer": 0}}),
        nextgqa_metrics(together, GOLD),
        nextgqa_metrics(listed, rows()),
        nextgqa_metrics(SPANS, rows(), answers={key: guess for key, (guess, _) in ANSWERS.items()}),
        nextgqa_metrics({key: [np.float32(s), np.float32(e)] for key, (s, e) in SPANS.items()}, rows(), answers=qa),
        nextgqa_metrics({key: {"spans": [span]} | qa[key] for key, span in SPANS.items()}, rows(False)),
    ]
    assert all(result == results[0] for result in results)
    assert results[0]["Acc@GQA"] == pytest.approx(100 / 3)
    assert results[0]["Acc@QA"] == pytest.approx(200 / 3)
    assert results[0]["mIoP"] == pytest.approx(100 * (1 + 0.25 + 0) / 3)
    assert results[0]["counts"] == {"scored": 3, "missing": 0}


def test_without_answers_only_acc_gqa_is_lost() -> None:
    result = nextgqa_metrics(SPANS, GOLD)
    assert result["Acc@GQA"] == 0.0 and "Acc@QA" not in result


def test_the_whole_truth_scores_a_hundred() -> None:
    best = {f"{video}_{qid}": spans[0] for video, entry in GOLD.items() for qid, spans in entry["location"].items()}
    assert set(metrics_of(nextgqa_metrics(best, GOLD)).values()) == {0.0, 100.0}
    assert nextgqa_metrics(best, GOLD)["mIoU"] == 100.0


def test_seconds_and_fractions_agree_on_tenths_of_seconds() -> None:
    fractions = {"v_0": [0.2, 0.3], "v_1": [0.75, 0.95], "w_0": [0.7, 0.9]}
    assert nextgqa_metrics(fractions, GOLD, unit="fraction") == nextgqa_metrics(SPANS, GOLD)
    assert intersect_predictions(fractions, SPANS, GOLD) == SPANS


def test_missing_spans_leave_the_denominator_and_are_reported() -> None:
    one = {"v_0": SPANS["v_0"]}
    result = nextgqa_metrics(one, GOLD)
    assert result["counts"] == {"scored": 1, "missing": 2} and result["mIoP"] == 100.0
    assert metrics_of(nextgqa_metrics(SPANS, GOLD, subset=["v_0"])) == metrics_of(result)
    with pytest.raises(CausalVideoError, match="2 of 3"):
        nextgqa_metrics(one, GOLD, missing="error")


def test_overlap_laws_on_random_intervals() -> None:
    generator = np.random.default_rng(0)
    one, two = np.sort(generator.uniform(0, 30, (2, 500, 2)), axis=-1)
    iou, iop = span_overlap(one, two)
    assert (iou <= 1).all() and (iop <= 1 + 1e-12).all() and (iou <= iop + 1e-12)[iou > 0].all()
    assert np.allclose(iou, span_overlap(two, one)[0])
    assert ((iou < 0) == (iop < 0)).all()
    assert np.allclose(span_overlap(one, one), 1)
    inside = np.stack([one.mean(-1)] * 2, axis=-1)
    assert (span_overlap(one, inside)[1] == 1).all() and (span_overlap(one, inside)[0] == 0).all()


@pytest.mark.parametrize(
    "span", [[5, 4], [math.nan, 4], [1, math.inf], [1], [1, 2, 3], "ab", None, 3, [[1, 2], [3, 4]]]
)
def test_a_span_that_is_no_interval_is_an_error(span) -> None:
    with pytest.raises(CausalVideoError, match="not an interval"):
        nextgqa_metrics(SPANS | {"v_0": span}, GOLD)


@pytest.mark.parametrize(
    ("predictions", "options", "message"),
    [
        (SPANS | {"z_0": [0, 1]}, {}, "z_0"),
        (SPANS, {"unit": "fraction"}, "not a fraction"),
        (SPANS, {"unit": "frames"}, "unknown unit"),
        (SPANS, {"subset": ["z_0"]}, "z_0"),
        (SPANS, {"subset": []}, "no question to score|missing"),
        ({}, {}, "missing"),
        (SPANS, {"answers": {"v_0": {"prediction": 1, "answer": 1}}}, "2 without"),
        (SPANS, {"answers": {key: 1 for key in SPANS}}, "unknown or contradicted"),
        ({"v_0": {"span": [1, 2], "prediction": 1.5, "answer": 1}}, {}, "not an index"),
    ],
)
def test_what_could_move_a_number_is_an_error(predictions, options, message) -> None:
    with pytest.raises(CausalVideoError, match=message):
        nextgqa_metrics(predictions, GOLD, **options)


def test_an_answer_that_contradicts_the_annotation_is_an_error() -> None:
    with pytest.raises(CausalVideoError, match="contradicted"):
        nextgqa_metrics({"v_0": {"span": [4, 6], "prediction": 1, "answer": 2}}, rows())


def test_no_spans_in_the_annotations_is_an_error() -> None:
    with pytest.raises(CausalVideoError, match="no annotated spans"):
        nextgqa_metrics(SPANS, [row | {"spans": []} for row in rows()])


def test_whole_video_baseline_on_nextgqa_val(shared) -> None:
    import json

    gold = json.loads((shared / "data" / "nextgqa" / "gsub_val.json").read_text(encoding="utf-8"))
    whole = {f"{video}_{qid}": [0, entry["duration"]] for video, entry in gold.items() for qid in entry["location"]}
    result = nextgqa_metrics(whole, gold)
    assert len(whole) == 3358 and f"{result['mIoP']:.1f}" == "21.3" and f"{result['mIoU']:.1f}" == "21.3"
