"""EIGV: equivariant and invariant grounding around any backbone."""

from hf_causal_video.utils.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__, {"EIGVConfig": "configuration_eigv", "EIGVForVideoQuestionAnswering": "modeling_eigv"}
)
