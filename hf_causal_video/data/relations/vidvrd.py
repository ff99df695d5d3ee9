"""Readers of ImageNet-VidVRD and VidOR, and of third-party trajectories for their videos.

Why one reader for both: they share one annotation layout (a json a video: objects, a list of boxes a frame,
relations), and differ in the folders they lie in and in a version field. Sources: Shang et al., ACM MM 2017
(ImageNet-VidVRD, 800 training and 200 test videos, 35 classes, 132 predicates) and ICMR 2019 (VidOR, 7,000 and 835,
80 classes, 50 predicates).
"""

import re
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset

from hf_causal_video.data.relations.rows import relations_dataset
from hf_causal_video.data.tables import read_json
from hf_causal_video.utils.errors import CausalVideoError, require

SOURCES = "https://huggingface.co/datasets/shangxd/imagenet-vidvrd and https://huggingface.co/datasets/shangxd/vidor"
VIDEO_COUNTS = {  # videos of the full splits, as published
    "vidvrd-train": 800,
    "vidvrd-test": 200,
    "vidor-training": 7000,
    "vidor-validation": 835,
}
FIELDS = ("video_id", "frame_count", "width", "height", "subject/objects", "trajectories", "relation_instances")
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_relations(path: str | Path, split: str | None = None) -> Dataset:
    """Read annotations of VidVRD or VidOR into relation rows.

    Args:
        path: the folder of a split (json files in it or below it), or one json file.
        split: one of `VIDEO_COUNTS`; where given, the number of videos must be the published one.

    Raises:
        CausalVideoError: no such folder, no json in it, a missing field, a box of an object that is not listed, a
            malformed row (see `relations_dataset`), another number of videos than published.

    Source: Shang et al., ACM MM 2017 and ICMR 2019.

    Example:
        >>> read_relations("no/such/folder")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: ...
    """
    path = Path(path)
    files = [path] if path.is_file() else sorted(path.rglob("*.json"))
    require(
        files,
        "annotations are not there",
        found=f"no json in {path}",
        expected="one json per video",
        fix=f"download them from {SOURCES}",
    )
    if split is not None and len(files) != VIDEO_COUNTS.get(split):
        _fail(
            f"{path} is not the full split {split!r}",
            f"{len(files)} videos",
            VIDEO_COUNTS.get(split) or f"a split of {sorted(VIDEO_COUNTS)}",
            "leave `split` out to read a part",
        )
    return relations_dataset(_row(read_json(file, SOURCES), file) for file in files)


def read_trajectories(
    path: str | Path,
    videos: Iterable[Mapping[str, Any]] | Mapping[str, tuple[int, int, int]],
    others: Literal["error", "ignore"] = "error",
) -> Dataset:
    """Read third-party trajectories into relation rows without relations.

    Args:
        path: json, plain or gzipped, in the layout of the VidOR object task: `{"results": {video_id: [{"category",
            "score", "trajectory": {frame: [left, top, right, bottom]}}]}}`, or the mapping alone.
        videos: what is known of the videos: relation rows, or `{video_id: (width, height, number of frames)}`.
        others: videos of the file that `videos` does not have are an "error", or left out ("ignore").

    Raises:
        CausalVideoError: no such file, a video that `videos` does not have, or a malformed track.

    Example:
        >>> read_trajectories("no/such.json", {})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: ...
    """
    path = Path(path)
    require(
        path.is_file(),
        "trajectories are not there",
        found=f"no file {path}",
        expected="a json of the object task",
        fix="run a tracker first",
    )
    content = read_json(path, "whoever made the tracks")
    results = content.get("results", content) if isinstance(content, dict) else content
    require(
        isinstance(results, dict) and all(isinstance(entries, list) for entries in results.values()),
        f"{path} holds no trajectories",
        found=lambda: repr(content)[:80],
        expected="{video_id: [track]}",
        fix="see `read_trajectories`",
    )
    known = (
        videos
        if isinstance(videos, Mapping)
        else {row["video_id"]: (row["width"], row["height"], row["num_frames"]) for row in videos}
    )
    unknown = sorted(set(results) - set(known))
    require(
        not unknown or others != "error",
        f"{path} has tracks of unknown videos",
        found=lambda: f"{len(unknown)}, first {unknown[:3]}",
        expected=f"ids such as {sorted(known)[:3]}",
        fix="name the size and length of these videos, or drop their tracks",
    )
    rows = []
    for video, entries in results.items():
        if video not in known:
            continue
        tracks = []
        for number, track in enumerate(entries):
            require(
                isinstance(track, dict) and not {"category", "score", "trajectory"} - set(track),
                f"track {number} of video {video}",
                found=partial("{!r:.80}".format, track),
                expected="category, score, trajectory",
                fix="fix the file",
            )
            boxes = track["trajectory"]
            require(
                isinstance(boxes, dict) and all(re.fullmatch("[0-9]{1,9}", frame) for frame in boxes),
                f"track {number} of video {video}",
                found=partial("{!r:.80}".format, boxes),
                expected="{frame: [left, top, right, bottom]}",
                fix="fix the file",
            )
            order = sorted(boxes, key=int)
            tracks.append(
                {
                    "category": track["category"],
                    "score": track["score"],
                    "frames": [int(frame) for frame in order],
                    "boxes": [boxes[frame] for frame in order],
                }
            )
        width, height, count = known[video]
        rows.append(
            {
                "video_id": video,
                "width": width,
                "height": height,
                "fps": 0.0,
                "num_frames": count,
                "tracks": tracks,
                "relations": [],
            }
        )
    return relations_dataset(rows)


def _row(annotation: Any, file: Path) -> dict[str, Any]:
    """One annotation file as a relation row."""
    if not isinstance(annotation, dict) or (missing := [name for name in FIELDS if name not in annotation]):
        problem = f"no {missing}" if isinstance(annotation, dict) else type(annotation).__name__
        _fail(f"{file} is not a relation annotation", problem, list(FIELDS), f"get it from {SOURCES}")
    lists = [annotation[name] for name in FIELDS[-3:]]
    require(
        all(isinstance(one, list) for one in (*lists, *(lists[1] if isinstance(lists[1], list) else ()))),
        f"{file} is not a relation annotation",
        found=lambda: f"no lists in {FIELDS[-3:]}",
        expected="lists",
        fix=f"get it from {SOURCES}",
    )
    try:
        return _joined(annotation, file)
    except (KeyError, TypeError, AttributeError) as error:
        raise CausalVideoError(
            f"{file} is not a relation annotation",
            found=f"{type(error).__name__}: {error}",
            expected="objects with tid and category; boxes with tid and bbox; relations with subject_tid, predicate, "
            "object_tid, begin_fid and end_fid",
            fix=f"get it from {SOURCES}",
        ) from error


def _joined(annotation: Mapping[str, Any], file: Path) -> dict[str, Any]:
    index_of = {item["tid"]: place for place, item in enumerate(annotation["subject/objects"])}
    require(
        len(index_of) == len(annotation["subject/objects"]),
        f"{file}, subject/objects",
        found="a tid that is there twice",
        expected="each object once",
        fix="fix the annotation",
    )
    tracks: list[dict[str, Any]] = [
        {"category": item["category"], "score": 1.0, "frames": [], "boxes": []}
        for item in annotation["subject/objects"]
    ]
    for frame, boxes in enumerate(annotation["trajectories"]):
        for box in boxes:
            require(
                box["tid"] in index_of,
                f"{file}, frame {frame}",
                found=f"a box of object {box['tid']}",
                expected=f"one of {list(index_of)}",
                fix="fix the file",
            )
            track = tracks[index_of[box["tid"]]]
            track["frames"].append(frame)
            track["boxes"].append([box["bbox"][corner] for corner in CORNERS])
    seen = [place for place, track in enumerate(tracks) if track["frames"]]  # listed, but never boxed: no track
    moved = {place: number for number, place in enumerate(seen)}
    relations = []
    for number, relation in enumerate(annotation["relation_instances"]):
        pair = [index_of.get(relation[side], -1) for side in ("subject_tid", "object_tid")]
        require(
            not any(place not in moved for place in pair),
            f"{file}, relation {number}",
            found=f"objects {relation['subject_tid']} and {relation['object_tid']}",
            expected="two objects that have boxes",
            fix="fix the annotation",
        )
        relations.append(
            {
                "subject": moved[pair[0]],
                "predicate": relation["predicate"],
                "object": moved[pair[1]],
                "start": relation["begin_fid"],
                "end": relation["end_fid"],
            }
        )
    video = annotation["video_id"]
    return {
        "video_id": str(video) if isinstance(video, int) else video,
        "width": annotation["width"],
        "height": annotation["height"],
        "fps": annotation.get("fps", 0.0),
        "num_frames": max(annotation["frame_count"], len(annotation["trajectories"])),
        "tracks": [tracks[place] for place in seen],
        "relations": relations,
    }


def _fail(what: str, found: object, expected: object, fix: str) -> None:
    raise CausalVideoError(what, found=found, expected=expected, fix=fix)
