"""Output folder of a run: claimed by one run, fresh, to be resumed, or finished.

Why: a kill may fall into the writing of a checkpoint, and the Trainer would resume from the half-written folder; here
only a complete one counts. A run never resumes under another recipe than it began with, except for a later end, and
two runs never write into one folder.
"""

import json
import os
import re
import shutil
import socket
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypedDict

import psutil
import yaml
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError, safe_open

from hf_causal_video.training.recipe import Recipe, read_recipe
from hf_causal_video.utils.errors import CausalVideoError, require
from hf_causal_video.utils.files import is_partial, remove_partial, write_whole

RECIPE_FILE = "recipe.yaml"
METRICS_FILE = "metrics.json"
STATE_FILE = "trainer_state.json"
LOCK_FILE = "run.lock"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")
ENDS = ("num_train_epochs", "max_steps")  # the only keys that a resumed run may change
LOCK_WAIT_S = 2.0  # a lock file without content for longer was left by a kill


class Owner(TypedDict):
    """Content of a lock file."""

    host: str
    pid: int
    started: float  # seconds since 1970, of the process


@contextmanager
def exclusive(folder: str | Path) -> Iterator[None]:
    """Hold an output folder for one run; all processes of the run enter together.

    Why: two runs that start in the same second both see an empty folder, and each would overwrite the other's files.
    The holder is named in a lock file; one whose process has ended is taken over.

    Args:
        folder: `output_dir`; created if it is missing.

    Raises:
        CausalVideoError: another run holds the folder.
    """
    state = PartialState()
    path = Path(folder) / LOCK_FILE
    is_new = not path.parent.exists()
    failure: list[CausalVideoError | None] = [None]
    if state.is_main_process:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _lock(path)
        except CausalVideoError as error:
            failure = [error]
    if state.num_processes > 1:
        broadcast_object_list(failure)
    if failure[0] is not None:
        raise failure[0]
    try:
        yield
    finally:
        if state.is_main_process:
            path.unlink(missing_ok=True)
            if is_new:
                with suppress(OSError):  # something was written
                    path.parent.rmdir()


def _lock(path: Path) -> None:
    """Create a lock file that names this process; take over one whose process has ended."""
    started = psutil.Process().create_time()
    owner = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "started": started})
    while True:
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            _remove_stale(path)
            continue
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(owner)
        return


def _remove_stale(path: Path) -> None:
    """Remove a lock file whose process has ended; refuse one whose process may still run."""
    text = _lock_text(path)
    owner: Owner | None = json.loads(text) if text else None
    if owner is not None and _may_run(owner):
        started = datetime.fromtimestamp(owner["started"])
        raise CausalVideoError(
            f"another run writes into {path.parent}",
            found=f"process {owner['pid']} on {owner['host']}, started {started:%Y-%m-%d %H:%M:%S}",
            expected="one run per folder",
            fix=f"choose another --output_dir, or wait for that run; if it is dead, delete {path}",
        )
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        os.rename(path, aside)
        if aside.read_text(encoding="utf-8") != text:  # a third run took the stale lock over in between: give it back
            with suppress(FileExistsError):
                os.link(aside, path)
        aside.unlink()
    except FileNotFoundError:
        pass  # released or taken over in between


def _lock_text(path: Path) -> str:
    """Content of a lock file; "" if it is gone, or was left empty by a kill."""
    until = time.monotonic() + LOCK_WAIT_S
    text = ""
    with suppress(FileNotFoundError):
        while not (text := path.read_text(encoding="utf-8")).endswith("}") and time.monotonic() < until:
            time.sleep(0.05)
    return text if text.endswith("}") else ""


def _may_run(owner: Owner) -> bool:
    """Tell whether the process that a lock file names may still run; on another host it may."""
    if owner["host"] != socket.gethostname():
        return True
    try:
        process = psutil.Process(owner["pid"])
        same = abs(process.create_time() - owner["started"]) < 2.0  # else its number was given to a later process
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@dataclass(frozen=True)
class Start:
    """State of an output folder when a run begins.

    Args:
        checkpoint: newest complete checkpoint; None for the beginning.
        finished: whether nothing is left to do.
        note: a sentence for the user; "" if there is nothing to say.
    """

    checkpoint: Path | None
    finished: bool
    note: str


def claim_output_dir(folder: str | Path, recipe: Recipe, resume: bool) -> Start:
    """Find where a run begins, after clearing away half-written checkpoints.

    Args:
        folder: `output_dir`; all processes call this together.
        recipe: the resolved arguments of this run.
        resume: continue the run in the folder.

    Raises:
        CausalVideoError: the folder is not empty and `resume` is False, or its run has another recipe.
    """
    folder = Path(folder)
    state = PartialState()
    entries = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    # a run that was killed before it began leaves these
    entries = [name for name in entries if not is_partial(name) and not name.startswith(LOCK_FILE)]
    require(
        resume or not entries,
        f"output_dir {folder} is not empty",
        found=", ".join(entries[:6]),
        expected="a new or empty folder",
        fix="choose another --output_dir, or add --resume to continue the run in it",
    )
    require(
        not entries or RECIPE_FILE in entries,
        f"no run to resume in {folder}",
        found=", ".join(entries[:6]),
        expected=RECIPE_FILE,
        fix="choose another folder",
    )
    note = _compared(read_recipe(str(folder / RECIPE_FILE)), recipe, folder) if entries else ""
    saved = checkpoints(folder)
    newest = next((path for path in reversed(saved) if is_complete(path, state.num_processes)), None)
    state.wait_for_everyone()  # nobody removes anything before everybody has looked
    if state.is_main_process:
        for path in saved[0 if newest is None else saved.index(newest) + 1 :]:
            shutil.rmtree(path)  # half-written: a kill fell into it, and it will be written again
        remove_partial(folder)
        remove_partial(folder / "predictions")
    state.wait_for_everyone()
    return Start(newest, METRICS_FILE in entries and not note, note)


def begin(folder: str | Path, recipe: Recipe) -> None:
    """Write the recipe into the folder of a run, once everything it needs was found; the first process does it.

    A finished run that trains on loses its numbers here: they belong to the shorter run.
    """
    state = PartialState()
    path = Path(folder) / RECIPE_FILE
    text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)
    if state.is_main_process and not (path.exists() and path.read_text(encoding="utf-8") == text):
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / METRICS_FILE).unlink(missing_ok=True)
        write_whole(path, text)
    state.wait_for_everyone()


def checkpoints(folder: str | Path) -> list[Path]:
    """Return the checkpoints of a folder, oldest first."""
    named = [(re.fullmatch(r"checkpoint-(\d+)", path.name), path) for path in Path(folder).glob("checkpoint-*")]
    return [path for _, path in sorted((int(match[1]), path) for match, path in named if match)]


def is_complete(checkpoint: Path, num_processes: int) -> bool:
    """Tell whether a checkpoint is complete: no file that a run resumes from is missing or cut short.

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
            found=f"{num_processes} now",
            expected=f"{before} as before",
            fix="launch as many processes as the run was started with: their number changes the batches",
        )
    try:
        json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    weights = [name for name in WEIGHTS if name in files]
    needed = (*names, "optimizer.pt", "scheduler.pt", *weights)
    return bool(weights) and all(_is_whole(checkpoint / name) for name in needed)


def _is_whole(path: Path) -> bool:
    """Tell whether a file is complete: a zip archive as torch writes it, or as many bytes as its header says."""
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


def _compared(before: Recipe, now: Recipe, folder: Path) -> str:
    """Compare the recipe of a folder with that of its resumed run; the note about a later end, or ""."""
    now = yaml.safe_load(yaml.safe_dump(now))
    differs = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
    require(
        set(differs) <= set(ENDS),
        f"the run in {folder} was started with another recipe",
        found=", ".join(f"{key} {now.get(key)!r}" for key in differs),
        expected=", ".join(f"{key} {before.get(key)!r}" for key in differs),
        fix=f"resume with --config {folder / RECIPE_FILE}, or choose another --output_dir",
    )
    if not differs:
        return ""
    ends = [_end(recipe) for recipe in (before, now)]
    require(
        _is_later(before, now),
        f"the run in {folder} would end earlier than it was asked to",
        found=ends[1],
        expected=f"{ends[0]} or more",
        fix="choose another --output_dir for a shorter run",
    )
    return (
        f"training on to {ends[1]} instead of {ends[0]}; the learning rate and all annealing follow the longer run "
        "from here on, so the result differs from that of a run that was this long from the start"
    )


def _steps(recipe: Recipe) -> int:
    return int(str(recipe.get("max_steps", -1)))


def _epochs(recipe: Recipe) -> float:
    return float(str(recipe["num_train_epochs"]))


def _end(recipe: Recipe) -> str:
    return f"{_steps(recipe)} steps" if _steps(recipe) > 0 else f"{_epochs(recipe):g} epochs"


def _is_later(before: Recipe, now: Recipe) -> bool:
    steps = [_steps(recipe) for recipe in (before, now)]
    if min(steps) > 0:
        return steps[1] >= steps[0]
    if max(steps) > 0:
        return True  # one counts steps and the other epochs: only the data tell
    return _epochs(now) > _epochs(before)
