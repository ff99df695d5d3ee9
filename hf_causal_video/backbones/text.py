"""Text encoding: a Hugging Face encoder built from its config, and batches with little padding.

Why: the published codes call the encoder once per string group and pad all strings to the longest; at NExT-QA size a
third of the tokens is padding and the encoder is 70 % of a step. Here question and candidates share one pass in length
buckets, chosen for the least padding; DeBERTa reads all strings end to end.
"""

import inspect
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor
from transformers import MODEL_MAPPING, AutoModel, DebertaConfig, PreTrainedConfig, PreTrainedModel

from hf_causal_video.backbones.deberta import FlatDeberta, can_flatten


class FirstTokens(NamedTuple):
    """A group of strings of which only the first column is needed; DeBERTa's last layer computes no other."""

    ids: Tensor
    mask: Tensor


def build_text_encoder(config: PreTrainedConfig) -> PreTrainedModel:
    """Build an encoder from its config alone, without a pooler; nothing is read or downloaded.

    Args:
        config: any BERT-like config (BERT, RoBERTa, DeBERTa, ModernBERT, ...).

    Example:
        >>> from transformers import BertConfig
        >>> tiny = BertConfig(hidden_size=8, num_attention_heads=2, num_hidden_layers=1, intermediate_size=8)
        >>> build_text_encoder(tiny).pooler is None
        True
    """
    signature = inspect.signature(cast(type, MODEL_MAPPING[type(config)])).parameters
    options = {"add_pooling_layer": False} if "add_pooling_layer" in signature else {}
    if type(config) is DebertaConfig:
        return FlatDeberta._from_config(config)
    return AutoModel.from_config(config, **options)


def bucket_widths(lengths: list[int], buckets: int) -> list[int]:
    """Choose the widths of at most `buckets` buckets that pad strings of these lengths the least, ascending.

    Example:
        >>> bucket_widths([3, 3, 4, 9, 9, 10], 2)
        [4, 10]
    """
    distinct = sorted(set(lengths))
    below = [0]  # strings shorter than each distinct length, and all of them
    for length in distinct:
        below.append(below[-1] + lengths.count(length))
    plans: list[tuple[float, list[int]]] = [(0, [])] + [(float("inf"), [])] * len(distinct)  # tokens, widths
    for _ in range(min(buckets, len(distinct))):  # one more bucket, which ends at the i-th distinct length
        plans = plans[:1] + [
            min(
                (plans[j][0] + (below[i] - below[j]) * distinct[i - 1], [*plans[j][1], distinct[i - 1]])
                for j in range(i)
            )
            for i in range(1, len(plans))
        ]
    return plans[-1][1]


def encode_in_buckets(encoder: PreTrainedModel, groups: list[tuple[Tensor, Tensor]], buckets: int) -> list[Tensor]:
    """Encode several groups of strings in one pass, short strings apart from long ones.

    Args:
        encoder: a text encoder with `last_hidden_state`.
        groups: pairs of (input_ids, attention_mask), each (rows, L) with its own L, padded at the right or left.
        buckets: how many length buckets all rows are sorted into; 1 pads every string to the longest of its group.
            Where it is more and the encoder `can_flatten`, strings stand end to end instead.

    Returns:
        One (rows, L, D) tensor per group, zero at padding; (rows, 1, D) for `FirstTokens`.

    Example:
        >>> from transformers import BertConfig
        >>> tiny = BertConfig(hidden_size=8, num_attention_heads=2, num_hidden_layers=1, intermediate_size=8)
        >>> ids = torch.tensor([[5, 6, 0], [7, 0, 0]])
        >>> [t.shape for t in encode_in_buckets(build_text_encoder(tiny), [(ids, (ids > 0).long())], buckets=2)]
        [torch.Size([2, 3, 8])]
    """
    if buckets <= 1:
        return _needed_columns([_encode(encoder, ids, mask) for ids, mask in groups], groups)
    longest = max(ids.shape[1] for ids, _ in groups)  # columns of the widest group
    ids, mask = (torch.cat([_pad(pair[part], longest) for pair in groups]) for part in (0, 1))  # (R, longest)
    columns = torch.arange(1, longest + 1, device=mask.device)
    if can_flatten(encoder, mask):
        last = mask.new_tensor([_width(group) for group in groups for _ in group[0]])
        flat = encoder(input_ids=ids, attention_mask=mask, needed=columns <= last.unsqueeze(1))
        return _split(flat.last_hidden_state, groups)
    reach = (mask.bool() * columns).amax(1).clamp(min=1)  # (R,): last valid column of each string
    widths = bucket_widths(reach.tolist(), buckets)  # ascending
    bucket = torch.bucketize(reach, reach.new_tensor(widths))  # (R,)
    members = [(bucket == number).nonzero().squeeze(1) for number in range(len(widths))]  # rows of each bucket
    parts = [
        _pad(_encode(encoder, ids[rows, :width], mask[rows, :width]), longest)
        for rows, width in zip(members, widths, strict=True)
    ]
    states = torch.cat(parts).index_select(
        0, torch.cat(members).argsort()
    )  # (R, longest, D), in the order of the input
    return _split(states, groups)


def _split(states: Tensor, groups: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
    return _needed_columns(states.split([len(ids) for ids, _ in groups]), groups)


def _needed_columns(states: Sequence[Tensor], groups: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
    return [part[:, : _width(group)] for part, group in zip(states, groups, strict=True)]


def _width(group: tuple[Tensor, Tensor]) -> int:
    return 1 if isinstance(group, FirstTokens) else group[0].shape[1]


def _encode(encoder: PreTrainedModel, ids: Tensor, mask: Tensor) -> Tensor:
    states = encoder(input_ids=ids, attention_mask=mask, return_dict=True).last_hidden_state
    return states * mask.unsqueeze(-1).to(states.dtype)


def _pad(x: Tensor, length: int) -> Tensor:
    return torch.cat([x, x.new_zeros(x.shape[0], length - x.shape[1], *x.shape[2:])], dim=1)
