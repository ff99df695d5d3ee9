"""The processor of relation models: tracks of videos in, segments for the model; its judgements in, relations out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import BatchFeature, ProcessorMixin

from hf_causal_video.models.configuration import check_auto_class
from hf_causal_video.models.ivrd.association import Relation, associate, suppress
from hf_causal_video.models.ivrd.outputs import VideoRelationOutput
from hf_causal_video.models.ivrd.tracks import (
    as_fractions,
    read_boxes,
    read_features,
    read_frame_sizes,
    read_start,
    read_videos,
)
from hf_causal_video.utils.checks import check_choice, check_number, check_whole
from hf_causal_video.utils.errors import require

SAME_INPUTS = "pass the inputs of this very output, and the processor of this model"


@dataclass
class Segment:
    """One row of the batch: a stretch of a video, and which of its tracks are there.

    Args:
        video: index of the video among those given.
        start: first frame of the segment.
        tracks: index of each track among the video's.
    """

    video: int
    start: int
    tracks: list[int]


class VideoRelationInputs(BatchFeature):
    """Model inputs; segments, boxes and first frames are attributes outside the mapping, so `model(**inputs)` works.

    They survive pickle, copies and data loader workers.
    """

    segments: list[Segment]
    boxes: list[list[np.ndarray]]  # of each video and track (L, 4), in the user's units
    starts: list[list[int]]

    def __getstate__(self) -> dict[str, object]:
        return dict(self.__dict__)

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)


class VideoRelationProcessor(ProcessorMixin):
    """Cut videos into segments for a relation model, and join its judgements to relations of whole videos.

    Args:
        object_classes: class names, by index; the model has one class more, background.
        predicates: predicate names, by index.
        segment_frames, segment_stride: length of a segment and distance between two, in frames.

    Example:
        >>> processor = VideoRelationProcessor(["dog", "cat"], ["chase"], segment_frames=4, segment_stride=2)
        >>> track = {"start": 0, "boxes": [[0, 0, 9, 9]] * 6}
        >>> inputs = processor([track, track | {"start": 3}], frame_size=(100, 50))
        >>> [(segment.start, segment.tracks) for segment in inputs.segments], inputs["track_boxes"].shape
        ([(0, [0, 1]), (2, [0, 1]), (4, [0, 1]), (5, [0, 1])], torch.Size([4, 2, 4, 4]))
    """

    def __init__(
        self, object_classes: list[str], predicates: list[str], segment_frames: int = 30, segment_stride: int = 15
    ):
        for name, words in (("object_classes", object_classes), ("predicates", predicates)):
            named = isinstance(words, list | tuple) and all(isinstance(word, str) and word for word in words)
            fits = named and words and len(set(words)) == len(words)
            require(fits, name, found=partial("{!r:.80}".format, words), expected="a list of different names")
        check_whole("segment_frames", segment_frames, 1, 2**31 - 1)
        check_whole("segment_stride", segment_stride, 1, segment_frames, fix="lower it, so that no frame is skipped")
        self.object_classes = list(object_classes)
        self.predicates = list(predicates)
        self.segment_frames = segment_frames
        self.segment_stride = segment_stride
        super().__init__()

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoProcessor") -> None:
        """Refuse where the saved code would need this package; see `check_auto_class`."""
        check_auto_class(cls)
        super().register_for_auto_class(auto_class)

    @property
    def model_input_names(self) -> list[str]:
        """Names of all tensors that `__call__` may return."""
        return ["track_boxes", "track_mask", "track_start", "track_features"]

    def __call__(
        self,
        tracks: Sequence[Mapping[str, object]] | Sequence[Sequence[Mapping[str, object]]],
        frame_size: tuple[int, int] | Sequence[tuple[int, int]] | None = None,
        return_tensors: str = "pt",
    ) -> VideoRelationInputs:
        """Make one batch of segments.

        A video shorter than a segment is one segment; the last segment ends with the last track. Boxes that reach over
        the edge of the frame are cut there for the model, and returned whole. A video with fewer than two tracks, or
        whose tracks never meet, has no pairs and therefore no relations.

        Args:
            tracks: of one video or of several: `{"start": first frame, "boxes": (L, 4) xyxy, one box per frame}` and,
                where the model reads appearance, `"features"`: (C,) or (L, C).
            frame_size: width and height in pixels, of all videos or of each; None: boxes are fractions of the frame.
            return_tensors: "pt".

        Raises:
            CausalVideoError: inverted boxes, NaN, an empty track, pixels without a frame size, features on some
                tracks only.
        """
        check_choice("return_tensors", return_tensors, ("pt",), fix="convert afterwards")
        videos = read_videos(tracks)
        sizes = read_frame_sizes(frame_size, len(videos))
        boxes = [
            [read_boxes(track, f"track {i} of video {v}") for i, track in enumerate(video_tracks)]
            for v, video_tracks in enumerate(videos)
        ]
        starts = [[read_start(track) for track in video_tracks] for video_tracks in videos]
        segments = [segment for v in range(len(videos)) for segment in self._segments(v, boxes[v], starts[v])]
        features = read_features(videos, boxes)

        count = max((len(segment.tracks) for segment in segments), default=0)
        shape = (len(segments), count, self.segment_frames)
        data = {
            "track_boxes": torch.zeros(*shape, 4),
            "track_mask": torch.zeros(shape, dtype=torch.bool),
            "track_start": torch.zeros(shape[:2], dtype=torch.long),
        }
        if features is not None:
            data["track_features"] = torch.zeros(*shape, next(one for video in features for one in video).shape[-1])
        for row, segment in enumerate(segments):
            size = sizes[segment.video]
            for place, index in enumerate(segment.tracks):
                begin, end = self._part(segment, boxes[segment.video][index], starts[segment.video][index])
                part = slice(begin - starts[segment.video][index], end - starts[segment.video][index])
                fractions = as_fractions(boxes[segment.video][index][part], size)
                data["track_boxes"][row, place, : end - begin] = fractions
                data["track_mask"][row, place, : end - begin] = True
                data["track_start"][row, place] = begin - segment.start
                if features is not None:
                    data["track_features"][row, place, : end - begin] = features[segment.video][index][part]
        inputs = VideoRelationInputs(data)
        inputs.segments = segments
        inputs.boxes = boxes
        inputs.starts = starts
        return inputs

    def segment_begins(self, first: int, last: int) -> list[int]:
        """First frames of the segments that cover the frames [first, last).

        Example:
            >>> VideoRelationProcessor(["dog"], ["chase"], segment_frames=30, segment_stride=15).segment_begins(0, 70)
            [0, 15, 30, 40]
        """
        begins = list(range(first, last - self.segment_frames + 1, self.segment_stride)) or [first]
        return begins if begins[-1] + self.segment_frames >= last else [*begins, last - self.segment_frames]

    def post_process_relations(
        self,
        output: VideoRelationOutput,
        inputs: VideoRelationInputs,
        *,
        multi_label: bool = True,
        object_threshold: float = 0.2,
        predicate_threshold: float = 0.2,
        max_per_segment: int = 100,
        nms_threshold: float = 0.9,
        association_threshold: float = 0.5,
        max_gap: int = 30,
        max_per_video: int = 200,
        association_score: Literal["sum", "mean"] = "sum",
    ) -> list[list[dict[str, Any]]]:
        """Relations of every video, best first, in the layout of the public evaluation.

        Args:
            output: what the model returned for `inputs` (all pairs, or some).
            inputs: what this processor returned.
            multi_label: `model.config.multi_label`: predicates are sigmoids, or one softmax.
            object_threshold, predicate_threshold: least confidence of a class and of a predicate.
            max_per_segment: candidates of a segment that are kept, by the product of the three confidences.
            nms_threshold: of one triplet, a candidate that overlaps a better one by more is dropped.
            association_threshold, max_gap: how parts of consecutive segments are joined, see `associate`.
            max_per_video: relations of a video that are kept.
            association_score: "sum" of the segments' scores (VidVRD-II), which may exceed 1, or their "mean"
                (VidVRD-helper).

        Returns:
            One list per video, in the order given: `{"triplet", "score", "duration": [first frame, after the last],
            "sub_traj", "obj_traj"}`, boxes in the units given.

        Raises:
            CausalVideoError: an output that does not belong to these inputs or vocabularies, NaN in it, or a threshold
                or limit outside its range.
        """
        limits = {"max_per_segment": max_per_segment, "max_per_video": max_per_video, "max_gap": max_gap}
        for name, limit in limits.items():
            check_whole(name, limit, 0)
        thresholds = {
            "object_threshold": object_threshold,
            "predicate_threshold": predicate_threshold,
            "nms_threshold": nms_threshold,
            "association_threshold": association_threshold,
        }
        for name, threshold in thresholds.items():
            check_number(name, threshold, 0, 1)
        check_choice("association_score", association_score, ("sum", "mean"))
        logits, classes, where = self._checked(output, inputs)
        predicates = logits.sigmoid() if multi_label else logits.softmax(-1)  # (R, P)
        objects = classes.softmax(-1)[..., :-1]  # (B, N, C), background dropped
        candidates = self._candidates(objects, predicates, where, object_threshold, predicate_threshold)
        videos: list[list[list[Relation]]] = [[] for _ in inputs.boxes]
        for row, segment in enumerate(inputs.segments):
            own_rows = (candidates["row"] == row).nonzero().squeeze(1)
            best = own_rows[candidates["score"][own_rows].argsort(descending=True, stable=True)[:max_per_segment]]
            relations = [self._relation(candidates, int(i), segment, inputs) for i in best]
            videos[segment.video].append(suppress(relations, nms_threshold))
        results = []
        for segments in videos:
            joined = suppress(associate(segments, association_threshold, max_gap), nms_threshold)
            rows = [relation.to_dict(association_score) for relation in joined]
            results.append(sorted(rows, key=lambda relation: -relation["score"])[:max_per_video])
        return results

    def _candidates(
        self, objects: Tensor, predicates: Tensor, where: Tensor, object_min: float, predicate_min: float
    ) -> dict[str, Tensor]:
        """Every (pair, predicate, subject class, object class) above the thresholds, as columns of equal length."""
        # No more than 1 / threshold classes can exceed it, so these many are enough.
        most = objects.shape[-1] if object_min <= 0 else min(objects.shape[-1], math.floor(1 / object_min))
        confidence, label = objects.topk(most, dim=-1)  # (B, N, k)
        pair, predicate = (predicates > predicate_min).nonzero().unbind(1)  # (K,)
        row, subject, other = where[pair].unbind(1)
        of_subject = confidence[row, subject]  # (K, k)
        of_other = confidence[row, other]
        score = predicates[pair, predicate, None, None] * of_subject.unsqueeze(2) * of_other.unsqueeze(1)  # (K, k, k)
        allowed = (of_subject > object_min).unsqueeze(2) & (of_other > object_min).unsqueeze(1)
        which, i, j = allowed.nonzero().unbind(1)
        return {
            "row": row[which],
            "subject": subject[which],
            "object": other[which],
            "predicate": predicate[which],
            "subject_class": label[row[which], subject[which], i],
            "object_class": label[row[which], other[which], j],
            "score": score[which, i, j],
        }

    def _relation(
        self, candidates: dict[str, Tensor], i: int, segment: Segment, inputs: VideoRelationInputs
    ) -> Relation:
        """Candidate i with its two trajectories on the frames that both tracks have in this segment."""
        boxes = inputs.boxes[segment.video]
        starts = inputs.starts[segment.video]
        tracks = [segment.tracks[int(candidates[side][i])] for side in ("subject", "object")]
        parts = [self._part(segment, boxes[track], starts[track]) for track in tracks]
        first, last = max(part[0] for part in parts), min(part[1] for part in parts)
        pair = np.stack([boxes[track][first - starts[track] : last - starts[track]] for track in tracks])
        subject, other = (self.object_classes[int(candidates[side][i])] for side in ("subject_class", "object_class"))
        triplet = (subject, self.predicates[int(candidates["predicate"][i])], other)
        return Relation(triplet, [float(candidates["score"][i])], first, pair)

    def _segments(self, video: int, boxes: list[np.ndarray], starts: list[int]) -> list[Segment]:
        if not boxes:
            return []
        first, last = min(starts), max(start + len(track) for start, track in zip(starts, boxes, strict=True))
        step = self.segment_stride
        begins = {first, max(first, last - self.segment_frames)}
        for start, track in zip(starts, boxes, strict=True):  # as `segment_begins`, but not where no track is
            low = max(0, -(-(start - self.segment_frames + 1 - first) // step))
            high = min(start + len(track) - 1 - first, last - self.segment_frames - first) // step
            begins |= {first + place * step for place in range(low, high + 1)}
        segments = [Segment(video, begin, []) for begin in sorted(begins)]
        for segment in segments:
            for index, track in enumerate(boxes):
                begin, end = self._part(segment, track, starts[index])
                if begin < end:
                    segment.tracks.append(index)
        return [segment for segment in segments if segment.tracks]

    def _part(self, segment: Segment, boxes: np.ndarray, start: int) -> tuple[int, int]:
        """Frames [begin, end) of a track inside a segment."""
        return max(start, segment.start), min(start + len(boxes), segment.start + self.segment_frames)

    def _checked(self, output: VideoRelationOutput, inputs: VideoRelationInputs) -> tuple[Tensor, Tensor, Tensor]:
        """Predicate logits (R, P), class logits (B, N, C + 1), and (R, 3) row, subject and object of each pair."""
        parts = (output.predicate_logits, output.object_logits, output.pair_index)
        whole = all(part is not None for part in parts)
        require(whole, "relations", found="an output without logits or pairs", expected="that of a relation model")
        logits, objects, index = (part.detach().cpu() for part in parts if part is not None)
        expected = (len(inputs.segments), len(self.object_classes), len(self.predicates))
        candidates = (len(objects), objects.shape[-1] - 1, logits.shape[-1])
        problem = f"(segments, classes, predicates) = {candidates}, pairs {tuple(index.shape)} in the output"
        fits = candidates == expected and index.shape == (*logits.shape[:2], 2) and len(logits) == len(objects)
        require(fits, "relations", found=problem, expected=expected, fix=SAME_INPUTS)
        real = (index >= 0).all(-1)  # (B, R)
        where = torch.cat([real.nonzero()[:, :1], index[real]], 1)  # (n, 3)
        apart = [pair for pair in where.tolist() if not self._meet(inputs, *pair)]
        require(not apart, "relations", found=apart[:3], expected="two tracks that share a frame", fix=SAME_INPUTS)
        logits = logits[real]
        finite = logits.isfinite().all() and objects.isfinite().all()
        fix = "check the features for NaN; in half precision, try bfloat16"
        require(finite, "relations", found="NaN or infinity among the logits", expected="finite logits", fix=fix)
        return logits.float(), objects.float(), where

    def _meet(self, inputs: VideoRelationInputs, row: int, subject: int, other: int) -> bool:
        """Return True if a pair is two tracks of a segment with a common frame."""
        if not 0 <= row < len(inputs.segments) or subject == other:
            return False
        segment = inputs.segments[row]
        if not 0 <= min(subject, other) <= max(subject, other) < len(segment.tracks):
            return False
        boxes = inputs.boxes[segment.video]
        starts = inputs.starts[segment.video]
        parts = [self._part(segment, boxes[t], starts[t]) for t in (segment.tracks[subject], segment.tracks[other])]
        return max(part[0] for part in parts) < min(part[1] for part in parts)
