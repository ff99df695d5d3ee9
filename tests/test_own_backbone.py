"""The README's section on a backbone of one's own is a program: it runs, trains, and loads again."""

import re
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from hf_causal_video.backbones import BACKBONES
from hf_causal_video.training import main
from tests.training.conftest import TINY, write_recipe

README = Path(__file__).resolve().parents[1] / "hf_causal_video" / "backbones" / "README.md"


@pytest.fixture
def block(capsys: pytest.CaptureFixture[str]) -> dict:
    """What the code block leaves behind, after it ran."""
    section = README.read_text(encoding="utf-8").split("## Your own backbone\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(code.splitlines()) < 40
    torch.manual_seed(0)
    left: dict = {}
    before = dict(BACKBONES)
    exec(compile(code, str(README), "exec"), left)
    left["printed"] = capsys.readouterr().out
    yield left
    BACKBONES.clear()
    BACKBONES.update(before)


def test_both_methods_wrap_it(block: dict):
    assert block["printed"].count("tensor([[") == 2 and "True" in block["printed"]
    assert all(p.grad is not None for name, p in block["model"].named_parameters() if "head" in name)


@pytest.mark.parametrize("method", ["igv", "eigv"])
def test_a_recipe_trains_it_and_the_folder_loads_again(block: dict, tmp_path: Path, method: str):
    overrides = {"text_config": TINY["config_overrides"]["text_config"], "backbone": "mine"}
    overrides |= {"backbone_config": {"width": 8}}
    recipe = write_recipe(tmp_path / "r.yaml", method=method, config_overrides=overrides, num_train_epochs=1)
    main(["--config", str(recipe), "--output_dir", str(tmp_path / "run")])
    assert type(AutoModel.from_pretrained(tmp_path / "run").backbone) is block["MyBackbone"]
