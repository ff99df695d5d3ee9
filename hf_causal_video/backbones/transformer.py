"""Post-norm transformer layers in the manner of DETR: self-attention, cross-attention to a memory, feed-forward.

Why own layers: TranSTR ranks frames by the cross-attention map itself, so the layer must return the map, its energies
before the softmax, or neither (then fused attention is used). Positions are added to queries and keys, never to
values.

Source: TranSTR (arXiv 2307.12058) section 3; submodule names follow the published checkpoints so that they load.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.output_capturing import _active_collector

Weights = Literal["prob", "dropped", "energy"]
Part = Literal["self", "query", "attention", "feedforward"]
Keep = Callable[[Tensor], Tensor]


def sine_positions(mask: Tensor, dim: int) -> Tensor:
    """Compute sinusoidal positions of valid entries, scaled so that a sequence always spans 2 pi.

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


class DotProductAttention(nn.Module):
    """softmax(q k / sqrt(d)) v by the implementation that the model's config names; it has no weights.

    Args:
        dropout: dropout on the attention map in training.
        config: config of the model, read at every call, so that `set_attn_implementation` takes effect; None: "sdpa".
    """

    is_causal = False

    def __init__(self, dropout: float, config: PreTrainedConfig | None = None):
        super().__init__()
        self.dropout = dropout
        self.config = config

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, weights: Weights | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Attend from q (B, H, Q, D/H) to k, v (B, H, S, D/H) where mask (B, S) is True.

        Returns:
            The mixed values (B, Q, H, D/H); the map (B, H, Q, S), None if the implementation keeps none; and what
            `weights` names (B, H, Q, S), for which the map is always computed.
        """
        p = self.dropout if self.training else 0.0
        if weights is None:
            name = "sdpa" if self.config is None else self.config._attn_implementation
            if "attentions" in (_active_collector.get() or ()):  # fused implementations keep no map
                name = "eager"
            attend = ALL_ATTENTION_FUNCTIONS.get_interface(name, eager_attention)
            bias = None if mask is None else mask[:, None, None, :]
            return *attend(self, q, k, v, bias, dropout=p, scaling=q.shape[-1] ** -0.5), None
        energy = (q / math.sqrt(q.shape[-1])) @ k.transpose(-1, -2)  # (B, H, Q, S)
        prob = _share(energy, mask)  # the map that rank_by='prob' ranks
        dropped = F.dropout(prob, p)  # as released: ranking sees dropout too
        ranking = {"prob": prob, "dropped": dropped, "energy": energy}[weights]
        return (dropped @ v).transpose(1, 2), dropped, ranking


def eager_attention(
    module: nn.Module,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **_: object,
) -> tuple[Tensor, Tensor]:
    """Attention by two matrix products; returns its map, which fused implementations do not."""
    energy = (q * scaling) @ k.transpose(-1, -2)  # (B, H, Q, S)
    energy = energy if mask is None else energy.masked_fill(~mask, -math.inf)
    share = F.dropout(energy.softmax(-1), dropout, module.training)  # (B, H, Q, S)
    return (share @ v).transpose(1, 2), share


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention that returns a head-averaged map on request only.

    Args:
        dim: model width, a multiple of `heads`.
        heads: number of heads.
        dropout: dropout on the attention map in training.
        config: config of the model, which names the attention implementation.
    """

    def __init__(self, dim: int, heads: int, dropout: float, config: PreTrainedConfig | None = None):
        super().__init__()
        self.heads = heads
        self.dot_product = DotProductAttention(dropout, config)
        self.q_lin, self.k_lin, self.v_lin, self.out_lin = (nn.Linear(dim, dim) for _ in range(4))

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        mask: Tensor | None = None,
        weights: Weights | None = None,
        projected: bool = False,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Attend from query (B, Q, D) to key and value (B, S, D) where mask (B, S) is True.

        Without a key it stops at the projected query, without a value at the map.

        Args:
            projected: the query went through `q_lin` before.

        Returns:
            The mixed values (B, Q, D), and the map (B, Q, S) averaged over heads: "prob" after the softmax, "dropped"
            also after dropout (the published ranking), "energy" before the softmax; None without `weights`.
            Without a value None and the map as it is in evaluation; without a key the projected query and None.
        """
        query = query if projected else self.q_lin(query)
        if key is None:
            return query, None
        if value is None:
            return None, self._rank(query, key, mask, weights)
        q = self._heads(query)
        k = self._heads(self.k_lin(key))
        v = self._heads(self.v_lin(value))
        mixed, _, ranking = self.dot_product(q, k, v, mask, weights)
        return self.out_lin(mixed.flatten(-2)), None if ranking is None else ranking.mean(1)  # (B, Q, D), (B, Q, S)

    def _rank(self, projected: Tensor, key: Tensor, mask: Tensor | None, weights: Weights | None) -> Tensor:
        """Compute the map (B, Q, S) as in evaluation; a single row of queries (1, Q, D) serves every row."""
        scale = math.sqrt(projected.shape[-1] // self.heads)  # sqrt(D/H)
        k = self.k_lin(key)
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

    Its parts are callable apart by `part`: self-attention does not know the question, so its result can be shared by
    all questions of a video; the feed-forward has most of the operations, and can be left to the rows that are kept.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        feedforward: int,
        dropout: float,
        cross: bool,
        config: PreTrainedConfig | None = None,
    ):
        super().__init__()
        self.self_attn = MultiHeadAttention(dim, heads, dropout, config)
        if cross:
            self.multihead_attn = MultiHeadAttention(dim, heads, dropout, config)
            self.norm3 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, feedforward)
        self.linear2 = nn.Linear(feedforward, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

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
        part: Part | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Run the layer on x (B, Q, D), or a part of it.

        Args:
            self_attended: x already went through the part "self".
            memory: (B, M, D); or fewer rows (B / S, M, D), each shared by S rows of x in turn and projected once.
            keep: maps the map (B, Q, M) to the rows (B, K) that are needed; the rest of the layer runs on those.
            query: (B, Q, D), or (1, Q, D) for all rows: the result of the part "query".
            part: "self" stops after self-attention; "query" computes the queries to any memory, from x after that;
                "attention" stops before the feed-forward; "feedforward" goes on from there.
        """
        if part == "feedforward":
            return self._feed_forward(x), None
        if part != "query" and not self_attended:
            placed = x if pos is None else x + pos  # positions join queries and keys, never values
            x = self.norm1(x + self.dropout(self.self_attn(placed, placed, x, mask)[0]))
        if part == "self":
            return x, None
        if part == "query":
            return self.multihead_attn(x if pos is None else x + pos)[0], None
        ranking = None
        if memory is not None:

            def fold(rows: Tensor) -> Tensor:  # (B, Q, D) to (B / S, S * Q, D)
                return rows.reshape(len(memory), -1, rows.shape[-1])

            query = self.multihead_attn(x if pos is None else x + pos)[0] if query is None else query
            if keep is not None:
                folded = query if len(query) == 1 else fold(query)
                _, ranking = self.multihead_attn(folded, memory, None, memory_mask, weights, projected=True)
                ranking = ranking.reshape(*x.shape[:2], -1)  # (B, Q, M)
                kept = keep(ranking).unsqueeze(-1).expand(-1, -1, x.shape[-1])  # (B, K, D)
                query = query.expand_as(x).gather(1, kept)  # (B, K, D)
                x = x.gather(1, kept)
                weights = None  # the map is there already, so fused attention may do the rest
            query = fold(query.expand_as(x))
            update, attention = self.multihead_attn(query, memory, memory, memory_mask, weights, projected=True)
            ranking = ranking if attention is None else attention.view(*x.shape[:2], -1)  # (B, Q, M)
            x = self.norm2(x + self.dropout(update.view_as(x)))
        return (x if part == "attention" else self._feed_forward(x)), ranking

    def _feed_forward(self, x: Tensor) -> Tensor:
        update = self.linear2(self.dropout(self.linear1(x).relu()))  # (B, Q, D)
        last = self.norm3 if hasattr(self, "norm3") else self.norm2
        return last(x + self.dropout(update))


class TransformerStack(nn.Module):
    """Layers and a final norm; the map is that of the last layer.

    Args:
        layers: number of layers.
        dim, heads, feedforward, dropout: as in `TransformerLayer`.
        cross: decoder layers, which attend to a memory.
        config: config of the model, which names the attention implementation.

    Example:
        >>> stack = TransformerStack(1, 8, 2, 16, 0.0, cross=True)
        >>> y, ranking = stack(torch.randn(2, 5, 8), memory=torch.randn(2, 3, 8), weights="prob")
        >>> y.shape, ranking.shape
        (torch.Size([2, 5, 8]), torch.Size([2, 5, 3]))
    """

    def __init__(
        self,
        layers: int,
        dim: int,
        heads: int,
        feedforward: int,
        dropout: float,
        cross: bool,
        config: PreTrainedConfig | None = None,
    ):
        super().__init__()
        self.layers = nn.ModuleList(
            TransformerLayer(dim, heads, feedforward, dropout, cross, config) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim)

    def attend_self(self, x: Tensor, pos: Tensor | None, mask: Tensor | None) -> Tensor:
        """Run the part of `forward` that needs no memory; pass the result on with `self_attended=True`."""
        return self.layers[0](x, pos, mask, part="self")[0]

    def ask(self, x: Tensor, pos: Tensor | None) -> Tensor:
        """Compute the queries of the first layer from the result of `attend_self`; pass them on as `query`."""
        return self.layers[0](x, pos, part="query")[0]

    def finish(self, x: Tensor) -> Tensor:
        """Run what `forward` leaves out with `finish=False`, on all rows or on some."""
        return self.norm(self.layers[-1](x, part="feedforward")[0])

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
        finish: bool = True,
    ) -> tuple[Tensor, Tensor | None]:
        """Update x (B, Q, D); see `TransformerLayer.forward`. The last layer ranks and keeps.

        With `finish=False` the last layer stops before its feed-forward; `finish` runs that and the norm.
        """
        ranking = None
        for depth, layer in enumerate(self.layers):
            first, last = depth == 0, depth == len(self.layers) - 1
            x, ranking = layer(  # positional arguments, since a re-entrant checkpoint follows those alone
                x,
                pos,
                mask,
                memory,
                memory_mask,
                weights if last else None,
                self_attended and first,
                keep if last else None,
                query if first else None,
                None if finish or not last else "attention",
            )
        return (self.norm(x) if finish else x), ranking
