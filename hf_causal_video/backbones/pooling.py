"""Attention pooling: the question weighs frames, and their weighted mean is the clip. The lightest backbone.

Why: it cannot correct what its attention admits, so it shows most clearly what a grounding method changes; the studies
on the confounded world use it. Own design; nothing is published under this name.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_causal_video.backbones.base import Question, Video, VideoQABackbone, bias_of, register_backbone, without_bias


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Average over the true steps, (R, L, D) and (R, L) to (R, D)."""
    weight = mask.unsqueeze(-1).to(x.dtype)  # (R, L, 1)
    return (x * weight).sum(1) / weight.sum(1).clamp(min=1)


class AttentionPooling(VideoQABackbone):
    """One question vector attends over frames; the answer is computed from their product.

    Args:
        text_dim, frame_dim, num_answers: as in `VideoQABackbone`.
        hidden_size: H = J.
        dropout: on frames and on the joint vector.
        normalize_question: give the question vector a constant length (a layer norm without parameters). Averaged
            words make a short vector, and a backbone that learns its question slowly learns the scenery first; without
            it this is a weak baseline.

    Example:
        >>> pooling = AttentionPooling(6, 10, 3, hidden_size=4)
        >>> question = pooling.encode_question(torch.randn(2, 4, 6), torch.ones(2, 4, dtype=torch.bool))
        >>> frames = pooling.embed_frames(torch.randn(2, 7, 10))
        >>> video = pooling.encode_video(frames, torch.ones(2, 7, dtype=torch.bool))
        >>> pooling.answer(pooling.fuse(question, video)).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        text_dim: int,
        frame_dim: int,
        num_answers: int | None,
        hidden_size: int = 64,
        dropout: float = 0.0,
        normalize_question: bool = True,
    ):
        super().__init__(text_dim, frame_dim, num_answers)
        self.question_dim = self.joint_dim = hidden_size
        self.normalize_question = normalize_question
        self.word = nn.Linear(text_dim, hidden_size)
        self.frame = nn.Linear(frame_dim, hidden_size)
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.joint = nn.Linear(3 * hidden_size, hidden_size)
        self.classifier = nn.Linear(hidden_size, 1 if num_answers is None else num_answers)
        self.dropout = nn.Dropout(dropout)

    def encode_question(self, tokens: Tensor, mask: Tensor) -> Question:
        """The mean of the projected tokens, normalized unless asked otherwise (R, H)."""
        mean = masked_mean(self.word(tokens), mask)  # (R, H)
        if self.normalize_question:
            mean = F.layer_norm(mean, mean.shape[-1:])
        return Question(mean.relu())

    def embed_frames(self, frames: Tensor) -> Tensor:
        """Project frames to H, without the bias."""
        return without_bias(self.frame, frames)

    def encode_video(self, frames: Tensor, mask: Tensor) -> Video:
        """Encode each frame by itself, (V, T, H)."""
        return Video(self.dropout((frames + bias_of(self.frame, self.frame_dim, frames)).relu()), mask)

    def fuse(self, question: Question, video: Video) -> Tensor:
        """Pool the frames by the question's attention; map question, clip and their product to (R, H)."""
        scores = (self.key(video.frames) @ self.query(question.pooled).unsqueeze(-1)).squeeze(-1)  # (R, T)
        scores = (scores / math.sqrt(self.question_dim)).masked_fill(~video.mask, torch.finfo(scores.dtype).min)
        clip = (scores.softmax(-1).unsqueeze(1) @ video.frames).squeeze(1)  # (R, H)
        joint = self.joint(torch.cat([question.pooled, clip, question.pooled * clip], -1))  # (R, 3H) to (R, H)
        return self.dropout(joint.relu())

    def answer(self, joint: Tensor) -> Tensor:
        """Score answers by a linear layer, to (R, num_answers or 1)."""
        return self.classifier(joint)


register_backbone("pooling", AttentionPooling)
