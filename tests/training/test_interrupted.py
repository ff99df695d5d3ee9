"""Runs that are killed, and go on to the same bits as if nothing had happened.

SIGKILL falls at ten random steps of one run for each method, and into the writing and the removing of its files.
Everything that is drawn or remembered takes part: order of samples, dropout, selection, Gumbel noise, swaps in the
batch and from the bank, mixing, negatives, pairs without a relation, prototypes, schedule, optimizer, patience.
"""

import json
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_leaves

from hf_causal_video.training.checkpoints import checkpoints, is_complete
from hf_causal_video.training.run import command, main
from hf_causal_video.training.trainer import CausalVideoTrainer
from tests.training.conftest import write_recipe
from tests.training.relations.test_relations import annotations, video_recipe
from tests.training.relations.test_relations import write as relation_recipe
from tests.training.test_grounding import recipe as grounding_recipe
from tests.training.warm import MOMENTS, Warm

EVERY_3 = ["--save_strategy", "steps", "--eval_strategy", "steps", "--save_steps", "3", "--eval_steps", "3"]
EVERY_3 += ["--logging_steps", "1"]
STEPS = 24


def transtr(folder: Path) -> Path:
    return write_recipe(folder / "r.yaml", test_splits=["iid"], num_train_epochs=4)


def igv(folder: Path) -> Path:
    return grounding_recipe(folder / "r.yaml", "igv", num_train_epochs=4)


def igv_with_bank(folder: Path) -> Path:
    return grounding_recipe(
        folder / "r.yaml", "igv", fields={"bank": "dataset", "intervention": "frames"}, num_train_epochs=4
    )


def eigv(folder: Path) -> Path:
    return grounding_recipe(folder / "r.yaml", "eigv", num_train_epochs=4)


def ivrd(folder: Path) -> Path:
    """Annotated videos, whose pairs are drawn anew in every epoch; prototypes start at half of the steps."""
    films = {split: annotations(folder / "films", split, 4) for split in ("train", "validation", "test")}
    fields = {"hidden_size": 8, "prototype_warmup": 0.5}
    return video_recipe(folder / "r.yaml", films, preset="paper", config_overrides=fields, num_train_epochs=12)


def ivrd_world(folder: Path) -> Path:
    fields = {"hidden_size": 8, "prototype_update": "ema"}
    return relation_recipe(folder / "r.yaml", config_overrides=fields, num_train_epochs=4, test_splits=["iid"])


def leaves(file: Path) -> list[Any]:
    """Everything in a file of torch, one after the other."""
    return tree_leaves(torch.load(file, weights_only=False))


def assert_same(folder: Path, whole: Path, last: int) -> None:
    """Weights chosen and last, optimizer, schedule, random states and answers, bit by bit."""
    for path in ("model.safetensors", f"checkpoint-{last}/model.safetensors"):
        assert (folder / path).read_bytes() == (whole / path).read_bytes(), path
    for path in whole.glob("predictions/*.jsonl"):
        assert (folder / "predictions" / path.name).read_bytes() == path.read_bytes()
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        mine, theirs = (leaves(run / f"checkpoint-{last}" / name) for run in (folder, whole))
        assert len(mine) == len(theirs) and all(map(np.array_equal, mine, theirs)), name
    states = [json.loads((run / f"checkpoint-{last}" / "trainer_state.json").read_text()) for run in (folder, whole)]
    for key in ("best_metric", "best_global_step", "global_step", "epoch"):
        assert states[0][key] == states[1][key]
    logs = [[{k: v for k, v in entry.items() if "runtime" not in k and "per_second" not in k}
             for entry in state["log_history"]] for state in states]  # fmt: skip
    assert logs[0] == logs[1]


@pytest.mark.parametrize("make", [transtr, igv, igv_with_bank, eigv, ivrd, ivrd_world], ids=lambda make: make.__name__)
def test_a_run_that_is_killed_ten_times_ends_with_the_same_bits(make, warm: Warm, tmp_path: Path):
    command = ["--config", make(tmp_path), *EVERY_3]
    warm.run(*command, "--output_dir", tmp_path / "whole")
    steps = json.loads((tmp_path / "whole" / "metrics.json").read_text())["training"]["steps"]
    assert steps == STEPS
    rng = random.Random(make.__name__)
    for step in sorted(rng.sample(range(steps), 10)):
        die = {"moment": rng.choice(MOMENTS), "step": step}
        warm.run(*command, "--output_dir", tmp_path / "killed", "--resume", die=die)
        assert not (tmp_path / "killed" / "metrics.json").exists()
    warm.run(*command, "--output_dir", tmp_path / "killed", "--resume")
    assert_same(tmp_path / "killed", tmp_path / "whole", steps)
    assert not list(tmp_path.rglob("frame_bank*"))


def test_kills_while_files_are_written_and_removed_cost_a_checkpoint_at_most(warm: Warm, tmp_path: Path):
    """Each run dies with one file half written, or one folder half removed; the checkpoint before it stays usable."""
    command = ["--config", write_recipe(tmp_path / "r.yaml", test_splits=["iid"]), *EVERY_3]
    warm.run(*command, "--output_dir", tmp_path / "whole")
    for file, count, usable in (
        (".recipe.yaml.*.part", 1, 0),
        ("model.safetensors", 1, 0),
        ("optimizer.pt", 2, 3),
        ("scheduler.pt", 1, 3),
        ("rng_state.pth", 2, 6),
        ("trainer_state.json", 1, 6),
        ("checkpoint-*", 1, 6),  # the half-written one, which nobody needs
        ("checkpoint-*", 2, 9),  # an old one, after a new one was written
        ("model.safetensors", 2, 12),  # the one that is handed over, after training
        (".iid.jsonl.*.part", 1, 12),
        (".metrics.json.*.part", 1, 12),
    ):
        warm.run(*command, "--output_dir", tmp_path / "killed", "--resume", die={"file": file, "count": count})
        assert not (tmp_path / "killed" / "metrics.json").exists()
        complete = [path.name for path in checkpoints(tmp_path / "killed") if is_complete(path, 1)]
        assert complete[-1:] == [f"checkpoint-{usable}"] * bool(usable), file
    warm.run(*command, "--output_dir", tmp_path / "killed", "--resume")
    assert_same(tmp_path / "killed", tmp_path / "whole", 12)
    assert len(list((tmp_path / "killed").glob("checkpoint-*"))) <= 2 and not list(tmp_path.rglob(".*.part"))


@pytest.mark.parametrize("processes", [1, 2])
def test_no_part_of_a_checkpoint_is_taken_for_the_whole(finished_run: Path, tmp_path: Path, processes: int):
    """Whatever file is missing or cut short, of whichever process."""
    newest, rng = tmp_path / "checkpoint-6", random.Random(processes)
    shutil.copytree(finished_run / "checkpoint-6", newest)
    if processes > 1:
        for rank in range(processes):
            shutil.copy(newest / "rng_state.pth", newest / f"rng_state_{rank}.pth")
        (newest / "rng_state.pth").unlink()
    assert is_complete(newest, processes)
    needed = [path for path in sorted(newest.iterdir()) if path.name not in ("config.json", "training_args.bin")]
    assert len(needed) == 4 + processes
    for path in needed:
        whole = path.read_bytes()
        for size in (None, 0, len(whole) - 2, *(rng.randrange(len(whole)) for _ in range(8))):
            path.unlink() if size is None else path.write_bytes(whole[:size])
            assert not is_complete(newest, processes), (path.name, size)
        path.write_bytes(whole)
    assert is_complete(newest, processes)


def test_ctrl_c_ends_a_run_with_one_sentence_and_it_resumes(tiny_recipe: Path, tmp_path: Path, monkeypatch, capsys):
    folder = tmp_path / "run"
    argv = ["--config", str(tiny_recipe), "--output_dir", str(folder)]
    train = CausalVideoTrainer.training_step

    def interrupt(self, *args, **kwargs):
        if checkpoints(folder):
            raise KeyboardInterrupt
        return train(self, *args, **kwargs)

    monkeypatch.setattr(CausalVideoTrainer, "training_step", interrupt)
    monkeypatch.setattr(sys, "argv", ["train.py", *argv])
    with pytest.raises(SystemExit) as stopped:
        command()
    assert stopped.value.code == 130
    printed = capsys.readouterr().err
    assert "stopped by Ctrl-C" in printed and "--resume" in printed and "Traceback" not in printed
    monkeypatch.undo()
    metrics = main([*argv, "--resume"])
    assert metrics["training"]["resumed_from"] and (folder / "metrics.json").is_file()
