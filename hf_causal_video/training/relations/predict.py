"""Predictions of a relation model for a split, a plain record per video or pair, and their metrics."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import DataLoader, Subset
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from hf_causal_video.data.relations.collator import RelationCollator
from hf_causal_video.data.relations.rows import ground_truth
from hf_causal_video.data.relations.segments import RelationSegments
from hf_causal_video.evaluation.relations.metrics import METRICS, vidvrd_metrics
from hf_causal_video.evaluation.relations.pairs import pair_metrics
from hf_causal_video.models import VideoRelationProcessor
from hf_causal_video.models.ivrd.outputs import judge_segments
from hf_causal_video.training.tasks import Record
from hf_causal_video.worlds.relation_pairs import RelationPairs

ALONE = (0, 1)
INPUTS = ("track_boxes", "track_mask", "track_start", "track_features", "pair_index", "track_classes")
DECIMALS = 2  # of a pixel


@torch.inference_mode()
def predict_videos(
    model: PreTrainedModel,
    processor: VideoRelationProcessor,
    data: RelationSegments,
    progress: bool = True,
    share: tuple[int, int] = ALONE,
    **options: object,
) -> list[Record]:
    """Detect the relations of every video from its tracks.

    Args:
        model, processor: of one checkpoint.
        data: the videos.
        progress: show a bar.
        share: (rank, processes): this process takes every n-th video.
        options: see `VideoRelationProcessor.post_process_relations`.

    Returns:
        `{"id": video id, "relations": [...]}`, the relations in the layout of the public evaluation.
    """
    model.eval()
    records: list[Record] = []
    for place in tqdm(range(share[0], len(data.rows), share[1]), desc="detecting", unit="video", disable=not progress):
        video_id, tracks, size = data.video(place)
        inputs = processor(tracks, frame_size=size)
        output = judge_segments(model, inputs)
        relations: list[list[dict]] = [[]]
        if output is not None:
            multi_label = bool(model.config.multi_label)
            relations = processor.post_process_relations(output, inputs, multi_label=multi_label, **options)
        for relation in relations[0]:
            for side in ("sub_traj", "obj_traj"):
                relation[side] = np.round(relation[side], DECIMALS).tolist()
        records.append({"id": video_id, "relations": relations[0]})
    return records


@torch.inference_mode()
def predict_pairs(
    model: PreTrainedModel,
    data: RelationPairs,
    collator: RelationCollator,
    batch_size: int = 256,
    progress: bool = True,
    share: tuple[int, int] = ALONE,
) -> list[Record]:
    """Judge every pair.

    Returns:
        `{"id", "prediction": the best predicate, "scores": (P,) log-probabilities or log-odds}`.
    """
    model.eval()
    indices = range(share[0], len(data), share[1])
    batches = DataLoader(Subset(data, indices), batch_size, collate_fn=collator)
    scores: list[list[float]] = []
    for batch in tqdm(batches, desc="judging", unit="batch", disable=not progress):
        output = model(**{k: batch[k].to(model.device) for k in INPUTS if k in batch})
        logits = output.predicate_logits[output.pair_mask].float()
        scores += (logits if data.multi_label else logits.log_softmax(-1)).cpu().tolist()
    return [
        {"id": data.ids[place], "prediction": data.predicates[int(np.argmax(row))], "scores": row}
        for place, row in zip(indices, scores, strict=True)
    ]


def measure_videos(
    records: Sequence[Mapping[str, object]],
    rows: Dataset,
    counts: Mapping[str, int] | None = None,
    triplets: set[tuple[str, str, str]] | None = None,
) -> dict[str, object]:
    """Detection, tagging and mean recall in percent; with what the training split holds also thirds and zero-shot.

    Args:
        records: of `predict_videos`.
        rows: relation rows of the same videos.
        counts, triplets: see `training_counts`.
    """
    relations = vidvrd_metrics(
        {str(record["id"]): record["relations"] for record in records},
        ground_truth(rows),
        training_counts=counts,
        training_triplets=triplets,
    )
    table = {name: relations[name] for name in METRICS}
    table |= {name: value for name, value in relations.items() if name.split(" ")[0] in ("head", "body", "tail")}
    for setting in ("zero_shot", "generalized_zero_shot"):
        if setting in relations:
            table |= {f"{setting} {name}": relations[setting][name] for name in ("mAP", "R@50", "R@100")}
    return {name: None if value is None else 100 * value for name, value in table.items()} | {
        "counts": relations["counts"]
    }


def measure_pairs(records: Sequence[Mapping[str, object]], data: RelationPairs) -> dict[str, object]:
    """`pair_metrics` of the records of `predict_pairs`."""
    return pair_metrics(np.array([record["scores"] for record in records]), data.labels.numpy(), data.parts)
