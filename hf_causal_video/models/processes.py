"""Means over all training processes, for a term that is no mean over as many samples on each of them.

Why: of several processes each has a share of the batch, and their losses and gradients are averaged. A mean over as
many samples each survives that; the square of a mean does not, nor a mean over other numbers of rows. So such a mean,
or such a number, has to be that of the whole batch first.
"""

import torch
from torch import Tensor


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a tensor over all processes, which call this together; of one process, the tensor itself.

    Where gradients of the processes are averaged afterwards, as DDP does, a loss made of such means gets the gradient
    that one process with the whole batch would give it.

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
    return total / torch.distributed.get_world_size() + (value - value.detach())  # each brings its own gradient
