"""One run per folder: who holds it, who takes over after a kill, and that of two at once exactly one wins."""

import json
import multiprocessing
import os
import socket
import time
from pathlib import Path

import psutil
import pytest

from hf_causal_video.training.checkpoints import LOCK_FILE, exclusive
from hf_causal_video.utils.errors import CausalVideoError

FORK = multiprocessing.get_context("fork")


def hold(folder: Path, results, start, end) -> None:
    """Try to hold a folder as soon as `start` is set, and report which it was; keep it until `end` is set."""
    start.wait()
    try:
        with exclusive(folder):
            results.put("held")
            end.wait()
    except CausalVideoError as error:
        results.put(str(error))


def contest(folder: Path, count: int) -> list[str]:
    """Outcome of processes that all want a folder at the same moment."""
    results, start, end = FORK.Queue(), FORK.Event(), FORK.Event()
    children = [FORK.Process(target=hold, args=(folder, results, start, end)) for _ in range(count)]
    for child in children:
        child.start()
    start.set()
    outcomes = [results.get(timeout=60) for _ in children]
    end.set()
    for child in children:
        child.join(60)
    return outcomes


def lock_of(pid: int, host: str, started: float) -> str:
    return json.dumps({"host": host, "pid": pid, "started": started})


@pytest.mark.parametrize("stale", [False, True])
def test_of_runs_that_start_at_once_exactly_one_holds_the_folder(tmp_path: Path, stale: bool):
    folder = tmp_path / "run"
    if stale:
        folder.mkdir()
        (folder / LOCK_FILE).write_text(lock_of(os.getpid(), socket.gethostname(), started=1.0))
    outcomes = contest(folder, 6)
    assert outcomes.count("held") == 1
    assert sum("another run writes into" in outcome and socket.gethostname() in outcome for outcome in outcomes) == 5
    assert not list(tmp_path.rglob(f"{LOCK_FILE}*"))


def test_a_lock_of_a_dead_process_is_taken_over(tmp_path: Path):
    child = FORK.Process(target=time.sleep, args=(0,))
    child.start()
    started = psutil.Process(child.pid).create_time()
    child.join()
    (tmp_path / LOCK_FILE).write_text(lock_of(child.pid or 0, socket.gethostname(), started))
    with exclusive(tmp_path):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()
    assert not (tmp_path / LOCK_FILE).exists()


def test_a_lock_that_a_kill_left_empty_is_taken_over(tmp_path: Path):
    (tmp_path / LOCK_FILE).touch()
    with exclusive(tmp_path):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()


def test_a_run_of_another_host_is_named_and_left_alone(tmp_path: Path):
    text = lock_of(1, "node-7", started=1.7e9)
    (tmp_path / LOCK_FILE).write_text(text)
    with pytest.raises(CausalVideoError, match="process 1 on node-7, started 2023-.*delete"), exclusive(tmp_path):
        pass
    assert (tmp_path / LOCK_FILE).read_text() == text


def test_a_folder_in_which_nothing_was_written_goes_again(tmp_path: Path):
    with pytest.raises(ValueError), exclusive(tmp_path / "a" / "run"):
        raise ValueError
    assert not (tmp_path / "a" / "run").exists()
    with exclusive(tmp_path):
        pass
    assert tmp_path.exists()
