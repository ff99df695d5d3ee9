"""The plug-in for lmms-eval: its scoring always, and the whole way through the released package where it is installed.

PYTHONPATH=.venv/torchvision python -m pytest -p tests.torchvision_operators tests/scripts/test_lmms_plugin.py
"""

# ruff: noqa: F811 (fixtures are imported by name)
import importlib.util
import json
import sys
from pathlib import Path

import pytest
import yaml
from datasets import Dataset

from tests.selection.conftest import checkpoint, clip_file, dual_encoder  # noqa: F401

PLUGIN = Path(__file__).resolve().parents[2] / "scripts" / "lmms"
TASKS = PLUGIN / "causal_frames" / "tasks"
ROW = {
    "video": 7, "qid": 3, "question": "what is the star doing", "answer": 1, "type": "CW",
    **{f"a{i}": word for i, word in enumerate(("jumping", "spinning", "moving", "yes", "no"))},
}  # fmt: skip
SPANS = {"7": {"duration": 4, "location": {"3": [[0.5, 2.0]]}, "fps": 8}}


@pytest.fixture(scope="module")
def task():
    spec = importlib.util.spec_from_file_location("nextgqa_task", TASKS / "nextgqa" / "nextgqa_task.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def spans(tmp_path, monkeypatch):
    (tmp_path / "gsub.json").write_text(json.dumps(SPANS))
    monkeypatch.setenv("NEXTGQA_SPANS", str(tmp_path / "gsub.json"))


def test_every_function_that_the_yaml_names_is_there(task):
    text = (TASKS / "nextgqa" / "nextgqa.yaml").read_text()
    names = [line.split("nextgqa_task.")[1].strip() for line in text.splitlines() if "!function" in line]
    assert len(names) == 8 and all(callable(getattr(task, name)) for name in names)


def test_only_questions_with_spans_are_asked(task, spans):
    kept = task.grounded_only(Dataset.from_list([ROW, {**ROW, "qid": 4}, {**ROW, "video": 8}]))
    assert [(row["video"], row["qid"], row["spans"]) for row in kept] == [(7, 3, [[0.5, 2.0]])]
    with pytest.raises(ValueError, match="different splits"):
        task.grounded_only(Dataset.from_list([{**ROW, "qid": 4}]))


def test_spans_and_videos_that_are_absent_are_named(task, monkeypatch, tmp_path):
    monkeypatch.delenv("NEXTGQA_SPANS", raising=False)
    with pytest.raises(FileNotFoundError, match="gsub_test.json"):
        task.spans_file()
    monkeypatch.setenv("NEXTGQA_VIDEOS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="NEXTGQA_VIDEOS"):
        task.video_of(ROW)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("B", (1, None, None, None)),
        ("A", (0, None, None, None)),
        ("", (0, None, None, None)),
        ("B. spinning <frames>0.50,1.00,3.00,3.50</frames>", (1, 0.5, 1, 1)),
        ("(B) <frames>0.60,3.00,3.50</frames>", (1, 1 / 3, 1, 0)),
        ("C <frames>1.00</frames>", (0, 1, 1, 0)),
        ("B <frames>2.50</frames>", (1, 0, 0, 0)),
    ],
)
def test_answers_and_frames_are_scored(task, text, expected):
    found = task.score({**ROW, "spans": [[0.5, 2.0]]}, [text])
    assert tuple(found.values()) == pytest.approx(expected)
    assert list(found) == [m["metric"] for m in yaml.load(text_of_yaml(), yaml.BaseLoader)["metric_list"]]


def text_of_yaml():
    return (TASKS / "nextgqa" / "nextgqa.yaml").read_text().replace("!function ", "")


def test_the_released_package_loads_the_task_and_runs_the_model(
    task, spans, tmp_path, monkeypatch, checkpoint, clip_file
):
    pytest.importorskip("lmms_eval", reason="lmms-eval is not installed")
    pytest.importorskip("torchvision", reason="video processors of transformers need torchvision")
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.models.registry_v2 import ModelManifest
    from lmms_eval.tasks import TaskManager

    from tests.selection import tiny_vlm

    assert "nextgqa" in TaskManager(include_path=str(TASKS), include_defaults=False).all_tasks
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "7.mp4").write_bytes(clip_file.read_bytes())
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROW) + "\n")
    local = tmp_path / "tasks" / "local"  # the same task on one question that lies here
    local.mkdir(parents=True)
    (local / "nextgqa_task.py").write_text((TASKS / "nextgqa" / "nextgqa_task.py").read_text())
    lines = (TASKS / "nextgqa" / "nextgqa.yaml").read_text().splitlines()
    there = [
        line for line in lines if not line.startswith(("task:", "dataset_", "  token:", "  video:", "  cache_dir:"))
    ]
    here = [
        "task: nextgqa_local",
        "dataset_path: json",
        f"dataset_kwargs: {{data_files: {{test: {tmp_path}/rows.jsonl}}}}",
    ]
    (local / "nextgqa_local.yaml").write_text("\n".join(here + there))
    monkeypatch.setenv("NEXTGQA_VIDEOS", str(tmp_path / "videos"))
    monkeypatch.syspath_prepend(str(PLUGIN))
    for part in tiny_vlm.build("qwen2_5_vl"):
        part.save_pretrained(tmp_path / "vlm")
    import lmms_eval.models as models

    models.MODEL_REGISTRY_V2.register_manifest(
        ModelManifest("selected_frames", "causal_frames.models.selected_frames.SelectedFrames"), overwrite=True
    )
    found = simple_evaluate(
        model="selected_frames",
        model_args=f"pretrained={tmp_path / 'vlm'},selector=causal,checkpoint={checkpoint},frames=4",
        tasks=["nextgqa_local"],
        task_manager=TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False),
    )
    scores = found["results"]["nextgqa_local"]
    assert scores["accuracy,none"] in (0.0, 1.0) and scores["frames_in_span,none"] in (0.0, 0.25, 0.5, 0.75, 1.0)
    sys.modules.pop("causal_frames", None)
