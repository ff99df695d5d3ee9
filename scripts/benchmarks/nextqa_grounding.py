"""IGV, EIGV and their backbone on the NExT-QA caption benchmark: a backbone of its own, and how it is fed.

The backbone reads three sentence vectors a candidate (question, choice, and both as one text) and one a second. It
starts as a sum of cosines, as TranSTR does in this benchmark, and learns what to add; the indicator starts by ranking
seconds by their cosine to question + choice.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from nextqa_cosines import collate
from torch import Tensor, nn

from hf_causal_video import (
    BackboneConfig,
    BackboneForVideoQuestionAnswering,
    EIGVConfig,
    EIGVForVideoQuestionAnswering,
    IGVConfig,
    IGVForVideoQuestionAnswering,
    register_backbone,
)
from hf_causal_video.backbones import Question, Video, VideoQABackbone
from hf_causal_video.data import video_number

SHARED = {"text_feature_dim": 384, "frame_feature_dim": 384, "backbone": "captions"}
# As in the confounded world, but the indicator keeps about half of the seconds, and starts as the cosine of a
# statement of length 1.
GROUNDING = {"size_weight": 5.0, "size_target": 0.5, "mask_mode": "zero", "normalize_question": False}
MODELS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "backbone": (BackboneConfig, BackboneForVideoQuestionAnswering, {}),
    "igv": (IGVConfig, IGVForVideoQuestionAnswering, {**GROUNDING, "mc_grounding": "per_candidate"}),
    "eigv": (EIGVConfig, EIGVForVideoQuestionAnswering, {**GROUNDING, "num_negatives": 1, "projection_dim": 64}),
}


class Captions(VideoQABackbone):
    """Cosines of choice and statement to the seconds they attend to, and to the question, plus what is learned."""

    def __init__(self, text_dim: int, frame_dim: int, num_answers: int | None, dropout: float = 0.3):
        super().__init__(text_dim, frame_dim, num_answers)
        self.question_dim, self.joint_dim = text_dim, text_dim + 4
        self.similarity = nn.Linear(4, 1, bias=False)
        self.sharpness = nn.Parameter(torch.tensor(5.0))
        self.learned = nn.Linear(text_dim, 1)
        self.dropout = nn.Dropout(dropout)
        nn.init.ones_(self.similarity.weight)
        nn.init.zeros_(self.learned.weight)

    def encode_question(self, tokens: Tensor, mask: Tensor) -> Question:
        """Question, choice and statement (R, 3, D); the statement grounds."""
        return Question(tokens[:, 2], tokens, mask)

    def encode_video(self, frames: Tensor, mask: Tensor) -> Video:
        """Seconds as they are."""
        return Video(frames, mask)

    def fuse(self, question: Question, video: Video) -> Tensor:
        """Four cosines, and the product of statement and clip; (R, D + 4)."""
        assert question.tokens is not None
        asked, choice, statement = F.normalize(question.tokens, dim=-1).unbind(1)  # (R, D) each
        scale = question.tokens.shape[-1] ** 0.5  # a second has this length; one that was masked has none
        cosine = (video.frames @ statement.unsqueeze(-1)).squeeze(-1) / scale  # (R, T)
        weights = (self.sharpness * cosine).masked_fill(~video.mask, torch.finfo(cosine.dtype).min).softmax(-1)
        clip = (weights.unsqueeze(1) @ video.frames).squeeze(1) / scale  # (R, D)
        pairs = ((choice, clip), (statement, clip), (choice, asked), (statement, asked))
        channels = torch.stack([(a * b).sum(-1) for a, b in pairs], -1)  # (R, 4)
        return torch.cat([10 * channels, self.dropout(statement * clip) * scale], -1)

    def answer(self, joint: Tensor) -> Tensor:
        """One score a candidate."""
        return self.similarity(joint[:, :4]) + self.learned(joint[:, 4:])


register_backbone("captions", Captions)


def build_grounded(method: str, width: int) -> Any:
    """A new model of a method around `Captions`."""
    config_class, model_class, fields = MODELS[method]
    sizes = {"text_feature_dim": width, "frame_feature_dim": width}
    model = model_class(config_class(**{**SHARED, **sizes, **fields}))
    if method != "backbone":
        with torch.no_grad():
            for scorer, gain in ((model.indicator.fg_att, 1.0), (model.indicator.bg_att, 0.0)):
                for linear in (scorer.linear_q, scorer.linear_k):
                    nn.init.eye_(linear.weight).mul_(gain)
                    nn.init.zeros_(linear.bias)
    return model


def collate_grounded(items: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """A batch as IGV and EIGV read it: three vectors a candidate, and the video of each question."""
    batch = collate([{name: value for name, value in item.items() if name != "similarities"} for item in items])
    statement, asked = batch.pop("choice_features"), batch["question_features"]
    choice = torch.stack([item["choices_alone"] for item in items])  # (B, A, D)
    question = asked.expand(-1, statement.shape[1], -1)
    batch["choice_features"] = torch.stack([question, choice, statement], 2)  # (B, A, 3, D)
    batch["video_ids"] = torch.tensor([video_number(item["video_id"]) for item in items])
    return batch
