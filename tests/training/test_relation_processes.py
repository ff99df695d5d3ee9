"""Relation runs in processes of their own: killed and resumed around the end of the warm-up, and two at a time."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .test_processes import SCRIPT, environment, losses, start, torchrun
from .test_relations import WORLD, annotations, video_recipe, write

pytestmark = pytest.mark.slow
PAPER = {"preset": "paper", "config_overrides": {"hidden_size": 8, "prototype_warmup": 0.5}}


def test_a_killed_run_resumes_to_the_same_bytes(tmp_path: Path):
    """Before, at and after the step at which prototypes are set; the pairs that are drawn are the same ones."""
    films = {split: annotations(tmp_path / "films", split, 4) for split in ("train", "validation", "test")}
    steps = ["--save_strategy", "steps", "--eval_strategy", "steps", "--save_steps", "3", "--eval_steps", "3",
             "--save_total_limit", "20", "--num_train_epochs", "6"]  # fmt: skip
    recipe = video_recipe(tmp_path / "r.yaml", films, **PAPER)
    command = [sys.executable, str(SCRIPT), "--config", str(recipe), *steps, "--output_dir"]
    start(*command, str(tmp_path / "whole"))
    state = json.loads((tmp_path / "whole" / "metrics.json").read_text())["training"]
    half = state["steps"] // 2
    assert half % 3 == 0 and state["steps"] > 8, "a checkpoint falls on the step at which the warm-up ends"
    for turn, wanted in enumerate(("checkpoint-3", f"checkpoint-{half}")):
        folder = tmp_path / f"killed-{turn}"
        victim = subprocess.Popen(
            [*command, str(folder)], env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while not (folder / wanted).exists():
            assert victim.poll() is None, "the run ended before it could be killed"
            time.sleep(0.005)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        start(*command, str(folder), "--resume")
        assert (folder / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("preset", "fields"), [("paper", {"prototype_warmup": 0.5}), ("clean", {"prototype_update": "ema"})]
)
def test_two_processes_train_as_one_on_the_same_global_batch(preset: str, fields: dict, tmp_path: Path):
    """A pair a segment, and nothing drawn at random: two processes of eight equal one of sixteen."""
    overrides = {"hidden_size": 8, "hidden_dropout_prob": 0.0, **fields}
    recipe = write(tmp_path / "r.yaml", preset=preset, config_overrides=overrides, logging_steps=1)
    one, two = tmp_path / "one", tmp_path / "two"
    start(sys.executable, str(SCRIPT), "--config", str(recipe), "--output_dir", str(one))
    flags = ["--output_dir", str(two), "--per_device_train_batch_size", "8"]
    start(*torchrun(2), str(SCRIPT), "--config", str(recipe), *flags)
    assert losses(two) == pytest.approx(losses(one), rel=1e-3) and len(losses(one)) == 12
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (one, two)]
    assert metrics[1]["training"]["processes"] == 2
    assert metrics[0]["test"]["balanced"]["mAP"] == pytest.approx(metrics[1]["test"]["balanced"]["mAP"], abs=0.5)
    lines = (two / "predictions" / "balanced.jsonl").read_text().splitlines()
    assert len({json.loads(line)["id"] for line in lines}) == len(lines) == WORLD["world"]["eval_pairs"]


def test_two_processes_detect_what_one_detects(tmp_path: Path):
    films = {split: annotations(tmp_path / "films", split, 3) for split in ("train", "validation", "test")}
    recipe = video_recipe(tmp_path / "r.yaml", films, num_train_epochs=1)
    start(*torchrun(2), str(SCRIPT), "--config", str(recipe), "--output_dir", str(tmp_path / "run"))
    lines = (tmp_path / "run" / "predictions" / "test.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [f"test-s0-{number:04d}" for number in range(3)]
