"""Segments of annotated videos as training items: tracks with their classes, pairs with their predicates.

Why two kinds of tracks: a head must learn from tracks such as it will be asked about (a detector's), and the annotated
ones are the surest examples. Both stand in a segment; what each track and pair is called follows from its overlap with
the annotation (`relation_pairs.py`). Source: a *reconstruction* after VidVRD-II (Shang et al., ACM MM 2021).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from hf_causal_video.data.relations.labels import PairRule, segment_targets, tracks_viou
from hf_causal_video.data.relations.rows import Part, VideoRow, unbroken_tracks
from hf_causal_video.utils.errors import require

SAME_OBJECT = 0.7  # vIoU above which a detection lends its appearance to an annotated track


class RelationSegments(torch.utils.data.Dataset):
    """A map-style dataset of the segments in which something can be learned: at least one pair of decided tracks.

    The pairs without a relation are drawn again every epoch, from the seed, the epoch and the item alone, so a resumed
    run sees the same ones.

    Args:
        rows: relation rows of the annotated videos.
        object_classes, predicates: the vocabularies, by index.
        segment_begins: first frames of the segments of [first, last), such as `VideoRelationProcessor.segment_begins`.
        segment_frames: frames per segment.
        tracks: by video id, tracks as `unbroken_tracks` gives them, with or without `features`; None for the annotated
            tracks alone.
        rule: how labels are assigned.
        seed: of the choice among pairs without a relation.

    Raises:
        CausalVideoError: no video, an annotated video without an entry in `tracks`, tracks that go on after the end of
            the video, or annotated names outside the vocabularies (when the item is asked for).

    Example:
        >>> from hf_causal_video.data.relations.rows import relations_dataset
        >>> track = {"category": "dog", "score": 1.0, "frames": range(9), "boxes": [[0, 0, 9, 9]] * 9}
        >>> row = {"video_id": "v", "width": 20, "height": 10, "fps": 30.0, "num_frames": 9, "tracks": [track] * 2,
        ...        "relations": [{"subject": 0, "predicate": "chase", "object": 1, "start": 0, "end": 9}]}
        >>> data = RelationSegments(relations_dataset([row]), ["dog"], ["chase"], lambda first, last: [first], 30)
        >>> data[0]["question_id"], data[0]["pair_index"].tolist(), len(data)
        ('v:0-30', [[0, 1], [1, 0]], 1)
    """

    multi_label = True

    def __init__(
        self,
        rows: Dataset,
        object_classes: Sequence[str],
        predicates: Sequence[str],
        segment_begins: Callable[[int, int], list[int]],
        segment_frames: int,
        tracks: Mapping[str, list[Part]] | None = None,
        rule: PairRule | None = None,
        seed: int = 0,
    ):
        self.rows = rows
        self.tracks = tracks
        self.rule = rule or PairRule()
        self.seed = seed
        self.object_classes = list(object_classes)
        self.predicates = list(predicates)
        self.segment_frames = segment_frames
        self.video_ids: list[str] = rows["video_id"][:]
        missing = [] if tracks is None else [video_id for video_id in self.video_ids if video_id not in tracks]
        require(
            self.video_ids and not missing,
            "annotated videos",
            found=lambda: f"{len(self.video_ids)}, without tracks {missing[:3]}",
            expected="one or more, with tracks for each",
            fix="track the videos that are missing",
        )
        self._epoch = torch.zeros((), dtype=torch.long).share_memory_()  # workers see it move
        self._video = lru_cache(maxsize=32)(self._read)
        self.segments = self._segments(segment_begins)

    def __len__(self) -> int:
        return len(self.segments)

    def set_epoch(self, epoch: int) -> None:
        """Draw other pairs without a relation."""
        self._epoch.fill_(epoch)

    @property
    def feature_dim(self) -> int:
        """Width of a track's appearance; 0 without."""
        return 0 if self.tracks is None else int(getattr(self.tracks, "feature_dim", 0))

    @property
    def provenance(self) -> dict[str, object]:
        """Provenance of the tracks."""
        return {"tracks": "annotated"} if self.tracks is None else dict(getattr(self.tracks, "provenance", {}))

    def __getitem__(self, index: int) -> dict[str, Any]:
        place, begin = self.segments[int(index)]
        row, tracks = self._video(place)
        segment = (begin, begin + self.segment_frames)
        parts = [part for track in tracks if (part := _part(track, *segment)) is not None]
        if self.tracks is not None:
            parts += self._annotated(row, parts, segment)
        seed = (self.seed * 1_000_003 + int(self._epoch)) * 10_000_019 + int(index)
        targets = segment_targets(
            [(part["start"], part["boxes"]) for part in parts],
            row,
            segment,
            self.object_classes,
            self.predicates,
            self.rule,
            torch.Generator().manual_seed(seed % 2**63),
        )
        return {
            "question_id": f"{row['video_id']}:{segment[0]}-{segment[1]}",
            "tracks": parts,
            "frame_size": (row["width"], row["height"]),
            **targets,
        }

    def video(self, place: int) -> tuple[str, list[Part], tuple[int, int]]:
        """Id, tracks and frame size of a video, as a model is asked about it: annotation is not looked at for tracks
        that were given."""
        row, tracks = self._video(place)
        return row["video_id"], tracks, (row["width"], row["height"])

    def training_counts(self, items: Sequence[int] | None = None) -> tuple[np.ndarray, int]:
        """How often each predicate is annotated among the pairs of these items (all if None), and how many these are.

        Returns:
            (P,) counts, and the number of pairs.
        """
        counts = np.zeros(len(self.predicates))
        pairs = 0
        for item in range(len(self)) if items is None else items:
            labels = self[item]["predicate_labels"]
            counts += labels.sum(0).numpy()
            pairs += len(labels)
        return counts, pairs

    def _read(self, place: int) -> tuple[VideoRow, list[Part]]:
        row = self.rows[place]
        for track in row["tracks"]:
            track["frames"] = np.asarray(track["frames"])
            track["boxes"] = np.asarray(track["boxes"]).reshape(-1, 4)
        tracks = unbroken_tracks(row) if self.tracks is None else self.tracks[row["video_id"]]
        late = [track for track in tracks if track["start"] + len(track["boxes"]) > row["num_frames"]]
        require(
            not late,
            f"tracks of video {row['video_id']}",
            found=lambda: f"a track up to frame {late[0]['start'] + len(late[0]['boxes'])}",
            expected=f"tracks within the {row['num_frames']} frames of the annotation",
            fix="track every frame that the annotation counts (--sampling fps-RATE, the video's own rate)",
        )
        return row, tracks

    def _segments(self, segment_begins: Callable[[int, int], list[int]]) -> list[tuple[int, int]]:
        """(video, first frame) of every segment with two tracks in it, given or annotated."""
        segments = []
        for place in range(len(self.rows)):
            row, tracks = self._read(place)
            spans = [(track["start"], track["start"] + len(track["boxes"])) for track in tracks]
            if self.tracks is not None and not self.feature_dim:  # else the annotated ones lean on those given
                spans += [(part["start"], part["start"] + len(part["boxes"])) for part in unbroken_tracks(row)]
            if not spans:
                continue
            for begin in segment_begins(min(first for first, _ in spans), max(last for _, last in spans)):
                if sum(first < begin + self.segment_frames and last > begin for first, last in spans) > 1:
                    segments.append((place, begin))
        return segments

    def _annotated(self, row: VideoRow, parts: list[Part], segment: tuple[int, int]) -> list[Part]:
        """Annotated tracks of a segment, with the mean appearance of the detections that follow them; without any such
        detection a track whose appearance is wanted is left out."""
        wanted = [part for track in unbroken_tracks(row) if (part := _part(track, *segment)) is not None]
        if not self.feature_dim or not wanted or not parts:
            return [] if self.feature_dim else wanted
        one, two = ([(track["start"], track["boxes"]) for track in side] for side in (parts, wanted))
        viou = tracks_viou(one, two, segment, self.rule.inclusive)  # (N, G)
        for place, part in enumerate(wanted):
            near = [one["features"] for one, share in zip(parts, viou[:, place], strict=True) if share > SAME_OBJECT]
            means = [np.mean(np.atleast_2d(one), axis=0) for one in near if one is not None]
            part["features"] = np.mean(means, axis=0) if means else None
        return [part for part in wanted if part["features"] is not None]


class GivenTracks(Mapping):
    """Third-party trajectories as `RelationSegments` takes them, from the rows of `read_trajectories`.

    Args:
        rows: relation rows without relations, one per video.
        provenance: what made them.
    """

    feature_dim = 0

    def __init__(self, rows: Dataset, provenance: dict[str, object]):
        self.rows = rows
        self.provenance = provenance
        self._places = {video_id: place for place, video_id in enumerate(rows["video_id"])}

    def __getitem__(self, video_id: str) -> list[Part]:
        return unbroken_tracks(self.rows[self._places[video_id]])

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def vocabularies(*rows: Dataset) -> tuple[list[str], list[str]]:
    """Class and predicate names of annotations, each in alphabetical order."""
    classes: Counter[str] = Counter()
    predicates: Counter[str] = Counter()
    for one in rows:
        for row in one:
            classes.update(track["category"] for track in row["tracks"])
            predicates.update(relation["predicate"] for relation in row["relations"])
    return sorted(classes), sorted(predicates)


def _part(track: Part, begin: int, end: int) -> Part | None:
    """A track within the frames [begin, end), None where it is not there."""
    first = max(track["start"], begin)
    last = min(track["start"] + len(track["boxes"]), end)
    if first >= last:
        return None
    inside = slice(first - track["start"], last - track["start"])
    part = Part(**track)
    part["start"] = first
    part["boxes"] = track["boxes"][inside]
    features = track.get("features")
    if features is not None and np.ndim(features) == 2:
        part["features"] = features[inside]
    return part
