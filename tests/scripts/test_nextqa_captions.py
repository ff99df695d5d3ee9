"""The NExT-QA caption benchmark on a world of words: it selects, it resumes, and it measures what it says."""

import csv
import gzip
import json
import os
import random
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import BertModel

from hf_causal_video.data import questions_dataset, video_folds
from hf_causal_video.features.captions import TextEncoder
from hf_causal_video.worlds import tiny_text_config, world_tokenizer

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "benchmarks" / "nextqa_captions.py"
SECONDS = 9


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Videos of nine captioned seconds; each question asks which word is seen, and one second says it."""
    folder, draw = tmp_path_factory.mktemp("nextqa"), random.Random(0)
    torch.manual_seed(0)
    tokenizer, words = world_tokenizer(), [word for word in world_tokenizer().vocab if word[0] != "["]
    model = folder / "encoder"
    tokenizer.save_pretrained(model)
    BertModel(tiny_text_config(len(tokenizer), 16), add_pooling_layer=False).save_pretrained(model)
    rows, located, captions, ids = [], {}, [], range(100, 140)
    for video in ids:
        seen = draw.sample(words, SECONDS)
        captions += [f"the {word}" for word in seen]
        located[str(video)] = {"duration": SECONDS, "fps": 30.0, "location": {}}
        for qid, second in enumerate(draw.sample(range(1, SECONDS), 4)):
            choices = [seen[second], *draw.sample([word for word in words if word not in seen], 4)]
            draw.shuffle(choices)
            row = {"video": video, "question": "what is that", "answer": choices.index(seen[second]), "qid": qid}
            rows.append(row | {"type": ("CW", "TN", "DO", "CH")[qid]} | {f"a{i}": c for i, c in enumerate(choices)})
            located[str(video)]["location"][str(qid)] = [[second - 0.5, second + 0.5]]
    (folder / "nextqa").mkdir()
    (folder / "nextgqa").mkdir()
    (folder / "nextqa_captions").mkdir()
    write_csv(folder / "nextqa" / "val.csv.gz", rows)
    write_csv(folder / "nextgqa" / "val.csv.gz", [row | {"answer": row[f"a{row['answer']}"]} for row in rows])
    (folder / "nextgqa" / "gsub_val.json").write_text(json.dumps(located))
    tensors = {
        "features": TextEncoder(str(model))(captions).half(),
        "video_id": torch.tensor(ids).repeat_interleave(SECONDS),
        "second": torch.arange(SECONDS, dtype=torch.int32).repeat(len(ids)),
    }
    header = {"encoder": "tiny", "pooling": "mean"}
    save_file(tensors, folder / "nextqa_captions" / "minilm_l6_v2_caption_features.safetensors", header)
    return folder


def write_csv(path, rows):
    with gzip.open(path, "wt", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def run(world, work, *more):
    command = [sys.executable, str(SCRIPT), "--data", str(world), "--text-model", str(world / "encoder")]
    command += ["--work", str(work), "--results", str(work / "results"), "--folds", "0", "1", "--frames", "8"]
    command += ["--keep", "3", "--epochs", "2", "--hidden-size", "16", "--samples", "10", *more]
    env = {**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH") or str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=work, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout, json.loads((work / "results" / "nextqa_captions.json").read_text())


@pytest.mark.slow
def test_it_selects_where_the_answer_is_said_and_resumes(world, tmp_path):
    printed, report = run(world, tmp_path, "--variants", "selected", "uniform")
    selected, uniform = report["variants"]["selected"], report["variants"]["uniform"]
    assert selected["Acc"] > uniform["Acc"] > 20 and selected["Acc"] > 60
    assert report["wrong_video"]["selected"]["Acc"] < selected["Acc"] - 30
    assert selected["second"]["mIoP"] > uniform["second"]["mIoP"]
    assert all(max(fold["validation_accuracy"]) == fold["validation_accuracy"][fold["epoch"] - 1]
               for fold in selected["folds"])  # fmt: skip
    assert "epoch 2: validation accuracy" in printed and "selected, captions of another video" in printed
    made = report["made"]
    assert made["settings"]["seed"] == 0 and made["wall_s"] > 0 and "--keep 3" in made["command"] and made["versions"]
    with (tmp_path / "results" / "nextqa_captions.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["span"] for line in lines[:4]] == ["second", "window", "kept", "share"]
    assert [line["model"] for line in lines[:4]] == ["selected"] * 4 and lines[0]["Acc"] == f"{selected['Acc']:.1f}"

    (tmp_path / "uniform-fold1-seed0.json").unlink()  # as if the run had been killed before its last fold
    again, resumed = run(world, tmp_path, "--variants", "selected", "uniform")
    assert again.count("epoch 1: validation accuracy") == 1, "finished folds are read, not trained"
    for name in ("selected", "uniform"):
        assert resumed["variants"][name]["counts"] == report["variants"][name]["counts"]


@pytest.mark.slow
def test_a_model_that_sees_nothing_answers_by_chance_and_claims_no_span(world, tmp_path):
    _, report = run(world, tmp_path, "--variants", "question-only", "selected-plain")
    blind = report["variants"]["question-only"]
    assert blind["Acc"] < 50 and "second" not in blind and "second" in report["variants"]["selected-plain"]
    assert "wrong_video" not in report


@pytest.mark.parametrize(
    ("arguments", "code", "words"), [(["--help"], 0, "examples:"), (["--variants", "best"], 2, "--variants")]
)
def test_help_teaches_and_an_unknown_variant_is_refused(arguments, code, words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert end.value.code == code and words in "".join(capsys.readouterr())


def test_no_video_is_in_two_parts_of_a_fold(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    split_fold = runpy.run_path(str(SCRIPT))["split_fold"]
    rows = [{"question_id": f"v{i}_{j}", "video_id": f"v{i}", "question": "who"} for i in range(60) for j in range(2)]
    questions, tested = questions_dataset(rows), set()
    for fold in range(5):
        parts = [set(part["video_id"]) for part in split_fold(questions, fold)]
        assert sum(map(len, parts)) == len(set().union(*parts)) == 60 and all(parts)
        assert set(video_folds(sorted(parts[2]), 5)) == {fold}
        tested |= parts[2]
    assert len(tested) == 60


def test_a_share_is_chosen_on_the_other_folds(monkeypatch):
    """Fold 0 sees long events and fold 1 short ones; each is cut as the other fold would have liked it."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    choose_spans = runpy.run_path(str(SCRIPT.parent / "nextqa_report.py"))["choose_spans"]
    spans = {0: [20.0, 80.0], 1: [45.0, 55.0]}
    gold = [
        {"question_id": f"{fold}_{n}", "video_id": f"{fold}", "spans": [span], "duration_s": 100.0}
        for fold, span in spans.items()
        for n in range(3)
    ]
    rows = {"prediction": 0, "span_second": [50.0, 50.0]}
    by_fold = {fold: {f"{fold}_{n}": dict(rows) for n in range(3)} for fold in spans}
    answers, shares = choose_spans(by_fold, gold)
    assert (shares[0][0], shares[1][0]) == (0.1, 0.6)
    assert answers["0_1"]["span_share"] == pytest.approx((45.0, 55.0))
    assert answers["1_1"]["span_share"] == pytest.approx((20.0, 80.0))
    assert choose_spans({0: by_fold[0]}, gold)[1] == {}, "one fold has no others to choose on"
