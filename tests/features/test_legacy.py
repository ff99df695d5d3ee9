"""Laws of the HDF5 readers: rows are joined by id, nothing is guessed, the two-clip trap is repeated only as asked."""

import json
import sys

import numpy as np
import pytest

from hf_causal_video.features import import_app_mot, import_appearance_motion, import_transtr
from hf_causal_video.features.store import FeatureStore, Provenance
from hf_causal_video.utils.errors import CausalVideoError

h5py = pytest.importorskip("h5py")
RNG = np.random.default_rng(0)


def write(path, ids, **arrays):
    with h5py.File(path, "w") as file:
        file["ids"] = np.array(ids)
        for name, array in arrays.items():
            file[name] = array
    return path


def card(dim, **objects):
    return Provenance("org/resnet", "v1", "pool5", dim, sampling="uniform-16", **objects)


def test_appearance_and_motion_are_joined_by_id_not_by_row(tmp_path):
    first, second = RNG.random((3, 16, 4), np.float32), RNG.random((3, 16, 5), np.float32)
    appearance = write(tmp_path / "a.h5", [b"v1", b"v2", b"v3"], res152_features=first)
    motion = write(tmp_path / "m.h5", [b"v3", b"v1", b"v2"], resnext_features=second)
    import_appearance_motion(appearance, motion, tmp_path / "set", card(9), 8.0, progress=False)
    row = FeatureStore.open(tmp_path / "set")["v1"]
    np.testing.assert_array_equal(row.frame_features, np.concatenate([first[0], second[1]], -1).astype(np.float16))
    assert row.timestamps_s.tolist() == [0.25 + 0.5 * i for i in range(16)]


def test_clips_of_frames_give_their_middle_frame(tmp_path):
    clips = RNG.random((1, 16, 7, 4), np.float32)
    appearance = write(tmp_path / "a.h5", [5], x=clips)
    motion = write(tmp_path / "m.h5", [5], x=RNG.random((1, 16, 2), np.float32))
    import_appearance_motion(appearance, motion, tmp_path / "set", card(6), {"5": 16.0}, progress=False)
    frames = FeatureStore.open(tmp_path / "set")["5"].frame_features
    np.testing.assert_array_equal(frames[:, :4], clips[0, :, 3].astype(np.float16))


def test_files_of_different_videos_are_refused(tmp_path):
    appearance = write(tmp_path / "a.h5", [1, 2], x=np.zeros((2, 16, 4)))
    motion = write(tmp_path / "m.h5", [1, 3], x=np.zeros((2, 16, 4)))
    with pytest.raises(CausalVideoError, match=r"same videos.*\['2', '3'\]"):
        import_appearance_motion(appearance, motion, tmp_path / "set", card(8), 1.0)
    twice = write(tmp_path / "t.h5", [1, 1], feat=np.zeros((2, 16, 4)))
    with pytest.raises(CausalVideoError, match="do not name its rows"):
        import_app_mot(twice, tmp_path / "set", card(4), 1.0)


def test_app_mot_needs_the_width_that_the_provenance_states(tmp_path):
    feat = RNG.random((2, 16, 8), np.float32)
    feat[1, 0, 0] = np.nan
    file = write(tmp_path / "app_mot_val.h5", [11, 12], feat=feat)
    report = import_app_mot(file, tmp_path / "set", card(8), {"11": 3.2, "12": 3.2}, progress=False)
    assert report.written == ["11"] and "not finite" in report.failed["12"]
    np.testing.assert_array_equal(FeatureStore.open(tmp_path / "set")["11"].frame_features, feat[0].astype(np.float16))
    report = import_app_mot(file, tmp_path / "other", card(9), {"11": 3.2}, progress=False)
    assert "found (16, 8); expected (16, 9)" in report.failed["11"] and "no duration" in report.failed["12"]


@pytest.fixture
def transtr(tmp_path):
    regions = RNG.random((2, 8, 4, 6, 5), np.float32) + 0.1
    regions[0, 0, 0, 2:] = 0  # only two objects in the first frame
    boxes = RNG.random((2, 8, 4, 6, 4), np.float32) * np.array([640, 480, 640, 480], np.float32)
    frames = RNG.random((2, 16, 7), np.float32)
    write(tmp_path / "frames.h5", [b"v1", b"v2"], feat=frames)
    write(tmp_path / "objects.h5", [b"v2", b"v1"], feat=regions, bbox=boxes)
    provenance = card(
        7, object_model="org/rcnn", object_revision="v1", object_layer="roi", object_dim=5, num_objects=3
    )
    sizes = {"v1": (640, 480), "v2": (640, 480)}
    return tmp_path, frames, regions, boxes, provenance, sizes


def test_transtr_rows_are_every_second_clip(transtr):
    folder, frames, regions, boxes, provenance, sizes = transtr
    files = (folder / "frames.h5", folder / "objects.h5", folder / "set")
    report = import_transtr(*files, provenance, 32.0, sizes, progress=False)
    assert report.written == ["v1", "v2"]
    row = FeatureStore.open(folder / "set")["v2"]  # first row of the object file
    np.testing.assert_array_equal(row.frame_features, frames[1].astype(np.float16))
    expected = regions[0, [0, 2, 4, 6], :, :3].reshape(16, 3, 5)
    np.testing.assert_array_equal(row.object_features, expected.astype(np.float16))
    scale = np.array([640, 480, 640, 480])
    np.testing.assert_allclose(row.object_boxes[1], boxes[0, 0, 1, :3] / scale, rtol=1e-5)
    assert row.object_mask[0].tolist() == [True, True, False] and (row.object_boxes[0, 2] == 0).all()
    assert (row.object_labels == -1).all()


def test_transtr_needs_sizes_and_matching_lengths(transtr):
    folder, *_, provenance, sizes = transtr
    files = (folder / "frames.h5", folder / "objects.h5", folder / "set")
    with pytest.raises(CausalVideoError, match="without picture sizes"):
        import_transtr(*files, provenance, 32.0)
    report = import_transtr(*files, provenance, 32.0, sizes, clip_stride=1, progress=False)
    assert not report.written and "16 and 32 rows" in report.failed["v1"]


def test_frames_alone(transtr):
    folder, frames, *_ = transtr
    import_transtr(folder / "frames.h5", None, folder / "alone", card(7), 16.0, progress=False)
    assert FeatureStore.open(folder / "alone")["v1"].object_features is None


def test_what_cannot_be_read_is_named(tmp_path, monkeypatch):
    (tmp_path / "x.h5").write_bytes(b"no")
    with pytest.raises(CausalVideoError, match="x.h5 is not an HDF5 file"):
        import_app_mot(tmp_path / "x.h5", tmp_path / "set", card(4), 1.0)
    file = write(tmp_path / "y.h5", [1], x=np.zeros((1, 16, 4)), y=np.zeros((1, 16, 4)))
    with pytest.raises(CausalVideoError, match=r"found \['ids', 'x', 'y'\]; expected a dataset 'feat'"):
        import_app_mot(file, tmp_path / "set", card(4), 1.0)
    with pytest.raises(CausalVideoError, match=r"which dataset of .*y.h5.*\['x', 'y'\]"):
        import_appearance_motion(file, file, tmp_path / "set", card(8), 1.0)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(CausalVideoError, match="pip install h5py"):
        import_app_mot(file, tmp_path / "set", card(4), 1.0)


def test_the_command_imports_and_says_what_is_missing(transtr, capsys):
    from hf_causal_video.cli.main import main

    folder, frames, *_, provenance, sizes = transtr
    (folder / "card.json").write_text(json.dumps(provenance.to_dict()))
    (folder / "sizes.csv").write_text("video,width,height\nv1,640,480\nv2,640,480\n")
    (folder / "seconds.json").write_text('{"v1": 32.0, "v2": 32.0}')
    files = [str(folder / "frames.h5"), str(folder / "objects.h5")]
    command = ["import", "transtr", *files, "--provenance", str(folder / "card.json"), "--no-progress"]
    given = ["--durations", str(folder / "seconds.json"), "--sizes", str(folder / "sizes.csv")]
    assert main([*command, *given, "--output", str(folder / "set")]) == 0
    assert "2 videos written" in capsys.readouterr().out
    import_transtr(
        folder / "frames.h5", folder / "objects.h5", folder / "same", provenance, 32.0, sizes, progress=False
    )
    names = ("features/train-00000.parquet", "provenance.json", "README.md")
    assert all((folder / "set" / name).read_bytes() == (folder / "same" / name).read_bytes() for name in names)
    wrong = [
        (["--durations", "32"], "without picture sizes"),
        (["--durations", str(folder / "card.json")], "number(s) above zero"),
        (["--durations", str(folder / "absent.json")], "cannot be read"),
        (["--durations", "32", "--sizes", str(folder / "seconds.json")], "2 number(s) above zero"),
    ]
    for options, words in wrong:
        assert main([*command, *options, "--output", str(folder / "other")]) == 2
        assert words in capsys.readouterr().err
    command[1] = "app-mot"
    assert main([*command, *given, "--output", str(folder / "other")]) == 2
    assert "found 2; expected one file with both side by side" in capsys.readouterr().err
    alone = ["import", "app-mot", files[0], "--provenance", str(folder / "seconds.json"), "--durations", "1"]
    assert main([*alone, "--output", str(folder / "other")]) == 2
    assert "invalid provenance: found no frame_model" in capsys.readouterr().err
