"""The grounding benchmark counts rightly, goes on where it stopped, and its table comes from the csv alone."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmarks" / "grounding_world.py"
spec = importlib.util.spec_from_file_location("grounding_world", SCRIPT)
assert spec and spec.loader
bench = importlib.util.module_from_spec(spec)
sys.modules["grounding_world"] = bench
spec.loader.exec_module(bench)


def test_overlap_by_hand() -> None:
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]], dtype=torch.bool)
    truth = torch.tensor([[0, 1, 1, 0], [1, 1, 1, 1]], dtype=torch.bool)
    assert bench.frame_iou(mask, truth) == pytest.approx((1 / 3 + 1) / 2)
    assert bench.percent(mask) == 75


def test_ood_clips_never_agree_and_iid_clips_often_do() -> None:
    iid, ood = (bench.load(split, 300, bench.world_of(bench.backbone(), 5), 5) for split in ("iid", "ood"))
    assert not (ood.environment_answer == ood.answer).any()
    assert 0.6 < (iid.environment_answer == iid.answer).double().mean() < 0.85
    assert iid.frames.shape == (300, 16, 64) and iid.causal.sum(1).min() >= 3


def test_a_finished_run_is_not_repeated_and_the_table_is_of_the_csv(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(bench, "splits", lambda _: [(name, 40) for name in ("train", "validation", "iid", "ood")])
    settings = [bench.backbone(epochs=1), bench.igv("IGV", epochs=1)]
    rows = bench.run(settings, [3], tmp_path / "r.csv")
    monkeypatch.setattr(bench, "train", lambda *given: pytest.fail("trained again"))
    again = bench.run(settings, [3], tmp_path / "r.csv")
    assert [row["setting"] for row in again] == ["backbone", "IGV"] and len(rows) == 2
    table = bench.table(bench.in_order(again))
    assert f"| IGV | 1 | {rows[1]['iid']:.1f} |" in table and "| backbone | 1 |" in table and "| – | – |" in table
    bench.draw(bench.in_order(again), tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 1000


def test_words_are_what_is_seen_and_a_backbone_stands_by_itself() -> None:
    data = bench.load("train", 40, bench.world_of(bench.backbone(unseen_pairs=2), 5), 5)
    words = bench.word_vectors(bench.WorldConfig.grounding(world_seed=5, unseen_pairs=2))
    assert data.words.shape[2] == 64 and torch.allclose(words.norm(dim=1), torch.ones(len(words)))
    setting = bench.matched("matched", epochs=1)
    alone = bench.train(setting, data, 0)
    answers, mask = bench.ask(alone, data)
    assert mask is None and answers.shape == (40,) and not hasattr(alone, "indicator")
