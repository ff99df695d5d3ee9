"""Causal video understanding on Hugging Face: it answers, shows the frames and objects it used, and proves that they
mattered.

Importing the package registers its models with the Auto classes of transformers and its pipelines by name.

Shapes, named alike everywhere: B samples, T frames or clips, N objects of a frame, L question tokens, C feature
channels in, D hidden width, A answer candidates or vocabulary, K and M kept frames and objects, P predicates, S
memory entries. Units: seconds for spans and times (`start_s`, `end_s`, `time_s`), zero-based frame index, boxes xyxy
in [0, 1], rates in frames a second.
"""

from hf_causal_video.backbones import VideoQABackbone, register_backbone
from hf_causal_video.hub import convert_official_checkpoint
from hf_causal_video.models import (
    BackboneConfig,
    BackboneForVideoQuestionAnswering,
    EIGVConfig,
    EIGVForVideoQuestionAnswering,
    Evidence,
    IGVConfig,
    IGVForVideoQuestionAnswering,
    IVRDConfig,
    IVRDForVideoRelationDetection,
    TranSTRConfig,
    TranSTRForVideoQuestionAnswering,
    VideoQAOutput,
    VideoQAProcessor,
    VideoRelationProcessor,
)
from hf_causal_video.pipelines.question_answering import VideoQuestionAnsweringPipeline
from hf_causal_video.utils.errors import CausalVideoError
from hf_causal_video.utils.version import __version__

__all__ = [
    "BackboneConfig",
    "BackboneForVideoQuestionAnswering",
    "CausalVideoError",
    "EIGVConfig",
    "EIGVForVideoQuestionAnswering",
    "Evidence",
    "IGVConfig",
    "IGVForVideoQuestionAnswering",
    "IVRDConfig",
    "IVRDForVideoRelationDetection",
    "TranSTRConfig",
    "TranSTRForVideoQuestionAnswering",
    "VideoQABackbone",
    "VideoQAOutput",
    "VideoQAProcessor",
    "VideoQuestionAnsweringPipeline",
    "VideoRelationProcessor",
    "__version__",
    "convert_official_checkpoint",
    "register_backbone",
]
