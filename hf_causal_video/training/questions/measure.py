"""From answers to the numbers of a split, by the evaluation that fits its kind of questions."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hf_causal_video.evaluation import (
    causalvidqa_accuracy,
    multiple_choice_accuracy,
    nextqa_accuracy,
    open_ended_accuracy,
)
from hf_causal_video.evaluation.causalvidqa import TYPES as CAUSALVIDQA_TYPES
from hf_causal_video.evaluation.nextqa import FINE_TYPES
from hf_causal_video.utils.errors import CausalVideoError

ANNOTATION = ("question_id", "video_id", "question", "choices", "answer", "question_type", "spans", "duration_s")


def measure(predictions: Sequence[Mapping[str, Any]], questions: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Score predictions against question rows.

    Args:
        predictions: records of `predict`, one for every question.
        questions: question rows with answers.

    Returns:
        `Acc` in percent and, by the kind of the questions, accuracies by type (see `evaluation`), and `counts`. Empty
        where the split knows no answer.

    Raises:
        CausalVideoError: only some answers are known, or predictions and questions do not match.

    Example:
        >>> row = {"question_id": "v_0", "question": "who", "choices": ["a", "b"], "answer": 1, "question_type": "CW"}
        >>> measure([{"question_id": "v_0", "prediction": 1}], [row])["Acc_C"]
        100.0
    """
    rows = [{name: row[name] for name in ANNOTATION if name in row} for row in questions]
    answers = [{"question_id": record["question_id"], "prediction": record["prediction"]} for record in predictions]
    unknown = sum(row["answer"] < 0 for row in rows)
    if unknown == len(rows):
        return {}
    if not rows[0]["choices"]:  # an answer outside the vocabulary is wrong, whatever is said
        return open_ended_accuracy(answers, rows)
    if unknown:
        raise CausalVideoError(
            "some answers are not known", found=f"{unknown} of {len(rows)} questions without an answer",
            expected="all known, or none", fix="split the questions into two datasets",
        )  # fmt: skip
    types = {row["question_type"] for row in rows}
    if types == set(CAUSALVIDQA_TYPES):  # an answer counts together with its reason
        return {"Acc": multiple_choice_accuracy(answers, rows)["Acc"], **causalvidqa_accuracy(answers, rows)}
    return (nextqa_accuracy if types <= {*FINE_TYPES, "TP"} else multiple_choice_accuracy)(answers, rows)
