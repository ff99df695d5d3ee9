"""The original authors' checkpoints as models of this package."""

from hf_causal_video.hub.convert.conversion import convert_official_checkpoint

__all__ = ["convert_official_checkpoint"]
