"""Relation detection and tagging of videos.

For `evaluate.load("scripts/metrics/video_relation")`; thin over `hf_causal_video.evaluation.vidvrd_metrics`.
"""

import datasets
import evaluate

from hf_causal_video.evaluation import vidvrd_metrics
from hf_causal_video.utils.errors import CausalVideoError

INPUTS = """
Args:
    predictions: `video_id` and `relations` a video; a relation has `triplet` (subject, predicate, object), `score`,
        `duration` ([first frame, frame after the last]), `sub_traj` and `obj_traj` (a box [left, top, right, bottom]
        a frame).
    references: the same videos with their annotated relations, without scores.
    viou_threshold, inclusive, training_triplets, training_counts: see `hf_causal_video.evaluation.vidvrd_metrics`.

Returns:
    `mAP`, `R@50`, `R@100`, `mR@50`, `mR@100`, `P@1`, `P@5`, `P@10` and more, as fractions.

Raises:
    CausalVideoError: a video twice, or a malformed relation.
"""
BOXES = datasets.List(datasets.List(datasets.Value("float64"), length=4))
RELATION = {
    "triplet": datasets.List(datasets.Value("string"), length=3),
    "duration": datasets.List(datasets.Value("int64"), length=2),
    "sub_traj": BOXES,
    "obj_traj": BOXES,
}
FEATURES = datasets.Features(
    {
        "predictions": {
            "video_id": datasets.Value("string"),
            "relations": datasets.List({**RELATION, "score": datasets.Value("float64")}),
        },
        "references": {"video_id": datasets.Value("string"), "relations": datasets.List(RELATION)},
    }
)


class VideoRelation(evaluate.Metric):
    """Relation detection and tagging of videos."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Relation detection and tagging of videos.",
            citation="Shang et al., Video Visual Relation Detection, ACM MM 2017",
            inputs_description=INPUTS,
            features=FEATURES,
            reference_urls=["https://dl.acm.org/doi/10.1145/3123266.3123380"],
        )

    def _compute(self, predictions, references, **options):
        return vidvrd_metrics(_by_video(predictions), _by_video(references), **options)


def _by_video(rows):
    videos = {row["video_id"]: row["relations"] for row in rows}
    if len(videos) != len(rows):
        raise CausalVideoError(
            "a video is there twice",
            found=f"{len(rows)} rows of {len(videos)} videos",
            expected="one row a video",
            fix="put all relations of a video into one row",
        )
    return videos
