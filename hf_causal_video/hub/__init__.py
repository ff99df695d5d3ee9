"""Push models to the Hub, and convert the original checkpoints."""

from hf_causal_video.utils.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__, {"convert_official_checkpoint": "convert", "push_checkpoint": "push"}
)
