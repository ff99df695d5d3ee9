"""Laws of every accuracy: layouts agree, nothing is dropped in silence, and bad keys or answers are errors."""

import numpy as np
import pytest

from hf_causal_video.evaluation import (
    causalvidqa_accuracy,
    multiple_choice_accuracy,
    nextqa_accuracy,
    open_ended_accuracy,
)
from hf_causal_video.utils.errors import CausalVideoError

ROWS = [
    {"video": 7, "qid": "0", "type": "CW", "answer": "1"},
    {"video": 7, "qid": "1", "type": "TP", "answer": "0"},
    {"video": 8, "qid": "0", "type": "DL", "answer": "4"},
]
PREDICTIONS = {"7_0": 1, "7_1": 4, "8_0": 4}


def question_rows() -> list[dict]:
    names = {"question_id": "{video}_{qid}", "video_id": "{video}"}
    return [
        {key: pattern.format(**row) for key, pattern in names.items()}
        | {"question_type": row["type"], "answer": int(row["answer"]), "choices": list("abcde")}
        for row in ROWS
    ]


@pytest.mark.parametrize("annotations", [ROWS, question_rows(), {row["question_id"]: row for row in question_rows()}])
@pytest.mark.parametrize(
    "predictions",
    [
        PREDICTIONS,
        {key: np.int64(value) for key, value in PREDICTIONS.items()},
        {key: {"prediction": value} for key, value in PREDICTIONS.items()},
        [{"question_id": key, "prediction": value} for key, value in reversed(PREDICTIONS.items())],
    ],
)
def test_every_layout_gives_the_same_table(predictions, annotations) -> None:
    result = nextqa_accuracy(predictions, annotations)
    assert result["Acc"] == pytest.approx(200 / 3)
    assert (result["Acc_C"], result["Acc_T"], result["Acc_D"]) == (100.0, 0.0, 100.0)
    assert result["When"] is None and result["Bef&Aft"] == 0.0
    assert result["counts"]["all"] == {"correct": 2, "total": 3}


@pytest.mark.parametrize(
    ("predictions", "annotations", "message"),
    [
        ({"7_0": 1}, ROWS, "2 of 3"),
        (PREDICTIONS | {"9_0": 1}, ROWS, "9_0"),
        (PREDICTIONS | {"7_0": 5}, ROWS, "0 to 4"),
        (PREDICTIONS | {"7_0": -1}, ROWS, "0 to 4"),
        (PREDICTIONS | {"7_0": 1.0}, ROWS, "not an index"),
        (PREDICTIONS | {"7_0": True}, ROWS, "not an index"),
        (PREDICTIONS | {"7_0": "1"}, ROWS, "not an index"),
        (PREDICTIONS | {"7_0": None}, ROWS, "not an index"),
        (PREDICTIONS | {"7_0": [1]}, ROWS, "not an index"),
        (PREDICTIONS | {"7_0": {"prediction": 1, "answer": 2}}, ROWS, "not the annotated one"),
        ([{"question_id": "7_0", "prediction": 1}] * 2, ROWS[:1], "twice"),
        (PREDICTIONS, [*ROWS, ROWS[0]], "twice"),
        (PREDICTIONS, [*ROWS[:2], ROWS[2] | {"type": "XX"}], "'XX'"),
        (PREDICTIONS, [*ROWS[:2], ROWS[2] | {"answer": -1}], "not a choice"),
        (PREDICTIONS, [*ROWS[:2], ROWS[2] | {"answer": None}], "not an index"),
        (PREDICTIONS, [{"qid": 1, "type": "CW", "answer": 0}], "no video"),
        (["7_0"], ROWS, "one dict per question"),
        ({}, [], "no questions"),
    ],
)
def test_what_could_move_a_number_is_an_error(predictions, annotations, message) -> None:
    with pytest.raises(CausalVideoError, match=message):
        nextqa_accuracy(predictions, annotations)


def test_a_question_with_four_choices_has_no_fifth() -> None:
    rows = [{"question_id": "q", "question_type": "x", "answer": 0, "choices": list("abcd")}]
    with pytest.raises(CausalVideoError, match="0 to 3"):
        multiple_choice_accuracy({"q": 4}, rows)
    assert multiple_choice_accuracy({"q": 0}, rows)["Acc_x"] == 100.0


def test_pairs_need_both_halves_and_all_six_types() -> None:
    rows = [{"video_id": "v", "type": kind, "answer": 0} for kind in ("d", "e", "p", "pr", "c", "cr")]
    right = {f"v_{row['type']}": 0 for row in rows}
    assert causalvidqa_accuracy(right, rows)["All"] == 100.0
    for one in ("p", "pr"):
        result = causalvidqa_accuracy(right | {f"v_{one}": 1}, rows)
        assert (result["par"], result["car"], result["All"]) == (0.0, 100.0, 75.0)
    del right["v_cr"]
    with pytest.raises(CausalVideoError, match="lacks questions"):
        causalvidqa_accuracy(right, rows[:-1])


def test_open_ended_answers_outside_the_vocabulary_are_wrong_but_counted() -> None:
    rows = [
        {"question_id": "1", "question": "What runs", "answer": "dog"},
        {"question_id": "2", "question": "where", "answer": "zoo"},
        {"question_id": "3", "question": "is it so", "answer": "cat"},
    ]
    vocabulary = ["dog", "cat"]
    result = open_ended_accuracy({"1": 0, "2": 2, "3": 1}, rows, vocabulary=vocabulary)
    assert result["Acc"] == pytest.approx(200 / 3)
    assert (result["what"], result["where"], result["other"], result["who"]) == (100.0, 0.0, 100.0, None)
    assert result["counts"]["out_of_vocabulary"] == 1
    indexed = [row | {"answer": answer} for row, answer in zip(rows, (0, -1, 1), strict=True)]
    assert open_ended_accuracy({"1": 0, "2": 2, "3": 1}, indexed) == result
    for predictions, options in (
        ({"1": 0, "2": 3, "3": 1}, {"vocabulary": vocabulary}),
        ({"1": 0, "2": -1, "3": 1}, {"vocabulary": vocabulary}),
        ({"1": 0, "2": 2, "3": 1}, {}),
        ({"1": 0, "2": 2}, {"vocabulary": vocabulary}),
    ):
        with pytest.raises(CausalVideoError):
            open_ended_accuracy(predictions, rows, **options)
