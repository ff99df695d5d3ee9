"""Compare runs on the same questions: accuracy, and the paired difference to the first run with its interval.

Why paired: two runs answer the same questions, so the noise of hard and easy questions is shared and cancels in the
difference. Why by video: the questions about one video stand or fall together, so videos are resampled, not questions.

Source: percentile bootstrap, Efron and Tibshirani 1993, chapter 13; over clusters, Field and Welsh 2007.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hf_causal_video.utils.checks import check_number, check_whole
from hf_causal_video.utils.errors import require

CHUNK = 100  # resamples drawn at once, so that a large split needs no table of all of them


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval, all in percent or percentage points."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ComparedRun:
    """One run of a comparison.

    Args:
        name: of the run.
        accuracy: percent of questions answered correctly.
        difference: accuracy minus that of the first run, in points; None for the first run itself.
    """

    name: str
    accuracy: Interval
    difference: Interval | None


def compare_runs(
    outcomes: Mapping[str, Mapping[str, bool]],
    groups: Mapping[str, str] | None = None,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[ComparedRun]:
    """Compare the accuracy of runs by a paired bootstrap.

    Args:
        outcomes: for each run, whether it answered each question correctly.
        groups: video of each question; None resamples questions.
        resamples: of the bootstrap.
        confidence: share of resamples inside an interval.
        seed: of the bootstrap; the same resamples serve every run.

    Returns:
        One entry per run, in the order of `outcomes`.

    Raises:
        CausalVideoError: fewer than two runs, no questions, different questions in two runs, or invalid options.

    Example:
        >>> right = {str(number): number % 2 == 0 for number in range(100)}
        >>> better = {str(number): number % 4 != 1 for number in range(100)}
        >>> first, second = compare_runs({"a": right, "b": better})
        >>> second.accuracy.value, second.difference.value, second.difference.low > 0
        (75.0, 25.0, True)
    """
    names = list(outcomes)
    check_whole("number of runs", len(names), 2, fix="add another run")
    check_whole("resamples", resamples)
    check_number("confidence", confidence, above=0, below=1)
    keys = list(outcomes[names[0]])
    require(keys, f"{names[0]} has no answers", found="0 questions", expected="1 or more", fix="check the split")
    for name in names[1:]:
        _check_same_questions(names[0], outcomes[names[0]], name, outcomes[name])
    correct = np.array([[bool(outcomes[name][key]) for key in keys] for name in names], dtype=np.float64)  # (R, Q)
    totals, sizes = _by_group(correct, None if groups is None else [groups[key] for key in keys])
    samples = _resampled(totals, sizes, resamples, seed)  # (S, R)
    tail = 50 * (1 - confidence)
    accuracy = 100 * correct.mean(axis=1)
    runs = []
    for place, name in enumerate(names):
        low, high = np.percentile(samples[:, place], [tail, 100 - tail])
        difference = None
        if place:
            shift = samples[:, place] - samples[:, 0]
            bounds = np.percentile(shift, [tail, 100 - tail])
            difference = Interval(float(accuracy[place] - accuracy[0]), float(bounds[0]), float(bounds[1]))
        runs.append(ComparedRun(name, Interval(float(accuracy[place]), float(low), float(high)), difference))
    return runs


def _check_same_questions(first: str, expected: Mapping[str, bool], name: str, found: Mapping[str, bool]) -> None:
    missing = [key for key in expected if key not in found]
    extra = [key for key in found if key not in expected]
    require(
        not missing and not extra,
        f"{first} and {name} answered different questions",
        found=f"{len(missing)} questions of the first are missing in the second, {len(extra)} are new; "
        f"such as {(missing + extra)[:3]}",
        expected="the same questions",
        fix="compare runs on one split: name it, or evaluate both checkpoints on the same dataset",
    )


def _by_group(correct: np.ndarray, groups: Sequence[str] | None) -> tuple[np.ndarray, np.ndarray]:
    """Correct answers (R, G) and questions (G,) of each group."""
    if groups is None:
        return correct, np.ones(correct.shape[1])
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    totals = np.stack([np.bincount(index, weights=row) for row in correct])
    return totals, np.bincount(index).astype(np.float64)


def _resampled(totals: np.ndarray, sizes: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Accuracy in percent of each run in each resample (S, R)."""
    generator = np.random.default_rng(seed)
    groups = len(sizes)
    parts = []
    for start in range(0, resamples, CHUNK):
        count = min(CHUNK, resamples - start)
        drawn = generator.integers(groups, size=(count, groups))
        weights = np.stack([np.bincount(row, minlength=groups) for row in drawn]).astype(np.float64)  # (s, G)
        parts.append(100 * (weights @ totals.T) / (weights @ sizes)[:, None])
    return np.concatenate(parts)
