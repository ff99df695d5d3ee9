"""NExT-QA multiple choice: accuracy overall, by causal / temporal / descriptive, and by fine question type.

Why: the benchmark exists to tell description from reasoning, so the overall number alone says little: a model
can win on what is seen (D) and lose on why it happened (C).

Source: Xiao et al. 2021 (arXiv 2105.08276); the published evaluation folds the type TP (previous) into TN
(next) and averages every group over its questions.
"""

from hf_causal_video.evaluation.inputs import Metrics, Rows, count_correct, pair_answers, percent
from hf_causal_video.utils.checks import check_choice

FINE_TYPES = {"CW": "Why", "CH": "How", "TN": "Bef&Aft", "TC": "When", "DC": "Cnt", "DL": "Loc", "DO": "Other"}
GROUPS = {"C": "Acc_C", "T": "Acc_T", "D": "Acc_D"}


def nextqa_accuracy(predictions: Rows, annotations: Rows, *, num_choices: int = 5) -> Metrics:
    """Accuracy of NExT-QA multiple choice in percent, by group and by fine type.

    Args:
        predictions: `{key: int}`, `{key: {"prediction": int}}`, or rows with `question_id` and `prediction`,
            where a key is `<video>_<qid>` and a prediction is a zero-based choice.
        annotations: rows of the public csv (`video` or `video_id`, `qid`, `type`, `answer`) or question rows
            (`question_id`, `question_type`, `answer`).
        num_choices: choices of a question whose row does not list them.

    Returns:
        `Acc`, `Acc_C`, `Acc_T`, `Acc_D`, `Why`, `How`, `Bef&Aft`, `When`, `Cnt`, `Loc`, `Other` (None where a
        type was never asked) and `counts`: `{type: {"correct", "total"}}` for the fine types, C, T, D and
        all.

    Raises:
        CausalVideoError: a key unknown, missing or repeated, an answer that is not a choice, or a type NExT-QA
            does not have.

    Source: Xiao et al. 2021, NExT-QA.

    Example:
        >>> rows = [{"video": 7, "qid": 0, "type": "CW", "answer": 1},
        ...         {"video": 7, "qid": 1, "type": "TP", "answer": 0}]
        >>> result = nextqa_accuracy({"7_0": 1, "7_1": 4}, rows)
        >>> result["Acc"], result["Why"], result["Bef&Aft"], result["Acc_D"]
        (50.0, 100.0, 0.0, None)
    """
    outcomes: dict[str, list[bool]] = {kind: [] for kind in FINE_TYPES}
    for pair in pair_answers(predictions, annotations, num_choices=num_choices):
        kind = "TN" if pair.question_type == "TP" else pair.question_type
        fix = "score other benchmarks with hf_causal_video.evaluation.multiple_choice_accuracy"
        check_choice(f"NExT-QA type of question {pair.key}", kind, outcomes, fix=fix)
        outcomes[kind].append(pair.correct)
    counts = {kind: count_correct(answers) for kind, answers in outcomes.items()}
    for group in GROUPS:
        counts[group] = count_correct(one for kind in FINE_TYPES if kind[0] == group for one in outcomes[kind])
    counts["all"] = count_correct(one for answers in outcomes.values() for one in answers)
    result: Metrics = {"Acc": percent(counts["all"])}
    result.update({label: percent(counts[group]) for group, label in GROUPS.items()})
    result.update({label: percent(counts[kind]) for kind, label in FINE_TYPES.items()})
    return result | {"counts": counts}
