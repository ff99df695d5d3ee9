"""Which predicted relation found which annotated one: greedy by score, each annotated relation once.

Why a file of its own: detection, recall by predicate and the zero-shot settings all read the same overlaps, so
these are computed once a video, and every table is a selection of them.

Source: Shang et al., ACM MM 2017 (ImageNet-VidVRD), evaluation of VidVRD-helper.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from hf_causal_video.evaluation.inputs import Row
from hf_causal_video.evaluation.relations.tracks import Triplet, VideoRelations, pair_viou, read_video_relations

MISSED = np.iinfo(np.int64).max  # rank of an annotated relation that no prediction found


@dataclass(frozen=True)
class ScoredVideo:
    """Annotated and predicted relations of a video, the predicted by falling score, and their overlaps.

    Args:
        overlap: (predictions, annotated) vIoU where triplets agree and the threshold is met, else 0.
    """

    truth: VideoRelations
    predicted: VideoRelations
    overlap: np.ndarray

    def select(self, truth: np.ndarray, predicted: np.ndarray) -> "ScoredVideo":
        """The video with some of its relations only; both arguments are masks."""
        overlap = self.overlap[np.ix_(predicted, truth)]
        return ScoredVideo(self.truth.select(truth), self.predicted.select(predicted), overlap)


@dataclass(frozen=True)
class Matched:
    """Counts and hits of one video.

    Args:
        rank: (annotated,) rank of the prediction that found each annotated relation, or `MISSED`.
        average_precision: all-point average precision of the video.
        precision: (distinct predicted triplets,) tagging precision after each.
    """

    rank: np.ndarray
    average_precision: float
    precision: np.ndarray

    def row(self) -> dict[str, float]:
        """The video by itself, in plain numbers."""
        return {
            "AP": self.average_precision,
            "true_positives": int((self.rank < MISSED).sum()),
            "num_gt": len(self.rank),
            "distinct_predicted_triplets": len(self.precision),
        }


def read_scored_video(
    video_id: str, predicted: Iterable[Row], annotated: Iterable[Row], threshold: float, inclusive: bool
) -> ScoredVideo:
    """Check both sides of a video and compute their overlaps; arguments as in `vidvrd_metrics`."""
    predictions = read_video_relations(video_id, predicted, "prediction")
    truth = read_video_relations(video_id, annotated, "ground truth")
    # A stable sort by falling score: of equal scores the first given comes first, as published.
    ranked = predictions.select(np.argsort(-predictions.scores, kind="stable"))
    ids: dict[Triplet, int] = {}
    kinds = [
        np.array([ids.setdefault(triplet, len(ids)) for triplet in side.triplets], dtype=np.int64)
        for side in (ranked, truth)
    ]
    overlap = np.zeros((len(ranked), len(truth)))
    i, j = np.nonzero(kinds[0][:, None] == kinds[1])
    if len(i):
        viou = pair_viou(ranked, truth, i, j, inclusive)
        overlap[i, j] = np.where(viou >= threshold, viou, 0.0)
    return ScoredVideo(truth, ranked, overlap)


def match(video: ScoredVideo) -> Matched:
    """Give every prediction, best score first, the annotated relation it overlaps best among those still free."""
    rank = np.full(len(video.truth), MISSED)
    hits = np.zeros(len(video.predicted), dtype=bool)
    for row in np.flatnonzero(video.overlap.any(axis=1)):
        free = np.where(rank == MISSED, video.overlap[row], 0.0)
        best = int(free.argmax())
        if free[best] > 0:
            rank[best] = row
            hits[row] = True
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    ceiling = np.maximum.accumulate(precision[::-1])[::-1]  # VOC: the best precision at this recall or beyond
    annotated = set(video.truth.triplets)
    tags = np.array([triplet in annotated for triplet in dict.fromkeys(video.predicted.triplets)], dtype=np.float64)
    return Matched(rank, float(ceiling[hits].sum() / len(rank)), np.cumsum(tags) / np.arange(1, len(tags) + 1))
