"""Everything between a model and the Hub."""

from hf_causal_video.hub.conversion import convert_official_checkpoint
from hf_causal_video.hub.push import push_checkpoint

__all__ = ["convert_official_checkpoint", "push_checkpoint"]
