"""Differentiable top-K: keep the K parts of a video that the answer needs, and still pass gradient to the scores.

Why: a hard choice of frames or objects makes evidence readable but has no gradient. The mean of hard choices under
Gaussian noise has one; at test time the choice is hard again. No (batch, samples, K, d) tensor is ever built: samples
are drawn, counted and forgotten chunk by chunk, and drawn again from a seed for the backward pass.
Source: TranSTR (arXiv 2307.12058) section 3.2, after Berthet et al. 2020 and Cordonnier et al. 2021.
"""

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from hf_causal_video.causal.noise import normal_chunks
from hf_causal_video.utils.errors import CausalVideoError, require_values

Order = Literal["temporal", "score", "unsorted"]
Gradient = Literal["full", "diagonal"]
CHUNK_ELEMENTS = 1 << 19  # noisy scores alive at once; 2 MiB of float32 stays in cache


def topk_indices(scores: Tensor, k: int, order: Order = "temporal") -> Tensor:
    """Positions (..., k) of the K largest scores (..., d).

    Args:
        scores: (..., d), without NaN.
        k: how many to keep, 1 <= k <= d.
        order: "temporal" sorts the kept positions ascending, "score" by falling score; "unsorted" leaves the order of
            `torch.topk(sorted=False)`, which the published TranSTR feeds to its later stages at test time.

    Example:
        >>> topk_indices(torch.tensor([[0.1, 0.9, 0.3, 0.7]]), 2).tolist()
        [[1, 3]]
    """
    _require("order", order, get_args(Order), order in get_args(Order))
    d = scores.shape[-1]
    _require("size", f"k={k} of {d} positions", f"1 <= k <= {d}", 1 <= k <= d, "keep fewer, or give more")
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
    """The K largest of scores (B, d) as a 0/1 selector (B, d, k); the limit of `perturbed_topk` as sigma goes to zero.

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
    """Expected top-K selector under Gaussian noise, with a gradient for the scores.

    Args:
        scores: (B, d); -inf marks positions that must never be kept while others are left.
        k, order: as in `topk_indices`, inside each draw.
        num_samples: noise draws per row.
        sigma: standard deviation of the noise, in units of the scores; below their spread nothing is explored.
        noise: optional (B, num_samples, d) standard normal draws, to be multiplied by sigma; repeatable then.
        gradient: "full" is unbiased; "diagonal" the published shortcut: a position only hears of its own indicator.
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
    _require("scores", f"shape {tuple(scores.shape)}", "(batch, positions)", scores.dim() == 2)
    topk_indices(scores, k, order)  # refuses a bad k or order, and NaN
    num_samples = noise.shape[1] if noise is not None and noise.dim() == 3 else num_samples
    shape = len(scores), num_samples, scores.shape[1]
    _require("noise", f"sigma={sigma}", "sigma > 0", sigma > 0, "use hard_topk for a choice without noise")
    _require("noise", noise if noise is None else tuple(noise.shape), shape, noise is None or noise.shape == shape)
    _require("samples", num_samples, f"at least {1 + baseline}", num_samples > baseline)
    _require("gradient", gradient, get_args(Gradient), gradient in get_args(Gradient))
    _require("baseline", f"{baseline} with {gradient!r}", "'full' where True", not baseline or gradient == "full")
    device = generator.device if generator else "cpu"
    seed = int(torch.randint(2**62, (), generator=generator, device=device)) if noise is None else None
    return _PerturbedTopK.apply(scores, k, num_samples, sigma, noise, seed, gradient, order, baseline)


def _require(what: str, found: object, expected: object, right: bool, fix: str | None = None) -> None:
    if not right:
        raise CausalVideoError(f"top-K {what}", found=found, expected=expected, fix=fix or f"correct the {what}")


class _PerturbedTopK(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores, k, num_samples, sigma, noise, seed, gradient, order, baseline) -> Tensor:
        (batch, length), base = scores.shape, scores if scores.dtype == torch.float64 else scores.float()
        chunk = min(num_samples, max(1, CHUNK_ELEMENTS // (batch * length)))
        ctx.sampling = noise, seed, (batch, num_samples, length), chunk, base.device, base.dtype
        ctx.rest = k, sigma, gradient, baseline, scores.dtype
        counts = base.new_zeros(batch, k * length)
        correlation = counts.clone() if gradient == "diagonal" else counts.new_empty(0)  # its own memory: it is kept
        offsets, one, kept = torch.arange(k, device=base.device) * length, base.new_ones(()), []
        for draw in _draws(*ctx.sampling):  # (B, n, d)
            indices = torch.add(base.unsqueeze(1), draw, alpha=sigma).topk(k, sorted=order == "score").indices
            indices = indices.sort().values if order == "temporal" else indices  # (B, n, k)
            flat = (indices + offsets).flatten(1)  # (B, n*k) into (k, d)
            counts.scatter_add_(1, flat, one.expand_as(flat))
            if ctx.needs_input_grad[0] and gradient == "diagonal":
                correlation.scatter_add_(1, flat, draw.gather(2, indices).flatten(1))
            elif ctx.needs_input_grad[0]:
                kept.append(indices.to(torch.int16 if length < 2**15 else torch.int32))
        ctx.save_for_backward(torch.cat(kept, 1) if kept else correlation)
        shares = counts.div_(num_samples).view(batch, k, length)
        return shares.transpose(1, 2).to(scores.dtype)  # (B, d, k)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple:
        (k, sigma, gradient, baseline, dtype), (saved,) = ctx.rest, ctx.saved_tensors
        batch, num_samples, length = ctx.sampling[2]
        credit = upstream[0].to(ctx.sampling[-1]).transpose(1, 2)  # (B, k, d)
        if gradient == "diagonal":  # mean over draws of 1(slot j holds i) * noise_i, summed over slots
            grad = (credit * saved.view(batch, k, length)).sum(1)
        else:  # s_n = sum_j credit[j, index_nj]; grad_i = mean_n (s_n - baseline_n) noise_ni / sigma
            total = credit.new_zeros(batch, num_samples)
            for slot in range(k):
                total += credit[:, slot].gather(1, saved[:, :, slot].long())  # (B, n)
            if baseline:
                total = (total - total.mean(1, keepdim=True)) * (num_samples / (num_samples - 1))
            grad = credit.new_zeros(batch, length)
            for part, draw in zip(total.split(ctx.sampling[3], 1), _draws(*ctx.sampling), strict=True):
                grad += torch.bmm(part.unsqueeze(1), draw).squeeze(1)
        return (grad / (num_samples * sigma)).to(dtype), *(None,) * 8


def _draws(noise, seed, shape, chunk, device, dtype):
    """Standard normal noise in chunks of whole samples (B, n, d): parts of what was given, or drawn from the seed."""
    if noise is not None:
        return (part.to(device, dtype) for part in noise.split(chunk, 1))
    return normal_chunks(seed, shape, chunk, device, dtype)
