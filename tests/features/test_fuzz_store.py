"""Feature sets that other tools wrote, and cards with anything in them: the numbers that stand there, or a refusal."""

import json
import math
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_causal_video.features.store import FeatureStore, FeatureWriter, Provenance, VideoFeatures
from hf_causal_video.features.store.card import merge_cards
from tests.fuzzing import JUNK, NUMBERS, TEXTS, mutated, refused

CARD = Provenance("org/vit", "abc", "pooled", 2, "org/detr", "def", "last", 3, 2, "uniform-4")
PLAIN = Provenance("org/vit", "abc", "pooled", 2, sampling="uniform-4")
SHAPES = {"object_features": (2, 2, 3), "object_boxes": (2, 2, 4), "object_scores": (2, 2), "object_labels": (2, 2)}
ROW = {
    "video_id": "a", "timestamps_s": [0.5, 1.5], "frame_features": [[0.25, 1.0], [-2.0, 3.0]],
    **{name: np.full(shape, 0.5 if name != "object_labels" else 3).tolist() for name, shape in SHAPES.items()},
}  # fmt: skip
ROW["object_labels"] = [[3, 4], [5, -1]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sets")


def flat(value) -> list[float]:
    return [float(n) for n in np.asarray(value).reshape(-1)]


def same(row: dict, read: VideoFeatures) -> None:
    """The numbers of a row, as near as the stored precision comes."""
    for name in ("timestamps_s", "frame_features", *SHAPES):
        tensor, given_ones = getattr(read, name), row.get(name)
        if tensor is not None:
            assert tensor.isfinite().all()
            found, expected = flat(tensor.float()), flat(given_ones)
            assert len(found) == len(expected)
            assert all(math.isclose(a, b, rel_tol=2e-3, abs_tol=1e-4) for a, b in zip(found, expected, strict=True))
    assert (read.timestamps_s.diff() > 0).all()


@st.composite
def foreign_rows(draw) -> list[dict]:
    """Two rows of a set of another tool, in which numbers, kinds and shapes may be wrong."""
    rows = [dict(ROW), dict(ROW) | {"video_id": "b"}]
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from(list(ROW)))
        what = draw(st.sampled_from(["number", "kind", "shape", "drop", "none", "value"]))
        for row in rows[: draw(st.integers(1, 2))] if what in ("number", "none", "value") else rows:
            value = row.get(name)
            if value is None or what == "none":
                row[name] = None
            elif what == "drop":
                row.pop(name)
            elif what == "value" or name == "video_id" or not isinstance(value, list):
                row[name] = draw(JUNK)
            elif value is not ROW[name]:
                continue  # changed before, perhaps to what is no number
            elif what == "number":
                array = np.array(value, dtype=float)
                array.flat[0] = draw(st.sampled_from([math.nan, math.inf, -1.0, 1e30, 70000.0, 0.3, 2.5]))
                row[name] = array.tolist()
            elif what == "kind":
                kind = draw(st.sampled_from([float, int, str, bool]))
                if np.array(value).dtype.kind != "U":
                    row[name] = np.array(value).astype(kind).tolist()
            else:
                row[name] = draw(st.sampled_from([value * 2, value[:1], [value], flat(value), [], value + value[:1]]))
    return rows


@given(foreign_rows(), st.booleans(), st.sampled_from([CARD, PLAIN]))
def test_a_set_of_another_tool_is_read_as_it_stands_or_refused(folder, rows, joined, card):
    place = folder / "foreign"
    shutil.rmtree(place, ignore_errors=True)
    (place / "features").mkdir(parents=True)
    (place / "provenance.json").write_text(json.dumps(card.to_dict()))
    names = [name for name in ROW if card is CARD or name not in SHAPES]
    try:
        table = pa.Table.from_pylist([{name: row[name] for name in names if name in row} for row in rows])
        pq.write_table(table, place / "features/train-00000.parquet", row_group_size=2 if joined else 1)
    except (pa.ArrowException, TypeError, ValueError, OverflowError, UnicodeEncodeError):
        return  # Arrow itself has no place for it
    no, store = refused(FeatureStore.open, place)
    if no:
        assert "foreign" in str(store)
        return
    by_id = {row.get("video_id"): row for row in table.to_pylist()}
    for video_id in store.video_ids:
        no, read = refused(store.__getitem__, video_id)
        if not no:
            same(by_id[video_id], read)
            assert (read.object_features is not None) == (card is CARD)


@given(mutated(CARD.to_dict()) | JUNK)
def test_any_card_is_a_provenance_or_refused(folder, content):
    place = folder / "card"
    place.mkdir(exist_ok=True)
    (place / "provenance.json").write_text(json.dumps(content))
    no, read = refused(Provenance.read, place)
    if no:
        assert "provenance.json" in str(read)
        return
    assert Provenance.from_dict(read.to_dict()) == read and read.frame_dim >= 1
    texts = (read.frame_model, read.frame_revision, read.frame_layer, read.sampling)
    assert all(isinstance(text, str) and text for text in texts)
    assert not read.has_objects or read.num_objects >= 1 and read.object_dim >= 1
    assert read.digest() == Provenance.read(place).digest() and not read.differences(read.to_dict())


@given(mutated(CARD.to_dict()) | JUNK)
def test_features_fit_what_a_checkpoint_says_or_are_refused(content):
    store = FeatureStore.from_rows(PLAIN, [VideoFeatures("a", torch.tensor([0.5]), torch.ones(1, 2))])
    no, _ = refused(store.check, content)
    if not no and content:
        assert not content.get("frame_model") or content["frame_model"] == "org/vit"  # not said, or the same


@st.composite
def features(draw) -> VideoFeatures:
    """A row to be written, of which a tensor may be of a wrong shape, kind or number."""
    made = {name: torch.tensor(value) for name, value in ROW.items() if name != "video_id"}
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from(list(made)))
        value = made[name]
        what = draw(st.sampled_from(["number", "kind", "shape", "none", "junk", "cut"]))
        if what in ("none", "junk") or not isinstance(value, torch.Tensor):
            made[name] = None if what == "none" else draw(JUNK)
        elif what == "number" and value.numel():
            made[name] = value.double()
            made[name].view(-1)[0] = float(draw(NUMBERS.filter(lambda n: n != n or abs(n) < 1e301)))
        elif what == "kind":
            made[name] = value.to(draw(st.sampled_from([torch.bool, torch.int64, torch.float64, torch.complex64])))
        else:
            made[name] = value[:1] if what == "cut" else value.unsqueeze(draw(st.integers(0, 1)))
    return VideoFeatures(draw(st.just("a") | TEXTS | JUNK), **made)


@given(features())
def test_any_row_is_kept_as_it_is_or_refused(row):
    no, store = refused(FeatureStore.from_rows, CARD, [row])
    if not no:
        same(vars(row), store[row.video_id])


@given(TEXTS | JUNK, st.integers(-1, 3) | JUNK)
def test_any_split_and_shard_size_make_a_set_in_its_folder_or_are_refused(folder, split, rows_per_shard):
    place = folder / "inside" / "set"
    shutil.rmtree(folder / "inside", ignore_errors=True)
    no, writer = refused(FeatureWriter, place, PLAIN, split, rows_per_shard)
    if not no:
        with writer:
            writer.add(VideoFeatures("a", torch.tensor([0.5]), torch.ones(1, 2)))
        assert FeatureStore.open(place).video_ids == ["a"] and list(folder.joinpath("inside").iterdir()) == [place]


@given(JUNK | TEXTS, st.lists(st.sampled_from("abx"), max_size=4))
def test_unknown_ids_are_refused_and_known_ones_come_in_the_order_asked_for(other, asked):
    store = FeatureStore.from_rows(
        PLAIN, [VideoFeatures(name, torch.tensor([0.5]), torch.full((1, 2), n)) for n, name in enumerate("ab")]
    )
    assert refused(store.__getitem__, other)[0] == (other not in ("a", "b"))
    no, rows = refused(store.get_many, asked)
    assert no == ("x" in asked)
    if not no:
        assert [(row.video_id, float(row.frame_features[0, 0])) for row in rows] == [(n, "ab".index(n)) for n in asked]


OURS = "---\nconfigs:\n- config_name: features\n  default: true\n  data_files:\n  - split: train\n---\n# Features\n"
yamls = st.one_of(
    mutated({"license": "mit", "configs": [{"config_name": "questions", "default": True}], "tags": ["a"]}).map(repr),
    st.text(st.sampled_from("abc:-\n \t{}[]!&*\"'#0"), max_size=30), JUNK.map(repr),
)  # fmt: skip


@given(yamls)
def test_any_card_of_a_repository_keeps_our_table_or_is_refused(there):
    no, text = refused(merge_cards, OURS, f"---\n{there}\n---\nwords\n")
    if not no:
        assert text.startswith("---\n") and "config_name: features" in text and text.endswith("# Features\n")
