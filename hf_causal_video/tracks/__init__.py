"""Object tracks: linking detections through a clip, and sets of tracks on disk."""

from hf_causal_video.utils.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__, {"ClipTracker": "tracker", "TrackSet": "track_set", "Track": "track", "link_detections": "track"}
)
