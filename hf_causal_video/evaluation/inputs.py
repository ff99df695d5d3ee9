"""Pair predictions with annotations, in whatever plain layout, refuse what would change a number, and score the pairs.

Why: an accuracy is only as good as the pairing behind it. A question that is silently dropped, answered
twice, or keyed differently moves the table without a trace, so each of these is an error here, once, for
every benchmark. `multiple_choice_accuracy` scores questions whose types no published table knows.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sized
from dataclasses import dataclass
from typing import Any

from hf_causal_video.utils.checks import is_whole
from hf_causal_video.utils.errors import CausalVideoError, require

Row = Mapping[str, object]
Rows = Mapping[str, object] | Iterable[Row]  # values or rows by question key, or a list of rows
Metrics = dict[str, Any]  # numbers by name, None where nothing was asked, and their `counts`
VIDEO_NAMES = ("video_id", "video")
TYPE_NAMES = ("question_type", "type")


@dataclass(frozen=True)
class Answered:
    """One question with its annotated and its predicted answer; `row` is the annotation as it was given."""

    key: str
    question_type: str
    answer: int
    prediction: int
    row: Row

    @property
    def correct(self) -> bool:
        """True when the prediction is the annotated answer."""
        return self.prediction == self.answer


def first_of(row: Row, names: tuple[str, ...], what: str) -> object:
    """Return the value of a row under the first of several column names that it has."""
    for name in names:
        if row.get(name) is not None:
            return row[name]
    raise CausalVideoError(
        f"an annotation row has no {what}",
        found=f"columns {sorted(map(str, row))}",
        expected=f"a column named {' or '.join(names)}",
        fix="rename the column, or read the file with the readers of hf_causal_video.data",
    )


def question_key(row: Row, suffix: str = "qid") -> str:
    """Key of a row: its `question_id`, or else `<video>_<qid>` as the NExT-QA files have it.

    Example:
        >>> question_key({"video": 4010069381, "qid": "6"})
        '4010069381_6'
    """
    if row.get("question_id") is not None:
        return str(row["question_id"])
    return f"{first_of(row, VIDEO_NAMES, 'video')}_{first_of(row, (suffix,), suffix)}"


def whole_number(value: object, key: str, what: str) -> int:
    """Return `value` as an int; refuse a bool, a float, a list or None (digits as text are fine in a csv answer)."""
    if is_whole(value, least=-(2**63)):
        return int(value)
    if what == "answer" and isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,18}\s*", value):
        return int(value)
    raise CausalVideoError(
        f"the {what} of question {key} is not an index",
        found=repr(value),
        expected="an int, zero-based",
        fix="pass the index of the choice (an argmax), not its text, its score or a list",
    )


def by_key(rows: Rows, value_name: str, key: Callable[[Row], str] = question_key) -> dict[str, Row]:
    """Rows under their question key, from `{key: value}`, `{key: row}` or a list; a repeated key is an error.

    Example:
        >>> by_key({"v_1": 3}, "prediction")
        {'v_1': {'prediction': 3}}
        >>> by_key([{"question_id": "v_1", "prediction": 3}], "prediction")
        {'v_1': {'question_id': 'v_1', 'prediction': 3}}
    """
    what = f"rows with the {value_name}"
    expected = "one dict per question, in a list or by question key"
    fix = "pass a table's to_dict('records'), or one dict by question key"
    require(isinstance(rows, Iterable), what, found=type(rows).__name__, expected=expected, fix=fix)
    keyed: dict[str, Row] = {}
    if isinstance(rows, Mapping):
        named = [(str(name), row if isinstance(row, Mapping) else {value_name: row}) for name, row in rows.items()]
    else:
        listed = list(rows)
        odd = [row for row in listed if not isinstance(row, Mapping)]
        require(not odd, what, found=lambda: repr(odd[0])[:80], expected=expected, fix=fix)
        named = [(key(row), row) for row in listed]
    for name, row in named:
        require(name not in keyed, what, found=f"{name} twice", expected="each question once", fix="drop one row")
        keyed[name] = row
    return keyed


def check_keys(keys: Iterable[str], expected: Iterable[str], what: str, allow_missing: bool = False) -> None:
    """Refuse keys that are not expected and, unless `allow_missing`, expected ones that are missing."""
    keys = list(keys)
    expected = list(expected)
    unknown = sorted(set(keys) - set(expected))
    require(
        not unknown,
        f"{what} for questions that are not annotated",
        found=lambda: f"{len(unknown)} unknown keys, first {unknown[:3]}",
        expected=f"keys like {expected[:2]}",
        fix="use the annotations of the same split, and keys of the form <video>_<qid>",
    )
    present = set(keys)
    missing = [key for key in expected if key not in present]
    require(
        not missing or (allow_missing and present),
        f"{what} are missing",
        found=lambda: f"{len(missing)} of {len(expected)} questions without one, first {missing[:3]}",
        expected="one for every annotated question",
        fix="predict the missing questions, or pass only the annotations that you mean to score",
    )


def number_of_choices(row: Row, default: int, key: str) -> int:
    """Count the choices of a row: its `choices`, its columns a0, a1, ..., or else the default of the benchmark."""
    choices = row.get("choices")
    if choices is not None:
        is_sized = isinstance(choices, Sized) and not isinstance(choices, str)
        require(is_sized, f"invalid choices of question {key}", found=repr(choices), expected="a list of texts")
    if isinstance(choices, Sized) and len(choices):
        return len(choices)
    return sum(f"a{index}" in row for index in range(len(row))) or default


def pair_answers(predictions: Rows, annotations: Rows, *, num_choices: int, suffix: str = "qid") -> list[Answered]:
    """Every annotated multiple-choice question with its prediction, in the order of the annotations.

    Args:
        predictions: `{key: int}`, `{key: {"prediction": int}}` or rows with `question_id` and `prediction`.
            An `answer` stored with a prediction must agree with the annotation.
        annotations: rows with a key (`question_id`, or `video` and `qid`), a type and an answer.
        num_choices: choices of a question whose row does not list them.
        suffix: the column that completes the key of a row without `question_id`.

    Raises:
        CausalVideoError: unknown, missing or repeated keys, and answers or predictions that are not an index of a
            choice.
    """
    annotated = by_key(annotations, "answer", lambda row: question_key(row, suffix))
    predicted = by_key(predictions, "prediction", lambda row: question_key(row, suffix))
    require(annotated, "no questions", found="0 annotations", expected="at least 1", fix="check the split")
    check_keys(predicted, annotated, "predictions")
    pairs = []
    for key, row in annotated.items():
        predicted_row = predicted[key]
        limit = number_of_choices(row, num_choices, key)
        answer = whole_number(row.get("answer"), key, "answer")
        prediction = whole_number(predicted_row.get("prediction"), key, "prediction")
        for what, value in (("answer", answer), ("prediction", prediction)):
            name = f"the {what} of question {key} is not a choice"
            fix = "count choices from zero; a question without a known answer cannot be scored"
            require(0 <= value < limit, name, found=value, expected=f"0 to {limit - 1}", fix=fix)
        stored = predicted_row.get("answer")
        agrees = stored is None or whole_number(stored, key, "answer") == answer
        name = f"the answer stored with the prediction of {key} is not the annotated one"
        fix = "the predictions belong to another split or version of the annotations"
        require(agrees, name, found=stored, expected=answer, fix=fix)
        question_type = str(first_of(row, TYPE_NAMES, "question type"))
        pairs.append(Answered(key, question_type, answer, prediction, row))
    return pairs


def count_correct(outcomes: Iterable[bool]) -> dict[str, int]:
    """`{"correct": ..., "total": ...}` of some outcomes."""
    outcomes = list(outcomes)
    return {"correct": sum(outcomes), "total": len(outcomes)}


def percent(count: Mapping[str, int]) -> float | None:
    """Share of correct answers in percent; None where nothing was asked.

    Example:
        >>> percent({"correct": 1, "total": 8})
        12.5
    """
    return count["correct"] * 100.0 / count["total"] if count["total"] else None


def multiple_choice_accuracy(predictions: Rows, annotations: Rows, *, num_choices: int = 5) -> Metrics:
    """Accuracy in percent, overall (`Acc`) and by question type (`Acc_<type>`, sorted).

    Args:
        predictions: as in `nextqa_accuracy`.
        annotations: question rows (`question_id`, `question_type`, `answer`, `choices`).
        num_choices: choices of a question whose row does not list them.

    Returns:
        `Acc`, one `Acc_<type>` for each type that is not "", and `counts`: `{type: {"correct", "total"}}` with "all".

    Raises:
        CausalVideoError: a key unknown, missing or repeated, or an answer that is not a choice.

    Example:
        >>> rows = [{"question_id": "a_0", "question_type": "why", "answer": 1, "choices": ["x", "y"]}]
        >>> multiple_choice_accuracy([{"question_id": "a_0", "prediction": 1}], rows)["Acc_why"]
        100.0
    """
    pairs = pair_answers(predictions, annotations, num_choices=num_choices)
    types = sorted({pair.question_type for pair in pairs} - {""})
    counts = {kind: count_correct(pair.correct for pair in pairs if pair.question_type == kind) for kind in types}
    result: Metrics = {f"Acc_{kind}": percent(count) for kind, count in counts.items()}
    counts["all"] = count_correct(pair.correct for pair in pairs)
    return {"Acc": percent(counts["all"]), **result, "counts": counts}
