"""Laws of slices and spans: slices tile the clip, rules agree where they must, padding and bad times never pass."""

import math

import pytest
import torch

from hf_causal_video.models.frame_times import frame_slices
from hf_causal_video.models.spans import (
    best_first,
    best_span,
    fit_gaussian,
    frames_in_spans,
    grow_window,
    kept_frames_to_spans,
)
from hf_causal_video.utils.errors import CausalVideoError

TIMES = torch.tensor([1.0, 3.0, 5.0, 7.0, 9.0])


def random_times(rows: int, frames: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(rows, frames, generator=generator, dtype=torch.float64) + 0.05).cumsum(1)


@pytest.mark.parametrize("frames", [1, 2, 3, 64])
def test_slices_tile_the_clip_and_hold_their_frame(frames: int) -> None:
    times = random_times(4, frames)
    slices = frame_slices(times)
    assert torch.equal(slices[:, 1:, 0], slices[:, :-1, 1])
    assert ((slices[..., 0] <= times) & (times <= slices[..., 1])).all()
    assert (slices[..., 0] >= 0).all()


def test_uniform_midpoints_give_exactly_the_clip() -> None:
    times = (torch.arange(16) + 0.5)[None] * 30 / 16
    slices = frame_slices(times, duration_s=30.0)
    assert slices[0, 0, 0] == 0 and slices[0, -1, 1] == pytest.approx(30.0)


def test_the_stated_end_cuts_the_last_slice_only() -> None:
    open_ended, closed = frame_slices(TIMES[None]), frame_slices(TIMES[None], duration_s=9.5)
    assert torch.equal(open_ended[:, :-1], closed[:, :-1])
    assert closed[0, -1].tolist() == [8.0, 9.5]


@pytest.mark.parametrize("rule", [grow_window, fit_gaussian])
def test_padding_never_changes_a_span(rule) -> None:
    times, scores = random_times(3, 6), torch.rand(3, 6, generator=torch.Generator().manual_seed(1))
    padded_times = torch.cat([times, torch.full((3, 2), math.nan)], dim=1)
    padded_scores = torch.cat([scores, torch.full((3, 2), math.nan)], dim=1)
    mask = torch.arange(8).expand(3, 8) < 6
    plain, padded = rule(scores, times), rule(padded_scores, padded_times, frame_mask=mask)
    assert torch.allclose(torch.tensor(plain), torch.tensor(padded))


@pytest.mark.parametrize("rule", [grow_window, fit_gaussian])
def test_rows_do_not_see_each_other(rule) -> None:
    times, scores = random_times(5, 7), torch.rand(5, 7, generator=torch.Generator().manual_seed(2))
    together = torch.tensor(rule(scores, times))
    alone = torch.tensor([rule(scores[row : row + 1], times[row : row + 1])[0] for row in range(5)])
    assert torch.allclose(together, alone)


def test_indices_and_mask_say_the_same() -> None:
    mask = torch.tensor([[False, True, True, False, True], [True, False, False, False, False]])
    indices = torch.tensor([[4, 1, 2, 1], [0, 0, 0, 0]])  # order and repeats do not matter
    assert kept_frames_to_spans(mask, TIMES) == kept_frames_to_spans(indices, TIMES)
    assert kept_frames_to_spans(mask, TIMES)[0] == [(2.0, 6.0, 1.0), (8.0, 10.0, 1.0)]


def test_all_kept_frames_are_one_span_over_the_clip() -> None:
    times = random_times(1, 9)
    [[(start, end, _)]] = kept_frames_to_spans(torch.ones(1, 9, dtype=torch.bool), times)
    slices = frame_slices(times)
    assert (start, end) == (slices[0, 0, 0].item(), slices[0, -1, 1].item())


def test_span_score_is_the_mean_over_its_frames() -> None:
    spans = kept_frames_to_spans(torch.tensor([[0, 1, 3]]), TIMES, scores=torch.tensor([[0.2, 0.4, 9.0, 0.5, 0.0]]))
    assert [round(score, 6) for *_, score in spans[0]] == [0.3, 0.5]
    assert best_span(spans[0])[:2] == (6.0, 8.0)


def test_the_best_span_comes_first_whatever_the_order() -> None:
    spans = [(0.0, 2.0, 0.3), (4.0, 9.0, 0.7), (10.0, 11.0, 0.7), (12.0, 17.0, 0.7)]
    assert best_first(spans) == best_first(spans[::-1]) and best_first(spans)[0] == best_span(spans) == spans[1]


def test_spans_and_back_give_the_kept_frames() -> None:
    for seed in range(20):
        times = random_times(1, 12, seed)
        kept = torch.rand(1, 12, generator=torch.Generator().manual_seed(seed)) < 0.4
        if kept.any():
            [spans] = kept_frames_to_spans(kept, times)
            assert torch.equal(frames_in_spans(times[0], spans), kept[0])


def test_a_span_between_two_frames_takes_the_nearer_one() -> None:
    for span, frame in (((3.2, 3.4), 1), ((4.2, 4.4), 2), ((0.0, 0.1), 0), ((9.9, 10.4), 4)):
        assert frames_in_spans(TIMES, [span]).nonzero().tolist() == [[frame]]
    for span in ((20.0, 25.0), (5.0, 4.0), (math.nan, 4.0)):
        with pytest.raises(CausalVideoError, match="outside the frames"):
            frames_in_spans(TIMES, [span])


def test_scores_of_any_precision_and_device_give_spans() -> None:
    scores = torch.tensor([[1.0, 6.0, 8.0, 5.0, 7.0]])
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert grow_window(scores.to(dtype), TIMES) == grow_window(scores, TIMES)
        assert kept_frames_to_spans(torch.tensor([[2]], dtype=torch.int32), TIMES, scores.to(dtype))[0][0][2] == 8
    assert kept_frames_to_spans(torch.tensor([[0]]), torch.tensor([3.0]))[0] == [(0.0, 6.0, 1.0)]  # a lone frame


def test_a_window_holds_the_peak_and_shrinks_as_the_fraction_rises() -> None:
    times, scores = random_times(20, 12), torch.rand(20, 12, generator=torch.Generator().manual_seed(3))
    peak = times.gather(1, scores.argmax(1, keepdim=True))[:, 0]
    before = None
    for fraction in (0.1, 0.4, 0.8, 1.0):
        spans = torch.tensor(grow_window(scores, times, fraction), dtype=torch.float64)
        assert ((spans[:, 0] <= peak) & (peak <= spans[:, 1])).all()
        if before is not None:
            assert ((before[:, 0] <= spans[:, 0]) & (spans[:, 1] <= before[:, 1])).all()
        before = spans


def test_a_second_peak_behind_a_valley_stays_out() -> None:
    assert grow_window(torch.tensor([[9.0, 1.0, 8.0, 1.0, 8.0]]), TIMES, 0.5)[0][:2] == (0.0, 2.0)


def test_a_gaussian_on_one_frame_is_its_slice_and_gamma_widens_it() -> None:
    one = torch.tensor([[0.0, 0.0, 1.0, 0.0, 0.0]])
    assert fit_gaussian(one, TIMES)[0] == (4.0, 6.0, 1.0)
    flat = torch.ones(1, 5)
    narrow, wide = fit_gaussian(flat, TIMES, gamma=0.5)[0], fit_gaussian(flat, TIMES, gamma=5.0)[0]
    assert narrow[0] > wide[0] and narrow[1] < wide[1]
    assert wide == (0.0, 10.0, pytest.approx(1.0))


@pytest.mark.parametrize(
    "times",
    [
        torch.tensor([[1.0, 1.0, 2.0]]),
        torch.tensor([[3.0, 2.0, 1.0]]),
        torch.tensor([[0.0, math.nan, 2.0]]),
        torch.tensor([[math.nan, 1.0, 2.0]]),
        torch.tensor([[-1.0, 0.0, 1.0]]),
        torch.tensor([[0.0, 1.0, math.inf]]),
        torch.zeros(1, 0),
        torch.zeros(3),
    ],
)
def test_bad_times_are_errors(times: torch.Tensor) -> None:
    with pytest.raises(CausalVideoError):
        frame_slices(times)


@pytest.mark.parametrize(
    "call",
    [
        lambda: kept_frames_to_spans(torch.tensor([[5]]), TIMES),
        lambda: kept_frames_to_spans(torch.tensor([[-1]]), TIMES),
        lambda: kept_frames_to_spans(torch.tensor([[0.5]]), TIMES),
        lambda: kept_frames_to_spans(torch.ones(1, 4, dtype=torch.bool), TIMES),
        lambda: kept_frames_to_spans(torch.tensor([[4]]), TIMES, frame_mask=torch.tensor([[1, 1, 1, 1, 0]])),
        lambda: kept_frames_to_spans(torch.tensor([[0]]), TIMES, scores=torch.ones(1, 4)),
        lambda: grow_window(torch.zeros(1, 5), TIMES),
        lambda: grow_window(-torch.ones(1, 5), TIMES),
        lambda: grow_window(torch.full((1, 5), math.nan), TIMES),
        lambda: grow_window(torch.ones(1, 5), TIMES, fraction=0.0),
        lambda: grow_window(torch.ones(1, 4), TIMES),
        lambda: fit_gaussian(torch.ones(1, 5), TIMES, gamma=0.0),
        lambda: fit_gaussian(torch.ones(1, 5), TIMES, gamma=math.inf),
        lambda: frame_slices(TIMES[None], duration_s=3.0),
        lambda: frame_slices(TIMES[None], torch.tensor([[1, 0, 1, 1, 1]])),
        lambda: best_span([]),
    ],
)
def test_bad_input_is_an_error_that_names_the_fix(call) -> None:
    with pytest.raises(CausalVideoError, match="Fix:"):
        call()
