"""Sums over all training processes, for a term that is no mean over samples.

Why: of several processes each has a share of the batch, and their gradients are averaged. A mean over samples survives
that; the square of a mean does not, so its mean has to be taken over the whole batch first.
"""

import torch
from torch import Tensor


def sum_over_processes(value: Tensor) -> Tensor:
    """The sum of a tensor over all processes, which call this together; of one process, the tensor itself.

    Where the gradients of the processes are averaged afterwards, as DDP does, a loss of the sum gets the gradient that
    one process with the whole batch would give it.

    Args:
        value: any shape, the same on every process.

    Example:
        >>> sum_over_processes(torch.tensor([1.0, 2.0]))
        tensor([1., 2.])
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return value
    total = value.detach().clone()
    torch.distributed.all_reduce(total)
    return total + torch.distributed.get_world_size() * (value - value.detach())  # the average takes it back
