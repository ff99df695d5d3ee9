"""The text side of every method: a Hugging Face encoder built from its config, fed without waste.

Why: the published codes call the encoder once per string group and pad all strings to the longest; at NExT-QA size a third
of the tokens is padding and the encoder is 70 % of a step. Here question and candidates share one pass in length buckets.
"""

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import MODEL_MAPPING, AutoModel, PreTrainedConfig, PreTrainedModel


def build_text_encoder(config: PreTrainedConfig) -> PreTrainedModel:
    """Build an encoder from its config alone: no weights are read, nothing is downloaded, an unused pooler is left out.

    Args:
        config: any BERT-like config (BERT, RoBERTa, DeBERTa, ModernBERT, ...).

    Example:
        >>> from transformers import BertConfig
        >>> tiny = BertConfig(hidden_size=8, num_attention_heads=2, num_hidden_layers=1, intermediate_size=8)
        >>> build_text_encoder(tiny).pooler is None
        True
    """
    encoder: Any = MODEL_MAPPING[type(config)]
    signature = inspect.signature(encoder).parameters
    return AutoModel.from_config(config, **({"add_pooling_layer": False} if "add_pooling_layer" in signature else {}))


def encode_in_buckets(encoder: PreTrainedModel, groups: list[tuple[Tensor, Tensor]], buckets: int) -> list[Tensor]:
    """Encode several groups of strings in one go, short strings apart from long ones.

    Args:
        encoder: a text encoder with `last_hidden_state`.
        groups: pairs of (input_ids, attention_mask), each (rows, L) with its own L; padding stands at the right or left.
        buckets: how many length buckets all rows are sorted into; 1 pads every string to the longest.

    Returns:
        One (rows, L, D) tensor a group, zero at padding.

    Example:
        >>> from transformers import BertConfig
        >>> tiny = BertConfig(hidden_size=8, num_attention_heads=2, num_hidden_layers=1, intermediate_size=8)
        >>> ids = torch.tensor([[5, 6, 0], [7, 0, 0]])
        >>> [t.shape for t in encode_in_buckets(build_text_encoder(tiny), [(ids, (ids > 0).long())], buckets=2)]
        [torch.Size([2, 3, 8])]
    """
    if buckets <= 1:
        return [_encode(encoder, ids, mask) for ids, mask in groups]
    longest = max(ids.shape[1] for ids, _ in groups)
    ids, mask = (torch.cat([_pad(pair[part], longest) for pair in groups]) for part in (0, 1))  # (R, longest)
    columns = torch.arange(1, longest + 1, device=mask.device)
    reach = (mask.bool() * columns).amax(1)  # (R,): last valid column of each string
    order = reach.argsort()
    states: Tensor | None = None
    for rows in order.tensor_split(min(buckets, len(order))):
        width = max(1, int(reach[rows[-1]]))
        part = _encode(encoder, ids[rows, :width], mask[rows, :width])
        states = part.new_zeros(len(ids), longest, part.shape[-1]) if states is None else states
        states = states.index_put((rows,), _pad(part, longest))
    assert states is not None
    sizes = [len(pair[0]) for pair in groups]
    return [state[:, : pair[0].shape[1]] for state, pair in zip(states.split(sizes), groups, strict=True)]


def _encode(encoder: PreTrainedModel, ids: Tensor, mask: Tensor) -> Tensor:
    states = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    return states * mask.unsqueeze(-1).to(states.dtype)


def _pad(x: Tensor, length: int) -> Tensor:
    return torch.cat([x, x.new_zeros(x.shape[0], length - x.shape[1], *x.shape[2:])], dim=1)
