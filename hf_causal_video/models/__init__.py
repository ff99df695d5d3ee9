"""One folder a method; importing this package teaches the Auto classes of transformers to load them."""

from typing import Any

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMultipleChoice,
    AutoModelForVisualQuestionAnswering,
    AutoProcessor,
)

from hf_causal_video.models.backbone import BackboneConfig, BackboneForVideoQuestionAnswering
from hf_causal_video.models.eigv import EIGVConfig, EIGVForVideoQuestionAnswering
from hf_causal_video.models.igv import IGVConfig, IGVForVideoQuestionAnswering
from hf_causal_video.models.ivrd import IVRDConfig, IVRDForVideoRelationDetection
from hf_causal_video.models.ivrd.processing_video_relation import VideoRelationProcessor
from hf_causal_video.models.outputs import Evidence, EvidenceFrame, EvidenceObject, VideoQAOutput
from hf_causal_video.models.processing_video_qa import VideoQAInputs, VideoQAProcessor
from hf_causal_video.models.transtr import TranSTRConfig, TranSTRForVideoQuestionAnswering

__all__ = [
    "BackboneConfig",
    "BackboneForVideoQuestionAnswering",
    "EIGVConfig",
    "EIGVForVideoQuestionAnswering",
    "Evidence",
    "EvidenceFrame",
    "EvidenceObject",
    "IGVConfig",
    "IGVForVideoQuestionAnswering",
    "IVRDConfig",
    "IVRDForVideoRelationDetection",
    "TranSTRConfig",
    "TranSTRForVideoQuestionAnswering",
    "VideoQAInputs",
    "VideoQAOutput",
    "VideoQAProcessor",
    "VideoRelationProcessor",
]

METHODS: dict[str, tuple[Any, Any, Any]] = {
    "transtr": (TranSTRConfig, TranSTRForVideoQuestionAnswering, VideoQAProcessor),
    "video_qa_backbone": (BackboneConfig, BackboneForVideoQuestionAnswering, VideoQAProcessor),
    "igv": (IGVConfig, IGVForVideoQuestionAnswering, VideoQAProcessor),
    "eigv": (EIGVConfig, EIGVForVideoQuestionAnswering, VideoQAProcessor),
}
RELATION_METHODS = {"ivrd": (IVRDConfig, IVRDForVideoRelationDetection, VideoRelationProcessor)}

for _name, (_config, _model, _processor) in {**METHODS, **RELATION_METHODS}.items():
    AutoConfig.register(_name, _config)
    AutoModel.register(_config, _model)
    AutoProcessor.register(_config, _processor)
    if _name in METHODS:
        AutoModelForMultipleChoice.register(_config, _model)
        AutoModelForVisualQuestionAnswering.register(_config, _model)
