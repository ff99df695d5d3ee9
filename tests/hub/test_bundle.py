"""Flat code is complete, leans on nothing but torch and transformers, and refuses what cannot travel."""

import ast
import sys
from pathlib import Path

import pytest

from hf_causal_video.hub import bundle as bundles
from hf_causal_video.hub.bundle import auto_map, bundle, flat_name
from hf_causal_video.models import METHODS, RELATION_METHODS
from hf_causal_video.utils.errors import CausalVideoError

CLASSES = {name: (m.config, m.model, m.processor) for name, m in (METHODS | RELATION_METHODS).items()}


@pytest.mark.parametrize("method", CLASSES)
def test_flat_files_import_each_other_and_libraries_that_transformers_brings(method):
    files = bundle(*CLASSES[method])
    for name, text in files.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1 and f"{node.module}.py" in files, name
            elif isinstance(node, ast.Import | ast.ImportFrom):
                tops = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module]
                assert {top.split(".")[0] for top in tops} <= bundles.LIBRARIES | set(sys.stdlib_module_names), name
    for place in auto_map(*CLASSES[method]).values():
        module, cls = place.split(".")
        assert f"class {cls}(" in files[f"{module}.py"]


@pytest.mark.parametrize("method", CLASSES)
def test_a_flat_file_is_its_module_but_for_the_imports(method):
    for name, text in bundle(*CLASSES[method]).items():
        origin = bundles.PACKAGE.parent / text.split(" of hf-causal-video")[0].removeprefix("# ")
        ours = [line for line in origin.read_text(encoding="utf-8").splitlines() if "import" not in line]
        assert ours == [line for line in text.splitlines()[1:] if "import" not in line], name


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A small package of the same name and rooms, to put into it what must not travel."""
    package = tmp_path / "hf_causal_video"
    for room in ("causal", "backbones", "models", "models/x", "data", "utils"):
        (package / room).mkdir(parents=True)
        (package / room / "__init__.py").write_text("")
    (package / "utils" / "errors.py").write_text("class CausalVideoError(ValueError): pass\n")
    monkeypatch.setattr(bundles, "PACKAGE", package)

    def write(**modules: str):
        for name, text in modules.items():
            (package / (name.replace("__", "/") + ".py")).write_text(text)
        cls = type("X", (), {"__module__": "hf_causal_video.models.x.modeling_x"})
        return bundle(cls, cls, cls)

    return write


REFUSED = {
    "another room": ("from hf_causal_video.data.rows import row\n", "an import of hf_causal_video.data.rows"),
    "the table of methods": ("from hf_causal_video.models import METHODS\n", "an import of hf_causal_video.models"),
    "another library": ("def f():\n    import datasets\n", "imports of datasets"),
    "a name that is not there": ("from hf_causal_video.utils.errors import Gone\n", "Gone from .utils_errors"),
    "a module that is not there": (
        "from hf_causal_video.causal.gone import x\n",
        "an import of hf_causal_video.causal.gone",
    ),
    "a module named in a string": ("NAME = 'hf_causal_video.causal.topk'\n", "named in a string"),
    "the whole package": ("import hf_causal_video\n", "imports of hf_causal_video"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_code_that_would_be_missing_elsewhere_is_refused(house, what):
    text, words = REFUSED[what]
    with pytest.raises(CausalVideoError, match=words):
        house(models__x__modeling_x=text)


def test_an_init_that_acts_is_refused_because_flat_code_would_not_run_it(house):
    with pytest.raises(CausalVideoError, match="__init__.py does more than import"):
        (bundles.PACKAGE / "causal" / "__init__.py").write_text("print('hello')\n")
        house(causal__a="A = 1\n",
              models__x__modeling_x="from hf_causal_video.causal.a import A\n")  # fmt: skip


def test_equal_file_names_in_two_rooms_stay_two_files(house):
    files = house(
        causal__trajectory="A = 1\n",
        backbones__trajectory="from hf_causal_video.causal.trajectory import A\nB = A\n",
        models__x__modeling_x="from hf_causal_video.backbones.trajectory import (\n    B,\n)\n",
    )
    assert files.keys() == {"backbones_trajectory.py", "causal_trajectory.py", "modeling_x.py"}
    assert files["modeling_x.py"].endswith("from .backbones_trajectory import (\n    B,\n)\n")


def test_two_modules_of_one_flat_name_are_refused(house):
    with pytest.raises(CausalVideoError, match="two modules of one flat name"):
        house(causal__a_b="A = 1\n", models__x__modeling_x="from hf_causal_video.causal.a_b import A\n"
              "from hf_causal_video.causal.a.b import B\n", **_folder(bundles.PACKAGE / "causal" / "a"))  # fmt: skip


def _folder(path: Path) -> dict[str, str]:
    path.mkdir()
    (path / "__init__.py").write_text("")
    return {"causal__a__b": "B = 1\n"}


def test_a_part_that_is_found_by_name_comes_along_and_registers_itself(house):
    house(models__x__modeling_x="X = 1\n", backbones__mine="class Mine: pass\n")
    cls = type("X", (), {"__module__": "hf_causal_video.models.x.modeling_x"})
    part = type("Mine", (), {"__module__": "hf_causal_video.backbones.mine"})
    foreign = type("Linear", (), {"__module__": "torch.nn.modules.linear"})
    files = bundle(cls, cls, cls, [part, foreign])
    assert files.keys() == {"modeling_x.py", "backbones_mine.py"}
    assert "from .backbones_mine import Mine" in files["modeling_x.py"]
    stranger = type("Theirs", (), {"__module__": "their_project.nets"})
    with pytest.raises(CausalVideoError, match="their_project.nets"):
        bundle(cls, cls, cls, [stranger])


def test_flat_names():
    assert flat_name("hf_causal_video.models.igv.configuration_igv") == "configuration_igv"
    assert flat_name("hf_causal_video.models.transtr.video") == "models_transtr_video"
