"""The features benchmark as a person starts it: it teaches, it runs, it leaves a table that says how it was made."""

import csv
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "benchmarks" / "features.py"


@pytest.mark.parametrize(
    ("arguments", "code", "words"), [(["--help"], 0, "examples:"), (["--rows", "-3"], 2, "--rows")]
)
def test_help_teaches_and_a_wrong_number_is_refused(arguments, code, words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert end.value.code == code and words in "".join(capsys.readouterr())


def test_a_quick_run_measures_every_reader_in_both_orders(tmp_path):
    target = tmp_path / "new folder" / "features.csv"
    command = [sys.executable, str(SCRIPT), "--quick", "--rows", "9", "--output", str(target)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    with target.open(newline="") as file:
        lines = list(csv.DictReader(file))
    kinds = {(line["row"], line["reader"], line["order"]) for line in lines}
    assert len(kinds) == len(lines) == 2 * 3 * 2
    for line in lines:
        assert line["rows"] == ("9" if line["row"] == "1.3 MB" else "72")
        assert float(line["rows_per_second"]) > 0 and float(line["rows_per_cpu_second"]) > 0
        assert float(line["own_mb"]) < 100, "a pass never holds a set"
        assert "--quick" in line["command"] and "pyarrow-" in line["versions"] and "cores" in line["load_average"]
        assert line["reader"] in done.stdout


def test_a_set_is_read_under_a_limit_that_bites(monkeypatch):
    """80 MB read where 20 may be allocated; the script itself fails if a greedy reader gets through."""
    command = [sys.executable, str(SCRIPT), "--limit", "20", "--rows", "60"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "sequential" in done.stdout and "shuffled" in done.stdout and "fails" in done.stdout
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--limit", "20", "--rows", "9"])
    with pytest.raises(SystemExit, match="must be twice as large"):
        runpy.run_path(str(SCRIPT), run_name="__main__")
