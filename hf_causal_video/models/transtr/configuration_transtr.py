"""Configuration of TranSTR. The official settings are the files in `presets`."""

from typing import Literal

from huggingface_hub.dataclasses import strict

from hf_causal_video.models.configuration import VideoQAConfig
from hf_causal_video.utils.checks import check_whole
from hf_causal_video.utils.errors import require

BOX_WIDTH = {"raw4": 4, "norm5": 5}


@strict
class TranSTRConfig(VideoQAConfig):
    """Configuration of `TranSTRForVideoQuestionAnswering`: the fields of every `VideoQAConfig`, and its own.

    Args:
        hidden_size: model width D.
        num_attention_heads, intermediate_size, num_layers, hidden_dropout_prob: shape of every transformer stack.
        project_frames: project frames to D first; None does so only where C differs from D. The official model never
            does.
        object_feature_dim: width of an object feature without its box.
        bbox_mode: "norm5" appends the box xyxy in [0, 1] and its area, "raw4" the four numbers as given.
        num_frames_kept, num_objects_kept: effective K and M; M = 0 builds a model of frames alone.
        choice_pooling: a choice is its string's first token ("cls") or the mean of its tokens ("mean").
        rank_by: what selection ranks. "scorer": one learned score per frame or object, K distinct ones are kept.
            "energy" and "prob": (frame, token) interactions by cross-attention before or after its softmax; several
            interactions may share a frame, so K slots hold at most K frames. After a softmax over tokens every frame
            has the same total mass, so "prob" rewards peaked attention, not relevance.
        select_after: where in its layer a selection takes place: after the feed-forward ("feedforward", official), or
            before it ("cross_attention"): a scorer reads that state, and a hard choice leaves the feed-forward to the
            kept K. Three times as fast on long encoded videos, but fewer of the kept frames are causal (README).
        rank_after_dropout: rank attention after its dropout in training (official behaviour of "prob").
        score_bound: squash "scorer" and "energy" scores to (-bound, bound) by tanh, so that sigma has a meaning.
        topk_sigma: noise of the perturbed top-K in training, in units of the scores.
        topk_sigma_final: where a trainer anneals sigma to by the end; None (official) keeps it constant.
        topk_samples: noise draws in training.
        topk_gradient: "full" unbiased, or the official "diagonal".
        topk_baseline: subtract the mean credit of the other draws ("full" only); same mean, lower variance.
        topk_order: order of kept slots at test time: "temporal", "score", or "unsorted" as `torch.topk` leaves it
            (official; training is temporal in any case, so the official model sees other slot positions when tested).
        topk_eval: "hard" or "perturbed" selection at test time.
        num_similarities: channels S of the input `similarities`, how well each choice fits each frame as measured
            outside (cosines in a space that both share); they join the ranking and, on kept frames only, the answer.
            0: none.

    Example:
        >>> TranSTRConfig.preset("official-nextqa").num_frames_kept
        12
    """

    model_type = "transtr"

    # Architecture
    hidden_size: int = 768
    num_attention_heads: int = 8
    intermediate_size: int = 2048
    num_layers: int = 1
    hidden_dropout_prob: float | int = 0.1

    # Inputs
    project_frames: bool | None = None
    object_feature_dim: int = 2048
    bbox_mode: Literal["raw4", "norm5"] = "norm5"
    choice_pooling: Literal["cls", "mean"] = "cls"
    num_similarities: int = 0

    # Selection
    num_frames_kept: int = 8
    num_objects_kept: int = 5
    rank_by: Literal["scorer", "energy", "prob"] = "scorer"
    select_after: Literal["cross_attention", "feedforward"] = "feedforward"
    rank_after_dropout: bool = False
    score_bound: float | int | None = 2.0
    topk_sigma: float | int = 1.5
    topk_sigma_final: float | int | None = 0.3
    topk_samples: int = 100
    topk_gradient: Literal["full", "diagonal"] = "full"
    topk_baseline: bool = True
    topk_order: Literal["temporal", "score", "unsorted"] = "temporal"
    topk_eval: Literal["hard", "perturbed"] = "hard"

    @property
    def object_input_dim(self) -> int:
        """Width of an object feature with its box appended."""
        return self.object_feature_dim + BOX_WIDTH[self.bbox_mode]

    def validate_architecture(self) -> None:
        """Refuse combinations that cannot run or that would mean something else."""
        check_whole("num_frames_kept", self.num_frames_kept)
        check_whole("num_objects_kept", self.num_objects_kept, least=0)
        sizes = f"hidden_size={self.hidden_size}, heads={self.num_attention_heads}"
        self._check(self.hidden_size % self.num_attention_heads == 0, sizes, "heads that divide hidden_size")
        self._check(self.hidden_size % 2 == 0, sizes, "an even hidden_size")
        frames = f"frame_feature_dim={self.frame_feature_dim} without projection"
        fits = self.project_frames is not False or self.frame_feature_dim == self.hidden_size
        self._check(fits, frames, f"hidden_size={self.hidden_size}, or project_frames=True")
        measured = f"num_similarities={self.num_similarities}"
        open_ended = self.num_answers is not None
        self._check(not self.num_similarities or not open_ended, f"{measured} with a vocabulary", "multiple choice")
        ranked = not self.num_similarities or self.rank_by != "prob"
        self._check(ranked, f"{measured} ranked by 'prob'", "rank_by 'scorer' or 'energy'")
        has_baseline = self.topk_gradient == "full" or not self.topk_baseline
        self._check(has_baseline, "topk_baseline with the diagonal gradient", "topk_gradient='full', or no baseline")

    def _check(self, holds: bool, found: str, expected: str) -> None:
        require(holds, "TranSTR config", found=found, expected=expected, fix="change one of these fields")
