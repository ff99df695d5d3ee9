"""How likely each predicate is before anything is seen, and how much of that the head is allowed to use.

Why: a relation head learns that `next_to` is likely before it looks. The observed prior is added to its scores in
training, so the head learns what is left to learn; at inference the intervention takes the prior out, all of it or a
share.

Source: IVRD (Li et al., ACM MM 2021): P(z) uniform is *confirmed*; the observed prior as its control, log-odds for
predicates that do not compete, half an annotation for one never seen, the strength and the prior per pair of classes
are *ours*.
"""

import torch
from torch import Tensor, nn

from hf_causal_video.utils.errors import require

SMOOTHING = 4.0  # pairs of the overall rates that are added to the pairs of two classes


class PredicatePrior(nn.Module):
    """Observed frequency of each predicate in training, per pair of object classes if wanted.

    Until counts are set the prior is uniform.

    Args:
        num_predicates: P.
        multi_label: predicates are judged one by one (log-odds of each) or one is chosen (log-probabilities).
        num_classes: C object classes with a prior per ordered pair of classes; 0 for one prior of all pairs.

    Example:
        >>> prior = PredicatePrior(2)
        >>> prior.set_counts(torch.tensor([3.0, 1.0]), 4)
        >>> prior.probabilities(1.0).tolist(), prior.probabilities(0.0).tolist()
        ([0.75, 0.25], [0.5, 0.5])
    """

    rates: Tensor  # (P,) share of the training pairs with each predicate; 0 until counts are set
    pair_rates: Tensor  # (C, C, P) the same for the pairs of two classes

    def __init__(self, num_predicates: int, multi_label: bool = False, num_classes: int = 0):
        super().__init__()
        self.multi_label, self.num_classes = multi_label, num_classes
        self.register_buffer("rates", torch.zeros(num_predicates))
        if num_classes:
            self.register_buffer("pair_rates", torch.zeros(num_classes, num_classes, num_predicates))

    def reset_parameters(self) -> None:
        """Forget the counts."""
        for rates in self.buffers():
            nn.init.zeros_(rates)

    def set_counts(self, counts: Tensor, num_pairs: int, pair_counts: Tensor | None = None,
                   num_class_pairs: Tensor | None = None) -> None:  # fmt: skip
        """Set the observed frequencies.

        Args:
            counts: (P,) annotations of each predicate among the training pairs; one never seen gets half an
                annotation, so that its log-prior is finite and its first example can teach it.
            num_pairs: training pairs.
            pair_counts, num_class_pairs: (C, C, P) and (C, C) the same per subject and object class, smoothed by the
                overall rates; required with a prior per pair of classes.

        Raises:
            CausalVideoError: another shape, a negative count, more annotations than pairs, or none at all.
        """
        counts = torch.as_tensor(counts, dtype=self.rates.dtype, device=self.rates.device)
        require(
            counts.shape == self.rates.shape and (counts >= 0).all() and (counts <= num_pairs).all() and counts.any(),
            "predicate counts",
            found=lambda: f"{counts.tolist()[:5]} ... of {num_pairs} pairs",
            expected=f"{len(self.rates)} counts in 0..pairs, not all zero",
            fix="count the training annotations",
        )
        self.rates.copy_(counts.clamp(min=0.5) / max(num_pairs, 1))
        if not self.num_classes:
            return
        require(
            pair_counts is not None
            and num_class_pairs is not None
            and pair_counts.shape == self.pair_rates.shape
            and num_class_pairs.shape == self.pair_rates.shape[:2]
            and bool((pair_counts >= 0).all()),
            "predicate counts per pair of classes",
            found=None if pair_counts is None else tuple(pair_counts.shape),
            expected=f"counts {tuple(self.pair_rates.shape)} and pairs {tuple(self.pair_rates.shape[:2])}",
            fix="count the training annotations per subject and object class",
        )
        assert pair_counts is not None and num_class_pairs is not None
        pairs = num_class_pairs.to(self.rates).unsqueeze(-1)
        self.pair_rates.copy_((pair_counts.to(self.rates) + SMOOTHING * self.rates) / (pairs + SMOOTHING))

    def forward(
        self, strength: float, subject: Tensor | None = None, other: Tensor | None = None, normalized: bool = False
    ) -> Tensor:
        """Logits that the prior adds to the scores of the predicates, or P(z) itself.

        Args:
            strength: 1 for the observed prior, 0 for the uniform one, between them in logits.
            subject, other: (R, C) class probabilities of both tracks of each pair, for a prior per pair of classes.
            normalized: return probabilities that add to one.

        Returns:
            (P,), or (R, P) for a prior per pair of classes: log-probabilities, or log-odds where predicates do not
            compete. The uniform prior has the log-odds of the mean rate (of 1/P before counts are set): a constant.
        """
        rates = torch.where(self.rates.sum() > 0, self.rates, 1 / len(self.rates))
        observed = rates
        if self.num_classes and subject is not None and other is not None:
            table = torch.where(self.rates.sum() > 0, self.pair_rates, 1 / len(self.rates))
            observed = torch.einsum("rc,rd,cdp->rp", subject, other, table)
        if normalized or not self.multi_label:
            log_p = (strength * observed.log()).log_softmax(-1)
            return log_p.exp() if normalized else log_p
        uniform = _log_odds(rates.mean())
        return uniform + strength * (_log_odds(observed) - uniform)

    def probabilities(self, strength: float) -> Tensor:
        """(P,) P(z) of all pairs, adding to one."""
        return self(strength, normalized=True)


def _log_odds(rates: Tensor) -> Tensor:
    return rates.clamp(1e-6, 1 - 1e-6).logit()
