"""`hf-causal-video compare`: one table over runs on the same questions, and their learning curves."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hf_causal_video.cli.options import FONT, argument, option
from hf_causal_video.cli.pictures import check_picture, font_path
from hf_causal_video.utils.errors import CausalVideoError, require

EXAMPLES = """examples:
  hf-causal-video compare outputs/*                             # runs of a sweep, each against the first
  hf-causal-video compare outputs/igv outputs/transtr --split ood --png curves.png
  hf-causal-video compare outputs/igv/evaluation/clips-test outputs/transtr/evaluation/clips-test

A run is an --output_dir of training (its predictions/SPLIT.jsonl) or a folder of `evaluate` (its predictions.jsonl).
Intervals are 95 % of a bootstrap over videos; the difference is paired: the same questions, the same resamples.
"""
NOT_A_SETTING = {"output_dir", "method", "preset"}  # keys of a recipe that do not say how two runs differ


@dataclass
class Run:
    """Answers of one run.

    Args:
        name: folder, as typed.
        split: split of its answers.
        records: one dictionary per question, see `training.questions.predict`.
        recipe: keys and values of `recipe.yaml`; empty for a folder of `evaluate`.
        log: lines of `training_log.jsonl`.
    """

    name: str
    split: str
    records: list[dict[str, Any]]
    recipe: dict[str, Any]
    log: list[dict[str, Any]]


@dataclass(kw_only=True)
class Options:
    """Compare runs on the same questions, with intervals."""

    runs: list[str] = argument("output folders of training or of evaluate", metavar="RUN")
    split: str | None = option("split of the predictions (default: the first test split that all runs have)", None)
    png: Path | None = option("draw the learning curves of the runs into this file", None)
    font: Path | None = option(FONT, None)
    json: bool = option("print JSON instead of text", False)
    resamples: int = option("of the bootstrap", 2000)


def run(options: Options) -> None:
    """Compare the runs and print the table."""
    check_picture(options.png, options.font)
    report, runs = compare_folders(options.runs, options.split, options.resamples)
    if options.png is not None:
        from hf_causal_video.viewer.curves import save_curves

        curves = {one.name: one.log for one in runs if one.log}
        require(
            curves,
            "no learning curves to draw",
            found="no training_log.jsonl in any run",
            expected="at least one output folder of training",
            fix="leave out --png, or name the training runs",
        )
        save_curves(curves, options.png, font_path(options.font))
        report["png"] = str(options.png)
    if options.json:
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        print(as_table(report))


def compare_folders(
    folders: Sequence[str | Path], split: str | None = None, resamples: int = 2000
) -> tuple[dict[str, Any], list[Run]]:
    """Read runs and compare their answers.

    Args:
        folders: output folders of training or of `evaluate`; the first one is what the others are compared with.
        split: split of the predictions; None takes the first test split that all runs have, else any they share.
        resamples: of the bootstrap.

    Returns:
        The report (`split`, `questions`, `videos`, `baseline`, `runs` with `name`, `accuracy`, `difference` and
        `settings`, `notes`), and the runs as read.

    Raises:
        CausalVideoError: fewer than two runs, missing predictions, unknown answers, or different questions.
    """
    from hf_causal_video.evaluation.compare import compare_runs

    names = [str(folder).rstrip("/") for folder in folders]
    fix = "name the run that it is compared with first"
    require(len(names) > 1, "nothing to compare", found=f"one run, {names[0]}", expected="two or more runs", fix=fix)
    twice = sorted({name for name in names if names.count(name) > 1})
    require(not twice, "a run is named twice", found=", ".join(twice), expected="each run once", fix="drop one")
    files = _prediction_files(names, split)
    runs = [_read_run(name, path) for name, path in zip(names, files, strict=True)]
    for other in runs[1:]:
        _check_same_answers(runs[0], other)
    outcomes = {
        one.name: {row["question_id"]: row["prediction"] == row["label"] for row in one.records} for one in runs
    }
    videos = {row["question_id"]: str(row["video_id"]) for row in runs[0].records}
    compared = compare_runs(outcomes, videos, resamples=resamples)
    settings = _different_settings(runs)
    unknown = sum(row["label"] < 0 for row in runs[0].records)
    notes = []
    if unknown:
        notes.append(f"{unknown} questions whose answer is unknown or outside the vocabulary count as wrong")
    if len({one.split for one in runs}) > 1:
        notes.append("splits have different names: " + ", ".join(f"{one.name} {one.split}" for one in runs))
    report = {
        "split": runs[0].split,
        "questions": len(videos),
        "videos": len(set(videos.values())),
        "baseline": runs[0].name,
        "runs": [{**asdict(row), "settings": settings[one.name]} for one, row in zip(runs, compared, strict=True)],
        "notes": notes,
        "mark": "measured here",
    }
    return report, runs


def as_table(report: Mapping[str, Any]) -> str:
    """Lay out a report as text, one line per run."""
    width = max(len("run"), *(len(row["name"]) for row in report["runs"]))
    lines = [
        f"{len(report['runs'])} runs on {report['questions']} questions of {report['videos']} videos, "
        f"split {report['split']}; accuracy in %, 95 % intervals over videos",
        f"  {'run':<{width}}  {'accuracy':<24}{'difference to the first':<26}settings",
    ]
    for row in report["runs"]:
        accuracy = row["accuracy"]
        measured = f"{accuracy['value']:5.1f} [{accuracy['low']:.1f}, {accuracy['high']:.1f}]"
        difference = row["difference"]
        shift = "-"
        if difference is not None:
            clear = "*" if difference["low"] > 0 or difference["high"] < 0 else ""
            shift = f"{difference['value']:+5.1f} [{difference['low']:+.1f}, {difference['high']:+.1f}] {clear}"
        settings = ", ".join(f"{key} {value}" for key, value in row["settings"].items())
        lines.append(f"  {row['name']:<{width}}  {measured:<24}{shift:<26}{settings}".rstrip())
    lines.append("  * the interval of the difference leaves out zero")
    lines += [f"  note: {note}" for note in report["notes"]]
    if "png" in report:
        lines.append(f"written: {report['png']}")
    return "\n".join(lines)


def _prediction_files(names: Sequence[str], split: str | None) -> list[Path]:
    """File of predictions of each run."""
    available = [_splits(name) for name in names]
    training = [splits for splits in available if "" not in splits]
    if split is None and training:
        shared = [name for name in training[0] if all(name in splits for splits in training)]
        evaluated = [_split_of_evaluation(name) for name, splits in zip(names, available, strict=True) if "" in splits]
        split = next((name for name in (*evaluated, *shared) if name in shared), None)
        require(
            split is not None,
            "the runs have no split in common",
            found="; ".join(f"{name}: {', '.join(splits)}" for name, splits in zip(names, available, strict=True)),
            expected="predictions on one split",
            fix="evaluate the checkpoints on the same split: hf-causal-video evaluate RUN --dataset ... --split ...",
        )
    files = []
    for name, splits in zip(names, available, strict=True):
        path = splits.get("", splits.get(str(split)))
        require(
            path is not None,
            f"{name} has no predictions on split {split!r}",
            found=", ".join(splits),
            expected=f"predictions/{split}.jsonl",
            fix="name another --split, or evaluate the checkpoint on it",
        )
        assert path is not None
        files.append(path)
    return files


def _splits(name: str) -> dict[str, Path]:
    """Files of predictions by split, test splits first; a folder of `evaluate` has one, under ""."""
    folder = Path(name)
    require(folder.is_dir(), "missing run", found=f"no folder {name}", expected="an output folder")
    if (folder / "predictions.jsonl").is_file():
        return {"": folder / "predictions.jsonl"}
    files = {path.stem: path for path in sorted((folder / "predictions").glob("*.jsonl"))}
    require(
        files,
        f"{name} has no predictions",
        found=", ".join(sorted(path.name for path in folder.iterdir())[:6]) or "an empty folder",
        expected="predictions.jsonl, or predictions/SPLIT.jsonl of a finished training run",
        fix="let the run finish (--resume), or evaluate it: hf-causal-video evaluate RUN --dataset ... --output ...",
    )
    recipe = _recipe(folder)
    order = [*recipe.get("test_splits", ()), recipe.get("validation_split")]
    return dict(sorted(files.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))


def _split_of_evaluation(name: str) -> str:
    path = Path(name) / "metrics.json"
    return str(json.loads(path.read_text(encoding="utf-8")).get("split", "")) if path.is_file() else ""


def _recipe(folder: Path) -> dict[str, Any]:
    from hf_causal_video.training.recipe import read_recipe

    path = folder / "recipe.yaml"
    return read_recipe(str(path)) if path.is_file() else {}


def _read_run(name: str, path: Path) -> Run:
    from hf_causal_video.training.step_log import LOG_FILE, read_log

    try:
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CausalVideoError(
            f"{path} cannot be read", found=error, expected="one JSON object per line", fix="evaluate the run again"
        ) from error
    needed = {"question_id", "video_id", "prediction", "label"}
    missing = sorted({key for row in records for key in needed - set(row)})
    require(
        not missing,
        f"{path} cannot be compared",
        found=f"records without {', '.join(missing)}",
        expected="answers to questions with their labels",
        fix="relations cannot be compared here; answers of an older version: evaluate the run again",
    )
    require(
        any(row["label"] >= 0 for row in records),
        f"{path} has no known answers",
        found=f"{len(records)} questions without a label",
        expected="true answers",
        fix="choose a split whose answers are known",
    )
    split = path.stem if path.parent.name == "predictions" else _split_of_evaluation(name)
    return Run(name, split, records, _recipe(Path(name)), read_log(Path(name) / LOG_FILE))


def _check_same_answers(first: Run, other: Run) -> None:
    """Refuse two runs whose questions share ids and have different true answers."""
    truth = {row["question_id"]: row.get("label_text") or row["label"] for row in first.records}
    wrong = [
        row["question_id"]
        for row in other.records
        if row["question_id"] in truth and truth[row["question_id"]] != (row.get("label_text") or row["label"])
    ]
    require(
        not wrong,
        f"{first.name} and {other.name} answered different questions",
        found=f"{len(wrong)} questions with the same id and another true answer, such as {wrong[:3]}",
        expected="the same questions and answers",
        fix="compare runs on one split of one dataset",
    )


def _different_settings(runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """Method of each run, and the keys of its recipe that are not the same in all runs."""
    recipes = [one.recipe for one in runs if one.recipe]
    keys = sorted({key for recipe in recipes for key in recipe} - NOT_A_SETTING)
    varying = [key for key in keys if any(recipe.get(key) != recipes[0].get(key) for recipe in recipes[1:])]
    settings: dict[str, dict[str, Any]] = {}
    for one in runs:
        shown = {key: one.recipe[key] for key in ("method",) if key in one.recipe}
        for key in varying:
            value = one.recipe.get(key)
            if isinstance(value, dict):
                others = [recipe.get(key) or {} for recipe in recipes]
                value = {k: v for k, v in value.items() if any(other.get(k) != v for other in others)}
            if value not in (None, {}):
                shown[key] = value
        settings[one.name] = shown
    return settings
