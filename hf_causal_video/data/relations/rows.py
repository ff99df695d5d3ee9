"""One row per video: its tracks and its relations, the only table of relations that the package knows.

Every reader (VidVRD, VidOR, third-party trajectories, a user's own file) ends here, so that training and evaluation
need one layout. Boxes are in *pixels* as annotated, since the published evaluation counts inclusive pixels; a track
may have gaps, where its object was out of sight.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice
from numbers import Integral
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, List, Value

from hf_causal_video.data.rows import is_list, is_number, is_text
from hf_causal_video.utils.errors import CausalVideoError

LONGEST = 10_000_000  # frames; four days of film, beyond which a number is a mistake
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
    if isinstance(rows, str | Mapping) or not isinstance(rows, Iterable):
        _fail("relation rows", type(rows).__name__, "a list of mappings, or a Dataset", "pass a list of rows")
    columns: dict[str, list[Any]] = {name: [] for name in RELATION_FEATURES}
    seen: set[str] = set()
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            _fail(f"relation row {number}", repr(row)[:80], "a mapping by column", "pass rows as mappings")
        name = f"relation row of video {row.get('video_id')!r}"
        if missing := sorted(set(columns) - set(row)):
            _fail(f"{name} lacks columns", f"nothing in {missing}", sorted(columns), "write every column")
        _check_video(row, name)
        if row["video_id"] in seen:
            _fail(name, "it is there twice", "one row a video", "join the rows")
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
            "relation rows cannot be put in a table", found=str(error).splitlines()[0],
            expected="the kinds of RELATION_FEATURES", fix="mend the column",
        ) from error  # fmt: skip


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


def _check_video(row: Mapping[str, Any], name: str) -> None:
    if not is_text(row["video_id"]) or not row["video_id"]:
        _fail(name, f"video_id {row['video_id']!r}", "a name", "write it as a string")
    if bad := {side: row[side] for side in ("width", "height", "num_frames") if not _is_count(row[side], 1)}:
        _fail(name, bad, "whole numbers above 0", "give the size in pixels and the number of frames")
    if row["num_frames"] > LONGEST:
        _fail(name, f"{row['num_frames']} frames", f"at most {LONGEST}", "cut the video into parts")
    if not is_number(row["fps"]) or row["fps"] < 0:
        _fail(name, f"fps {row['fps']!r}", "frames a second, 0.0 if unknown", "mend the column")
    if not is_list(row["tracks"]) or not is_list(row["relations"]):
        _fail(name, "tracks or relations that are no list", "lists of mappings", "mend the columns")


def _check_track(track: Mapping[str, Any], row: Mapping[str, Any], name: str) -> set[int]:
    """Refuse a malformed track; the frames in which it has a box."""
    fields = ("category", "score", "frames", "boxes")
    if not isinstance(track, Mapping) or any(field not in track for field in fields):
        _fail(name, repr(track)[:80], f"a mapping with {', '.join(fields)}", "write every field")
    if not is_text(track["category"]) or not is_number(track["score"]):
        _fail(name, f"{track['category']!r}, score {track['score']!r}", "a class name, a finite score", "mend it")
    frames, boxes = _array(track["frames"], "iu"), _array(track["boxes"], "iuf").astype(np.float64)
    if not frames.size or frames.ndim != 1 or boxes.shape != (len(frames), 4):
        _fail(name, f"frames {frames.shape}, boxes {boxes.shape}", "(L,) whole numbers and (L, 4) numbers, L at least "
              "1", "drop empty tracks")  # fmt: skip
    if (np.diff(frames) <= 0).any() or frames[0] < 0 or frames[-1] >= row["num_frames"]:
        _fail(
            name, f"frames {frames[:3].tolist()} ... {frames[-1]}", f"ascending in 0..{row['num_frames'] - 1}",
            "sort them",
        )  # fmt: skip
    bad = ~(np.abs(boxes) < np.finfo(np.float32).max).all(1) | (boxes[:, 2:] < boxes[:, :2]).any(1)
    if bad.any():
        _fail(f"{name}, frame {frames[bad.argmax()]}", boxes[bad.argmax()].tolist(),
              "finite left, top, right, bottom with left <= right, top <= bottom", "mend the annotation")  # fmt: skip
    return set(frames.tolist())


def _check_relation(relation: Mapping[str, Any], present: list[set[int]], name: str) -> None:
    fields = ("subject", "object", "start", "end")
    if not isinstance(relation, Mapping) or not all(_is_count(relation.get(field), -1) for field in fields):
        _fail(name, repr(relation)[:80], f"whole numbers in {', '.join(fields)}", "mend the annotation")
    if not is_text(relation.get("predicate")) or not relation["predicate"]:
        _fail(name, f"predicate {relation.get('predicate')!r}", "a name", "mend the annotation")
    subject, other, start, end = (relation[field] for field in fields)
    if not (0 <= subject < len(present) and 0 <= other < len(present)) or subject == other:
        _fail(name, f"tracks {subject} and {other}", f"two different of {len(present)} tracks", "mend the annotation")
    if not 0 <= start < end:
        _fail(name, f"frames [{start}, {end})", "a first frame before the end", "mend the annotation")
    for track in (subject, other):
        if lacking := list(islice((frame for frame in range(start, end) if frame not in present[track]), 6)):
            _fail(f"{name}: track {track} has no box in some of its frames", f"none in {lacking[:5]} ...",
                  f"one in each of [{start}, {end})", "shorten the relation, or interpolate the track")  # fmt: skip


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and least <= value < 2**31  # type: ignore[operator]


def _array(values: Any, kinds: str) -> np.ndarray:
    """Numbers as an array, an empty one for what is none of these kinds."""
    try:
        array = np.asarray(values if is_list(values) else [])
    except (TypeError, ValueError, OverflowError):
        return np.empty(0)
    return array if array.dtype.kind in kinds else np.empty(0)


def _fail(what: str, found: object, expected: object, fix: str) -> None:
    raise CausalVideoError(what, found=found, expected=expected, fix=fix)
