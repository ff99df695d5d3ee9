"""TranSTR, the spatio-temporal rationaliser."""

from hf_causal_video.models.transtr.configuration_transtr import TranSTRConfig
from hf_causal_video.models.transtr.modeling_transtr import TranSTRForVideoQuestionAnswering

__all__ = ["TranSTRConfig", "TranSTRForVideoQuestionAnswering"]
