"""`pipeline("video-relation-detection")`: a clip in, its relations with the trajectories of subject and object out.

From pixels: frames at an even pace, any detector of transformers, tracks, segments, ordered pairs, the relation head,
and the association of what continues from segment to segment. Tracks that exist already (annotated, or from elsewhere)
enter in place of the pixels.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict, get_args

import numpy as np
import torch
from torch import Tensor

from hf_causal_video.models.ivrd.outputs import VideoRelationOutput, judge_segments
from hf_causal_video.models.ivrd.processing_video_relation import VideoRelationInputs, VideoRelationProcessor
from hf_causal_video.pipelines.base import ClipPipeline, OnError, Opaque, Prepared, check_options, check_source
from hf_causal_video.tracks.track import Track
from hf_causal_video.utils.checks import check_choice
from hf_causal_video.utils.errors import require

if TYPE_CHECKING:
    from hf_causal_video.tracks.tracker import TrackedClip

SEGMENTS_PER_PASS = 8  # their pairs decide how much memory that takes
PICTURES = 20  # spread over a clip, and as many again in its best relations
CERTAIN = 20.0  # logit of a known class
Classes = Literal["model", "tracks"]
Relation = dict[str, Any]  # the layout of the public evaluation
OPTIONS = (
    "object_threshold",
    "predicate_threshold",
    "max_per_segment",
    "nms_threshold",
    "association_threshold",
    "max_gap",
    "max_per_video",
    "association_score",
)


class Clip(TypedDict):
    """One clip as a user passed it."""

    video: object
    tracks: Sequence[Track | Mapping[str, Any]] | None
    frame_size: tuple[int, int] | None
    timestamps_s: Sequence[float] | None


class VideoRelationDetectionPipeline(ClipPipeline):
    """Detect the relations between the objects of a clip.

    The detector and the tracker are those the model was trained with, named by its `trajectory_provenance`; they are
    loaded when the first clip comes. Any other `ClipTracker` can be passed as `clip_tracker`.

    Example:
        >>> from transformers import pipeline
        >>> detect = pipeline("video-relation-detection", model="org/ivrd-vidvrd")  # doctest: +SKIP
        >>> detect("clip.mp4")[0]["triplet"]  # doctest: +SKIP
        ['dog', 'chase', 'cat']
    """

    processor: VideoRelationProcessor
    inputs = ("video", "tracks", "frame_size", "timestamps_s")

    def __init__(self, *args: Any, clip_tracker: "Callable[..., TrackedClip] | None" = None, **kwargs: Any):
        self.clip_tracker = clip_tracker
        super().__init__(*args, **kwargs)

    def __call__(
        self,
        video: object = None,
        tracks: Sequence[Track | Mapping[str, Any]] | None = None,
        frame_size: tuple[int, int] | None = None,
        timestamps_s: Sequence[float] | None = None,
        return_clip: bool = False,
        on_error: OnError = "raise",
        batch_size: int | None = None,
        **options: object,
    ) -> Any:
        """Detect the relations of one clip, or of each of several.

        Args:
            video: a path, or decoded frames (T, H, W, 3) uint8 with `timestamps_s`. Also a dictionary with the
                arguments of this call; a list of paths or dictionaries; a table or dataset of such rows; or a
                generator, which is answered by a generator.
            tracks: instead of a video, its tracks: `Track`s, or `{"start", "boxes", "label"}` with boxes in pixels.
            frame_size: width and height in pixels that tracks refer to. Relations of `Track`s without it are given
                as fractions of the frame.
            timestamps_s: seconds of decoded frames, or of the frames that tracks count.
            return_clip: return a dictionary: `relations`, `tracks`, `times_s`, `frame_size`, and for drawing some
                `frames` with their `frame_indices`.
            on_error: "return" puts `{"error": message}` in the place of a clip that cannot be used.
            batch_size: clips whose segments go through the model together, 1 by default; tracked one by one.
            classes: "model" (the head's own), or "tracks" (the label of each track is its class; a track whose label
                the model does not know has no relations).
            object_threshold, predicate_threshold, max_per_segment, nms_threshold, association_threshold, max_gap,
                max_per_video, association_score: see `VideoRelationProcessor.post_process_relations`.

        Returns:
            Relations, best first: `triplet`, `score`, `duration` [first frame, frame after the last], `start_s` and
            `end_s` (where times are known), `sub_traj` and `obj_traj` with a box [left, top, right, bottom] per frame,
            in pixels. This is the layout of `vidvrd_metrics`. None without two tracks that meet.

        Raises:
            CausalVideoError: neither video nor tracks, both, an unknown argument; what decoding, tracks and the model
                refuse.
        """
        common = {"tracks": tracks, "frame_size": frame_size, "timestamps_s": timestamps_s, "return_clip": return_clip}
        return self.run_each(video, common, options, on_error, batch_size)

    def prepare(self, clip: dict[str, Any], options: Mapping[str, object]) -> Prepared:
        """Check the arguments of one clip, track what is in it, and cut it into segments."""
        return_clip = clip.pop("return_clip")
        arguments = Clip(**{name: clip.pop(name, None) for name in self.inputs})  # type: ignore[typeddict-item]
        preprocess, forward, postprocess = self._all_options({**options, **clip})
        check_source(arguments["video"], "tracks", arguments["tracks"])
        details = self.preprocess(arguments, **preprocess)
        inputs = details.pop("inputs")
        return Prepared(
            inputs, {**details, "video": arguments["video"], "return_clip": return_clip}, forward, postprocess
        )

    @property
    def padding(self) -> Mapping[str, int]:
        """Tracks that are padding are background."""
        return {"track_classes": len(self.processor.object_classes)}

    def _sanitize_parameters(self, **options: Any) -> tuple[dict[str, object], ...]:
        classes = {name: options.pop(name) for name in ("classes",) if name in options}
        check_options(options, [*OPTIONS, "classes"], type(self))
        if classes:
            check_choice("classes", classes["classes"], get_args(Classes))
        return classes, {}, options

    def preprocess(self, clip: Clip, classes: Classes = "model") -> dict[str, Any]:
        """Track what is in the clip and cut it into segments."""
        tracks = clip["tracks"]
        size = clip["frame_size"]
        times = clip["timestamps_s"]
        if clip["video"] is not None:
            tracked = self._tracker()(clip["video"], timestamps_s=times)
            tracks = tracked.tracks
            size = tracked.frame_size
            times = tracked.times_s
        assert tracks is not None
        rows = [track.to_dict(size) if isinstance(track, Track) else dict(track) for track in tracks]
        last = max((row["start"] + len(row["boxes"]) for row in rows), default=0)
        problem = f"tracks up to frame {last}, fewer times"
        fits = times is None or len(times) >= last
        require(fits, "timestamps_s", found=problem, expected="a time for every frame")
        wide = bool(self.model.config.feature_dim)
        rows = [row if wide else {name: row[name] for name in row if name != "features"} for row in rows]
        segments = self.processor(rows, frame_size=size)
        inputs = dict(segments)
        if classes == "tracks":
            inputs["track_classes"] = self._track_classes(segments, [row.get("label", "") for row in rows])
        return {
            "inputs": inputs,
            "segments": segments,
            "clip": {"tracks": list(tracks), "frame_size": size, "times_s": times},
        }

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        """Judge the segments of several clips, a few per pass."""
        inputs = model_inputs["inputs"]
        counts = model_inputs["counts"]
        output = judge_segments(self.model, inputs, SEGMENTS_PER_PASS)
        if output is None:
            return {"clips": [{"output": None} for _ in counts]}
        if "track_classes" in inputs and output.object_logits is not None:
            known = inputs["track_classes"].to(output.object_logits.device)
            certain = torch.nn.functional.one_hot(known.clamp(min=0), output.object_logits.shape[-1])
            output.object_logits = CERTAIN * (2 * certain - 1).to(output.object_logits.dtype)
        parts = [VideoRelationOutput() for _ in counts]
        for name, values in output.items():
            for part, value in zip(parts, values.split(counts), strict=True):
                part[name] = value
        return {"clips": [{"output": Opaque(part)} for part in parts]}

    def postprocess(self, model_outputs: dict[str, Any], **options: Any) -> list[Any]:
        """Join the judgements of the segments to relations of the clip."""
        clip = model_outputs["clip"]
        output = model_outputs["output"]
        relations: list[Relation] = []
        if output is not None and len(output.value.object_logits):
            [relations] = self.processor.post_process_relations(
                output.value, model_outputs["segments"], multi_label=self.model.config.multi_label, **options
            )
        times = clip["times_s"]
        if times is not None and relations:
            edges = _frame_edges(np.asarray(times, dtype=np.float64))
            for relation in relations:
                first, end = relation["duration"]
                relation["start_s"] = float(edges[first])
                relation["end_s"] = float(edges[end])
        if not model_outputs["return_clip"]:
            return [relations]
        video = model_outputs["video"]
        frames, indices = ([], []) if video is None else pictures_of(video, times, relations)
        return [{"relations": relations, **clip, "frames": frames, "frame_indices": indices}]

    def _track_classes(self, batch: VideoRelationInputs, labels: list[str]) -> Tensor:
        """Class index (B, N) of the labels of the tracks; a label the model does not know is background."""
        names = self.processor.object_classes
        known = [names.index(label) if label in names else len(names) for label in labels]
        classes = torch.full(batch["track_start"].shape, len(names))
        for row, segment in enumerate(batch.segments):
            classes[row, : len(segment.tracks)] = torch.tensor([known[track] for track in segment.tracks])
        return classes

    def _tracker(self) -> "Callable[..., TrackedClip]":
        if self.clip_tracker is None:
            card = self.model.config.trajectory_provenance
            require(
                card is not None,
                "clip",
                found="a checkpoint that does not say which tracks it was trained on",
                expected="trajectory_provenance in its config",
                fix="pass tracks=..., or pipeline(..., clip_tracker=ClipTracker(ObjectEncoder(...)))",
            )
            from hf_causal_video.tracks.tracker import ClipTracker  # needs the `video` and `track` extras

            self.clip_tracker = ClipTracker.from_provenance(
                card, device=str(self.device), checkpoint=self.model.name_or_path or None
            )
        return self.clip_tracker


def pictures_of(
    video: Any, times_s: Sequence[float], relations: Sequence[Mapping[str, Any]]
) -> tuple[list, list[int]]:
    """Some frames of a clip and which they are: even over the clip, and from the middle of its best relations.

    Args:
        video: a path, or the decoded frames themselves.
        times_s: seconds of every frame.
        relations: what the pipeline found.
    """
    last = len(times_s) - 1
    even = np.linspace(0, last, min(PICTURES, last + 1)).round().astype(int).tolist()
    middles = [min(sum(one["duration"]) // 2, last) for one in relations[:PICTURES]]
    indices = sorted({*even, *middles})
    if not isinstance(video, str | os.PathLike):
        return [np.asarray(video[index]) for index in indices], indices
    from hf_causal_video.features.decode import decode_video

    return decode_video(str(video), [float(times_s[index]) for index in indices]).frames, indices


def _frame_edges(times: np.ndarray) -> np.ndarray:
    """(T + 1,) seconds between neighbouring frames, halfway between their times."""
    steps = np.diff(times)
    step = float(np.median(steps)) if len(steps) else 0.0
    return np.concatenate([[max(times[0] - step / 2, 0.0)], (times[1:] + times[:-1]) / 2, [times[-1] + step / 2]])
