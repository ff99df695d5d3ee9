"""Fixtures of the feature tests that tracks need too."""

from tests.features.conftest import make_clip, save_network

__all__ = ["make_clip", "save_network"]
