"""Plain transformer: frames attend to each other, question tokens attend to frames. The default for own features.

Why: it takes features of any width and clips of any length, shares the encoding of a clip between its questions, and
is strong; on the confounded world it ignores the environment by itself. Layers as in `transformer.py`.
"""

from torch import Tensor, nn

from hf_causal_video.backbones.base import (
    Question,
    Video,
    VideoQABackbone,
    bias_of,
    check_sizes,
    register_backbone,
    without_bias,
)
from hf_causal_video.backbones.pooling import masked_mean
from hf_causal_video.backbones.transformer import TransformerStack, sine_positions


class PlainTransformer(VideoQABackbone):
    """Self-attention over frames, cross-attention from question tokens, mean over tokens.

    Args:
        text_dim, frame_dim, num_answers: as in `VideoQABackbone`.
        hidden_size: H = J, a multiple of `heads` and of 2.
        heads, intermediate_size, dropout: of every layer.
        layers: layers over frames, and as many from tokens to frames.

    Example:
        >>> import torch
        >>> plain = PlainTransformer(6, 10, 3, hidden_size=8, heads=2, intermediate_size=16)
        >>> question = plain.encode_question(torch.randn(2, 4, 6), torch.ones(2, 4, dtype=torch.bool))
        >>> frames = plain.embed_frames(torch.randn(2, 7, 10))
        >>> video = plain.encode_video(frames, torch.ones(2, 7, dtype=torch.bool))
        >>> plain.answer(plain.fuse(question, video)).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        text_dim: int,
        frame_dim: int,
        num_answers: int | None,
        hidden_size: int = 512,
        heads: int = 8,
        intermediate_size: int = 1024,
        layers: int = 1,
        dropout: float = 0.1,
    ):
        super().__init__(text_dim, frame_dim, num_answers)
        check_sizes("plain", hidden_size, {"2": 2, "heads": heads}, layers=layers)
        self.question_dim = self.joint_dim = hidden_size
        self.word = nn.Linear(text_dim, hidden_size)
        self.frame = nn.Linear(frame_dim, hidden_size)
        self.dropout = nn.Dropout(dropout)
        shape = (layers, hidden_size, heads, intermediate_size, dropout)
        self.video_encoder = TransformerStack(*shape, cross=False)
        self.decoder = TransformerStack(*shape, cross=True)
        self.classifier = nn.Linear(hidden_size, 1 if num_answers is None else num_answers)

    def encode_question(self, tokens: Tensor, mask: Tensor) -> Question:
        """Project tokens to (R, L, H), and average them to (R, H)."""
        tokens = self.dropout(self.word(tokens))  # (R, L, H)
        return Question(masked_mean(tokens, mask), tokens, mask)

    def embed_frames(self, frames: Tensor) -> Tensor:
        """Project frames to H, without the bias."""
        return without_bias(self.frame, frames)

    def encode_video(self, frames: Tensor, mask: Tensor) -> Video:
        """Let frames attend to each other, (V, T, H)."""
        # embed_frames left the bias out, so that frames of zeros stayed zeros
        frames = self.dropout((frames + bias_of(self.frame, self.frame_dim, frames)).relu())
        positions = sine_positions(mask, frames.shape[-1]).to(frames.dtype)  # (V, T, H)
        return Video(self.video_encoder(frames, positions, mask)[0], mask)

    def fuse(self, question: Question, video: Video) -> Tensor:
        """Let tokens attend to each other and to the frames, and average them to (R, H)."""
        assert question.tokens is not None and question.mask is not None
        tokens, _ = self.decoder(question.tokens, None, question.mask, video.frames, video.mask)  # (R, L, H)
        return masked_mean(tokens, question.mask)

    def answer(self, joint: Tensor) -> Tensor:
        """Score answers by a linear layer, to (R, num_answers or 1)."""
        return self.classifier(joint)


register_backbone("plain", PlainTransformer)
