"""The grounding indicator: two scores a frame, how causal it is for the question and how much it is mere environment.

Source: Li et al., "Invariant Grounding for Video Question Answering", CVPR 2022 (arXiv 2206.02349), section 3.2.
Scores of a question in clips that it does not ask about (`margins`), and `normalize_question`, are ours.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class KeyProjection(nn.Module):
    """The affine layer of the frames, applied to the other factor of their product: q (W k + b) = (q W) k + q b.

    Why: R questions go through it, not V * T frames. It is no `nn.Linear`, since whatever stands in such a layer's
    place (an adapter, a quantised form) only knows x to W x + b.
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
        """Queries (R, H) to the factor of a frame (R, H), and the term to add (R,)."""
        return query @ self.weight, query @ self.bias


class FrameScorer(nn.Module):
    """Scaled dot product of a question with every frame, each behind a linear layer of its own."""

    def __init__(self, dim: int):
        super().__init__()
        self.linear_q, self.linear_k = nn.Linear(dim, dim), KeyProjection(dim)

    def forward(self, question: Tensor, key: Tensor, rows: Tensor | None = None) -> Tensor:
        """Question (R, H) and frames (V, T, H) to energies.

        Args:
            rows: (R,) the clip of each question; None: all.

        Returns:
            (R, T); in all clips (R, V, T).
        """
        factor, shift = self.linear_k(self.linear_q(question) / math.sqrt(question.shape[-1]))
        if rows is None:
            return torch.einsum("rh,vth->rvt", factor, key) + shift[:, None, None]
        return (key[rows] @ factor.unsqueeze(-1)).squeeze(-1) + shift.unsqueeze(-1)


class AnswerScorer(nn.Module):
    """Score how well each frame fits an answer, next to how well it fits the question; for training only.

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
        """Answer vectors (G, H) in every clip of (V, T, H), to log-odds (G, V, T)."""
        return torch.einsum("gh,vth->gvt", vectors, key) / math.sqrt(key.shape[-1])


class GroundingIndicator(nn.Module):
    """Two energies a frame: how causal it is for the question, and how much it is mere environment.

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
        """Question (R, H), frames (V, T, H) and the clip of each question (R,) to energies (R, 2, T), causal first.

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
        if answers is None or self.answers is None:
            return causal - environment
        return causal - environment + self.answers(answers, key)
