"""IVRD, interventional video relation detection."""

from hf_causal_video.models.ivrd.configuration_ivrd import IVRDConfig
from hf_causal_video.models.ivrd.modeling_ivrd import IVRDForVideoRelationDetection

__all__ = ["IVRDConfig", "IVRDForVideoRelationDetection"]
