"""Configuration of TranSTR, with the published settings as presets."""

from typing import Any, Literal

from huggingface_hub.dataclasses import strict

from hf_causal_video.models.configuration import VideoQAConfig
from hf_causal_video.utils.errors import CausalVideoError

BOX_WIDTH = {"raw4": 4, "norm5": 5}
DEBERTA_BASE = {
    "model_type": "deberta",
    "vocab_size": 50265,
    "type_vocab_size": 0,
    "relative_attention": True,
    "pad_token_id": 0,
    "position_biased_input": False,
    "pos_att_type": ["c2p", "p2c"],
    "max_relative_positions": -1,
    "layer_norm_eps": 1e-7,
}
# What the released code does and we would not: each is a switch, and all of them together are the `official-*`
# presets.
OFFICIAL: dict[str, Any] = {
    "text_config": DEBERTA_BASE,
    "hidden_size": 768,
    "frame_feature_dim": 768,
    "project_frames": False,
    "object_feature_dim": 2048,
    "bbox_mode": "raw4",
    "rank_by": "prob",
    "rank_after_dropout": True,
    "score_bound": None,
    "topk_gradient": "diagonal",
    "topk_baseline": False,
    "topk_order": "unsorted",
    "topk_samples": 500,
    "topk_sigma": 0.05,
    "topk_sigma_final": None,
}
# K is the effective size: the released constructors swap their two flags, so `fk=5, ok=12` keeps 12 frames and 5
# objects.
PRESETS: dict[str, dict[str, Any]] = {
    "clean": {},
    "official-nextqa": {**OFFICIAL, "num_frames_kept": 12, "num_objects_kept": 5, "num_choices": 5},
    "official-causalvidqa": {
        **OFFICIAL,
        "num_frames_kept": 12,
        "num_objects_kept": 5,
        "num_choices": 5,
        "bbox_mode": "norm5",
    },
    "official-msvdqa": {**OFFICIAL, "num_frames_kept": 2, "num_objects_kept": 3, "num_answers": 1853},
    "official-msrvttqa": {**OFFICIAL, "num_frames_kept": 5, "num_objects_kept": 1, "num_answers": 5001},
}


@strict
class TranSTRConfig(VideoQAConfig):
    """Configuration of `TranSTRForVideoQuestionAnswering`: the fields of every `VideoQAConfig`, and its own.

    Args:
        hidden_size: model width D.
        num_attention_heads, intermediate_size, num_layers, hidden_dropout_prob: shape of every transformer stack.
        project_frames: project frames to D first; None does so only where C differs from D. The released model never
            does.
        object_feature_dim: width of an object feature without its box.
        bbox_mode: "norm5" appends the box xyxy in [0, 1] and its area, "raw4" the four numbers as given.
        num_frames_kept, num_objects_kept: effective K and M; M = 0 builds a model of frames alone.
        choice_pooling: a choice is its string's first token ("cls") or the mean of its tokens ("mean").
        rank_by: what selection ranks. "scorer": one learned score a frame or object, K distinct ones are kept.
            "energy" and "prob": (frame, token) interactions by cross-attention before or after its softmax; several
            interactions may share a frame, so K slots hold at most K frames. After a softmax over tokens every frame
            has the same total mass, so "prob" rewards peaked attention, not relevance.
        rank_after_dropout: rank attention after its dropout in training (released behaviour of "prob").
        score_bound: squash "scorer" and "energy" scores to (-bound, bound) by tanh, so that sigma has a meaning.
        topk_sigma: noise of the perturbed top-K in training, in units of the scores.
        topk_sigma_final: where a trainer anneals sigma to by the end; None keeps it constant, as released.
        topk_samples: noise draws in training.
        topk_gradient: "full" unbiased, or the released "diagonal".
        topk_baseline: subtract the mean credit of the other draws ("full" only); same mean, lower variance.
        topk_order: order of kept slots at test time: "temporal", "score", or "unsorted" as `torch.topk` leaves it
            (released; training is temporal in any case, so the released model sees other slot positions when tested).
        topk_eval: "hard" or "perturbed" selection at test time.
        num_similarities: channels S of the input `similarities`, how well each choice fits each frame as measured
            outside (cosines in a space that both share); they join the ranking and, on kept frames only, the answer.
            0: none.

    Example:
        >>> TranSTRConfig.preset("official-nextqa").num_frames_kept
        12
    """

    model_type = "transtr"

    hidden_size: int = 768
    num_attention_heads: int = 8
    intermediate_size: int = 2048
    num_layers: int = 1
    hidden_dropout_prob: float | int = 0.1
    project_frames: bool | None = None
    object_feature_dim: int = 2048
    bbox_mode: Literal["raw4", "norm5"] = "norm5"
    num_frames_kept: int = 8
    num_objects_kept: int = 5
    choice_pooling: Literal["cls", "mean"] = "cls"
    rank_by: Literal["scorer", "energy", "prob"] = "scorer"
    rank_after_dropout: bool = False
    score_bound: float | int | None = 2.0
    topk_sigma: float | int = 1.5
    topk_sigma_final: float | int | None = 0.3
    topk_samples: int = 100
    topk_gradient: Literal["full", "diagonal"] = "full"
    topk_baseline: bool = True
    topk_order: Literal["temporal", "score", "unsorted"] = "temporal"
    topk_eval: Literal["hard", "perturbed"] = "hard"
    num_similarities: int = 0

    @classmethod
    def presets(cls) -> dict[str, dict[str, Any]]:
        """The named settings: "clean", and "official-<dataset>" as released."""
        return PRESETS

    @property
    def object_input_dim(self) -> int:
        """Width of an object feature with its box appended."""
        return self.object_feature_dim + BOX_WIDTH[self.bbox_mode]

    def validate_architecture(self) -> None:
        """Refuse combinations that cannot run or would mean something else than they say."""
        if self.hidden_size % self.num_attention_heads or self.hidden_size % 2:
            raise CausalVideoError(
                "TranSTR config",
                found=f"hidden_size={self.hidden_size}, heads={self.num_attention_heads}",
                expected="an even hidden_size divisible by num_attention_heads",
                fix="change one",
            )
        if self.project_frames is False and self.frame_feature_dim != self.hidden_size:
            raise CausalVideoError(
                "TranSTR config",
                found=f"frame_feature_dim={self.frame_feature_dim} without projection",
                expected=f"hidden_size={self.hidden_size}",
                fix="set project_frames=True",
            )
        if self.num_frames_kept < 1 or self.num_objects_kept < 0:
            raise CausalVideoError(
                "TranSTR config",
                found=f"K={self.num_frames_kept}, M={self.num_objects_kept}",
                expected="num_frames_kept >= 1, num_objects_kept >= 0",
                fix="keep at least a frame",
            )
        if self.num_similarities and (self.num_answers is not None or self.rank_by == "prob"):
            raise CausalVideoError(
                "TranSTR config",
                found=f"num_similarities={self.num_similarities} with num_answers={self.num_answers}, "
                f"rank_by={self.rank_by!r}",
                expected="similarities only in multiple choice, ranked by 'scorer' or 'energy'",
                fix="set num_similarities=0, or change the other field",
            )
        if self.topk_baseline and self.topk_gradient == "diagonal":
            raise CausalVideoError(
                "TranSTR config",
                found="topk_baseline with the diagonal gradient",
                expected="a baseline only with topk_gradient='full'",
                fix="set topk_baseline=False",
            )
