"""Top-K of any scores: k different places, shares that add up, or a refusal."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_causal_video.causal import hard_topk, perturbed_topk, topk_indices
from tests.fuzzing import refused

numbers = st.integers(-8, 8).map(float) | st.sampled_from([math.inf, -math.inf, math.nan, 1e30, 1e-30])
orders = st.sampled_from(["temporal", "score", "unsorted", "x"])
rows = st.integers(0, 6).flatmap(lambda width: st.lists(st.lists(numbers, min_size=width, max_size=width), max_size=3))


@given(st.data(), rows.filter(len), st.integers(-1, 7) | st.just(10**9), orders)
def test_any_scores_are_ranked_or_refused(data, rows, k, order):
    scores = torch.tensor(rows)
    no, kept = refused(topk_indices, scores, k, order)
    if no:
        return
    assert kept.shape == (len(rows), k) and all(len(set(row)) == k for row in kept.tolist())
    assert order != "temporal" or torch.equal(kept, kept.sort(-1).values)
    chosen = scores.gather(1, kept).sort(-1, descending=True).values
    assert torch.equal(chosen, scores.sort(-1, descending=True).values[:, :k])
    hard = hard_topk(scores, k, order)
    assert torch.equal(hard.argmax(1), kept) and torch.equal(hard.sum(1), torch.ones(len(rows), k))

    samples = data.draw(st.sampled_from([0, 1, 5]))
    sigma = data.draw(st.sampled_from([0.05, 1e-30, 0.0, -1.0, math.nan]))
    gradient, baseline = data.draw(st.sampled_from(["full", "diagonal", "x"])), data.draw(st.booleans())
    leaf = scores.clone().requires_grad_()
    no, soft = refused(perturbed_topk, leaf, k, samples, sigma, gradient=gradient, order=order, baseline=baseline)
    if no:
        return
    torch.testing.assert_close(soft.sum(1), torch.ones(len(rows), k))  # every slot holds one place in each draw
    assert soft.min() >= 0 and soft.sum(2).max() <= 1 + 1e-5  # no place twice in a draw
    if scores.isfinite().all():
        soft.square().sum().backward()
        assert leaf.grad is not None and leaf.grad.isfinite().all() or sigma == 1e-30
