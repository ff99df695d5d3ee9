"""Which method's answers depend on the clip, and on the frames it points at? The stress test on the confounded world.

Why: there the causes are known, so a model's own evidence can be tested beside the true one. Every method is trained
by its recipe, in the world that tempts it (`grounding`: the background agrees with the answer in training), then asked
on iid clips and on ood clips, whose background contradicts the answer. Nothing here chooses a setting.
"""

import argparse
import csv
import json
import os
from pathlib import Path
from typing import Any

from transformers.utils.logging import disable_progress_bar

from hf_causal_video.cli.stress import stress_checkpoint
from hf_causal_video.stress.picture import save_stress
from hf_causal_video.training.recipe import recipe_world
from hf_causal_video.training.run import main as train

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parent / "results" / "stress_world.csv"
GROUNDING = {"study": "grounding", "train_clips": 6000, "eval_clips": 1000}
RUNS: dict[str, tuple[str, list[str]]] = {  # name: recipe, and what replaces its settings
    "backbone": ("backbone_world", []),
    "IGV": ("igv_world", []),
    "EIGV": ("eigv_world", []),
    "TranSTR": ("transtr_world", ["--world", json.dumps(GROUNDING), "--test_splits", "iid", "ood"]),
    "TranSTR (selection world)": ("transtr_world", []),
}
SPLITS = ("iid", "ood")
SHOWN = ("whole", "blind", "environment_swapped", "evidence_only", "evidence_removed", "window_only", "window_removed")
EFFECTS = ("evidence_effect", "control_effect", "evidence_over_control")
EXAMPLES = """examples:
  python scripts/benchmarks/stress_world.py                      # trains what is not yet in --work; resumable
  python scripts/benchmarks/stress_world.py --runs IGV TranSTR --clips 200 --results -
  python scripts/benchmarks/stress_world.py --report             # the tables from the csv
"""


def measure(name: str, split: str, evidence: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Stress-test one checkpoint on one split; a row for each test and effect."""
    folder = given.work / folder_name(name, given.seed)
    world = recipe_world(folder) or {}
    if given.clips:
        world = world | {"eval_clips": given.clips}
    output = folder / "stress" / f"{split}-{evidence}-{world.get('eval_clips')}"
    report = stress_checkpoint(
        folder, "world", split, world=world, evidence=evidence, output=output, seed=given.seed, batch_size=100
    )
    save_stress(report, output / "stress.png", f"{name}, {split}, evidence: {evidence}")
    about = {"method": name, "world": world.get("study"), "split": split, "evidence": evidence, "seed": given.seed,
             "questions": report["questions"], "evidence_share": report["evidence_share"]}  # fmt: skip
    rows = [(row["test"], row["accuracy"], row["interval"]) for row in report["rows"]]
    rows += [(effect, one["value"], one["interval"]) for effect, one in report["effects"].items()]
    return [
        about | {"figure": figure, "value": value, "low": low, "high": high} for figure, value, (low, high) in rows
    ]


def folder_name(name: str, seed: int) -> str:
    """Where a run lies in the work folder."""
    return f"{''.join(letter if letter.isalnum() else '-' for letter in name.lower()).strip('-')}-seed{seed}"


def tables(rows: list[dict[str, Any]]) -> str:
    """The accuracies and the effects as Markdown, a line for each method, split and source of evidence."""
    found: dict[tuple[str, ...], dict[str, dict[str, Any]]] = {}
    for row in rows:
        key = tuple(str(row[name]) for name in ("method", "world", "split", "evidence", "evidence_share"))
        found.setdefault(key, {})[row["figure"]] = row
    words = [figure.replace("_", " ") for figure in SHOWN]
    lines = [f"| method, world | split | evidence | {' | '.join(words)} |", "|---" * (3 + len(SHOWN)) + "|"]
    for (method, world, split, evidence, share), figures in found.items():
        cells = [f"{float(figures[one]['value']):.1f}" if one in figures else "" for one in SHOWN]
        lines.append(f"| {method}, {world} | {split} | {evidence}, {float(share):.0f} % | {' | '.join(cells)} |")
    words = [figure.replace("_", " ") for figure in EFFECTS]
    lines += ["", f"| method, world | split | evidence | {' | '.join(words)} |", "|---" * (3 + len(EFFECTS)) + "|"]
    for (method, world, split, evidence, _), figures in found.items():
        cells = [
            "{:+.1f} ({:+.1f}, {:+.1f})".format(*(float(figures[one][part]) for part in ("value", "low", "high")))
            for one in EFFECTS
        ]
        lines.append(f"| {method}, {world} | {split} | {evidence} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_rows(rows: list[dict[str, Any]], path: Path) -> None:
    """Write the csv, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, path)


def main(argv: list[str] | None = None) -> None:
    """Train what is missing, test everything, write the csv and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--work", type=Path, default=ROOT / "outputs" / "stress_world", help="checkpoints and records")
    parser.add_argument("--clips", type=int, help="clips of a split (default: as the recipe says)")
    parser.add_argument("--seed", type=int, default=0, help="of training and of the test")
    parser.add_argument("--results", default=str(RESULTS), help="csv; '-' writes nothing")
    parser.add_argument("--report", action="store_true", help="the tables from the csv, nothing is run")
    given = parser.parse_args(argv)
    if given.report:
        with Path(given.results).open(newline="", encoding="utf-8") as file:
            print(tables(list(csv.DictReader(file))))
        return
    disable_progress_bar()
    rows: list[dict[str, Any]] = []
    for name in given.runs:
        recipe, changes = RUNS[name]
        folder = given.work / folder_name(name, given.seed)
        train(["--config", recipe, "--output_dir", str(folder), "--seed", str(given.seed), "--resume", *changes])
        for split in SPLITS:
            for evidence in ("own", "truth"):
                rows += measure(name, split, evidence, given)
    if given.results != "-":
        write_rows(rows, Path(given.results))
    print(tables(rows))


if __name__ == "__main__":
    main()
