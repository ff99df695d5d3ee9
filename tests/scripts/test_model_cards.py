"""Cards and the results table are what their sources make them, and mix up no two kinds of numbers."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from hf_causal_video.models import METHODS, RELATION_METHODS
from hf_causal_video.models.loading import weights_digest
from hf_causal_video.utils.errors import CausalVideoError
from scripts.model_cards import measured
from scripts.model_cards import write as cards
from scripts.model_cards.measured import record

ROOT = Path(__file__).resolve().parents[2]
AGAIN = "run: python -m scripts.model_cards.write"


@pytest.fixture(scope="module")
def written() -> dict[str, str]:
    return cards.model_cards()


def test_the_cards_in_the_repository_are_what_would_be_written_now(written):
    there = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "model_cards").glob("*_*.md")}
    assert there.keys() == written.keys(), AGAIN
    assert [name for name in there if there[name] != written[name]] == [], AGAIN


def test_the_readme_shows_the_table_as_it_is_now():
    readme = (ROOT / "model_cards" / "README.md").read_text(encoding="utf-8")
    assert cards.replace_table(readme) == readme, AGAIN


def test_every_published_number_stands_in_its_card_with_its_source(written):
    told, entries = cards.read_table()
    for entry in entries:
        text = written[f"{entry.recipe}.md"]
        for one in entry.published:
            target = "–" if one["source"] in cards.HEARSAY else f"{one['value']:.2f}"
            assert f"| {one['metric']} | {one['value']:.2f} ({one['source']}) | {target} |" in text
            assert told["sources"][one["source"]] in text
        assert ("Not trained yet" in text) == (not entry.measured)


def test_every_recipe_of_a_published_setting_has_a_card():
    """A recipe that calls itself our own setting has none; every other one is some card's."""
    recipes = {path.stem for path in cards.RECIPES.glob("*.yaml") if "Our own setting" not in path.read_text()}
    assert recipes <= {entry.recipe for entry in cards.read_table()[1]}


def test_a_recipe_in_a_card_is_the_file_itself_and_trains_that_method(written):
    known = METHODS | RELATION_METHODS
    for entry in cards.read_table()[1]:
        if entry.recipe_text is not None:
            assert entry.recipe_text in written[f"{entry.recipe}.md"]
            assert yaml.safe_load(entry.recipe_text)["method"] == entry.method
            assert f"{known[entry.method].config.__name__}\n" in written[f"{entry.recipe}.md"]


@pytest.fixture
def nothing_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(measured, "MEASURED", tmp_path / "measured.json")
    (tmp_path / "measured.json").write_text("[]")


def finished_run(folder: Path, seed: int, value: float, **changes: object) -> Path:
    folder.mkdir()
    save_file({"weight": torch.full((2,), float(seed))}, folder / "model.safetensors")
    recipe = yaml.safe_load((cards.RECIPES / "transtr_nextqa.yaml").read_text())
    recipe |= {"learning_rate": 1e-5, "features": "/somewhere", "seed": seed, **changes}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    numbers = [("validation", "validation", "Acc", 99.0), ("test", "test", "Acc", value)]
    card = {"dataset": "nextqa", "weights": weights_digest(folder), "metrics": [
        {"split": split, "role": role, "name": name, "value": number} for split, role, name, number in numbers
    ]}  # fmt: skip
    (folder / "card_data.json").write_text(json.dumps(card))
    return folder


def test_a_finished_run_gets_its_place_with_what_it_changed(tmp_path, nothing_measured):
    recipes = {entry.recipe: yaml.safe_load(entry.recipe_text) for entry in cards.read_table()[1] if entry.recipe_text}
    for seed, value in ((1, 60.0), (2, 62.0), (2, 61.0)):  # the last one replaces the second
        run = finished_run(tmp_path / f"{seed} {value}", seed, value, num_train_epochs=3)
        assert record(run, recipes) == "transtr_nextqa"
    entry = cards.read_table()[1][0]
    assert entry.ours == {"Acc": "60.50 (mean of 2 seeds)"}, "the split it was chosen by is no result"
    assert "| 61.52 | 61.52 | 60.50 (mean of 2 seeds) |" in cards.results_table()
    text = cards.model_cards()["transtr_nextqa.md"]
    assert "Not trained yet" not in text and text.count("with num_train_epochs 3, seed") == 2
    assert weights_digest(run)["model.safetensors"][:12] in text
    save_file({"weight": torch.zeros(3)}, run / "model.safetensors")
    with pytest.raises(CausalVideoError, match="other weights"):
        record(run, recipes)
    (run / "card_data.json").unlink()
    with pytest.raises(CausalVideoError, match="nothing measured"):
        record(run, recipes)
    with pytest.raises(CausalVideoError, match="no run of a published setting"):
        record(finished_run(tmp_path / "own", 3, 60.0, preset="clean"), recipes)


def test_a_number_without_a_source_is_refused(monkeypatch):
    told, _ = cards.read_table()
    told["cards"][0]["published"][0]["source"] = "somewhere"
    monkeypatch.setattr(cards.yaml, "safe_load", lambda text: told)
    with pytest.raises(CausalVideoError, match="name where the number stands"):
        cards.read_table()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"recipe": None}, "name the recipe"),
        ({"recipy": "mine"}, "recipy"),
        ({"method": "mine"}, "under `methods:`"),
        ({"benchmark": "mine"}, "under `benchmarks:`"),
    ],
)
def test_a_card_of_a_method_that_is_new_says_what_it_lacks(change, words, monkeypatch):
    told, _ = cards.read_table()
    card = {"method": "transtr", "benchmark": "nextqa", "recipe": "mine"} | change
    told["cards"] = [{name: value for name, value in card.items() if value is not None}]
    monkeypatch.setattr(cards.yaml, "safe_load", lambda text: told)
    with pytest.raises(CausalVideoError, match=words):
        cards.read_table()


def test_writing_twice_changes_nothing_and_removes_cards_that_are_no_more(tmp_path, written, monkeypatch):
    monkeypatch.setattr(cards, "model_cards", lambda: written)
    (tmp_path / "model_cards").mkdir()
    (tmp_path / "model_cards" / "gone.md").write_text("")
    (tmp_path / "model_cards" / "README.md").write_text(f"before\n{cards.START}\n{cards.END}\nafter\n")
    assert cards.write(tmp_path) and not cards.write(tmp_path)
    assert not (tmp_path / "model_cards" / "gone.md").exists()
    readme = (tmp_path / "model_cards" / "README.md").read_text()
    assert readme.startswith("before\n") and readme.endswith("\nafter\n") and "TranSTR" in readme
    (tmp_path / "model_cards" / "README.md").write_text("no marks")
    with pytest.raises(CausalVideoError, match="no place for the results"):
        cards.write(tmp_path)
