"""Laws of the JAAD reader: on annotations written here, and the published counts on the real ones."""

import tarfile
from pathlib import Path

import pytest
import torch

from hf_causal_video.data.relations.jaad import JAAD_LABELS, JAAD_SPLITS, JaadWindows, read_jaad
from hf_causal_video.utils.errors import CausalVideoError

SIZE = "<meta><task><original_size><width>100</width><height>50</height></original_size></task></meta>"


def box(frame: int, **labels: str) -> str:
    given = {
        "action": "walking",
        "look": "not-looking",
        "cross": "crossing",
        "reaction": "__undefined__",
        "hand_gesture": "__undefined__",
        "nod": "__undefined__",
    } | labels
    attributes = "".join(f'<attribute name="{name}">{value}</attribute>' for name, value in given.items())
    left = frame % 80  # inside the picture
    place = f'xtl="{left}" ytl="10" xbr="{left + 10}" ybr="40"'
    return f'<box frame="{frame}" outside="0" {place}>{attributes}</box>'


def write(folder: Path, boxes: list[str], states: list[str], kind: str = "pedestrian") -> Path:
    for name in ("annotations", "annotations_vehicle", "split_ids/all_videos"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    track = f'<track label="{kind}">{"".join(boxes)}</track>'
    (folder / "annotations/video_0001.xml").write_text(f"<annotations>{SIZE}{track}</annotations>")
    frames = "".join(f'<frame action="{state}" id="{frame}" />' for frame, state in enumerate(states))
    (folder / "annotations_vehicle/video_0001_vehicle.xml").write_text(f"<vehicle_info>{frames}</vehicle_info>")
    for split in JAAD_SPLITS:
        (folder / f"split_ids/all_videos/{split}.txt").write_text("video_0001\n" if split == "train" else "")
    return folder


def words(windows: JaadWindows, row: int) -> set[str]:
    return {JAAD_LABELS[place] for place in windows.labels[row].nonzero().flatten().tolist()}


def test_a_window_has_the_states_of_most_frames_and_every_event(tmp_path):
    boxes = [
        box(f, action="standing" if f < 2 else "walking", nod="nodding" if f == 3 else "__undefined__")
        for f in range(10)
    ]
    windows = read_jaad(write(tmp_path, boxes, ["stopped"] * 5 + ["moving_fast"] * 5), "train", window=4)
    assert len(windows) == 2, "the last two boxes are no window"
    assert words(windows, 0) == {"standing", "not-looking", "crossing", "nodding"}, "the first seen, of equals"
    assert words(windows, 1) == {"walking", "not-looking", "crossing"}
    torch.testing.assert_close(windows.boxes[1, 0], torch.tensor([0.04, 0.2, 0.14, 0.8]))
    assert windows.car.tolist() == [[0, 0, 0, 0], [0, 2, 2, 2]] and windows.start_frames.tolist() == [0, 4]
    assert len(read_jaad(tmp_path, "val")) == 0


def test_windows_may_overlap_and_other_people_are_left_out(tmp_path):
    boxes = [box(frame) for frame in range(10)]
    assert len(read_jaad(write(tmp_path, boxes, ["stopped"] * 10), "train", window=4, stride=2)) == 4
    assert len(read_jaad(write(tmp_path, boxes, ["stopped"] * 10, kind="ped"), "train", window=4)) == 0
    assert len(read_jaad(write(tmp_path, boxes[:3], ["stopped"] * 10), "train", window=4)) == 0


def test_folder_and_archive_hold_the_same(tmp_path):
    folder = write(tmp_path / "jaad", [box(frame) for frame in range(8)], ["stopped"] * 8)
    with tarfile.open(tmp_path / "jaad.tar.xz", "w:xz") as archive:
        archive.add(folder, "JAAD-JAAD_2.0")
    one, two = (read_jaad(path, "train", window=4) for path in (folder, tmp_path / "jaad.tar.xz"))
    assert torch.equal(one.boxes, two.boxes) and torch.equal(one.labels, two.labels)


@pytest.mark.parametrize(
    ("boxes", "states", "message"),
    [
        ([box(0), box(1)], ["stopped"], "state of the car in frames"),
        ([box(0), box(1)], ["flying", "stopped"], "flying"),
        ([box(0), box(1, action="dancing")], ["stopped"] * 2, "dancing"),
        ([box(0), box(1).replace('xbr="11"', 'xbr="0"')], ["stopped"] * 2, "frame 1"),
        ([box(1), box(0)], ["stopped"] * 2, "ascending"),
        ([box(1), box(1)], ["stopped"] * 2, "ascending"),
        ([box(0), box(1).replace('xbr="11"', 'xbr="150"')], ["stopped"] * 2, "inside the picture"),
    ],
)
def test_broken_annotations_are_refused(tmp_path, boxes, states, message):
    with pytest.raises(CausalVideoError, match=message):
        read_jaad(write(tmp_path, boxes, states), "train", window=2)


def test_what_is_not_jaad_is_refused(tmp_path):
    (tmp_path / "x.tar").write_text("no archive")
    for path, split in ((tmp_path, "train"), (tmp_path / "x.tar", "train"), (tmp_path, "validation")):
        with pytest.raises(CausalVideoError, match="JAAD"):
            read_jaad(path, split)


def test_a_batch_is_a_pedestrian_before_a_car():
    windows = JaadWindows(
        torch.rand(3, 5, 4), torch.randint(0, 5, (3, 5)), torch.ones(3, 11), ["v"] * 3, torch.zeros(3)
    )
    batch = windows.batch(torch.tensor([2, 0]))
    assert torch.equal(batch["track_boxes"][:, 0], windows.boxes[[2, 0]])
    assert torch.equal(batch["track_features"][:, 1].argmax(-1), windows.car[[2, 0]])
    assert not batch["track_features"][:, 0].any() and batch["pair_index"].tolist() == [[[0, 1]]] * 2


@pytest.mark.slow
def test_the_published_counts(shared):
    path, totals = shared / "data/jaad/jaad_annotations.tar.xz", torch.zeros(11)
    for split, count in (("train", 2075), ("val", 336), ("test", 1754)):
        windows = read_jaad(path, split)
        assert len(windows) == count and ((windows.boxes >= 0) & (windows.boxes <= 1)).all()
        totals += windows.labels.sum(0)
    assert dict(zip(JAAD_LABELS, totals.int().tolist(), strict=True)) == {
        "walking": 3566,
        "standing": 599,
        "looking": 732,
        "not-looking": 3433,
        "crossing": 2354,
        "not-crossing": 1811,
        "clear_path": 107,
        "speed_up": 178,
        "slow_down": 122,
        "hand_gesture": 34,
        "nodding": 11,
    }
