"""One folder per method, and what the methods share."""

import transformers.models.auto.configuration_auto  # noqa: F401  registers the configs before a module here needs it

from hf_causal_video.utils.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "ALL_METHODS": "auto",
        "BackboneConfig": "backbone",
        "BackboneForVideoQuestionAnswering": "backbone",
        "EIGVConfig": "eigv",
        "EIGVForVideoQuestionAnswering": "eigv",
        "Evidence": "outputs",
        "EvidenceFrame": "outputs",
        "EvidenceObject": "outputs",
        "IGVConfig": "igv",
        "IGVForVideoQuestionAnswering": "igv",
        "IVRDConfig": "ivrd",
        "IVRDForVideoRelationDetection": "ivrd",
        "METHODS": "auto",
        "RELATION_METHODS": "auto",
        "TranSTRConfig": "transtr",
        "TranSTRForVideoQuestionAnswering": "transtr",
        "VideoQAInputs": "processing_video_qa",
        "VideoQAOutput": "outputs",
        "VideoQAProcessor": "processing_video_qa",
        "VideoRelationProcessor": "ivrd",
    },
)
