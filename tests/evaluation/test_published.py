"""Published numbers, recomputed from the authors' own prediction files."""

import csv
import gzip
import json
from pathlib import Path

import pytest

from hf_causal_video.evaluation import nextqa_accuracy, open_ended_accuracy


def read_csv(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def read_json(path: Path):
    with gzip.open(path, "rt", encoding="utf-8") as handle:
        return json.load(handle)


@pytest.mark.parametrize(
    ("annotations", "predictions", "published"),
    [
        ("val.csv.gz", "HGA-bert-ft-h256-val.json.gz", ("46.26", "50.74", "59.33", "49.74")),
        ("test.csv.gz", "HQGA-bert-16c20b-test.json.gz", ("49.04", "52.28", "59.43", "51.75")),
    ],
)
def test_nextqa(shared: Path, annotations: str, predictions: str, published: tuple[str, ...]) -> None:
    folder = shared / "data" / "nextqa"
    result = nextqa_accuracy(read_json(folder / "results" / predictions), read_csv(folder / annotations))
    assert tuple(f"{result[name]:.2f}" for name in ("Acc_C", "Acc_T", "Acc_D", "Acc")) == published


def test_msvd_qa(shared: Path) -> None:
    folder = shared / "data" / "msvd_qa"
    vocabulary = json.loads((folder / "ans_word.json").read_text(encoding="utf-8"))
    rows = [row | {"question_id": row["qid"]} for row in read_csv(folder / "test.csv.gz")]
    stored = read_json(folder / "results" / "HQGA-bert-8c10b-test.json.gz")
    predictions = {key: row["prediction"] - 1 for key, row in stored.items()}  # the file counts from 1, 0 is unknown
    result = open_ended_accuracy(predictions, rows, vocabulary=vocabulary)
    assert f"{result['Acc']:.2f}" == "41.15"
    words = ("what", "who", "how", "when", "where")
    assert [f"{result[word]:.2f}" for word in words] == ["30.40", "57.16", "76.22", "75.86", "32.14"]
    assert result["counts"]["out_of_vocabulary"] == sum(row["answer"] == 0 for row in stored.values())
