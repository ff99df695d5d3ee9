"""DeBERTa without its waste: the same numbers from the same weights, with no token of padding and in any precision.

Why: the released TranSTR reads text with DeBERTa base, which is most of its work, and a third of the tokens pad.
Positions in DeBERTa are relative, so all strings of a call are one flat list of tokens for everything but attention,
which sees them end to end in short rows, kept apart by a mask. Distances are read off by views instead of gathers,
the last layer finishes only the tokens that somebody asks for, and the norm is the fused one.

Source: He et al., "DeBERTa", ICLR 2021 (arXiv 2006.03654); Krell et al. 2021 (arXiv 2107.02027) for packing.
"""

from dataclasses import dataclass, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.deberta.modeling_deberta import (
    DebertaAttention,
    DebertaEncoder,
    DebertaLayerNorm,
    DisentangledSelfAttention,
)


@dataclass
class Layout:
    """Where flat tokens stand in attention. Shapes: F tokens, R rows of width W.

    Args:
        slots: (F,) the place of each token in the rows laid end to end.
        tokens: (R * W,) the token at each place; where there is none, any.
        apart: (R, W, W) bool, True where two places must not see each other.
        needed: (n,) the tokens that anybody reads, or None for all.
    """

    slots: Tensor
    tokens: Tensor
    apart: Tensor
    needed: Tensor | None = None


class FusedLayerNorm(DebertaLayerNorm):
    """The library's norm as one kernel."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        return F.layer_norm(hidden_states, self.weight.shape, self.weight, self.bias, self.variance_epsilon)


class FlatSelfAttention(DisentangledSelfAttention):
    """The library's attention, whose biases follow autocast as its projections do; and the same over flat tokens."""

    def transpose_for_scores(self, x: Tensor) -> Tensor:
        """(B, L, H*D) to (B, H, L, D)."""
        device = x.device.type
        x = x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x
        return super().transpose_for_scores(x)

    def attend(self, hidden: Tensor, layout: Layout, positions: Tensor) -> Tensor:
        """Attend among flat tokens (F, D), to (F, D); positions are the encoder's (2 * distances, D)."""
        heads, (rows, width, _) = self.num_attention_heads, layout.apart.shape
        zero = torch.zeros_like(self.q_bias)  # keys have no bias
        bias = torch.stack([part.view(heads, -1) for part in (self.q_bias, zero, self.v_bias)], 1)  # (H, 3, D/H)
        states = F.linear(hidden, self.in_proj.weight, bias.flatten()).unflatten(-1, (heads, 3, -1))
        q, k, v = states.permute(2, 1, 0, 3).index_select(2, layout.tokens)  # (H, R*W, D/H) each
        # Column c of these scores is a distance of width - c: from the key to its query, or the other way about.
        reach, most = min(width, self.max_relative_positions), self.max_relative_positions
        away = (width - torch.arange(2 * width + 1, device=hidden.device)).clamp(-reach, reach - 1) + most
        near = self.pos_dropout(positions[away])  # (2W + 1, D)
        to, of = self.pos_proj(near[:-1]), self.pos_q_proj(near.flip(0)[:-1])
        to, of = (x.unflatten(-1, (heads, -1)).permute(1, 2, 0) for x in (to, of))  # (H, D/H, 2W)
        scores = _by_distance(q @ to, rows) + _by_distance(k @ of, rows).transpose(-1, -2)  # (H, R, W, W)
        q, k, v = (x.view(heads * rows, width, -1) for x in (q, k, v))
        scale = (3 * q.shape[-1]) ** -0.5  # content and position, each way
        scores = torch.baddbmm(scores.flatten(0, 1), q, k.transpose(1, 2), beta=scale, alpha=scale)
        scores = scores.view(heads, rows, width, width).masked_fill(layout.apart, -torch.inf)
        shares = self.dropout(scores.float().softmax(-1)).flatten(0, 1)  # half precision would be slower here
        mixed = shares.to(v.dtype) @ v  # (H * R, W, D/H)
        return mixed.view(heads, rows * width, -1).transpose(0, 1).reshape(rows * width, -1)[layout.slots]


class FlatAttention(DebertaAttention):
    """Attention with its output projection; over flat tokens it goes on with those that are needed."""

    def forward(self, hidden_states: Tensor, attention_mask: Any, *args: Any, **options: Any) -> tuple:
        """The library's forward, or that of flat tokens (F, D) where the mask is a `Layout`."""
        if not isinstance(attention_mask, Layout):
            return super().forward(hidden_states, attention_mask, *args, **options)
        mixed = cast(FlatSelfAttention, self.self).attend(hidden_states, attention_mask, options["rel_embeddings"])
        if attention_mask.needed is not None:
            mixed, hidden_states = mixed[attention_mask.needed], hidden_states[attention_mask.needed]
        return self.output(mixed, hidden_states), None


REPLACED = {
    DebertaLayerNorm: FusedLayerNorm,
    DisentangledSelfAttention: FlatSelfAttention,
    DebertaAttention: FlatAttention,
}


def replace_modules(encoder: PreTrainedModel) -> None:
    """Give DeBERTa's norms and attentions their better forward; weights and their names stay as they are."""
    for module in encoder.modules():
        module.__class__ = REPLACED.get(type(module), type(module))


def can_flatten(encoder: PreTrainedModel, mask: Tensor) -> bool:
    """Whether strings may stand end to end: positions are relative only, and no string of mask (R, L) has a hole."""
    config, mask = encoder.config, mask.bool()
    if config.model_type != "deberta" or not config.relative_attention or config.position_biased_input:
        return False
    if set(config.pos_att_type or ()) != {"c2p", "p2c"} or getattr(config, "talking_head", False):
        return False
    return bool(((mask[:, 1:] & ~mask[:, :-1]).sum(1) + mask[:, 0] <= 1).all())


def first_fit(lengths: list[int], width: int) -> list[int]:
    """Where each string starts when strings are laid end to end into rows of a width, longest first.

    Example:
        >>> first_fit([3, 6, 2, 4], 8)  # rows: the second and the third string, then the fourth and the first
        [12, 0, 6, 8]
    """
    used: list[int] = []
    starts = [0] * len(lengths)
    for string in sorted(range(len(lengths)), key=lambda string: -lengths[string]):
        row = next((row for row, length in enumerate(used) if length + lengths[string] <= width), len(used))
        if row == len(used):
            used.append(0)
        starts[string] = row * width + used[row]
        used[row] += lengths[string]
    return starts


def encode_flat(encoder: PreTrainedModel, ids: Tensor, mask: Tensor, needed: Tensor) -> Tensor:
    """Encode strings as one flat list of tokens.

    Args:
        encoder, mask: (R, L) ones that `can_flatten`.
        ids: (R, L).
        needed: (R, L) bool, the tokens whose states are wanted.

    Returns:
        (R, L, D), zero where a token is not wanted or not there.
    """
    mask, needed = mask.bool(), needed & mask.bool()
    lengths = mask.sum(1).tolist()
    width = max(1, *lengths)
    starts = first_fit(lengths, width)
    rows = -(-max(start + length for start, length in zip(starts, lengths, strict=True)) // width) or 1
    slots = (ids.new_tensor(starts).unsqueeze(1) + mask.long().cumsum(1) - 1)[mask]  # (F,)
    number = torch.arange(1, len(ids) + 1, device=ids.device).unsqueeze(1).expand_as(ids)  # a string's own number
    tokens, string = ids.new_zeros(2, rows * width)
    tokens[slots], string[slots] = torch.arange(len(slots), device=ids.device), number[mask]
    string = string.view(rows, width)
    layout = Layout(slots, tokens, string.unsqueeze(1) != string.unsqueeze(2))
    layers = cast(DebertaEncoder, encoder.encoder)
    hidden = cast(nn.Module, encoder.embeddings)(input_ids=ids[mask].unsqueeze(0)).squeeze(0)  # (F, D)
    for depth, layer in enumerate(layers.layer, 1):
        if depth == len(layers.layer):
            layout = replace(layout, needed=needed[mask].nonzero().squeeze(1))
        hidden = layer(hidden, layout, rel_embeddings=layers.get_rel_embedding())[0]
    states = hidden.new_zeros(*ids.shape, hidden.shape[-1])  # (R, L, D)
    return states.masked_scatter(needed.unsqueeze(-1), hidden)


def _by_distance(scores: Tensor, rows: int) -> Tensor:
    """Scores (H, R*W, 2W) by distance as (H, R, W, W) by place, without a copy: each row starts a column later."""
    width = scores.shape[-1] // 2
    skewed = scores.unflatten(1, (rows, width)).flatten(-2)[..., width:]  # (H, R, W * (2W - 1))
    return skewed.unflatten(-1, (width, 2 * width - 1))[..., :width]
