"""Mixing two samples: the answer follows the causal scenes and the questions, and the environments do not matter.

Why: if causal scene and question change, the answer must change along (equivariance); if the environment changes, it
must not (invariance). EIGV mixes two clips: causal parts, questions and answers share one coefficient, environments
get another that no answer follows.

Source: Li et al., "Equivariant and Invariant Grounding for Video Question Answering", ACM MM 2022 (arXiv 2207.12783),
section 3.3.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def draw_lambda(alpha: float, count: int | None, device: torch.device | None = None) -> Tensor:
    """Mixing coefficients of Beta(alpha, alpha): () one a batch, as released, or (count,) one a sample."""
    shape = torch.Size(() if count is None else (count,))
    return torch.distributions.Beta(float(alpha), float(alpha)).sample(shape).to(device)


def mix(own: Tensor, other: Tensor, weight: Tensor) -> Tensor:
    """weight * own + (1 - weight) * other, row by row.

    Args:
        own, other: (R, ...).
        weight: () or (R,).

    Example:
        >>> mix(torch.tensor([[4.0]]), torch.tensor([[0.0]]), torch.tensor(0.25))
        tensor([[1.]])
    """
    if weight.dim():
        weight = weight.view(-1, *[1] * (own.dim() - 1))
    return weight.to(own.dtype) * own + (1 - weight).to(own.dtype) * other


def mix_scenes(
    frames: Tensor, causal: Tensor, environment: Tensor, partner: Tensor, lambda1: Tensor, lambda2: Tensor
) -> Tensor:
    """Mix every clip with its partner's: causal parts by lambda1, environments by lambda2.

    No frame is moved in time; where the two clips' masks disagree the coefficients do not sum to 1, as in the paper.

    Args:
        frames: (R, T, C).
        causal, environment: (R, T) masks.
        partner: (R,) row of each clip's partner.
        lambda1, lambda2: () or (R,).

    Example:
        >>> frames, one, zero = torch.tensor([[[2.0]], [[4.0]]]), torch.ones(2, 1), torch.zeros(2, 1)
        >>> mix_scenes(frames, one, zero, torch.tensor([1, 0]), torch.tensor(1.0), torch.tensor(0.0)).flatten()
        tensor([2., 4.])
    """

    def share(weight: Tensor) -> Tensor:  # () or (R,) to (1 or R, 1)
        return weight.to(causal.dtype).view(-1, 1)

    own = share(lambda1) * causal + share(lambda2) * environment  # (R, T)
    other = share(1 - lambda1) * causal[partner] + share(1 - lambda2) * environment[partner]
    return own.unsqueeze(-1) * frames + other.unsqueeze(-1) * frames[partner]


def mixed_answer_loss(logits: Tensor, labels: Tensor, partner: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy with the own answer, weighted by lambda, and with the partner's, weighted by the rest; open-ended.

    Args:
        logits: (B, A).
        labels: (B,).
        partner: (B,).
        weight: () or (B,) lambda1.
    """
    own = F.cross_entropy(logits.float(), labels, reduction="none")
    other = F.cross_entropy(logits.float(), labels[partner], reduction="none")
    return mix(own, other, weight).mean()


def two_hot(labels: Tensor, partner: Tensor, weight: Tensor, answers: int) -> Tensor:
    """The target over a sample's own candidates followed by its partner's, (B, 2 * answers).

    Example:
        >>> two_hot(torch.tensor([1, 0]), torch.tensor([1, 0]), torch.tensor(0.75), 2)
        tensor([[0.0000, 0.7500, 0.2500, 0.0000],
                [0.7500, 0.0000, 0.0000, 0.2500]])
    """
    hot = F.one_hot(labels, answers).float()
    return torch.cat([mix(hot, hot * 0, weight), mix(hot * 0, hot[partner], weight)], 1)
