"""The mechanisms of the thesis, one file each: tensors in, tensors out, no knowledge of models."""

from hf_causal_video.causal.contrast import arrange_negatives, deranged_rows, info_nce
from hf_causal_video.causal.grounding import (
    AnswerScorer,
    Grounding,
    GroundingIndicator,
    grounding_logits,
    gumbel_noise,
    keep_causal,
    split_frames,
)
from hf_causal_video.causal.intervention import FrameBank, divergence, soft_target_loss, swap_frames, uniformity
from hf_causal_video.causal.matching import matching_loss
from hf_causal_video.causal.mixing import draw_lambda, mix, mix_scenes, mixed_answer_loss, two_hot
from hf_causal_video.causal.surroundings import draw_donors, exchange_surroundings, separation_loss, visible_share
from hf_causal_video.causal.topk import hard_topk, perturbed_topk, topk_indices

__all__ = [
    "AnswerScorer",
    "FrameBank",
    "Grounding",
    "GroundingIndicator",
    "arrange_negatives",
    "deranged_rows",
    "divergence",
    "draw_donors",
    "draw_lambda",
    "exchange_surroundings",
    "grounding_logits",
    "gumbel_noise",
    "hard_topk",
    "info_nce",
    "keep_causal",
    "matching_loss",
    "mix",
    "mix_scenes",
    "mixed_answer_loss",
    "perturbed_topk",
    "separation_loss",
    "soft_target_loss",
    "split_frames",
    "swap_frames",
    "topk_indices",
    "two_hot",
    "uniformity",
    "visible_share",
]
