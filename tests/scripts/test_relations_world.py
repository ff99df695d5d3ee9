"""The relation benchmark counts rightly, and its table and picture come from the csv alone."""

import importlib.util
from pathlib import Path

import pytest
import torch

from hf_causal_video.data.relation_world import RelationWorldConfig, generate_relation_world

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmarks" / "relations_world.py"
spec = importlib.util.spec_from_file_location("relations_world", SCRIPT)
assert spec and spec.loader
bench = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bench)


def test_perfect_judgements_score_a_hundred_and_constant_ones_what_chance_gives() -> None:
    splits = {name: generate_relation_world(RelationWorldConfig(), name, 400) for name in ("iid", "balanced")}
    perfect = [torch.eye(20)[splits[name].predicates] for name in ("iid", "balanced")]
    assert set(bench.measure(*perfect, splits).values()) == {100.0}
    constant = bench.measure(*[torch.eye(20)[torch.zeros(400, dtype=torch.long)]] * 2, splits)
    assert constant["mean recall"] == pytest.approx(5) and constant["head"] == pytest.approx(20)
    assert constant["tail"] == 0


def test_average_precision_by_hand() -> None:
    scores, positive = torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([True, False, True, False])
    assert bench.average_precision(scores, positive) == pytest.approx((1 + 2 / 3) / 2)


def test_table_and_picture_come_from_the_csv(tmp_path: Path) -> None:
    names = [bench.TABLE, bench.BASE, bench.OURS, bench.OFF]
    rows = []
    for seed in (1, 2):
        for i, name in enumerate(names):
            numbers = {metric: 10 * i + seed for metric in bench.METRICS}
            rows.append({"seed": seed, "setting": name, **numbers, "epochs": 1, "cpu_s": 0})
    table = bench.report(rows)
    assert "| plain classifier | 11.5 ± 0.7 |" in table and "over plain classifier | 10.0 ± 0.0 |" in table
    bench.draw(rows, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 5000


@pytest.mark.slow
def test_a_seed_runs_through() -> None:
    rows = list(bench.run_seed(7, epochs=1, presets=["clean", "paper"]))
    assert [row["setting"] for row in rows] == [bench.TABLE, bench.OURS, bench.OFF, bench.MODELS["paper"][0][0]]
    assert all(0 <= float(row[metric]) <= 100 for row in rows for metric in bench.METRICS)
