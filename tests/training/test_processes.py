"""Runs in processes of their own: killed and resumed, two at a time, and through the launchers."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import TINY, write_recipe

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "train.py"
pytestmark = pytest.mark.slow


def environment() -> dict[str, str]:
    paths = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def start(*command: str) -> subprocess.CompletedProcess[str]:
    finished = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr[-3000:]
    return finished


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def torchrun(processes: int) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run"]
    return [*launcher, f"--nproc_per_node={processes}", f"--master_port={free_port()}"]


def losses(folder: Path) -> list[float]:
    log = [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]
    return [entry["loss"] for entry in log if "loss" in entry]


def test_a_killed_run_resumes_to_the_same_bytes(tmp_path: Path):
    """SIGKILL falls where it falls; whatever is on disk then is enough to end at the same weights."""
    recipe = write_recipe(tmp_path / "r.yaml", num_train_epochs=8, test_splits=["iid"])
    command = [sys.executable, str(SCRIPT), "--config", str(recipe), "--output_dir"]
    start(*command, str(tmp_path / "whole"))
    for turn, wanted in enumerate(("checkpoint-6", "checkpoint-18")):
        folder = tmp_path / f"killed-{turn}"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        victim = subprocess.Popen([*command, str(folder)], env=environment(), **quiet)
        while not (folder / wanted).exists():
            assert victim.poll() is None, "the run ended before it could be killed"
            time.sleep(0.005)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        assert not (folder / "metrics.json").exists()
        start(*command, str(folder), "--resume")
        assert (folder / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


def test_two_processes_train_as_one_on_the_same_global_batch(tmp_path: Path):
    """With nothing drawn at random in the model, two processes of four samples equal one of eight."""
    text = {**TINY["config_overrides"]["text_config"], "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    overrides = {**TINY["config_overrides"], "text_config": text, "hidden_dropout_prob": 0.0}
    overrides |= {"num_frames_kept": 8, "num_objects_kept": 3}  # everything is kept: selection draws no difference
    recipe = write_recipe(tmp_path / "r.yaml", config_overrides=overrides, logging_steps=1, test_splits=["iid"])
    one, two = tmp_path / "one", tmp_path / "two"
    start(sys.executable, str(SCRIPT), "--config", str(recipe), "--output_dir", str(one))
    flags = ["--output_dir", str(two), "--per_device_train_batch_size", "4"]
    finished = start(*torchrun(2), str(SCRIPT), "--config", str(recipe), *flags)
    assert losses(two) == pytest.approx(losses(one), rel=1e-3) and len(losses(one)) == 12
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (one, two)]
    assert metrics[1]["training"]["processes"] == 2
    assert metrics[0]["test"]["iid"]["Acc"] == metrics[1]["test"]["iid"]["Acc"]
    assert finished.stdout.count("best checkpoint: step") == 1
    for folder in (one, two):
        lines = (folder / "predictions" / "iid.jsonl").read_text().splitlines()
        assert len({json.loads(line)["question_id"] for line in lines}) == len(lines) == 20


def test_two_processes_resume_to_the_same_bytes(tmp_path: Path):
    """With dropout and selection noise: each process goes on with its own random state."""
    recipe = write_recipe(tmp_path / "r.yaml", per_device_train_batch_size=4, test_splits=["iid"])
    command = [*torchrun(2), str(SCRIPT), "--config", str(recipe), "--output_dir"]
    start(*command, str(tmp_path / "whole"))
    half = tmp_path / "half"
    half.mkdir()
    for name in ("recipe.yaml", "checkpoint-6"):
        (tmp_path / "whole" / name).rename(half / name)
    start(*command, str(half), "--resume")
    assert (half / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


def test_accelerate_launch_and_errors_in_one_line(tmp_path: Path):
    recipe = write_recipe(tmp_path / "r.yaml", num_train_epochs=1, test_splits=None)
    launch = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--cpu", str(SCRIPT)]
    start(*launch, "--config", str(recipe), "--learning_rate", "1e-5", "--output_dir", str(tmp_path / "a"))
    assert "learning_rate: 1.0e-05" in (tmp_path / "a" / "recipe.yaml").read_text()
    again = subprocess.run(
        [sys.executable, "-m", "hf_causal_video.training", "--config", str(recipe), "--output_dir", tmp_path / "a"],
        env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert again.returncode == 1 and again.stderr.strip().splitlines()[-1].startswith("error: output_dir")
    assert "Traceback" not in again.stderr
