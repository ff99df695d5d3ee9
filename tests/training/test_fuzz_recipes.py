"""Recipes with anything in them: the run that stands there, or a message that names the key."""

import io
from contextlib import redirect_stderr, redirect_stdout

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hf_causal_video.training.recipe import ConfigParser, read_recipe, resolved_recipe
from tests.fuzzing import JUNK, damaged, mutated, refused

RECIPE = {
    "method": "transtr", "preset": "clean", "dataset": "world", "world": {"study": "selection", "seed": 3},
    "learning_rate": 1e-3, "num_train_epochs": 2, "per_device_train_batch_size": 8, "test_splits": ["iid", "ood"],
    "config_overrides": {"hidden_size": 16}, "lr_scheduler_type": "one_cycle", "bf16": False, "lora_rank": 0,
}  # fmt: skip
PARSER = ConfigParser()
KEYS = sorted({action.dest for action in PARSER._actions} - {"help", "config"})


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("recipes") / "recipe.yaml"


def parse(path):
    """What a recipe makes of a run; argparse leaves by SystemExit where a text is no number, with the flag's name."""
    words = io.StringIO()
    try:
        with redirect_stderr(words), redirect_stdout(words):
            return ConfigParser().parse(["--config", str(path), "--output_dir", "out", "--use_cpu", "True"])
    except SystemExit as left:
        assert left.code == 2 and "argument --" in words.getvalue()
        return None


def as_read(path):
    """YAML has no place for some values (lone surrogates, numbers of 400 digits), so what counts is what it reads."""
    return read_recipe(str(path))


@given(mutated(RECIPE), st.dictionaries(st.sampled_from(KEYS), JUNK, max_size=1))
def test_any_values_of_a_recipe_are_those_of_the_run_or_refused(path, recipe, more):
    content = {**recipe, **more} if isinstance(recipe, dict) else recipe
    path.write_text(yaml.safe_dump(content, allow_unicode=False), encoding="utf-8", errors="replace")
    no, arguments = refused(parse, path)
    if no or arguments is None:
        return
    model, data, training = arguments
    written = as_read(path)
    found = resolved_recipe(*arguments)
    for name in ("method", "preset", "dataset", "test_splits"):
        if name in written:
            assert getattr(model if hasattr(model, name) else data, name) == written[name], name
    for name, value in {"lora_rank": model.lora_rank, "num_train_epochs": training.num_train_epochs}.items():
        said = written.get(name, value)
        assert value == said or value == float(said), name  # a number in quotes is one, as 1e-3 in YAML has to be
    if "learning_rate" in written:
        assert found["learning_rate"] == float(written["learning_rate"])
    for name in ("world", "config_overrides"):
        assert found[name] == (written.get(name) or {})
    assert training.per_device_train_batch_size >= 1 and model.lora_rank >= 0 and data.dataset


@given(damaged(yaml.safe_dump(RECIPE).encode(), most=3) | st.binary(max_size=40))
def test_any_bytes_are_a_recipe_or_refused(path, content):
    path.write_bytes(content)
    no, values = refused(read_recipe, str(path))
    if no:
        assert str(path) in str(values) or "twice" in str(values)
    else:
        assert isinstance(values, dict) and values == yaml.safe_load(content.decode())
        refused(parse, path)
