"""The speed benchmark runs, teaches its use, and its original computes what our model does."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "benchmarks" / "speed.py"


def run(*arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


def test_help_teaches() -> None:
    shown = run("--help")
    for words in ("examples:", "--quick", "ratio", "reference.py", "floor"):
        assert words in shown


@pytest.mark.slow
def test_every_case_runs_and_is_written(tmp_path: Path) -> None:
    """Each case compares our numbers with the original's before it times them."""
    shown = run("--quick", "--out", str(tmp_path / "speed.csv"))
    with (tmp_path / "speed.csv").open(encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["case"] for row in rows if row["case"] not in shown] == []
    assert {row["what"] for row in rows} == {"ceiling", "time", "memory", "growth"}
    assert all(float(row["original"]) > 0 and float(row["ours"]) > 0 for row in rows)
    assert not list(tmp_path.glob("*.partial"))


def test_published_results_name_every_case() -> None:
    with (SCRIPT.parent / "results" / "speed.csv").open(encoding="utf-8") as handle:
        cases = " ".join(row["case"] for row in csv.DictReader(handle))
    for name in ("top-K", "training step, fp32", "training step, bf16", "prediction, fp32", "own part"):
        assert name in cases
