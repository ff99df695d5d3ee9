"""DeBERTa without padding: the same numbers from the same weights, in any precision.

Why: the released TranSTR reads text with DeBERTa base, which is most of its work, and a third of the tokens is
padding. Positions in DeBERTa are relative, so all strings of a call are one flat list of tokens for everything but
attention, which gets them end to end in short rows, separated by a mask. Scores by distance are views instead of
gathers, the last layer computes only the tokens that are needed, and the norm is the fused one.

Source: He et al., "DeBERTa", ICLR 2021 (arXiv 2006.03654); Krell et al. 2021 (arXiv 2107.02027) for packing.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DebertaConfig, DebertaModel, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.deberta.modeling_deberta import (
    DebertaAttention,
    DebertaEmbeddings,
    DebertaEncoder,
    DebertaIntermediate,
    DebertaLayer,
    DebertaLayerNorm,
    DebertaOutput,
    DebertaPreTrainedModel,
    DebertaSelfOutput,
    DisentangledSelfAttention,
)


@dataclass
class Layout:
    """Positions of flat tokens in the rows of attention. Shapes: F tokens, R rows of width W.

    Args:
        slots: (F,) the slot of each token in the rows laid end to end.
        tokens: (R * W,) the token in each slot; any token in an empty one.
        apart: (R, W, W) bool, True where two slots must not attend to each other.
        needed: (n,) the tokens whose states are read, or None for all.
    """

    slots: Tensor
    tokens: Tensor
    apart: Tensor
    needed: Tensor | None = None

    def to(self, *args: Any, **options: Any) -> "Layout":
        """Move all tensors, as accelerate does with inputs of a layer on another device."""
        tensors = {part.name: getattr(self, part.name) for part in fields(self)}
        moved = {name: tensor.to(*args, **options) for name, tensor in tensors.items() if tensor is not None}
        return replace(self, **moved)


class FusedLayerNorm(DebertaLayerNorm):
    """The library's norm as one kernel."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Normalise (..., D)."""
        return F.layer_norm(hidden_states, self.weight.shape, self.weight, self.bias, self.variance_epsilon)


class FlatSelfAttention(DisentangledSelfAttention):
    """The library's attention with biases in the type of autocast, and the same over flat tokens."""

    def transpose_for_scores(self, x: Tensor) -> Tensor:
        """Split heads, (B, L, H*D) to (B, H, L, D)."""
        return super().transpose_for_scores(_as_autocast(x))

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | Layout, *args: Any, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Attend as the library does, or among flat tokens (F, D) where the mask is a `Layout`."""
        if isinstance(attention_mask, Layout):
            return self._attend(hidden_states, attention_mask, options["rel_embeddings"]), None
        return super().forward(hidden_states, attention_mask, *args, **options)

    def _attend(self, hidden: Tensor, layout: Layout, near: Tensor) -> Tensor:
        """Attend among flat tokens (F, D), to (F, D); `near` (2W + 1, D) are the distances W to -W."""
        heads = self.num_attention_heads
        rows, width, _ = layout.apart.shape  # R, W
        states = self.in_proj(hidden).unflatten(-1, (heads, 3, -1))  # (F, H, 3, D/H)
        q, k, v = states.permute(2, 1, 0, 3).index_select(2, layout.tokens)  # (H, R*W, D/H) each
        q, v = (x + _as_autocast(bias).view(heads, 1, -1) for x, bias in ((q, self.q_bias), (v, self.v_bias)))
        # Column c of these scores is a distance of W - c: from the key to its query, or the other way about.
        near = self.pos_dropout(near)  # (2W + 1, D)
        to = self.pos_proj(near[:-1])
        of = self.pos_q_proj(near.flip(0)[:-1])
        to, of = (x.unflatten(-1, (heads, -1)).permute(1, 2, 0) for x in (to, of))  # (H, D/H, 2W)
        # Content to position and position to content; content to content joins in the product below.
        scores = _by_distance(q @ to, rows) + _by_distance(k @ of, rows).transpose(-1, -2)  # (H, R, W, W)
        q, k, v = (x.view(heads * rows, width, -1) for x in (q, k, v))  # (H * R, W, D/H)
        scale = (3 * q.shape[-1]) ** -0.5  # content and position, each way
        scores = torch.baddbmm(scores.flatten(0, 1), q, k.transpose(1, 2), beta=scale, alpha=scale)
        scores = scores.view(heads, rows, width, width).masked_fill(layout.apart, -torch.inf)
        shares = self.dropout(scores.float().softmax(-1)).flatten(0, 1)  # half precision would be slower here
        mixed = shares.to(v.dtype) @ v  # (H * R, W, D/H)
        return mixed.view(heads, rows * width, -1).transpose(0, 1).reshape(rows * width, -1)[layout.slots]


class FlatAttention(DebertaAttention):
    """Attention with its output projection, which for flat tokens is computed for the needed ones only."""

    def __init__(self, config: DebertaConfig):
        nn.Module.__init__(self)  # not the library's, which would build what is replaced here
        self.config = config
        self.self = FlatSelfAttention(config)
        self.output = DebertaSelfOutput(config)
        self.output.LayerNorm = FusedLayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | Layout, *args: Any, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Attend as the library does, or among flat tokens (F, D) where the mask is a `Layout`."""
        if not isinstance(attention_mask, Layout):
            return super().forward(hidden_states, attention_mask, *args, **options)
        mixed, _ = self.self(hidden_states, attention_mask, *args, **options)  # (F, D)
        needed = attention_mask.needed
        if needed is not None:  # output projection and feed-forward run on these alone
            mixed, hidden_states = mixed[needed], hidden_states[needed]
        return self.output(mixed, hidden_states), None


class FlatLayer(DebertaLayer):
    """The library's layer around `FlatAttention`."""

    def __init__(self, config: DebertaConfig):
        nn.Module.__init__(self)
        self.attention = FlatAttention(config)
        self.intermediate = DebertaIntermediate(config)
        self.output = DebertaOutput(config)
        self.output.LayerNorm = FusedLayerNorm(config.hidden_size, config.layer_norm_eps)


class FlatEncoder(DebertaEncoder):
    """The library's layers; distances are looked up by a call of their embedding, so that hooks of it run."""

    def __init__(self, config: DebertaConfig):
        nn.Module.__init__(self)
        self.layer = nn.ModuleList(FlatLayer(config) for _ in range(config.num_hidden_layers))
        self.relative_attention = config.relative_attention
        if self.relative_attention:
            most = config.max_relative_positions
            self.max_relative_positions = config.max_position_embeddings if most < 1 else most
            self.rel_embeddings = nn.Embedding(self.max_relative_positions * 2, config.hidden_size)
        self.gradient_checkpointing = False

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | Layout,
        output_hidden_states: bool = True,
        output_attentions: bool = False,
        query_states: Tensor | None = None,
        relative_pos: Tensor | None = None,
        return_dict: bool = True,
    ) -> tuple | BaseModelOutput:
        """Encode padded states (B, L, D) with a mask (B, L), or flat tokens (F, D) with a `Layout`."""
        distances = None
        if isinstance(attention_mask, Layout):
            # A row of width W has distances W - 1 to 1 - W; those beyond the table take its ends, as in the library.
            width = attention_mask.apart.shape[1]
            most = self.max_relative_positions
            reach = min(width, most)
            away = width - torch.arange(2 * width + 1, device=hidden_states.device)
            distances = self.rel_embeddings(away.clamp(-reach, reach - 1) + most)  # (2W + 1, D)
        else:
            attention_mask = self.get_attention_mask(attention_mask)
            relative_pos = self.get_rel_pos(hidden_states, query_states, relative_pos)
            if self.relative_attention:
                every = torch.arange(2 * self.max_relative_positions, device=hidden_states.device)
                distances = self.rel_embeddings(every)
        needed = getattr(attention_mask, "needed", None)
        states: list[Tensor] = [hidden_states]
        maps: list[Tensor | None] = []
        for depth, layer in enumerate(self.layer, 1):
            if needed is not None and isinstance(attention_mask, Layout):  # only the last layer omits tokens
                attention_mask = replace(attention_mask, needed=needed if depth == len(self.layer) else None)
            # Distances have a gradient and are positional: a re-entrant checkpoint follows those arguments alone.
            rest = query_states, relative_pos, distances, output_attentions
            hidden_states, attention = layer(hidden_states, attention_mask, *rest)
            states.append(hidden_states)
            maps.append(attention)
        result = BaseModelOutput(
            last_hidden_state=cast(Any, hidden_states),
            hidden_states=cast(Any, tuple(states) if output_hidden_states else None),
            attentions=cast(Any, tuple(maps) if output_attentions else None),
        )
        return result if return_dict else result.to_tuple()


class FlatDeberta(DebertaModel):
    """DeBERTa with the library's weights and names that also reads strings laid end to end.

    Example:
        >>> positions = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False}
        >>> sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 8}
        >>> encoder = FlatDeberta(DebertaConfig(vocab_size=9, **sizes, **positions)).eval()
        >>> ids, mask = torch.tensor([[5, 6, 7], [8, 0, 0]]), torch.tensor([[1, 1, 1], [1, 0, 0]])
        >>> flat = encoder(ids, mask, needed=mask.bool()).last_hidden_state
        >>> torch.allclose(flat[0], encoder(ids, mask).last_hidden_state[0], atol=1e-5)
        True
    """

    _no_split_modules = ["DebertaEmbeddings", "FlatLayer"]

    def __init__(self, config: DebertaConfig):
        DebertaPreTrainedModel.__init__(self, config)
        self.embeddings = DebertaEmbeddings(config)
        self.embeddings.LayerNorm = FusedLayerNorm(config.hidden_size, config.layer_norm_eps)
        self.encoder = FlatEncoder(config)
        self.z_steps = 0
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *args: Any,
        needed: Tensor | None = None,
        **options: Any,
    ) -> tuple | BaseModelOutput:
        """Encode as the library does; with `needed`, strings that `can_flatten` are read without their padding.

        Args:
            input_ids, attention_mask: (R, L).
            needed: (R, L) bool, the tokens whose states are read.

        Returns:
            States (R, L, D); with `needed`, zero at padding and where a token is not needed.
        """
        if needed is None:
            return super().forward(input_ids, attention_mask, *args, **options)
        ids = cast(Tensor, input_ids)
        mask = cast(Tensor, attention_mask).bool()
        needed = needed & mask
        layout = lay_out(mask)
        layout.needed = needed[mask].nonzero().squeeze(1)
        hidden = self.embeddings(input_ids=ids[mask].unsqueeze(0)).squeeze(0)  # (F, D)
        hidden = self.encoder(hidden, layout, output_hidden_states=False).last_hidden_state
        states = hidden.new_zeros(*ids.shape, hidden.shape[-1])  # (R, L, D)
        return BaseModelOutput(last_hidden_state=cast(Any, states.masked_scatter(needed.unsqueeze(-1), hidden)))


def can_flatten(encoder: PreTrainedModel, mask: Tensor) -> bool:
    """Tell whether strings can be laid end to end: relative positions only, and no gap in any row of mask (R, L)."""
    config = encoder.config
    mask = mask.bool()
    if not isinstance(encoder, FlatDeberta) or not config.relative_attention or config.position_biased_input:
        return False
    if set(config.pos_att_type or ()) != {"c2p", "p2c"} or getattr(config, "talking_head", False):
        return False
    return bool(((mask[:, 1:] & ~mask[:, :-1]).sum(1) + mask[:, 0] <= 1).all())


def first_fit(lengths: list[int], width: int) -> list[int]:
    """Compute the start of each string when strings are laid end to end into rows of a width, longest first.

    Example:
        >>> first_fit([3, 6, 2, 4], 8)  # rows: the second and the third string, then the fourth and the first
        [12, 0, 6, 8]
    """
    used: list[int] = []  # width taken of each row
    starts = [0] * len(lengths)
    for string in sorted(range(len(lengths)), key=lambda string: -lengths[string]):
        row = next((row for row, length in enumerate(used) if length + lengths[string] <= width), len(used))
        if row == len(used):
            used.append(0)
        starts[string] = row * width + used[row]
        used[row] += lengths[string]
    return starts


def lay_out(mask: Tensor) -> Layout:
    """Lay the strings of a mask (R, L) bool end to end into rows as wide as the longest of them."""
    lengths = mask.sum(1).tolist()
    width = max(1, *lengths)
    starts = first_fit(lengths, width)
    rows = -(-max(start + length for start, length in zip(starts, lengths, strict=True)) // width) or 1
    columns = mask.long().cumsum(1)  # (R, L) place of each token in its string, from 1
    slots = (columns.new_tensor(starts).unsqueeze(1) + columns - 1)[mask]  # (F,)
    number = torch.arange(1, len(mask) + 1, device=mask.device).unsqueeze(1).expand_as(mask)  # of each string
    tokens, string = columns.new_zeros(2, rows * width)  # of each slot; string 0 is an empty slot
    tokens[slots] = torch.arange(len(slots), device=mask.device)
    string[slots] = number[mask]
    string = string.view(rows, width)
    return Layout(slots, tokens, string.unsqueeze(1) != string.unsqueeze(2))


def _as_autocast(x: Tensor) -> Tensor:
    """Cast a parameter to the type that autocast gives the products it is added to."""
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x


def _by_distance(scores: Tensor, rows: int) -> Tensor:
    """View scores (H, R*W, 2W) by distance as (H, R, W, W) by slot: each row starts one column later."""
    width = scores.shape[-1] // 2
    skewed = scores.unflatten(1, (rows, width)).flatten(-2)[..., width:]  # (H, R, W * (2W - 1))
    return skewed.unflatten(-1, (width, 2 * width - 1))[..., :width]
