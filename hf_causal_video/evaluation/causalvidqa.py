"""Causal-VidQA: accuracy of six questions a video, where a prediction counts only together with its reason.

Why: a right guess about the future or a counterfactual with a wrong reason does not show understanding, so the
headline number takes prediction (p, pr) and counterfactual (c, cr) as pairs.

Source: Li et al. 2022 (arXiv 2205.14895); `All` is the mean of d, e and the two pair accuracies over the
videos.
"""

from hf_causal_video.evaluation.inputs import (
    VIDEO_NAMES,
    Metrics,
    Rows,
    count_correct,
    first_of,
    pair_answers,
    percent,
)
from hf_causal_video.utils.checks import check_choice
from hf_causal_video.utils.errors import require

TYPES = ("d", "e", "p", "pr", "c", "cr")
SCORED = ("d", "e", "par", "car")


def causalvidqa_accuracy(predictions: Rows, annotations: Rows, *, num_choices: int = 5) -> Metrics:
    """Accuracy of Causal-VidQA in percent, by type, by pair, and overall.

    Args:
        predictions: as in `nextqa_accuracy`; a key is `<video>_<type>`.
        annotations: rows with `video_id`, `type` (d, e, p, pr, c, cr) and `answer`, or question rows. Every
            video must have all six.
        num_choices: choices of a question whose row does not list them.

    Returns:
        `d`, `e`, `p`, `pr`, `c`, `cr`, `par` (p and pr both right), `car` (c and cr both right), `All`, and
        `counts`: `{name: {"correct", "total"}}` for each of them.

    Raises:
        CausalVideoError: a key unknown, missing or repeated, an answer that is not a choice, or a video without
            all six types.

    Source: Li et al. 2022, Causal-VidQA.

    Example:
        >>> rows = [{"video_id": "v", "type": kind, "answer": 0} for kind in ("d", "e", "p", "pr", "c", "cr")]
        >>> wrong_reason = {"v_d": 0, "v_e": 0, "v_p": 0, "v_pr": 3, "v_c": 0, "v_cr": 0}
        >>> result = causalvidqa_accuracy(wrong_reason, rows)
        >>> result["p"], result["par"], result["All"]
        (100.0, 0.0, 75.0)
    """
    videos: dict[str, dict[str, bool]] = {}
    for pair in pair_answers(predictions, annotations, num_choices=num_choices, suffix="type"):
        right = videos.setdefault(str(first_of(pair.row, VIDEO_NAMES, "video")), {})
        left = [kind for kind in TYPES if kind not in right]  # each type once per video
        check_choice(f"or repeated type of question {pair.key}", pair.question_type, left, fix="check the column type")
        right[pair.question_type] = pair.correct
    for video, right in videos.items():
        what = f"video {video} lacks questions, so its pairs cannot be scored"
        require(len(right) == len(TYPES), what, found=f"types {sorted(right)}", expected=f"all of {sorted(TYPES)}")
    counts = {kind: count_correct(right[kind] for right in videos.values()) for kind in TYPES}
    counts["par"] = count_correct(right["p"] and right["pr"] for right in videos.values())
    counts["car"] = count_correct(right["c"] and right["cr"] for right in videos.values())
    # All = (d + e + par + car) / (4 x videos)
    counts["All"] = {name: sum(counts[kind][name] for kind in SCORED) for name in ("correct", "total")}
    return {kind: percent(count) for kind, count in counts.items()} | {"counts": counts}
