"""Mixing two samples: the answer depends on the causal scenes and the questions, not on the environments.

Why: if causal scene and question change, the answer must change with them (equivariance); if the environment changes,
it must not (invariance). EIGV mixes two clips: causal parts, questions and answers share one coefficient; environments
get another, on which no answer depends.

Source: Li et al., "Equivariant and Invariant Grounding for Video Question Answering", ACM MM 2022 (arXiv 2207.12783),
section 3.3.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def draw_lambda(alpha: float, count: int | None, device: torch.device | None = None) -> Tensor:
    """Draw mixing coefficients of Beta(alpha, alpha): () one per batch, as released, or (count,) one per sample."""
    shape = torch.Size(() if count is None else (count,))
    return torch.distributions.Beta(float(alpha), float(alpha), validate_args=False).sample(shape).to(device)


def mix(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Compute weight * a + (1 - weight) * b, row by row.

    Args:
        a, b: (R, ...).
        weight: () or (R,).

    Example:
        >>> mix(torch.tensor([[4.0]]), torch.tensor([[0.0]]), torch.tensor(0.25))
        tensor([[1.]])
    """
    if weight.dim():
        weight = weight.view(-1, *[1] * (a.dim() - 1))
    return weight.to(a.dtype) * a + (1 - weight).to(a.dtype) * b


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

    causal_share, causal_rest, share, rest = (
        weight.to(causal.dtype).view(-1, 1) for weight in (lambda1, 1 - lambda1, lambda2, 1 - lambda2)
    )  # (1 or R, 1)
    # lambda1 c + lambda2 e of the clip, and (1 - lambda1) c' + (1 - lambda2) e' of its partner
    clip_weight = causal_share * causal + share * environment  # (R, T)
    partner_weight = causal_rest * causal[partner] + rest * environment[partner]
    return clip_weight.unsqueeze(-1) * frames + partner_weight.unsqueeze(-1) * frames[partner]


def mixed_answer_loss(logits: Tensor, labels: Tensor, partner: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy of open answers with the clip's label, weighted by lambda, and the partner's by 1 - lambda.

    Args:
        logits: (B, A).
        labels: (B,).
        partner: (B,).
        weight: () or (B,) lambda1.
    """
    clip_loss = F.cross_entropy(logits.float(), labels, reduction="none")
    partner_loss = F.cross_entropy(logits.float(), labels[partner], reduction="none")
    return mix(clip_loss, partner_loss, weight).mean()


def two_hot(labels: Tensor, partner: Tensor, weight: Tensor, answers: int) -> Tensor:
    """Target distribution over a sample's candidates followed by its partner's, (B, 2 * answers).

    Example:
        >>> two_hot(torch.tensor([1, 0]), torch.tensor([1, 0]), torch.tensor(0.75), 2)
        tensor([[0.0000, 0.7500, 0.2500, 0.0000],
                [0.7500, 0.0000, 0.0000, 0.2500]])
    """
    # lambda at the clip's right candidate, 1 - lambda at the partner's, which stand behind
    hot = (labels.unsqueeze(1) == torch.arange(answers, device=labels.device)).float()  # one_hot waits for the device
    return torch.cat([mix(hot, hot * 0, weight), mix(hot * 0, hot[partner], weight)], 1)
