"""`hf-causal-video relations`: the relations of one clip on the terminal, as JSON, as a picture, as a page."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hf_causal_video.cli.options import FONT, argument, option
from hf_causal_video.cli.pictures import check_picture, font_path, write_picture
from hf_causal_video.utils.checks import check_number
from hf_causal_video.utils.errors import CausalVideoError, require

if TYPE_CHECKING:
    from hf_causal_video.pipelines.relation_detection import VideoRelationDetectionPipeline
    from hf_causal_video.tracks.tracker import ClipTracker

EXAMPLES = """examples:
  hf-causal-video relations outputs/ivrd clip.mp4
  hf-causal-video relations outputs/ivrd clip.mp4 --html out.html --png out.png
  hf-causal-video relations outputs/ivrd clip.mp4 --detector PekingU/rtdetr_r50vd --classes tracks
  hf-causal-video relations outputs/ivrd clip.mp4 --tracks annotation.json --json
"""


@dataclass(kw_only=True)
class Options:
    """Detect the relations between the objects of a clip."""

    checkpoint: str = argument("folder or Hub id of a trained relation model")
    video: str = argument("a video file")
    detector: str | None = option("folder or Hub id of a detector (default: the one the model was trained with)", None)
    sampling: str | None = option('frames to look at, such as "fps-10" (default: as the model was trained)', None)
    tracks: Path | None = option("tracks of this clip, in the json of VidVRD and VidOR annotations", None)
    classes: Literal["model", "tracks"] = option("who names the objects", "model")
    threshold: float = option("least confidence of a predicate", 0.2)
    top: int = option("relations to print; --json gives all", 20)
    html: Path | None = option("write a self-contained page with tracks and relations", None)
    png: Path | None = option("write a picture with tracks and relations", None)
    font: Path | None = option(FONT, None)
    json: bool = option("print JSON, in the layout of the public evaluation", False)
    device: str = option("cpu, cuda, cuda:1, ...", "cpu")


def run(options: Options) -> None:
    """Detect, print and draw."""
    from hf_causal_video.models import RELATION_METHODS
    from hf_causal_video.pipelines.relation_detection import pictures_of

    check_picture(options.png, options.font)
    detect = load_relation_pipeline(options.checkpoint, device=options.device)
    method = detect.model.config.model_type
    require(
        method in RELATION_METHODS,
        "wrong kind of model",
        found=f"a {method} in {options.checkpoint}",
        expected=f"one of {', '.join(RELATION_METHODS)}",
        fix="question models go to `hf-causal-video answer`",
    )
    how: dict[str, Any] = {"classes": options.classes, "predicate_threshold": options.threshold, "return_clip": True}
    if options.tracks:
        clip = detect(**read_tracks(options.tracks), **how)
        clip["frames"], clip["frame_indices"] = pictures_of(options.video, clip["times_s"], clip["relations"])
    else:
        if detect.clip_tracker is None or options.detector or options.sampling:
            detect.clip_tracker = _tracker(detect, options)
        clip = detect(options.video, **how)
    relations = clip["relations"]
    if options.json:
        print(json.dumps({"frame_size": clip["frame_size"], "tracks": len(clip["tracks"]), "relations": relations}))
    else:
        _print(relations[: options.top], len(relations), len(clip["tracks"]))
    if options.html or options.png:
        _draw(options, clip)


def _draw(options: Options, clip: Mapping[str, Any]) -> None:
    from hf_causal_video.viewer.relations import RelationCase
    from hf_causal_video.viewer.relations_page import write_relations
    from hf_causal_video.viewer.relations_picture import draw_relations

    name = Path(options.video).name
    case = RelationCase(
        clip["relations"], clip["frames"], clip["frame_indices"], clip["frame_size"], clip["times_s"], name
    )
    if options.png:
        write_picture(options.png, draw_relations(case, font_path=font_path(options.font)))
    if options.html:
        write_relations(options.html, case)
        print(f"written: {options.html}", file=sys.stderr)


def load_relation_pipeline(checkpoint: str | Path, device: str = "cpu") -> "VideoRelationDetectionPipeline":
    """The pipeline of a checkpoint folder or Hub id, its faults in words."""
    from transformers import pipeline

    from hf_causal_video.models.loading import open_pretrained
    from hf_causal_video.pipelines.registration import RELATION_TASK

    return open_pretrained(partial(pipeline, RELATION_TASK), checkpoint, device=device)


def read_tracks(path: Path) -> dict[str, Any]:
    """The tracks of one annotated video, its frame size and the times of its frames, as the pipeline takes them."""
    import numpy as np

    from hf_causal_video.data.relations.rows import unbroken_tracks
    from hf_causal_video.data.relations.vidvrd import read_relations

    row = read_relations(path)[0]
    check_number(f"fps of {path}", row["fps"], above=0, fix="write the field fps into the annotation")
    return {
        "tracks": [part | {"label": part["category"]} for part in unbroken_tracks(row)],
        "frame_size": (row["width"], row["height"]),
        "timestamps_s": (np.arange(row["num_frames"]) + 0.5) / row["fps"],
    }


def _tracker(detect: "VideoRelationDetectionPipeline", options: Options) -> "ClipTracker":
    """Tracker of the clip: the one the model was trained with, changed by the flags."""
    from hf_causal_video.features.encoders import ObjectEncoder
    from hf_causal_video.tracks.tracker import LINKER, ClipTracker

    card = detect.model.config.trajectory_provenance
    changed: dict[str, Any] = {"sampling": options.sampling} if options.sampling else {}
    if card is None:
        if not options.detector:
            raise CausalVideoError(
                "--detector",
                found="none, and a model that does not say which tracks it was trained on",
                expected="a detector",
                fix="add --detector with a folder or Hub id, or --tracks with a file of tracks",
            )
        return ClipTracker(ObjectEncoder(options.detector, device=options.device), **changed)
    require(
        card.get("tracker") == LINKER,
        "tracks of this clip",
        found=f"a model trained on tracks that were not made from pixels here: {card}",
        expected="tracks made in the same way",
        fix="add --tracks with a file of them; --detector makes others",
    )
    return ClipTracker.from_provenance({**card, **changed}, options.detector, options.device, options.checkpoint)


def _print(relations: Sequence[Mapping[str, Any]], count: int, tracks: int) -> None:
    print(f"{count} relation{'s' * (count != 1)} between {tracks} tracks")
    for one in relations:
        subject, predicate, other = one["triplet"]
        when = (
            f"{one['start_s']:6.1f} to {one['end_s']:.1f} s"
            if "start_s" in one
            else "frames {}-{}".format(*one["duration"])
        )
        print(f"{one['score']:6.2f}  {when:<18}  {subject} {predicate} {other}")
