"""The `evaluate` modules: offline, equal to the functions they wrap, and as strict."""

from pathlib import Path

import pytest

from hf_causal_video.data import load_benchmark
from hf_causal_video.evaluation import (
    causalvidqa_accuracy,
    nextgqa_metrics,
    nextqa_accuracy,
    open_ended_accuracy,
    vidvrd_metrics,
)
from hf_causal_video.utils.errors import CausalVideoError

evaluate = pytest.importorskip("evaluate")
METRICS = Path(__file__).resolve().parents[2] / "scripts" / "metrics"
MODULES = ("nextqa_accuracy", "causalvidqa_accuracy", "open_ended_accuracy", "nextgqa", "video_relation")
BOXES, OTHER = [[0, 0, 9, 9]] * 3, [[5, 0, 19, 9]] * 3
RELATION = {"triplet": ["dog", "chase", "cat"], "duration": [4, 7], "sub_traj": BOXES, "obj_traj": OTHER}


@pytest.fixture
def load(monkeypatch, tmp_path):
    """Load a module by its folder, with every way to the network shut and a cache of the test's own."""
    import socket

    def shut(*args, **options):
        raise AssertionError("a metric goes to the network")

    monkeypatch.setattr(socket.socket, "connect", shut)
    return lambda name: evaluate.load(str(METRICS / name), cache_dir=str(tmp_path / "cache"))


def columns(rows, *names):
    return [{name: row[name] for name in names} for row in rows]


def test_every_metric_has_a_module_of_its_name():
    assert sorted(path.name for path in METRICS.iterdir() if path.is_dir()) == sorted(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_says_what_it_takes(load, name):
    module = load(name)
    assert "predictions" in module.inputs_description and module.citation and "predictions" in module.features


def test_nextqa(load, shared):
    rows = load_benchmark("nextqa", "val", shared / "data" / "nextqa")
    predictions = [{"question_id": row["question_id"], "prediction": index % 5} for index, row in enumerate(rows)]
    references = columns(rows, "question_id", "question_type", "answer")
    found = load("nextqa_accuracy").compute(predictions=predictions, references=references)
    assert found == nextqa_accuracy(predictions, rows)
    with pytest.raises(CausalVideoError, match="not a choice: found 3; expected 0 to 2"):
        load("nextqa_accuracy").compute(predictions=predictions[:9], references=references[:9], num_choices=3)
    with pytest.raises(CausalVideoError):
        load("nextqa_accuracy").compute(predictions=predictions[:9], references=references[1:10])


def test_nextgqa(load, shared):
    rows = load_benchmark("nextgqa", "val", shared / "data" / "nextgqa").to_list()
    predictions = [
        {"question_id": row["question_id"], "span": [0.1 * index, 0.1 * index + 7.3], "prediction": index % 5}
        for index, row in enumerate(rows)
    ]
    references = columns(rows, "question_id", "spans", "duration_s", "answer")
    found = load("nextgqa").compute(predictions=predictions, references=references)
    assert found == nextgqa_metrics(predictions, rows) and found["counts"]["missing"] == 0


def test_open_ended(load, shared):
    rows = load_benchmark("msvdqa", "val", shared / "data" / "msvd_qa").to_list()
    predictions = [{"question_id": row["question_id"], "prediction": index % 9} for index, row in enumerate(rows)]
    references = columns(rows, "question_id", "question", "answer")
    found = load("open_ended_accuracy").compute(predictions=predictions, references=references)
    assert found == open_ended_accuracy(predictions, rows)
    assert found["counts"]["out_of_vocabulary"] == 436


def test_causalvidqa(load):
    kinds = ("d", "e", "p", "pr", "c", "cr")
    references = [
        {"question_id": f"{video}_{kind}", "video_id": video, "question_type": kind, "answer": 0}
        for video in ("u", "v")
        for kind in kinds
    ]
    predictions = [
        {"question_id": row["question_id"], "prediction": int(row["question_id"] == "v_cr")} for row in references
    ]
    found = load("causalvidqa_accuracy").compute(predictions=predictions, references=references)
    assert found == causalvidqa_accuracy(predictions, references) and found["All"] == 87.5
    with pytest.raises(CausalVideoError, match="lacks questions"):
        load("causalvidqa_accuracy").compute(predictions=predictions[:-1], references=references[:-1])


def test_video_relation(load):
    other = {**RELATION, "triplet": ["cat", "flee", "dog"]}
    predictions = [
        {"video_id": "u", "relations": [RELATION | {"score": 0.9}, other | {"score": 0.95}]},
        {"video_id": "v", "relations": []},
    ]
    references = [{"video_id": "u", "relations": [RELATION]}, {"video_id": "v", "relations": [other]}]
    found = load("video_relation").compute(predictions=predictions, references=references, viou_threshold=0.7)
    sides = [{row["video_id"]: row["relations"] for row in rows} for rows in (predictions, references)]
    assert found == vidvrd_metrics(*sides, viou_threshold=0.7) and found["mAP"] == 0.25
    with pytest.raises(CausalVideoError, match="2 rows of 1 videos"):
        load("video_relation").compute(predictions=[predictions[0]] * 2, references=references)
