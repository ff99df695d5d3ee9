"""Fixtures that the whole suite shares: where the public material lies, and tiny text encoders."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real annotations and clips beside the project; tests that need it skip where it is absent."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the folder ../shared/data with real annotations is not on this machine")
    return SHARED
