"""Multiple choice in general: accuracy overall and by whatever question types the annotations name.

Why: the confounded world and users' own questions have types that no published table knows.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from hf_causal_video.evaluation.inputs import count_correct, pair_answers, percent


def multiple_choice_accuracy(
    predictions: Mapping[Any, Any] | Iterable[Mapping[str, Any]],
    annotations: Mapping[Any, Any] | Iterable[Mapping[str, Any]],
    *,
    num_choices: int = 5,
) -> dict[str, Any]:
    """Accuracy in percent, overall (`Acc`) and by question type (`Acc_<type>`, sorted).

    Args:
        predictions: as in `nextqa_accuracy`.
        annotations: question rows (`question_id`, `question_type`, `answer`, `choices`).
        num_choices: choices of a question whose row does not list them.

    Returns:
        `Acc`, one `Acc_<type>` for each type, and `counts`: `{type: {"correct", "total"}}` with "all".

    Raises:
        CausalVideoError: a key unknown, missing or repeated, or an answer that is no choice.

    Example:
        >>> rows = [{"question_id": "a_0", "question_type": "why", "answer": 1, "choices": ["x", "y"]}]
        >>> multiple_choice_accuracy([{"question_id": "a_0", "prediction": 1}], rows)["Acc_why"]
        100.0
    """
    pairs = pair_answers(predictions, annotations, num_choices=num_choices)
    types = sorted({pair.question_type for pair in pairs})
    counts = {kind: count_correct(pair.correct for pair in pairs if pair.question_type == kind) for kind in types}
    result: dict[str, Any] = {f"Acc_{kind}": percent(count) for kind, count in counts.items()}
    counts["all"] = count_correct(pair.correct for pair in pairs)
    return {"Acc": percent(counts["all"]), **result, "counts": counts}
