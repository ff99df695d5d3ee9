"""How long a string a text encoder can read."""

from torch import Tensor, nn

from hf_causal_video.utils.errors import require


def most_tokens(encoder: nn.Module | None) -> int | None:
    """Positions of a text encoder, None where they are relative and any length can be read.

    RoBERTa and its relatives count positions from the padding index on, so that as many are lost.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> tiny = BertConfig(hidden_size=8, num_attention_heads=2, num_hidden_layers=1, intermediate_size=8)
        >>> most_tokens(BertModel(tiny))
        512
    """
    for name, module in [] if encoder is None else encoder.named_modules():
        if name.rpartition(".")[2] == "position_embeddings" and isinstance(module, nn.Embedding):
            first = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - first
    return None


def check_text_length(encoder: nn.Module | None, *ids: Tensor) -> None:
    """Refuse strings (rows, L) that are longer than the encoder's positions, before torch does so on a device."""
    most = most_tokens(encoder)
    longest = max((part.shape[-1] for part in ids), default=0)
    expected = f"at most {most}, the positions of the text encoder"
    fix = f"shorten it, or let the processor cut it: truncation=True, max_length={most}"
    require(most is None or longest <= most, "text", found=f"{longest} tokens", expected=expected, fix=fix)
