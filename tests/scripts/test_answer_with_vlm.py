"""`scripts/answer_with_vlm.py` from a clip to two answers, with tiny random language models; needs torchvision."""

# ruff: noqa: F811 (fixtures are imported by name)
import importlib.util
import json
from pathlib import Path

import pytest

pytest.importorskip("torchvision", reason="video processors of transformers need torchvision")

from tests.selection import tiny_vlm  # noqa: E402
from tests.selection.conftest import checkpoint, clip_file, dual_encoder  # noqa: E402, F401

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "answer_with_vlm.py"
QUESTION = "what is the star doing"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("answer_with_vlm", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=tiny_vlm.FAMILIES)
def vlm(request, tmp_path_factory):
    if request.param == "smolvlm" and importlib.util.find_spec("num2words") is None:
        pytest.skip("num2words is not installed, and SmolVLM's processor needs it")
    folder = tmp_path_factory.mktemp(request.param)
    for part in tiny_vlm.build(request.param):
        part.save_pretrained(folder)
    return folder


def test_it_answers_on_uniform_and_on_causal_frames_with_token_counts(script, vlm, checkpoint, clip_file, capsys):
    given = [str(vlm), str(clip_file), QUESTION, "--checkpoint", str(checkpoint), "--max-new-tokens", "3"]
    assert script.main([*given, "--frames", "4", "--candidates", "uniform-8", "--json"]) == 0
    uniform, causal = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (uniform["selector"], causal["selector"]) == ("uniform", "causal")
    assert uniform["selection"]["timestamps_s"] == [0.75, 1.75, 2.75, 3.75]
    assert len(causal["selection"]["timestamps_s"]) == 4 and "TranSTR" in causal["selection"]["reason"]
    assert 0 < causal["visual_tokens"] == uniform["visual_tokens"] < causal["prompt_tokens"]
    assert script.main([*given, "--tokens", str(causal["visual_tokens"]), "--selectors", "causal", "--json"]) == 0
    by_tokens = json.loads(capsys.readouterr().out)
    assert by_tokens["visual_tokens"] <= causal["visual_tokens"]
    assert len(by_tokens["selection"]["frame_indices"]) == 4


def test_bad_input_ends_with_a_message(script, vlm, checkpoint, clip_file, capsys):
    zero = ["--checkpoint", str(checkpoint), "--candidates", "uniform-8", "--frames", "0"]
    for wrong, message in (([], "--checkpoint"), (zero, "budget: found 0 frames")):
        assert script.main([str(vlm), str(clip_file), QUESTION, *wrong]) == 2
        assert message in capsys.readouterr().err
