"""Recurrent encoders over the true steps of a sequence, at any position, without a loop over samples."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


def pack_left(x: Tensor, mask: Tensor, cut: bool = True) -> tuple[Tensor, Tensor]:
    """Move the true steps of every sequence to the left, in their order, and cut behind the longest.

    Args:
        x: (R, T, D).
        mask: (R, T) bool.
        cut: False keeps all T steps.

    Returns:
        (R, T', D), and its mask (R, T'). Values outside the mask are arbitrary.

    Example:
        >>> x, mask = pack_left(torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([[False, True, True]]))
        >>> x.flatten().tolist(), mask.tolist()
        ([2.0, 3.0], [[True, True]])
    """
    longest = mask.shape[1]
    if not torch.compiler.is_compiling():
        longest = int(mask.sum(1).max()) if cut else longest
        if bool((mask[:, 1:] <= mask[:, :-1]).all()):  # already at the left
            return x[:, :longest], mask[:, :longest]
    order = (~mask).int().sort(dim=1, stable=True).indices[:, :longest]  # (R, T')
    return x.gather(1, order.unsqueeze(-1).expand(-1, -1, x.shape[-1])), mask.gather(1, order)


class _Current(nn.RNNBase):
    """Recurrence with the weights that the module holds at the call.

    Why: torch keeps a second list of them, which offloading does not update when it brings weights in before a call.
    """

    def forward(self, *args: Any, **options: Any) -> Any:
        """Compute as the class of torch."""
        weights = [getattr(self, name) for name in self._flat_weights_names]
        if any(one is not other for one, other in zip(weights, self._flat_weights, strict=True)):
            self._flat_weights = weights
        return super().forward(*args, **options)


class GRU(_Current, nn.GRU):
    """`torch.nn.GRU` whose weights may be offloaded."""


class LSTM(_Current, nn.LSTM):
    """`torch.nn.LSTM` whose weights may be offloaded."""


class BidirectionalEncoder(nn.Module):
    """A one-layer bidirectional GRU or LSTM over true steps only.

    Args:
        width: numbers per step.
        dim: hidden width of each direction.
        cell: "gru" or "lstm".
    """

    def __init__(self, width: int, dim: int, cell: str):
        super().__init__()
        self.rnn = {"gru": GRU, "lstm": LSTM}[cell](width, dim, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode steps (R, T, width), true ones first by mask (R, T).

        Returns:
            States (R, T, 2 dim), zero at padding, and the last state of both directions (R, 2 dim).
        """
        if torch.compiler.is_compiling():
            return read_padded(self.rnn, x, mask)
        if bool(mask.all()):
            states, last = self.rnn(x)  # nothing to skip
        else:
            packed = pack_padded_sequence(x, mask.sum(1).cpu(), batch_first=True, enforce_sorted=False)
            packed, last = self.rnn(packed)
            states, _ = pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
        last = last[0] if isinstance(last, tuple) else last  # an LSTM returns its cell as well
        return states, last.transpose(0, 1).flatten(1)


def read_padded(rnn: nn.RNNBase, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Read true steps by a bidirectional recurrence: one call with them first, and one with them last.

    Why: packed sequences have a shape that depends on values, which no compiled or exported graph can hold.

    Args:
        rnn: one bidirectional layer, batch first.
        x: (R, T, width), true steps first by `mask` (R, T).

    Returns:
        States (R, T, 2 dim), zero at padding, and the last state of both directions (R, 2 dim), zero without a step.
    """
    dim = rnn.hidden_size
    longest = x.shape[1]
    lengths = mask.sum(1, keepdim=True)  # (R, 1)
    position = torch.arange(longest, device=x.device)  # (T,)
    right = (position - (longest - lengths)).clamp(min=0).unsqueeze(-1)  # (R, T, 1)
    left = (position + (longest - lengths)).clamp(max=longest - 1).unsqueeze(-1)
    forward = rnn(x)[0][..., :dim]  # (R, T, dim): padding comes after the true steps
    backward = rnn(x.gather(1, right.expand_as(x)))[0][..., dim:]  # padding comes before them
    backward = backward.gather(1, left.expand_as(backward))  # back to where the steps were
    final = forward.gather(1, (lengths - 1).clamp(min=0).unsqueeze(-1).expand(-1, 1, dim)).squeeze(1)  # (R, dim)
    states = torch.cat([forward, backward], -1).masked_fill(~mask.unsqueeze(-1), 0.0)
    return states, torch.cat([final, backward[:, 0]], -1) * (lengths > 0)


class Packing:
    """The true positions of padded rows as one flat list, so that work per position is done for those alone.

    Args:
        mask: (R, N) bool.

    Example:
        >>> packing = Packing(torch.tensor([[True, False], [True, True]]))
        >>> flat = packing.pack(torch.tensor([[[1.0], [0.0]], [[2.0], [3.0]]]))
        >>> flat.flatten().tolist(), packing.pad(flat).squeeze(-1).tolist()
        ([1.0, 2.0, 3.0], [[1.0, 0.0], [2.0, 3.0]])
    """

    def __init__(self, mask: Tensor):
        self.shape = mask.shape
        self.mask = mask
        if torch.compiler.is_compiling():  # the number of true positions is a value; a graph keeps all of them
            self.positions = torch.arange(mask.numel(), device=mask.device)
        else:
            self.positions = mask.flatten().nonzero().squeeze(1)

    def pack(self, x: Tensor) -> Tensor:
        """Gather (R, N, D) to (positions, D)."""
        return x.flatten(0, 1).index_select(0, self.positions)

    def pad(self, flat: Tensor, fill: Tensor | None = None) -> Tensor:
        """Scatter (positions, D) to (R, N, D), `fill` () or zero elsewhere."""
        if torch.compiler.is_compiling():
            rest = flat.new_zeros(()) if fill is None else fill
            return torch.where(self.mask.unsqueeze(-1), flat.unflatten(0, self.shape), rest)
        padded = flat.new_zeros(self.shape.numel(), flat.shape[1])
        if fill is None:  # nothing else refers to the zeros, so no copy of them is made
            padded.index_copy_(0, self.positions, flat)
        else:
            padded = (padded + fill).index_copy(0, self.positions, flat)
        return padded.unflatten(0, self.shape)

    def index(self, start: int) -> Tensor:
        """Number the positions from `start` on, (R, N); padding is 0."""
        numbers = torch.arange(start, start + len(self.positions), device=self.positions.device)  # (positions,)
        if torch.compiler.is_compiling():
            return numbers.view(self.shape) * self.mask
        index = self.positions.new_zeros(self.shape.numel())
        return index.index_copy(0, self.positions, numbers).view(self.shape)
