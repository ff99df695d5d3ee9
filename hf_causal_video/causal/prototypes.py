"""Predicate prototypes and priors: interventions that weigh every predicate fairly however rare it was in training.

Why: a relation head learns that `next_to` is likely before it has looked at anything. IVRD keeps one prototype z per
predicate and intervenes on subject and object: P(y | do(s, o)) = sum_z P(y | s, o, z) P(z), with P(z) uniform. The
observed prior is added to the scores in training, so the head learns what is left to learn; at inference the
intervention takes the prior out, all of it or a share.

Source: IVRD (Li et al., ACM MM 2021); no code is public. *Confirmed*: one prototype per predicate, attention over the
dictionary, the back-door sum, uniform P(z). *Ours*: the observed prior as its control, log-odds for predicates that do
not compete, half an annotation for one never seen, the strength, the prior per pair of classes. *Reconstruction*: all
the rest. Measured on the confounded world: a P(z) that is the same in training and at test is a constant which the
next layer absorbs, so the literal sum (`nwgm`, `exact`) changes nothing; `mixture`, trained under the observed prior
and evaluated under the uniform one, does.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_causal_video.utils.errors import CausalVideoError, require

PrototypeUpdate = Literal["learned", "ema", "frozen"]
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
        >>> prior.probabilities(1.0), prior.probabilities(0.0)
        (tensor([0.7500, 0.2500]), tensor([0.5000, 0.5000]))
    """

    rates: Tensor  # (P,) share of the training pairs with each predicate; 0 until counts are set
    pair_rates: Tensor  # (C, C, P) the same for the pairs of two classes

    def __init__(self, num_predicates: int, multi_label: bool = False, num_classes: int = 0):
        super().__init__()
        self.multi_label = multi_label
        self.num_classes = num_classes
        self.register_buffer("rates", torch.zeros(num_predicates))
        if num_classes:
            self.register_buffer("pair_rates", torch.zeros(num_classes, num_classes, num_predicates))

    def reset_parameters(self) -> None:
        """Forget the counts."""
        for rates in self.buffers():
            nn.init.zeros_(rates)

    def set_counts(
        self, counts: Tensor, num_pairs: int, pair_counts: Tensor | None = None, num_class_pairs: Tensor | None = None
    ) -> None:
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
        inside = counts.shape == self.rates.shape and (counts >= 0).all() and (counts <= num_pairs).all()
        expected = f"{len(self.rates)} counts in 0..{num_pairs} pairs, not all zero"
        require(inside and counts.any(), "predicate counts", found=counts.tolist()[:5], expected=expected)
        self.rates.copy_(counts.clamp(min=0.5) / max(num_pairs, 1))
        if not self.num_classes:
            return
        shape = self.pair_rates.shape
        if (
            pair_counts is None
            or num_class_pairs is None
            or (pair_counts.shape, num_class_pairs.shape) != (shape, shape[:2])
            or (pair_counts < 0).any()
        ):
            raise CausalVideoError(
                "predicate counts per pair of classes",
                found=None if pair_counts is None else tuple(pair_counts.shape),
                expected=f"counts {tuple(shape)} and pairs {tuple(shape[:2])}",
                fix="count the training annotations per subject and object class",
            )
        # (counts + 4 rates) / (pairs + 4): classes that rarely meet fall back on the rates of all pairs
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
        # P(z) of all pairs, uniform until counts are set
        rates = torch.where(self.rates.sum() > 0, self.rates, 1 / len(self.rates))  # (P,)
        observed = rates
        if self.num_classes and subject is not None and other is not None:
            table = torch.where(self.rates.sum() > 0, self.pair_rates, 1 / len(self.rates))
            # P(z | pair) = sum over classes c, d of P(subject is c) P(object is d) P(z | c, d)
            observed = torch.einsum("rc,rd,cdp->rp", subject, other, table)  # (R, P)
        if normalized or not self.multi_label:
            # P(z)^strength, normalised: the observed prior at 1, the uniform one at 0
            log_p = (strength * observed.log()).log_softmax(-1)
            return log_p.exp() if normalized else log_p
        uniform = _log_odds(rates.mean())
        return uniform + strength * (_log_odds(observed) - uniform)

    def probabilities(self, strength: float) -> Tensor:
        """(P,) P(z) of all pairs, adding to one."""
        return self(strength, normalized=True)


class PrototypeDictionary(nn.Module):
    """One vector per predicate: learned by gradient, moved towards class means ("ema"), or left as set ("frozen").

    Example:
        >>> dictionary = PrototypeDictionary(2, 3, "ema", momentum=0.0)
        >>> dictionary.move(torch.eye(3)[:1], torch.tensor([[0.0, 1.0]]))
        >>> dictionary.vectors[1].tolist()
        [1.0, 0.0, 0.0]
    """

    vectors: Tensor  # (P, D)

    def __init__(self, num: int, dim: int, update: PrototypeUpdate = "learned", momentum: float = 0.99):
        super().__init__()
        self.update = update
        self.momentum = momentum
        if update == "learned":
            self.vectors = nn.Parameter(torch.empty(num, dim))
        else:
            self.register_buffer("vectors", torch.empty(num, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier, which predicates without any reference keep."""
        nn.init.xavier_uniform_(self.vectors)

    def forward(self) -> Tensor:
        """The prototypes (P, D)."""
        return self.vectors

    @torch.no_grad()
    def move(self, references: Tensor, labels: Tensor, momentum: float | None = None) -> None:
        """Move z_p to mu z_p + (1 - mu) mean{r : p in y}; predicates without a reference stay.

        Of several processes each brings its share of the references, and all call this together.

        Args:
            references: (R, D) relation references of annotated pairs.
            labels: (R, P) 0/1.
            momentum: mu; 0 sets the class means, as after warm-up. None takes the dictionary's own.
        """
        mu = self.momentum if momentum is None else momentum
        labels = labels.to(references.dtype)
        sums = labels.T @ references  # (P, D)
        count = labels.sum(0).unsqueeze(1)  # (P, 1)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums)
            torch.distributed.all_reduce(count)
        # a mean over the references of all processes together
        means = sums / count.clamp(min=1)
        moved = torch.where(count > 0, mu * self.vectors + (1 - mu) * means.to(self.vectors.dtype), self.vectors)
        self.vectors.copy_(moved)


class LiteralIntervention(nn.Module):
    """The back-door sum as written, over attention to the prototypes; `nwgm` or `exact`.

    With h([r; z]) = W1 r + W2 z and alpha = softmax of the attention of r over the dictionary:
    exact: sum_z P(z) act(h([r; alpha_z z])); nwgm: act(h([r; sum_z P(z) alpha_z z])), the expectation moved inside.
    """

    def __init__(self, dim: int, num_predicates: int, form: Literal["nwgm", "exact"], multi_label: bool = False):
        super().__init__()
        self.form = form
        self.multi_label = multi_label
        self.query, self.key = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.from_reference = nn.Linear(dim, num_predicates)
        self.from_prototype = nn.Linear(dim, num_predicates, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """W2 starts P times larger, so that the factor P(z) = 1/P does not starve its gradient (reconstruction)."""
        bound = self.from_prototype.out_features * self.from_prototype.in_features**-0.5
        nn.init.uniform_(self.from_prototype.weight, -bound, bound)

    def forward(self, references: Tensor, prototypes: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (R, P) and attention (R, Z) for references (R, D), prototypes (Z, D) and P(z) (Z,)."""
        # alpha_z = softmax of q(r) . k(z) / sqrt(D)
        energies = self.query(references) @ self.key(prototypes).T * references.shape[-1] ** -0.5
        alpha = energies.float().softmax(-1).to(references.dtype)  # (R, Z)
        direct = self.from_reference(references)  # (R, P)
        through = self.from_prototype(prototypes)  # (Z, P)
        if self.form == "nwgm":
            # W1 r + sum_z P(z) alpha_z W2 z
            return direct + (alpha * prior) @ through, alpha
        each = (direct.unsqueeze(1) + alpha.unsqueeze(-1) * through).float()  # (R, Z, P)
        weight = prior.log().unsqueeze(-1)  # (Z, 1)
        # log sum_z P(z) act(each_z), in logs
        if not self.multi_label:
            return (each.log_softmax(-1) + weight).logsumexp(1), alpha
        yes, no = ((F.logsigmoid(side) + weight).logsumexp(1) for side in (each, -each))
        return yes - no, alpha  # log-odds of the mean probability


class PrototypeMixture(nn.Module):
    """Responsibility of each prototype for a relation: scale * cos(W r, z) + log P(z), normalised by the reader.

    Algebraically this is logit adjustment (Menon et al., ICLR 2021) with a cosine head: its lead over logit adjustment
    with a linear head is a matter of the head, not by itself evidence of a causal effect.
    """

    def __init__(self, dim: int, scale: float = 16.0, project: bool = True):
        super().__init__()
        self.scale = scale
        self.project: nn.Module = nn.Linear(dim, dim, bias=False) if project else nn.Identity()

    def forward(self, references: Tensor, prototypes: Tensor, prior_logits: Tensor) -> Tensor:
        """Logits (R, P) for references (R, D), prototypes (P, D) and the prior's logits (P,)."""
        # W r and z on the unit sphere: (R, D) by (D, P)
        cosine = F.normalize(self.project(references), dim=-1) @ F.normalize(prototypes, dim=-1).T
        return self.scale * cosine + prior_logits


def _log_odds(rates: Tensor) -> Tensor:
    return rates.clamp(1e-6, 1 - 1e-6).logit()
