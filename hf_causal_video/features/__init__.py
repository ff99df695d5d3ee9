"""From pixels to arrays on disk: decoding, frame features, object regions, captions; sets of features in `store`."""

from hf_causal_video.utils.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "DecodedVideo": "decode",
        "ExtractionReport": "build",
        "FeatureStore": "store",
        "FeatureWriter": "store",
        "FrameEncoder": "encoders",
        "ObjectEncoder": "encoders",
        "Provenance": "store",
        "VideoFeatureExtractor": "extractor",
        "VideoFeatures": "store",
        "build_feature_set": "build",
        "decode_video": "decode",
        "extract_captions": "captions",
        "extract_folder": "extract",
        "import_arrays": "arrays",
        "import_app_mot": "legacy_hdf5",
        "import_appearance_motion": "legacy_hdf5",
        "import_caption_features": "captions",
        "import_transtr": "legacy_hdf5",
    },
)
