"""Runs in processes of their own that cost no imports: one process imports everything and forks a child for each run.

A run may be ordered to die by SIGKILL: at a moment of a step, or in the middle of writing or of removing a file.
"""

import gc
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MOMENTS = ("on_step_begin", "on_pre_optimizer_step", "on_optimizer_step", "on_step_end")
KILLED = -signal.SIGKILL


class Warm:
    """The warm process, seen from a test.

    Args:
        log: file for all that the runs print.
    """

    def __init__(self, log: Path):
        paths = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        self.log, command = log, [sys.executable, "-m", "tests.training.warm", str(log)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)

    def run(
        self, *argv: object, processes: int = 1, die: dict[str, Any] | None = None, before: str | None = None
    ) -> None:
        """`hf_causal_video.training.main(argv)` in so many processes; with `die`, SIGKILL has to end it.

        Args:
            argv: flags of the run.
            processes: how many train together.
            die: {"moment": one of MOMENTS, "step": n}, or {"file": a name, "count": at its n-th writing or removal}.
            before: a function of `hooks.py` that each process calls with its flags first.
        """
        assert self.process.stdin and self.process.stdout
        order = {"argv": [str(argument) for argument in argv], "processes": processes, "die": die, "before": before}
        print(json.dumps(order), file=self.process.stdin, flush=True)
        ends = json.loads(self.process.stdout.readline())
        right = KILLED in ends and 0 not in ends if die else not any(ends)
        assert right, f"ended with {ends}:\n{self.log.read_text(errors='replace')[-3000:]}"

    def close(self) -> None:
        """End the warm process."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def serve() -> None:
    """Read orders line by line, and answer each with the exit codes of its processes."""
    from hf_causal_video.training import main, run  # noqa: F401  all imports happen here, once
    from hf_causal_video.training.relations.task import RelationTask  # noqa: F401

    gc.collect()
    gc.freeze()  # what is imported is not looked at again in every run
    answers = os.fdopen(os.dup(1), "w")
    log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for line in sys.stdin:
        order = json.loads(line)
        read, write = os.pipe()
        codes: dict[int, int | None] = {}
        for rank in range(order["processes"]):
            if (child := os.fork()) == 0:
                _child(order, rank, read, write)
            codes[child] = None
        os.close(read)
        os.close(write)
        while None in codes.values():
            child, status = os.wait()
            codes[child] = os.waitstatus_to_exitcode(status)
            for other in codes if status else ():  # as a launcher does, so that nobody waits for the dead
                if codes[other] is None:
                    os.kill(other, signal.SIGKILL)
        print(json.dumps(list(codes.values())), file=answers, flush=True)


def _child(order: dict[str, Any], rank: int, read: int, write: int) -> None:
    code = 1
    try:
        store = _join(rank, order["processes"], read, write) if order["processes"] > 1 else None
        if order["die"] is not None:
            _arrange_death(order["die"])
        if order["before"] is not None:
            from tests.training import hooks

            getattr(hooks, order["before"])(order["argv"])
        from hf_causal_video.training import main

        main(order["argv"])
        code, _ = 0, store
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _join(rank: int, processes: int, read: int, write: int) -> Any:
    """What a launcher does; the store takes a free port by itself, so that nobody can take it in between."""
    from datetime import timedelta

    from torch.distributed import TCPStore

    store = None
    if rank == 0:
        wait = timedelta(seconds=600)
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=wait)
        os.write(write, store.port.to_bytes(4, "big") * (processes - 1))
    port = store.port if store else int.from_bytes(os.read(read, 4), "big")
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }  # fmt: skip
    return store


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _arrange_death(die: dict[str, Any]) -> None:
    if "moment" in die:
        _die_at(die["moment"], die["step"])
    else:
        _die_in(die["file"], die["count"])


def _die_at(moment: str, step: int) -> None:
    from transformers import TrainerCallback, trainer

    def strike(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == step + (moment == "on_step_end"):  # by then the step has been counted
            _die()

    trainer.DEFAULT_CALLBACKS.append(type("Death", (TrainerCallback,), {moment: strike})())


def _die_in(name: str, count: int) -> None:
    """Die at the n-th file of this name with half of it written; a folder dies with half of its files removed."""
    import torch
    from transformers import TrainerState, modeling_utils

    left = [count]

    def cut(whole: Any, argument: int) -> Any:
        def write(*args: Any, **kwargs: Any) -> Any:
            result, path = whole(*args, **kwargs), Path(args[argument])
            left[0] -= path.match(name)
            if path.match(name) and not left[0]:
                os.truncate(path, path.stat().st_size // 2)
                _die()
            return result

        return write

    torch.save = cut(torch.save, 1)
    modeling_utils.safe_save_file = cut(modeling_utils.safe_save_file, 1)
    TrainerState.save_to_json = cut(TrainerState.save_to_json, 1)  # type: ignore[method-assign]
    Path.write_bytes = cut(Path.write_bytes, 0)  # type: ignore[method-assign]
    remove = shutil.rmtree

    def half(path: Any, **kwargs: Any) -> None:
        left[0] -= Path(path).match(name)
        if Path(path).match(name) and not left[0]:
            files = sorted(Path(path).iterdir())
            for file in random.Random(0).sample(files, len(files) // 2):
                file.unlink()
            _die()
        remove(path, **kwargs)

    shutil.rmtree = half  # type: ignore[assignment]


if __name__ == "__main__":
    serve()
