"""The house as drawn: which folder may import which. An arrow that is not in the table fails here."""

import ast
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "hf_causal_video"
MAY_IMPORT = {
    "causal": set(),
    "backbones": set(),
    "models": {"causal", "backbones"},
    "features": set(),
    "data": {"features"},
    "evaluation": set(),
    "evidence": {"causal", "models", "features"},
    "training": {"models", "data", "evaluation", "features"},
    "hub": {"models"},
}
EVERYONE = {"errors", "version"}
ABOVE_EVERYTHING = {
    "__init__", "app", "cli", "demo", "demo_models", "demo_report", "pipelines", "relation_command",
    "relation_pipeline", "stress_command",
}  # fmt: skip
OUTSIDE = {  # what a folder of pure mechanism may lean on
    "causal": {"torch"},
    "evaluation": {"numpy"},
}


def imported_by(path: Path) -> set[str]:
    """Every module a file imports, at its head or inside a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports by dots; write the full name"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names if node.module == "hf_causal_video"}
    return names


@pytest.mark.parametrize("folder", sorted(MAY_IMPORT))
def test_a_folder_imports_only_what_the_drawing_allows(folder: str):
    allowed = MAY_IMPORT[folder] | EVERYONE | {folder}
    for path in (PACKAGE / folder).rglob("*.py"):
        for name in imported_by(path):
            parts = name.split(".")
            if parts[0] == "hf_causal_video":
                assert len(parts) > 1, f"{path} imports the whole package"
                assert parts[1] in allowed, f"{path} imports {name}: no such arrow"


@pytest.mark.parametrize("folder", sorted(OUTSIDE))
def test_mechanisms_and_metrics_lean_on_one_library(folder: str):
    import sys

    allowed = OUTSIDE[folder] | {"hf_causal_video"} | set(sys.stdlib_module_names)
    for path in (PACKAGE / folder).rglob("*.py"):
        assert {name.split(".")[0] for name in imported_by(path)} <= allowed, path


def test_every_room_is_in_the_table():
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    files = {path.stem for path in PACKAGE.glob("*.py")}
    assert rooms == set(MAY_IMPORT)
    assert files <= ABOVE_EVERYTHING | EVERYONE


def test_the_drawing_in_the_readme_is_this_table():
    text = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")
    drawing = text.split("## How the code hangs together")[1].split("```")[1]
    drawn: dict[str, set[str]] = {room: set() for room in MAY_IMPORT}
    for room in re.findall(r"[┌┼└]──► (\w+)", drawing):
        drawn[room].add("models")
    for room, used in re.findall(r"(\w+) ◄── (\w+(?:, \w+)*)", drawing):
        drawn[room] |= set(used.split(", "))
    drawn["models"] = set(re.findall(r"^ (\w+) ─", drawing, re.MULTILINE))
    assert drawn == MAY_IMPORT
    above = re.search(r"^ (.*), scripts: above everything", drawing, re.MULTILINE)[1].split(", ")
    assert all(any(fnmatch(name, kind) for kind in above) for name in ABOVE_EVERYTHING - {"__init__"})


def test_no_file_holds_two_ideas():
    """Four hundred lines is where a file is read no longer."""
    long = {str(path): n for path in PACKAGE.rglob("*.py") if (n := len(path.read_text().splitlines())) > 400}
    assert not long
