"""One row per video: its tracks and its relations, the only table of relations that the package knows.

Every reader (VidVRD, VidOR, third-party trajectories, a user's own file) ends here, so that training and evaluation
need one layout. Boxes are in *pixels* as annotated, since the published evaluation counts inclusive pixels; a track
may have gaps, where its object was out of sight.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TypedDict

import numpy as np
from datasets import Dataset, Features, List, Value

from hf_causal_video.data.rows import check_rows, typed_table
from hf_causal_video.tracks.track import check_track
from hf_causal_video.utils.checks import check_fields, check_number, check_text, check_whole, is_list, is_text
from hf_causal_video.utils.errors import require

MOST = 2**31 - 1
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


class TrackRow(TypedDict):
    """A track of a video, as in `RELATION_FEATURES`."""

    category: str
    score: float
    frames: Sequence[int] | np.ndarray
    boxes: Sequence[Sequence[float]] | np.ndarray


class RelationRow(TypedDict):
    """A relation of a video, as in `RELATION_FEATURES`."""

    subject: int
    predicate: str
    object: int
    start: int
    end: int


class VideoRow(TypedDict):
    """Tracks and relations of a video, as in `RELATION_FEATURES`."""

    video_id: str
    width: int
    height: int
    fps: float
    num_frames: int
    tracks: Sequence[TrackRow]
    relations: Sequence[RelationRow]


class Part(TypedDict, total=False):
    """A track without gaps: its first frame, boxes (L, 4) in pixels, and what else is known of it."""

    start: int
    boxes: np.ndarray
    features: np.ndarray | None  # (L, C) or (C,)
    category: str
    label: str
    score: float
    track: int  # its place in the row


def relations_dataset(rows: Iterable[VideoRow]) -> Dataset:
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
    columns: dict[str, list[object]] = {name: [] for name in RELATION_FEATURES}
    seen: set[str] = set()
    for number, row in enumerate(check_rows("relation rows", rows)):
        check_fields(f"relation row {number}", row, columns)
        name = f"relation row of video {row['video_id']!r}"
        _check_video(row, name)
        _expect(row["video_id"] not in seen, name, "the video twice", "one row per video")
        seen.add(row["video_id"])
        present = [_check_track(track, row, f"{name}, track {i}") for i, track in enumerate(row["tracks"])]
        for place, relation in enumerate(row["relations"]):
            _check_relation(relation, present, f"{name}, relation {place}")
        for column, values in columns.items():
            values.append(row[column])  # type: ignore[literal-required]
    return typed_table("relation rows", columns, RELATION_FEATURES)


def ground_truth(rows: Iterable[VideoRow]) -> dict[str, list[dict[str, object]]]:
    """The relations of the videos as the evaluation reads them: triplet, duration and both trajectories.

    Example:
        >>> track = {"category": "dog", "score": 1.0, "frames": [3, 4], "boxes": [[0, 0, 9, 9], [1, 0, 9, 9]]}
        >>> relation = {"subject": 0, "predicate": "chase", "object": 1, "start": 4, "end": 5}
        >>> ground_truth([{"video_id": "v", "tracks": [track, track], "relations": [relation]}])["v"][0]["sub_traj"]
        [[1, 0, 9, 9]]
    """
    relations: dict[str, list[dict[str, object]]] = {}
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


def unbroken_tracks(row: VideoRow) -> list[Part]:
    """The tracks of a row without gaps, as `VideoRelationProcessor` reads them; a track with gaps becomes several.

    Returns:
        `{"start": first frame, "boxes": (L, 4) array in pixels, "category", "score", "track": index in the row}`.

    Example:
        >>> track = {"category": "dog", "score": 1.0, "frames": [3, 4, 7], "boxes": [[0, 0, 9, 9]] * 3}
        >>> [(part["start"], len(part["boxes"])) for part in unbroken_tracks({"tracks": [track]})]
        [(3, 2), (7, 1)]
    """
    parts: list[Part] = []
    for index, track in enumerate(row["tracks"]):
        frames = np.asarray(track["frames"])
        boxes = np.asarray(track["boxes"], dtype=np.float64).reshape(-1, 4)
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


def training_counts(rows: Iterable[VideoRow]) -> tuple[dict[str, int], set[tuple[str, str, str]]]:
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


def _check_video(row: VideoRow, name: str) -> None:
    check_text(f"{name}: video_id", row["video_id"])
    check_whole(f"{name}: width", row["width"], 1, MOST)
    check_whole(f"{name}: height", row["height"], 1, MOST)
    check_whole(f"{name}: num_frames", row["num_frames"], 1, LONGEST)
    check_number(f"{name}: fps", row["fps"], 0, fix="give frames per second, 0.0 if unknown")
    are_lists = is_list(row["tracks"]) and is_list(row["relations"])
    _expect(are_lists, name, "tracks or relations that are not lists", "lists of mappings")


def _check_track(track: TrackRow, row: VideoRow, name: str) -> set[int]:
    """Refuse a malformed track; the frames in which it has a box."""
    check_fields(name, track, ("category", "score", "frames", "boxes"))
    _expect(is_text(track["category"]), f"{name}: category", repr(track["category"]), "a class name")
    check_number(f"{name}: score", track["score"])
    frames = _array(track["frames"], "iu")
    check_track(frames, _array(track["boxes"], "iuf").astype(np.float64), name, row["num_frames"])
    return set(frames.tolist())


def _check_relation(relation: RelationRow, present: list[set[int]], name: str) -> None:
    check_fields(name, relation, ("subject", "predicate", "object", "start", "end"))
    check_text(f"{name}: predicate", relation["predicate"])
    pair = [check_whole(f"{name}: {side}", relation[side], 0, len(present) - 1) for side in ("subject", "object")]
    _expect(pair[0] != pair[1], name, f"track {pair[0]} with itself", "two different tracks")
    start, end = (check_whole(f"{name}: {field}", relation[field], 0, MOST) for field in ("start", "end"))
    _expect(start < end, name, f"frames [{start}, {end})", "a first frame before the end")
    for track in pair:
        lacking = list(islice((frame for frame in range(start, end) if frame not in present[track]), 6))
        what = f"{name}: track {track} has no box in some of its frames"
        _expect(not lacking, what, f"none in {lacking[:5]} ...", f"one in each of [{start}, {end})")


def _array(values: object, kinds: str) -> np.ndarray:
    """Numbers as an array, an empty one for other values."""
    try:
        array = np.asarray(values if is_list(values) else [])
    except (TypeError, ValueError, OverflowError):
        return np.empty(0)
    return array if array.dtype.kind in kinds else np.empty(0)


def _expect(condition: object, what: str, found: object, expected: str) -> None:
    require(condition, what, found=found, expected=expected, fix="correct the annotation")
