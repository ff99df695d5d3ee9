"""What was measured here on published benchmarks, taken from finished runs and kept beside the package.

    python -m scripts.model_cards.write outputs/transtr_nextqa

Why: a number that is typed into a card can be of another model. Here it comes from the run's own report, after the
same check as before a push, with the recipe it belongs to and whatever the run did otherwise.
"""

import json
from pathlib import Path
from typing import Any

from hf_causal_video.hub.results import dataset_name, read_recipe, read_results, read_run
from hf_causal_video.models.loading import weights_digest
from hf_causal_video.utils.errors import CausalVideoError

MEASURED = Path(__file__).with_name("measured.json")
YOURS = {"dataset", "features", "annotations", "text_model"}  # where the data and the text encoder lie


def read_measured() -> list[dict[str, Any]]:
    """Every number measured here: recipe, split, metric, value, seed, changes to the recipe, hashes of the weights."""
    return json.loads(MEASURED.read_text(encoding="utf-8"))


def record(run: str | Path, recipes: dict[str, dict[str, Any]]) -> str:
    """Take the test numbers of a finished run into the table; those of the same recipe and seed are replaced.

    Args:
        run: its output folder.
        recipes: the packaged recipes of published settings, by name.

    Returns:
        The name of the run's recipe.

    Raises:
        CausalVideoError: no recipe, none of these, results of other weights, or none.
    """
    mine = read_recipe(run) or {}
    alike = {
        name: differences(recipe, mine)
        for name, recipe in recipes.items()
        if all(recipe.get(key) == mine.get(key) for key in ("method", "preset"))
    }
    if not alike:
        raise CausalVideoError(
            f"{run} is no run of a published setting", found=f"{mine.get('method')}, preset {mine.get('preset')}",
            expected=", ".join(recipes), fix="train with --config and one of these names",
        )  # fmt: skip
    name = min(alike, key=lambda one: len(alike[one]))
    seed = mine.get("seed")
    own = dataset_name(read_run(run))
    tests: Any = mine.get("test_splits") or ["test"]
    found = [
        {
            "recipe": name, "split": one.split, "metric": one.metric, "value": round(one.value, 4), "seed": seed,
            "changes": alike[name], "weights": weights_digest(run),
        }
        for one in read_results(run)
        if not one.chosen and one.dataset == own and one.split in tests
    ]  # fmt: skip
    if not found:
        raise CausalVideoError(
            f"nothing measured in {run}", found="no test numbers", expected="the metrics of a finished run",
            fix="let the training finish, or run hf-causal-video evaluate",
        )  # fmt: skip
    others = [one for one in read_measured() if (one["recipe"], one["seed"]) != (name, seed)]
    MEASURED.write_text(json.dumps([*others, *found], indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return name


def differences(recipe: dict[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    """What a run did otherwise than a recipe says, by key; where the data lie is not compared.

    Example:
        >>> differences({"learning_rate": "1e-5", "seed": 999}, {"learning_rate": 1e-5, "seed": 1})
        {'seed': 1}
    """
    return {
        key: run.get(key)
        for key, value in recipe.items()
        if key not in YOURS and _plain(value) != _plain(run.get(key))
    }


def _plain(value: Any) -> Any:
    """YAML reads 1e-5 as text."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    try:
        return float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else value
    except ValueError:
        return value
