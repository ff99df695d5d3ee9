"""`scripts/train_vlm_regularizer.py` from clips to adapters, with tiny random language models; needs torchvision."""

# ruff: noqa: F811 (fixtures are imported by name)
import importlib.util
import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

pytest.importorskip("torchvision", reason="video processors of transformers need torchvision")

from tests.selection import tiny_vlm  # noqa: E402
from tests.selection.conftest import checkpoint, clip_file, dual_encoder  # noqa: E402, F401

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "train_vlm_regularizer.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("train_vlm_regularizer", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data(tmp_path_factory, clip_file):
    folder = tmp_path_factory.mktemp("data")
    rows = []
    for number in range(3):
        path = folder / f"{number}.mp4"
        path.write_bytes(clip_file.read_bytes())
        rows.append(
            {"video": str(path), "question": "what is the star doing", "answer": ["jumping", "spinning"][number % 2]}
        )
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "rows.jsonl"


@pytest.fixture(scope="module", params=tiny_vlm.FAMILIES)
def vlm(request, tmp_path_factory):
    if request.param == "smolvlm" and importlib.util.find_spec("num2words") is None:
        pytest.skip("num2words is not installed, and SmolVLM's processor needs it")
    folder = tmp_path_factory.mktemp(request.param)
    for part in tiny_vlm.build(request.param):
        part.save_pretrained(folder)
    return folder


def test_it_trains_adapters_and_intervenes_on_a_quarter_of_the_steps(script, vlm, data, checkpoint, tmp_path, capsys):
    given = [
        str(vlm),
        "--data",
        str(data),
        "--checkpoint",
        str(checkpoint),
        "--causal",
        "3",
        "--learning-rate",
        "1e-2",
    ]
    assert script.main([*given, "--steps", "6", "--output", str(tmp_path)]) == 0
    steps = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step")]
    assert ["consistency" in line for line in steps] == [True, False, False, False, True, False]
    weights = load_file(tmp_path / "adapter_model.safetensors")
    assert weights and all("lora" in name and "vision" not in name for name in weights)
    assert any(weight.abs().sum() > 0 for name, weight in weights.items() if "lora_B" in name)  # it has learnt


def test_it_measures_what_the_intervention_costs(script, vlm, data, checkpoint, capsys):
    assert script.main([str(vlm), "--data", str(data), "--checkpoint", str(checkpoint), "--measure", "5"]) == 0
    assert "overhead at one step in 4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--causal", "8"], "an environment is left"),
        (["--batch-size", "1"], "one of each video"),
        (["--batch-size", "4"], "3 videos"),
    ],
)
def test_bad_input_ends_with_a_message(script, vlm, data, checkpoint, capsys, flags, message):
    assert script.main([str(vlm), "--data", str(data), "--checkpoint", str(checkpoint), *flags]) == 2
    assert message in capsys.readouterr().err
