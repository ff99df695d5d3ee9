"""The speed benchmarks run, teach their use, and their originals compute what our models and the published ones do."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "benchmarks" / "speed.py"


def run(*arguments: str, script: Path = SCRIPT) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


@pytest.mark.parametrize("name", ["speed.py", "speed_grounding.py"])
def test_help_teaches(name: str) -> None:
    shown = run("--help", script=SCRIPT.with_name(name))
    for words in ("examples:", "--quick", "--tiny", "ratio", "reference", "original"):
        assert words in shown


def published(shared: Path, name: str) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    parts: dict[str, dict[str, Tensor]] = {"state_dict": {}, "input": {}, "output": {}}
    path = shared / "parity" / name
    for key, tensor in load_file(path.with_suffix(".safetensors")).items():
        group, rest = key.split(".", 1)
        parts[group][rest] = tensor
    return parts, json.loads(path.with_suffix(".json").read_text())["config"]


def same_gradients(model: torch.nn.Module, stored: dict[str, Tensor]) -> None:
    """Within the tolerance of the fixtures, which also covers gradients that are zero but for rounding."""
    wanted = {name[5:]: tensor for name, tensor in stored.items() if name.startswith("grad.")}
    largest = max(float(tensor.abs().max()) for tensor in wanted.values())
    found = {name: parameter.grad for name, parameter in model.named_parameters() if name in wanted}
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        bound = 5e-3 * float(tensor.abs().max()) + 1e-6 * largest
        torch.testing.assert_close(found[name], tensor, atol=bound, rtol=0, msg=lambda text, name=name: name + text)


@pytest.mark.parametrize("name", ["igv_hga_oe", "igv_hga_oe_fallback"])
def test_the_original_igv_computes_the_published_numbers(shared: Path, monkeypatch, name: str) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    from reference_grounding import ReferenceIGV, Shape

    (parts, config), block = published(shared, name), ("mm_dim", "chunks", "rank")
    made = config["constructor"]
    shape = Shape(
        config["video_dim"], config["text_dim"], made["word_dim"], made["hidden_dim"], config["num_classes"], "GRU",
        0.0, made["tau"], tuple(config["block"][size] for size in block),
    )  # fmt: skip
    model, given, stored = ReferenceIGV(shape), parts["input"], parts["output"]
    model.load_state_dict(parts["state_dict"])
    names = ("video", "question", "question_length", "bank", "video_index", "gumbel_noise", "bank_index")
    logits = model(*(given[key] for key in names))
    for branch, found in zip(("causal", "intervened", "complement"), logits, strict=True):
        torch.testing.assert_close(found, stored[f"logits_{branch}"], atol=2e-5, rtol=2e-5)
    loss = model.loss(logits, given["answer"])
    torch.testing.assert_close(loss, stored["loss_total"], atol=0, rtol=1e-5)
    loss.backward()
    same_gradients(model, stored)


@pytest.mark.parametrize("name", ["eigv_hga_mc_eval", "eigv_hga_mc_step"])
def test_the_original_eigv_computes_the_published_numbers(shared: Path, monkeypatch, name: str) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    from reference_grounding import ReferenceEIGV, Shape

    (parts, config), block = published(shared, name), ("mm_dim", "chunks", "rank")
    made = config["constructor"]
    shape = Shape(
        config["video_dim"], config["text_dim"], made["word_dim"], made["module_dim"], None, "LSTM", 0.0, 0.9,
        tuple(config["block"][size] for size in block),
    )  # fmt: skip
    model, given, stored = ReferenceEIGV(shape), parts["input"], parts["output"]
    model.load_state_dict(parts["state_dict"])
    names = ["video", "question", "question_length"]
    if name.endswith("eval"):
        found = model(*(given[key] for key in names))
        torch.testing.assert_close(found, stored["logits"], atol=2e-5, rtol=2e-5)
        return
    loss = model.step(*(given[key] for key in [*names, "answer", "bank", "video_index"]), draws=given)
    torch.testing.assert_close(loss.float(), stored["loss_total"], atol=0, rtol=1e-5)
    loss.backward()
    same_gradients(model, stored)


@pytest.mark.slow
def test_grounding_and_growth_run_and_are_written(tmp_path: Path) -> None:
    """Answers and losses are compared before anything is timed."""
    run("--tiny", "--out", str(tmp_path / "grounding.csv"), script=SCRIPT.with_name("speed_grounding.py"))
    with (tmp_path / "grounding.csv").open(encoding="utf-8") as handle:
        cases = {row["case"] for row in csv.DictReader(handle)}
    assert {"IGV prediction", "IGV training step", "EIGV training step", "EIGV training step, clean"} <= cases
    pytest.importorskip("matplotlib")
    run("--tiny", "--growth", "--out", str(tmp_path / "growth.csv"))
    with (tmp_path / "growth.csv").open(encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert {row["axis"] for row in rows} == {"frames", "objects", "questions"}
    assert {row["side"] for row in rows} == {"cached", "new", "original"}
    assert (tmp_path / "growth.png").stat().st_size > 1000


@pytest.mark.slow
def test_every_case_runs_and_is_written(tmp_path: Path) -> None:
    """Each case compares our numbers with the original's before it times them."""
    shown = run("--tiny", "--out", str(tmp_path / "speed.csv"))
    with (tmp_path / "speed.csv").open(encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["case"] for row in rows if row["case"] not in shown] == []
    assert {row["what"] for row in rows} == {"ceiling", "time", "memory", "growth"}
    assert all(float(row["original"]) > 0 and float(row["ours"]) > 0 for row in rows)
    assert not list(tmp_path.glob("*.partial"))


def test_a_ratio_that_moved_by_more_than_its_spread_is_named(tmp_path: Path, monkeypatch) -> None:
    """Values of one round are paired, so a load that slows both sides moves no ratio."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    from measure import moved, row, write

    calm = row("calm", "time", [2.0, 4.0, 2.2], [1.0, 2.0, 1.1], 1, 2)
    assert calm.ratio == pytest.approx(2.0) and calm.spread == pytest.approx(0.0) and calm.against == "reference.py"
    noisy = row("noisy", "time", [2.0, 3.0, 4.0], [1.0, 1.0, 1.0], 1, 2)
    curve = row("curve", "growth", [2.0], [1.0], 4, 2)
    write([calm, noisy, curve], tmp_path / "before.csv")
    assert noisy.spread == pytest.approx(1 / 6) and moved([calm, noisy, curve], tmp_path / "before.csv") == []
    now = [
        row("calm", "time", [1.8], [1.0], 1, 2),
        row("noisy", "time", [2.6], [1.0], 1, 2),
        row("curve", "growth", [3.0], [1.0], 4, 2),
        row("other", "memory", [1.0], [1.0], 1, 2),
    ]
    calmer, growing, new = moved(now, tmp_path / "before.csv")
    assert calmer == "calm, time: 2.00 to 1.80, slower by more than 5%"
    assert growing == "curve, growth: 2.00 to 3.00, worse by more than 5%" and new.startswith(
        "other, memory: 1.00, not"
    )


@pytest.mark.slow
def test_quick_compares_with_the_committed_numbers(monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    import speed

    before = speed.RESULTS.read_bytes()
    speed.main(["--quick", "--tiny", "--cases", "topk"])
    shown = capsys.readouterr().out
    assert "against" in shown or "top-K, diagonal gradient, time: " in shown
    assert "not the authors' code" in shown and speed.RESULTS.read_bytes() == before


def test_published_results_name_every_case() -> None:
    with (SCRIPT.parent / "results" / "speed.csv").open(encoding="utf-8") as handle:
        cases = " ".join(row["case"] for row in csv.DictReader(handle))
    for name in ("top-K", "training step, fp32", "training step, bf16", "prediction, fp32", "own part"):
        assert name in cases
