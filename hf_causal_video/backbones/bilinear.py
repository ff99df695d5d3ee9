"""Block fusion: two vectors to one by a bilinear map whose tensor is block-diagonal and of low rank in every block.

Why: a full bilinear map of two wide vectors has too many weights; cutting both into chunks and writing each chunk's
map as a sum of few products keeps most of its power.

Source: Ben-younes et al., "BLOCK", AAAI 2019 (arXiv 1902.00038), section 3. All chunks stand in one tensor here, where
the published layout has a linear layer a chunk; the conversion stacks them.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_causal_video.utils.errors import CausalVideoError


class ChunkLinear(nn.Module):
    """One linear map for each chunk of a vector: (R, chunks, size) to (R, chunks, out)."""

    def __init__(self, chunks: int, size: int, out: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(chunks, out, size))
        self.bias = nn.Parameter(torch.empty(chunks, out))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The initialisation of a linear layer, a chunk."""
        bound = 1 / math.sqrt(self.weight.shape[-1])
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """(R, chunks, size) to (R, chunks, out)."""
        return torch.baddbmm(self.bias.unsqueeze(1), x.transpose(0, 1), self.weight.transpose(1, 2)).transpose(0, 1)


class BlockFusion(nn.Module):
    """Fuse two vectors.

    Args:
        first, second, out: widths.
        width: inner width, a multiple of `chunks`.
        chunks: number of blocks.
        rank: products a block.
        dropout: on both projected inputs.
        epsilon: added under the signed square root, whose slope is infinite at 0; None is the published form.

    Example:
        >>> BlockFusion(4, 6, 3, width=8, chunks=2, rank=2)(torch.randn(5, 4), torch.randn(5, 6)).shape
        torch.Size([5, 3])
    """

    def __init__(
        self, first: int, second: int, out: int, width: int = 1600, chunks: int = 20, rank: int = 15,
        dropout: float = 0.0, epsilon: float | None = 1e-6,
    ):  # fmt: skip
        super().__init__()
        if width % chunks:
            raise CausalVideoError(
                "Block fusion", found=f"width {width}, {chunks} chunks", expected="a multiple", fix="change one"
            )
        self.chunks, self.rank, self.dropout, self.epsilon = chunks, rank, dropout, epsilon
        self.linear0, self.linear1 = nn.Linear(first, width), nn.Linear(second, width)
        size = width // chunks
        self.merge0, self.merge1 = (ChunkLinear(chunks, size, size * rank) for _ in range(2))
        self.linear_out = nn.Linear(width, out)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """(R, first) and (R, second) to (R, out)."""
        x, y = (
            F.dropout(linear(given), self.dropout, self.training).unflatten(1, (self.chunks, -1))
            for linear, given in ((self.linear0, first), (self.linear1, second))
        )  # (R, chunks, size)
        z = (self.merge0(x) * self.merge1(y)).unflatten(2, (self.rank, -1)).sum(2)  # (R, chunks, size)
        z = F.normalize(self._signed_root(z.float()), dim=2).to(z.dtype)
        return self.linear_out(z.flatten(1))

    def _signed_root(self, z: Tensor) -> Tensor:
        if self.epsilon is None:
            return z.relu().sqrt() - (-z).relu().sqrt()
        return z * (z.abs() + self.epsilon).rsqrt()
