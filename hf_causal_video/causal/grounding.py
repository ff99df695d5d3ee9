"""Grounding: which frames does the answer rest on, and which are only its surroundings?

Why: IGV splits a clip, given the question, into a causal scene and an environment. Each frame has one score per side;
a straight-through Gumbel draw turns them into a hard split that gradients pass, and the larger score decides at test
time.

Source: Li et al., "Invariant Grounding for Video Question Answering", CVPR 2022 (arXiv 2206.02349), section 3.2.
Where the released code differs from what we think right, a switch says so: `kind="prob"`, `empty="all"`. Scores of a
question in clips that it does not ask about (`margins`), and `normalize_question`, are ours.
"""

import math
from dataclasses import dataclass, fields
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LogitKind = Literal["energy", "logprob", "prob"]
EmptySide = Literal["best", "all"]


class KeyProjection(nn.Module):
    """The affine layer of the frames, applied to the other factor of their product: q (W k + b) = (q W) k + q b.

    Why: R questions pass it instead of V * T frames. It cannot be an `nn.Linear`: an adapter or a quantised form that
    replaces one maps x to W x + b, and this layer is never applied to x.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(dim, dim)), nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start as `torch.nn.Linear` does."""
        bound = 1 / math.sqrt(len(self.bias))
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Map queries (R, H) to the factor of a frame (R, H), and the term to add (R,)."""
        return query @ self.weight, query @ self.bias


class FrameScorer(nn.Module):
    """Scaled dot product of a question with every frame, each projected by its own linear layer."""

    def __init__(self, dim: int):
        super().__init__()
        self.linear_q, self.linear_k = nn.Linear(dim, dim), KeyProjection(dim)

    def forward(self, question: Tensor, key: Tensor, rows: Tensor | None = None) -> Tensor:
        """Score frames (V, T, H) for questions (R, H).

        Args:
            rows: (R,) the clip of each question; None: all.

        Returns:
            Energies (R, T); in all clips (R, V, T).
        """
        # q . (W k + b) / sqrt(H), computed as (q W) . k + q . b
        factor, shift = self.linear_k(self.linear_q(question) / math.sqrt(question.shape[-1]))
        if rows is None:
            return torch.einsum("rh,vth->rvt", factor, key) + shift[:, None, None]
        return (key[rows] @ factor.unsqueeze(-1)).squeeze(-1) + shift.unsqueeze(-1)


class AnswerScorer(nn.Module):
    """Score how well each frame fits an answer, in addition to how well it fits the question; for training only.

    Args:
        dim: H, width of frames, and of a candidate's vector.
        num_answers: size of the vocabulary, each answer with a vector of its own; None projects candidates' vectors.

    Example:
        >>> scorer = AnswerScorer(8, num_answers=3)
        >>> scorer(scorer.vector(torch.tensor([0, 2])), torch.randn(4, 5, 8)).shape
        torch.Size([2, 4, 5])
    """

    def __init__(self, dim: int, num_answers: int | None = None):
        super().__init__()
        self.vector: nn.Module = nn.Linear(dim, dim) if num_answers is None else nn.Embedding(num_answers, dim)

    def forward(self, vectors: Tensor, key: Tensor) -> Tensor:
        """Compare answer vectors (G, H) with every clip of (V, T, H), to log-odds (G, V, T)."""
        return torch.einsum("gh,vth->gvt", vectors, key) / math.sqrt(key.shape[-1])


class GroundingIndicator(nn.Module):
    """Two energies per frame: how causal it is for the question, and how much it is mere environment.

    Args:
        dim: H, width of question and frames.
        normalize_question: compare the direction of the question vector, whatever its length. Averaged words make a
            short vector, and an indicator that learns slowly is one that is captured.
        answers: scores answers too, for `margins` in training.

    Example:
        >>> indicator = GroundingIndicator(8)
        >>> indicator(torch.randn(3, 8), torch.randn(2, 5, 8), torch.tensor([0, 0, 1])).shape
        torch.Size([3, 2, 5])
    """

    def __init__(self, dim: int, normalize_question: bool = False, answers: AnswerScorer | None = None):
        super().__init__()
        self.fg_att, self.bg_att = FrameScorer(dim), FrameScorer(dim)
        self.normalize_question = normalize_question
        self.answers = answers

    def forward(self, question: Tensor, key: Tensor, rows: Tensor | None = None) -> Tensor:
        """Score frames (V, T, H) for questions (R, H) and the clip of each (R,), to energies (R, 2, T), causal first.

        Without `rows` every question is compared with every clip, (R, 2, V, T).
        """
        if self.normalize_question:
            question = F.layer_norm(question, question.shape[-1:])
        return torch.stack([scorer(question, key, rows) for scorer in (self.fg_att, self.bg_att)], 1)

    def margins(self, question: Tensor, key: Tensor, answers: Tensor | None = None) -> Tensor:
        """Log-odds of causal of each question (R, H) in every clip of (V, T, H), to (R, V, T); see `matching_loss`.

        Answer vectors (R, H) add the scores of each question's answer.
        """
        causal, environment = self(question, key).unbind(1)
        margins = causal - environment
        if answers is None or self.answers is None:
            return margins
        return margins + self.answers(answers, key)


def grounding_logits(energies: Tensor, mask: Tensor, kind: LogitKind = "energy") -> Tensor:
    """Turn energies into the logits by which the two sides compete for a frame.

    Args:
        energies: (R, 2, T) of the indicator.
        mask: (R, T) bool, true at frames that take part in a softmax over frames.
        kind: "energy" as they are; "logprob" their log-softmax over frames, so that the frames of a side compete;
            "prob" the softmax itself, as released: numbers in [0, 1], so that P(causal) cannot leave [0.27, 0.73] at
            tau 1 whatever is learned.

    Returns:
        (R, 2, T), finite everywhere; entries outside the mask are arbitrary.

    Example:
        >>> grounding_logits(torch.zeros(1, 2, 4), torch.ones(1, 4, dtype=torch.bool), "prob")[0, 0]
        tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """
    if kind == "energy":
        return energies
    frame_mask = mask.unsqueeze(1)
    hidden = energies.masked_fill(~frame_mask, torch.finfo(energies.dtype).min)
    return hidden.softmax(-1) if kind == "prob" else hidden.log_softmax(-1).masked_fill(~frame_mask, 0.0)


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
        """Select the splits at `index` (K,)."""
        return Grounding(*(getattr(self, part.name)[index] for part in fields(self)))


def split_frames(
    logits: Tensor, mask: Tensor, tau: float = 1.0, noise: Tensor | None = None, empty: EmptySide = "best"
) -> Grounding:
    """Assign every frame to one side, straight through.

    Args:
        logits: (R, 2, T), causal first.
        mask: (R, T) bool, true at real frames, at least one per clip.
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
    # the side with the larger noisy logit
    causal, environment = (noisy >= 0) & mask, (noisy < 0) & mask
    if empty == "best":
        lowest = torch.finfo(margin.dtype).min
        best = noisy.detach().masked_fill(~mask, lowest).argmax(1, keepdim=True)  # (R, 1)
        least = (-noisy.detach()).masked_fill(~mask, lowest).flip(1).argmax(1, keepdim=True)
        worst = mask.shape[1] - 1 - least  # the last among equals, where `best` is the first
        causal = causal.scatter(1, worst, causal.gather(1, worst) & environment.any(1, keepdim=True))
        causal = causal.scatter(1, best, True)  # also where the clip has one frame alone
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
    """Draw standard Gumbel noise in the shape of a tensor, in float32."""
    return -torch.empty_like(like, dtype=torch.float32).exponential_().log()


def keep_causal(split: Grounding) -> Tensor:
    """List the causal frames of every clip as indices (R, K) in temporal order, K that of the clip with most.

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
    slots = torch.arange(width, device=kept.device)
    return torch.where(slots < counts, order[:, :width], best)
