"""Block fusion: a bilinear map of two vectors whose tensor is block-diagonal and of low rank in every block.

Why: a full bilinear map of two wide vectors has too many weights; a map per chunk, each a sum of few products, keeps
most of its power.

Source: Ben-younes et al., "BLOCK", AAAI 2019 (arXiv 1902.00038), section 3. All chunks of one size stand in one tensor
here, where the published layout has a linear layer per chunk; the conversion stacks them.
"""

import math
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_causal_video.utils.errors import require


def chunk_sizes(width: int, chunks: int) -> list[int]:
    """Cut a width into chunks as published: sizes rounded up, and the last one takes the rest.

    Where that rest would be negative, the last chunk is as large as the others, and one is taken from each chunk,
    counted from the end, until they fit.

    Example:
        >>> chunk_sizes(10, 5), chunk_sizes(10, 4), chunk_sizes(10, 8)
        ([2, 2, 2, 2, 2], [3, 3, 3, 1], [2, 2, 1, 1, 1, 1, 1, 1])
    """
    size = -(-width // chunks)  # rounded up
    rest = width - size * (chunks - 1)
    if rest >= 0:
        return [size] * (chunks - 1) + [rest]
    over = size * chunks - width  # chunks that are one too large
    return [size] * (chunks - over) + [size - 1] * over


class ChunkLinear(nn.Module):
    """One linear map per chunk of a vector."""

    def __init__(self, chunks: int, size: int, out: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(chunks, out, size))
        self.bias = nn.Parameter(torch.empty(chunks, out))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start every chunk as `torch.nn.Linear` does."""
        bound = 1 / math.sqrt(self.weight.shape[-1])
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Map (R, chunks, size) to (R, chunks, out)."""
        # One product per chunk, and all of them as one batch: (chunks, R, size) @ (chunks, size, out).
        return torch.baddbmm(self.bias.unsqueeze(1), x.transpose(0, 1), self.weight.transpose(1, 2)).transpose(0, 1)


class BlockFusion(nn.Module):
    """Fusion of two vectors.

    Args:
        first, second, out: widths.
        width: inner width.
        chunks: number of blocks, of the sizes of `chunk_sizes`.
        rank: products per block.
        dropout: on both projected inputs.
        epsilon: added under the signed square root, whose slope is infinite at 0; None is the published form.

    Example:
        >>> BlockFusion(4, 6, 3, width=8, chunks=2, rank=2)(torch.randn(5, 4), torch.randn(5, 6)).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        first: int,
        second: int,
        out: int,
        width: int = 1600,
        chunks: int = 20,
        rank: int = 15,
        dropout: float = 0.0,
        epsilon: float | None = 1e-6,
    ):
        super().__init__()
        require(min(width, chunks, rank) >= 1, "Block fusion", found=(width, chunks, rank), expected="at least 1 each")
        self.rank = rank
        self.dropout = dropout
        self.epsilon = epsilon
        self.linear0 = nn.Linear(first, width)
        self.linear1 = nn.Linear(second, width)
        sizes = [(size, len(list(same))) for size, same in groupby(chunk_sizes(width, chunks)) if size]
        (size, count), *smaller = sizes
        self.merge0, self.merge1 = (ChunkLinear(count, size, size * rank) for _ in range(2))
        for size, count in smaller:  # one other size at most
            self.merge0_rest, self.merge1_rest = (ChunkLinear(count, size, size * rank) for _ in range(2))
        self.blocks = sizes
        self.linear_out = nn.Linear(width, out)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Fuse (R, first) and (R, second) to (R, out)."""
        x = F.dropout(self.linear0(first), self.dropout, self.training)  # (R, width)
        y = F.dropout(self.linear1(second), self.dropout, self.training)
        if len(self.blocks) == 1:
            return self.linear_out(self._fuse(x, y, self.merge0, self.merge1))
        widths = [size * count for size, count in self.blocks]  # large chunks, then the smaller ones
        x, x_rest = x.split(widths, 1)  # (R, size * count)
        y, y_rest = y.split(widths, 1)
        rest = self._fuse(x_rest, y_rest, self.merge0_rest, self.merge1_rest)
        return self.linear_out(torch.cat([self._fuse(x, y, self.merge0, self.merge1), rest], 1))

    def _fuse(self, x: Tensor, y: Tensor, merge_x: ChunkLinear, merge_y: ChunkLinear) -> Tensor:
        """Fuse chunks of one size, side by side in x and y (R, chunks * size)."""
        x, y = (side.unflatten(1, (len(merge_x.bias), -1)) for side in (x, y))  # (R, chunks, size)
        z = (merge_x(x) * merge_y(y)).unflatten(2, (self.rank, -1)).sum(2)  # (R, chunks, size)
        # Power normalisation and a unit vector per chunk; in float32, where small numbers keep their root.
        return F.normalize(self._signed_root(z.float()), dim=2).to(z.dtype).flatten(1)

    def _signed_root(self, z: Tensor) -> Tensor:
        if self.epsilon is None:
            return z.relu().sqrt() - (-z).relu().sqrt()  # published: an infinite slope at 0
        return z * (z.abs() + self.epsilon).rsqrt()
