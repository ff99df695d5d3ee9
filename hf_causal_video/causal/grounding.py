"""Grounding: which frames does the answer rest on, and which are only its surroundings?

Why: IGV splits a clip, given the question, into a causal scene and an environment. Each frame has two scores, one a
side (`indicator.py`); a straight-through Gumbel draw turns them into a hard split that gradients pass, and the larger
score decides at test time.

Source: Li et al., "Invariant Grounding for Video Question Answering", CVPR 2022 (arXiv 2206.02349), section 3.2.
Where the released code differs from what we think right, a switch says so: `kind="prob"`, `empty="all"`.
"""

from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

LogitKind = Literal["energy", "logprob", "prob"]
EmptySide = Literal["best", "all"]


def grounding_logits(energies: Tensor, mask: Tensor, kind: LogitKind = "energy") -> Tensor:
    """What the two sides compete with.

    Args:
        energies: (R, 2, T) of the indicator.
        mask: (R, T) bool, true at frames that take part in a softmax over frames.
        kind: "energy" as they are; "logprob" their log-softmax over frames, so that the frames of a side compete;
            "prob" the softmax itself, as released: numbers in [0, 1], so that P(causal) cannot leave [0.27, 0.73] at
            tau 1 whatever is learned.

    Returns:
        (R, 2, T), finite everywhere; what stands outside the mask means nothing.

    Example:
        >>> grounding_logits(torch.zeros(1, 2, 4), torch.ones(1, 4, dtype=torch.bool), "prob")[0, 0]
        tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """
    if kind == "energy":
        return energies
    there = mask.unsqueeze(1)
    hidden = energies.masked_fill(~there, torch.finfo(energies.dtype).min)
    return hidden.softmax(-1) if kind == "prob" else hidden.log_softmax(-1).masked_fill(~there, 0.0)


@dataclass
class Grounding:
    """A split of R clips of T frames.

    Args:
        causal, environment: (R, T) exactly 0 or 1, gradients straight through to the scores; 0 at padding.
        chosen_causal, chosen_environment: (R, T) bool, the frames that each branch encodes: the same frames, or all
            frames of a clip whose side was empty, as released.
        probability: (R, T) P(causal) without noise; 0 at padding.
        scores: (R, T) log-odds of causal; -inf at padding.
    """

    causal: Tensor
    environment: Tensor
    chosen_causal: Tensor
    chosen_environment: Tensor
    probability: Tensor
    scores: Tensor

    def rows(self, index: Tensor) -> "Grounding":
        """The splits at `index` (K,)."""
        return Grounding(*(getattr(self, part.name)[index] for part in fields(self)))


def split_frames(
    logits: Tensor, mask: Tensor, tau: float = 1.0, noise: Tensor | None = None, empty: EmptySide = "best"
) -> Grounding:
    """Give every frame to one side, straight through.

    Args:
        logits: (R, 2, T), causal first.
        mask: (R, T) bool, true at real frames, at least one a clip.
        tau: temperature of the Gumbel softmax.
        noise: (R, 2, T) Gumbel noise; None takes the larger logit.
        empty: a side without any frame takes its best one ("best"); or stays empty while its branch encodes all
            frames of a clip of zeros ("all", as released). A clip of one frame is causal: it has no environment.

    Example:
        >>> logits = torch.tensor([[[2.0, 1.0, 9.0], [0.0, 0.0, 0.0]]])
        >>> split = split_frames(logits, torch.tensor([[True, True, False]]))
        >>> split.causal.tolist(), split.environment.tolist()
        ([[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]])
    """
    margin = (logits[:, 0] - logits[:, 1]) / tau  # (R, T)
    noisy = margin if noise is None else margin + (noise[:, 0] - noise[:, 1]).to(margin.dtype) / tau
    causal, environment = (noisy >= 0) & mask, (noisy < 0) & mask
    if empty == "best":
        lowest = torch.finfo(margin.dtype).min
        best = noisy.detach().masked_fill(~mask, lowest).argmax(1, keepdim=True)  # (R, 1)
        least = (-noisy.detach()).masked_fill(~mask, lowest).flip(1).argmax(1, keepdim=True)
        worst = mask.shape[1] - 1 - least  # the last among equals, where `best` is the first
        causal = causal.scatter(1, worst, causal.gather(1, worst) & environment.any(1, keepdim=True))
        causal = causal.scatter(1, best, True)
        environment = mask & ~causal
    soft = noisy.sigmoid() * mask  # the two-way softmax of the causal side
    through = soft - soft.detach()  # zero, with the gradient of `soft`
    return Grounding(
        causal=causal.to(soft.dtype) + through,
        environment=environment.to(soft.dtype) - through,
        chosen_causal=torch.where(causal.any(1, keepdim=True), causal, mask),
        chosen_environment=torch.where(environment.any(1, keepdim=True), environment, mask),
        probability=margin.sigmoid() * mask,
        scores=margin.masked_fill(~mask, -torch.inf),
    )


def gumbel_noise(like: Tensor) -> Tensor:
    """Standard Gumbel noise in the shape of a tensor, in float32."""
    return -torch.empty_like(like, dtype=torch.float32).exponential_().log()


def keep_causal(split: Grounding) -> Tensor:
    """The causal frames of every clip as indices (R, K) in temporal order, K that of the clip with most.

    A clip with fewer repeats its best causal frame.

    Example:
        >>> logits = torch.tensor([[[2.0, -1.0, 3.0], [0.0, 0.0, 0.0]], [[-1.0, 1.0, -1.0], [0.0, 0.0, 0.0]]])
        >>> keep_causal(split_frames(logits, torch.ones(2, 3, dtype=torch.bool)))
        tensor([[0, 2],
                [1, 1]])
    """
    kept = split.chosen_causal
    order = (~kept).int().sort(dim=1, stable=True).indices  # causal frames first, in temporal order
    best = split.scores.masked_fill(~kept, -torch.inf).argmax(1, keepdim=True)  # (R, 1)
    counts = kept.sum(1, keepdim=True)
    width = kept.shape[1] if torch.compiler.is_compiling() else int(counts.max())
    places = torch.arange(width, device=kept.device)
    return torch.where(places < counts, order[:, :width], best)
