"""Laws of the text side: any encoder from its config alone, and buckets that change the work but not the result."""

from itertools import combinations

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel

from hf_causal_video.backbones.deberta import can_flatten, first_fit
from hf_causal_video.backbones.text import FirstTokens, bucket_widths, build_text_encoder, encode_in_buckets

pytestmark = pytest.mark.rounding

SHAPE = {
    "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 40, "pad_token_id": 0,
}  # fmt: skip
RELATIVE = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False}
KINDS: dict[str, dict] = {
    "bert": {},
    "roberta": {"pad_token_id": 1},
    "deberta": {**RELATIVE, "type_vocab_size": 0},
    "deberta+absolute": {},
    "deberta-v2": {**RELATIVE, "position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True},
    "deberta-v2+convolution": {**RELATIVE, "conv_kernel_size": 3, "conv_act": "gelu"},
    "modernbert": {"global_attn_every_n_layers": 2, "local_attention": 8, "reference_compile": False},
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24},
    "electra": {"embedding_size": 16},
}


def text_config(kind: str):
    return AutoConfig.for_model(kind.split("+")[0], **(SHAPE | KINDS[kind]))


def strings(lengths: list[int], width: int, pad: int, left: bool = False) -> tuple[Tensor, Tensor]:
    mask = torch.arange(width)[None] < torch.tensor(lengths)[:, None]
    mask = mask.flip(1) if left else mask
    return torch.randint(5, 40, mask.shape).masked_fill(~mask, pad), mask.long()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_encoder_is_built_without_pooler_or_download(kind: str, no_network: None) -> None:
    encoder = build_text_encoder(text_config(kind))
    assert not [name for name, _ in encoder.named_parameters() if "pooler" in name]


@pytest.mark.parametrize("kind", KINDS)
def test_training_in_bfloat16_autocast_works(kind: str) -> None:
    encoder, (ids, mask) = build_text_encoder(text_config(kind)).train(), strings([3, 9, 1], 9, 0)
    for buckets in (1, 3):
        with torch.autocast("cpu", torch.bfloat16):
            states = encode_in_buckets(encoder, [(ids, mask)], buckets)[0]
        states.square().sum().backward()
        assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in encoder.parameters())


@pytest.mark.parametrize("kind", ["deberta", "deberta+absolute"])
def test_deberta_computes_what_the_library_does(kind: str) -> None:
    library, ours = AutoModel.from_config(text_config(kind)).eval(), build_text_encoder(text_config(kind)).eval()
    ours.load_state_dict(library.state_dict())
    (ids, mask), upstream = strings([3, 9, 1, 5], 9, 0), torch.randn(4, 9, 16)
    for encoder in (ours, library):
        (encoder(ids, mask).last_hidden_state * upstream).sum().backward()
    torch.testing.assert_close(ours(ids, mask).last_hidden_state, library(ids, mask).last_hidden_state)
    for (name, one), other in zip(ours.named_parameters(), library.parameters(), strict=True):
        if other.grad is not None:
            peak = float(other.grad.abs().max())
            torch.testing.assert_close(one.grad, other.grad, atol=1e-4 * peak, rtol=0, msg=name)


@pytest.mark.parametrize(
    "fields",
    [
        {"num_attention_heads": 1, "num_hidden_layers": 1},
        {"num_attention_heads": 8, "num_hidden_layers": 3, "hidden_act": "relu"},
        {"type_vocab_size": 2, "max_relative_positions": 3},
        {"embedding_size": 6, "intermediate_size": 1},
        {"max_relative_positions": 100, "layer_norm_eps": 1e-3},
    ],
    ids=lambda fields: "-".join(fields),
)
def test_flat_deberta_of_other_sizes(fields: dict) -> None:
    config = AutoConfig.for_model("deberta", **(SHAPE | KINDS["deberta"] | fields))
    library, ours = AutoModel.from_config(config).eval(), build_text_encoder(config).eval()
    ours.load_state_dict(library.state_dict())
    ids, mask = strings([3, 17, 1, 0, 8], 17, 0)
    with torch.no_grad():
        wanted = library(ids, mask).last_hidden_state * mask.unsqueeze(-1)
        padded = ours(ids, mask).last_hidden_state * mask.unsqueeze(-1)
        flat = ours(ids, mask, needed=mask.bool()).last_hidden_state
    for states in (padded, flat):
        torch.testing.assert_close(states, wanted, atol=2e-5, rtol=1e-4)


def test_only_relative_positions_without_holes_are_laid_end_to_end() -> None:
    _, mask = strings([3, 9, 1], 9, 0)
    flat = {kind for kind in KINDS if can_flatten(build_text_encoder(text_config(kind)), mask)}
    assert flat == {"deberta"}
    one_way = AutoConfig.for_model("deberta", **(SHAPE | KINDS["deberta"] | {"pos_att_type": ["c2p"]}))
    assert not can_flatten(build_text_encoder(one_way), mask)
    mask[1, 4] = 0
    assert not can_flatten(build_text_encoder(text_config("deberta")), mask)


def test_first_fit_overlaps_nothing_and_breaks_no_string() -> None:
    lengths, width = torch.randint(0, 14, (50,)).tolist(), 20
    starts = first_fit(lengths, width)
    taken = [range(start, start + length) for start, length in zip(starts, lengths, strict=True)]
    tokens = [token for span in taken for token in span]
    assert len(tokens) == len(set(tokens)) == sum(lengths)
    assert all(span.start // width == (span.stop - 1) // width for span in taken if span)
    assert max(tokens) // width + 1 <= -(-sum(lengths) // width) + 1


def test_no_token_of_padding_goes_through_a_layer() -> None:
    encoder, seen = build_text_encoder(text_config("deberta")).eval(), []
    for layer in encoder.encoder.layer:
        layer.intermediate.register_forward_hook(lambda module, args, out: seen.append(len(out)))
    question, choices = strings([5, 3], 7, 0), strings([9, 4, 6, 1], 9, 0)
    with torch.no_grad():
        encode_in_buckets(encoder, [question, FirstTokens(*choices)], 2)
    assert seen == [28, 8 + 4]  # the last layer: questions whole, and one token a choice


@pytest.mark.parametrize("buckets", [1, 3])
@pytest.mark.parametrize("kind", ["bert", "deberta"])
def test_first_tokens_are_those_of_whole_strings(kind: str, buckets: int) -> None:
    encoder = build_text_encoder(text_config(kind)).eval()
    question, choices = strings([5, 3], 7, 0), strings([9, 4, 6, 1], 9, 0)
    found = []
    for group in (choices, FirstTokens(*choices)):
        encoder.zero_grad()
        whole, first = encode_in_buckets(encoder, [question, group], buckets)
        (whole.square().sum() + first[:, 0].square().sum()).backward()
        gradients = [parameter.grad for parameter in encoder.parameters() if parameter.grad is not None]
        found.append([whole, first[:, :1], *gradients])
    assert found[1][1].shape == (4, 1, 16) and len(found[0]) == len(found[1])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("longest", [1, 7, 30])
def test_flat_deberta_knows_distances_beyond_its_table(longest: int) -> None:
    config = AutoConfig.for_model("deberta", **(SHAPE | KINDS["deberta"] | {"max_relative_positions": 4}))
    encoder = build_text_encoder(config).eval()
    ids, mask = strings([longest, 1, longest // 2 + 1], longest, 0)
    with torch.no_grad():
        wanted = encoder(ids, mask).last_hidden_state * mask.unsqueeze(-1)
        flat = encoder(ids, mask, needed=mask.bool()).last_hidden_state
        torch.testing.assert_close(flat, wanted, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["bert", "deberta", "deberta-v2"])
def test_gradient_checkpointing_survives_buckets(kind: str) -> None:
    encoder, group = build_text_encoder(text_config(kind)).eval(), strings([3, 9, 1, 5], 9, 0)
    found = []
    for checkpointing in (False, True):
        if checkpointing:
            encoder.gradient_checkpointing_enable()
            encoder.train()  # no dropout below, so only the checkpoints differ
            for module in encoder.modules():
                module.p = 0.0 if isinstance(module, torch.nn.Dropout) else getattr(module, "p", None)
        encoder.zero_grad()
        encode_in_buckets(encoder, [group], 3)[0].square().sum().backward()
        found.append([parameter.grad.clone() for parameter in encoder.parameters() if parameter.grad is not None])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


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


@pytest.mark.parametrize("kind", ["bert", "deberta"])
def test_left_padding_is_kept_where_it_is(kind: str) -> None:
    encoder = build_text_encoder(text_config(kind)).eval()
    group = strings([3, 9, 1], 9, 0, left=True)
    with torch.no_grad():
        (once,), (split,) = encode_in_buckets(encoder, [group], 1), encode_in_buckets(encoder, [group], 3)
    torch.testing.assert_close(once, split, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["bert", "deberta"])
def test_gradients_flow_through_buckets(kind: str) -> None:
    encoder, group = build_text_encoder(text_config(kind)).eval(), strings([3, 9, 1, 5], 9, 0)

    def gradient(buckets: int) -> Tensor:
        encoder.zero_grad()
        encode_in_buckets(encoder, [group], buckets)[0].square().sum().backward()
        return encoder.embeddings.word_embeddings.weight.grad.clone()

    torch.testing.assert_close(gradient(1), gradient(3), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["bert", "deberta"])
def test_a_string_without_tokens_gives_zeros(kind: str) -> None:
    encoder = build_text_encoder(text_config(kind)).eval()
    (states,) = encode_in_buckets(encoder, [strings([0, 4, 0], 6, 0)], 2)
    assert states.isfinite().all() and not states[[0, 2]].any()


@pytest.mark.parametrize("buckets", [1, 2, 3, 4, 20])
def test_buckets_are_cut_where_they_pad_the_least(buckets: int) -> None:
    lengths = torch.randint(3, 12, (40,)).tolist()
    distinct = sorted(set(lengths))

    def tokens(widths: list[int]) -> int:
        return sum(min(width for width in widths if width >= length) for length in lengths)

    found = bucket_widths(lengths, buckets)
    assert found == sorted(found) and found[-1] == max(lengths) and len(found) <= buckets
    number = min(buckets, len(distinct))
    best = min(tokens([*cuts, max(lengths)]) for cuts in combinations(distinct[:-1], number - 1))
    assert tokens(found) == best
