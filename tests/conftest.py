"""What the suite shares: where the public material lies, threads, a seed for every test, examples of fuzzing."""

import contextlib
import importlib
import os
import platform
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from _pytest.doctest import DoctestModule
from hypothesis import HealthCheck, Phase, settings

PACKAGE = Path(__file__).resolve().parents[1] / "hf_causal_video"
SHARED = PACKAGE.parents[1] / "shared"

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


# Tiny models run many times faster on one thread than on several that contend.
THREADS = int(os.environ.get("HF_CAUSAL_VIDEO_TEST_THREADS", "1"))


def processor_name() -> str:
    """The model of the processor, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


class ImportedOnce:
    """Import a module of examples as Python does, before pytest imports it.

    Why: pytest's importlib mode executes a file again that its own package has imported already. Two classes of one
    name are then alive, and an object of the first cannot be pickled.
    """

    def pytest_collectstart(self, collector: pytest.Collector) -> None:
        if isinstance(collector, DoctestModule) and collector.path.is_relative_to(PACKAGE):
            name = ".".join(collector.path.relative_to(PACKAGE.parent).with_suffix("").parts)
            with contextlib.suppress(ImportError):  # pytest reports it, with the place
                importlib.import_module(name.removesuffix(".__init__"))


def pytest_configure(config: pytest.Config) -> None:
    """Register what must see files outside of this folder too."""
    config.pluginmanager.register(ImportedOnce())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the processor: roundings, and so trained outcomes, differ between processors."""
    workers = os.environ.get("PYTEST_XDIST_WORKER_COUNT") or getattr(terminalreporter.config.option, "numprocesses", 0)
    terminalreporter.write_line(
        f"ran on {processor_name()}, CPU capability {torch.backends.cpu.get_cpu_capability()}, "
        f"{THREADS} torch thread(s) in each of {workers or 1} process(es), torch {torch.__version__}"
    )


@pytest.fixture(scope="session", autouse=True)
def threads() -> Iterator[None]:
    """HF_CAUSAL_VIDEO_TEST_THREADS threads, one by default; child processes inherit the number."""
    previous, variable = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(THREADS)
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(previous)
    os.environ.pop("OMP_NUM_THREADS") if variable is None else os.environ.update(OMP_NUM_THREADS=variable)


@pytest.fixture(autouse=True)
def seed() -> None:
    """A failure comes back when its test is run alone."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
