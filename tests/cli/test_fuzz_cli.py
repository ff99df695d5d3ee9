"""Random command lines: usage, a message of ours or success; never a stack of frames, whatever the arguments.

No network, no video and no trained model is needed: what a verb does with good ones is shown where the verb is tested.
"""

import argparse
import importlib.util
import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_causal_video.cli import main as cli
from hf_causal_video.cli.options import add_options
from hf_causal_video.hub.convert import command as original
from hf_causal_video.training.recipe import ConfigParser, resolved_recipe
from hf_causal_video.utils.errors import CausalVideoError
from scripts.demo import run as demo

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
VERBS = list(cli.VERBS)
VALUES = ["0", "-1", "1.5", "nan", "", " ", "x", "{", "{}", "[1]", '{"seed": "x"}', "é", "--", "a/b/c", "cpu", "world",
          "uniform-0", "fps-x", "test"]  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[str]:
    """Paths of every kind that an argument may name: absent, empty, of another kind, a folder."""
    place = tmp_path_factory.mktemp("files")
    for name, content in {"empty.mp4": b"", "text.json": b"[1, 2]", "none.yaml": b"a: [", "map.json": b'{"a": 1}',
                          "rows.csv": b"video,question\n1,2\n", "net.pt": b"PK\x03\x04"}.items():  # fmt: skip
        (place / name).write_bytes(content)
    (place / "checkpoint").mkdir()
    (place / "checkpoint" / "config.json").write_text(json.dumps({"model_type": "nothing"}))
    (place / "folder").mkdir()
    return [str(path) for path in place.iterdir()] + [str(place / "absent")]


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No name is looked up in a network, and what is written by default stays in a folder of the test."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("transformers.utils.hub.is_offline_mode", lambda: True)
    monkeypatch.chdir(tmp_path)


def said(call, argv) -> tuple[int, str]:
    """Exit code and words of a command; SystemExit is argparse's own way out."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = call(argv)
        except SystemExit as left:
            code = left.code
    return (0 if code is None else code), out.getvalue() + err.getvalue()


def flags_of(parser) -> list[str]:
    return [flag for action in parser._actions for flag in action.option_strings if flag not in ("-h", "--help")]


def verb_parser(verb: str):
    parser = argparse.ArgumentParser()
    home = import_module(cli.module_of(verb))
    add_options(parser, home.Options)
    return parser


@st.composite
def lines(draw, flags: list[str], places: int, files: list[str]) -> list[str]:
    """Arguments of a command: mostly as many words as it wants, then some of its flags with values or without."""
    value = st.sampled_from(files) | st.sampled_from(VALUES)
    argv = draw(st.lists(value, min_size=max(0, places - 1), max_size=places + 1))
    for flag in draw(st.lists(st.sampled_from(flags) | st.just("--unknown"), max_size=5)):
        argv += [flag, *draw(st.lists(value, max_size=2))]
    return argv


def good_end(code: int, text: str, name: str) -> None:
    assert code in (0, 1, 2), (code, text)
    assert "Traceback" not in text
    assert not code or "usage:" in text or "Fix:" in text or "error:" in text, text


@pytest.mark.parametrize("verb", VERBS)
@given(st.data())
def test_a_verb_with_any_arguments_ends_with_usage_or_a_message(files, verb, data):
    parser = verb_parser(verb)
    places = sum(not action.option_strings for action in parser._actions)
    required = [action.option_strings[0] for action in parser._actions if action.option_strings and action.required]
    argv = data.draw(lines(flags_of(parser), places, files))
    for flag in required:
        argv += [flag, data.draw(st.sampled_from(files) | st.sampled_from(VALUES))]
    good_end(*said(cli.main, [verb, *argv]), verb)


@given(st.lists(st.sampled_from([*VERBS, *VALUES, "--version", "--help", "-x"]), max_size=3))
def test_the_command_without_a_right_verb_shows_its_usage(argv):
    if not argv or argv[0] not in VERBS:
        good_end(*said(cli.main, argv), "")


@given(st.data())
def test_the_conversion_with_any_arguments_ends_with_usage_or_a_message(files, data):
    flags = ["--method", "--variant", "--output", "--tokenizer", "--answers", "--config-overrides"]
    argv = data.draw(lines(flags, 1, files))
    words = st.sampled_from(["transtr", "igv", "next", "msvd", "x"])
    argv += [
        "--method",
        data.draw(words),
        "--variant",
        data.draw(words),
        "--output",
        data.draw(st.sampled_from(files)),
    ]
    good_end(*said(original.command, argv), "convert")


@given(st.lists(st.sampled_from(["--unknown", "--seed", "x", "-1.5", "--answer", "--output", "--sizes"]), max_size=4))
def test_the_demo_with_wrong_arguments_ends_with_usage_or_a_message(argv):
    good_end(*said(demo.main, [*argv, "--answer"]), "demo")


def script(name: str):
    spec = importlib.util.spec_from_file_location(f"fuzzed_{name}", SCRIPTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["answer_with_vlm", "train_vlm_regularizer"])
def test_a_script_with_any_arguments_ends_with_usage_or_a_message(files, name):
    module = script(name)
    parser = module.build_parser()
    places = sum(not action.option_strings for action in parser._actions)

    @given(lines(flags_of(parser), places, files))
    def run(argv):
        good_end(*said(module.main, argv), name)

    run()


PARSER = ConfigParser()
NAMES = sorted({action.dest for action in PARSER._actions} - {"help", "config"})
plain = st.sampled_from([*VALUES, "1", "2", "true", "False", "transtr_world", "epoch", "steps", "no"])


@given(st.lists(st.tuples(st.sampled_from(NAMES) | st.just("learning_rat"), st.lists(plain, max_size=2)), max_size=4))
def test_any_flags_of_training_are_arguments_or_refused(flags):
    argv = ["--config", "transtr_world", "--output_dir", "out", "--use_cpu", "True", "--report_to", "none"]
    for name, values in flags:
        argv += [f"--{name}", *values]

    def call(argv):
        try:
            model, _, training = arguments = ConfigParser().parse(argv)
        except CausalVideoError as error:
            sys.exit(f"error: {error} Fix:")
        assert model.lora_rank >= 0 and training.per_device_train_batch_size >= 1
        assert resolved_recipe(*arguments)["learning_rate"] == training.learning_rate
        return 0

    code, text = said(call, argv)
    good_end(1 if isinstance(code, str) else code, text + str(code), "train")
