"""Measure a relation checkpoint: detection, tagging and mean recall of videos, or the predicates of given pairs."""

from pathlib import Path

from transformers import AutoConfig, AutoModel, AutoProcessor

from hf_causal_video.data.relations.collator import RelationCollator
from hf_causal_video.data.relations.rows import training_counts
from hf_causal_video.models import RELATION_METHODS, VideoRelationProcessor
from hf_causal_video.models.ivrd.modeling_ivrd import IVRDForVideoRelationDetection
from hf_causal_video.models.loading import open_pretrained
from hf_causal_video.training.arguments import DataArguments
from hf_causal_video.training.relations.predict import measure_pairs, measure_videos, predict_pairs, predict_videos
from hf_causal_video.training.relations.splits import load_pairs, read_rows, segments_of
from hf_causal_video.training.report import Report, make_report
from hf_causal_video.utils.errors import require

DATASETS = ("world", "jaad", "vidvrd", "vidor")


def is_relation_model(checkpoint: str | Path) -> bool:
    """Return True for a checkpoint of a relation model."""
    return open_pretrained(AutoConfig.from_pretrained, checkpoint).model_type in RELATION_METHODS


def evaluate_relations(
    checkpoint: str | Path,
    dataset: str,
    split: str = "test",
    annotations: str | Path | None = None,
    tracks: str | Path | None = None,
    training_annotations: str | Path | None = None,
    output: str | Path | None = None,
    world: dict[str, object] | None = None,
    prior: str | float | None = None,
    batch_size: int = 256,
    progress: bool = True,
    device: str = "cpu",
) -> Report:
    """Ask a relation checkpoint about a split, and score what it says.

    Args:
        checkpoint: folder or Hub id of a trained model with its processor.
        dataset: "world", "jaad", "vidvrd" or "vidor".
        split: of the world or JAAD; else only a name in the report.
        annotations: VidVRD and VidOR: folder, json or parquet; JAAD: its archive.
        tracks: track set or json of trajectories; None takes the annotated tracks, which flatters detection.
        training_annotations: adds thirds and zero-shot.
        output: folder for `metrics.json` and `predictions.jsonl`; nothing is written without it.
        world: options of the relation world.
        prior: P(z) at inference in place of the checkpoint's: "uniform", "frequency", or the share of the observed
            prior that is left, from 0 to 1.
        batch_size: pairs at once.
        progress: show a bar.
        device: where the model runs, such as "cuda:1".

    Returns:
        {"metrics": {...} in percent, "records": n, ...}, as written to `metrics.json`.

    Raises:
        CausalVideoError: an unknown dataset or prior, missing files, or data that the model does not fit.
    """
    require(
        dataset in DATASETS and (dataset == "world" or annotations is not None),
        f"evaluating relations on {dataset}",
        found=f"annotations {annotations}",
        expected=f"one of {', '.join(DATASETS)}, with annotations except for the world",
        fix="add --annotations PATH",
    )
    strength = None if prior is None else _strength(prior)
    model: IVRDForVideoRelationDetection = open_pretrained(AutoModel.from_pretrained, checkpoint).eval().to(device)
    processor: VideoRelationProcessor = open_pretrained(AutoProcessor.from_pretrained, checkpoint)
    if strength is not None:
        model.config.prior_eval = "uniform"
        model.config.prior_eval_strength = strength
    if dataset in ("world", "jaad"):
        place = "world" if dataset == "world" else {split: str(annotations)}
        reader = "annotations" if dataset == "world" else "jaad"
        options = {"reader": reader, "segment_frames": processor.segment_frames}
        pairs = load_pairs(DataArguments(dataset=place, world=world, relations=options), split)
        _check_fit(model, processor, pairs.predicates, pairs.feature_dim)
        records = predict_pairs(model, pairs, RelationCollator(processor), batch_size, progress)
        metrics = measure_pairs(records, pairs)
    else:
        rows = read_rows(str(annotations))
        options = {
            "segment_frames": processor.segment_frames,
            "segment_stride": processor.segment_stride,
            "appearance": model.config.feature_dim > 0,
        }
        arguments = DataArguments(
            dataset={split: str(annotations)}, features=None if tracks is None else str(tracks), relations=options
        )
        videos = segments_of(arguments, split, rows, processor.object_classes, processor.predicates)
        _check_fit(model, processor, processor.predicates, videos.feature_dim)
        records = predict_videos(model, processor, videos, progress)
        seen = (None, None) if training_annotations is None else training_counts(read_rows(str(training_annotations)))
        metrics = measure_videos(records, rows, *seen)
    tracked = None if tracks is None else str(tracks)
    if tracks is None and dataset not in ("world", "jaad"):
        tracked = "annotated"
    details: Report = {"records": len(records), "tracks": tracked, "prior_strength": model.config.inference_strength}
    return make_report(checkpoint, dataset, split, records, metrics, output, details)


def _strength(prior: str | float) -> float:
    """Share of the observed prior that a user asks for."""
    try:
        strength = {"uniform": 0.0, "frequency": 1.0}.get(str(prior)) if isinstance(prior, str) else None
        strength = float(prior) if strength is None else strength
    except (TypeError, ValueError):
        strength = -1.0
    require(0 <= strength <= 1, "prior", found=prior, expected="uniform, frequency, or a number from 0 to 1")
    return strength


def _check_fit(
    model: IVRDForVideoRelationDetection, processor: VideoRelationProcessor, predicates: list[str], feature_dim: int
) -> None:
    known = (list(processor.predicates), model.config.feature_dim)
    require(
        known == (list(predicates), feature_dim),
        "this checkpoint was trained on other data",
        found=f"{len(known[0])} predicates, appearance of width {known[1]}",
        expected=f"{len(predicates)} by the same names, width {feature_dim}",
        fix="evaluate on the data and tracks of its recipe",
    )
