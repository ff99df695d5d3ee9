"""Files and folders are written whole or not at all, everywhere in the package."""

import ast
import errno
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hf_causal_video.selection.picture import save_selection
from hf_causal_video.selection.rules import Selection
from hf_causal_video.tracks.track_set import write_tracks
from hf_causal_video.tracks.tracker import TrackedClip
from hf_causal_video.utils.errors import as_message
from hf_causal_video.utils.files import partial_path, remove_partial, whole_file, whole_folder, write_whole
from hf_causal_video.viewer.canvas import write_png
from hf_causal_video.viewer.curves import save_curves
from hf_causal_video.worlds.render import write_video

PACKAGE = Path(__file__).resolve().parents[2] / "hf_causal_video"
MOVES = {"replace", "rename", "renames", "move"}
MAY_MOVE = {
    "utils/files.py",
    "features/store/shards.py",  # a shard is written row by row over hours, not in one block
    "training/checkpoints.py",  # takes the lock of a run that ended away; nothing is written
}
BLACK = np.zeros((16, 16, 3), np.uint8)
WRITERS = {
    "bytes": lambda path: write_whole(path, b"after"),
    "text": lambda path: write_whole(path, "after"),
    "picture": lambda path: write_png(path, Image.new("RGB", (4, 4))),
    "selection": lambda path: save_selection(Selection([0], [0.5], [0], [0], [0.1], "1 of 1"), [BLACK], "why", path),
    "curves": lambda path: save_curves({"a": [{"step": 1, "loss": 0.5}]}, path),
    "video": lambda path: write_video(path, [Image.fromarray(BLACK)] * 2, 2),
    "tracks": lambda path: write_tracks(path.parents[1], path.stem, TrackedClip([], np.zeros(1), (4, 4))),
}


def full(source: object, target: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", str(source), None, str(target))


@pytest.mark.parametrize("kind", WRITERS)
def test_nothing_is_left_of_a_failed_write(kind: str, tmp_path: Path, monkeypatch):
    path = tmp_path / "tracks" / "v.safetensors"
    path.parent.mkdir()
    path.write_bytes(b"before")
    write = WRITERS[kind]
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space") as caught:
        write(path)
    assert str(as_message(caught.value)).startswith(f"cannot write {path}")
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path] and path.read_bytes() == b"before"
    monkeypatch.undo()
    write(path)
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path] and path.read_bytes() != b"before"


def test_nothing_is_left_of_a_block_that_stops_halfway(tmp_path: Path):
    (tmp_path / "a").write_text("before")
    with pytest.raises(KeyboardInterrupt), whole_file(tmp_path / "a") as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), whole_folder(tmp_path / "b") as partial:
        (partial / "c").write_text("half")
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_text() == "before"


def test_a_folder_appears_with_everything_in_it(tmp_path: Path):
    (tmp_path / "b").mkdir()
    with whole_folder(tmp_path / "b") as partial:
        (partial / "c").write_text("whole")
        assert not any((tmp_path / "b").iterdir())
    assert [path.name for path in tmp_path.rglob("*")] == ["b", "c"]


def test_an_error_about_another_file_keeps_its_name(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no/such"), whole_file(tmp_path / "a"):
        Path("no/such").read_text()


def test_what_a_kill_leaves_is_cleared_away(tmp_path: Path):
    for name in ("train-00001.parquet", "test-00001.parquet"):
        partial_path(tmp_path / name).write_text("half")
    (tmp_path / "train-00000.parquet").write_text("whole")
    remove_partial(tmp_path, "train-*")
    remove_partial(tmp_path / "no such folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        partial_path("test-00001.parquet").name,
        "train-00000.parquet",
    ]


def test_no_file_gets_its_name_but_through_these_functions():
    """`os.replace`, `os.rename`, `shutil.move`, and the methods of a path; text and tables have other methods."""
    elsewhere = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Attribute) and called.attr in MOVES:
                is_module = isinstance(called.value, ast.Name) and called.value.id in ("os", "shutil")
                if is_module or len(node.args) == 1 and not node.keywords:
                    elsewhere.add((path.relative_to(PACKAGE).as_posix(), ast.unparse(called)))
    assert {name for name, _ in elsewhere} == MAY_MOVE, elsewhere
