"""How well the predicates of given pairs are found: what a prior moves (recall), and what it cannot (precision).

Why both: average precision ranks the pairs of one predicate, and a prior adds the same number to each of them, so it
cannot see an intervention on the prior. Recall sees it, for there predicates compete: for the one answer of a pair, or
for a place among its few best.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from hf_causal_video.evaluation.inputs import Metrics
from hf_causal_video.utils.checks import check_whole
from hf_causal_video.utils.errors import require


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Area under precision over recall, by steps; pairs of equal score share a step.

    Args:
        scores: (n,).
        truth: (n,) 0/1, not all 0.

    Example:
        >>> average_precision(np.array([0.9, 0.5, 0.5, 0.1]), np.array([1, 1, 0, 0]))
        0.8333333333333333
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # of each run of equal scores
    hits = np.cumsum(truth[order])[last]
    return float((np.diff(hits, prepend=0) * hits / (last + 1)).sum() / hits[-1])


def _array(values: object) -> np.ndarray:
    """Numbers as float64; an empty array for other values."""
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return np.empty(0)


def pair_metrics(
    scores: np.ndarray, labels: np.ndarray, parts: Mapping[str, slice | Sequence[int]] | None = None, best: int = 4
) -> Metrics:
    """Percentages over pairs; predicates without a pair are left out of the means.

    Args:
        scores: (n, P), any increasing function of probability.
        labels: (n,) the one predicate of each pair, or (n, P) 0/1.
        parts: groups of predicates, such as the rarest, whose means are wanted too.
        best: predicates of a pair that count as found, where it may have several.

    Returns:
        `mAP` (precision averaged over predicates); `accuracy` and `mean_recall`, or `mR@best` where a pair may have
        several predicates; recall of each part under its name, and its precision as `NAME mAP`; `pairs`.

    Raises:
        CausalVideoError: arrays that do not fit each other, or no annotated pair.

    Example:
        >>> table = pair_metrics(np.array([[2.0, 1.0], [2.0, 1.0]]), np.array([0, 1]))
        >>> table["accuracy"], table["mean_recall"]
        (50.0, 50.0)
    """
    scores, labels = _array(scores), _array(labels)
    single = labels.ndim == 1
    wanted = scores.shape[:1] if single else scores.shape
    known = np.arange(scores.shape[-1]) if single and scores.ndim == 2 else np.array([0, 1])
    require(
        scores.ndim == 2
        and labels.shape == wanted
        and scores.size
        and np.isfinite(scores).all()
        and np.isin(labels, known).all()
        and (single or labels.any()),
        "scores of pairs",
        found=lambda: f"scores {scores.shape}, labels {labels.shape}",
        expected="(n, P) finite scores; (n,) indices of predicates, or (n, P) 0/1, some of them 1",
        fix="score the pairs of one split",
    )
    check_whole("best", best)
    truth = labels[:, None] == np.arange(scores.shape[1]) if single else labels > 0
    present: list[int] = np.flatnonzero(truth.any(axis=0)).tolist()
    place = (-scores).argsort(axis=1, kind="stable").argsort(axis=1)  # 0 is the best
    recall = {p: float((place[truth[:, p], p] < (1 if single else best)).mean()) for p in present}
    precision = {p: average_precision(scores[:, p], truth[:, p]) for p in present}

    def mean(values: Mapping[int, float], which: slice | Sequence[int]) -> float | None:
        positions = range(scores.shape[1])[which] if isinstance(which, slice) else which
        for position in positions:
            check_whole("predicate of parts", position, 0, scores.shape[1] - 1)
        chosen = [values[p] for p in positions if p in values]
        return 100 * float(np.mean(chosen)) if chosen else None

    table: Metrics = {"mAP": mean(precision, present), "pairs": len(scores)}
    if single:
        table["accuracy"] = 100 * float((place[truth] == 0).mean())
    table["mean_recall" if single else f"mR@{best}"] = mean(recall, present)
    for name, which in (parts or {}).items():
        table |= {name: mean(recall, which), f"{name} mAP": mean(precision, which)}
    return table
