"""Ordinary networks under every method: VideoQA backbones behind one protocol, transformer layers, text encoder."""

from hf_causal_video.backbones.hga import HGA
from hf_causal_video.backbones.protocol import (
    BACKBONES,
    Question,
    Video,
    VideoQABackbone,
    build_backbone,
    register_backbone,
)

__all__ = ["BACKBONES", "HGA", "Question", "Video", "VideoQABackbone", "build_backbone", "register_backbone"]
