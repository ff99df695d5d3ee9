"""Open-ended VideoQA: exact-match accuracy over an answer vocabulary, overall and by the first word of the
question.

Why: MSVD-QA and MSRVTT-QA ask one-word questions; "what" and "who" make nine tenths of them and hide the
rest. An answer outside the training vocabulary can never be given, and counts as wrong rather than leaving
the denominator.

Source: Xu et al. 2017 (MSVD-QA, MSRVTT-QA); IGV, EIGV and TranSTR report it as plain top-1.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

from hf_causal_video.evaluation.inputs import (
    Metrics,
    Rows,
    by_key,
    check_keys,
    count_correct,
    first_of,
    percent,
    whole_number,
)
from hf_causal_video.utils.checks import check_whole
from hf_causal_video.utils.errors import require

PASS = "pass the vocabulary that the model was trained with, in the order of its answers"
FIRST_WORDS = ("what", "who", "how", "when", "where")


def open_ended_accuracy(predictions: Rows, annotations: Rows, *, vocabulary: Sequence[str] | None = None) -> Metrics:
    """Exact-match top-1 accuracy in percent, overall and by first word.

    Args:
        predictions: `{key: int}`, `{key: {"prediction": int}}` or rows with `question_id` and `prediction`;
            an index into the vocabulary, or one past its end (the class for everything else), which is always
            wrong.
        annotations: rows with `question` and `answer`, an index (-1: outside the vocabulary) or, with
            `vocabulary`, a text.
        vocabulary: the answers in the order of the indices; needed where annotations hold texts.

    Returns:
        `Acc`, `what`, `who`, `how`, `when`, `where`, `other` (None where never asked), and `counts`, where
        `out_of_vocabulary` is the number of questions whose answer the vocabulary does not hold.

    Raises:
        CausalVideoError: a key unknown, missing or repeated, a text answer without a vocabulary, or an index
            outside it.

    Example:
        >>> rows = [{"question_id": "1", "question": "who runs", "answer": "dog"},
        ...         {"question_id": "2", "question": "who sits", "answer": "aardvark"}]
        >>> result = open_ended_accuracy({"1": 0, "2": 2}, rows, vocabulary=["dog", "cat"])
        >>> result["Acc"], result["who"], result["what"], result["counts"]["out_of_vocabulary"]
        (50.0, 50.0, None, 1)
    """
    annotated = by_key(annotations, "answer")
    predicted = by_key(predictions, "prediction")
    require(annotated, "no questions", found="0 annotations", expected="at least 1", fix="check the split")
    check_keys(predicted, annotated, "predictions")
    index = None if vocabulary is None else _positions(vocabulary)
    outcomes: dict[str, list[bool]] = {word: [] for word in (*FIRST_WORDS, "other")}
    size = math.inf if index is None else len(index)
    outside = 0
    for key, row in annotated.items():
        answer = _answer_index(key, first_of(row, ("answer",), "answer"), index)
        prediction = whole_number(predicted[key].get("prediction"), key, "prediction")
        check_whole(f"prediction of question {key}", prediction, 0, size, fix=PASS)  # `size` is the class of the rest
        check_whole(f"answer of question {key}", answer, -1, size - 1, fix=PASS)
        word = (str(first_of(row, ("question",), "question")).split() or [""])[0].lower()
        outside += answer < 0
        outcomes[word if word in outcomes else "other"].append(answer >= 0 and prediction == answer)
    counts: Metrics = {word: count_correct(answers) for word, answers in outcomes.items()}
    result: Metrics = {word: percent(count) for word, count in counts.items()}
    counts["all"] = count_correct(one for answers in outcomes.values() for one in answers)
    counts["out_of_vocabulary"] = outside
    return {"Acc": percent(counts["all"]), **result, "counts": counts}


def _positions(vocabulary: Sequence[str]) -> dict[str, int]:
    words = [] if isinstance(vocabulary, str) or not isinstance(vocabulary, Iterable) else list(vocabulary)
    index = {word: position for position, word in enumerate(words) if isinstance(word, str)}
    problem = f"{len(words)} entries, {len(index)} different texts"
    is_distinct = words and len(index) == len(words)
    require(is_distinct, "no vocabulary of answers", found=problem, expected="a list of different texts", fix=PASS)
    return index


def _answer_index(key: str, answer: object, index: Mapping[str, int] | None) -> int:
    if not isinstance(answer, str):
        return whole_number(answer, key, "answer")
    what = f"the answer of question {key} is a text"
    expected = "an index, or the vocabulary that the predictions index"
    require(index is not None, what, found=repr(answer), expected=expected, fix=PASS)
    return -1 if index is None else index.get(answer, -1)
