"""DeBERTa without its waste: the same numbers from the same weights, with no token of padding and in any precision.

Why: the released TranSTR reads text with DeBERTa base, which is most of its work, and a third of the tokens pad.
Positions in DeBERTa are relative, so strings can stand end to end in one row, kept apart by the attention mask. Two of
its modules are changed besides: the norm is the fused one, which stores far less for the backward pass, and attention
keeps one dtype under autocast, where the library's raises (the float32 minimum does not fit into bfloat16 scores).

Source: He et al., "DeBERTa", ICLR 2021 (arXiv 2006.03654); Krell et al. 2021 (arXiv 2107.02027) for packing.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.deberta.modeling_deberta import DebertaLayerNorm, DisentangledSelfAttention


class FusedLayerNorm(DebertaLayerNorm):
    """The library's norm as one kernel."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        return F.layer_norm(hidden_states, self.weight.shape, self.weight, self.bias, self.variance_epsilon)


class AutocastSelfAttention(DisentangledSelfAttention):
    """The library's attention, whose biases follow autocast as its projections do."""

    def transpose_for_scores(self, x: Tensor) -> Tensor:
        """(B, L, H*D) to (B, H, L, D)."""
        device = x.device.type
        x = x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x
        return super().transpose_for_scores(x)


REPLACED = {DebertaLayerNorm: FusedLayerNorm, DisentangledSelfAttention: AutocastSelfAttention}


def replace_modules(encoder: PreTrainedModel) -> None:
    """Give DeBERTa's norms and attentions their better forward; weights and their names stay as they are."""
    for module in encoder.modules():
        module.__class__ = REPLACED.get(type(module), type(module))


def can_pack(encoder: PreTrainedModel, mask: Tensor) -> bool:
    """Whether strings may stand end to end: positions are relative only, and no string of mask (R, L) has a hole."""
    config, mask = encoder.config, mask.bool()
    if config.model_type not in ("deberta", "deberta-v2") or getattr(config, "conv_kernel_size", None):
        return False
    if not config.relative_attention or config.position_biased_input:
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


def pack(lengths: list[int]) -> tuple[int, int, list[int]]:
    """Rows, their width, and where each string starts: rows of about two strings, as narrow as they can be.

    Wide rows fill better and narrow ones keep attention cheap.

    Example:
        >>> pack([3, 6, 2, 4, 1])
        (2, 8, [12, 0, 6, 8, 15])
    """
    longest, tokens = max(1, *lengths), max(1, sum(lengths))
    rows = -(-tokens // (2 * longest))
    for width in range(max(longest, -(-tokens // rows)), 2 * longest + 1):
        starts = first_fit(lengths, width)
        if max(starts) < rows * width:
            return rows, width, starts
    starts = first_fit(lengths, 2 * longest)
    return max(starts) // (2 * longest) + 1, 2 * longest, starts


def encode_packed(encoder: PreTrainedModel, ids: Tensor, mask: Tensor) -> Tensor:
    """Encode strings laid end to end.

    Args:
        encoder, mask: (R, L) ones that `can_pack`.
        ids: (R, L).

    Returns:
        (R, L, D), zero at padding.
    """
    mask = mask.bool()
    rows, width, starts = pack(mask.sum(1).tolist())
    place = (ids.new_tensor(starts).unsqueeze(1) + mask.long().cumsum(1) - 1)[mask]  # (tokens,) in the packed rows
    number = torch.arange(1, len(ids) + 1, device=ids.device).unsqueeze(1).expand_as(ids)  # a string's own number
    packed, string = ids.new_zeros(2, rows * width)
    packed[place], string[place] = ids[mask], number[mask]
    packed, string = packed.view(rows, width), string.view(rows, width)
    together = (string.unsqueeze(1) == string.unsqueeze(2)) & (string > 0).unsqueeze(2)  # (rows, width, width)
    embeddings, layers = cast(nn.Module, encoder.embeddings), cast(nn.Module, encoder.encoder)
    hidden = layers(embeddings(input_ids=packed, mask=string > 0), together, output_hidden_states=False)[0]
    hidden = hidden.flatten(0, 1)
    states = hidden.new_zeros(*ids.shape, hidden.shape[-1])  # (R, L, D)
    return states.masked_scatter(mask.unsqueeze(-1), hidden[place])
