"""What the speed benchmark measures with: CPU seconds turn about, the peak of torch's memory, and the table."""

import csv
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from torch.profiler import ProfilerActivity, profile


@dataclass
class Row:
    """One line of the table; time in CPU seconds, memory in MiB."""

    case: str
    what: str
    original: float
    ours: float
    ratio: float
    floor: float
    moonshot: float
    met: bool


def row(case: str, what: str, original: float, ours: float, floor: float, moonshot: float) -> Row:
    """A line whose ratio must be at least its floor; for growth at most."""
    ratio = original / ours
    return Row(
        case, what, original, ours, ratio, floor, moonshot, ratio <= floor if what == "growth" else ratio >= floor
    )


def medians(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each run, taken turn about after one warm-up each."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            start = time.process_time()
            run()
            if turn:
                seconds[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def peak_mib(run: Callable[[], object]) -> float:
    """The most that torch held at once beyond what was there before, in MiB."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watch:
        run()
    held = peak = 0
    events = [event for event in watch.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak / 2**20


def write(rows: list[Row], path: Path) -> None:
    """The table as CSV, written whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="", encoding="utf-8") as handle:
        table = csv.DictWriter(handle, [field.name for field in fields(Row)])
        table.writeheader()
        for line in rows:
            table.writerow({name: f"{x:.4g}" if isinstance(x, float) else x for name, x in asdict(line).items()})
    os.replace(partial, path)
