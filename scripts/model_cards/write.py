"""`model_cards/` and the table in its README: every method by benchmark, written and never typed.

    python -m scripts.model_cards.write [RUN ...]

Why: three kinds of numbers are easily mixed up: what the authors published, what we aim for, what was measured here.
The first come from one table (`benchmarks.yaml`) in which each names its source, the last from finished runs
(`measured.json`), and all stand in columns of their own. A test writes cards and table again and compares.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import yaml

from hf_causal_video.hub.card import architecture, introduction, table
from hf_causal_video.models import METHODS, RELATION_METHODS
from hf_causal_video.utils.errors import CausalVideoError
from scripts.model_cards.measured import read_measured, record

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "hf_causal_video" / "training" / "recipes"
HEARSAY = {"memory": "recalled", "issue": "quoted"}  # sources that make no target, and their mark in the table
START, END = "<!-- results: python -m scripts.model_cards.write -->", "<!-- end of results -->"


@dataclass(frozen=True)
class Entry:
    """One method on one benchmark.

    Args:
        method, benchmark: keys of the table.
        recipe: name of its recipe.
        backbone: what the method wraps, where that is one of several.
        published: its authors' numbers, each with metric, value and source.
        measured: ours, as `record` took them from a run.
        notes: what a reader of the numbers must know.
    """

    method: str
    benchmark: str
    recipe: str
    backbone: str | None = None
    published: list[dict[str, Any]] = field(default_factory=list)
    measured: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def recipe_text(self) -> str | None:
        """The recipe with its comments; None where there is none yet."""
        path = RECIPES / f"{self.recipe}.yaml"
        return path.read_text(encoding="utf-8") if path.is_file() else None

    @property
    def ours(self) -> dict[str, str]:
        """Numbers measured here by metric: the mean over seeds, and how many where that is several."""
        values: dict[str, list[float]] = {}
        for one in self.measured:
            values.setdefault(one["metric"], []).append(one["value"])
        return {
            metric: f"{fmean(given):.2f}" + (f" (mean of {len(given)} seeds)" if len(given) > 1 else "")
            for metric, given in values.items()
        }

    @property
    def targets(self) -> dict[str, float]:
        """Published numbers from the authors' own hand: what the recipe is to reach."""
        return {one["metric"]: one["value"] for one in self.published if one["source"] not in HEARSAY}


def read_table() -> tuple[dict[str, Any], list[Entry]]:
    """The table of benchmarks: sources, benchmarks and methods by key, and an entry for every card.

    Raises:
        CausalVideoError: an entry that lacks a field or names an unknown method or benchmark; a published number
            without a known source.
    """
    told = yaml.safe_load(Path(__file__).with_name("benchmarks.yaml").read_text(encoding="utf-8"))
    entries = [_entry(card, told) for card in told["cards"]]
    by_recipe = {entry.recipe: entry for entry in entries}
    for one in read_measured():
        by_recipe[one["recipe"]].measured.append(one)
    for entry in entries:
        if unknown := [one for one in entry.published if one["source"] not in told["sources"]]:
            raise CausalVideoError(
                f"a published number of {entry.recipe}", found=unknown[0], expected=f"one of {list(told['sources'])}",
                fix="name where the number stands, or leave it out",
            )  # fmt: skip
    return told, entries


def _entry(card: dict[str, Any], told: dict[str, Any]) -> Entry:
    known, needed = set(Entry.__dataclass_fields__) - {"measured"}, {"method", "benchmark", "recipe"}
    if not needed <= set(card) <= known:
        raise CausalVideoError(
            "a card in benchmarks.yaml", found=f"fields {sorted(card)}",
            expected=f"{', '.join(sorted(needed))}, and if you like {', '.join(sorted(known - needed))}",
            fix="name the recipe also where it is not written yet",
        )  # fmt: skip
    for what in ("method", "benchmark"):
        if card[what] not in told[f"{what}s"]:
            raise CausalVideoError(
                f"the card {card['recipe']} in benchmarks.yaml", found=f"{what} {card[what]}",
                expected=", ".join(told[f"{what}s"]), fix=f"give it a name under `{what}s:` in the same file",
            )  # fmt: skip
    return Entry(**card)


def model_cards() -> dict[str, str]:
    """The text of every card by its file name.

    Example:
        >>> "61.52" in model_cards()["transtr_nextqa.md"]
        True
    """
    told, entries = read_table()
    return {f"{entry.recipe}.md": _card(entry, told) for entry in entries}


def results_table() -> str:
    """Table of results: a row for every method and benchmark, the three marks in columns of their own."""
    told, entries = read_table()
    rows = []
    for entry in entries:
        first = entry.published[0] if entry.published else None
        metric = first["metric"] if first else "Acc"
        ours = entry.ours.get(metric)
        mark = f" ({HEARSAY[first['source']]})" if first and first["source"] in HEARSAY else ""
        rows.append((
            _name(entry, told),
            f"[{told['benchmarks'][entry.benchmark]['title']}]({entry.recipe}.md), {metric}",
            "–" if first is None else f"{first['value']:.2f}{mark}",
            f"{entry.targets[metric]:.2f}" if metric in entry.targets else "–",
            ours or "not trained yet",
            f"`{entry.recipe}`" if entry.recipe_text else "not written yet",
        ))  # fmt: skip
    head = ("method", "benchmark", "published by the authors", "target", "measured here", "recipe")
    marks = " ".join(f"*{mark.capitalize()}*: {told['sources'][source]}." for source, mark in HEARSAY.items())
    return f"{table(head, rows)}\n\n{marks} Every number with its source is in the cards."


def write(root: str | Path) -> list[Path]:
    """Write the cards and the table of `model_cards/README.md`.

    Args:
        root: of the repository, which holds model_cards/.

    Returns:
        The files that changed.

    Raises:
        CausalVideoError: a README without the two marks that the table stands between.
    """
    root = Path(root)
    wanted = {root / "model_cards" / name: text for name, text in model_cards().items()}
    readme = (root / "model_cards" / "README.md").read_text(encoding="utf-8")
    wanted[root / "model_cards" / "README.md"] = replace_table(readme)
    changed = []
    for path, text in wanted.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            changed.append(path)
    for path in sorted(set((root / "model_cards").glob("*.md")) - set(wanted)):
        path.unlink()
        changed.append(path)
    return changed


def replace_table(readme: str) -> str:
    """A README with the table as it is now between its marks."""
    before, mark, rest = readme.partition(START)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise CausalVideoError("README.md", found="no place for the results", expected=f"{START} ... {END}",
                               fix="put both marks where the table belongs")  # fmt: skip
    return f"{before}{START}\n{results_table()}\n{END}{after}"


def _name(entry: Entry, told: dict[str, Any]) -> str:
    return told["methods"][entry.method] + (f" with {entry.backbone}" if entry.backbone else "")


def _card(entry: Entry, told: dict[str, Any]) -> str:
    benchmark = told["benchmarks"][entry.benchmark]
    sources = sorted({one["source"] for one in entry.published})
    metrics = list(dict.fromkeys([*(one["metric"] for one in entry.published), *entry.ours])) or ["Acc"]
    published = {one["metric"]: f"{one['value']:.2f} ({one['source']})" for one in entry.published}
    recipe = entry.recipe_text
    rows = [
        (
            metric,
            published.get(metric, "–"),
            f"{entry.targets[metric]:.2f}" if metric in entry.targets else "–",
            entry.ours.get(metric, "not trained yet"),
        )
        for metric in metrics
    ]
    parts = [
        f"# {_name(entry, told)} on {benchmark['title']}",
        "*Not trained yet.*" if not entry.measured else "",
        introduction(entry.method),
        f"## Results\n\n{benchmark['title']}, {benchmark['split']} split; {benchmark['answers']}. Percent.",
        table(("metric", "published by the authors", "target", "measured here"), rows),
        "\n".join(f"- *{source}*: {told['sources'][source]}." for source in sources),
        "\n".join(_runs(entry)),
        "\n".join(f"- {note}" for note in entry.notes),
        _network(entry),
        "## Recipe\n\n" + (f"`{entry.recipe}`:\n\n```yaml\n{recipe}```" if recipe else "Not written yet."),
        _commands(entry) if recipe else "",
        "*Written by `python -m scripts.model_cards.write` from its `benchmarks.yaml` and the recipe.*",
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def _runs(entry: Entry) -> list[str]:
    """A line for every run that was measured: its seed, what it changed, and the weights that gave its numbers."""
    lines = {}
    for one in entry.measured:
        changes = ", ".join(f"{key} {value}" for key, value in one["changes"].items())
        digests = ", ".join(f"{name} sha256 {digest[:12]}" for name, digest in one["weights"].items())
        told = f"`--config {entry.recipe}`" + (f" with {changes}" if changes else "")
        lines[one["seed"]] = f"- *measured here*: {told}, seed {one['seed']}; {digests}."
    return list(lines.values())


def _commands(entry: Entry) -> str:
    folder, repository = f"outputs/{entry.recipe}", f"org/{entry.recipe.replace('_', '-')}"
    train = f"accelerate launch scripts/train.py --config {entry.recipe} --output_dir {folder}"
    return f"## Train it\n\n```bash\n{train}\nhf-causal-video push {folder} {repository}\n```"


def _network(entry: Entry) -> str:
    """The architecture as the recipe's preset has it; the model is built without memory for its weights."""
    recipe = yaml.safe_load(entry.recipe_text or "")
    methods = METHODS | RELATION_METHODS
    if recipe is None or entry.method not in methods:
        return ""
    method = methods[entry.method]
    config = method.config.preset(recipe["preset"], **(recipe.get("config_overrides") or {}))
    with torch.device("meta"):
        model = method.model(config)
    return architecture(config, model.num_parameters())


def main(runs: list[str]) -> None:
    """Take in the numbers of finished runs, then write what changed."""
    published = {entry.recipe: yaml.safe_load(entry.recipe_text) for entry in read_table()[1] if entry.recipe_text}
    for run in runs:
        print(f"measured: {run} as {record(run, published)}")
    for path in write(ROOT):
        print(f"written: {path}")


if __name__ == "__main__":
    main(sys.argv[1:])
