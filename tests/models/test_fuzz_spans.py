"""Slices and spans of any clip: in order, inside it, holding what was chosen; anything else is refused by name."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_causal_video.models.frame_times import frame_slices
from hf_causal_video.models.spans import (
    best_first,
    best_span,
    fit_gaussian,
    frames_in_spans,
    grow_window,
    kept_frames_to_spans,
)
from tests.fuzzing import NUMBERS, refused

steps = st.lists(st.integers(1, 20), min_size=1, max_size=8)
weights = st.integers(0, 8).map(lambda n: n / 4)


def times_of(drawn, first: float) -> torch.Tensor:
    return (torch.tensor(drawn, dtype=torch.float64).cumsum(0) + first - drawn[0]) / 4


@given(st.data(), steps, st.integers(0, 8), st.integers(0, 3))
def test_spans_lie_in_the_clip_in_order_and_hold_what_was_chosen(data, drawn, first, padding):
    times = times_of(drawn, first)[None]
    frames = times.shape[1]
    mask = torch.arange(frames + padding)[None] < frames
    padded = torch.nn.functional.pad(times, (0, padding), value=math.nan)
    duration = data.draw(st.none() | st.floats(0, 5).map(lambda more: float(times.max()) + more))
    end = math.inf if not duration else duration
    slices = frame_slices(padded, mask, duration)[0]
    assert ((slices[:frames, 0] <= times[0]) & (times[0] <= slices[:frames, 1] + 1e-9)).all()
    assert torch.equal(slices[1:frames, 0], slices[: frames - 1, 1]) and not slices[frames:].any()
    assert slices.min() >= 0 and slices.max() <= end

    kept = torch.tensor([data.draw(st.lists(st.booleans(), min_size=frames, max_size=frames))])
    found = kept_frames_to_spans(torch.nn.functional.pad(kept, (0, padding)), padded, None, mask, duration)[0]
    assert all(0 <= start <= stop <= end for start, stop, _ in found)
    assert all(one[1] < two[0] or two[0] >= one[1] for one, two in zip(found, found[1:], strict=False))
    for frame in range(frames):
        inside = [start <= float(slices[frame, 0]) and float(slices[frame, 1]) <= stop for start, stop, _ in found]
        assert sum(inside) == 1 if kept[0, frame] else not any(inside) or slices[frame, 0] == slices[frame, 1]
    if kept.any():
        index = kept[0].nonzero().T
        assert kept_frames_to_spans(index, padded, None, mask, duration)[0] == found
        assert best_span(found) == best_first(found)[0] and sorted(best_first(found)) == found

    scores = torch.tensor([data.draw(st.lists(weights, min_size=frames, max_size=frames))])
    if not scores.any():
        return
    scores = torch.nn.functional.pad(scores, (0, padding), value=math.nan)
    peak = float(times[0, scores[0, :frames].argmax()])
    windows = [grow_window(scores, padded, f, mask, duration)[0] for f in (1.0, 0.5, 0.1)]
    for start, stop, mean in windows:
        assert 0 <= start <= stop <= end and start <= peak <= stop + 1e-9
        assert 0 < mean <= scores[0, :frames].max()
    assert all(one[0] >= two[0] and one[1] <= two[1] for one, two in zip(windows, windows[1:], strict=False))
    fits = [fit_gaussian(scores, padded, g, mask, duration)[0] for g in (0.5, 1.0, 4.0)]
    for start, stop, share in fits:
        assert 0 <= start <= stop <= end and -1e-9 <= share <= 1 + 1e-9
        assert ((slices[:frames, 0] >= start - 1e-9) & (slices[:frames, 1] <= stop + 1e-9)).any() or (
            (times[0] >= start) & (times[0] <= stop)
        ).any()
    assert all(one[0] >= two[0] and one[1] <= two[1] for one, two in zip(fits, fits[1:], strict=False))


@given(steps, st.integers(0, 8), st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted), max_size=3))
def test_a_span_of_the_clip_has_a_frame_and_a_longer_one_no_fewer(drawn, first, shares):
    times = times_of(drawn, first)
    length = float(times[-1] - times[0])
    spans = [[float(times[0]) + length * share for share in pair] for pair in shares]
    found = frames_in_spans(times, spans)
    assert found.shape == times.shape and bool(found.any()) == bool(spans)
    for span in spans:
        assert (frames_in_spans(times, [span]) & ~found).sum() == 0
    inside = [any(start <= float(t) <= stop for start, stop in spans) for t in times]
    assert all(found[torch.tensor(inside, dtype=torch.bool)])


junk = st.lists(NUMBERS | weights, min_size=1, max_size=5)
shapes = st.sampled_from([(1, -1), (-1, 1), (1, 1, -1), (-1,), (0, 2), ()])


@st.composite
def tensors(draw) -> torch.Tensor:
    """Numbers of any kind in any shape."""
    values = [float(n) if abs(n) < 1e308 or n != n else math.inf for n in draw(junk)]
    value = torch.tensor(values)
    if draw(st.booleans()):
        value = value.nan_to_num().clamp(-9, 9).to(draw(st.sampled_from([torch.long, torch.bool, torch.half])))
    shape = draw(shapes)
    return value[:1].reshape(shape) if not shape else value[:0].reshape(shape) if 0 in shape else value.reshape(shape)


@given(st.data())
def test_any_tensors_give_spans_or_are_refused(data):
    maybe = st.none() | tensors()
    times, scores, mask = data.draw(tensors()), data.draw(tensors()), data.draw(maybe)
    duration = data.draw(st.none() | NUMBERS.filter(lambda n: abs(n) < 1e300 or n != n) | tensors())
    number = data.draw(st.sampled_from([0.5, 1.0, 0.0, -1.0, math.nan, math.inf]))
    for rule in (grow_window, fit_gaussian):
        no, spans = refused(rule, scores, times, number, mask, duration)
        if not no:
            assert len(spans) == len(scores) and all(0 <= start <= stop < math.inf for start, stop, _ in spans)
    no, spans = refused(kept_frames_to_spans, scores, times, data.draw(maybe), mask, duration)
    if not no:
        for row in spans:
            assert all(0 <= start <= stop < math.inf and math.isfinite(score) for start, stop, score in row)
    pairs = data.draw(st.lists(st.lists(NUMBERS, max_size=3), max_size=2))
    no, found = refused(frames_in_spans, times, pairs)
    if not no:
        assert found.dtype == torch.bool and len(found) == len(times)
