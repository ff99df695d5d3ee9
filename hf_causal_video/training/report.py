"""Report of an evaluation: the same files and the same table for questions and relations."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from hf_causal_video.models.loading import weights_digest
from hf_causal_video.training.checkpoints import METRICS_FILE
from hf_causal_video.training.tasks import Numbers, Record
from hf_causal_video.utils.files import write_whole

PREDICTIONS_FILE = "predictions.jsonl"


class Report(TypedDict, total=False):
    """Content of `metrics.json`: what was measured, on which weights, and how."""

    checkpoint: str
    weights: dict[str, str]  # hashes of the weight files
    dataset: str
    split: str
    mark: str
    metrics: dict[str, object]
    questions: int
    span_rule: str
    matmul_precision: str
    records: int
    tracks: str | None
    prior_strength: float


def make_report(
    checkpoint: str | Path,
    dataset: str,
    split: str,
    records: Sequence[Record],
    metrics: Numbers,
    output: str | Path | None,
    details: Report,
) -> Report:
    """Put the numbers of a checkpoint into a report that names its weights, and write it.

    Args:
        checkpoint: folder or Hub id.
        dataset, split: what was answered.
        records: one per question, pair or video.
        metrics: their score.
        output: folder for `metrics.json` and `predictions.jsonl`; nothing is written if None.
        details: further fields of the report.
    """
    report: Report = {
        "checkpoint": str(checkpoint),
        "weights": weights_digest(checkpoint),
        "dataset": dataset,
        "split": split,
        **details,
        "mark": "measured here",
        "metrics": dict(metrics),
    }
    if output is not None:
        folder = Path(output)
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / PREDICTIONS_FILE, "".join(json.dumps(record) + "\n" for record in records))
        write_whole(folder / METRICS_FILE, json.dumps(report, indent=2) + "\n")
    return report


def print_report(title: str, metrics: Numbers, output: Path) -> None:
    """Print the numbers of a report as a table, and where its files are."""
    print(f"{title}, measured here")
    for name, value in metrics.items():
        if isinstance(value, float):
            print(f"  {name:<28} {value:8.2f}")
    print(f"written: {output / METRICS_FILE}, {output / PREDICTIONS_FILE}")
