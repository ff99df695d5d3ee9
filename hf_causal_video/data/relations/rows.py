"""One row per video: its tracks and its relations, the only table of relations that the package knows.

Every reader (VidVRD, VidOR, third-party trajectories, a user's own file) ends here, so that training and evaluation
need one layout. Boxes are in *pixels* as annotated, since the published evaluation counts inclusive pixels; a track
may have gaps, where its object was out of sight.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, List, Value

from hf_causal_video.tracks.track import check_track
from hf_causal_video.utils.checks import is_list, is_number, is_text, is_whole
from hf_causal_video.utils.errors import CausalVideoError, require

LONGEST = 10_000_000  # frames; four days of film, beyond which a number is a mistake
RELATION_FEATURES = Features(
    {
        "video_id": Value("string"),
        "width": Value("int32"),
        "height": Value("int32"),
        "fps": Value("float64"),  # frames per second, 0.0 if unknown
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
    require(
        not isinstance(rows, str | Mapping) and isinstance(rows, Iterable),
        "relation rows",
        found=lambda: type(rows).__name__,
        expected="a list of mappings, or a Dataset",
        fix="pass a list of rows",
    )
    columns: dict[str, list[Any]] = {name: [] for name in RELATION_FEATURES}
    seen: set[str] = set()
    for number, row in enumerate(rows):
        require(
            isinstance(row, Mapping),
            f"relation row {number}",
            found=partial("{!r:.80}".format, row),
            expected="a mapping by column",
            fix="pass rows as mappings",
        )
        name = f"relation row of video {row.get('video_id')!r}"
        if missing := sorted(set(columns) - set(row)):
            _fail(f"{name} lacks columns", f"nothing in {missing}", sorted(columns), "write every column")
        _check_video(row, name)
        require(
            row["video_id"] not in seen,
            name,
            found="it is there twice",
            expected="one row per video",
            fix="join the rows",
        )
        seen.add(row["video_id"])
        present = [_check_track(track, row, f"{name}, track {i}") for i, track in enumerate(row["tracks"])]
        for place, relation in enumerate(row["relations"]):
            _check_relation(relation, present, f"{name}, relation {place}")
        for column, values in columns.items():
            values.append(row[column])
    try:
        return Dataset.from_dict(columns, features=RELATION_FEATURES)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:  # such as True among frames
        raise CausalVideoError(
            "relation rows cannot be put in a table",
            found=str(error).splitlines()[0],
            expected="the kinds of RELATION_FEATURES",
            fix="fix the column",
        ) from error


def ground_truth(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The relations of the videos as the evaluation reads them: triplet, duration and both trajectories.

    Example:
        >>> track = {"category": "dog", "score": 1.0, "frames": [3, 4], "boxes": [[0, 0, 9, 9], [1, 0, 9, 9]]}
        >>> relation = {"subject": 0, "predicate": "chase", "object": 1, "start": 4, "end": 5}
        >>> ground_truth([{"video_id": "v", "tracks": [track, track], "relations": [relation]}])["v"][0]["sub_traj"]
        [[1, 0, 9, 9]]
    """
    relations: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        boxes = [dict(zip(track["frames"], track["boxes"], strict=True)) for track in row["tracks"]]
        names = [track["category"] for track in row["tracks"]]
        relations[row["video_id"]] = [
            {
                "triplet": [names[relation["subject"]], relation["predicate"], names[relation["object"]]],
                "duration": [relation["start"], relation["end"]],
                "sub_traj": [boxes[relation["subject"]][f] for f in range(relation["start"], relation["end"])],
                "obj_traj": [boxes[relation["object"]][f] for f in range(relation["start"], relation["end"])],
            }
            for relation in row["relations"]
        ]
    return relations


def unbroken_tracks(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tracks of a row without gaps, as `VideoRelationProcessor` reads them; a track with gaps becomes several.

    Returns:
        `{"start": first frame, "boxes": (L, 4) array in pixels, "category", "score", "track": index in the row}`.

    Example:
        >>> track = {"category": "dog", "score": 1.0, "frames": [3, 4, 7], "boxes": [[0, 0, 9, 9]] * 3}
        >>> [(part["start"], len(part["boxes"])) for part in unbroken_tracks({"tracks": [track]})]
        [(3, 2), (7, 1)]
    """
    parts = []
    for index, track in enumerate(row["tracks"]):
        frames, boxes = np.asarray(track["frames"]), np.asarray(track["boxes"], dtype=np.float64).reshape(-1, 4)
        for run in np.split(np.arange(len(frames)), np.flatnonzero(np.diff(frames) > 1) + 1):
            if len(run):
                parts.append(
                    {
                        "start": int(frames[run[0]]),
                        "boxes": boxes[run],
                        "category": track["category"],
                        "score": track["score"],
                        "track": index,
                    }
                )
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


def _check_video(row: Mapping[str, Any], name: str) -> None:
    require(
        is_text(row["video_id"]) and row["video_id"],
        name,
        found=lambda: f"video_id {row['video_id']!r}",
        expected="a name",
        fix="write it as a string",
    )
    if bad := {side: row[side] for side in ("width", "height", "num_frames") if not _is_count(row[side], 1)}:
        _fail(name, bad, "whole numbers above 0", "give the size in pixels and the number of frames")
    require(
        row["num_frames"] <= LONGEST,
        name,
        found=lambda: f"{row['num_frames']} frames",
        expected=f"at most {LONGEST}",
        fix="cut the video into parts",
    )
    require(
        is_number(row["fps"]) and row["fps"] >= 0,
        name,
        found=lambda: f"fps {row['fps']!r}",
        expected="frames per second, 0.0 if unknown",
        fix="fix the column",
    )
    require(
        is_list(row["tracks"]) and is_list(row["relations"]),
        name,
        found="tracks or relations that are not lists",
        expected="lists of mappings",
        fix="fix the columns",
    )


def _check_track(track: Mapping[str, Any], row: Mapping[str, Any], name: str) -> set[int]:
    """Refuse a malformed track; the frames in which it has a box."""
    fields = ("category", "score", "frames", "boxes")
    require(
        isinstance(track, Mapping) and not any(field not in track for field in fields),
        name,
        found=lambda: repr(track)[:80],
        expected=f"a mapping with {', '.join(fields)}",
        fix="write every field",
    )
    require(
        is_text(track["category"]) and is_number(track["score"]),
        name,
        found=lambda: f"{track['category']!r}, score {track['score']!r}",
        expected="a class name, a finite score",
        fix="correct it",
    )
    frames, boxes = _array(track["frames"], "iu"), _array(track["boxes"], "iuf").astype(np.float64)
    check_track(frames, boxes, name, row["num_frames"])
    return set(frames.tolist())


def _check_relation(relation: Mapping[str, Any], present: list[set[int]], name: str) -> None:
    fields = ("subject", "object", "start", "end")
    require(
        isinstance(relation, Mapping) and all(_is_count(relation.get(field), -1) for field in fields),
        name,
        found=lambda: repr(relation)[:80],
        expected=f"whole numbers in {', '.join(fields)}",
        fix="fix the annotation",
    )
    require(
        is_text(relation.get("predicate")) and relation["predicate"],
        name,
        found=lambda: f"predicate {relation.get('predicate')!r}",
        expected="a name",
        fix="fix the annotation",
    )
    subject, other, start, end = (relation[field] for field in fields)
    require(
        (0 <= subject < len(present) and 0 <= other < len(present)) and subject != other,
        name,
        found=f"tracks {subject} and {other}",
        expected=f"two different of {len(present)} tracks",
        fix="fix the annotation",
    )
    require(
        0 <= start < end,
        name,
        found=f"frames [{start}, {end})",
        expected="a first frame before the end",
        fix="fix the annotation",
    )
    for track in (subject, other):
        if lacking := list(islice((frame for frame in range(start, end) if frame not in present[track]), 6)):
            _fail(
                f"{name}: track {track} has no box in some of its frames",
                f"none in {lacking[:5]} ...",
                f"one in each of [{start}, {end})",
                "shorten the relation, or interpolate the track",
            )


def _is_count(value: Any, least: int) -> bool:
    return is_whole(value, least, 2**31 - 1)


def _array(values: Any, kinds: str) -> np.ndarray:
    """Numbers as an array, an empty one for other values."""
    try:
        array = np.asarray(values if is_list(values) else [])
    except (TypeError, ValueError, OverflowError):
        return np.empty(0)
    return array if array.dtype.kind in kinds else np.empty(0)


def _fail(what: str, found: object, expected: object, fix: str) -> None:
    raise CausalVideoError(what, found=found, expected=expected, fix=fix)
