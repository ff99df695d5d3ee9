"""`hf-causal-video compare` over folders as training and evaluation write them."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from hf_causal_video.cli.main import main


def records(right: list[bool], labels: list[int] | None = None) -> list[dict]:
    labels = [0] * len(right) if labels is None else labels
    return [
        {
            "question_id": f"v{number // 2}_{number % 2}",
            "video_id": f"v{number // 2}",
            "label": label,
            "label_text": "yes",
            "prediction": label if correct else label + 1,
        }
        for number, (correct, label) in enumerate(zip(right, labels, strict=True))
    ]


def write_lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def training_run(folder: Path, splits: dict[str, list[dict]], accuracy: list[float], **recipe: object) -> str:
    for split, rows in splits.items():
        write_lines(folder / "predictions" / f"{split}.jsonl", rows)
    log = [{"step": step, "loss": 2.0 / step, "loss_answer": 1.0} for step in range(1, 21)]
    log += [{"step": 10 * (place + 1), "eval_accuracy": value} for place, value in enumerate(accuracy)]
    write_lines(folder / "training_log.jsonl", log)
    values = {"method": "igv", "test_splits": ["iid", "ood"], "validation_split": "validation", **recipe}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    return str(folder)


@pytest.fixture
def runs(tmp_path: Path) -> tuple[str, str]:
    half = [number % 2 == 0 for number in range(40)]
    most = [number % 4 != 3 for number in range(40)]
    splits = [{"validation": records(half), "iid": records(rows), "ood": records(half)} for rows in (half, most)]
    first = training_run(tmp_path / "a", splits[0], [40.0, 50.0], learning_rate=0.001, world={"seed": 1, "x": 2})
    second = training_run(tmp_path / "b", splits[1], [60.0, 75.0], learning_rate=0.002, world={"seed": 1, "x": 3})
    return first, second


def test_the_table_has_the_difference_and_what_was_set_differently(runs: tuple[str, str], capsys):
    assert main(["compare", *runs]) == 0
    text = capsys.readouterr().out
    assert "2 runs on 40 questions of 20 videos, split iid" in text
    line = next(line for line in text.splitlines() if line.strip().startswith(runs[1]))
    assert "75.0" in line and "+25.0" in line and "*" in line
    assert "learning_rate 0.002" in line and "'x': 3" in line and "seed" not in line


def test_json_holds_the_same_and_a_split_can_be_named(runs: tuple[str, str], capsys):
    assert main(["compare", *runs, "--split", "ood", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["split"] == "ood" and report["baseline"] == runs[0] and report["mark"] == "measured here"
    assert report["runs"][0]["difference"] is None
    assert report["runs"][1]["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_folders_of_evaluate_and_training_compare(runs: tuple[str, str], tmp_path: Path, capsys):
    folder = tmp_path / "evaluated"
    write_lines(folder / "predictions.jsonl", records([True] * 40))
    (folder / "metrics.json").write_text(json.dumps({"split": "ood"}))
    assert main(["compare", runs[0], str(folder), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["split"] == "ood" and report["runs"][1]["difference"]["value"] == 50.0


def test_the_picture_has_a_curve_per_run_in_its_colour(runs: tuple[str, str], tmp_path: Path, capsys):
    from hf_causal_video.viewer.curves import COLOURS

    path = tmp_path / "new" / "curves.png"
    assert main(["compare", *runs, "--png", str(path)]) == 0
    before = path.read_bytes()
    (tmp_path / "no.ttf").write_text("no font")
    assert main(["compare", *runs, "--png", str(path), "--font", str(tmp_path / "no.ttf")]) == 2
    assert path.read_bytes() == before, "an invalid font is refused before anything is drawn"
    assert f"written: {path}" in capsys.readouterr().out
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3).astype(int)
    for colour in COLOURS[:2]:
        wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
        assert (np.abs(pixels - wanted).max(axis=1) < 30).sum() > 200
    third = [int(COLOURS[2][place : place + 2], 16) for place in (1, 3, 5)]
    assert (np.abs(pixels - third).max(axis=1) < 30).sum() == 0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("one", "nothing to compare"),
        ("twice", "named twice"),
        ("gone", "missing run"),
        ("empty", "no predictions"),
        ("split", "no predictions on split"),
        ("questions", "different questions"),
        ("answers", "different questions"),
        ("old", "label"),
        ("unknown", "no known answers"),
        ("broken", "cannot be read"),
    ],
)
def test_what_cannot_be_compared_is_named(runs: tuple[str, str], tmp_path: Path, change: str, named: str, capsys):
    path = Path(runs[1]) / "predictions" / "iid.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    argv = list(runs)
    if change == "one":
        argv = argv[:1]
    elif change == "twice":
        argv = [argv[0], argv[0] + "/"]
    elif change == "gone":
        argv = [argv[0], str(tmp_path / "nothing")]
    elif change == "empty":
        (tmp_path / "nothing").mkdir()
        argv = [argv[0], str(tmp_path / "nothing")]
    elif change == "split":
        argv += ["--split", "long"]
    elif change == "questions":
        write_lines(path, rows[:-1])
    elif change == "answers":
        write_lines(path, [rows[0] | {"label_text": "no"}, *rows[1:]])
    elif change == "old":
        write_lines(path, [{"question_id": row["question_id"], "prediction": 0} for row in rows])
    elif change == "unknown":
        write_lines(path, [row | {"label": -1} for row in rows])
    elif change == "broken":
        path.write_text('{"question_id": ')
    assert main(["compare", *argv]) == 2
    assert named in capsys.readouterr().err
