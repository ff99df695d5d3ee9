"""Laws of own arrays: each layout gives the numbers it holds, nothing is unpickled, a card says how it was made."""

import io
import json
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hf_causal_video.cli.main import main
from hf_causal_video.features import import_arrays
from hf_causal_video.features.store import FeatureStore
from hf_causal_video.features.store.provenance import complete_card
from hf_causal_video.utils.errors import CausalVideoError

CARD = {"frame_model": "org/vit", "frame_revision": "v1", "frame_layer": "pooled", "sampling": "uniform-4"}
RNG = np.random.default_rng(0)
WALK, RUN = RNG.random((4, 6), np.float32), RNG.random((3, 6), np.float32)
BOXES = np.tile(np.array([0.1, 0.2, 0.5, 0.6], np.float32), (4, 2, 1))


def save_npy(folder: Path) -> None:
    np.save(folder / "walk.npy", WALK)
    np.save(folder / "run.mp4.npy", RUN)


def save_npz(folder: Path) -> None:
    np.savez(folder / "walk.npz", frame_features=WALK)
    np.savez(folder / "run.npz", RUN)


def save_keyed_npz(folder: Path) -> None:
    np.savez(folder / "all.npz", walk=WALK, run=RUN)


def save_pt(folder: Path) -> None:
    torch.save(torch.from_numpy(WALK), folder / "walk.pt")
    torch.save({"features": torch.from_numpy(RUN)}, folder / "run.pt")


def save_keyed_pt(folder: Path) -> None:
    torch.save({"walk": torch.from_numpy(WALK), "run": {"feat": torch.from_numpy(RUN)}}, folder / "all.pt")


def save_keyed_h5(folder: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "all.h5", "w") as file:
        file["walk"] = WALK
        file["run/frame_features"] = RUN


def save_h5(folder: Path) -> None:
    h5py = pytest.importorskip("h5py")
    for name, rows in (("walk", WALK), ("run", RUN)):
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["features"] = rows


SAVE = [save_npy, save_npz, save_keyed_npz, save_pt, save_keyed_pt, save_h5, save_keyed_h5]


@pytest.mark.parametrize("save", SAVE, ids=lambda save: save.__name__)
def test_each_layout_gives_the_rows_of_its_videos(tmp_path, capsys, save):
    arrays, card = tmp_path / "arrays", tmp_path / "card.json"
    arrays.mkdir()
    save(arrays)
    card.write_text(json.dumps(CARD))
    command = ["import", "arrays", str(arrays), "--provenance", str(card), "--output", str(tmp_path / "set")]
    assert main([*command, "--no-progress"]) == 0
    assert "fractions of the clip" in capsys.readouterr().out
    store = FeatureStore.open(tmp_path / "set")
    assert sorted(store.video_ids) == ["run", "walk"]
    np.testing.assert_array_equal(store["walk"].frame_features, WALK.astype(np.float16))
    np.testing.assert_array_equal(store["run"].frame_features, RUN.astype(np.float16))
    assert store["walk"].timestamps_s.tolist() == [0.125, 0.375, 0.625, 0.875]
    assert (store.provenance.frame_dim, store.provenance.has_objects) == (6, False)


def test_a_file_with_ids_gives_a_row_per_video(tmp_path):
    rows = np.stack([WALK, WALK + 1])
    np.savez(tmp_path / "all.npz", ids=np.array(["walk", "run"]), features=rows)
    import_arrays(tmp_path / "all.npz", tmp_path / "set", CARD, {"walk": 8.0, "run": 4.0}, progress=False)
    store = FeatureStore.open(tmp_path / "set")
    np.testing.assert_array_equal(store["run"].frame_features, rows[1].astype(np.float16))
    assert store["walk"].timestamps_s.tolist() == [1.0, 3.0, 5.0, 7.0] and store["run"].timestamps_s[0] == 0.5


def test_objects_times_and_half_precision_are_taken_over(tmp_path):
    objects = RNG.random((4, 2, 5), np.float32)
    objects[1, 1] = 0
    columns = {
        "frame_features": torch.from_numpy(WALK).bfloat16(),
        "timestamps_s": torch.tensor([1.0, 2.0, 4.0, 8.0]),
        "object_features": torch.from_numpy(objects),
        "object_boxes": torch.from_numpy(BOXES),
    }
    torch.save(columns, tmp_path / "walk.pt")
    card = {**CARD, "object_model": "org/detr", "object_revision": "v2", "object_layer": "last"}
    import_arrays(tmp_path, tmp_path / "set", card, progress=False)
    row = FeatureStore.open(tmp_path / "set")["walk"]
    assert row.timestamps_s.tolist() == [1.0, 2.0, 4.0, 8.0]
    torch.testing.assert_close(row.frame_features, columns["frame_features"].half())
    assert row.object_mask.tolist() == [[True, True], [True, False], [True, True], [True, True]]
    np.testing.assert_array_equal(row.object_boxes, BOXES)


def test_a_rate_gives_the_times(tmp_path):
    np.save(tmp_path / "walk.npy", WALK)
    import_arrays(tmp_path, tmp_path / "set", {**CARD, "sampling": "fps-2"}, progress=False)
    assert FeatureStore.open(tmp_path / "set")["walk"].timestamps_s.tolist() == [0.25, 0.75, 1.25, 1.75]


class Evil:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def test_bad_files_are_listed_and_nothing_is_unpickled(tmp_path):
    arrays, mark = tmp_path / "arrays", tmp_path / "mark"
    arrays.mkdir()
    np.save(arrays / "good.npy", WALK)
    np.save(arrays / "nan.npy", np.full((4, 6), np.nan, np.float32))
    np.save(arrays / "huge.npy", np.full((4, 6), 1e6, np.float32))
    np.save(arrays / "wide.npy", np.ones((4, 7), np.float32))
    np.save(arrays / "maps.npy", np.ones((4, 6, 2, 2), np.float32))
    np.save(arrays / "words.npy", np.array(["a", "b"]))
    np.save(arrays / "none.npy", np.ones((0, 6), np.float32))
    np.save(arrays / "evil.npy", np.array([Evil(mark)], dtype=object), allow_pickle=True)
    (arrays / "evil.pt").write_bytes(pickle.dumps(Evil(mark)))
    torch.save({"x": Evil(mark)}, arrays / "evil2.pt")
    np.savez(arrays / "evil3.npz", frame_features=np.array([Evil(mark)], dtype=object))
    (arrays / "cut.npz").write_bytes(b"PK\x03\x04cut")
    (arrays / "torn.npy").write_bytes(b"\x93NUMPY")
    (arrays / "list.pt").write_bytes(saved([torch.ones(2)]))
    (arrays / "empty.h5").write_bytes(b"")
    (arrays / ".hidden.npy").write_bytes(b"")
    (arrays / "evil.pt").rename(arrays / "evil1.pt")
    report = import_arrays(arrays, tmp_path / "set", CARD, progress=False)
    assert report.written == ["good"] and not mark.exists()
    shapes, pickles = {"wide", "maps", "words", "none"}, {"evil", "evil1", "evil2", "evil3"}
    assert set(report.failed) == {"nan", "huge", "cut", "torn", "list", "empty"} | shapes | pickles
    assert "NaN" in report.failed["nan"] and "too large for float16" in report.failed["huge"]
    assert "pickled objects" in report.failed["evil"] and "wrong shape" in report.failed["wide"]


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def test_a_card_that_contradicts_the_arrays_is_refused(tmp_path):
    np.save(tmp_path / "walk.npy", WALK)
    with pytest.raises(CausalVideoError, match="frame_dim of the provenance card: found 7; expected 6"):
        import_arrays(tmp_path, tmp_path / "set", {**CARD, "frame_dim": 7}, progress=False)
    with pytest.raises(CausalVideoError, match="no arrays in"):
        import_arrays(tmp_path / "nothing", tmp_path / "set", CARD)
    (tmp_path / "deep").mkdir()
    np.save(tmp_path / "deep" / "walk.npy", WALK)
    with pytest.raises(CausalVideoError, match="'walk' occurs twice"):
        import_arrays(tmp_path, tmp_path / "set", CARD)


def test_without_a_terminal_a_missing_card_is_an_error_with_an_example(tmp_path, capsys, monkeypatch):
    np.save(tmp_path / "walk.npy", WALK)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    command = ["import", "arrays", str(tmp_path), "--output", str(tmp_path / "set"), "--no-progress"]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "found no frame_model, frame_revision, frame_layer, sampling;" in said and said.count("\n") == 1
    example = json.loads(said[said.index("{") : said.index("}") + 1])
    assert example["frame_dim"] == 6, "what the arrays tell stands in the example"
    (tmp_path / "card.json").write_text(json.dumps(example))
    assert main([*command, "--provenance", str(tmp_path / "card.json")]) == 0, "the example is a card"
    assert main([*command[:-2], str(tmp_path / "b"), "--provenance", str(tmp_path / "typo.json")]) == 2
    assert "missing file" in capsys.readouterr().err


def test_on_a_terminal_the_missing_fields_are_asked_for_and_written(tmp_path, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    answers = iter(["org/vit", "", "v1", "pooled", "none", "-3", "6", "uniform-4"])
    for name in ("stdin", "stderr"):
        monkeypatch.setattr(sys, name, terminal)
    monkeypatch.setattr("builtins.input", lambda prompt: next(answers))
    path = tmp_path / "card.json"
    card = complete_card({"frame_dim": None}, path)
    assert card == {**CARD, "frame_dim": 6} and next(answers, None) is None
    assert json.loads(path.read_text()) == card
