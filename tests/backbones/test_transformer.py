"""Laws of the transformer layers: they are the textbook layers, with a map handed out on request."""

import pytest
import torch
from torch import Tensor, nn

from hf_causal_video.backbones.transformer import (
    MultiHeadAttention,
    TransformerLayer,
    TransformerStack,
    sine_positions,
)


def copy_attention(ours: MultiHeadAttention, theirs: nn.MultiheadAttention) -> None:
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.q_lin.weight, ours.k_lin.weight, ours.v_lin.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.q_lin.bias, ours.k_lin.bias, ours.v_lin.bias]))
    theirs.out_proj.load_state_dict(ours.out_lin.state_dict())


def masks() -> tuple[Tensor, Tensor]:
    """Which of 5 queries and of 7 memory entries are there, for 3 rows."""
    return torch.tensor([[1] * 5, [1] * 3 + [0] * 2, [1] + [0] * 4]).bool(), torch.tensor(
        [[1] * 7, [1] * 4 + [0] * 3, [0] * 2 + [1] * 5]
    ).bool()


@pytest.mark.parametrize(("dim", "heads", "feedforward"), [(16, 4, 32), (8, 1, 8), (12, 6, 5), (6, 2, 1)])
@pytest.mark.parametrize("cross", [False, True])
def test_a_layer_is_the_textbook_layer(cross: bool, dim: int, heads: int, feedforward: int) -> None:
    ours = TransformerLayer(dim, heads, feedforward, 0.0, cross).eval()
    shape = {"d_model": dim, "nhead": heads, "dim_feedforward": feedforward, "dropout": 0.0, "batch_first": True}
    theirs = (nn.TransformerDecoderLayer(**shape) if cross else nn.TransformerEncoderLayer(**shape)).eval()
    copy_attention(ours.self_attn, theirs.self_attn)
    if cross:
        copy_attention(ours.multihead_attn, theirs.multihead_attn)
    for name in ("linear1", "linear2", "norm1", "norm2") + (("norm3",) if cross else ()):
        getattr(theirs, name).load_state_dict(getattr(ours, name).state_dict())
    x, memory, (mask, memory_mask) = torch.randn(3, 5, dim), torch.randn(3, 7, dim), masks()
    if cross:
        wanted = theirs(x, memory, tgt_key_padding_mask=~mask, memory_key_padding_mask=~memory_mask)
        got = ours(x, None, mask, memory, memory_mask)[0]
    else:
        wanted, got = theirs(x, src_key_padding_mask=~mask), ours(x, None, mask)[0]
    torch.testing.assert_close(got[mask], wanted[mask], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("layers", "heads", "queries", "entries"), [(1, 2, 1, 1), (3, 1, 4, 1), (4, 4, 1, 6)])
@pytest.mark.parametrize("weights", ["prob", "energy"])
def test_a_stack_is_its_layers_and_its_map_a_loop_over_heads(
    layers: int, heads: int, queries: int, entries: int, weights: str
) -> None:
    stack = TransformerStack(layers, 8, heads, 12, 0.0, cross=True).double().eval()
    x, memory, pos = (torch.randn(2, count, 8).double() for count in (queries, entries, queries))
    got, ranking = stack(x, pos, None, memory, None, weights)
    for layer in stack.layers:
        half = layer(x, pos, part="self")[0]
        x = layer(x, pos, memory=memory)[0]
    torch.testing.assert_close(got, stack.norm(x))
    last, size = stack.layers[-1].multihead_attn, 8 // heads
    q, k = last.q_lin(half + pos), last.k_lin(memory)
    energies = torch.zeros(2, heads, queries, entries).double()
    for row in range(2):
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            energies[row, head] = q[row, :, part] @ k[row, :, part].T / size**0.5
    expected = energies if weights == "energy" else energies.softmax(-1)
    torch.testing.assert_close(ranking, expected.mean(1))


@pytest.mark.parametrize("weights", ["prob", "dropped", "energy"])
def test_asking_for_the_map_changes_no_output(weights: str) -> None:
    attention, (_, memory_mask) = MultiHeadAttention(16, 4, 0.1).eval(), masks()
    x, memory = torch.randn(3, 5, 16), torch.randn(3, 7, 16)
    plain, nothing = attention(x, memory, memory, memory_mask)
    asked, ranking = attention(x, memory, memory, memory_mask, weights)
    assert nothing is None and ranking.shape == (3, 5, 7)
    torch.testing.assert_close(asked, plain, atol=1e-5, rtol=1e-5)


def test_the_map_is_a_distribution_over_what_is_there() -> None:
    attention, (_, memory_mask) = MultiHeadAttention(16, 4, 0.5).train(), masks()
    x, memory = torch.randn(3, 5, 16), torch.randn(3, 7, 16)
    prob = attention(x, memory, memory, memory_mask, "prob")[1]
    torch.testing.assert_close(prob.sum(-1), torch.ones(3, 5))
    assert not prob.transpose(1, 2)[~memory_mask].any()
    dropped = attention(x, memory, memory, memory_mask, "dropped")[1]
    assert not torch.allclose(dropped.sum(-1), torch.ones(3, 5))  # the published ranking saw dropout


def test_what_is_masked_has_no_influence() -> None:
    stack, (mask, memory_mask) = TransformerStack(2, 16, 4, 32, 0.1, cross=True).eval(), masks()
    x, memory, pos = torch.randn(3, 5, 16), torch.randn(3, 7, 16), sine_positions(mask, 16)
    other_x, other_memory = x.masked_fill(~mask[..., None], 9.0), memory.masked_fill(~memory_mask[..., None], -9.0)
    once = stack(x, pos, mask, memory, memory_mask)[0]
    again = stack(other_x, pos, mask, other_memory, memory_mask)[0]
    torch.testing.assert_close(once[mask], again[mask])


def test_the_question_free_half_can_be_run_ahead() -> None:
    stack, (mask, memory_mask) = TransformerStack(2, 16, 4, 32, 0.1, cross=True).eval(), masks()
    x, memory, pos = torch.randn(3, 5, 16), torch.randn(3, 7, 16), sine_positions(mask, 16)
    whole = stack(x, pos, mask, memory, memory_mask, "prob")
    half = stack.attend_self(x, pos, mask)
    split = stack(half, pos, mask, memory, memory_mask, "prob", self_attended=True)
    for one, other in zip(whole, split, strict=True):
        torch.testing.assert_close(one, other)


def test_the_map_comes_from_the_last_layer() -> None:
    stack = TransformerStack(2, 16, 4, 32, 0.0, cross=True).eval()
    x, memory = torch.randn(3, 5, 16), torch.randn(3, 7, 16)
    after_first = stack.layers[0](x, memory=memory)[0]
    wanted = stack.layers[1](after_first, memory=memory, weights="prob")[1]
    torch.testing.assert_close(stack(x, memory=memory, weights="prob")[1], wanted)


def test_positions_count_what_is_there_and_span_one_turn() -> None:
    mask = torch.tensor([[True, True, True, False], [False, True, True, True]])
    pos = sine_positions(mask, 6)
    torch.testing.assert_close(pos[0, :3], pos[1, 1:])  # padding, left or right, moves nothing
    torch.testing.assert_close(pos[0, 2, :2], torch.tensor([0.0, 1.0]), atol=1e-4, rtol=0)  # the last one is at 2 pi
    assert sine_positions(torch.ones(1, 1024).bool(), 64).isfinite().all()


@pytest.mark.parametrize("weights", [None, "prob"])
def test_bfloat16_stays_bfloat16(weights: str | None) -> None:
    stack, (mask, memory_mask) = TransformerStack(1, 16, 4, 32, 0.1, cross=True).bfloat16().eval(), masks()
    x, memory = torch.randn(3, 5, 16).bfloat16(), torch.randn(3, 7, 16).bfloat16()
    y, ranking = stack(x, None, mask, memory, memory_mask, weights)
    assert y.dtype == torch.bfloat16 and y.isfinite().all()
    assert ranking is None or ranking.dtype == torch.bfloat16


def shared_rows() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Six rows of x, two for each of three memories."""
    mask, memory_mask = (torch.cat([m, m.flip(0)])[:6] for m in masks())
    return torch.randn(6, 5, 16), sine_positions(mask, 16), mask, torch.randn(3, 7, 16), memory_mask[:3]


@pytest.mark.parametrize("weights", [None, "prob", "energy"])
def test_rows_that_share_a_memory_need_it_once(weights: str | None) -> None:
    stack, (x, pos, mask, memory, memory_mask) = TransformerStack(2, 16, 4, 32, 0.1, cross=True).eval(), shared_rows()
    once = stack(x, pos, mask, memory, memory_mask, weights)
    repeated = (tensor.repeat_interleave(2, 0) for tensor in (memory, memory_mask))
    for one, other in zip(once, stack(x, pos, mask, *repeated, weights), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("weights", [None, "prob", "energy"])
@pytest.mark.parametrize("hard", [False, True])
def test_what_one_video_asks_is_asked_for_every_question(weights: str | None, hard: bool) -> None:
    stack, (_, memory_mask) = TransformerStack(2, 16, 4, 32, 0.1, cross=True).eval(), masks()
    x, memory, mask = torch.randn(1, 5, 16), torch.randn(3, 7, 16), torch.ones(1, 5).bool()
    pos = sine_positions(mask, 16)
    keep = (lambda ranking: ranking.sum(-1).topk(2).indices) if hard and weights else None
    repeated = (tensor.repeat(3, 1, 1) for tensor in (x, pos))
    wanted = stack(*repeated, mask.expand(3, 5), memory, memory_mask, weights, keep=keep)
    x = stack.attend_self(x, pos, mask)
    query = stack.ask(x, pos)
    rows = (tensor.expand(3, -1, -1) for tensor in (x, pos))
    got = stack(*rows, mask.expand(3, 5), memory, memory_mask, weights, True, keep, query)
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("weights", ["prob", "energy"])
def test_what_is_kept_is_finished_as_if_all_were(weights: str) -> None:
    stack, (x, pos, mask, memory, memory_mask) = TransformerStack(2, 16, 4, 32, 0.1, cross=True).eval(), shared_rows()
    seen = []

    def keep(ranking: Tensor) -> Tensor:
        seen.append(ranking)
        return torch.tensor([[4, 0, 4]]).expand(6, -1)

    kept, ranking = stack(x, pos, mask, memory, memory_mask, weights, keep=keep)
    whole, wanted = stack(x, pos, mask, memory, memory_mask, weights)
    torch.testing.assert_close(kept, whole[:, [4, 0, 4]])
    torch.testing.assert_close(ranking, wanted)
    assert len(seen) == 1 and seen[0] is ranking
