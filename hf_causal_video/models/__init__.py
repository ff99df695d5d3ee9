"""One folder a method; importing this package teaches the Auto classes of transformers to load them."""

from transformers import AutoConfig, AutoModel, AutoProcessor

from hf_causal_video.models.ivrd import IVRDConfig, IVRDForVideoRelationDetection
from hf_causal_video.models.outputs import Evidence, EvidenceFrame, EvidenceObject, VideoQAOutput
from hf_causal_video.models.processing_video_qa import VideoQAInputs, VideoQAProcessor
from hf_causal_video.models.processing_video_relation import VideoRelationProcessor
from hf_causal_video.models.transtr import TranSTRConfig, TranSTRForVideoQuestionAnswering

__all__ = [
    "Evidence",
    "EvidenceFrame",
    "EvidenceObject",
    "IVRDConfig",
    "IVRDForVideoRelationDetection",
    "TranSTRConfig",
    "TranSTRForVideoQuestionAnswering",
    "VideoQAInputs",
    "VideoQAOutput",
    "VideoQAProcessor",
    "VideoRelationProcessor",
]

METHODS = {"transtr": (TranSTRConfig, TranSTRForVideoQuestionAnswering, VideoQAProcessor)}
RELATION_METHODS = {"ivrd": (IVRDConfig, IVRDForVideoRelationDetection, VideoRelationProcessor)}

for _name, (_config, _model, _processor) in {**METHODS, **RELATION_METHODS}.items():
    AutoConfig.register(_name, _config)
    AutoModel.register(_config, _model)
    AutoProcessor.register(_config, _processor)
