"""`hf-causal-video track`: a folder of videos to a track set, for relations."""

import argparse
from pathlib import Path

from hf_causal_video.utils.errors import require


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `hf-causal-video track`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "examples:\n"
        "  hf-causal-video track videos/ --detector PekingU/rtdetr_r50vd --sampling fps-30 --output tracks/\n"
        "Track at the pace that the annotations count frames. Videos that cannot be read are in OUTPUT/failed.json."
    )
    add = parser.add_argument
    add("videos", nargs="+", help="a folder, searched in depth, or video files; a file's name is its video id")
    add("--detector", required=True, metavar="ID", help="detector: Hub id or local folder")
    add("--output", required=True, metavar="DIR", help="folder of the track set")
    add("--sampling", default="fps-10", help="frames per second (default: %(default)s)")
    add("--min-score", type=float, default=0.5, help="least score that starts a track (default: %(default)s)")
    add("--threshold", type=float, default=0.0, help="leave out detections that score less (default: %(default)s)")
    add("--num-objects", type=int, default=20, help="detections a frame, best first (default: %(default)s)")
    add("--max-gap", type=int, default=15, help="frames an unseen object is remembered (default: %(default)s)")
    add("--device", default="cpu", help="cpu, cuda, cuda:1, mps (default: %(default)s)")
    add("--no-progress", dest="progress", action="store_false", help="no bar")


def run(args: argparse.Namespace) -> int:
    """Run `hf-causal-video track`; 1 if a video failed, and one that could read none at all is an error."""
    from hf_causal_video.features.encoders import ObjectEncoder
    from hf_causal_video.tracks.track_set import TrackSet, track_folder
    from hf_causal_video.tracks.tracker import ClipTracker

    encoder = ObjectEncoder(args.detector, args.num_objects, args.threshold, device=args.device)
    tracker = ClipTracker(encoder, args.sampling, args.min_score, args.max_gap)
    failed = track_folder(
        args.videos[0] if len(args.videos) == 1 else args.videos, args.output, tracker, args.progress
    )
    present = TrackSet.open(args.output)
    print(f"{len(present)} videos tracked in {args.output}, {len(failed)} failed")
    print("".join(f"failed: {name}: {reason}\n" for name, reason in failed.items()), end="")
    require(
        len(present),
        "no video could be tracked",
        found=lambda: f"{len(failed)} failed",
        expected="at least one",
        fix=f"see {Path(args.output) / 'failed.json'}",
    )
    return int(bool(failed))
