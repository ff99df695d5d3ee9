from hf_causal_video.version import __version__

__all__ = ["__version__"]
