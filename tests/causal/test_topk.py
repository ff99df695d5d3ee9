"""Laws of the differentiable top-K: what it returns, what its gradient means, and what it never builds."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from hf_causal_video.causal import hard_topk, perturbed_topk, topk_indices
from hf_causal_video.utils.errors import CausalVideoError

pytestmark = pytest.mark.rounding


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


SIZES = [(1, 1, 1), (2, 8, 3), (3, 40, 5), (2, 9, 9), (4, 130, 12)]


def peak_bytes(function) -> int:
    """Most bytes that torch held at once while the function ran, beyond what was there before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watch:
        function()
    events = [event for event in watch.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


@pytest.mark.parametrize(("batch", "length", "k"), SIZES)
@pytest.mark.parametrize("gradient", ["full", "diagonal"])
def test_every_slot_is_a_distribution_over_positions(batch: int, length: int, k: int, gradient: str) -> None:
    selector = perturbed_topk(torch.randn(batch, length), k, num_samples=50, sigma=0.5, gradient=gradient)
    assert selector.shape == (batch, length, k)
    assert (selector >= 0).all()
    torch.testing.assert_close(selector.sum(1), torch.ones(batch, k))
    assert (selector.sum(2) <= 1 + 1e-5).all()  # a draw keeps a position at most once


@pytest.mark.parametrize(("batch", "length", "k"), SIZES)
@pytest.mark.parametrize("order", ["temporal", "score", "unsorted"])
def test_without_noise_the_soft_choice_is_the_hard_one(batch: int, length: int, k: int, order: str) -> None:
    scores = torch.stack([torch.randperm(length) for _ in range(batch)]).float()
    soft = perturbed_topk(scores, k, num_samples=20, sigma=1e-6, order=order)
    torch.testing.assert_close(soft, hard_topk(scores, k, order))


@pytest.mark.parametrize(("batch", "length", "k"), SIZES)
def test_kept_positions_are_the_largest_in_the_order_asked_for(batch: int, length: int, k: int) -> None:
    scores = torch.randn(batch, length)
    temporal, by_score, unsorted = (topk_indices(scores, k, order) for order in ("temporal", "score", "unsorted"))
    assert (temporal.diff(dim=-1) > 0).all()
    assert (scores.gather(1, by_score).diff(dim=-1) <= 0).all()
    for indices in (by_score, unsorted):
        assert torch.equal(indices.sort(-1).values, temporal)
    assert scores.gather(1, temporal).amin(1).ge(scores.scatter(1, temporal, -9.0).amax(1)).all()
    assert torch.equal(hard_topk(scores, k).argmax(1), temporal)


def test_soft_slots_are_in_temporal_order_on_average() -> None:
    selector = perturbed_topk(torch.randn(3, 12), 4, num_samples=200, sigma=1.0)
    place = (selector * torch.arange(12.0)[None, :, None]).sum(1)  # (B, k) mean position of each slot
    assert (place.diff(dim=-1) > 0).all()


def test_the_full_gradient_is_that_of_the_expectation() -> None:
    torch.manual_seed(0)
    k, sigma, samples = 3, 0.5, 400_000
    scores, upstream = torch.randn(8, dtype=torch.float64), torch.randn(8, k, dtype=torch.float64)
    noise = torch.randn(1, samples, 8, dtype=torch.float64)

    def expectation(at: torch.Tensor) -> float:  # fresh arithmetic: count, do not call the operator
        kept = (at + sigma * noise[0]).topk(k).indices.sort(-1).values  # (n, k)
        return float(upstream[kept, torch.arange(k)].sum(-1).mean())

    step = 0.05
    truth = torch.stack([
        torch.tensor(expectation(scores + step * unit) - expectation(scores - step * unit)) / (2 * step)
        for unit in torch.eye(8, dtype=torch.float64)
    ])  # fmt: skip

    def cosine(gradient: str, baseline: bool) -> float:
        at = scores.clone()[None].requires_grad_()
        selector = perturbed_topk(at, k, sigma=sigma, noise=noise, gradient=gradient, baseline=baseline)
        selector.backward(upstream[None])
        return float(torch.cosine_similarity(at.grad[0], truth.to(at.grad), dim=0))

    assert cosine("full", False) > 0.999
    assert cosine("full", True) > 0.999
    assert cosine("diagonal", False) < 0.99  # the published shortcut is another vector


def test_the_baseline_lowers_variance_and_keeps_the_mean() -> None:
    scores, upstream = torch.linspace(-1, 1, 8)[None], torch.linspace(1, 3, 24).view(1, 8, 3)

    def gradients(baseline: bool) -> torch.Tensor:
        found = []
        for seed in range(400):
            at = scores.clone().requires_grad_()
            source = torch.Generator().manual_seed(seed)
            perturbed_topk(at, 3, 16, 0.5, baseline=baseline, generator=source).backward(upstream)
            found.append(at.grad[0])
        return torch.stack(found)

    plain, lowered = gradients(False), gradients(True)
    assert lowered.var(0).sum() < 0.25 * plain.var(0).sum()
    assert ((plain.mean(0) - lowered.mean(0)).abs() < 4 * plain.std(0) / 20).all()


@pytest.mark.parametrize("gradient", ["full", "diagonal"])
def test_the_same_generator_repeats_itself(gradient: str) -> None:
    def run(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        scores = torch.linspace(0, 1, 20).view(2, 10).requires_grad_()
        source = torch.Generator().manual_seed(seed)
        selector = perturbed_topk(scores, 3, 100, 0.3, gradient=gradient, generator=source)
        selector.square().sum().backward()
        return selector.detach(), scores.grad

    for once, again in zip(run(1), run(1), strict=True):
        assert torch.equal(once, again)
    assert not torch.equal(run(1)[0], run(2)[0])


def test_without_a_generator_the_global_seed_decides() -> None:
    def run() -> torch.Tensor:
        torch.manual_seed(5)
        return perturbed_topk(torch.linspace(0, 1, 20).view(2, 10), 3, 50, 0.3)

    assert torch.equal(run(), run())


@pytest.mark.parametrize("gradient", ["full", "diagonal"])
def test_chunks_change_nothing(gradient: str, monkeypatch: pytest.MonkeyPatch) -> None:
    noise, upstream = torch.randn(2, 37, 10), torch.randn(2, 10, 3)

    def run() -> tuple[torch.Tensor, torch.Tensor]:
        scores = torch.linspace(0, 1, 20).view(2, 10).requires_grad_()
        selector = perturbed_topk(scores, 3, sigma=0.3, noise=noise, gradient=gradient)
        selector.backward(upstream)
        return selector.detach(), scores.grad

    whole = run()
    monkeypatch.setattr("hf_causal_video.causal.topk.CHUNK_ELEMENTS", 60)
    for once, chunked in zip(whole, run(), strict=True):
        torch.testing.assert_close(once, chunked)


@pytest.mark.parametrize("order", ["temporal", "score"])
def test_positions_at_minus_infinity_are_never_kept(order: str) -> None:
    scores = torch.randn(3, 12)
    scores[:, [0, 5, 11]] = -torch.inf
    scores.requires_grad_()
    selector = perturbed_topk(scores, 4, num_samples=100, sigma=5.0, order=order)
    assert not selector[:, [0, 5, 11]].any()
    assert not hard_topk(scores, 4, order)[:, [0, 5, 11]].any()
    selector.square().sum().backward()
    assert scores.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_any_float_type_goes_in_and_comes_out(dtype: torch.dtype) -> None:
    scores = torch.randn(2, 16).to(dtype).requires_grad_()
    noise = torch.randn(2, 64, 16)
    selector = perturbed_topk(scores, 3, sigma=0.5, noise=noise)
    selector.square().sum().backward()
    assert selector.dtype == scores.grad.dtype == dtype
    exact = perturbed_topk(
        scores.detach().double(), 3, sigma=0.5, noise=noise.double()
    )  # counts, so equal up to rounding
    torch.testing.assert_close(selector.double(), exact, atol=1e-2, rtol=1e-2)


def test_no_gradient_is_prepared_where_none_is_wanted() -> None:
    assert not perturbed_topk(torch.randn(2, 8), 3, 10, 0.1).requires_grad
    with torch.no_grad():
        assert not perturbed_topk(torch.randn(2, 8, requires_grad=True), 3, 10, 0.1).requires_grad


@pytest.mark.parametrize("gradient", ["full", "diagonal"])
def test_the_tensor_of_all_samples_is_never_built(gradient: str) -> None:
    batch, samples, k, length = 96, 500, 5, 440  # NExT-QA objects, a quarter of a batch
    scores = torch.randn(batch, length, requires_grad=True)

    def step() -> None:
        perturbed_topk(scores, k, samples, 0.05, gradient=gradient).square().sum().backward()

    scores.grad = torch.zeros_like(scores)
    assert peak_bytes(step) < 4 * batch * samples * k * length / 40
    assert peak_bytes(step) < 4 * batch * samples * length / 4  # nor the noise of all samples


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"k": 0}, "k=0 of 6"),
        ({"k": 7}, "k=7 of 6"),
        ({"sigma": 0.0}, "sigma: found 0.0"),
        ({"sigma": float("nan")}, "sigma: found nan"),
        ({"num_samples": 0}, "found 0"),
        ({"num_samples": 1, "baseline": True}, "at least 2"),
        ({"noise": torch.zeros(2, 5, 6)}, r"found \(2, 5, 6\)"),
        ({"noise": torch.zeros(6)}, r"found \(6,\)"),
        ({"scores": torch.full((1, 6), torch.nan)}, "found NaN"),
        ({"baseline": True, "gradient": "diagonal"}, "baseline"),
        ({"gradient": "sideways"}, "sideways"),
        ({"order": "random"}, "random"),
        ({"scores": torch.zeros(6)}, r"\(6,\)"),
    ],
)
def test_bad_input_says_what_and_how_to_mend_it(arguments: dict, words: str) -> None:
    with pytest.raises(CausalVideoError, match=words) as caught:
        perturbed_topk(**({"scores": torch.zeros(1, 6), "k": 2} | arguments))
    assert caught.value.fix and caught.value.expected is not None


@pytest.mark.parametrize("k", [0, 5])
def test_a_hard_choice_of_more_than_there_is_is_refused(k: int) -> None:
    with pytest.raises(CausalVideoError, match=f"k={k} of 4"):
        hard_topk(torch.zeros(1, 4), k)
