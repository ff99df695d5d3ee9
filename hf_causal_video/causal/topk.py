"""Differentiable top-K: keep the K parts of a video that the answer needs, and still pass gradient to the scores.

Why: a hard choice of frames or objects is what makes evidence readable, but it has no gradient. Perturbed optimisers
smooth it: the mean of hard choices under Gaussian noise is differentiable, and its gradient needs no relaxation at test
time, where the choice is hard again.

Source: TranSTR (arXiv 2307.12058) section 3.2, after Cordonnier et al. 2021 and Berthet et al. 2020. The published code
keeps only the diagonal of the Jacobian; the default here is the whole, unbiased product. No (batch, samples, K, d) tensor
is ever built: samples are drawn, counted and forgotten chunk by chunk, and drawn again from a seed for the backward pass.
"""

from typing import Any, Literal

import torch
from torch import Tensor

from hf_causal_video.errors import CausalVideoError

Order = Literal["temporal", "score", "unsorted"]
Gradient = Literal["full", "diagonal"]
CHUNK_ELEMENTS = 1 << 19  # noisy scores alive at once; 2 MiB of float32 stays in cache


def topk_indices(scores: Tensor, k: int, order: Order = "temporal") -> Tensor:
    """Positions of the K largest scores.

    Args:
        scores: (..., d).
        k: how many to keep, 1 <= k <= d.
        order: "temporal" sorts the kept positions ascending, "score" by falling score, "unsorted" leaves the order of
            `torch.topk(sorted=False)`, which is what the published TranSTR feeds to its later stages at test time.

    Returns:
        (..., k) int64.

    Example:
        >>> topk_indices(torch.tensor([[0.1, 0.9, 0.3, 0.7]]), 2).tolist()
        [[1, 3]]
    """
    _check_k(k, scores.shape[-1])
    indices = scores.topk(k, dim=-1, sorted=order == "score").indices
    return indices.sort(dim=-1).values if order == "temporal" else indices


def hard_topk(scores: Tensor, k: int, order: Order = "temporal") -> Tensor:
    """The K largest scores as a 0/1 selector; the limit of `perturbed_topk` as sigma goes to zero.

    Args:
        scores: (B, d).
        k: how many to keep.
        order: see `topk_indices`.

    Returns:
        (B, d, k): column j is one-hot at the j-th kept position.

    Example:
        >>> hard_topk(torch.tensor([[0.1, 0.9, 0.3]]), 2)[0].T.tolist()
        [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    indices = topk_indices(scores, k, order)  # (B, k)
    selector = scores.new_zeros(*scores.shape, k)  # (B, d, k)
    return selector.scatter_(-2, indices.unsqueeze(-2), 1.0)


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
        k: how many to keep, 1 <= k <= d.
        num_samples: noise draws per row.
        sigma: standard deviation of the noise, in units of the scores; below their spread nothing is explored.
        noise: optional (B, num_samples, d) standard normal draws, to be multiplied by sigma; makes the result repeatable.
        gradient: "full" is the unbiased vector-Jacobian product; "diagonal" the published shortcut, in which a position
            only hears of its own indicator.
        order: order of the kept positions inside each draw, see `topk_indices`.
        baseline: subtract from each draw's credit the mean credit of the other draws ("full" only): same expectation,
            lower variance.
        generator: source of the noise; the global one of the scores' device otherwise.

    Returns:
        (B, d, k): entry (i, j) is the share of draws whose j-th kept position is i; every column sums to 1.

    Raises:
        CausalVideoError: k outside 1..d, NaN scores, sigma <= 0, or noise of another shape.

    Example:
        >>> scores = torch.tensor([[0.0, 2.0, 1.0]], requires_grad=True)
        >>> selector = perturbed_topk(scores, 2, num_samples=100, sigma=0.1)
        >>> selector.shape, bool(selector.sum(1).allclose(torch.ones(1, 2)))
        (torch.Size([1, 3, 2]), True)
    """
    _check_k(k, scores.shape[-1])
    if scores.isnan().any():
        raise CausalVideoError("top-K over NaN scores", found="NaN", expected="numbers or -inf",
                               fix="look for NaN in the features or for a diverged training step")  # fmt: skip
    if not sigma > 0:
        raise CausalVideoError("top-K noise", found=f"sigma={sigma}", expected="sigma > 0", fix="use hard_topk for no noise")
    if noise is not None:
        num_samples = noise.shape[1] if noise.dim() == 3 else num_samples
        if noise.shape != (scores.shape[0], num_samples, scores.shape[1]):
            raise CausalVideoError("top-K noise", found=tuple(noise.shape), fix="draw noise for these scores",
                                   expected=f"(batch, samples, length) = ({scores.shape[0]}, n, {scores.shape[1]})")  # fmt: skip
    if num_samples < 1 + baseline:
        raise CausalVideoError("top-K samples", found=num_samples, expected=f"at least {1 + baseline}", fix="draw more")
    seed = None
    if noise is None:
        device = generator.device if generator is not None else "cpu"
        seed = int(torch.randint(2**62, (), generator=generator, device=device))
    return _PerturbedTopK.apply(scores, k, num_samples, sigma, noise, seed, gradient, order, baseline)


def _check_k(k: int, length: int) -> None:
    if not 1 <= k <= length:
        raise CausalVideoError("top-K size", found=f"k={k} of {length} positions", expected=f"1 <= k <= {length}",
                               fix="keep fewer, or give more frames or objects")  # fmt: skip


class _PerturbedTopK(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores, k, num_samples, sigma, noise, seed, gradient, order, baseline) -> Tensor:
        ctx.sampling = noise, seed, num_samples, scores.shape, scores.device, _working_dtype(scores)
        ctx.rest = k, sigma, gradient, baseline, scores.dtype
        batch, length = scores.shape
        need_grad = ctx.needs_input_grad[0]
        base = scores.to(_working_dtype(scores))
        counts = base.new_zeros(batch, k * length)
        correlation = torch.zeros_like(counts) if gradient == "diagonal" and need_grad else None
        offsets = torch.arange(k, device=scores.device) * length
        kept = []
        for draw in _draws(*ctx.sampling):  # (B, n, d)
            indices = topk_indices(torch.add(base.unsqueeze(1), draw, alpha=sigma), k, order)  # (B, n, k)
            flat = (indices + offsets).flatten(1)  # (B, n*k), slot-major positions of (k, d)
            counts.scatter_add_(1, flat, torch.ones((), dtype=base.dtype, device=base.device).expand_as(flat))
            if correlation is not None:
                correlation.scatter_add_(1, flat, draw.gather(2, indices).flatten(1))
            elif need_grad:
                kept.append(indices.to(torch.int16 if length < 2**15 else torch.int32))
        ctx.save_for_backward(correlation if correlation is not None else torch.cat(kept, 1) if kept else None)
        return (counts / num_samples).view(batch, k, length).transpose(1, 2).to(scores.dtype)  # (B, d, k)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple:
        k, sigma, gradient, baseline, dtype = ctx.rest
        num_samples, (batch, length) = ctx.sampling[2], ctx.sampling[3]
        credit = upstream[0].to(ctx.sampling[-1])  # (B, d, k)
        (saved,) = ctx.saved_tensors
        if gradient == "diagonal":  # mean over draws of 1(slot j holds i) * noise_i, summed over slots
            grad = (credit * saved.view(batch, k, length).transpose(1, 2)).sum(-1)
        else:  # s_n = sum_j credit[index_nj, j]; grad_i = mean_n (s_n - baseline_n) noise_ni / sigma
            flat = saved.long() * k + torch.arange(k, device=credit.device)  # (B, n, k) into (d, k)
            total = credit.flatten(1).gather(1, flat.flatten(1)).view(batch, num_samples, k).sum(-1)  # (B, n)
            if baseline:
                total = (total - total.mean(1, keepdim=True)) * (num_samples / (num_samples - 1))
            grad, start = credit.new_zeros(batch, length), 0
            for draw in _draws(*ctx.sampling):
                part = total[:, start : (start := start + draw.shape[1])]
                grad += torch.bmm(part.unsqueeze(1), draw).squeeze(1)
        return (grad / (num_samples * sigma)).to(dtype), *(None,) * 8


def _working_dtype(scores: Tensor) -> torch.dtype:
    return torch.float64 if scores.dtype == torch.float64 else torch.float32


def _draws(noise, seed, num_samples, shape, device, dtype):
    """Standard normal noise in chunks of whole samples (B, n, d): slices of what was given, or drawn anew from the seed."""
    chunk = max(1, CHUNK_ELEMENTS // max(1, shape[0] * shape[1]))
    source = None if seed is None else torch.Generator(device).manual_seed(seed)
    for start in range(0, num_samples, chunk):
        size = min(chunk, num_samples - start)
        if noise is not None:
            yield noise[:, start : start + size].to(device, dtype)
        else:
            yield torch.randn(shape[0], size, shape[1], generator=source, device=device, dtype=dtype)
