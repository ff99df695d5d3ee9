"""Laws of a run: it reads ahead, is bounded, writes a row once, and groups do not change numbers."""

import json
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from hf_causal_video.features import build as build_module
from hf_causal_video.features import extract_folder
from hf_causal_video.features.build import READERS, build_feature_set
from hf_causal_video.features.store import FeatureStore, Provenance, VideoFeatures
from hf_causal_video.utils.errors import CausalVideoError

CARD = Provenance("org/vit", "main", "pooled", 3, sampling="uniform-2")
PATIENCE_S = 60  # a thread that never comes is a failure, not a hang


def row(video_id: str) -> VideoFeatures:
    return VideoFeatures(video_id, torch.tensor([0.5, 1.5]), torch.ones(2, 3))


class Watched:
    """A maker that counts what is read and waits, in `make`, until the next video is being read."""

    def __init__(self, group_size: int, count: int):
        self.group_size, self.count = group_size, count
        self.read_count = self.made_count = self.most_ahead = 0
        self.lock = threading.Condition()

    def read(self, video_id: str, source: int) -> int:
        with self.lock:
            self.read_count += 1
            self.most_ahead = max(self.most_ahead, self.read_count - self.made_count)
            self.lock.notify_all()
        if source == 2:
            raise CausalVideoError("cut off", found="half", expected="all", fix="fetch it")
        return source

    def make(self, video_ids, contents):
        with self.lock:
            self.made_count += self.group_size
            wanted = min(self.made_count + 1, self.count)
            assert self.lock.wait_for(lambda: self.read_count >= wanted, PATIENCE_S), "the next video is not read"
        return [row(video_id) for video_id in video_ids]


@pytest.mark.parametrize("group_size", [1, 4])
def test_the_next_videos_are_read_while_rows_are_made_and_not_too_many(tmp_path, group_size):
    maker = Watched(group_size, 40)
    report = build_feature_set({f"v{i:02d}": i for i in range(40)}, maker, tmp_path, CARD, progress=False)
    assert len(report.written) == 39 and list(report.failed) == ["v02"]
    assert FeatureStore.open(tmp_path).video_ids == report.written
    assert maker.most_ahead <= 2 * group_size + READERS + 1


def test_rows_are_written_while_the_next_ones_are_made(tmp_path, monkeypatch):
    written, is_writing = threading.Event(), threading.current_thread()
    add = build_module.FeatureWriter.add_checked

    def add_checked(self, video_id, arrays):
        assert threading.current_thread() is not is_writing
        add(self, video_id, arrays)
        written.set()

    def make(video_id: str, source: int) -> VideoFeatures:
        assert source != 3 or written.wait(PATIENCE_S), "the first row is not written yet"
        return row(video_id)

    monkeypatch.setattr(build_module.FeatureWriter, "add_checked", add_checked)
    build_feature_set({f"v{i}": i for i in range(4)}, make, tmp_path, CARD, progress=False)
    assert len(FeatureStore.open(tmp_path)) == 4


def test_one_process_writes_and_checks_each_row_once(tmp_path, monkeypatch):
    calls = {"write": 0, "check": 0}
    write, check = pq.ParquetWriter.write_table, VideoFeatures.to_arrays

    def counted_write(self, *args, **options):
        calls["write"] += 1
        return write(self, *args, **options)

    def counted_check(self, provenance):
        calls["check"] += 1
        return check(self, provenance)

    monkeypatch.setattr(pq.ParquetWriter, "write_table", counted_write)
    monkeypatch.setattr(VideoFeatures, "to_arrays", counted_check)
    build_feature_set({f"v{i}": i for i in range(10)}, lambda v, _: row(v), tmp_path, CARD, progress=False)
    assert calls == {"write": 10, "check": 10} and not (tmp_path / ".parts").exists()


@pytest.mark.parametrize("where", ["read", "make", "write"])
def test_an_error_in_any_thread_ends_the_run_and_the_next_run_goes_on(tmp_path, monkeypatch, where):
    sources = {f"v{i}": i for i in range(12)}

    class Maker:
        group_size = 1

        def read(self, video_id, source):
            if where == "read" and source == 7:
                raise MemoryError("read")
            return source

        def make(self, video_ids, contents):
            if where == "make" and contents == [7]:
                raise RuntimeError("make")
            return [row(video_id) for video_id in video_ids]

    add = build_module.FeatureWriter.add_checked

    def add_checked(self, video_id, arrays):
        if where == "write" and video_id == "v7":
            raise OSError(28, "no space left")
        add(self, video_id, arrays)

    with monkeypatch.context() as patch:
        patch.setattr(build_module.FeatureWriter, "add_checked", add_checked)
        with pytest.raises((MemoryError, RuntimeError, OSError)):
            build_feature_set(sources, Maker(), tmp_path, CARD, rows_per_shard=2, progress=False)
    assert not list(tmp_path.rglob(".*")), "no claim and no half-written file is left"
    where = "nowhere"
    report = build_feature_set(sources, Maker(), tmp_path, CARD, rows_per_shard=2, progress=False)
    assert len(report.kept) >= 6 and FeatureStore.open(tmp_path).video_ids == list(sources)


def test_a_row_that_is_not_finite_is_refused_when_it_is_made(tmp_path):
    def make(video_id: str, source: float) -> VideoFeatures:
        return VideoFeatures(video_id, torch.tensor([0.5, 1.5]), torch.full((2, 3), source, dtype=torch.bfloat16))

    sources = {"nan": float("nan"), "huge": 1e5, "good": 0.5}
    report = build_feature_set(sources, make, tmp_path, CARD, progress=False)
    assert report.written == ["good"] and "NaN" in report.failed["nan"] and "float16" in report.failed["huge"]
    assert FeatureStore.open(tmp_path)["good"].frame_features.dtype == torch.float16
    listed = json.loads((tmp_path / "failed.json").read_text())
    assert [entry["video_id"] for entry in listed] == ["huge", "nan"]


def test_short_clips_share_batches_and_keep_their_numbers(tmp_path, make_clip, save_network):
    """Eight clips of two sizes and one that cannot be read; alone, together, and made again after one is lost."""
    clips = tmp_path / "clips"
    clips.mkdir()
    for number in range(8):
        size = (64, 48) if number % 3 else (48, 64)
        make_clip(clips / f"c{number}.mp4", frames=3 + number, size=size, noise=True)
    (clips / "c2bad.mp4").write_bytes(b"no clip")
    networks = {
        "frame_model": save_network("backbone", "vit"), "object_model": save_network("detector", "yolos"),
        "num_objects": 3, "sampling": "uniform-4", "progress": False,
    }  # fmt: skip
    extract_folder(clips, tmp_path / "alone", batch_size=4, **networks)
    extract_folder(clips, tmp_path / "together", batch_size=16, rows_per_shard=3, **networks)
    alone, together = FeatureStore.open(tmp_path / "alone"), FeatureStore.open(tmp_path / "together")
    assert alone.video_ids == together.video_ids and len(alone) == 8
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one.frame_features, other.frame_features, atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(one.object_boxes, other.object_boxes, atol=1e-3, rtol=1e-3)
    shards = sorted(Path(tmp_path / "together" / "features").glob("*.parquet"))
    before = shards[-1].read_bytes()
    shards[-1].unlink()
    extract_folder(clips, tmp_path / "together", batch_size=16, rows_per_shard=3, **networks)
    assert shards[-1].read_bytes() == before, "a group is made whole again, so that its numbers are the same"
