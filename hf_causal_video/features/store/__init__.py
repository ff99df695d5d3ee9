"""A feature set on disk: provenance, rows, sealed Parquet shards, reader, writer and dataset card."""

from hf_causal_video.features.store.provenance import Provenance
from hf_causal_video.features.store.reader import FeatureStore
from hf_causal_video.features.store.rows import VideoFeatures
from hf_causal_video.features.store.writer import FeatureWriter

__all__ = ["FeatureStore", "FeatureWriter", "Provenance", "VideoFeatures"]
