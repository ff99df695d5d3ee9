"""Laws of the noise: repeatable, normal, and as good as independent although its vectors serve more than once."""

import pytest
import torch
from torch import Tensor

from hf_causal_video.causal import perturbed_topk
from hf_causal_video.causal.topk import NOISE_REUSED_FROM, normal_chunks

pytestmark = pytest.mark.rounding


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def drawn(seed: int, batch: int, samples: int, length: int, chunk: int) -> Tensor:
    return torch.cat(list(normal_chunks(seed, (batch, samples, length), chunk, torch.device("cpu"), torch.float32)), 1)


@pytest.mark.parametrize(("samples", "chunk"), [(1, 1), (7, 3), (40, 7), (5, 50), (500, 11)])
def test_shape_and_seed(samples: int, chunk: int) -> None:
    first = drawn(1, 2, samples, 100, chunk)
    assert first.shape == (2, samples, 100)
    assert torch.equal(first, drawn(1, 2, samples, 100, chunk)) and not torch.equal(
        first, drawn(2, 2, samples, 100, chunk)
    )


def test_every_sample_is_standard_normal() -> None:
    z = drawn(0, 20, 200, 400, 5).flatten()
    quantiles = torch.tensor([0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99])
    found = z[torch.randperm(len(z))[:1_000_000]].quantile(quantiles)
    torch.testing.assert_close(found, torch.distributions.Normal(0, 1).icdf(quantiles), atol=0.02, rtol=0)


def test_no_sample_is_another_one() -> None:
    z = drawn(0, 1, 12, 400, 3)[0]
    alike = (z @ z.T / 400).fill_diagonal_(0)  # correlation of aligned positions
    assert alike.abs().max() < 0.25


def test_short_vectors_are_never_used_twice() -> None:
    z = drawn(0, 1, 40, 8, 5)[0].sort(-1).values
    assert torch.unique(z, dim=0).shape[0] == 40


@pytest.mark.parametrize("gradient", ["full", "diagonal"])
def test_estimates_are_as_precise_as_with_fresh_noise(gradient: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean is the same and the variance grows by no more than a tenth, at the length where reuse starts."""
    scores, weights = (
        torch.linspace(-1, 1, NOISE_REUSED_FROM)[None],
        torch.linspace(2, -1, NOISE_REUSED_FROM * 5).view(1, NOISE_REUSED_FROM, 5),
    )

    def gradients() -> Tensor:
        found = []
        for seed in range(300):
            at = scores.clone().requires_grad_()
            source = torch.Generator().manual_seed(seed)
            selector = perturbed_topk(at, 5, 64, 0.5, gradient=gradient, generator=source, baseline=gradient == "full")
            (selector * weights).sum().backward()
            found.append(at.grad[0])
        return torch.stack(found)

    monkeypatch.setattr("hf_causal_video.causal.topk.CHUNK_ELEMENTS", 8 * NOISE_REUSED_FROM)
    reused = gradients()
    monkeypatch.setattr("hf_causal_video.causal.topk.NOISE_USES", 1)
    fresh = gradients()
    spread = fresh.var(0).sum()
    assert 0.8 * spread < reused.var(0).sum() < 1.1 * spread
    assert (reused.mean(0) - fresh.mean(0)).square().sum() < 2 * 2 * spread / 300
