"""Recurrent encoders over the real steps of a sequence, wherever they stand, without a loop over samples."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


def pack_left(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Move the true steps of every sequence to the left, in their order, and cut behind the longest.

    Args:
        x: (R, T, D).
        mask: (R, T) bool.

    Returns:
        (R, T', D), and its mask (R, T'). What stands outside the mask means nothing.

    Example:
        >>> x, mask = pack_left(torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([[False, True, True]]))
        >>> x.flatten().tolist(), mask.tolist()
        ([2.0, 3.0], [[True, True]])
    """
    if torch.compiler.is_compiling():
        longest = mask.shape[1]
    else:
        lengths = mask.sum(1)
        longest = int(lengths.max())
        if bool((mask[:, 1:] <= mask[:, :-1]).all()):  # already at the left
            return x[:, :longest], mask[:, :longest]
    order = (~mask).int().sort(dim=1, stable=True).indices[:, :longest]  # (R, T')
    return x.gather(1, order.unsqueeze(-1).expand(-1, -1, x.shape[-1])), mask.gather(1, order)


class BidirectionalEncoder(nn.Module):
    """A one-layer bidirectional GRU or LSTM that reads real steps only.

    Args:
        width: numbers a step.
        dim: hidden width of a direction.
        cell: "gru" or "lstm".
    """

    def __init__(self, width: int, dim: int, cell: str):
        super().__init__()
        self.rnn = {"gru": nn.GRU, "lstm": nn.LSTM}[cell](width, dim, batch_first=True, bidirectional=True)

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
