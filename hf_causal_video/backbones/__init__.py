"""Ordinary networks under every method: VideoQA backbones behind one protocol, transformer layers, text encoder."""

from hf_causal_video.backbones.base import (
    BACKBONES,
    Question,
    Video,
    VideoQABackbone,
    build_backbone,
    register_backbone,
)
from hf_causal_video.backbones.comem import CoMem
from hf_causal_video.backbones.hga import HGA
from hf_causal_video.backbones.mspan import MSPAN
from hf_causal_video.backbones.plain import PlainTransformer
from hf_causal_video.backbones.pooling import AttentionPooling

__all__ = [
    "BACKBONES",
    "HGA",
    "MSPAN",
    "AttentionPooling",
    "CoMem",
    "PlainTransformer",
    "Question",
    "Video",
    "VideoQABackbone",
    "build_backbone",
    "register_backbone",
]
