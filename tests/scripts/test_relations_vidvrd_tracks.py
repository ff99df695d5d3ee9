"""The benchmark on true tracks, on a folder written here: its protocol, its rows, its table; and the real data."""

import csv
import gzip
import hashlib
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/benchmarks/relations_vidvrd_tracks.py"
OBJECTS, PREDICATES = ["cat", "dog"], ["chase", "left", "right"]


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("relations_vidvrd_tracks", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def fold(name: str) -> int:
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Six videos of three folds: a dog stands left or right of a cat; in the last a second dog too."""
    root = tmp_path_factory.mktemp("tracks")
    names = [name for name in (f"v{number}" for number in range(40)) if fold(name) in (0, 1, 2)]
    chosen = [name for wanted in (0, 1, 2) for name in [one for one in names if fold(one) == wanted][:2]]
    tracks, triplets = {}, {}
    for number, name in enumerate(chosen):
        left, dogs = number % 2, 1 + (number == 5)
        places = [(10 + 5 * dog if left else 70 + 5 * dog) for dog in range(dogs)]
        rows = [("dog", x) for x in places] + [("cat", 45)]
        tracks[name] = [
            {"category": kind, "tid": tid, "trajectory": [[str(f), [x, 10, x + 10, 20]] for f in range(20)]}
            for tid, (kind, x) in enumerate(rows)
        ]
        said = [["dog", "left" if left else "right", "cat"], ["cat", "right" if left else "left", "dog"]]
        triplets[name] = {"num_frames": 20, "width": 100, "height": 50, "triplets": said}
    for name, content in (("true_tracks", tracks), ("triplets", triplets)):
        (root / f"{name}.json.gz").write_bytes(gzip.compress(json.dumps(content).encode()))
    (root / "id2object.json").write_text(json.dumps(OBJECTS))
    (root / "id2predicate.json").write_text(json.dumps(PREDICATES))
    counts = [
        ("dog", "chase", "cat", 30),
        ("dog", "left", "cat", 9),
        ("dog", "right", "cat", 6),
        ("cat", "left", "dog", 5),
    ]
    lines = ["subject,predicate,object,count", *(",".join(map(str, row)) for row in counts)]
    (root / "train_triplet_counts.csv").write_text("\n".join(lines) + "\n")
    return root


def test_pairs_are_those_of_annotated_classes_and_unsure_labels_are_unknown(benchmark, folder):
    data = benchmark.read(folder)
    assert len(data.videos) == 6 and len(data.boxes) == 5 * 2 + 4 and data.boxes.shape[1:] == (2, 16, 4)
    assert data.counts[1, 0].tolist() == [30, 9, 6]
    alone = torch.bincount(data.bag)[data.bag] == 1
    assert (~alone).sum() == 4, "two dogs and a cat, both ways"
    partial = data.partial()
    assert torch.equal(partial[alone], data.labels[alone])
    assert ((partial == -100) == ((data.labels == 1) & ~alone.unsqueeze(1))).all()


def test_the_label_of_a_bag_judges_its_best_pair(benchmark):
    logits = torch.tensor([[5.0, -5.0], [-5.0, -5.0], [-5.0, 0.0]], requires_grad=True)
    labels, bag = torch.tensor([[1.0, 0], [1, 0], [0, 1]]), torch.tensor([7, 7, 3])
    benchmark.bag_loss(logits, labels, bag).backward()
    assert logits.grad[1].tolist()[0] == 0 and logits.grad[0, 0] < 0 and logits.grad[2, 1] < 0


def test_it_writes_a_row_per_model_strength_and_seed(benchmark, folder, tmp_path, monkeypatch, capsys):
    flags = ["x", str(folder), "--seeds", "0", "--epochs", "2", "--hidden", "8", "--output", str(tmp_path / "o.csv")]
    monkeypatch.setattr("sys.argv", flags)
    benchmark.main()
    rows = list(csv.DictReader((tmp_path / "o.csv").open(newline="")))
    strengths = sum(len(setting.strengths) for setting in benchmark.SETTINGS.values())
    models = {row["model"] for row in rows}
    assert len(rows) == 4 + strengths and models == {*benchmark.STATISTICS, *benchmark.SETTINGS}
    statistics = next(row for row in rows if row["model"] == "triplet statistics")
    assert float(statistics["P@1"]) == 0, "chase is what is frequent, and it is never true here"
    assert float(statistics["R@50"]) == 100
    assert "| triplet statistics |" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", [*flags, "--report"])
    benchmark.main()
    assert "| ivrd | chosen |" in capsys.readouterr().out


def test_hidden_motion_is_hidden(benchmark, folder):
    data = benchmark.read(folder)
    index = torch.arange(4)
    real, shuffled, none = (
        benchmark.shown(benchmark.Setting("clean", {}, (1.0,), motion=motion), data, index, 0)["track_boxes"]
        for motion in ("real", "shuffled", "none")
    )
    assert torch.equal(real, data.boxes[index]) and not torch.equal(real, shuffled) and none.unique().numel() == 2


def test_the_statistics_of_the_real_data_are_those_of_the_protocol(benchmark, shared):
    data = benchmark.read(shared / "data" / "vidvrd_tracks")
    assert len(data.videos) == 114 and np.unique(data.folds).tolist() == [0, 1, 2]
    rows = {row["model"]: row for row in benchmark.statistics_rows(data, [0, 1, 2])}
    counts = rows["triplet statistics"]
    assert counts["P@1"] == pytest.approx(74.6, abs=0.1) and counts["R@50"] == pytest.approx(79.7, abs=0.1)
