"""Where a run stands on disk: a fresh folder, a run to go on with, or one that is finished.

Why: a kill may fall into the writing of a checkpoint. The Trainer would resume from the half-written folder; here only
a complete one counts, and a run never goes on under another recipe than it began with.
"""

import json
import os
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import yaml
from accelerate import PartialState
from safetensors import SafetensorError, safe_open

from hf_causal_video.training.recipe import read_recipe
from hf_causal_video.utils.errors import CausalVideoError

RECIPE_FILE, METRICS_FILE, STATE_FILE = "recipe.yaml", "metrics.json", "trainer_state.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")


def write_atomically(path: str | Path, text: str) -> None:
    """Write a text file so that a reader sees the old one or the new one, and never half of it."""
    temporary = Path(f"{path}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def claim_output_dir(folder: str | Path, recipe: dict[str, Any], resume: bool) -> Path | None:
    """Say from which checkpoint a run goes on, after clearing away half-written ones.

    Args:
        folder: `output_dir`; all processes call this together.
        recipe: the resolved arguments of this run.
        resume: go on with what is there.

    Returns:
        The newest complete checkpoint, or None to start at the beginning.

    Raises:
        CausalVideoError: the folder is not empty and `resume` was not given, or the run there had another recipe.
    """
    folder, state = Path(folder), PartialState()
    there = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    there = [name for name in there if name != f"{RECIPE_FILE}.tmp"]  # killed before the run had begun
    if there and not resume:
        raise CausalVideoError(
            f"output_dir {folder} is not empty", found=", ".join(there[:6]), expected="a new or empty folder",
            fix="choose another --output_dir, or add --resume to go on with the run that is there",
        )  # fmt: skip
    if RECIPE_FILE in there:
        _check_recipe(read_recipe(str(folder / RECIPE_FILE)), recipe, folder)
    elif there:
        raise CausalVideoError(
            f"no run to resume in {folder}",
            found=", ".join(there[:6]),
            expected=RECIPE_FILE,
            fix="choose another folder",
        )
    found = checkpoints(folder)
    newest = next((path for path in reversed(found) if is_complete(path, state.num_processes)), None)
    state.wait_for_everyone()  # nobody removes anything before everybody has looked
    if state.is_main_process:
        for path in found[0 if newest is None else found.index(newest) + 1 :]:
            shutil.rmtree(path)  # half-written: a kill fell into it, and it will be written again
    state.wait_for_everyone()
    return newest


def begin(folder: str | Path, recipe: dict[str, Any]) -> None:
    """Write the recipe into the folder of a run, once everything it needs was found; the first process does it."""
    state, path = PartialState(), Path(folder) / RECIPE_FILE
    if state.is_main_process and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
    state.wait_for_everyone()


def checkpoints(folder: str | Path) -> list[Path]:
    """Return the checkpoints of a folder, oldest first."""
    named = [(re.fullmatch(r"checkpoint-(\d+)", path.name), path) for path in Path(folder).glob("checkpoint-*")]
    return [path for _, path in sorted((int(match[1]), path) for match, path in named if match)]


def is_complete(checkpoint: Path, num_processes: int) -> bool:
    """Tell whether a checkpoint is there as it was written: nothing that a run goes on from is missing or cut short.

    The Trainer writes its state last. But every process writes its own random state, at its own pace, and a machine
    that loses power may have kept the last file and lost the end of another; so each file is looked at.

    Args:
        checkpoint: folder.
        num_processes: of the run; each keeps its own random state.

    Raises:
        CausalVideoError: the checkpoint is of another number of processes.
    """
    files = {entry.name for entry in checkpoint.iterdir()}
    random = {name for name in files if name.startswith("rng_state")}
    names = {"rng_state.pth"} if num_processes == 1 else {f"rng_state_{rank}.pth" for rank in range(num_processes)}
    if random - names:
        before = 1 if "rng_state.pth" in random else len(random)
        raise CausalVideoError(
            f"{checkpoint} is of another number of processes",
            found=f"{num_processes} now", expected=f"{before} as before",
            fix="launch as many processes as the run was started with: their number changes the batches",
        )  # fmt: skip
    try:
        json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    weights = [name for name in WEIGHTS if name in files]
    needed = (*names, "optimizer.pt", "scheduler.pt", *weights)
    return bool(weights) and all(_is_whole(checkpoint / name) for name in needed)


def _is_whole(path: Path) -> bool:
    """Whether a file has its end: that of a zip archive as torch writes it, or as many bytes as its header says."""
    if path.suffix == ".json":  # of weights in several files
        index = json.loads(path.read_text(encoding="utf-8"))
        return all(_is_whole(path.with_name(name)) for name in set(index["weight_map"].values()))
    if path.suffix != ".safetensors":
        return zipfile.is_zipfile(path)
    try:
        with safe_open(path, "pt"):
            return True
    except (OSError, SafetensorError):
        return False


def stopped_early(checkpoint: Path) -> bool:
    """Tell whether a run had used up its patience at a checkpoint, so that nothing is left to train."""
    state = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
    stopping = state["stateful_callbacks"].get("EarlyStoppingCallback")
    return stopping is not None and (
        stopping["attributes"]["early_stopping_patience_counter"] >= stopping["args"]["early_stopping_patience"]
    )


def _check_recipe(before: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    now = yaml.safe_load(yaml.safe_dump(now))
    differs = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
    if differs:
        raise CausalVideoError(
            f"the run in {folder} was started with another recipe",
            found=", ".join(f"{key} {now.get(key)!r}" for key in differs),
            expected=", ".join(f"{key} {before.get(key)!r}" for key in differs),
            fix=f"resume with --config {folder / RECIPE_FILE}, or choose another --output_dir",
        )
