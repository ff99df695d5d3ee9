"""How often each predicate was seen in training: the P(z) of the back-door sum, and what adds it to a score.

Why: an intervention replaces the observed P(z) by the uniform one. Both must be one switch apart, so that "trained
under the first, asked under the second" is a setting, and "the intervention switched off" is another.

Source: IVRD (Li et al., ACM MM 2021): P(z) uniform is *confirmed*; the observed prior as its control, log-odds for
predicates that do not compete, and half an annotation for one never seen are *ours*.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from hf_causal_video.utils.errors import CausalVideoError

Prior = Literal["uniform", "frequency"]


class PredicatePrior(nn.Module):
    """How often each predicate was annotated in training, and the uniform alternative.

    A predicate never seen gets half an annotation, so that its log-prior is finite and the first example can teach it.

    Args:
        num_predicates: P.
        multi_label: predicates are judged one by one (log-odds of each) or one is chosen (log-probabilities).

    Example:
        >>> prior = PredicatePrior(2)
        >>> prior.set_counts(torch.tensor([3.0, 1.0]), 4)
        >>> prior.probabilities("frequency").tolist(), prior.probabilities("uniform").tolist()
        ([0.75, 0.25], [0.5, 0.5])
    """

    rates: Tensor  # (P,) share of the training pairs with each predicate; 0 = not set

    def __init__(self, num_predicates: int, multi_label: bool = False):
        super().__init__()
        self.multi_label = multi_label
        self.register_buffer("rates", torch.zeros(num_predicates))

    def reset_parameters(self) -> None:
        """Forget the counts."""
        nn.init.zeros_(self.rates)

    def set_counts(self, counts: Tensor, num_pairs: int) -> None:
        """Set the observed frequencies: counts (P,) of annotations among `num_pairs` training pairs."""
        counts = torch.as_tensor(counts, dtype=self.rates.dtype, device=self.rates.device)
        if counts.shape != self.rates.shape or (counts < 0).any() or (counts > num_pairs).any() or not counts.any():
            raise CausalVideoError(
                "predicate counts", found=f"{counts.tolist()[:5]} ... of {num_pairs} pairs",
                expected=f"{len(self.rates)} counts in 0..pairs, not all zero", fix="count the training annotations",
            )  # fmt: skip
        self.rates.copy_(counts.clamp(min=0.5) / max(num_pairs, 1))

    def probabilities(self, kind: Prior) -> Tensor:
        """(P,) P(z), adding to one."""
        if kind == "uniform":
            return torch.full_like(self.rates, 1 / len(self.rates))
        if not torch.compiler.is_compiling() and not self.rates.all():
            raise CausalVideoError(
                "the observed predicate prior", found="no counts", expected="counts of the training set",
                fix="call model.set_predicate_counts(counts, num_pairs) before training",
            )  # fmt: skip
        return self.rates / self.rates.sum()

    def logits(self, kind: Prior) -> Tensor:
        """(P,) what the prior adds to a predicate's score: log P(z), or its log-odds where predicates do not compete.

        Log-odds under the uniform prior are those of the mean rate (of 1/P before counts are set): a constant.
        """
        if not self.multi_label:
            return self.probabilities(kind).log()
        rates = self.probabilities(kind) * (self.rates.sum() if self.rates.any() else 1.0)
        return rates.clamp(1e-6, 1 - 1e-6).logit()
