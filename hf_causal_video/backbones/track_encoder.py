"""A BiLSTM over the real steps of a track, whatever its length.

Why packed: tracks of a batch differ in length, and a backward state that starts in padding has read something else.
Source: IVRD (Li et al., ACM MM 2021): a BiLSTM over object trajectories is *confirmed*, its pooling a
*reconstruction*.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from hf_causal_video.backbones.recurrent import LSTM, read_padded


class TrackEncoder(nn.Module):
    """A sequence to a vector: linear, BiLSTM, then the last state of each direction, or the mean over steps.

    Args:
        width: numbers per step.
        dim: D, even.
        pooling: "last" or "mean".

    Example:
        >>> import torch
        >>> encoder = TrackEncoder(4, 8)
        >>> encoder(torch.randn(3, 5, 4), torch.ones(3, 5, dtype=torch.bool)).shape
        torch.Size([3, 8])
    """

    def __init__(self, width: int, dim: int, pooling: Literal["last", "mean"] = "last"):
        super().__init__()
        self.project = nn.Linear(width, dim)
        self.pooling = pooling
        self.lstm = LSTM(dim, dim // 2, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(S, T, width) and mask (S, T), real steps first, to (S, D); a sequence without any step becomes 0s."""
        length = mask.sum(1)  # (S,)
        if torch.compiler.is_compiling():
            outputs, states = read_padded(self.lstm, self.project(x), mask)
            return (
                states if self.pooling == "last" else outputs.sum(1) / length.clamp(min=1).unsqueeze(1)
            )  # sequences with any step
        rows = length.nonzero().squeeze(1)  # sequences with any step
        states = x.new_zeros(len(x), self.project.out_features)  # (S, D)
        if not len(rows):  # 0 times a dummy step: with several processes every weight needs a gradient
            return states + 0 * self.lstm(self.project(x.new_zeros(1, 1, x.shape[-1])))[0].sum()
        lengths = length[rows].cpu()
        packed = nn.utils.rnn.pack_padded_sequence(self.project(x[rows]), lengths, True, enforce_sorted=False)
        outputs, (last, _) = self.lstm(packed)  # last: (2, rows, D/2)
        if self.pooling == "last":
            return states.index_copy(0, rows, last.transpose(0, 1).flatten(1))  # both directions, (S, D)
        outputs, _ = nn.utils.rnn.pad_packed_sequence(outputs, batch_first=True)
        return states.index_copy(0, rows, outputs.sum(1) / length[rows].unsqueeze(1))
