"""Laws of `--import`: own code runs before anything is loaded, and its errors are named."""

import pytest

from hf_causal_video.backbones.base import BACKBONES
from hf_causal_video.cli.main import main
from hf_causal_video.training.recipe import ConfigParser
from hf_causal_video.utils.errors import CausalVideoError
from hf_causal_video.utils.plugins import import_modules

OWN = """
from hf_causal_video.backbones.plain import PlainTransformer
from hf_causal_video.backbones.base import register_backbone
register_backbone("{name}", PlainTransformer)
"""


@pytest.mark.parametrize("how", ["own_{}.py", "own_{}"])
def test_a_module_of_the_current_folder_registers_a_backbone(tmp_path, monkeypatch, how):
    name = "file" if how.endswith(".py") else "module"
    (tmp_path / f"own_{name}.py").write_text(OWN.format(name=f"mine_{name}"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path)] + __import__("sys").path)
    try:
        ConfigParser().parse(["--config", "transtr_world", "--output_dir", "x", "--import", how.format(name)])
        assert f"mine_{name}" in BACKBONES
        import_modules([how.format(name)])  # twice does no harm
    finally:
        BACKBONES.pop(f"mine_{name}", None)


def test_a_module_that_is_missing_or_fails_is_named(tmp_path, capsys):
    (tmp_path / "broken.py").write_text("raise RuntimeError('half done')")
    with pytest.raises(CausalVideoError, match="half done"):
        import_modules([str(tmp_path / "broken.py")])
    with pytest.raises(CausalVideoError, match="no file"):
        import_modules([str(tmp_path / "absent.py")])
    assert main(["questions", "x.csv", "--import", "no_such_module"]) == 2
    assert "--import no_such_module" in capsys.readouterr().err
