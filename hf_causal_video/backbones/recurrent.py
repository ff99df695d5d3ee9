"""Recurrent encoders over the real steps of a sequence, wherever they stand, without a loop over samples."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


def pack_left(x: Tensor, mask: Tensor, cut: bool = True) -> tuple[Tensor, Tensor]:
    """Move the true steps of every sequence to the left, in their order, and cut behind the longest.

    Args:
        x: (R, T, D).
        mask: (R, T) bool.
        cut: False keeps all T places.

    Returns:
        (R, T', D), and its mask (R, T'). What stands outside the mask means nothing.

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
    """Reads the weights that stand in the module now, wherever they were put.

    Why: torch keeps a second list of them, which offloading, that swaps weights in before a call, does not know.
    """

    def forward(self, *args: Any, **options: Any) -> Any:
        """As the network of torch."""
        weights = [getattr(self, name) for name in self._flat_weights_names]
        if any(one is not other for one, other in zip(weights, self._flat_weights, strict=True)):
            self._flat_weights = weights
        return super().forward(*args, **options)


class GRU(_Current, nn.GRU):
    """`torch.nn.GRU` whose weights may be offloaded."""


class LSTM(_Current, nn.LSTM):
    """`torch.nn.LSTM` whose weights may be offloaded."""


class BidirectionalEncoder(nn.Module):
    """A one-layer bidirectional GRU or LSTM that reads real steps only.

    Args:
        width: numbers a step.
        dim: hidden width of a direction.
        cell: "gru" or "lstm".
    """

    def __init__(self, width: int, dim: int, cell: str):
        super().__init__()
        self.rnn = {"gru": GRU, "lstm": LSTM}[cell](width, dim, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Steps (R, T, width), real ones at the left by mask (R, T), to states (R, T, 2 dim), zero at padding, and the
        last state of both directions (R, 2 dim)."""
        if not torch.compiler.is_compiling() and bool(mask.all()):
            states, last = self.rnn(x)
        else:
            packed = pack_padded_sequence(x, mask.sum(1).cpu(), batch_first=True, enforce_sorted=False)
            packed, last = self.rnn(packed)
            states, _ = pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
        last = last[0] if isinstance(last, tuple) else last  # an LSTM returns its cell as well
        return states, last.transpose(0, 1).flatten(1)  # both directions of a row side by side


class Packing:
    """The true places of padded rows as one flat list, so that what is done to each place is done to those alone.

    Args:
        mask: (R, N) bool.

    Example:
        >>> packing = Packing(torch.tensor([[True, False], [True, True]]))
        >>> flat = packing.pack(torch.tensor([[[1.0], [0.0]], [[2.0], [3.0]]]))
        >>> flat.flatten().tolist(), packing.pad(flat).squeeze(-1).tolist()
        ([1.0, 2.0, 3.0], [[1.0, 0.0], [2.0, 3.0]])
    """

    def __init__(self, mask: Tensor):
        self.shape, self.places = mask.shape, mask.flatten().nonzero().squeeze(1)

    def pack(self, x: Tensor) -> Tensor:
        """(R, N, D) to (places, D)."""
        return x.flatten(0, 1).index_select(0, self.places)

    def pad(self, flat: Tensor, fill: Tensor | None = None) -> Tensor:
        """(places, D) to (R, N, D), `fill` () or zero elsewhere."""
        padded = flat.new_zeros(self.shape.numel(), flat.shape[1])
        if fill is None:  # nothing else refers to the zeros, so no copy of them is made
            padded.index_copy_(0, self.places, flat)
        else:
            padded = (padded + fill).index_copy(0, self.places, flat)
        return padded.unflatten(0, self.shape)

    def index(self, start: int) -> Tensor:
        """(R, N) where each place stands in a table whose row `start` is the first of them; padding is row 0."""
        index = self.places.new_zeros(self.shape.numel())
        numbers = torch.arange(start, start + len(self.places), device=index.device)
        return index.index_copy(0, self.places, numbers).view(self.shape)
