"""`hf-causal-video relations`: the relations of one clip on the terminal, as JSON, as a picture, as a page."""

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hf_causal_video.cli.pictures import add_font_argument, check_picture, font_path, write_picture
from hf_causal_video.models import RELATION_METHODS
from hf_causal_video.models.loading import open_pretrained
from hf_causal_video.pipelines.registration import RELATION_TASK
from hf_causal_video.pipelines.relation_detection import VideoRelationDetectionPipeline, pictures_of
from hf_causal_video.utils.errors import require

EXAMPLES = """examples:
  hf-causal-video relations outputs/ivrd clip.mp4
  hf-causal-video relations outputs/ivrd clip.mp4 --html out.html --png out.png
  hf-causal-video relations outputs/ivrd clip.mp4 --detector PekingU/rtdetr_r50vd --classes tracks
  hf-causal-video relations outputs/ivrd clip.mp4 --tracks annotation.json --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb `relations`."""
    parser.epilog, parser.formatter_class = EXAMPLES, argparse.RawDescriptionHelpFormatter
    parser.add_argument("checkpoint", help="folder or Hub id of a trained relation model")
    parser.add_argument("video", help="a video file")
    parser.add_argument(
        "--detector", help="folder or Hub id of a detector (default: the one the model was trained with)"
    )
    parser.add_argument("--sampling", help='frames to look at, such as "fps-10" (default: as the model was trained)')
    parser.add_argument("--tracks", type=Path, help="tracks of this clip, in the json of VidVRD and VidOR annotations")
    parser.add_argument("--classes", choices=("model", "tracks"), default="model", help="who names the objects")
    parser.add_argument("--threshold", type=float, default=0.2, help="least confidence of a predicate (default: 0.2)")
    parser.add_argument("--top", type=int, default=20, help="relations to print (default: 20; --json gives all)")
    parser.add_argument("--html", type=Path, help="write a self-contained page with tracks and relations")
    parser.add_argument("--png", type=Path, help="write a picture with tracks and relations")
    add_font_argument(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, in the layout of the public evaluation")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")


def run(args: argparse.Namespace) -> None:
    """Detect, print and draw."""
    check_picture(args, args.png)
    detect = load_relation_pipeline(args.checkpoint, device=args.device)
    require(
        detect.model.config.model_type in RELATION_METHODS,
        "no relation model",
        found=lambda: f"a {detect.model.config.model_type} in {args.checkpoint}",
        expected=f"one of {', '.join(RELATION_METHODS)}",
        fix="question models go to `hf-causal-video answer`",
    )
    options = {"classes": args.classes, "predicate_threshold": args.threshold, "return_clip": True}
    if args.tracks:
        clip = detect(**read_tracks(args.tracks), **options)
        clip["frames"], clip["frame_indices"] = pictures_of(args.video, clip["times_s"], clip["relations"])
    else:
        if detect.clip_tracker is None or args.detector or args.sampling:
            detect.clip_tracker = _tracker(detect, args)
        clip = detect(args.video, **options)
    relations = clip["relations"]
    if args.json:
        print(json.dumps({"frame_size": clip["frame_size"], "tracks": len(clip["tracks"]), "relations": relations}))
    else:
        _print(relations[: args.top], len(relations), len(clip["tracks"]))
    if args.html or args.png:
        from hf_causal_video.viewer.relations import RelationCase
        from hf_causal_video.viewer.relations_page import write_relations
        from hf_causal_video.viewer.relations_picture import draw_relations

        case = RelationCase(
            relations,
            clip["frames"],
            clip["frame_indices"],
            clip["frame_size"],
            clip["times_s"],
            Path(args.video).name,
        )
        if args.png:
            write_picture(args.png, draw_relations(case, font_path=font_path(args)))
        if args.html:
            write_relations(args.html, case)
            print(f"written: {args.html}", file=sys.stderr)


def load_relation_pipeline(checkpoint: str | Path, **kwargs: Any) -> VideoRelationDetectionPipeline:
    """The pipeline of a checkpoint folder or Hub id, its faults in words."""
    from transformers import pipeline

    return open_pretrained(partial(pipeline, RELATION_TASK), checkpoint, **kwargs)


def read_tracks(path: Path) -> dict[str, Any]:
    """The tracks of one annotated video, its frame size and the times of its frames, as the pipeline takes them."""
    from hf_causal_video.data.relations.rows import unbroken_tracks
    from hf_causal_video.data.relations.vidvrd import read_relations

    row = read_relations(path)[0]
    require(
        row["fps"] > 0,
        f"tracks of {path}",
        found=lambda: f"fps {row['fps']}",
        expected="frames per second above 0",
        fix="write the field fps into the annotation",
    )
    return {
        "tracks": [part | {"label": part["category"]} for part in unbroken_tracks(row)],
        "frame_size": (row["width"], row["height"]),
        "timestamps_s": (np.arange(row["num_frames"]) + 0.5) / row["fps"],
    }


def _tracker(detect: VideoRelationDetectionPipeline, args: argparse.Namespace) -> Any:
    """Tracker of the clip: the one the model was trained with, changed by the flags."""
    from hf_causal_video.features.encoders import ObjectEncoder
    from hf_causal_video.tracks.tracker import LINKER, ClipTracker

    card, changed = detect.model.config.trajectory_provenance, {"sampling": args.sampling} if args.sampling else {}
    if card is None:
        require(
            args.detector,
            "--detector",
            found="none, and a model that does not say which tracks it was trained on",
            expected="a detector",
            fix="add --detector with a folder or Hub id, or --tracks with a file of tracks",
        )
        return ClipTracker(ObjectEncoder(args.detector, device=args.device), **changed)
    require(
        card.get("tracker") == LINKER,
        "tracks of this clip",
        found=f"a model trained on tracks that were not made from pixels here: {card}",
        expected="tracks made in the same way",
        fix="add --tracks with a file of them; --detector makes others",
    )
    return ClipTracker.from_provenance({**card, **changed}, args.detector, args.device, args.checkpoint)


def _print(relations: list[dict[str, Any]], count: int, tracks: int) -> None:
    print(f"{count} relation{'s' * (count != 1)} between {tracks} tracks")
    for one in relations:
        subject, predicate, other = one["triplet"]
        when = (
            f"{one['start_s']:6.1f} to {one['end_s']:.1f} s"
            if "start_s" in one
            else "frames {}-{}".format(*one["duration"])
        )
        print(f"{one['score']:6.2f}  {when:<18}  {subject} {predicate} {other}")
