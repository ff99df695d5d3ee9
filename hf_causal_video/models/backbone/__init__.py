"""A VideoQA backbone on its own: what IGV and EIGV are compared with, and what they are built on."""

from hf_causal_video.models.backbone.configuration_backbone import BackboneConfig
from hf_causal_video.models.backbone.modeling_backbone import BackboneForVideoQuestionAnswering

__all__ = ["BackboneConfig", "BackboneForVideoQuestionAnswering"]
