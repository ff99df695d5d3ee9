"""Configs: named settings and fields are taken by their true names or refused, whichever method it is."""

from pathlib import Path

import pytest

from hf_causal_video.models import ALL_METHODS, METHODS
from hf_causal_video.utils.errors import CausalVideoError

CONFIGS = {name: method.config for name, method in ALL_METHODS.items()}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


@every_config
def test_clean_is_the_defaults_and_every_preset_is_whole(config: type, tmp_path: Path) -> None:
    assert config.preset("clean").to_diff_dict() == config().to_diff_dict()
    for number, name in enumerate(config.presets()):
        made = config.preset(name)
        made.save_pretrained(tmp_path / str(number))
        assert config.from_pretrained(tmp_path / str(number)).to_dict() == made.to_dict()


@every_config
def test_unknown_names_are_refused_with_those_that_are_known(config: type) -> None:
    with pytest.raises(CausalVideoError, match="clear.*clean"):
        config.preset("clear")
    with pytest.raises(CausalVideoError, match="unknown field sparkle"):
        config.preset("clean", sparkle=1)


@every_config
def test_the_constructor_refuses_a_misspelt_field_and_keeps_what_transformers_adds(config: type) -> None:
    for name in config.__annotations__:
        if len(name) > 5:
            with pytest.raises(CausalVideoError, match=rf"unknown field {name[:-2]}{name[-1]}"):
                config(**{name[:-2] + name[-1]: 1})
    added = {"architectures": ["X"], "transformers_version": "5", "auto_map": {}, "num_labels": 2, "dtype": "float32"}
    assert config(**added).architectures == ["X"]


@pytest.mark.parametrize("method", METHODS)
def test_a_run_knows_methods_and_presets_before_it_makes_data(method: str) -> None:
    from hf_causal_video.training.arguments import ModelArguments

    assert ModelArguments(method=method).preset == "clean"
    with pytest.raises(CausalVideoError, match="unknown method: found 'hal'"):
        ModelArguments(method="hal")
    with pytest.raises(CausalVideoError, match=f"unknown preset of {method}: found 'shiny'; expected one of clean"):
        ModelArguments(method=method, preset="shiny")
