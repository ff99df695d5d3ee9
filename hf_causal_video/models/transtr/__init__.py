"""TranSTR, the spatio-temporal rationaliser."""

from hf_causal_video.utils.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__, {"TranSTRConfig": "configuration_transtr", "TranSTRForVideoQuestionAnswering": "modeling_transtr"}
)
