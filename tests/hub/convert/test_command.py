"""Files of the original code: tensors come in, code never runs, and a refused file leaves nothing behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoProcessor

from hf_causal_video.hub.convert.command import command, convert_file, read_state_dict
from hf_causal_video.utils.errors import CausalVideoError
from hf_causal_video.worlds import world_tokenizer
from tests.hub.convert.test_conversion import OVERRIDES, released

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def tokenizer(tmp_path) -> str:
    world_tokenizer().save_pretrained(tmp_path / "tokenizer")
    return str(tmp_path / "tokenizer")


class Payload:
    """What a hostile file holds: unpickling it calls `os.mkdir`."""

    def __init__(self, folder: str):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_a_file_becomes_a_folder_that_loads_in_one_line(tmp_path, tokenizer, capsys):
    state, source = released("msvd", num_answers=3)
    torch.save(state, tmp_path / "best.pth")
    (tmp_path / "ans_word.json").write_text('["dog", "cat"]')
    arguments = [str(tmp_path / "best.pth"), "--method", "transtr", "--variant", "msvd", "--tokenizer", tokenizer]
    arguments += ["--answers", str(tmp_path / "ans_word.json"), "--config-overrides", json.dumps(OVERRIDES)]
    assert command([*arguments, "--output", str(tmp_path / "out")]) == 0
    assert str(tmp_path / "out") in capsys.readouterr().out
    model, processor = AutoModel.from_pretrained(tmp_path / "out"), AutoProcessor.from_pretrained(tmp_path / "out")
    assert processor.answer_vocabulary == ["dog", "cat"] and processor.choice_template == "official"
    for name, tensor in source.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    assert command([*arguments, "--output", str(tmp_path / "out")]) == 2
    assert "there already" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["beside the tensors", "instead of them", "as a key"])
def test_a_payload_is_refused_and_never_runs(tmp_path, place):
    state, _ = released("next")
    trap = Payload(str(tmp_path / "trapped"))
    hostile = {"beside the tensors": {**state, "extra": trap}, "instead of them": trap, "as a key": {trap: 1}}[place]
    torch.save(hostile, tmp_path / "bad.pth")
    with pytest.raises(CausalVideoError, match="bad.pth holds more than tensors.*a pickle can run code"):
        convert_file(tmp_path / "bad.pth", "transtr", "next", tmp_path / "out", config_overrides=OVERRIDES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.pth"]


BAD = {
    "a number beside": (lambda s: {**s, "epoch": 3}, r"not a flat dictionary of tensors.*\['epoch'\]"),
    "one level down": (lambda s: {"model": s}, r"not a flat dictionary of tensors.*\['model'\]"),
    "a list": (lambda s: list(s.values()), "found list of length"),
    "nothing": (lambda s: {}, "not a flat dictionary"),
    "one tensor": (lambda s: torch.ones(3), "found Tensor of length 3"),
    "a prefix": (lambda s: {f"module.{key}": value for key, value in s.items()}, "no classifier.weight"),
    "one key less": (lambda s: {k: v for k, v in s.items() if k != "fo_decoder.norm.bias"}, "missing fo_decoder.norm"),
    "one key more": (lambda s: {**s, "bank": torch.ones(1)}, "unexpected bank"),
    "NaN": (lambda s: {**s, "classifier.bias": torch.tensor([float("nan")])}, "classifier.bias in .* is not finite"),
    "sparse": (lambda s: {**s, "classifier.bias": torch.ones(1).to_sparse()}, "classifier.bias is sparse"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_match_exactly_is_refused_and_leaves_nothing(tmp_path, case):
    change, words = BAD[case]
    torch.save(change(released("next")[0]), tmp_path / "bad.pth")
    with pytest.raises(CausalVideoError, match=words):
        convert_file(tmp_path / "bad.pth", "transtr", "next", tmp_path / "out", config_overrides=OVERRIDES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.pth"]


@pytest.mark.parametrize("keep", [0, 10, 1000, -100])
def test_a_file_that_is_cut_off_is_named(tmp_path, keep):
    torch.save(released("next")[0], tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:keep])
    with pytest.raises(CausalVideoError, match="cut.pth"):
        read_state_dict(tmp_path / "cut.pth")
    for text in ("no checkpoint at all", "a: ["):  # what torch's unpickler takes for one that pops from nothing
        (tmp_path / "cut.pth").write_text(text)
        with pytest.raises(CausalVideoError, match="cut.pth"):
            read_state_dict(tmp_path / "cut.pth")


@pytest.mark.parametrize(
    ("variant", "answers", "words"),
    [
        ("next", '["dog"]', "multiple choice"),
        ("msvd", '["a", "b", "c", "d"]', "found 4 entries; expected at most 3 texts"),
        ("msvd", '{"a": 1}', "no list of texts"),
        ("msvd", "[", "cannot be read"),
    ],
)
def test_answers_that_do_not_fit_are_refused(tmp_path, tokenizer, variant, answers, words):
    torch.save(released(variant, **({"num_answers": 3} if variant == "msvd" else {}))[0], tmp_path / "best.pth")
    (tmp_path / "ans_word.json").write_text(answers)
    arguments = (tmp_path / "best.pth", "transtr", variant, tmp_path / "out")
    with pytest.raises(CausalVideoError, match=words):
        convert_file(*arguments, tokenizer, tmp_path / "ans_word.json", OVERRIDES)
    with pytest.raises(CausalVideoError, match="add --tokenizer"):
        convert_file(*arguments, None, tmp_path / "ans_word.json", OVERRIDES)
    with pytest.raises(CausalVideoError, match="no tokenizer at"):
        convert_file(*arguments, str(tmp_path / "nowhere"), None, OVERRIDES)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))


def test_the_script_teaches_and_ends_with_one_line(tmp_path):
    script = [sys.executable, str(ROOT / "scripts" / "convert_original_checkpoint.py")]
    run: dict = {"env": {**os.environ, "PYTHONPATH": str(ROOT)}, "capture_output": True, "text": True}
    teaching = subprocess.run([*script, "--help"], **run).stdout
    assert "examples:" in teaching and "transtr: next, causalvid, msvd, msrvtt" in teaching
    options = ["--method", "transtr", "--variant", "next", "--output", str(tmp_path / "out")]
    done = subprocess.run([*script, str(tmp_path / "absent.pth"), *options], **run)
    assert done.returncode == 2 and done.stderr.strip().splitlines()[-1].startswith(
        "error: missing checkpoint: found no "
    )
    assert "Traceback" not in done.stderr
