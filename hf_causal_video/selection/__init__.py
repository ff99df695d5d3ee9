"""Frames for any video language model: selectors behind one interface, budgets, and the binding to a processor."""

from hf_causal_video.selection.binding import bind_selector, metadata_in_ms
from hf_causal_video.selection.budget import TokenBudget, count_visual_tokens, visual_token_ids, visual_tokens
from hf_causal_video.selection.causal import CausalSelector
from hf_causal_video.selection.clip import Clip
from hf_causal_video.selection.dual_encoder import DualEncoder, open_encoder
from hf_causal_video.selection.rules import Selection
from hf_causal_video.selection.selectors import (
    FrameSelector,
    RandomSelector,
    Ranking,
    SimilaritySelector,
    UniformSelector,
)
from hf_causal_video.selection.vlm import VLMAnswer, ask_vlm

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
    "open_encoder",
    "count_visual_tokens",
    "visual_token_ids",
    "visual_tokens",
]
