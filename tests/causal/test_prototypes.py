"""Laws of the interventions: both literal forms agree where they must, uniform forgets, the mixture is Bayes."""

import pytest
import torch

from hf_causal_video.causal.prototypes import (
    LiteralIntervention,
    PredicatePrior,
    PrototypeDictionary,
    PrototypeMixture,
)
from hf_causal_video.utils.errors import CausalVideoError

PRED, DIM, ROWS = 5, 8, 7


def prior(multi_label: bool = False) -> PredicatePrior:
    made = PredicatePrior(PRED, multi_label)
    made.set_counts(torch.tensor([50.0, 30.0, 15.0, 5.0, 0.0]), 100)
    return made


def literal(form: str, multi_label: bool = False) -> LiteralIntervention:
    torch.manual_seed(0)
    return LiteralIntervention(DIM, PRED, form, multi_label)


def test_exact_and_nwgm_agree_where_the_head_is_linear() -> None:
    """Deep in its linear range the activation may change places with the sum."""
    torch.manual_seed(1)
    references, vectors, weight = torch.randn(ROWS, DIM), torch.randn(PRED, DIM), prior().probabilities(0.0)
    small = {}
    for form in ("exact", "nwgm"):
        head = literal(form, multi_label=True)
        with torch.no_grad():
            for parameter in (*head.from_reference.parameters(), *head.from_prototype.parameters()):
                parameter.mul_(1e-4)
        small[form] = head(references, vectors, weight)[0]
    assert torch.allclose(small["exact"], small["nwgm"], atol=1e-6)


@pytest.mark.parametrize("multi_label", [True, False])
def test_exact_is_the_literal_sum(multi_label: bool) -> None:
    torch.manual_seed(1)
    head, references, vectors = literal("exact", multi_label), torch.randn(ROWS, DIM), torch.randn(PRED, DIM)
    weight = prior().probabilities(1.0)
    logits, alpha = head(references, vectors, weight)
    total = torch.zeros(ROWS, PRED)
    for z in range(PRED):
        each = head.from_reference(references) + head.from_prototype(alpha[:, z : z + 1] * vectors[z])
        total += weight[z] * (each.sigmoid() if multi_label else each.softmax(-1))
    assert torch.allclose(logits.sigmoid() if multi_label else logits.exp(), total, atol=1e-6)


@pytest.mark.parametrize("form", ["exact", "nwgm"])
def test_one_prototype_makes_both_forms_equal(form: str) -> None:
    torch.manual_seed(2)
    head = LiteralIntervention(DIM, 1, form, True)
    references, vectors = torch.randn(ROWS, DIM), torch.randn(1, DIM)
    logits, alpha = head(references, vectors, torch.ones(1))
    expected = head.from_reference(references) + head.from_prototype(vectors)
    assert torch.allclose(logits, expected, atol=1e-5) and torch.equal(alpha, torch.ones(ROWS, 1))


def test_a_uniform_prior_is_invariant_to_frequencies() -> None:
    other = PredicatePrior(PRED)
    other.set_counts(torch.tensor([1.0, 1.0, 1.0, 1.0, 96.0]), 100)
    assert torch.equal(prior().probabilities(0.0), other.probabilities(0.0))
    assert torch.equal(prior()(0.0), other(0.0))


def test_the_observed_prior_is_the_share_of_annotations_and_unseen_predicates_stay_finite() -> None:
    shares = prior().probabilities(1.0)
    assert shares.sum() == pytest.approx(1) and shares[0] == pytest.approx(50 / 100.5)
    assert 0 < shares[4] < shares[3] and prior()(1.0).isfinite().all()


def test_log_odds_where_predicates_do_not_compete() -> None:
    """Under the observed prior the log-odds of each rate, under the uniform one a constant."""
    odds = prior(multi_label=True)
    assert odds(1.0)[1] == pytest.approx(torch.tensor(0.3).logit().item(), abs=1e-4)
    assert odds(0.0).unique().numel() == 1


def test_the_mixture_is_logit_adjustment_with_a_cosine_head() -> None:
    torch.manual_seed(3)
    references, vectors, observed = torch.randn(ROWS, DIM), torch.randn(PRED, DIM), prior()
    mixture = PrototypeMixture(DIM)
    cosine_head = mixture(references, vectors, torch.zeros(PRED))  # W r against the prototypes: a cosine classifier
    trained = mixture(references, vectors, observed(1.0))
    adjusted = cosine_head + observed.probabilities(1.0).log()  # its training logits, Menon et al. eq. 10
    assert torch.allclose(trained, adjusted)
    asked = mixture(references, vectors, observed(0.0)).softmax(-1)
    assert torch.allclose(asked, cosine_head.softmax(-1), atol=1e-6)
    # Bayes: the observed posterior is the uniform one times the prior, normalised.
    reweighted = asked * observed.probabilities(1.0)
    assert torch.allclose(trained.softmax(-1), reweighted / reweighted.sum(-1, keepdim=True), atol=1e-6)


def test_prototypes_move_to_class_means_and_the_unseen_stay() -> None:
    dictionary = PrototypeDictionary(3, 2, "ema", momentum=0.9)
    before = dictionary.vectors.clone()
    references, labels = torch.tensor([[1.0, 0.0], [3.0, 2.0]]), torch.tensor([[1, 0, 0], [1, 1, 0]])
    dictionary.move(references, labels)
    assert torch.allclose(dictionary.vectors[0], 0.9 * before[0] + 0.1 * torch.tensor([2.0, 1.0]))
    dictionary.move(references, labels, momentum=0.0)
    assert dictionary.vectors[:2].tolist() == [[2.0, 1.0], [3.0, 2.0]]
    assert torch.equal(dictionary.vectors[2], before[2])


def test_only_learned_prototypes_have_a_gradient() -> None:
    learned = {kind: len(list(PrototypeDictionary(2, 2, kind).parameters())) for kind in ("learned", "ema", "frozen")}
    assert learned == {"learned": 1, "ema": 0, "frozen": 0}


def test_the_second_weight_starts_p_times_larger() -> None:
    """nwgm with 1/P written out moves as much by its prototypes as it would without the factor."""
    head = LiteralIntervention(64, 50, "nwgm")
    assert head.from_prototype.weight.std().item() == pytest.approx(
        50 * head.from_reference.weight.std().item(), rel=0.2
    )


@pytest.mark.parametrize("counts", [[1.0, 2.0], [-1.0, 1, 1, 1, 1], [200.0, 1, 1, 1, 1], [0.0] * 5])
def test_counts_that_are_none_are_refused(counts: list[float]) -> None:
    with pytest.raises(CausalVideoError, match="predicate counts"):
        PredicatePrior(PRED).set_counts(torch.tensor(counts), 100)


def test_the_observed_prior_without_counts_is_uniform() -> None:
    for multi_label in (True, False):
        empty = PredicatePrior(PRED, multi_label)
        assert torch.allclose(empty(1.0), empty(0.0)) and empty(1.0).unique().numel() == 1
    assert torch.allclose(PredicatePrior(PRED).probabilities(1.0), torch.full((PRED,), 1 / PRED))


@pytest.mark.parametrize("multi_label", [True, False])
def test_a_prior_per_pair_of_classes_is_the_share_among_them_and_falls_back_on_all(multi_label: bool) -> None:
    made = PredicatePrior(PRED, multi_label, num_classes=2)
    pairs, counts = torch.tensor([[400.0, 0.0], [0.0, 0.0]]), torch.zeros(2, 2, PRED)
    counts[0, 0, 4] = 400.0
    overall = torch.tensor([50.0, 30.0, 15.0, 5.0, 0.0])
    made.set_counts(overall, 100, counts, pairs)
    first, second = torch.eye(2)
    seen, unseen = made(1.0, first[None], first[None])[0], made(1.0, first[None], second[None])[0]
    assert seen.argmax() == 4
    assert torch.allclose(unseen, prior(multi_label)(1.0), atol=1e-5)
    assert torch.allclose(made(0.0, first[None], first[None])[0], made(0.0), atol=1e-6)
    mixed = made(1.0, torch.full((1, 2), 0.5), torch.full((1, 2), 0.5))[0]
    rates = made.pair_rates.mean((0, 1))
    wanted = rates.logit() if multi_label else (rates / rates.sum()).log()
    assert torch.allclose(mixed, wanted, atol=1e-5)
