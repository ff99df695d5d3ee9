"""Annotations come in whole: gaps, unseen objects, both layouts; what the evaluation would misread is refused."""

import copy
import gzip
import json
from pathlib import Path

import pytest

from hf_causal_video.data.relations.rows import ground_truth, relations_dataset, training_counts, unbroken_tracks
from hf_causal_video.data.relations.vidvrd import read_relations, read_trajectories
from hf_causal_video.evaluation.relations.metrics import vidvrd_metrics
from hf_causal_video.utils.errors import CausalVideoError


def box(tid: int, left: int) -> dict:
    corners = {"xmin": left, "ymin": 5, "xmax": left + 20, "ymax": 30}
    return {"tid": tid, "bbox": corners, "generated": 0, "tracker": "none"}


def annotation(video_id: str = "v1", **more) -> dict:
    """Six frames; object 0 is always there, 4 leaves in frame 3, 7 is listed but never boxed."""
    return {
        "video_id": video_id, "frame_count": 6, "fps": 30, "width": 100, "height": 60,
        "subject/objects": [{"tid": t, "category": name} for t, name in ((0, "dog"), (7, "cat"), (4, "frisbee"))],
        "trajectories": [[box(0, frame), *([box(4, 50 - frame)] if frame != 3 else [])] for frame in range(6)],
        "relation_instances": [
            {"subject_tid": 0, "object_tid": 4, "predicate": "chase", "begin_fid": 0, "end_fid": 3},
            {"subject_tid": 4, "object_tid": 0, "predicate": "left", "begin_fid": 4, "end_fid": 6},
        ],
    } | more  # fmt: skip


def write(folder: Path, *annotations: dict, below: str = "") -> Path:
    target = folder / below
    target.mkdir(parents=True, exist_ok=True)
    for one in annotations:
        (target / f"{one['video_id']}.json").write_text(json.dumps(one))
    return folder


def test_both_datasets_are_read_by_one_reader(tmp_path: Path) -> None:
    vidvrd = read_relations(write(tmp_path / "vidvrd", annotation(), annotation("v2")))
    extra = {"version": "VERSION 1.0", "video_hash": "x", "video_path": "0001/v1.mp4"}
    vidor = read_relations(write(tmp_path / "vidor", annotation(**extra), below="0001"))
    assert vidvrd["video_id"] == ["v1", "v2"]
    assert vidor[0] == vidvrd[0]
    assert [track["category"] for track in vidor[0]["tracks"]] == ["dog", "frisbee"]


def test_relations_keep_their_boxes_and_score_perfectly_against_themselves(tmp_path: Path) -> None:
    rows = read_relations(write(tmp_path, annotation()))
    gold = ground_truth(rows)
    assert gold["v1"][1] == {
        "triplet": ["frisbee", "left", "dog"], "duration": [4, 6],
        "sub_traj": [[46, 5, 66, 30], [45, 5, 65, 30]], "obj_traj": [[4, 5, 24, 30], [5, 5, 25, 30]],
    }  # fmt: skip
    assert vidvrd_metrics({"v1": [one | {"score": 1.0} for one in gold["v1"]]}, gold)["mAP"] == 1.0
    assert training_counts(rows) == (
        {"chase": 1, "left": 1},
        {("dog", "chase", "frisbee"), ("frisbee", "left", "dog")},
    )


def test_a_track_with_a_gap_becomes_two_tracks(tmp_path: Path) -> None:
    parts = unbroken_tracks(read_relations(write(tmp_path, annotation()))[0])
    assert [(part["track"], part["start"], len(part["boxes"])) for part in parts] == [(0, 0, 6), (1, 0, 3), (1, 4, 2)]


def test_trajectories_of_others_come_in_by_the_layout_of_the_object_task(tmp_path: Path) -> None:
    tracks = {"v1": [{"category": "dog", "score": 0.8, "trajectory": {"10": [0, 0, 9, 9], "2": [1, 0, 9, 9]}}]}
    plain, packed = tmp_path / "tracks.json", tmp_path / "tracks.json.gz"
    plain.write_text(json.dumps({"version": "VERSION 1.0", "results": tracks}))
    packed.write_bytes(gzip.compress(json.dumps(tracks).encode()))
    one, two = (read_trajectories(path, {"v1": (100, 60, 20)})[0] for path in (plain, packed))
    assert one == two and one["tracks"][0]["frames"] == [2, 10] and one["relations"] == []
    with pytest.raises(CausalVideoError, match="unknown videos"):
        read_trajectories(plain, {"v2": (100, 60, 20)})
    with pytest.raises(CausalVideoError, match="ascending in 0..4"):
        read_trajectories(plain, {"v1": (100, 60, 5)})


def spoiled(name: str) -> dict:
    broken = copy.deepcopy(annotation())
    first = broken["relation_instances"][0]
    match name:
        case "field":
            del broken["trajectories"]
        case "stranger":
            broken["trajectories"][0].append(box(9, 1))
        case "never boxed":
            first["object_tid"] = 7
        case "itself":
            first["object_tid"] = 0
        case "gap":
            first["end_fid"] = 5
        case "empty":
            first["end_fid"] = 0
        case "inverted":
            broken["trajectories"][1][0]["bbox"]["xmax"] = -5
    return broken


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("field", "trajectories"), ("stranger", "unknown object.*found 9"), ("never boxed", "that have boxes"),
        ("itself", "two different"), ("gap", r"none in \[3\]"), ("empty", "before the end"), ("inverted", "frame 1"),
    ],
)  # fmt: skip
def test_bad_annotations_are_named(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(CausalVideoError, match=message):
        read_relations(write(tmp_path, spoiled(name)))


def test_incomplete_splits_are_refused_where_a_split_is_named(tmp_path: Path) -> None:
    with pytest.raises(CausalVideoError, match="1 videos; expected 200"):
        read_relations(write(tmp_path, annotation()), split="vidvrd-test")
    with pytest.raises(CausalVideoError, match="missing annotations"):
        read_relations(tmp_path / "nowhere")


def test_a_video_twice_is_an_error(tmp_path: Path) -> None:
    row = dict(read_relations(write(tmp_path, annotation()))[0])
    with pytest.raises(CausalVideoError, match="twice"):
        relations_dataset([row, row])
    with pytest.raises(CausalVideoError, match="fps"):
        relations_dataset([{name: value for name, value in row.items() if name != "fps"}])
