"""A VideoQA backbone on its own: what IGV and EIGV are compared with, and what they are built on."""

from hf_causal_video.utils.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__, {"BackboneConfig": "configuration_backbone", "BackboneForVideoQuestionAnswering": "modeling_backbone"}
)
