"""The comparison goes on where it stopped, keeps one budget per csv, and each method sees what it may see."""

import csv
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "scripts" / "benchmarks"
COLUMNS = "setting method seed iid ood follows_environment frame_iou evidence_effect cpu_seconds".split()


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import comparison
    finally:
        sys.path.remove(str(BENCHMARKS))
    return comparison


def small(script, tmp_path, *more: str) -> Path:
    output = tmp_path / "c.csv"
    script.main(["--seeds", "3", "--clips", "60", "--epochs", "1", "--output", str(output), *more])
    return output


def test_every_method_fills_its_row_in_every_setting(script, tmp_path, capsys):
    output = small(script, tmp_path, "--settings", "noisy", "question", "both", "--methods", *script.METHODS)
    rows = list(csv.DictReader(output.open(newline="")))
    assert list(rows[0]) == COLUMNS and len(rows) == 3 * len(script.METHODS)
    assert {row["method"] for row in rows} == set(script.METHODS)
    for row in rows:
        assert 0 <= float(row["iid"]) <= 100 and 0 <= float(row["ood"]) <= 100 and float(row["cpu_seconds"]) >= 0
        assert (row["follows_environment"] == "") == (row["setting"] == "question")
        shows = row["method"] not in ("strong", "early_stopping", "weak")
        assert (row["frame_iou"] != "") == (row["evidence_effect"] != "") == shows
        if row["method"] == "oracle":
            assert float(row["frame_iou"]) == 100
    assert "| noisy | *best by the cause, exact* | | 80.0 | 80.0 |" in capsys.readouterr().out
    assert output.with_suffix(".png").stat().st_size > 1000


def test_a_finished_row_is_not_run_again_and_another_budget_is_refused(script, tmp_path, monkeypatch):
    output = small(script, tmp_path, "--settings", "noisy", "--methods", "strong")
    monkeypatch.setattr(script, "fit", lambda *_, **__: pytest.fail("trained again"))
    before = output.read_bytes()
    small(script, tmp_path, "--settings", "noisy", "--methods", "strong")
    assert output.read_bytes() == before
    with pytest.raises(SystemExit, match="another budget"):
        script.main(["--seeds", "3", "--clips", "61", "--epochs", "1", "--output", str(output)])


def test_both_ends_of_a_backbone_run_are_its_last_and_its_best_epoch(script):
    splits = script.load_splits("noisy", 5, script.Size(200, 6))
    trained = {name: model for name, model, _ in script.train(["strong"], splits, 0, 6)}
    torch.manual_seed(0)
    alone = script.strong(splits, 6)
    assert all(torch.equal(a, b) for a, b in zip(trained["strong"].parameters(), alone.parameters(), strict=True))
    reached = {}
    for name, model, _ in script.train(["strong", "early_stopping"], splits, 0, 6):
        reached[name] = script.percent(script.answers_of(model, splits["validation"]) == splits["validation"].answer)
    assert reached["early_stopping"] >= reached["strong"]


def test_views_hide_frames_and_the_effect_counts_shown_frames_only(script):
    splits = script.load_splits("everywhere", 5, script.Size(80, 1))
    assert torch.equal(script.only_causal(splits["iid"]).frame_mask, splits["iid"].causal)
    assert (script.most_similar(splits["iid"]).frame_mask.sum(1) == 4).all()

    class Reader(torch.nn.Module):
        """Answers rightly if, and only if, every true frame can be seen."""

        def forward(self, frame_mask, labels, **inputs):
            seen = (frame_mask | ~splits["iid"].causal).all(1)
            logits = torch.nn.functional.one_hot(splits["iid"].answer * seen, 24)
            return type("Output", (), {"logits": logits, "causal_mask": frame_mask})

    splits["iid"].answer.clamp_(min=1)
    assert script.evidence_effect(Reader(), splits["iid"], splits["iid"].causal) == 100
    assert script.evidence_effect(Reader(), splits["iid"], ~splits["iid"].causal) == -100
    assert script.evidence_effect(Reader(), splits["iid"], torch.ones_like(splits["iid"].causal)) == 0
