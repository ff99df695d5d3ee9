"""The relation benchmark counts rightly, and its table and picture come from the csv alone."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from hf_causal_video.worlds.relation_pairs import relation_world_pairs

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmarks" / "relations_world.py"
spec = importlib.util.spec_from_file_location("relations_world", SCRIPT)
assert spec and spec.loader
bench = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bench)


def test_the_table_of_class_pairs_knows_the_classes_and_nothing_else() -> None:
    train, balanced = (
        relation_world_pairs(name, {"train_pairs": 4000, "eval_pairs": 400}) for name in ("train", "balanced")
    )
    told = bench.frequency_table(train, balanced)
    alike = (balanced.track_labels == balanced.track_labels[0]).all(1).numpy()
    assert np.allclose(told[alike], told[0]) and np.allclose(np.exp(told).sum(1), 1)
    mine = (train.track_labels == balanced.track_labels[0]).all(1)
    assert told[0].argmax() == np.bincount(train.labels[mine], minlength=20).argmax()


def test_table_and_picture_come_from_the_csv(tmp_path: Path) -> None:
    names = [bench.TABLE, bench.BASE, bench.OURS, bench.OFF]
    rows = []
    for seed in (1, 2):
        for i, name in enumerate(names):
            numbers = {metric: str(10 * i + seed) for metric in bench.METRICS}
            rows.append({"seed": str(seed), "setting": name, **numbers, "epochs": "6", "cpu_s": "0"})
    more = [{**row, "epochs": "12"} for row in rows if row["setting"] in (bench.BASE, bench.OURS)]
    table = bench.report(rows + more)
    assert "| plain classifier | 2 | 11.5 ± 0.7 |" in table, "the table is that of the stated number of epochs"
    assert f"| {bench.OURS}, 6 epochs | 10.0 ± 0.0 |" in table and f"| {bench.OURS}, 12 epochs | 10.0" in table
    again = [{**rows[0], "mAP": "99"}]
    assert len(bench.merged(rows, again)) == len(rows) and bench.merged(rows, again)[-1]["mAP"] == "99"
    bench.draw(rows, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 5000


@pytest.mark.slow
def test_a_seed_runs_through() -> None:
    rows = list(bench.run_seed(7, epochs=1, presets=["clean", "paper"]))
    assert [row["setting"] for row in rows] == [bench.TABLE, bench.OURS, bench.OFF, bench.MODELS["paper"][0][0]]
    assert all(0 <= float(row[metric]) <= 100 for row in rows for metric in bench.METRICS)
