"""Frames for any video language model: selectors behind one interface, budgets, and the binding to a processor."""

from hf_causal_video.evidence.selection.asking import VLMAnswer, ask_vlm
from hf_causal_video.evidence.selection.binding import bind_selector, metadata_in_ms
from hf_causal_video.evidence.selection.budget import TokenBudget, count_visual_tokens, visual_token_ids, visual_tokens
from hf_causal_video.evidence.selection.causal import CausalSelector
from hf_causal_video.evidence.selection.choice import Selection
from hf_causal_video.evidence.selection.clip import Clip
from hf_causal_video.evidence.selection.dual_encoder import DualEncoder
from hf_causal_video.evidence.selection.selectors import (
    FrameSelector,
    RandomSelector,
    Ranking,
    SimilaritySelector,
    UniformSelector,
)

__all__ = [
    "CausalSelector",
    "Clip",
    "DualEncoder",
    "FrameSelector",
    "RandomSelector",
    "Ranking",
    "Selection",
    "SimilaritySelector",
    "TokenBudget",
    "UniformSelector",
    "VLMAnswer",
    "ask_vlm",
    "bind_selector",
    "metadata_in_ms",
    "count_visual_tokens",
    "visual_token_ids",
    "visual_tokens",
]
