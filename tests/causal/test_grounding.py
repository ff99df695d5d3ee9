"""Laws of the grounding indicator: a hard split that gradients pass, with no empty side, blind to padding."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_causal_video.causal import grounding_logits, gumbel_noise, keep_causal, split_frames

FULL = torch.ones(3, 5, dtype=torch.bool)


def ragged(seed: int, rows: int = 4, frames: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, frames + 1, (rows,), generator=source)
    logits = torch.randn(rows, 2, frames, generator=source).round(decimals=1)  # ties happen
    return logits, torch.arange(frames) < lengths[:, None]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.booleans())
def test_the_sides_share_the_real_frames_and_none_is_empty(seed: int, noisy: bool):
    logits, mask = ragged(seed)
    split = split_frames(logits, mask, noise=gumbel_noise(logits) if noisy else None)
    assert torch.equal(split.causal + split.environment, mask.float())  # exactly, bit by bit
    assert split.causal.any(1).all()
    assert torch.equal(split.environment.any(1), mask.sum(1) > 1)  # a clip of one frame has no environment
    assert torch.equal(split.chosen_causal, split.causal.bool())
    assert (split.scores.isinf() == ~mask).all() and not split.probability[~mask].any()


def test_a_clip_of_equal_frames_has_both_sides():
    for value in (-1.0, 0.0, 1.0):
        logits = torch.stack([torch.full((3, 5), value), torch.zeros(3, 5)], 1)
        split = split_frames(logits, FULL)
        assert split.causal.any(1).all() and split.environment.any(1).all()


def test_an_empty_side_is_kept_empty_where_that_is_asked_for():
    logits = torch.stack([torch.full((3, 5), -1.0), torch.zeros(3, 5)], 1)
    split = split_frames(logits, FULL, empty="all")
    assert not split.causal.any() and split.chosen_causal.all()  # its branch reads a clip of zeros
    assert torch.equal(split.chosen_environment, split.environment.bool())


def test_the_larger_score_decides_without_noise():
    logits = torch.tensor([[[3.0, 1.0, 0.0], [2.0, 2.0, -1.0]]])
    assert split_frames(logits, torch.ones(1, 3, dtype=torch.bool)).causal.tolist() == [[1.0, 0.0, 1.0]]


def test_noise_draws_as_often_as_the_softmax_says():
    torch.manual_seed(0)
    logits = torch.tensor([[[1.0, -0.5, 0.2], [0.0, 0.0, 0.0]]]).repeat(20_000, 1, 1)
    mask = torch.ones(20_000, 3, dtype=torch.bool)
    split = split_frames(logits, mask, tau=1.0, noise=gumbel_noise(logits), empty="all")
    torch.testing.assert_close(split.causal.mean(0), split.probability[0], atol=0.015, rtol=0)


def test_gradients_pass_the_split_as_through_the_softmax():
    logits, mask = ragged(3)
    logits.requires_grad_()
    noise = gumbel_noise(logits)
    upstream = torch.randn(4, 6)
    (hard,) = torch.autograd.grad((split_frames(logits, mask, 0.7, noise).causal * upstream).sum(), logits)
    soft = ((logits + noise) / 0.7).softmax(1)[:, 0] * mask
    torch.testing.assert_close(hard, torch.autograd.grad((soft * upstream).sum(), logits)[0])
    (other,) = torch.autograd.grad((split_frames(logits, mask, 0.7, noise).environment * upstream).sum(), logits)
    torch.testing.assert_close(other, -hard)


def test_released_logits_cannot_be_sure():
    """Methods 2.9: after a softmax over frames both numbers lie in [0, 1], so P(causal) lies in [0.27, 0.73]."""
    energies = 100 * torch.randn(50, 2, 16)
    mask = torch.ones(50, 16, dtype=torch.bool)
    released = split_frames(grounding_logits(energies, mask, "prob"), mask).probability
    assert 0.268 < released.min() and released.max() < 0.732
    free = split_frames(grounding_logits(energies, mask, "energy"), mask).probability
    assert free.min() < 0.01 and free.max() > 0.99
    still = split_frames(grounding_logits(torch.zeros(1, 2, 16), mask[:1], "prob"), mask[:1]).probability
    assert (still == 0.5).all()


@pytest.mark.parametrize("kind", ["energy", "logprob", "prob"])
def test_padding_changes_no_logit_of_a_frame(kind: str):
    energies, mask = torch.randn(3, 2, 5), torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [True] + [False] * 4])
    wide = torch.cat([energies, torch.full((3, 2, 2), 50.0)], 2)
    padded = grounding_logits(wide, torch.nn.functional.pad(mask, (0, 2)), kind)[..., :5]
    there = mask.unsqueeze(1).expand_as(energies)
    torch.testing.assert_close(padded[there], grounding_logits(energies, mask, kind)[there])
    assert padded.isfinite().all()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000))
def test_kept_frames_are_the_causal_ones_in_order(seed: int):
    split = split_frames(*ragged(seed))
    kept = keep_causal(split)
    assert kept.shape[1] == split.chosen_causal.sum(1).max()
    for row, causal in zip(kept.tolist(), split.chosen_causal, strict=True):
        distinct = list(dict.fromkeys(row))
        assert sorted(distinct) == causal.nonzero().flatten().tolist()
        assert row[: int(causal.sum())] == sorted(distinct)
