"""Laws of the text side: any encoder from its config alone, and buckets that change the work but not the result."""

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig

from hf_causal_video.backbones.text import build_text_encoder, encode_in_buckets

SHAPE = {
    "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 40, "pad_token_id": 0,
}  # fmt: skip
KINDS = {
    "bert": {},
    "roberta": {"pad_token_id": 1},
    "deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 8},
    "modernbert": {"global_attn_every_n_layers": 2, "local_attention": 8, "reference_compile": False},
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24},
    "electra": {"embedding_size": 16},
}


def text_config(kind: str):
    return AutoConfig.for_model(kind, **(SHAPE | KINDS[kind]))


def strings(lengths: list[int], width: int, pad: int, left: bool = False) -> tuple[Tensor, Tensor]:
    mask = torch.arange(width)[None] < torch.tensor(lengths)[:, None]
    mask = mask.flip(1) if left else mask
    return torch.randint(5, 40, mask.shape).masked_fill(~mask, pad), mask.long()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_encoder_is_built_without_pooler_or_download(kind: str, no_network: None) -> None:
    encoder = build_text_encoder(text_config(kind))
    assert not [name for name, _ in encoder.named_parameters() if "pooler" in name]


@pytest.mark.parametrize("buckets", [2, 3, 50])
@pytest.mark.parametrize("kind", KINDS)
def test_buckets_change_no_state(kind: str, buckets: int) -> None:
    encoder, pad = build_text_encoder(text_config(kind)).eval(), text_config(kind).pad_token_id
    groups = [strings([3, 9, 1], 9, pad), strings([12, 4, 7, 2, 30], 30, pad)]
    with torch.no_grad():
        bucketed = encode_in_buckets(encoder, groups, buckets)
        for (ids, mask), once, split in zip(groups, encode_in_buckets(encoder, groups, 1), bucketed, strict=True):
            raw = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
            for states in (once, split):
                assert states.shape == raw.shape
                torch.testing.assert_close(states[mask.bool()], raw[mask.bool()], atol=2e-5, rtol=1e-4)
                assert not states[~mask.bool()].any()  # zero at padding


def test_left_padding_is_kept_where_it_is() -> None:
    encoder = build_text_encoder(text_config("bert")).eval()
    group = strings([3, 9, 1], 9, 0, left=True)
    with torch.no_grad():
        (once,), (split,) = encode_in_buckets(encoder, [group], 1), encode_in_buckets(encoder, [group], 3)
    torch.testing.assert_close(once, split, atol=2e-5, rtol=1e-4)


def test_gradients_flow_through_buckets() -> None:
    encoder, group = build_text_encoder(text_config("bert")).eval(), strings([3, 9, 1, 5], 9, 0)

    def gradient(buckets: int) -> Tensor:
        encoder.zero_grad()
        encode_in_buckets(encoder, [group], buckets)[0].square().sum().backward()
        return encoder.embeddings.word_embeddings.weight.grad.clone()

    torch.testing.assert_close(gradient(1), gradient(3), atol=1e-4, rtol=1e-4)


def test_a_string_without_tokens_gives_zeros() -> None:
    encoder = build_text_encoder(text_config("bert")).eval()
    (states,) = encode_in_buckets(encoder, [strings([0, 4, 0], 6, 0)], 2)
    assert states.isfinite().all() and not states[[0, 2]].any()
