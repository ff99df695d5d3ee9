"""Read the numbers measured on a checkpoint from its folder, and refuse those of other weights.

Why: a folder lives on. Someone trains again, or copies results from another run, and the card would state numbers of a
model that is gone. Evaluation writes the hashes of the weights; where a report has none, it must at least be younger
than the weights and name this folder.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, cast

import yaml

from hf_causal_video.hub.checks import Fields, read_json
from hf_causal_video.models.loading import weights_digest
from hf_causal_video.utils.checks import check_fields
from hf_causal_video.utils.errors import CausalVideoError, require

RUN_FILE = "card_data.json"
RECIPE_FILE = "recipe.yaml"


class Metric(TypedDict):
    """One number in `card_data.json`."""

    split: str
    name: str
    value: float
    role: str  # "validation" or "test"


class RunCard(TypedDict, total=False):
    """Fields of `card_data.json` of a training run that a card reads."""

    dataset: object  # a name, or a mapping from split to file
    preset: str
    text_encoder: str | None
    metrics: list[Metric]
    chosen_by: str
    seed: int
    hardware: str
    precision: str
    matmul_precision: str
    training: dict[str, object]
    versions: dict[str, str]


class Report(TypedDict):
    """Fields of `metrics.json` of an evaluation that a card reads."""

    dataset: str
    split: str
    metrics: dict[str, float]


@dataclass(frozen=True)
class Result:
    """One number measured on a checkpoint, in percent unless its name says otherwise.

    Args:
        dataset: name or Hub id.
        split: of it.
        metric: name, such as "Acc".
        value: the number.
        chosen: whether the checkpoint was chosen by this split, so that the number is optimistic.
        bound: whether the report holds the hashes of the weights.
    """

    dataset: str
    split: str
    metric: str
    value: float
    chosen: bool
    bound: bool


def read_results(run: str | Path) -> list[Result]:
    """Read what training and `hf-causal-video evaluate` measured on the weights of a folder.

    Args:
        run: a training run's folder, or any checkpoint with its `evaluation/`.

    Returns:
        Test numbers first; [] where nothing was measured.

    Raises:
        CausalVideoError: a report of other weights, one that cannot be read, a number that is not finite.
    """
    run = Path(run)
    results: list[Result] = []
    for file in [*run.glob(RUN_FILE), *sorted(run.glob("evaluation/*/metrics.json"))]:
        report = read_json(file)
        bound = _check_weights(file, report, run)
        known = {(one.dataset, one.split, one.metric) for one in results}
        try:
            read = [Result(*line, bound) for line in _lines(file, cast(Report, report))]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CausalVideoError(
                f"{file} is not a report of a run",
                found=f"{type(error).__name__}: {error}",
                expected="what training or hf-causal-video evaluate wrote",
                fix="evaluate again, or remove the file",
            ) from error
        results += [one for one in read if (one.dataset, one.split, one.metric) not in known]
    bad = [one for one in results if not math.isfinite(one.value)]
    problem = ", ".join(f"{one.metric} = {one.value} on {one.split}" for one in bad[:3])
    require(not bad, f"results of {run}", found=problem, expected="finite numbers", fix="evaluate again")
    return sorted(results, key=lambda one: one.chosen)


def _lines(file: Path, report: RunCard | Report) -> list[tuple[str, str, str, float, bool]]:
    """Dataset, split, metric and value of each number in a report, and whether the checkpoint was chosen by it."""
    if file.name == RUN_FILE:
        card = cast(RunCard, report)
        dataset = dataset_name(card)
        return [
            (dataset, str(line["split"]), str(line["name"]), float(line["value"]), line["role"] != "test")
            for line in card.get("metrics", [])
        ]
    report = cast(Report, report)
    dataset = str(without_paths(str(report["dataset"])))
    return [(dataset, str(report["split"]), name, float(value), False) for name, value in report["metrics"].items()]


def read_run(run: str | Path) -> RunCard:
    """Read `card_data.json` of a training run; {} if the folder has none."""
    file = Path(run) / RUN_FILE
    return cast(RunCard, read_json(file)) if file.is_file() else {}


def read_recipe(run: str | Path) -> Fields | None:
    """Read the recipe of a run without the paths of this machine; None if the folder has none.

    A file or folder that was given by its path keeps its last name alone: where it lies is the reader's to say.
    """
    path = Path(run) / RECIPE_FILE
    if not path.is_file():
        return None
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CausalVideoError(
            f"{path} cannot be read", found=str(error), expected="YAML", fix="restore it"
        ) from error
    check_fields(f"recipe {path}", recipe, (), fix="restore it")
    return {name: without_paths(value) for name, value in recipe.items()}


def without_paths(value: object) -> object:
    """The same plain data with every absolute path cut to its last name.

    Example:
        >>> without_paths({"features": "/data/nextqa/features/", "dataset": {"train": "train.csv"}, "seed": 0})
        {'features': 'features', 'dataset': {'train': 'train.csv'}, 'seed': 0}
    """
    if isinstance(value, dict):
        return {key: without_paths(part) for key, part in value.items()}
    if isinstance(value, list):
        return [without_paths(part) for part in value]
    return re.split(r"[\\/]", value.rstrip("\\/"))[-1] if isinstance(value, str) and is_path(value) else value


def is_path(text: str) -> bool:
    """Tell whether a string is a path on one machine."""
    return Path(text).is_absolute() or text.startswith("~") or text[1:3] in (":\\", ":/")


def dataset_name(card: RunCard) -> str:
    """Name what a run was trained on, in one word or by its Hub id."""
    dataset = card.get("dataset")
    preset = str(card.get("preset", ""))
    if isinstance(dataset, str):
        return str(without_paths(dataset))
    return preset.removeprefix("official-") if preset.startswith("official-") else "own questions"


def _check_weights(path: Path, report: Fields, run: Path) -> bool:
    """Refuse a report of other weights; say whether it is bound to them by their hashes."""
    here = weights_digest(run)
    stated = report.get("weights")
    if isinstance(stated, dict) and stated:
        what = f"{path} was measured on other weights"
        fix = "evaluate this checkpoint again, or remove the file"
        require(stated == here, what, found=_short(stated), expected=_short(here), fix=fix)
        return True
    place = Path(str(report.get("checkpoint") or run))
    here_by_name = run.resolve().parts[-len(place.parts) :] == place.parts  # a relative path
    elsewhere = not here_by_name and place.resolve() != run.resolve()
    written = max(((run / name).stat().st_mtime for name in here), default=0.0)
    require(
        not elsewhere and path.stat().st_mtime >= written,
        f"{path} does not say which weights it was measured on",
        found=f"a report of {place}" if elsewhere else "a report older than the weights",
        expected="a report of this checkpoint",
        fix="evaluate it again: hf-causal-video evaluate",
    )
    return False


def _short(digest: dict[str, str]) -> str:
    return ", ".join(f"{name} {value[:12]}" for name, value in digest.items()) or "none"
