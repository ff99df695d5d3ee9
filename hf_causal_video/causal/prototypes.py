"""Predicate prototypes, and interventions that weigh every predicate fairly however rare it was in training.

Why: a relation head learns that `next_to` is likely before it has looked at anything. IVRD keeps one prototype z a
predicate and intervenes on subject and object: P(y | do(s, o)) = sum_z P(y | s, o, z) P(z), with P(z) uniform.

Source: IVRD (Li et al., ACM MM 2021); no code is public. *Confirmed*: a prototype a predicate, attention over the
dictionary, the back-door sum, uniform P(z). *Reconstruction*: all the rest. Measured on the confounded world: a P(z)
that is the same in training and at test is a constant which the next layer absorbs, so the literal sum (`nwgm`,
`exact`) changes nothing; `mixture`, trained under the observed prior and asked under the uniform one, does.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PrototypeUpdate = Literal["learned", "ema", "frozen"]


class PrototypeDictionary(nn.Module):
    """One vector a predicate: learned by gradient, moved towards class means ("ema"), or left as set ("frozen").

    Example:
        >>> dictionary = PrototypeDictionary(2, 3, "ema", momentum=0.0)
        >>> dictionary.move(torch.eye(3)[:1], torch.tensor([[0.0, 1.0]]))
        >>> dictionary.vectors[1].tolist()
        [1.0, 0.0, 0.0]
    """

    vectors: Tensor  # (P, D)

    def __init__(self, num: int, dim: int, update: PrototypeUpdate = "learned", momentum: float = 0.99):
        super().__init__()
        self.update, self.momentum = update, momentum
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
        mu, labels = self.momentum if momentum is None else momentum, labels.to(references.dtype)
        sums, count = labels.T @ references, labels.sum(0).unsqueeze(1)  # (P, D), (P, 1)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums)
            torch.distributed.all_reduce(count)
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
        self.form, self.multi_label = form, multi_label
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
        energies = self.query(references) @ self.key(prototypes).T * references.shape[-1] ** -0.5
        alpha = energies.float().softmax(-1).to(references.dtype)  # (R, Z)
        direct, through = self.from_reference(references), self.from_prototype(prototypes)  # (R, P), (Z, P)
        if self.form == "nwgm":
            return direct + (alpha * prior) @ through, alpha
        each = (direct.unsqueeze(1) + alpha.unsqueeze(-1) * through).float()  # (R, Z, P)
        weight = prior.log().unsqueeze(-1)
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
        cosine = F.normalize(self.project(references), dim=-1) @ F.normalize(prototypes, dim=-1).T
        return self.scale * cosine + prior_logits
