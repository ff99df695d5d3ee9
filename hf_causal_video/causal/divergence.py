"""Kullback-Leibler divergences between answer distributions, the constraints of IGV and EIGV.

Why here: an absent candidate has the lowest logit there is; its probability is 0, and log 0 must reach no gradient.
"""

import torch.nn.functional as F
from torch import Tensor


def divergence(target: Tensor, logits: Tensor, rows: Tensor | None = None) -> Tensor:
    """KL(softmax(target) || softmax(logits)), mean over rows; the target learns too, unless it is detached.

    Args:
        target, logits: (B, A).
        rows: (B,) bool, rows that count; the mean is over those, and 0 where there are none.

    Example:
        >>> import torch
        >>> divergence(torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0, 3.0]]))
        tensor(0.)
    """
    target, logits = target.float().log_softmax(-1), logits.float().log_softmax(-1)
    return _mean((target.exp() * (target - logits)).sum(-1), rows)


def uniformity(logits: Tensor, present: Tensor | None = None, rows: Tensor | None = None) -> Tensor:
    """KL(uniform || softmax(logits)): 0 where the answers are equally likely.

    Args:
        logits: (B, A).
        present: (B, A) bool, answers over which the uniform distribution stands; None: all.
        rows: (B,) bool, rows that count; the mean is over those, and 0 where there are none.

    Example:
        >>> import torch
        >>> uniformity(torch.ones(2, 4)).abs() < 1e-6
        tensor(True)
    """
    logs = logits.float().log_softmax(-1)
    if present is None:
        found = -logs.mean(-1) - logs.new_tensor(logs.shape[-1]).log()
    else:
        count = present.sum(-1)
        found = -logs.masked_fill(~present, 0.0).sum(-1) / count - count.log()
    return _mean(found, rows)


def soft_target_loss(target: Tensor, logits: Tensor) -> Tensor:
    """KL(target || softmax(logits)), mean over rows; target (B, A) is a distribution and learns nothing."""
    return F.kl_div(logits.float().log_softmax(-1), target.float(), reduction="batchmean")


def _mean(values: Tensor, rows: Tensor | None) -> Tensor:
    if rows is None:
        return values.mean()
    return (values * rows).sum() / rows.sum().clamp(min=1)
