"""Post-norm transformer layers in the manner of DETR: self-attention, cross-attention to a memory, feed-forward.

Why own layers: TranSTR ranks frames by the cross-attention map itself, so the layer must hand out the map, its
energies before the softmax, or neither (then fused attention is used). Positions are added to queries and keys, never
to values.

Source: TranSTR (arXiv 2307.12058) section 3; submodule names follow the published checkpoints so that they load.
"""

import math
from collections.abc import Callable
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

Weights = Literal["prob", "dropped", "energy"]
Keep = Callable[[Tensor], Tensor]


def sine_positions(mask: Tensor, dim: int) -> Tensor:
    """Sinusoidal positions that count valid entries only, scaled so that a sequence always spans 2 pi.

    Args:
        mask: (B, L) bool, True where valid.
        dim: width of the encoding, even.

    Returns:
        (B, L, dim) float32, sine and cosine interleaved.

    Example:
        >>> sine_positions(torch.tensor([[True, True, False]]), 4).shape
        torch.Size([1, 3, 4])
    """
    steps = mask.float().cumsum(1)  # (B, L)
    steps = steps / (steps[:, -1:] + 1e-6) * (2 * math.pi)
    channel = torch.arange(dim, device=mask.device, dtype=torch.float32)
    angles = steps.unsqueeze(-1) / 10000 ** (2 * (channel // 2) / dim)  # (B, L, dim)
    return torch.stack((angles[..., 0::2].sin(), angles[..., 1::2].cos()), dim=-1).flatten(-2)


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention that returns a head-averaged map only when one is asked for.

    Args:
        dim: model width, a multiple of `heads`.
        heads: number of heads.
        dropout: dropout on the attention map in training.
    """

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.q_lin, self.k_lin, self.v_lin, self.out_lin = (nn.Linear(dim, dim) for _ in range(4))

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, weights: Weights | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from query (B, Q, D) to key and value (B, S, D) where mask (B, S) is True.

        Returns:
            The mixed values (B, Q, D), and the map (B, Q, S) averaged over heads: "prob" after the softmax, "dropped"
            also after dropout (the published ranking), "energy" before the softmax; None where none is asked for.
        """
        return self.attend(self.q_lin(query), key, value, mask, weights)

    def attend(
        self, projected: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, weights: Weights | None
    ) -> tuple[Tensor, Tensor | None]:
        """`forward` from queries (B, Q, D) that went through `q_lin` before."""
        q, k, v = self._heads(projected), self._heads(self.k_lin(key)), self._heads(self.v_lin(value))
        p = self.dropout if self.training else 0.0
        if weights is None:
            bias = None if mask is None else mask[:, None, None, :]
            mixed, ranking = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=p), None
        else:
            energy = (q / math.sqrt(q.shape[-1])) @ k.transpose(-1, -2)  # (B, H, Q, S)
            prob = _share(energy, mask)
            dropped = F.dropout(prob, p)
            ranking = {"prob": prob, "dropped": dropped, "energy": energy}[weights].mean(1)  # (B, Q, S)
            mixed = dropped @ v
        return self.out_lin(mixed.transpose(1, 2).flatten(-2)), ranking

    def rank(self, projected: Tensor, key: Tensor, mask: Tensor | None, weights: Weights | None) -> Tensor:
        """The map (B, Q, S) alone, as it is in evaluation; a single row of queries (1, Q, D) is every row's."""
        scale, k = math.sqrt(projected.shape[-1] // self.heads), self.k_lin(key)
        if len(projected) == len(key):
            energy = self._heads(projected) @ (self._heads(k) / scale).transpose(-1, -2)  # (B, H, Q, S)
        else:
            k = self._heads(k.flatten(0, 1).unsqueeze(0))  # (1, H, B * S, D/H)
            energy = (self._heads(projected) @ (k / scale).transpose(-1, -2)).unflatten(-1, (len(key), -1))
            energy = energy.squeeze(0).movedim(2, 0)  # (B, H, Q, S)
        return (energy if weights == "energy" else _share(energy, mask)).mean(1)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, Q or S, D/H)


def _share(energy: Tensor, mask: Tensor | None) -> Tensor:
    return (energy if mask is None else energy.masked_fill(~mask[:, None, None, :], -math.inf)).softmax(-1)


class TransformerLayer(GradientCheckpointingLayer):
    """One post-norm layer; with `cross=True` a decoder layer, which also attends to a memory.

    The two halves are callable apart: `attend_self` does not know the question, so its result can be shared by all
    questions of a video.
    """

    def __init__(self, dim: int, heads: int, feedforward: int, dropout: float, cross: bool):
        super().__init__()
        self.self_attn = MultiHeadAttention(dim, heads, dropout)
        if cross:
            self.multihead_attn = MultiHeadAttention(dim, heads, dropout)
            self.norm3 = nn.LayerNorm(dim)
        self.linear1, self.linear2 = nn.Linear(dim, feedforward), nn.Linear(feedforward, dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def attend_self(self, x: Tensor, pos: Tensor | None, mask: Tensor | None) -> Tensor:
        """The question-independent half: (B, Q, D) to (B, Q, D)."""
        placed = x if pos is None else x + pos
        return self.norm1(x + self.dropout(self.self_attn(placed, placed, x, mask)[0]))

    def ask(self, x: Tensor, pos: Tensor | None) -> Tensor:
        """Queries (B, Q, D) to any memory, from x after `attend_self`; they do not know the question either."""
        return self.multihead_attn.q_lin(x if pos is None else x + pos)

    def forward(
        self,
        x: Tensor,
        pos: Tensor | None = None,
        mask: Tensor | None = None,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
        weights: Weights | None = None,
        self_attended: bool = False,
        keep: Keep | None = None,
        query: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Run the layer on x (B, Q, D).

        Args:
            self_attended: x already went through `attend_self`.
            memory: (B, M, D); or fewer rows (B / S, M, D), each shared by S rows of x in turn and projected once.
            keep: maps the map (B, Q, M) to the rows (B, K) that are needed; the rest of the layer runs on those.
            query: (B, Q, D), or (1, Q, D) for all rows: what `ask` said.
        """
        x = x if self_attended else self.attend_self(x, pos, mask)
        ranking, last = None, self.norm2
        if memory is not None:

            def fold(rows: Tensor) -> Tensor:  # (B, Q, D) to (B / S, S * Q, D)
                return rows.reshape(len(memory), -1, rows.shape[-1])

            query = self.ask(x, pos) if query is None else query
            if keep is not None:
                asked = query if len(query) == 1 else fold(query)
                ranking = self.multihead_attn.rank(asked, memory, memory_mask, weights).reshape(*x.shape[:2], -1)
                kept = keep(ranking).unsqueeze(-1).expand(-1, -1, x.shape[-1])  # (B, K, D)
                x, query, weights = x.gather(1, kept), query.expand_as(x).gather(1, kept), None
            query = fold(query.expand_as(x))
            update, found = self.multihead_attn.attend(query, memory, memory, memory_mask, weights)
            ranking = ranking if found is None else found.view(*x.shape[:2], -1)  # (B, Q, M)
            x, last = self.norm2(x + self.dropout(update.view_as(x))), self.norm3
        update = self.linear2(self.dropout(self.linear1(x).relu()))
        return last(x + self.dropout(update)), ranking


class TransformerStack(nn.Module):
    """Layers and a final norm; the map is that of the last layer.

    Args:
        layers: number of layers.
        dim, heads, feedforward, dropout: as in `TransformerLayer`.
        cross: decoder layers, which attend to a memory.

    Example:
        >>> stack = TransformerStack(1, 8, 2, 16, 0.0, cross=True)
        >>> y, ranking = stack(torch.randn(2, 5, 8), memory=torch.randn(2, 3, 8), weights="prob")
        >>> y.shape, ranking.shape
        (torch.Size([2, 5, 8]), torch.Size([2, 5, 3]))
    """

    def __init__(self, layers: int, dim: int, heads: int, feedforward: int, dropout: float, cross: bool):
        super().__init__()
        self.layers = nn.ModuleList(TransformerLayer(dim, heads, feedforward, dropout, cross) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def attend_self(self, x: Tensor, pos: Tensor | None, mask: Tensor | None) -> Tensor:
        """What `forward` does before it meets the memory; hand the result over with `self_attended=True`."""
        return cast(TransformerLayer, self.layers[0]).attend_self(x, pos, mask)

    def ask(self, x: Tensor, pos: Tensor | None) -> Tensor:
        """Queries of the first layer from the result of `attend_self`; hand them over as `query`."""
        return cast(TransformerLayer, self.layers[0]).ask(x, pos)

    def forward(
        self,
        x: Tensor,
        pos: Tensor | None = None,
        mask: Tensor | None = None,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
        weights: Weights | None = None,
        self_attended: bool = False,
        keep: Keep | None = None,
        query: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Update x (B, Q, D); see `TransformerLayer.forward`. The last layer ranks and keeps."""
        ranking = None
        for depth, layer in enumerate(self.layers):
            asked = (weights, keep) if depth == len(self.layers) - 1 else (None, None)
            begun = (self_attended, query) if depth == 0 else (False, None)
            x, ranking = layer(x, pos, mask, memory, memory_mask, asked[0], begun[0], asked[1], begun[1])
        return self.norm(x), ranking
