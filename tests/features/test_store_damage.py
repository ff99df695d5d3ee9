"""Whatever happens to the bytes of a feature set, a reader gets what was written, or an error that names the file."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_causal_video.features.store import FeatureStore, FeatureWriter, Provenance, VideoFeatures
from hf_causal_video.utils.errors import CausalVideoError

CARD = Provenance("org/vit", "abc", "pooled", 6, "org/detr", "def", "last", 8, 3, "uniform-4")
IDS = ("a", "b", "c")


def make_row(video_id: str, frames: int) -> VideoFeatures:
    generator = torch.Generator().manual_seed(frames)
    shape = (frames, 3)
    return VideoFeatures(
        video_id,
        torch.arange(frames) + 0.5,
        torch.randn(frames, 6, generator=generator).half(),
        object_features=torch.randn(*shape, 8, generator=generator).half(),
        object_boxes=torch.rand(*shape, 4, generator=generator),
        object_scores=torch.rand(shape, generator=generator),
        object_labels=torch.randint(0, 9, shape, generator=generator, dtype=torch.int32),
    )


ROWS = {video_id: make_row(video_id, frames) for frames, video_id in enumerate(IDS, start=2)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A set of three videos in two shards."""
    folder = tmp_path_factory.mktemp("whole")
    with FeatureWriter(folder, CARD, rows_per_shard=2) as writer:
        for row in ROWS.values():
            writer.add(row)
    return folder


def tensors(row: VideoFeatures) -> dict[str, torch.Tensor]:
    return {name: value for name, value in vars(row).items() if isinstance(value, torch.Tensor)}


def read_or_refuse(folder: Path) -> None:
    """Read everything there is; every number must be the one that was written."""
    try:
        store = FeatureStore.open(folder)
        rows = {video_id: tensors(store[video_id]) for video_id in store.video_ids}
        assert store.provenance == CARD
    except CausalVideoError as error:
        assert str(folder) in str(error) and error.fix
        return
    for video_id, row in rows.items():
        expected = tensors(ROWS[video_id])
        assert row.keys() == expected.keys()
        for name, value in row.items():
            assert torch.equal(value, expected[name]) and value.dtype == expected[name].dtype, (video_id, name)


files = st.sampled_from(["features/train-00000.parquet", "features/train-00001.parquet", "provenance.json"])
places = st.floats(0, 1, exclude_max=True)


@given(files, st.lists(st.tuples(places, st.binary(min_size=1, max_size=4)), max_size=3), places | st.just(1.0))
def test_changed_bytes_and_a_file_that_is_cut_never_give_another_number(whole, tmp_path, name, edits, keep):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    data = bytearray((whole / name).read_bytes())
    for place, put in edits:
        start = int(place * len(data))
        data[start : start + len(put)] = put[: len(data) - start]
    (tmp_path / name).write_bytes(bytes(data[: int(keep * len(data))]))
    read_or_refuse(tmp_path)


@given(places, st.integers(0, 7))
def test_one_flipped_bit_in_a_shard_is_found(whole, tmp_path, place, bit):
    """In the numbers it is always found; elsewhere it may be harmless."""
    name = "features/train-00000.parquet"
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    data = bytearray((whole / name).read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    (tmp_path / name).write_bytes(bytes(data))
    read_or_refuse(tmp_path)


@settings(max_examples=settings.default.max_examples // 5)  # every shard is forced to disk
@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(1, 4), st.integers(0, 5))
def test_a_set_in_any_number_of_shards_and_sittings_is_the_same_set(tmp_path, lengths, rows_per_shard, stop):
    """Written in two sittings, read back bit for bit; an interrupted sitting has the bytes of a whole one."""
    rows = [make_row(f"v{number}", frames) for number, frames in enumerate(lengths)]
    stop = min(stop, len(rows)) // rows_per_shard * rows_per_shard  # a sitting ends with a whole shard
    for name, sittings in (("one", [rows]), ("two", [rows[:stop], rows[stop:]])):
        shutil.rmtree(tmp_path / name, ignore_errors=True)
        for sitting in sittings:
            with FeatureWriter(tmp_path / name, CARD, rows_per_shard=rows_per_shard) as writer:
                for row in sitting:
                    writer.add(row)
    contents = [
        {path.name: path.read_bytes() for path in (tmp_path / name).rglob("*.*") if path.is_file()}
        for name in ("one", "two")
    ]
    assert contents[0] == contents[1]
    for row, read in zip(rows, FeatureStore.open(tmp_path / "two"), strict=True):
        assert all(torch.equal(value, tensors(read)[name]) for name, value in tensors(row).items())


def test_shards_of_two_extractions_do_not_mix(whole, tmp_path):
    """The same widths, another backbone: nothing but the digest tells."""
    other = Provenance.from_dict({**CARD.to_dict(), "frame_revision": "another"})
    with FeatureWriter(tmp_path, other) as writer:
        writer.add(make_row("d", 3))
    shutil.copy(whole / "features/train-00001.parquet", tmp_path / "features/train-00001.parquet")
    with pytest.raises(CausalVideoError, match="train-00001.parquet was made in another way"):
        FeatureStore.open(tmp_path)
    with pytest.raises(CausalVideoError, match="train-00001.parquet was made in another way"):
        FeatureWriter(tmp_path, other)


def test_a_set_without_checksums_is_read_and_still_searched_for_nan(whole, tmp_path):
    """As written before there were checksums, or by another tool."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "features/train-00000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata(None), path)
    assert not FeatureStore.open(tmp_path)._shards[0].is_checked
    read_or_refuse(tmp_path)


def test_streaming_gives_every_row(whole):
    """Read to the end: pyarrow may abort the process at its exit after a stream that was left in the middle."""
    from datasets import load_dataset

    stream = load_dataset(str(whole), "features", split="train", streaming=True)
    rows = {row["video_id"]: row for row in stream}
    assert tuple(rows) == IDS
    for video_id, row in rows.items():
        assert torch.equal(torch.tensor(row["object_features"]).half(), ROWS[video_id].object_features)
