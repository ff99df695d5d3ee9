"""One row per video: its tracks and its relations, the only table of relations that the package knows.

Every reader (VidVRD, VidOR, third-party trajectories, a user's own file) ends here, so that training and evaluation
need one layout. Boxes are in *pixels* as annotated, since the published evaluation counts inclusive pixels; a track
may have gaps, where its object was out of sight.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from datasets import Dataset, Features, List, Value

from hf_causal_video.errors import CausalVideoError

RELATION_FEATURES = Features(
    {
        "video_id": Value("string"),
        "width": Value("int32"),
        "height": Value("int32"),
        "fps": Value("float64"),  # frames a second, 0.0 if unknown
        "num_frames": Value("int32"),
        "tracks": List(
            {
                "category": Value("string"),
                "score": Value("float64"),  # of the detector; 1.0 if annotated
                "frames": List(Value("int32")),  # zero-based, ascending
                "boxes": List(List(Value("float32"), length=4)),  # xyxy in pixels, one for each of `frames`
            }
        ),
        "relations": List(
            {
                "subject": Value("int32"),  # index among the tracks
                "predicate": Value("string"),
                "object": Value("int32"),
                "start": Value("int32"),  # first frame
                "end": Value("int32"),  # the frame after the last
            }
        ),
    }
)


def relations_dataset(rows: Iterable[Mapping[str, Any]]) -> Dataset:
    """Check relation rows and put them in one typed table.

    Args:
        rows: mappings with the columns of `RELATION_FEATURES`; `relations` may be empty, where only tracks are known.

    Raises:
        CausalVideoError: a video twice, a missing column, frames that do not ascend or lie outside the video, inverted
            boxes, another number of boxes than frames, a relation of a track that does not exist, of a track with
            itself, with an empty duration, or in a frame in which one of its tracks has no box.

    Example:
        >>> track = {"category": "dog", "score": 1.0, "frames": [0, 1], "boxes": [[0, 0, 9, 9]] * 2}
        >>> row = {"video_id": "v", "width": 20, "height": 10, "fps": 30.0, "num_frames": 2, "tracks": [track, track],
        ...        "relations": [{"subject": 0, "predicate": "chase", "object": 1, "start": 0, "end": 2}]}
        >>> relations_dataset([row])[0]["relations"][0]["predicate"]
        'chase'
    """
    columns: dict[str, list[Any]] = {name: [] for name in RELATION_FEATURES}
    seen: set[str] = set()
    for row in rows:
        name = f"relation row of video {row.get('video_id')!r}"
        if missing := sorted(set(columns) - set(row)):
            _fail(f"{name} lacks columns", f"nothing in {missing}", sorted(columns), "write every column")
        if row["video_id"] in seen:
            _fail(name, "it is there twice", "one row a video", "join the rows")
        seen.add(row["video_id"])
        present = [_check_track(track, row, f"{name}, track {i}") for i, track in enumerate(row["tracks"])]
        for number, relation in enumerate(row["relations"]):
            _check_relation(relation, present, f"{name}, relation {number}")
        for column, values in columns.items():
            values.append(row[column])
    return Dataset.from_dict(columns, features=RELATION_FEATURES)


def ground_truth(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The relations of the videos as the evaluation reads them: triplet, duration and both trajectories.

    Example:
        >>> track = {"category": "dog", "score": 1.0, "frames": [3, 4], "boxes": [[0, 0, 9, 9], [1, 0, 9, 9]]}
        >>> relation = {"subject": 0, "predicate": "chase", "object": 1, "start": 4, "end": 5}
        >>> ground_truth([{"video_id": "v", "tracks": [track, track], "relations": [relation]}])["v"][0]["sub_traj"]
        [[1, 0, 9, 9]]
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        boxes = [dict(zip(track["frames"], track["boxes"], strict=True)) for track in row["tracks"]]
        names = [track["category"] for track in row["tracks"]]
        found[row["video_id"]] = [
            {
                "triplet": [names[relation["subject"]], relation["predicate"], names[relation["object"]]],
                "duration": [relation["start"], relation["end"]],
                "sub_traj": [boxes[relation["subject"]][f] for f in range(relation["start"], relation["end"])],
                "obj_traj": [boxes[relation["object"]][f] for f in range(relation["start"], relation["end"])],
            }
            for relation in row["relations"]
        ]
    return found


def tracklets(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tracks of a row without gaps, as `VideoRelationProcessor` reads them; a track with gaps becomes several.

    Returns:
        `{"start": first frame, "boxes": (L, 4) array in pixels, "category", "score", "track": index in the row}`.

    Example:
        >>> track = {"category": "dog", "score": 1.0, "frames": [3, 4, 7], "boxes": [[0, 0, 9, 9]] * 3}
        >>> [(part["start"], len(part["boxes"])) for part in tracklets({"tracks": [track]})]
        [(3, 2), (7, 1)]
    """
    parts = []
    for index, track in enumerate(row["tracks"]):
        frames, boxes = np.asarray(track["frames"]), np.asarray(track["boxes"], dtype=np.float64).reshape(-1, 4)
        for run in np.split(np.arange(len(frames)), np.flatnonzero(np.diff(frames) > 1) + 1):
            if len(run):
                parts.append({"start": int(frames[run[0]]), "boxes": boxes[run], "category": track["category"],
                              "score": track["score"], "track": index})  # fmt: skip
    return parts


def training_counts(rows: Iterable[Mapping[str, Any]]) -> tuple[dict[str, int], set[tuple[str, str, str]]]:
    """How often each predicate is annotated, and the triplets that are: what the evaluation needs of the training
    split.

    Example:
        >>> track, relation = {"category": "dog"}, {"subject": 0, "predicate": "chase", "object": 1}
        >>> training_counts([{"tracks": [track, track], "relations": [relation]}])
        ({'chase': 1}, {('dog', 'chase', 'dog')})
    """
    counts: Counter[str] = Counter()
    triplets = set()
    for row in rows:
        names = [track["category"] for track in row["tracks"]]
        for relation in row["relations"]:
            counts[relation["predicate"]] += 1
            triplets.add((names[relation["subject"]], relation["predicate"], names[relation["object"]]))
    return dict(counts), triplets


def _check_track(track: Mapping[str, Any], row: Mapping[str, Any], name: str) -> set[int]:
    """Refuse a malformed track; the frames in which it has a box."""
    frames = np.asarray(track["frames"], dtype=np.int64)
    boxes = np.asarray(track["boxes"], dtype=np.float64).reshape(-1, 4)
    if not len(frames) or len(frames) != len(boxes):
        _fail(name, f"{len(frames)} frames, {len(boxes)} boxes", "as many, at least 1", "drop empty tracks")
    if (np.diff(frames) <= 0).any() or frames[0] < 0 or frames[-1] >= row["num_frames"]:
        _fail(
            name, f"frames {frames[:3].tolist()} ... {frames[-1]}", f"ascending in 0..{row['num_frames'] - 1}",
            "sort them",
        )  # fmt: skip
    bad = ~np.isfinite(boxes).all(1) | (boxes[:, 2:] < boxes[:, :2]).any(1)
    if bad.any():
        _fail(f"{name}, frame {frames[bad.argmax()]}", boxes[bad.argmax()].tolist(),
              "finite left, top, right, bottom with left <= right, top <= bottom", "mend the annotation")  # fmt: skip
    return set(frames.tolist())


def _check_relation(relation: Mapping[str, Any], present: list[set[int]], name: str) -> None:
    subject, other, start, end = (relation[key] for key in ("subject", "object", "start", "end"))
    if not (0 <= subject < len(present) and 0 <= other < len(present)) or subject == other:
        _fail(name, f"tracks {subject} and {other}", f"two different of {len(present)} tracks", "mend the annotation")
    if not 0 <= start < end:
        _fail(name, f"frames [{start}, {end})", "a first frame before the end", "mend the annotation")
    wanted = set(range(start, end))
    for track in (subject, other):
        if lacking := sorted(wanted - present[track]):
            _fail(f"{name}: track {track} has no box in some of its frames", f"none in {lacking[:5]} ...",
                  f"one in each of [{start}, {end})", "shorten the relation, or interpolate the track")  # fmt: skip


def _fail(what: str, found: object, expected: object, fix: str) -> None:
    raise CausalVideoError(what, found=found, expected=expected, fix=fix)
