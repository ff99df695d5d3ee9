"""Extraction and tracking ended by SIGKILL at any operation and started again: the bytes of a run that was left alone.

The ten points of a run are drawn one from each tenth of its file operations, seed 0.
"""

import random
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from hf_causal_video.features import extract_folder
from hf_causal_video.features.store import FeatureStore
from hf_causal_video.tracks.track_set import TrackSet, track_folder
from hf_causal_video.utils.errors import CausalVideoError
from tests.killing import Countdown, count_changes, forked, spread
from tests.tracks.test_track_set import FakeTracker


@pytest.fixture(scope="module")
def clips(tmp_path_factory, make_clip) -> Path:
    """Five clips of a few frames, and one that cannot be read."""
    folder = tmp_path_factory.mktemp("clips to be killed over")
    for number in range(5):
        make_clip(folder / f"clip{number}.mp4", frames=4 + number, noise=True)
    (folder / "clip2bad.mp4").write_bytes(b"not a clip")
    return folder


@pytest.fixture(scope="module")
def options(clips, save_network) -> dict:
    return {
        "videos": clips, "frame_model": save_network("backbone", "vit"), "sampling": "uniform-4",
        "rows_per_shard": 2, "progress": False,
    }  # fmt: skip


def contents(folder: Path) -> dict:
    """Every file with its bytes, and every folder."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def killed_before(last: int | None, folder: Path, work) -> tuple[int, int]:
    """Run `work` in a child that ends before its `last` change of the folder; its exit code and how many it made."""
    countdown = Countdown(last)

    def child() -> None:
        count_changes(folder, countdown)
        work()

    return forked(child), countdown.count


@pytest.fixture(scope="module")
def whole(options, tmp_path_factory) -> tuple[dict, int, list]:
    """What a run that is left alone writes, in how many operations, and its rows."""
    folder = tmp_path_factory.mktemp("run left alone") / "set"
    code, count = killed_before(None, folder, lambda: extract_folder(output=folder, **options))
    assert code == 0
    return contents(folder), count, list(FeatureStore.open(folder))


def check_usable(folder: Path, rows: list) -> None:
    """What a kill left is a set of some of the rows, as they were to be, or no set yet."""
    try:
        store = FeatureStore.open(folder)
    except CausalVideoError as error:
        assert "no provenance" in str(error) or "is empty" in str(error) or "no such folder" in str(error)
        return
    for row, expected in zip(store, rows, strict=False):
        assert row.video_id == expected.video_id and (row.frame_features == expected.frame_features).all()


def test_extraction_killed_at_ten_points_ends_with_the_same_bytes(options, whole, tmp_path):
    expected, count, rows = whole
    assert not [name for name in expected if name.rsplit("/", 1)[-1].startswith(".")], "nothing hidden is left"
    for point in spread(count, seed=0):
        folder = tmp_path / f"killed at {point}"
        code, _ = killed_before(point, folder, lambda to=folder: extract_folder(output=to, **options))
        assert code == -signal.SIGKILL
        check_usable(folder, rows)
        report = extract_folder(output=folder, **options)
        assert contents(folder) == expected and list(report.failed) == ["clip2bad"], point
        shutil.rmtree(folder)


def test_extraction_killed_ten_times_over_ends_with_the_same_bytes(options, whole, tmp_path):
    """Each sitting ends where the last one left a half-written something."""
    expected, count, rows = whole
    rng, folder, kills = random.Random(0), tmp_path / "set", 0
    for _ in range(10):
        code, _ = killed_before(rng.randint(1, count // 5), folder, lambda: extract_folder(output=folder, **options))
        assert code in (0, -signal.SIGKILL), "a sitting may have less left to do"
        kills += code != 0
        check_usable(folder, rows)
    assert kills >= 5
    extract_folder(output=folder, **options)
    assert contents(folder) == expected


def test_tracking_killed_at_any_operation_ends_with_the_same_bytes(tmp_path):
    (tmp_path / "videos").mkdir()
    for name in ("a", "b", "bad", "c"):
        (tmp_path / "videos" / f"{name}.mp4").write_bytes(b"x")

    def track(folder: Path) -> None:
        track_folder(tmp_path / "videos", folder, FakeTracker(), progress=False)

    code, count = killed_before(None, tmp_path / "whole", lambda: track(tmp_path / "whole"))
    assert code == 0 and count >= 10
    for point in range(1, count + 1):
        folder = tmp_path / str(point)
        code, _ = killed_before(point, folder, lambda to=folder: track(to))
        assert code == -signal.SIGKILL
        if TrackSet.is_one(folder):
            for tracks in TrackSet.open(folder).values():
                np.testing.assert_array_equal(
                    tracks[0]["features"], TrackSet.open(tmp_path / "whole")["a"][0]["features"]
                )
        track(folder)
        assert contents(folder) == contents(tmp_path / "whole"), point
