"""`hf-causal-video extract`: a folder of videos to a feature set."""

import argparse
from typing import TYPE_CHECKING

from hf_causal_video.utils.errors import require

if TYPE_CHECKING:
    from hf_causal_video.features.build import ExtractionReport

LAYERS = ("pooled", "cls", "mean", "projected")  # as in features.encoders, which takes torch to import


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `hf-causal-video extract`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Turn a folder of videos into a feature set: one row per video; networks, layers and instants are recorded.\n"
        "Run the same command again after an interruption and it goes on with the shard where it stopped."
    )
    parser.epilog = (
        "examples:\n"
        "  hf-causal-video extract videos/ --frame-model google/siglip2-base-patch16-224 --output features/\n"
        "  hf-causal-video extract videos/ --frame-model facebook/dinov2-base --object-model PekingU/rtdetr_r50vd \\\n"
        "      --sampling uniform-16 --num-objects 20 --device cuda --dtype bfloat16 --output features/\n"
        "  hf-causal-video extract a.mp4 --frame-model ./my-vit --frame-layer cls --sampling fps-1 --output out/\n\n"
        "on several processes or machines that share the output folder:\n"
        "  accelerate launch --num_processes 8 scripts/extract_features.py videos/ --frame-model ID --output out/\n\n"
        "Clips that cannot be read are listed with the reason in OUTPUT/failed.json; they never stop the run, but\n"
        "the exit code is then 1. It is 2 where nothing could be done at all.\n"
        'Read the result with FeatureStore.open(OUTPUT), or datasets.load_dataset(OUTPUT, "features").'
    )
    add = parser.add_argument
    add("videos", nargs="+", help="a folder, searched in depth, or video files; a file's name is its video id")
    add("--frame-model", required=True, metavar="ID", help="vision backbone: Hub id or local folder")
    add("--output", required=True, metavar="DIR", help="folder of the feature set")
    add("--frame-layer", default="pooled", choices=LAYERS, help="which output to keep (default: %(default)s)")
    add("--frame-revision", metavar="REV", help="branch, tag or commit of the backbone")
    add(
        "--label-words",
        metavar="TEXT_ID",
        help="text encoder: a frame is the words that --frame-model, an image classifier, finds for it",
    )
    add("--object-model", metavar="ID", help="detector for object regions: Hub id or local folder (default: none)")
    add("--object-revision", metavar="REV", help="branch, tag or commit of the detector")
    add("--object-threshold", type=float, default=0.0, help="leave out regions that score less (default: %(default)s)")
    add("--num-objects", type=int, default=20, help="regions per frame, best first (default: %(default)s)")
    add("--sampling", default="uniform-16", help="uniform-N, fps-R or seconds-a,b,c (default: %(default)s)")
    add("--split", default="train", help="name of the split (default: %(default)s)")
    add("--rows-per-shard", type=int, default=32, help="videos per file (default: %(default)s)")
    add("--batch-size", type=int, default=16, help="frames per forward pass (default: %(default)s)")
    add("--device", default="cpu", help="cpu, cuda, cuda:1, mps (default: %(default)s)")
    add("--dtype", default="float32", choices=("float32", "bfloat16"), help="arithmetic (default: %(default)s)")
    add("--no-progress", dest="progress", action="store_false", help="no bar")
    add_push_arguments(parser)


def add_push_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare where a finished set goes."""
    parser.add_argument("--push-to-hub", metavar="ORG/NAME", help="upload the set as a dataset repository")
    parser.add_argument("--private", action="store_true", help="with --push-to-hub: for members only")


def run(args: argparse.Namespace) -> int:
    """Run `hf-causal-video extract`; 1 if a video failed, and one that could read none at all is an error."""
    from hf_causal_video.features.extract import extract_folder

    options = {key: value for key, value in vars(args).items() if key in (extract_folder.__kwdefaults__ or {})}
    videos = args.videos[0] if len(args.videos) == 1 else args.videos
    report = extract_folder(
        videos, args.output, args.frame_model, args.object_model, args.sampling, args.num_objects, **options
    )
    return conclude(report, args)


def conclude(report: "ExtractionReport", args: argparse.Namespace) -> int:
    """Print what was done, and push it if asked to; once for all processes.

    Returns:
        The exit code: 1 if a video failed, so that a script notices; the others are written all the same.

    Raises:
        CausalVideoError: the set holds no video.
    """
    from hf_causal_video.features.build import FAILED_FILE, start_processes
    from hf_causal_video.features.store.reader import FeatureStore

    if not start_processes().is_main_process:
        return 0
    print(report)
    require(
        report.written or report.kept,
        "no video could be read",
        found=f"{len(report.failed)} failed",
        expected="at least one feature row",
        fix=f"see {report.output / FAILED_FILE}",
    )
    if args.push_to_hub:
        store = FeatureStore.open(report.output)
        print("pushed:", store.push_to_hub(args.push_to_hub, private=True if args.private else None))
    return int(bool(report.failed))
