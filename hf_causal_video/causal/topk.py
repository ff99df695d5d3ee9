"""Differentiable top-K: keep the K parts of a video that the answer needs, and still pass gradient to the scores.

Why: a hard choice of frames or objects makes evidence readable but has no gradient. The mean of hard choices under
Gaussian noise has one; at test time the choice is hard again.

Memory: no (batch, samples, K, d) tensor is ever built. Samples are drawn, counted and forgotten chunk by chunk, and
drawn again from a seed for the backward pass.

Source: TranSTR (arXiv 2307.12058) section 3.2, after Berthet et al. 2020 and Cordonnier et al. 2021.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from hf_causal_video.utils.checks import check_choice, check_number, check_whole
from hf_causal_video.utils.errors import require, require_values

Order = Literal["temporal", "score", "unsorted"]
Gradient = Literal["full", "diagonal"]
CHUNK_ELEMENTS = 1 << 19  # noisy scores alive at once; 2 MiB of float32 stays in cache
NOISE_USES = 4  # samples that a drawn noise vector serves
NOISE_REUSED_FROM = 64  # length of a vector from which it serves more than one


def topk_indices(scores: Tensor, k: int, order: Order = "temporal") -> Tensor:
    """Select the positions (..., k) of the K largest scores (..., d).

    Args:
        scores: (..., d), without NaN.
        k: how many to keep, 1 <= k <= d.
        order: "temporal" sorts the kept positions ascending, "score" by falling score; "unsorted" leaves the order of
            `torch.topk(sorted=False)`, which the published TranSTR feeds to its later stages at test time.

    Raises:
        CausalVideoError: k outside 1..d, NaN, an unknown order.

    Example:
        >>> topk_indices(torch.tensor([[0.1, 0.9, 0.3, 0.7]]), 2).tolist()
        [[1, 3]]
    """
    check_choice("top-K order", order, get_args(Order))
    length = scores.shape[-1]
    require(1 <= k <= length, "top-K size", found=f"k={k} of {length} positions", expected=f"1 <= k <= {length}")
    require_values(
        ~scores.isnan().any(),
        "top-K scores",
        found=lambda: "NaN",
        expected="numbers or -inf",
        fix="look for NaN in the features or weights",
    )
    indices = scores.topk(k, dim=-1, sorted=order == "score").indices
    return indices.sort(dim=-1).values if order == "temporal" else indices


def hard_topk(scores: Tensor, k: int, order: Order = "temporal") -> Tensor:
    """Select the K largest of scores (B, d) by a 0/1 selector (B, d, k), the limit of `perturbed_topk` for sigma to 0.

    Example:
        >>> hard_topk(torch.tensor([[0.1, 0.9, 0.3]]), 2)[0].T.tolist()
        [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    indices = topk_indices(scores, k, order).unsqueeze(-2)  # (B, 1, k)
    return scores.new_zeros(*scores.shape, k).scatter_(-2, indices, 1.0)


@torch.compiler.disable
def perturbed_topk(
    scores: Tensor,
    k: int,
    num_samples: int = 500,
    sigma: float = 0.05,
    noise: Tensor | None = None,
    gradient: Gradient = "full",
    order: Order = "temporal",
    baseline: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Estimate the expected top-K selector under Gaussian noise, with a gradient for the scores.

    Args:
        scores: (B, d); -inf marks positions that must never be kept while others are left.
        k, order: as in `topk_indices`, inside each draw.
        num_samples: noise draws per row.
        sigma: standard deviation of the noise, in units of the scores; below their spread nothing is explored.
        noise: optional (B, num_samples, d) standard normal draws, to be multiplied by sigma; repeatable then.
        gradient: "full" is unbiased; in "diagonal", the published shortcut, each position's gradient uses only its own
            indicator (biased).
        baseline: subtract from a draw's credit the mean of the others ("full" only): same mean, lower variance.
        generator: source of the noise; torch's global one otherwise.

    Returns:
        (B, d, k): entry (i, j) is the share of draws whose j-th kept position is i; every column sums to 1.

    Raises:
        CausalVideoError: k outside 1..d, NaN, sigma <= 0, noise of another shape, an unknown option.

    Example:
        >>> perturbed_topk(torch.tensor([[0.0, 2.0, 1.0]]), 2, num_samples=9, sigma=1e-3)[0].T.tolist()
        [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    require(scores.dim() == 2, "top-K scores", found=f"shape {tuple(scores.shape)}", expected="(batch, positions)")
    topk_indices(scores, k, order)  # refuses an invalid k or order, and NaN
    num_samples = noise.shape[1] if noise is not None and noise.dim() == 3 else num_samples
    shape = len(scores), num_samples, scores.shape[1]
    check_number("top-K sigma", sigma, above=0, fix="use hard_topk for a choice without noise")
    if noise is not None:
        require(noise.shape == shape, "top-K noise", found=tuple(noise.shape), expected=shape)
    known = ("full",) if baseline else get_args(Gradient)
    check_whole("top-K samples", num_samples, 1 + baseline)
    check_choice("top-K gradient with a baseline" if baseline else "top-K gradient", gradient, known)
    seed = 0
    if noise is None:
        device = generator.device if generator else "cpu"
        seed = int(torch.randint(2**62, (), generator=generator, device=device))
    dtype = torch.float64 if scores.dtype == torch.float64 else torch.float32
    chunk = min(num_samples, max(1, CHUNK_ELEMENTS // (len(scores) * scores.shape[1])))
    sampling = Sampling(noise, seed, shape, chunk, scores.device, dtype)
    return _PerturbedTopK.apply(scores, k, sigma, sampling, gradient, order, baseline)


@dataclass
class Sampling:
    """Noise of a perturbed top-K, the same whenever it is drawn.

    Args:
        noise: (B, samples, d) given draws, or None.
        seed: decides every number where none are given.
        shape: (B, samples, d).
        chunk: samples alive at once.
        device, dtype: of the draws.
    """

    noise: Tensor | None
    seed: int
    shape: tuple[int, int, int]
    chunk: int
    device: torch.device
    dtype: torch.dtype

    def draws(self) -> Iterator[Tensor]:
        """Yield chunks of whole samples (B, n, d)."""
        if self.noise is None:
            yield from normal_chunks(self.seed, self.shape, self.chunk, self.device, self.dtype)
        else:
            for part in self.noise.split(self.chunk, 1):
                yield part.to(self.device, self.dtype)


class _PerturbedTopK(torch.autograd.Function):
    """Counts of kept positions forward; backward the score function of the noise.

    With s_n the credit of draw n, sum over slots j of credit[j, index_nj]:
    full: grad_i = mean over n of (s_n - baseline_n) noise_ni / sigma;
    diagonal: grad_i = sum over j of credit[j, i] * mean over n of 1(index_nj = i) noise_ni / sigma.
    """

    @staticmethod
    def forward(ctx: Any, scores, k, sigma, sampling, gradient, order, baseline) -> Tensor:
        batch, _, length = sampling.shape
        base = scores.to(sampling.dtype)
        ctx.k = k
        ctx.sigma = sigma
        ctx.sampling = sampling
        ctx.diagonal = gradient == "diagonal"
        ctx.baseline = baseline
        ctx.dtype = scores.dtype
        counts = base.new_zeros(batch, k * length)
        # A tensor of its own: it is kept for the backward pass, the counts are not.
        correlation = torch.zeros_like(counts) if ctx.diagonal else counts.new_empty(0)
        offsets = torch.arange(k, device=base.device) * length
        one = base.new_ones(())
        kept = []
        for draw in sampling.draws():  # (B, n, d)
            indices = torch.add(base.unsqueeze(1), draw, alpha=sigma).topk(k, sorted=order == "score").indices
            indices = indices.sort().values if order == "temporal" else indices  # (B, n, k)
            flat = (indices + offsets).flatten(1)  # (B, n*k) into (k, d)
            counts.scatter_add_(1, flat, one.expand_as(flat))
            if ctx.needs_input_grad[0] and ctx.diagonal:
                correlation.scatter_add_(1, flat, draw.gather(2, indices).flatten(1))
            elif ctx.needs_input_grad[0]:
                kept.append(indices.to(torch.int16 if length < 2**15 else torch.int32))
        ctx.save_for_backward(torch.cat(kept, 1) if kept else correlation)
        shares = counts.div_(sampling.shape[1]).view(batch, k, length)
        return shares.transpose(1, 2).to(scores.dtype)  # (B, d, k)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple:
        sampling = ctx.sampling
        (saved,) = ctx.saved_tensors
        batch, num_samples, length = sampling.shape
        credit = upstream[0].to(sampling.dtype).transpose(1, 2)  # (B, k, d)
        if ctx.diagonal:
            grad = (credit * saved.view(batch, ctx.k, length)).sum(1)
        else:
            total = credit.new_zeros(batch, num_samples)
            for slot in range(ctx.k):
                total += credit[:, slot].gather(1, saved[:, :, slot].long())
            if ctx.baseline:
                total = (total - total.mean(1, keepdim=True)) * (num_samples / (num_samples - 1))
            grad = credit.new_zeros(batch, length)
            for part, draw in zip(total.split(sampling.chunk, 1), sampling.draws(), strict=True):
                grad += torch.bmm(part.unsqueeze(1), draw).squeeze(1)
        return (grad / (num_samples * ctx.sigma)).to(ctx.dtype), *(None,) * 6


def normal_chunks(
    seed: int, shape: tuple[int, int, int], chunk: int, device: torch.device, dtype: torch.dtype
) -> Iterator[Tensor]:
    """Draw standard normal samples (batch, n, length) in chunks of n = `chunk`, the last one smaller.

    Why: the gradient needs the noise of the forward pass once more. Keeping it costs more memory than anything else in
    a step, and drawing it is most of the time; so each long vector drawn serves `NOISE_USES` samples, rolled along its
    positions by a random offset. A rolled normal vector is a normal vector: every sample keeps its distribution and
    every estimate its mean; two uses of one vector correlate like one part in its length.

    Args:
        seed: decides every number.
        shape: (batch, samples, length) of all samples together.
        chunk: samples alive at once.
        device, dtype: of the samples.

    Example:
        >>> chunks = normal_chunks(0, (2, 5, 3), 2, torch.device("cpu"), torch.float32)
        >>> [tuple(chunk.shape) for chunk in chunks]
        [(2, 2, 3), (2, 2, 3), (2, 1, 3)]
    """
    batch, samples, length = shape
    offsets = random.Random(seed)
    source = torch.Generator(device).manual_seed(seed)
    drawn = torch.empty(0)
    uses = 0  # left of the last drawn vectors
    for start in range(0, samples, chunk):
        if not uses:
            drawn = torch.randn(batch, chunk, length, generator=source, device=device, dtype=dtype)
            uses = NOISE_USES if length >= NOISE_REUSED_FROM else 1
            part = drawn
        else:
            part = drawn.roll(offsets.randrange(1, length), -1)
        uses -= 1
        yield part[:, : samples - start]
