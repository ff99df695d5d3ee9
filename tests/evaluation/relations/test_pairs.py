"""Laws of pair metrics: precision does not see a prior and recall does; parts are means; ties share a step."""

import numpy as np
import pytest

from hf_causal_video.evaluation.relations.pairs import average_precision, pair_metrics
from hf_causal_video.utils.errors import CausalVideoError


def drawn(several: bool, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = (rng.random((200, 8)) < 0.3) if several else rng.integers(0, 8, 200)
    truth = labels if several else labels[:, None] == np.arange(8)
    return truth + rng.normal(size=(200, 8)), labels


@pytest.mark.parametrize("several", [True, False])
def test_a_prior_moves_recall_and_never_precision(several: bool) -> None:
    scores, labels = drawn(several)
    name, parts = "mR@4" if several else "mean_recall", {"rare": [6, 7]}
    one, two = (pair_metrics(scores + shift, labels, parts) for shift in (0, np.linspace(3, -3, 8)))
    assert one["mAP"] == pytest.approx(two["mAP"]) and one["rare mAP"] == pytest.approx(two["rare mAP"])
    assert two["rare"] < one["rare"] and two[name] != pytest.approx(one[name])


def test_perfect_scores_are_a_hundred_and_constant_ones_chance() -> None:
    _, labels = drawn(False)
    perfect = pair_metrics(np.eye(8)[labels], labels, {"all": slice(0, 8)})
    assert {value for name, value in perfect.items() if name != "pairs"} == {100.0}
    constant = pair_metrics(np.tile(np.eye(8)[0], (200, 1)), labels)
    assert constant["mean_recall"] == pytest.approx(100 / 8)
    assert constant["accuracy"] == pytest.approx(100 * (labels == 0).mean())


def test_predicates_without_a_pair_are_left_out() -> None:
    scores, labels = drawn(False)
    few = labels < 4
    table = pair_metrics(scores[few], labels[few], {"absent": slice(4, 8), "there": slice(0, 4)})
    assert table["absent"] is None and table["there"] == pytest.approx(table["mean_recall"])


def test_precision_is_that_of_sklearn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    for _ in range(20):
        scores, truth = rng.integers(0, 6, 30) / 5, rng.random(30) < 0.4
        assert average_precision(scores, truth) == pytest.approx(metrics.average_precision_score(truth, scores))


@pytest.mark.parametrize("spoil", ["shape", "nothing", "nan"])
def test_what_does_not_fit_is_refused(spoil: str) -> None:
    scores, labels = drawn(True)
    if spoil == "shape":
        labels = labels[:, :5]
    if spoil == "nothing":
        labels = labels & False
    if spoil == "nan":
        scores[3, 3] = np.nan
    with pytest.raises(CausalVideoError, match="scores of pairs"):
        pair_metrics(scores, labels)
