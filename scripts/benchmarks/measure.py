"""What the speed benchmark measures with: CPU seconds turn about, the peak of torch's memory, and the table."""

import csv
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
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


@dataclass
class Point:
    """One point of a growth curve: CPU seconds of a side where an axis has a value."""

    axis: str
    value: int
    side: str
    seconds: float


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


def show(rows: Sequence[Row], quick: bool, header: bool) -> None:
    """Print lines of the table; floors count only at full size."""
    if header:
        print(f"{'case':38}{'what':8}{'original':>12}{'ours':>12}{'ratio':>9}{'floor':>7}{'moonshot':>10}", flush=True)
    for line in rows:
        mark = "" if line.met or quick else "  floor missed"
        print(f"{line.case:38}{line.what:8}{line.original:12.4g}{line.ours:12.4g}{line.ratio:9.2f}"
              f"{line.floor:7g}{line.moonshot:10g}{mark}", flush=True)  # fmt: skip


def write(rows: Sequence[Row] | Sequence[Point], path: Path) -> None:
    """The table as CSV, written whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="", encoding="utf-8") as handle:
        table = csv.DictWriter(handle, [field.name for field in fields(rows[0])])
        table.writeheader()
        for line in rows:
            table.writerow({name: f"{x:.4g}" if isinstance(x, float) else x for name, x in asdict(line).items()})
    os.replace(partial, path)


def plot(points: Sequence[Point], path: Path) -> None:
    """Growth curves, a panel an axis, both scales logarithmic; the grey line is growth in proportion."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    axes = list(dict.fromkeys(point.axis for point in points))
    figure, panels = plt.subplots(1, len(axes), figsize=(4 * len(axes), 3.2), layout="constrained")
    for axis, panel in zip(axes, panels, strict=True):
        for side in dict.fromkeys(point.side for point in points):
            curve = [(point.value, point.seconds) for point in points if (point.axis, point.side) == (axis, side)]
            panel.plot(*zip(*curve, strict=True), marker="o", label=side)
        (low, first), (high, _) = curve[0], curve[-1]
        panel.plot([low, high], [first, first * high / low], color="lightgrey", zorder=0)
        panel.set(
            xscale="log", yscale="log", xlabel=axis, xticks=[x for x, _ in curve], xticklabels=[x for x, _ in curve]
        )
        panel.minorticks_off()
    panels[0].set_ylabel("CPU seconds, one thread")
    panels[0].legend()
    figure.savefig(path, dpi=120)
