"""The JAAD benchmark as a person starts it, on annotations written here; and the law that its table rests on."""

import csv
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.data.relations.test_jaad import box, write

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts/benchmarks/jaad.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("jaad_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_number_added_to_a_label_moves_recall_and_never_precision(benchmark):
    rng = np.random.default_rng(0)
    labels = (rng.random((60, 11)) < 0.3).astype(float)
    logits = labels + rng.normal(size=(60, 11))
    one, two = (benchmark.measure(logits + shift, labels, [8, 9, 10]) for shift in (0, np.linspace(3, -3, 11)))
    assert one["mAP"] == pytest.approx(two["mAP"]) and one["mAP_rarest5"] == pytest.approx(two["mAP_rarest5"])
    assert two["mR@4_rarest5"] < 10 < one["mR@4_rarest5"]


def test_it_teaches_and_leaves_a_table(tmp_path):
    events = [
        {"nod": "nodding"},
        {"hand_gesture": "other"},
        *({"reaction": r} for r in ("clear_path", "speed_up", "slow_down")),
    ]
    boxes = [box(frame, **(events[frame % 5] if frame < 200 else {"action": "standing"})) for frame in range(300)]
    folder = write(tmp_path / "jaad", boxes, ["stopped"] * 300)
    for split in ("val", "test"):
        (folder / f"split_ids/all_videos/{split}.txt").write_text("video_0001\n")
    run = [sys.executable, str(SCRIPT), str(folder), "--seeds", "1", "--epochs", "1", "--hidden", "8"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*run, "--output", str(tmp_path / "out.csv")], env=env, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = list(csv.DictReader((tmp_path / "out.csv").open(newline="")))
    assert len(rows) == 8 and {row["prior_eval"] for row in rows} == {"uniform", "frequency"}
    assert str(tmp_path) not in (tmp_path / "out.csv").read_text() and "torch-" in rows[0]["versions"]
    bad = subprocess.run([*run, "--seeds", "0"], env=env, capture_output=True, text=True, timeout=900)
    assert bad.returncode == 2 and "1 or more" in bad.stderr
