"""The grounding indicator: two scores a frame, how causal it is for the question and how much it is mere environment.

Source: Li et al., "Invariant Grounding for Video Question Answering", CVPR 2022 (arXiv 2206.02349), section 3.2.
Scores of a question in clips that it does not ask about (`margins`), and `normalize_question`, are ours.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FrameScorer(nn.Module):
    """Scaled dot product of a question with every frame, each behind a linear layer of its own."""

    def __init__(self, dim: int):
        super().__init__()
        self.linear_q, self.linear_k = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, question: Tensor, key: Tensor, rows: Tensor) -> Tensor:
        """Question (R, H), frames (V, T, H) and the clip of each question (R,) to energies (R, T)."""
        asked, shift = self._ask(question)
        return (key[rows] @ asked.unsqueeze(-1)).squeeze(-1) + shift.unsqueeze(-1)

    def everywhere(self, question: Tensor, key: Tensor) -> Tensor:
        """Question (R, H) in every clip of (V, T, H), to energies (R, V, T)."""
        asked, shift = self._ask(question)
        return torch.einsum("rh,vth->rvt", asked, key) + shift[:, None, None]

    def _ask(self, question: Tensor) -> tuple[Tensor, Tensor]:
        """What a frame is multiplied with (R, H), and added (R,): the key's layer is applied to R questions, not to
        V * T frames."""
        query = self.linear_q(question) / math.sqrt(question.shape[-1])
        return query @ self.linear_k.weight, query @ self.linear_k.bias


class GroundingIndicator(nn.Module):
    """Two energies a frame: how causal it is for the question, and how much it is mere environment.

    Args:
        dim: H, width of question and frames.
        normalize_question: compare the direction of the question vector, whatever its length. Averaged words make a
            short vector, and an indicator that learns slowly is one that is captured.

    Example:
        >>> indicator = GroundingIndicator(8)
        >>> indicator(torch.randn(3, 8), torch.randn(2, 5, 8), torch.tensor([0, 0, 1])).shape
        torch.Size([3, 2, 5])
    """

    def __init__(self, dim: int, normalize_question: bool = False):
        super().__init__()
        self.fg_att, self.bg_att = FrameScorer(dim), FrameScorer(dim)
        self.normalize_question = normalize_question

    def forward(self, question: Tensor, key: Tensor, rows: Tensor) -> Tensor:
        """Question (R, H), frames (V, T, H) and the clip of each question (R,) to energies (R, 2, T), causal first."""
        question = self._direction(question)
        return torch.stack([scorer(question, key, rows) for scorer in (self.fg_att, self.bg_att)], 1)

    def margins(self, question: Tensor, key: Tensor) -> Tensor:
        """Log-odds of causal of each question (R, H) in every clip of (V, T, H), to (R, V, T); see `matching_loss`."""
        question = self._direction(question)
        return self.fg_att.everywhere(question, key) - self.bg_att.everywhere(question, key)

    def _direction(self, question: Tensor) -> Tensor:
        return F.layer_norm(question, question.shape[-1:]) if self.normalize_question else question
