"""EIGV: equivariant and invariant grounding around any backbone."""

from hf_causal_video.models.eigv.configuration_eigv import EIGVConfig
from hf_causal_video.models.eigv.modeling_eigv import EIGVForVideoQuestionAnswering

__all__ = ["EIGVConfig", "EIGVForVideoQuestionAnswering"]
