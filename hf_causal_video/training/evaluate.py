"""Measure a checkpoint: a table to read, JSON for programs, and one line per question to find out why."""

from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset
from transformers import AutoModel, AutoProcessor

from hf_causal_video.data import BENCHMARKS, VideoQACollator, VideoQADataset, load_questions
from hf_causal_video.evaluation import nextgqa_metrics
from hf_causal_video.features.store.reader import FeatureStore
from hf_causal_video.models.loading import open_pretrained
from hf_causal_video.models.processing_video_qa import SpanRule
from hf_causal_video.training.arguments import DataArguments
from hf_causal_video.training.questions.splits import load_split
from hf_causal_video.training.questions.task import measure, predict
from hf_causal_video.training.report import Report, make_report
from hf_causal_video.training.tasks import Record
from hf_causal_video.utils.errors import require
from hf_causal_video.utils.precision import Precision, matmul_precision


def evaluate_checkpoint(
    checkpoint: str | Path,
    dataset: str,
    split: str = "test",
    features: str | Path | None = None,
    output: str | Path | None = None,
    num_frames: int | None = None,
    world: dict[str, object] | None = None,
    span_rule: SpanRule = "kept",
    batch_size: int = 32,
    progress: bool = True,
    annotations: str | Path | None = None,
    spans: str | Path | None = None,
    device: str = "cpu",
    precision: Precision = "highest",
) -> Report:
    """Answer every question of a split and score the answers, and the seconds they rest on where those are known.

    Args:
        checkpoint: folder or Hub id of a trained model with its processor.
        dataset: "world", or whatever `data.load_questions` reads: a benchmark's name with `annotations`, a file or
            folder of your own, a Hub id.
        split: split of the dataset.
        features: feature set, folder or Hub id; refused if another backbone made it than the checkpoint was trained
            on.
        output: folder for `metrics.json` and `predictions.jsonl`; nothing is written without it.
        num_frames: take this many frames of each clip, evenly spaced; None takes all.
        world: options of the confounded world.
        span_rule: how kept frames become seconds, see `VideoQAProcessor.post_process_evidence`.
        batch_size: questions at once.
        progress: show a bar.
        annotations: folder of the official files of a benchmark of `data.BENCHMARKS`; answers of an open-ended one get
            their indices from the vocabulary of the checkpoint.
        spans: gsub json of NExT-GQA, where the dataset is a csv of NExT-QA.
        device: where the model runs, such as "cuda:1".
        precision: of float32 matrix products, see `matmul_precision`.

    Returns:
        {"metrics": {...}, "questions": n, ...}, as written to `metrics.json`.

    Raises:
        CausalVideoError: missing files, features of another backbone, or questions without features.
    """
    model, processor = (open_pretrained(auto.from_pretrained, checkpoint) for auto in (AutoModel, AutoProcessor))
    words = getattr(processor, "answer_vocabulary", None)
    data = load_data(dataset, split, features, num_frames, world, annotations, words, spans)
    data.store.check(model.config.feature_provenance)
    with matmul_precision(precision):
        rows = predict(
            model.eval().to(device),
            data,
            VideoQACollator(processor, with_labels=False),
            batch_size=batch_size,
            progress=progress,
            span_rule=span_rule,
        )
    metrics = score(rows, data.questions, dataset)
    details: Report = {"questions": len(rows), "span_rule": span_rule, "matmul_precision": precision}
    return make_report(checkpoint, dataset, split, rows, metrics, output, details)


def score(rows: Sequence[Record], questions: Dataset, dataset: str) -> dict[str, float]:
    """Metrics of a benchmark from per-question predictions and question rows, in percent."""
    metrics = measure(rows, questions)
    # own questions whose seconds are annotated are scored as NExT-GQA is; the world's truth is finer than spans
    if dataset == "nextgqa" or (dataset not in (*BENCHMARKS, "world") and all(questions["spans"])):
        best = {str(row["question_id"]): {"span": row["best_span"], "prediction": row["prediction"]} for row in rows}
        metrics = {**metrics, **nextgqa_metrics(best, list(questions), missing="error")}
    return {name: value for name, value in metrics.items() if isinstance(value, int | float)}


def load_data(
    dataset: str,
    split: str = "test",
    features: str | Path | None = None,
    num_frames: int | None = None,
    world: dict[str, object] | None = None,
    annotations: str | Path | None = None,
    vocabulary: list[str] | None = None,
    spans: str | Path | None = None,
) -> VideoQADataset:
    """Load the questions of a split with their features; arguments as of `evaluate_checkpoint`.

    `vocabulary` holds the answers that an open-ended model knows, in the order of their indices.
    """
    if dataset == "world":
        return load_split(DataArguments(dataset="world", num_frames=num_frames, world=world), split)
    what = f"evaluating on {dataset}"
    fix = "add --features FOLDER"
    require(features is not None, what, found="no features", expected="a feature set", fix=fix)
    store = FeatureStore.open(str(features))
    rows = load_questions(
        dataset,
        split,
        annotations=annotations,
        vocabulary=vocabulary,
        train_split="",
        videos=set(store.video_ids),
        spans=spans,
    )
    return VideoQADataset(rows, store, num_frames)
