"""IVRD, interventional video relation detection."""

from hf_causal_video.utils.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "IVRDConfig": "configuration_ivrd",
        "IVRDForVideoRelationDetection": "modeling_ivrd",
        "VideoRelationProcessor": "processing_video_relation",
    },
)
