"""Readers of ImageNet-VidVRD and VidOR, and of third-party trajectories for their videos.

Why one reader for both: they share one annotation layout (a json a video: objects, a list of boxes a frame,
relations), and differ in the folders they lie in and in a version field. Sources: Shang et al., ACM MM 2017
(ImageNet-VidVRD, 800 training and 200 test videos, 35 classes, 132 predicates) and ICMR 2019 (VidOR, 7,000 and 835,
80 classes, 50 predicates).
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset

from hf_causal_video.data.relations.rows import RelationRow, TrackRow, VideoRow, relations_dataset
from hf_causal_video.data.tables import read_json
from hf_causal_video.utils.checks import check_choice, check_fields, check_file
from hf_causal_video.utils.errors import CausalVideoError, require

SOURCES = "https://huggingface.co/datasets/shangxd/imagenet-vidvrd and https://huggingface.co/datasets/shangxd/vidor"
VIDEO_COUNTS = {  # videos of the full splits, as published
    "vidvrd-train": 800,
    "vidvrd-test": 200,
    "vidor-training": 7000,
    "vidor-validation": 835,
}
FIELDS = ("video_id", "frame_count", "width", "height", "subject/objects", "trajectories", "relation_instances")
PARTS = (
    "objects with tid and category; boxes with tid and bbox; relations with subject_tid, predicate, object_tid, "
    "begin_fid and end_fid"
)
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
    require(files, "missing annotations", found=f"no json in {path}", expected="one per video", fix=f"get {SOURCES}")
    if split is not None:
        wanted = VIDEO_COUNTS[check_choice("split with a published size", split, VIDEO_COUNTS)]
        what = f"{path} is not the full split {split!r}"
        fix = "leave `split` out to read a part"
        require(len(files) == wanted, what, found=f"{len(files)} videos", expected=wanted, fix=fix)
    return relations_dataset(_row(read_json(file, SOURCES), file) for file in files)


def read_trajectories(
    path: str | Path,
    videos: Iterable[VideoRow] | Mapping[str, tuple[int, int, int]],
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
    content = read_json(check_file("file of trajectories", path), "whoever made the tracks")
    results = content.get("results", content) if isinstance(content, dict) else None
    lists = results.values() if isinstance(results, dict) else [None]
    are_lists = all(isinstance(entries, list) for entries in lists)
    require(
        are_lists, f"{path} holds no trajectories", found=lambda: repr(content)[:80], expected="{video_id: [track]}"
    )
    assert isinstance(results, dict)
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
        tracks = [_trajectory(track, f"track {number} of video {video}") for number, track in enumerate(entries)]
        width, height, count = known[video]
        row = VideoRow(
            video_id=video, width=width, height=height, fps=0.0, num_frames=count, tracks=tracks, relations=[]
        )
        rows.append(row)
    return relations_dataset(rows)


def _trajectory(track: Mapping[str, Any], name: str) -> TrackRow:
    """A track of the object task with its boxes in order of frames."""
    boxes = check_fields(name, track, ("category", "score", "trajectory"))["trajectory"]
    is_by_frame = isinstance(boxes, dict) and all(re.fullmatch("[0-9]{1,9}", frame) for frame in boxes)
    require(is_by_frame, name, found=lambda: repr(boxes)[:80], expected="{frame: [left, top, right, bottom]}")
    order = sorted(boxes, key=int)
    return {
        "category": track["category"],
        "score": track["score"],
        "frames": [int(frame) for frame in order],
        "boxes": [boxes[frame] for frame in order],
    }


def _row(annotation: Any, file: Path) -> VideoRow:
    """One annotation file as a relation row."""
    what = f"{file} is not a relation annotation"
    fix = f"get it from {SOURCES}"
    check_fields(f"annotation {file}", annotation, FIELDS, fix=fix)
    lists = [annotation[name] for name in FIELDS[-3:]]
    are_lists = all(isinstance(one, list) for one in (*lists, *(lists[1] if isinstance(lists[1], list) else ())))
    require(are_lists, what, found=f"no lists in {FIELDS[-3:]}", expected="lists", fix=fix)
    try:
        return _joined(annotation, file)
    except (KeyError, TypeError, AttributeError) as error:
        raise CausalVideoError(what, found=f"{type(error).__name__}: {error}", expected=PARTS, fix=fix) from error


def _joined(annotation: Mapping[str, Any], file: Path) -> VideoRow:
    objects = annotation["subject/objects"]
    index_of = {item["tid"]: place for place, item in enumerate(objects)}
    is_unique = len(index_of) == len(objects)
    require(is_unique, f"{file}, subject/objects", found="a tid twice", expected="each object once")
    frames_of: list[list[int]] = [[] for _ in objects]
    boxes_of: list[list[list[float]]] = [[] for _ in objects]
    for frame, boxes in enumerate(annotation["trajectories"]):
        for box in boxes:
            if box["tid"] not in index_of:  # asked of every box: no text in advance
                check_choice(f"object of a box in {file}, frame {frame}", box["tid"], index_of)
            frames_of[index_of[box["tid"]]].append(frame)
            boxes_of[index_of[box["tid"]]].append([box["bbox"][corner] for corner in CORNERS])
    seen = [place for place, boxes in enumerate(boxes_of) if boxes]  # listed, but never boxed: no track
    moved = {place: number for number, place in enumerate(seen)}
    relations: list[RelationRow] = []
    for number, relation in enumerate(annotation["relation_instances"]):
        pair = [index_of.get(relation[side], -1) for side in ("subject_tid", "object_tid")]
        are_boxed = all(place in moved for place in pair)
        problem = f"objects {relation['subject_tid']} and {relation['object_tid']}"
        require(are_boxed, f"{file}, relation {number}", found=problem, expected="two objects that have boxes")
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
        "tracks": [
            {
                "category": objects[place]["category"],
                "score": 1.0,
                "frames": frames_of[place],
                "boxes": boxes_of[place],
            }
            for place in seen
        ],
        "relations": relations,
    }
