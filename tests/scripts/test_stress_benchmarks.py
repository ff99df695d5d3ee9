"""The stress benchmarks: tables come from the csv alone, and on a world of words evidence is worth what it should."""

import csv
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scripts.test_nextqa_captions import world

__all__ = ["world"]  # fixture
ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts" / "benchmarks"


def run(script: str, *arguments: str) -> str:
    env = {**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH") or str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPTS / script), *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_tables_of_the_world_come_from_its_csv(tmp_path: Path, capsys) -> None:
    spec = importlib.util.spec_from_file_location("stress_world", SCRIPTS / "stress_world.py")
    assert spec and spec.loader
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    about = {"method": "IGV", "world": "grounding", "split": "ood", "evidence": "own", "seed": 0, "questions": 9,
             "evidence_share": 31.2}  # fmt: skip
    figures = {"whole": 90.0, "evidence_only": 88.5, "evidence_effect": 60.0, "control_effect": -20.0,
               "evidence_over_control": 80.0}  # fmt: skip
    rows = [about | {"figure": name, "value": value, "low": value - 3, "high": value + 2}
            for name, value in figures.items()]  # fmt: skip
    bench.write_rows(rows, tmp_path / "a.csv")
    bench.main(["--report", "--results", str(tmp_path / "a.csv")])
    printed = capsys.readouterr().out
    assert "| IGV, grounding | ood | own, 31 % | 90.0 |  |  | 88.5 |" in printed
    assert "| +60.0 (+57.0, +62.0) | -20.0 (-23.0, -18.0) | +80.0 (+77.0, +82.0) |" in printed


@pytest.mark.slow
def test_in_a_world_of_words_the_kept_seconds_carry_the_answer(world, tmp_path: Path) -> None:
    given = ["--data", str(world), "--text-model", str(world / "encoder"), "--work", str(tmp_path), "--frames", "9",
             "--keep", "3", "--epochs", "2", "--hidden-size", "16", "--samples", "10",
             "--results", str(tmp_path / "a.csv")]  # fmt: skip
    printed = run("stress_captions.py", *given)
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = {(row["questions"], row["evidence"], row["figure"]): row for row in csv.DictReader(file)}
    value = {key: float(row["value"]) for key, row in rows.items()}
    whole, only = (value["all", "own", name] for name in ("whole", "evidence_only"))
    assert whole == only > 45, "it answers from what it keeps, far above a guess of 20; 20 questions, so 5 points each"
    assert value["all", "own", "evidence_effect"] > 20 > value["all", "own", "control_effect"]
    assert value["grounded", "truth", "evidence_only"] > value["grounded", "truth", "evidence_removed"] + 20
    assert "evidence over control" in printed and (tmp_path / "stress-all-own-fold0-seed0.png").stat().st_size > 9000
    assert "training" not in run("stress_captions.py", *given), "the second run reads what the first stored"
