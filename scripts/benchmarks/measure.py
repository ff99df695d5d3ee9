"""What the speed benchmarks share: CPU seconds in turns, the peak of torch's memory, flags, table and comparison."""

import argparse
import csv
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

LEAST_MOVE = 0.05  # ratios closer than this are equal, however small their spread


@dataclass
class Row:
    """One line of the table; time in CPU seconds, memory in MiB.

    Args:
        ratio: median over rounds of original / ours.
        spread: half of the middle half of those ratios, relative to the median; 0 for memory, which does not vary.
        against: what the original is.
    """

    case: str
    what: str
    original: float
    ours: float
    ratio: float
    spread: float
    floor: float
    moonshot: float
    met: bool
    against: str


@dataclass(frozen=True)
class Plan:
    """How often each run is timed, and whether memory is measured too."""

    rounds: int = 5
    memory: bool = True


@dataclass
class Point:
    """One point of a growth curve: CPU seconds of a side where an axis has a value."""

    axis: str
    value: int
    side: str
    seconds: float


def row(
    case: str,
    what: str,
    original: Sequence[float],
    ours: Sequence[float],
    floor: float,
    moonshot: float,
    against: str = "reference.py",
) -> Row:
    """A line whose ratio must be at least its floor; for growth at most. Values of one round are paired."""
    ratios = [one / other for one, other in zip(original, ours, strict=True)]
    ratio = statistics.median(ratios)
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else (ratio, ratio, ratio)
    met = ratio <= floor if what == "growth" else ratio >= floor
    return Row(
        case=case,
        what=what,
        original=statistics.median(original),
        ours=statistics.median(ours),
        ratio=ratio,
        spread=(high - low) / 2 / ratio,
        floor=floor,
        moonshot=moonshot,
        met=met,
        against=against,
    )


def timings(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each run by round, taken in turns after one warm-up each."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            start = time.process_time()
            run()
            if turn:
                seconds[name].append(time.process_time() - start)
    return seconds


def peaks(runs: Mapping[str, Callable[[], object]], plan: Plan) -> dict[str, list[float]]:
    """Peak memory of each run in MiB; nothing where the plan leaves memory out."""
    return {name: [peak_mib(run)] for name, run in runs.items()} if plan.memory else {}


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


def show(rows: Sequence[Row], tiny: bool, header: bool) -> None:
    """Print lines of the table; floors count only at full size."""
    if header:
        print(
            f"{'case':56}{'what':8}{'original':>12}{'ours':>12}{'ratio':>9}{'spread':>8}{'floor':>7}{'moonshot':>10}",
            flush=True,
        )
    for line in rows:
        mark = "" if line.met or tiny else "  floor missed"
        print(
            f"{line.case:56}{line.what:8}{line.original:12.4g}{line.ours:12.4g}{line.ratio:9.2f}{line.spread:8.2f}"
            f"{line.floor:7g}{line.moonshot:10g}{mark}",
            flush=True,
        )


def moved(rows: Sequence[Row], committed: Path) -> list[str]:
    """Say which ratios differ from those of a CSV by more than the spreads of both, a sentence each.

    Args:
        rows: measured now.
        committed: a CSV that `write` made; lines it lacks are named as new.
    """
    with committed.open(encoding="utf-8") as handle:
        before = {(line["case"], line["what"]): line for line in csv.DictReader(handle)}
    found = []
    for line in rows:
        old = before.get((line.case, line.what))
        if old is None:
            found.append(f"{line.case}, {line.what}: {line.ratio:.2f}, not in {committed.name}")
            continue
        ratio = float(old["ratio"])
        allowed = max(line.spread + float(old.get("spread") or 0), LEAST_MOVE)
        if abs(line.ratio / ratio - 1) > allowed:
            word = "faster" if (line.ratio > ratio) != (line.what == "growth") else "slower"
            word = word if line.what == "time" else "better" if word == "faster" else "worse"
            found.append(
                f"{line.case}, {line.what}: {ratio:.2f} to {line.ratio:.2f}, {word} by more than {allowed:.0%}"
            )
    return found


def add_flags(parser: argparse.ArgumentParser, cases: Sequence[str], results: Path) -> None:
    """Flags of every speed benchmark."""
    parser.add_argument("--cases", nargs="+", choices=cases, default=list(cases), help="which cases (default: all)")
    parser.add_argument("--rounds", type=int, help="timed rounds per case (default: 5; 3 with --quick)")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"3 rounds without memory; says which ratio moved by more than its spread against {results.name}",
    )
    parser.add_argument("--tiny", action="store_true", help="tiny sizes and one round: a test of the script itself")
    parser.add_argument(
        "--out", type=Path, help=f"where the CSV goes (default: results/{results.name}, full runs only)"
    )


def run_cases(
    cases: Mapping[str, Callable[[Plan], list[Row]]], options: argparse.Namespace, results: Path
) -> list[Row]:
    """Run the cases that the flags name, print their table, and write it or compare it with the committed one."""
    rounds = 1 if options.tiny else options.rounds or (3 if options.quick else 5)
    plan = Plan(rounds, memory=not options.quick)
    print(f"one thread, torch {torch.__version__}, {platform.machine()}, {rounds} rounds")
    print("original: our own plain implementation of the published method, same weights; not the authors' code")
    rows: list[Row] = []
    for name in options.cases:
        found = cases[name](plan)
        show(found, options.tiny, header=not rows)
        rows += found
    if options.quick:
        sentences = moved(rows, results)
        print("\n".join(sentences or [f"no ratio moved by more than its spread against {results.name}"]), flush=True)
    if options.out or not (options.tiny or options.quick):
        write(rows, options.out or results)
    return rows


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
