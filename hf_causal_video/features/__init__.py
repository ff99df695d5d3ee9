"""From pixels to arrays on disk: decoding, frame features, object regions, and the feature store with provenance."""

from importlib import import_module

from hf_causal_video.features.store import FeatureStore, FeatureWriter, Provenance, VideoFeatures

# what needs transformers, PyAV or h5py is imported when it is first used
_LATER = {
    "ClipTracker": "tracker",
    "Tracklet": "tracks",
    "link_detections": "tracks",
    "ObjectEncoder": "objects",
    "FrameEncoder": "frames",
    "DecodedVideo": "decode",
    "decode_video": "decode",
    "ExtractionReport": "build",
    "VideoFeatureExtractor": "extractor",
    "build_feature_set": "build",
    "extract_folder": "extract",
    "extract_captions": "captions",
    "import_caption_features": "captions",
    "import_appearance_motion": "legacy",
    "import_app_mot": "legacy",
    "import_transtr": "legacy",
}

__all__ = ["FeatureStore", "FeatureWriter", "Provenance", "VideoFeatures", *sorted(_LATER)]


def __getattr__(name: str):
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
