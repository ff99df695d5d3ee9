"""Which folder may import which, and what an import loads. An arrow that is not in the table fails here."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "hf_causal_video"
MAY_IMPORT = {
    "utils": set(),
    "causal": set(),
    "backbones": set(),
    "evaluation": set(),
    "features": set(),
    "models": {"causal", "backbones"},
    "tracks": {"features"},
    "data": {"features.store", "tracks"},
    "worlds": {"data", "features"},
    "viewer": {"models"},
    "stress": {"models", "viewer"},
    "selection": {"causal", "features", "models", "viewer"},
    "training": {"data", "evaluation", "features.store", "models", "tracks", "worlds"},
    "hub": {"features.networks", "models"},
    "pipelines": {"features", "models", "stress", "tracks"},
}
ABOVE = "cli"  # may import everything; nobody imports it
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
    allowed = MAY_IMPORT[folder] | {"utils", folder}
    for path in (PACKAGE / folder).rglob("*.py"):
        for name in imported_by(path):
            parts = name.split(".")
            if parts[0] == "hf_causal_video":
                assert len(parts) > 1, f"{path} imports the whole package"
                assert parts[1] in allowed or ".".join(parts[1:3]) in allowed, f"{path} imports {name}: no such arrow"


@pytest.mark.parametrize("folder", sorted(OUTSIDE))
def test_mechanisms_and_metrics_lean_on_one_library(folder: str):
    allowed = OUTSIDE[folder] | {"hf_causal_video"} | set(sys.stdlib_module_names)
    for path in (PACKAGE / folder).rglob("*.py"):
        assert {name.split(".")[0] for name in imported_by(path)} <= allowed, path


def test_every_folder_is_in_the_table():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == set(MAY_IMPORT) | {ABOVE}


def test_nothing_lies_at_the_top():
    assert [path.name for path in PACKAGE.glob("*.py")] == ["__init__.py"]


def test_the_drawing_in_the_readme_is_this_table():
    text = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")
    drawing = text.split("## How the code hangs together")[1].split("```")[1]
    lines = re.findall(r"^ (\w+) +◄── ([\w.]+(?:, [\w.]+)*) ", drawing, re.MULTILINE)
    drawn = {folder: set(used.split(", ")) - {"utils", "nothing"} for folder, used in lines}
    assert drawn == MAY_IMPORT | {ABOVE: {"everything"}}


def test_no_file_holds_two_ideas():
    """Four hundred lines is where a file is read no longer."""
    long = {str(path): n for path in PACKAGE.rglob("*.py") if (n := len(path.read_text().splitlines())) > 400}
    assert not long


def loaded_by(code: str) -> set[str]:
    """Modules loaded in a fresh interpreter after some code."""
    run = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(run.stdout.splitlines()[-1].split())


def test_an_import_of_a_mechanism_loads_no_transformers():
    loaded = loaded_by("import hf_causal_video.causal.topk")
    assert "torch" in loaded and "transformers" not in loaded
    assert sum(name.startswith("hf_causal_video") for name in loaded) < 20


def test_the_shell_prints_help_and_version_without_torch():
    for flag in ("--version", "--help"):
        code = f"from hf_causal_video.cli.main import main\ntry: main([{flag!r}])\nexcept SystemExit: pass"
        loaded = loaded_by(code)
        assert not loaded & {"torch", "transformers", "numpy"}
        assert sum(name.startswith("hf_causal_video") for name in loaded) < 10


@pytest.mark.parametrize("first", ["hf_causal_video", "transformers", "transformers.pipelines"])
def test_transformers_knows_the_methods_whichever_is_imported_first(first: str):
    code = f"""
        import {first}, hf_causal_video
        from transformers import AutoConfig, AutoModel
        from transformers.pipelines import PIPELINE_REGISTRY
        config = AutoConfig.for_model("ivrd", num_object_classes=2, num_predicates=2)
        assert type(AutoModel.from_config(config)) is hf_causal_video.IVRDForVideoRelationDetection
        assert "video-question-answering" in PIPELINE_REGISTRY.get_supported_tasks()
    """
    assert "hf_causal_video.pipelines.question_answering" in loaded_by(dedent(code))


@pytest.mark.parametrize(
    "first, inside, name",
    [
        ("causal/grounding.py", "causal", "GroundingIndicator"),
        ("models/ivrd/configuration_ivrd.py", "models.ivrd", "IVRDConfig"),
    ],
)
def test_examples_are_collected_without_a_second_execution(first: str, inside: str, name: str):
    """Two classes of one name: an object of the first cannot be pickled."""
    made = f"hf_causal_video.{first.removesuffix('.py').replace('/', '.')}"
    code = f"""
        import gc, pytest, sys
        pytest.main(["--collect-only", "-q", "hf_causal_video/{first}", "tests/test_language.py"])
        from hf_causal_video.{inside} import {name}
        assert {name} is sys.modules["{made}"].{name}
        alive = [one for one in gc.get_objects() if isinstance(one, type) and one.__name__ == "{name}"]
        assert len([one for one in alive if type(one).__name__ != "LazyClass"]) == 1
    """
    assert made in loaded_by(dedent(code))
