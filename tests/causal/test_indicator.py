"""Laws of the grounding indicator."""

import pytest
import torch

from hf_causal_video.causal import GroundingIndicator, grounding_logits, gumbel_noise, split_frames

pytestmark = pytest.mark.rounding


def precision(seed: int, rate: float = 1e-2) -> float:
    """Train on planted cues, and give the share of planted frames among those called causal in new clips."""
    torch.manual_seed(seed)
    indicator, cue = GroundingIndicator(16), torch.randn(16)
    optimizer = torch.optim.Adam(indicator.parameters(), lr=rate)

    def sample(clips: int = 32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        planted = torch.rand(clips, 8) < 0.3
        planted[:, 0] |= ~planted.any(1)
        return torch.randn(clips, 16), torch.randn(clips, 8, 16) + planted.unsqueeze(-1) * cue, planted

    mask, rows = torch.ones(32, 8, dtype=torch.bool), torch.arange(32)
    for _ in range(150):
        question, frames, planted = sample()
        logits = grounding_logits(indicator(question, frames, rows), mask)
        causal = split_frames(logits, mask, noise=gumbel_noise(logits)).causal
        loss = (causal - planted.float()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    question, frames, planted = sample(320)
    mask, rows = torch.ones(320, 8, dtype=torch.bool), torch.arange(320)
    found = split_frames(grounding_logits(indicator(question, frames, rows), mask), mask).causal.bool()
    return float((planted & found).sum() / found.sum())


def test_the_indicator_finds_a_planted_cue():
    """Methods 9.1: with energies, a planted cue is found with a precision above 0.9."""
    assert sum(precision(seed) for seed in range(3)) / 3 > 0.9
    assert precision(0, rate=0.0) < 0.6  # three in ten frames show the cue


def test_clips_may_be_shared_by_questions():
    indicator, question, key = GroundingIndicator(6), torch.randn(4, 6), torch.randn(2, 5, 6)
    rows = torch.tensor([1, 0, 0, 1])
    torch.testing.assert_close(indicator(question, key, rows), indicator(question, key[rows], torch.arange(4)))


def test_margins_are_the_log_odds_of_the_split():
    indicator = GroundingIndicator(6, normalize_question=True)
    question, key = torch.randn(4, 6), torch.randn(2, 5, 6)
    margins = indicator.margins(question, key)
    for clip in range(2):
        energies = indicator(question, key, torch.full((4,), clip))
        torch.testing.assert_close(margins[:, clip], energies[:, 0] - energies[:, 1])
    torch.testing.assert_close(indicator.margins(100 * question, key), margins, atol=1e-4, rtol=1e-3)
