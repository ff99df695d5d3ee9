"""Laws of the feature store: what goes in comes out, lazily, by id; what cannot be trusted is refused by name."""

import json
import multiprocessing
import os
import pickle
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from hf_causal_video.features.store import FeatureStore, FeatureWriter, Provenance, VideoFeatures, shards
from hf_causal_video.features.store.writer import FeatureWriter as Writer
from hf_causal_video.utils.errors import CausalVideoError

CARD = Provenance("org/vit", "abc", "pooled", 6, "org/detr", "def", "last", 8, 3, "uniform-4")
FRAMES_ONLY = Provenance("org/vit", "abc", "pooled", 6, sampling="uniform-4")


def make_row(video_id: str, frames: int = 4, card: Provenance = CARD, seed: int = 0) -> VideoFeatures:
    generator = torch.Generator().manual_seed(seed + frames)
    row = VideoFeatures(video_id, torch.arange(frames) + 0.5, torch.randn(frames, 6, generator=generator).half())
    if card.has_objects:
        row.object_features = torch.randn(frames, 3, 8, generator=generator).half()
        row.object_boxes = torch.rand(frames, 3, 4, generator=generator)
        row.object_scores = torch.rand(frames, 3, generator=generator)
        row.object_labels = torch.randint(0, 9, (frames, 3), generator=generator, dtype=torch.int32)
    return row


def write(folder, rows, card=CARD, **options):
    with FeatureWriter(folder, card, **options) as writer:
        for row in rows:
            writer.add(row)
    return folder


def assert_same(a: VideoFeatures, b: VideoFeatures):
    for name in (
        "timestamps_s",
        "frame_features",
        "object_features",
        "object_boxes",
        "object_scores",
        "object_labels",
    ):
        x, y = getattr(a, name), getattr(b, name)
        assert (x is None) == (y is None)
        assert x is None or (torch.equal(x, y) and x.dtype == y.dtype), name


@pytest.mark.parametrize("card", [CARD, FRAMES_ONLY])
def test_rows_of_any_length_come_back_bit_for_bit(tmp_path, card):
    rows = [make_row(f"v{t}", t, card) for t in (4, 1, 9, 2, 33)]
    write(tmp_path, rows, card, rows_per_shard=2)
    store = FeatureStore.open(tmp_path)
    assert store.video_ids == ["v4", "v1", "v9", "v2", "v33"] and len(store) == 5 and "v9" in store
    for row, read in zip(reversed(rows), store.get_many([r.video_id for r in reversed(rows)]), strict=True):
        assert_same(row, read)
        assert read.video_id == row.video_id
    assert store.provenance == card
    assert (store["v9"].object_mask is None) == (not card.has_objects)


def test_memory_and_disk_serve_the_same(tmp_path):
    rows = [make_row("a", 3), make_row("b", 5)]
    on_disk, in_memory = FeatureStore.open(write(tmp_path, rows)), FeatureStore.from_rows(CARD, rows)
    for video_id in on_disk.video_ids:
        assert_same(on_disk[video_id], in_memory[video_id])


def test_a_reader_cannot_change_the_store(tmp_path):
    for store in (FeatureStore.open(write(tmp_path, [make_row("a")])), FeatureStore.from_rows(CARD, [make_row("a")])):
        store["a"].frame_features.zero_()
        assert store["a"].frame_features.abs().sum() > 0


def test_datasets_reads_the_folder_and_finds_the_same_numbers(tmp_path):
    from datasets import load_dataset

    write(tmp_path / "set", [make_row("a", 2), make_row("b", 5)])
    write(tmp_path / "set", [make_row("c", 3)], split="validation")
    store = FeatureStore.open(tmp_path / "set")
    for split, ids in (("train", ["a", "b"]), ("validation", ["c"])):
        table = load_dataset(str(tmp_path / "set"), "features", split=split, cache_dir=str(tmp_path / "cache"))
        assert table["video_id"][:] == ids
        for line in table.with_format("numpy", dtype=np.float32):
            row = store[str(line["video_id"])]
            np.testing.assert_array_equal(np.asarray(line["object_features"]), row.object_features.float().numpy())
            np.testing.assert_array_equal(np.asarray(line["object_boxes"]), row.object_boxes.numpy())


def test_a_shard_of_another_tool_gives_the_same_numbers(tmp_path):
    rows = [make_row(f"v{t}", t) for t in (3, 5, 2)]
    path = next((write(tmp_path, rows) / "features").glob("*.parquet"))
    pq.write_table(pq.read_table(path), path, compression="zstd")  # one row group, dictionaries, other pages
    store = FeatureStore.open(tmp_path)
    for row in rows:
        assert_same(row, store[row.video_id])


def test_a_missing_id_is_named_with_its_neighbours(tmp_path):
    store = FeatureStore.open(write(tmp_path, [make_row("video_0012"), make_row("other")]))
    with pytest.raises(CausalVideoError, match="video_0013.*video_0012"):
        store["video_0013"]


def test_an_id_twice_is_refused_within_and_across_splits(tmp_path):
    write(tmp_path, [make_row("a")])
    for split in ("train", "test"):
        with pytest.raises(CausalVideoError, match="'a' occurs twice"):
            write(tmp_path, [make_row("a")], split=split)
    os.link(tmp_path / "features/train-00000.parquet", tmp_path / "features/test-00000.parquet")
    with pytest.raises(CausalVideoError, match="'a' occurs twice"):
        FeatureStore.open(tmp_path)


def test_a_set_without_provenance_is_refused(tmp_path):
    write(tmp_path, [make_row("a")])
    (tmp_path / "provenance.json").unlink()
    with pytest.raises(CausalVideoError, match="no provenance"):
        FeatureStore.open(tmp_path)
    with pytest.raises(CausalVideoError, match="no provenance"):
        write(tmp_path, [make_row("b")])


@pytest.mark.parametrize("lost", ["frame_layer", "frame_model", "sampling", "object_dim"])
def test_incomplete_provenance_is_refused(lost):
    with pytest.raises(CausalVideoError, match=lost):
        Provenance.from_dict({**CARD.to_dict(), lost: None})


@pytest.mark.parametrize("keep", [0.99, 0.5, 0.0])
def test_a_truncated_shard_is_named(tmp_path, keep):
    path = next((write(tmp_path, [make_row("a")]) / "features").glob("*.parquet"))
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(CausalVideoError, match="train-00000.parquet"):
        FeatureStore.open(tmp_path)


BAD = {
    "not finite": lambda row: row.frame_features.__setitem__((0, 0), float("nan")),
    "found values too large for float16": lambda row: setattr(row, "frame_features", torch.full((4, 6), 1e5)),
    "wrong shape: found (4, 5); expected (4, 6)": lambda row: setattr(row, "frame_features", torch.zeros(4, 5)),
    "T = 0": lambda row: setattr(row, "timestamps_s", torch.zeros(0)),
    "object_scores and provenance disagree": lambda row: setattr(row, "object_scores", None),
    "leave the picture": lambda row: row.object_boxes.__setitem__((0, 0), 640.0),
    "do not increase": lambda row: row.timestamps_s.__setitem__(1, 0.1),
    "object_features is not finite": lambda row: row.object_features.__setitem__((3, 2, 7), float("-inf")),
}


@pytest.mark.parametrize("message", BAD)
def test_a_bad_row_is_refused_and_leaves_no_trace(tmp_path, message):
    import re

    bad = make_row("bad")
    BAD[message](bad)
    with FeatureWriter(tmp_path, CARD) as writer:
        writer.add(make_row("a"))
        with pytest.raises(CausalVideoError, match=f"'bad'.*{re.escape(message)}"):
            writer.add(bad)
        writer.add(make_row("b"))
    assert FeatureStore.open(tmp_path).video_ids == ["a", "b"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_damage_on_disk_is_named_when_read(tmp_path, value):
    row = make_row("hurt")
    path = next((write(tmp_path, [make_row("fine", 7), row]) / "features").glob("*.parquet"))
    spoilt = row.frame_features.clone()
    spoilt[2, 3] = value
    assert path.read_bytes().count(row.frame_features.numpy().tobytes()) == 1
    path.write_bytes(path.read_bytes().replace(row.frame_features.numpy().tobytes(), spoilt.numpy().tobytes()))
    store = FeatureStore.open(tmp_path)
    assert_same(store["fine"], make_row("fine", 7))
    with pytest.raises(CausalVideoError, match="frame_features of video 'hurt' in .*train-00000.parquet"):
        store["hurt"]


def test_features_of_another_backbone_are_refused_by_name(tmp_path):
    store = FeatureStore.open(write(tmp_path, [make_row("a")]))
    store.check(None)
    store.check(CARD)
    store.check(json.loads(json.dumps(CARD.to_dict())))
    store.check({**CARD.to_dict(), "sampling": "fps-2"})  # a model takes any number of frames
    for field, value in (
        ("frame_model", "org/another"),
        ("frame_revision", "zzz"),
        ("frame_layer", "cls"),
        ("frame_dim", 7),
        ("object_dim", 9),
    ):
        with pytest.raises(CausalVideoError, match=f"found {field} .*expected {field} {value!r}"):
            store.check({**CARD.to_dict(), field: value})
    with pytest.raises(CausalVideoError, match="object_model"):
        FeatureStore.from_rows(FRAMES_ONLY, [make_row("a", card=FRAMES_ONLY)]).check(CARD)


def test_a_local_folder_is_known_by_its_content_not_by_its_name(tmp_path):
    hashed = Provenance("models/here", "sha256-abc", "pooled", 8, sampling="fps-1")
    assert not hashed.differences({**hashed.to_dict(), "frame_model": "moved/there"})
    assert hashed.differences({**hashed.to_dict(), "frame_revision": "sha256-abd"})


def test_another_provenance_cannot_be_mixed_in(tmp_path):
    write(tmp_path, [make_row("a")])
    before = {p.name: p.read_bytes() for p in tmp_path.rglob("*.*")}
    other = Provenance.from_dict({**CARD.to_dict(), "frame_layer": "cls"})
    with pytest.raises(CausalVideoError, match="frame_layer 'pooled'.*frame_layer 'cls'"):
        write(tmp_path, [make_row("b")], other)
    assert before == {p.name: p.read_bytes() for p in tmp_path.rglob("*.*")}


def test_an_interrupted_writer_keeps_whole_shards_and_no_litter(tmp_path):
    rows = [make_row(f"v{i}", seed=i) for i in range(7)]
    whole = write(tmp_path / "whole", rows, rows_per_shard=2)
    broken = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt), FeatureWriter(broken, CARD, rows_per_shard=2) as writer:
        for row in rows[:5]:
            writer.add(row)
        raise KeyboardInterrupt
    assert FeatureStore.open(broken).video_ids == ["v0", "v1", "v2", "v3"]
    (broken / "features/.train-00002.parquet.77.part").write_bytes(b"left by a kill")
    with Writer(broken, CARD, rows_per_shard=2) as writer:
        assert writer.done == {"v0", "v1", "v2", "v3"}
        for row in rows:
            if row.video_id not in writer.done:
                writer.add(row)
    contents = [{p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()} for f in (whole, broken)]
    assert contents[0] == contents[1]


def _read_in_child(store, queue):
    queue.put(float(store["a"].frame_features.float().sum()))


def test_the_store_travels_to_worker_processes(tmp_path):
    store = FeatureStore.open(write(tmp_path, [make_row("a")]))
    expected = float(store["a"].frame_features.float().sum())
    assert float(pickle.loads(pickle.dumps(store))["a"].frame_features.float().sum()) == expected
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_read_in_child, args=(store, queue))
    child.start()
    assert queue.get(timeout=600) == expected
    child.join()


def test_reading_is_lazy_and_keeps_memory_flat(tmp_path):
    """320 MB of rows, read twice in random order, must not stay in memory."""
    card = Provenance("m", "r", "pooled", 2048, sampling="uniform-80")
    row = VideoFeatures("v", torch.arange(80) + 0.5, torch.randn(80, 2048).half())
    with FeatureWriter(tmp_path, card, rows_per_shard=200) as writer:
        for number in range(1000):
            row.video_id = f"v{number}"
            writer.add(row)
    store = FeatureStore.open(tmp_path)
    order = np.random.default_rng(0).permutation(store.video_ids).tolist()
    store.get_many(order[:16])
    before, start = _resident_mib(), time.process_time()
    for first in range(0, 2000, 8):
        store.get_many((order * 2)[first : first + 8])
    rate = 2000 / (time.process_time() - start)
    assert _resident_mib() - before < 32
    assert rate > 200  # 0.33 MB rows per second of processor time: 8,000 measured, 50 if each read its whole shard


def _resident_mib() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_open_says_what_is_wrong_with_a_path(tmp_path, monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(*args, **options):
        raise LocalEntryNotFoundError("the Hub cannot be reached")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(CausalVideoError, match="no feature set at 'org/none'.*Hub cannot be reached"):
        FeatureStore.open("org/none")
    FeatureWriter(tmp_path, CARD).close()
    with pytest.raises(CausalVideoError, match="is empty"):
        FeatureStore.open(tmp_path)


def test_a_set_of_many_shards_does_not_run_out_of_files(tmp_path, monkeypatch):
    """A process may open about a thousand files, and 100,000 videos lie in more shards than that."""
    if not Path("/proc/self/fd").exists():
        pytest.skip("this system does not list the open files of a process")
    card = Provenance("org/vit", "main", "pooled", 3, sampling="uniform-2")
    with FeatureWriter(tmp_path, card, rows_per_shard=1) as writer:
        for number in range(12):
            writer.add(VideoFeatures(f"v{number}", torch.tensor([0.5, 1.5]), torch.full((2, 3), float(number))))
    store = FeatureStore.open(tmp_path)
    monkeypatch.setattr(shards, "MOST_OPEN", shards.Shard.open_count + 4)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        for number in range(12):
            assert (store[f"v{number}"].frame_features == number).all()
    assert len(os.listdir("/proc/self/fd")) - before <= 4
