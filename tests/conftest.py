"""What the suite shares: where the public material lies, one thread, a seed for every test, examples of fuzzing."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, settings

SHARED = Path(__file__).resolve().parents[2] / "shared"

# HYPOTHESIS_PROFILE=long tries 10,000 random inputs a fuzz test; without it the same 200 every time.
_CHECKS = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
_ANY = settings(deadline=None, database=None, suppress_health_check=_CHECKS, print_blob=True)
settings.register_profile("short", _ANY, max_examples=200, derandomize=True)
settings.register_profile("long", _ANY, max_examples=10_000, derandomize=False, phases=set(Phase) - {Phase.explain})
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real annotations and clips beside the project; tests that need it skip where it is absent."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the folder ../shared/data with real annotations is not on this machine")
    return SHARED


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models run many times faster on one thread than on several that contend; child processes inherit it."""
    threads, before = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    os.environ.pop("OMP_NUM_THREADS") if before is None else os.environ.update(OMP_NUM_THREADS=before)


@pytest.fixture(autouse=True)
def seed() -> None:
    """A failure comes back when its test is run alone."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
