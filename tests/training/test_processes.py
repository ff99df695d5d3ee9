"""Runs of several processes: as one on the same batch, killed and resumed, and through the launchers."""

import json
import os
import random
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.conftest import TINY, write_recipe
from tests.training.relations.test_relations import annotations, video_recipe
from tests.training.relations.test_relations import write as relation_recipe
from tests.training.test_grounding import recipe as grounding_recipe
from tests.training.warm import Warm

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "train.py"
STILL_TEXT = {
    **TINY["config_overrides"]["text_config"], "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip


def environment() -> dict[str, str]:
    paths = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def start(*command: str) -> subprocess.CompletedProcess[str]:
    finished = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=900)
    assert finished.returncode == 0, finished.stderr[-3000:]
    return finished


def torchrun(processes: int) -> list[str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    return [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}", f"--master_port={port}"]


def log(folder: Path) -> list[dict[str, float]]:
    entries = [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]
    return [entry for entry in entries if "loss" in entry]


def transtr(folder: Path) -> Path:
    fields = {**TINY["config_overrides"], "text_config": STILL_TEXT, "hidden_dropout_prob": 0.0}
    return write_recipe(folder / "r.yaml", config_overrides=fields, num_train_epochs=4, test_splits=["iid"])


def igv(folder: Path, method: str = "igv") -> Path:
    fields = {"text_config": STILL_TEXT, "backbone_config": {"hidden_size": 32}}
    return grounding_recipe(folder / "r.yaml", method, fields=fields, num_train_epochs=4)


def eigv(folder: Path) -> Path:
    return igv(folder, "eigv")


def ivrd(folder: Path, preset: str = "paper", **fields: object) -> Path:
    fields = {"hidden_size": 8, "hidden_dropout_prob": 0.0, **(fields or {"prototype_warmup": 0.5})}
    changes = {"num_train_epochs": 4, "test_splits": ["balanced"], "per_device_train_batch_size": 16}
    return relation_recipe(folder / "r.yaml", preset=preset, config_overrides=fields, **changes)


def ivrd_with_moving_prototypes(folder: Path) -> Path:
    return ivrd(folder, "clean", prototype_update="ema")


def ivrd_on_films(folder: Path) -> Path:
    """Segments with other numbers of tracks and pairs on each process."""
    films = {split: annotations(folder / "films", split, 8) for split in ("train", "validation", "test")}
    for path in sorted(Path(films["train"]).iterdir())[::2]:
        film = json.loads(path.read_text())
        gone = film["subject/objects"].pop()["tid"]
        film["trajectories"] = [[box for box in frame if box["tid"] != gone] for frame in film["trajectories"]]
        related = film["relation_instances"]
        film["relation_instances"] = [one for one in related if gone not in (one["subject_tid"], one["object_tid"])]
        path.write_text(json.dumps(film))
    fields = {"hidden_size": 8, "hidden_dropout_prob": 0.0, "prototype_warmup": 0.25}
    return video_recipe(folder / "r.yaml", films, preset="paper", config_overrides=fields, num_train_epochs=3)


@pytest.mark.parametrize(
    "make", [transtr, igv, eigv, ivrd, ivrd_with_moving_prototypes, ivrd_on_films], ids=lambda make: make.__name__
)
def test_two_processes_train_as_one_on_the_same_global_batch(make, warm: Warm, tmp_path: Path):
    """Every term of the loss at every step, and every gradient, with dropout off and noise, swaps, mixing on."""
    command = ["--config", make(tmp_path), "--logging_steps", 1, "--per_device_train_batch_size"]
    batch = 16 if make in (ivrd, ivrd_with_moving_prototypes) else 8
    one, two = tmp_path / "one", tmp_path / "two"
    warm.run(*command, batch, "--output_dir", one, before="draw_by_group")
    warm.run(*command, batch // 2, "--output_dir", two, processes=2, before="draw_by_group")
    assert len(log(one)) == len(log(two)) >= 20
    for mine, theirs in zip(log(two), log(one), strict=True):
        terms = {name for name in theirs if name.startswith("loss")}
        assert {name: mine[name] for name in terms} == pytest.approx({n: theirs[n] for n in terms}, abs=1e-5)
        assert mine["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-5, abs=1e-5) and mine["grad_norm"] > 0
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (one, two)]
    assert metrics[0]["test"] == metrics[1]["test"] and metrics[1]["training"]["processes"] == 2
    for path in (one / "predictions").iterdir():
        ids = [[json.loads(line).get("question_id", json.loads(line).get("id")) for line in file.open()]
               for file in (path, two / "predictions" / path.name)]  # fmt: skip
        assert ids[0] == ids[1] and len(set(ids[0])) == len(ids[0]) > 0


@pytest.mark.parametrize(
    ("method", "bank"), [("transtr", None), ("igv", "batch"), ("igv", "dataset"), ("eigv", "batch")]
)
def test_two_killed_processes_resume_to_the_same_bytes(method: str, bank: str | None, warm: Warm, tmp_path: Path):
    """Each goes on with its own random state; frames to swap with are of its own batch, or of all training videos."""
    if bank is None:
        recipe = write_recipe(tmp_path / "r.yaml", test_splits=["iid"])
    else:
        recipe = grounding_recipe(tmp_path / "r.yaml", method, fields={"bank": bank, "intervention": "frames"})
    command = ["--config", recipe, "--per_device_train_batch_size", 4, "--output_dir"]
    options = {"processes": 2, "before": "note_banks"}
    warm.run(*command, tmp_path / "whole", **options)
    die = {"moment": "on_step_begin", "step": random.Random(f"{method} {bank}").randrange(7, 12)}
    warm.run(*command, tmp_path / "half", die=die, **options)
    assert not (tmp_path / "half" / "metrics.json").exists() and (tmp_path / "half" / "checkpoint-6").exists()
    warm.run(*command, tmp_path / "half", "--resume", **options)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("half", "whole")]
    assert weights[0] == weights[1]
    if bank is not None:
        ranks = [[json.loads(line) for line in (tmp_path / f"whole.{rank}.jsonl").open()] for rank in (0, 1)]
        assert len(ranks[0]) == len(ranks[1]) > 0
        for pair in zip(*ranks, strict=True):
            assert not set(pair[0]["own"]) & set(pair[1]["own"])
            for swap in pair:
                assert set(swap["drawn"]) <= set(swap["bank"])
                assert len(swap["bank"]) == (TINY["world"]["train_clips"] if bank == "dataset" else 4)
                assert bank == "dataset" or set(swap["own"]) == set(swap["bank"])
            assert bank == "batch" or pair[0]["bank"] == pair[1]["bank"]


@pytest.mark.slow
def test_torchrun_detects_in_two_processes_what_there_is(tmp_path: Path):
    films = {split: annotations(tmp_path / "films", split, 3) for split in ("train", "validation", "test")}
    recipe = video_recipe(tmp_path / "r.yaml", films, num_train_epochs=1)
    finished = start(*torchrun(2), str(SCRIPT), "--config", str(recipe), "--output_dir", str(tmp_path / "run"))
    assert finished.stdout.count("best checkpoint: step") == 1
    lines = (tmp_path / "run" / "predictions" / "test.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [f"test-s0-{number:04d}" for number in range(3)]


@pytest.mark.slow
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
