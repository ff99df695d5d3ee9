"""Relation tagging: ranked triplets of a video against those annotated for the whole video, without tracks or time.

Why: many data sets name the triplets of a video and not where they are. Ranking measures what the head prefers; recall
per predicate, and of head, body and tail, whether rare predicates are found at all.

Source: tagging precision and recall of VidVRD (Shang et al., ACM MM 2017); mean recall per predicate after Tang et al.
and Chen et al. (CVPR 2019).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from hf_causal_video.utils.errors import require

Triplet = tuple[str, str, str]
PRECISION_AT = (1, 5, 10)
RECALL_AT = (50, 100)
PARTS = ("head", "body", "tail")
COLUMNS = (*(f"P@{k}" for k in PRECISION_AT), *(f"R@{k}" for k in RECALL_AT), *(f"mR@{k}" for k in RECALL_AT), *PARTS)


def tagging_metrics(
    ranked: Mapping[str, Sequence[Triplet]],
    truth: Mapping[str, Iterable[Triplet]],
    training_counts: Mapping[str, int] | None = None,
) -> dict[str, float]:
    """Percentages over the videos of `truth`.

    Args:
        ranked: distinct triplets (subject class, predicate, object class) of each video, best first; a video without
            an entry has none.
        truth: the annotated triplets of each video.
        training_counts: how often each predicate is annotated in training; adds the recall of thirds of the
            predicates by falling count: `head`, `body`, `tail`.

    Returns:
        `P@K`: share of true ones among the first K of a video, mean over videos. `R@K`: share of all annotated
        (video, triplet) among the first K of their video. `mR@K`: the same per predicate, mean over predicates with
        an annotation. `head`, `body`, `tail`: the mean recall at 50 of their predicates; NaN without an annotation.

    Raises:
        CausalVideoError: no annotated triplet, a triplet ranked twice, or a predicate without a training count.

    Example:
        >>> found = tagging_metrics({"v": [("dog", "chase", "cat")]}, {"v": [("dog", "chase", "cat")]})
        >>> found["P@1"], found["P@5"], found["mR@50"]
        (100.0, 20.0, 100.0)
    """
    annotated = {video: {tuple(triplet) for triplet in triplets} for video, triplets in truth.items()}
    lists = {video: [tuple(triplet) for triplet in ranked.get(video, ())] for video in annotated}
    require(any(annotated.values()), "annotated triplets", found="none", expected="at least one")
    repeated = [video for video, triplets in lists.items() if len(set(triplets)) < len(triplets)]
    problem = f"a triplet twice in video {repeated[:1]}"
    fix = "keep the best score of each triplet"
    require(not repeated, "ranked triplets", found=problem, expected="distinct triplets", fix=fix)
    table = {}
    for k in PRECISION_AT:
        shares = [sum(one in annotated[video] for one in best[:k]) / k for video, best in lists.items()]
        table[f"P@{k}"] = 100 * float(np.mean(shares))
    total = Counter(triplet[1] for triplets in annotated.values() for triplet in triplets)
    recalls: dict[str, float] = {}
    for k in sorted(RECALL_AT, reverse=True):  # the parts are those of the last, 50
        hits = Counter(one[1] for video, best in lists.items() for one in best[:k] if one in annotated[video])
        recalls = {predicate: 100 * hits[predicate] / count for predicate, count in total.items()}
        table[f"R@{k}"] = 100 * sum(hits.values()) / sum(total.values())
        table[f"mR@{k}"] = float(np.mean(list(recalls.values())))
    if training_counts is not None:
        missing = sorted(set(recalls) - set(training_counts))
        require(not missing, "training counts", found=f"none of {missing[:3]}", expected="one for each predicate")
        order = sorted(training_counts, key=lambda predicate: -training_counts[predicate])
        for part, predicates in zip(PARTS, np.array_split(np.array(order), len(PARTS)), strict=True):
            values = [recalls[predicate] for predicate in predicates.tolist() if predicate in recalls]
            table[part] = float(np.mean(values)) if values else float("nan")
    return {name: table[name] for name in COLUMNS if name in table}
