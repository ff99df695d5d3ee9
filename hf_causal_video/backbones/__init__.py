"""Ordinary VideoQA networks that the methods wrap, and the text side; importing this package registers them."""

from hf_causal_video.backbones.comem import CoMem
from hf_causal_video.backbones.hga import HGA
from hf_causal_video.backbones.mspan import MSPAN
from hf_causal_video.backbones.plain import PlainTransformer
from hf_causal_video.backbones.protocol import BACKBONES, State, VideoQABackbone, build_backbone, register_backbone

__all__ = [
    "BACKBONES",
    "CoMem",
    "HGA",
    "MSPAN",
    "PlainTransformer",
    "State",
    "VideoQABackbone",
    "build_backbone",
    "register_backbone",
]
