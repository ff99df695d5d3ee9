"""Means over distributed processes, for loss terms that are not averages over samples.

Why: each process holds a share of the batch, and losses and gradients of the processes are averaged. That is right for
a mean over equally many samples, and wrong for the square of a mean or a mean over different numbers of rows. Such a
mean, or such a count, has to be that of the whole batch first.
"""

import torch
from torch import Tensor


def mean_over_processes(value: Tensor) -> Tensor:
    """Average a tensor over distributed processes, keeping the local gradient; all of them call this together.

    A loss made of such means, whose gradients are averaged afterwards as DDP does, gets the gradient that one process
    with the whole batch would give it.

    Args:
        value: any shape, the same on every process.

    Example:
        >>> mean_over_processes(torch.tensor([1.0, 2.0]))
        tensor([1., 2.])
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return value
    total = value.detach().clone()
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size() + (value - value.detach())  # zero, with the local gradient
