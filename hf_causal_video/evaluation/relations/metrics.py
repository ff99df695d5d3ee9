"""Video relation detection and tagging, as published, and the mean recall by predicate that nobody reports.

Why: recall over all relations is decided by a handful of head predicates (next_to, in_front_of). A method that
removes the long-tail bias shows in the recall of each predicate, averaged over predicates, and in its thirds.

Source: Shang et al., ACM MM 2017, and VidVRD-helper: greedy matching by score at vIoU >= 0.5 of subject *and*
object; per-video all-point AP; recall pooled over videos; P@N over distinct triplets, divided by fewer than N where
fewer were predicted. Mean recall and thirds are ours.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np

from hf_causal_video.evaluation.inputs import Metrics
from hf_causal_video.evaluation.relations.matching import Row, ScoredVideo, match, read_scored_video
from hf_causal_video.evaluation.relations.tracks import Triplet, read_triplet
from hf_causal_video.utils.checks import check_choice, check_fields, check_number, check_text
from hf_causal_video.utils.errors import require

RECALL_AT = (50, 100)
TAGGING_AT = (1, 5, 10)
METRICS = ("mAP", *(f"R@{n}" for n in RECALL_AT), *(f"P@{n}" for n in TAGGING_AT), *(f"mR@{n}" for n in RECALL_AT))
PARTS = ("head", "body", "tail")


def vidvrd_metrics(
    predictions: Mapping[str, object],
    ground_truth: Mapping[str, Iterable[Row]],
    viou_threshold: float = 0.5,
    *,
    inclusive: bool = True,
    training_triplets: Iterable[Iterable[str]] | None = None,
    training_counts: Mapping[str, int] | None = None,
    unknown_videos: Literal["ignore", "error"] = "ignore",
) -> Metrics:
    """Relation detection and tagging metrics, as fractions.

    Args:
        predictions: `{video_id: [relation]}`, or the submission file around it (`{"results": ...}`); a relation has
            `triplet`, `score`, `duration` [first frame, frame after the last), `sub_traj` and `obj_traj` with one
            box [left, top, right, bottom] a frame. A video that is absent counts as predicted nothing.
        ground_truth: `{video_id: [relation]}`, scores not needed. Videos without relations are not scored.
        viou_threshold: least overlap of both trajectories.
        inclusive: boxes are inclusive pixels (+1, as published); False for boxes in [0, 1].
        training_triplets: triplets of the training split; adds `zero_shot` (truth and predictions restricted to
            triplets annotated here but not there) and `generalized_zero_shot` (only the truth restricted).
        training_counts: how often each predicate is annotated in training; adds thirds of the mean recall, by falling
            frequency. A predicate that it does not name was never seen and belongs to the tail.
        unknown_videos: predicted videos without ground truth: "ignore" as published (they are counted), or "error".

    Returns:
        `METRICS` (mR is recall averaged over annotated predicates; all None where no video is scored),
        `per_predicate` (`{predicate: {"R@50", "R@100", "relations"}}`), `per_video`, `counts`, and, where asked for,
        `head mR@50` and so on, `zero_shot`, `generalized_zero_shot`. Of several predictions of one annotated relation
        the first by score counts, the others are false.

    Raises:
        CausalVideoError: no predicted video is annotated, a threshold outside (0, 1], or a malformed relation (see
            `read_video_relations`).

    Source: Shang et al. 2017, VidVRD.

    Example:
        >>> box, other = [[0, 0, 9, 9]] * 3, [[5, 0, 19, 9]] * 3
        >>> gold = {"triplet": ["dog", "chase", "cat"], "duration": [4, 7], "sub_traj": box, "obj_traj": other}
        >>> result = vidvrd_metrics({"v": [gold | {"score": 0.9}]}, {"v": [gold]})
        >>> result["mAP"], result["R@50"], result["mR@100"], result["P@5"]
        (1.0, 1.0, 1.0, 1.0)
    """
    results = predictions.get("results", predictions) if isinstance(predictions, Mapping) else predictions
    fix = "pass the content of a submission file, and `ground_truth(rows)`"
    check_fields("predictions by video", results, (), fix=fix)
    check_fields("ground truth by video", ground_truth, (), fix=fix)
    assert isinstance(results, Mapping)
    check_choice("unknown_videos", unknown_videos, ("ignore", "error"))
    check_number("viou_threshold", viou_threshold, above=0, most=1)
    unknown = sorted(set(results) - set(ground_truth), key=str)
    is_one_split = not unknown or (unknown_videos != "error" and len(unknown) != len(results))
    problem = f"{len(unknown)} of {len(results)}: {unknown[:3]}"
    expected = f"ids such as {sorted(ground_truth, key=str)[:3]}"
    require(
        is_one_split, "predicted videos without ground truth", found=problem, expected=expected, fix="score one split"
    )
    read = {
        key: read_scored_video(key, results.get(key, []), rows, viou_threshold, inclusive)
        for key, rows in ground_truth.items()
    }
    videos = {key: video for key, video in read.items() if len(video.truth)}
    is_list_or_none = training_triplets is None or isinstance(training_triplets, Iterable)
    require(is_list_or_none, "training_triplets", found=training_triplets, expected="those of `training_counts`")
    seen = {read_triplet(one, "a training triplet") for one in training_triplets or ()}
    metrics = _table(videos) | {"counts": _sizes(videos) | {"ignored_videos": len(unknown)}}
    if training_counts is not None:
        metrics |= _thirds(metrics["per_predicate"], training_counts)
    if training_triplets is not None:
        annotated = {triplet for video in videos.values() for triplet in video.truth.triplets}
        unseen = annotated - seen
        metrics["zero_shot"] = _zero_shot(videos, unseen, restrict=True)
        metrics["generalized_zero_shot"] = _zero_shot(videos, unseen, restrict=False)
    return metrics


def _table(videos: Mapping[str, ScoredVideo]) -> Metrics:
    """The metrics of some videos, each with annotated relations."""
    if not videos:
        return dict.fromkeys(METRICS) | {"per_predicate": {}, "per_video": {}}
    matched = {key: match(video) for key, video in videos.items()}
    ranks = np.concatenate([one.rank for one in matched.values()])  # (all annotated relations,)
    table: Metrics = {"mAP": float(np.mean([one.average_precision for one in matched.values()]))}
    table |= {f"R@{n}": float(np.mean(ranks < n)) for n in RECALL_AT}
    for n in TAGGING_AT:
        curves = [one.precision for one in matched.values()]
        table[f"P@{n}"] = float(np.mean([curve[min(n, len(curve)) - 1] if len(curve) else 0.0 for curve in curves]))
    predicates = [triplet[1] for video in videos.values() for triplet in video.truth.triplets]
    names, owner, sizes = np.unique(predicates, return_inverse=True, return_counts=True)
    recalls = {f"R@{n}": np.bincount(owner, ranks < n) / sizes for n in RECALL_AT}  # (predicates,) each
    table |= {f"m{name}": float(values.mean()) for name, values in recalls.items()}
    table["per_predicate"] = {
        str(predicate): {name: float(values[i]) for name, values in recalls.items()} | {"relations": int(sizes[i])}
        for i, predicate in enumerate(names)
    }
    return table | {"per_video": {key: one.row() for key, one in matched.items()}}


def _sizes(videos: Mapping[str, ScoredVideo]) -> dict[str, int]:
    return {
        "videos": len(videos),
        "gt_relations": sum(len(video.truth) for video in videos.values()),
        "predictions": sum(len(video.predicted) for video in videos.values()),
    }


def _zero_shot(videos: Mapping[str, ScoredVideo], unseen: set[Triplet], restrict: bool) -> Metrics:
    """The table over annotated relations of unseen triplets; `restrict` drops predictions of other triplets too."""
    kept = {}
    for key, video in videos.items():
        truth = np.array([triplet in unseen for triplet in video.truth.triplets], dtype=bool)
        predicted = np.array([not restrict or triplet in unseen for triplet in video.predicted.triplets], dtype=bool)
        if truth.any():
            kept[key] = video.select(truth, predicted)
    return _table(kept) | _sizes(kept)


def _thirds(per_predicate: Mapping[str, Mapping[str, float]], counts: Mapping[str, int]) -> dict[str, float | None]:
    """Mean recall of the frequent, the middle and the rare third of the predicates that training or truth names."""
    check_fields("training_counts", counts, (), fix="pass what `training_counts(rows)` gives")
    for name, count in counts.items():
        check_text("predicate of training_counts", name)
        check_number(f"training count of {name}", count, 0)
    order = sorted({*counts, *per_predicate}, key=lambda name: (-counts.get(name, 0), name))
    table: dict[str, float | None] = {}
    for part, positions in zip(PARTS, np.array_split(np.arange(len(order)), len(PARTS)), strict=True):
        rows = [per_predicate[order[place]] for place in positions if order[place] in per_predicate]
        for n in RECALL_AT:
            table[f"{part} mR@{n}"] = float(np.mean([row[f"R@{n}"] for row in rows])) if rows else None
    return table
