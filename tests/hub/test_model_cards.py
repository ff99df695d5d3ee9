"""Cards and the results table are what their sources make them, and mix up no two kinds of numbers."""

from pathlib import Path

import pytest
import yaml

from hf_causal_video.errors import CausalVideoError
from hf_causal_video.hub import model_cards as cards
from hf_causal_video.models import METHODS, RELATION_METHODS

ROOT = Path(__file__).resolve().parents[2]
AGAIN = "run: python -m hf_causal_video.hub.model_cards"


@pytest.fixture(scope="module")
def written() -> dict[str, str]:
    return cards.model_cards()


def test_the_cards_in_the_repository_are_what_would_be_written_now(written):
    there = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "model_cards").glob("*.md")}
    assert there.keys() == written.keys(), AGAIN
    assert [name for name in there if there[name] != written[name]] == [], AGAIN


def test_the_readme_shows_the_table_as_it_is_now():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
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
            assert f"{known[entry.method][0].__name__}\n" in written[f"{entry.recipe}.md"]


def test_a_measured_number_gets_its_place_and_its_command(monkeypatch):
    told, _ = cards.read_table()
    ours = {"card": "transtr_nextqa", "metric": "accuracy", "value": 12.351, "command": "train it", "seed": 3}
    monkeypatch.setattr(cards.yaml, "safe_load", lambda text: told | {"measured": [ours]} if "cards:" in text else {})
    entry = cards.read_table()[1][0]
    assert entry.measured == [ours] and "| 61.52 | 61.52 | 12.35 |" in cards.results_table().replace(
        "12.35 |", "12.35 |"
    )
    told["cards"] = told["cards"][1:]
    with pytest.raises(CausalVideoError, match="the card it belongs to"):
        cards.read_table()


def test_a_number_without_a_source_is_refused(monkeypatch):
    told, _ = cards.read_table()
    told["cards"][0]["published"][0]["source"] = "somewhere"
    monkeypatch.setattr(cards.yaml, "safe_load", lambda text: told)
    with pytest.raises(CausalVideoError, match="name where the number stands"):
        cards.read_table()


def test_writing_twice_changes_nothing_and_removes_cards_that_are_no_more(tmp_path, written, monkeypatch):
    monkeypatch.setattr(cards, "model_cards", lambda: written)
    (tmp_path / "model_cards").mkdir()
    (tmp_path / "model_cards" / "gone.md").write_text("")
    (tmp_path / "README.md").write_text(f"before\n{cards.START}\n{cards.END}\nafter\n")
    assert cards.write(tmp_path) and not cards.write(tmp_path)
    assert not (tmp_path / "model_cards" / "gone.md").exists()
    readme = (tmp_path / "README.md").read_text()
    assert readme.startswith("before\n") and readme.endswith("\nafter\n") and "TranSTR" in readme
    (tmp_path / "README.md").write_text("no marks")
    with pytest.raises(CausalVideoError, match="no place for the results"):
        cards.write(tmp_path)
