"""The paired bootstrap: what it must find, what it must not, and that videos are what is resampled."""

import numpy as np
import pytest

from hf_causal_video.evaluation.compare import compare_runs
from hf_causal_video.utils.errors import CausalVideoError


def outcomes(correct: np.ndarray) -> dict[str, bool]:
    return {f"q{number}": bool(value) for number, value in enumerate(correct)}


def test_intervals_have_the_width_of_the_normal_approximation():
    generator = np.random.default_rng(0)
    first, second = generator.random((2, 400)) < np.array([[0.6], [0.7]])
    a, b = compare_runs({"a": outcomes(first), "b": outcomes(second)}, resamples=4000)
    assert a.difference is None and b.difference is not None
    assert a.accuracy.value == pytest.approx(100 * first.mean())
    assert b.difference.value == pytest.approx(100 * (second.mean() - first.mean()))
    shift = 100 * (second.astype(float) - first)
    width = 2 * 1.96 * shift.std() / 400**0.5
    assert b.difference.high - b.difference.low == pytest.approx(width, rel=0.1)


def test_pairing_removes_what_both_runs_share():
    """Ten questions differ out of a thousand: unpaired intervals would drown them."""
    first = np.arange(1000) % 2 == 0
    second = first.copy()
    second[1:40:2] = True
    _, b = compare_runs({"a": outcomes(first), "b": outcomes(second)})
    assert b.difference is not None and b.difference.low > 0
    assert b.accuracy.low < 50.0  # the interval of the accuracy itself is wider than the difference


def test_videos_are_resampled_whole():
    """Ten questions per video that stand or fall together: the interval is that of the videos."""
    by_video = np.random.default_rng(1).random(40) < 0.5
    correct = np.repeat(by_video, 10)
    runs = {"a": outcomes(np.zeros(400, bool)), "b": outcomes(correct)}
    videos = {f"q{number}": f"v{number // 10}" for number in range(400)}
    alone, grouped = compare_runs(runs)[1], compare_runs(runs, videos)[1]
    width = [one.accuracy.high - one.accuracy.low for one in (alone, grouped)]
    assert width[1] == pytest.approx(width[0] * 10**0.5, rel=0.2)


def test_the_same_seed_gives_the_same_intervals():
    correct = np.random.default_rng(2).random((2, 50)) < 0.5
    runs = {"a": outcomes(correct[0]), "b": outcomes(correct[1])}
    assert compare_runs(runs) == compare_runs(runs)


@pytest.mark.parametrize(
    ("runs", "options", "named"),
    [
        ({"a": {"q": True}}, {}, "number of runs: found 1"),
        ({"a": {}, "b": {}}, {}, "no answers"),
        ({"a": {"q": True}, "b": {"r": True}}, {}, "different questions"),
        ({"a": {"q": True}, "b": {"q": True, "r": True}}, {}, "different questions"),
        ({"a": {"q": True}, "b": {"q": True}}, {"resamples": 0}, "resamples"),
        ({"a": {"q": True}, "b": {"q": True}}, {"confidence": 1.0}, "confidence"),
    ],
)
def test_what_cannot_be_compared_is_named(runs: dict, options: dict, named: str):
    with pytest.raises(CausalVideoError, match=named):
        compare_runs(runs, **options)
