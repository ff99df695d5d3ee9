"""IGV: invariant grounding around any backbone."""

from hf_causal_video.models.igv.configuration_igv import IGVConfig
from hf_causal_video.models.igv.modeling_igv import IGVForVideoQuestionAnswering

__all__ = ["IGVConfig", "IGVForVideoQuestionAnswering"]
