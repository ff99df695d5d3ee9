"""SIGKILL at a chosen operation of a child process: what is counted, not what is timed, so it cannot be missed.

The child is forked off the warm test process, counts its operations in memory that both share, and ends itself by
SIGKILL just before, or in the middle of, the one that was drawn.
"""

import mmap
import os
import random
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

HANGS_S = 600  # a child that is still there ends by SIGALRM, which no test takes for a kill
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate"}


class Countdown:
    """Counts operations of a child; `tick` ends the process at the last one.

    Args:
        last: the operation that is not survived, counted from 1; None counts only.
    """

    def __init__(self, last: int | None = None):
        self.last, self._memory, self._lock = last, mmap.mmap(-1, 8), threading.Lock()

    @property
    def count(self) -> int:
        return int.from_bytes(self._memory[:8], "little")

    def tick(self, last_act: Callable[[], object] = lambda: None) -> None:
        with self._lock:
            count = self.count + 1
            self._memory[:8] = count.to_bytes(8, "little")
            if count == self.last:
                last_act()
                os.kill(os.getpid(), signal.SIGKILL)


def forked(work: Callable[[], object]) -> int:
    """Run in a child and give its exit code: 0, 1 after an exception, minus the signal that ended it."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(HANGS_S)
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def spread(total: int, seed: int, points: int = 10) -> list[int]:
    """One random operation out of each tenth of a run of this many."""
    assert total >= points, f"{total} operations are too few to be killed at {points} of them"
    rng = random.Random(seed)
    return [1 + rng.randrange(total * k // points, total * (k + 1) // points) for k in range(points)]


def count_changes(folder: Path, countdown: Countdown) -> None:
    """From now on count whatever this process changes in a folder: files opened to be written, moved, removed.

    For good: call it in a child.
    """
    import pyarrow.parquet as pq

    def hook(event: str, args: tuple) -> None:
        changes = event in CHANGES or (event == "open" and isinstance(args[2], int) and args[2] & WRITES)
        if changes and not isinstance(args[0], int) and os.fsdecode(args[0]).startswith(str(folder)):
            countdown.tick()

    def counted(write: Callable) -> Callable:  # the library writes Parquet behind Python's back
        def wrapped(*args: object, **options: object) -> object:
            countdown.tick()
            return write(*args, **options)

        return wrapped

    for name in ("__init__", "write_table", "close"):
        setattr(pq.ParquetWriter, name, counted(getattr(pq.ParquetWriter, name)))
    sys.addaudithook(hook)
