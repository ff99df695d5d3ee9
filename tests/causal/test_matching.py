"""Laws of matching: it finds the clip that a question asks about, and needs no answer for it."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_causal_video.causal import GroundingIndicator, matching_loss

pytestmark = pytest.mark.rounding


def batch(seed: int, questions: int = 5, clips: int = 3, frames: int = 4) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    margins = torch.randn(questions, clips, frames, generator=generator)
    lengths = torch.randint(1, frames + 1, (clips,), generator=generator)
    mask = torch.arange(frames) < lengths[:, None]
    rows = torch.randint(0, clips, (questions,), generator=generator)
    return margins, mask, rows, rows + 10


def slowly(margins: torch.Tensor, mask: torch.Tensor, rows: torch.Tensor, own: torch.Tensor) -> float:
    """The definition, pair by pair."""

    def score(question: int, clip: int) -> float:
        return math.log(
            sum(math.exp(m) for m, real in zip(margins[question, clip], mask[clip], strict=True) if real)
            / mask[clip].sum()
        )

    total = 0.0
    for i in range(len(rows)):
        others = [j for j in range(len(rows)) if j == i or own[j] != own[i]]
        right = score(i, rows[i])
        total -= right - math.log(sum(math.exp(score(i, rows[j])) for j in others))
        total -= right - math.log(sum(math.exp(score(j, rows[i])) for j in others))
    return total / (2 * len(rows))


@given(st.integers(0, 10_000))
def test_it_equals_its_definition(seed: int):
    given_ = batch(seed)
    assert matching_loss(*given_).item() == pytest.approx(slowly(*given_), abs=1e-4)


@given(st.integers(0, 10_000))
def test_padding_changes_nothing_and_a_gradient_is_finite(seed: int):
    margins, mask, rows, own = batch(seed)
    wide = torch.cat([margins, torch.full((5, 3, 2), 1e4)], 2).requires_grad_()
    loss = matching_loss(wide, torch.nn.functional.pad(mask, (0, 2)), rows, own)
    torch.testing.assert_close(loss, matching_loss(margins, mask, rows, own))
    loss.backward()
    assert wide.grad.isfinite().all() and not wide.grad[..., 4:].any()


def test_a_batch_of_one_video_has_nothing_to_tell_apart():
    assert matching_loss(torch.randn(3, 1, 4), torch.ones(1, 4).bool(), torch.zeros(3).long(), torch.zeros(3)) == 0


def in_order(seed: int, rate: float = 1e-2) -> float:
    """Train without answers, and give the share of clips whose frames that show what is asked for have the largest
    margins. Half of the frames show it, the others a scenery that no question names."""
    torch.manual_seed(seed)
    words, sceneries = torch.randn(8, 16), torch.randn(8, 16)
    indicator = GroundingIndicator(16, normalize_question=True)
    optimizer = torch.optim.Adam(indicator.parameters(), lr=rate)

    def sample(clips: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        asked, shown = torch.randint(0, 8, (clips,)), torch.rand(clips, 6) < 0.5
        shown[:, 0] = True
        scenery = sceneries[torch.randint(0, 8, (clips,))]
        return words[asked], torch.where(shown[..., None], words[asked][:, None], scenery[:, None]), shown

    mask, rows = torch.ones(32, 6, dtype=torch.bool), torch.arange(32)
    for _ in range(200):
        question, frames, _ = sample(32)
        loss = matching_loss(indicator.margins(question, frames), mask, rows, rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    question, frames, shown = sample(320)
    margin = indicator.margins(question, frames)[torch.arange(320), torch.arange(320)]
    lowest = margin.masked_fill(~shown, torch.inf).amin(1)
    highest = margin.masked_fill(shown, -torch.inf).amax(1)
    return float((lowest > highest).float().mean())


def test_the_frames_that_a_question_speaks_of_come_to_be_causal():
    """Their order in a clip; the size term sets how many are causal."""
    assert sum(in_order(seed) for seed in range(3)) / 3 > 0.9
    assert in_order(0, rate=0.0) < 0.7
