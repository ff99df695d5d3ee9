"""`--help` of every verb: it costs no import of torch, and its examples are command lines that the verb takes."""

import argparse
import re
import shlex
import subprocess
import sys
from importlib import import_module

import pytest

from hf_causal_video.cli import evaluate, extract, main, stress
from hf_causal_video.cli.options import add_options

VERBS = list(main.VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_help_is_printed_without_torch_and_transformers(verb):
    code = f"""
import sys
from hf_causal_video.cli.main import main
try:
    main([{verb!r}, "--help"])
except SystemExit:
    print(sorted({{"torch", "transformers", "datasets"}} & set(sys.modules)))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "examples:" in run.stdout and run.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("verb", VERBS)
def test_the_examples_are_command_lines_that_the_verb_takes(verb):
    home = import_module(main.module_of(verb))
    parser = argparse.ArgumentParser()
    add_options(parser, home.Options, home.EXAMPLES)
    examples = re.findall(rf"^  hf-causal-video {verb} .*", home.EXAMPLES.replace("\\\n", " "), re.MULTILINE)
    assert examples
    for line in examples:
        parser.parse_args(shlex.split(line, comments=True)[2:])


def test_what_the_help_lists_is_what_there_is():
    from hf_causal_video.data import BENCHMARKS
    from hf_causal_video.features.encoders import LAYERS
    from hf_causal_video.stress.conditions import TESTS

    parser = argparse.ArgumentParser()
    add_options(parser, extract.Options)
    layers = next(action.choices for action in parser._actions if action.dest == "frame_layer")
    assert tuple(layers) == LAYERS
    assert tuple(BENCHMARKS) == evaluate.BENCHMARKS
    assert tuple(TESTS) == stress.TESTS


def test_ctrl_c_while_libraries_are_imported_ends_with_one_sentence(monkeypatch, capsys):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "_hide_bars_of_weights", interrupt)
    assert main.main(["answer", "model", "clip.mp4", "why"]) == 130
    assert capsys.readouterr().err == "\nhf-causal-video answer: stopped by Ctrl-C.\n"
