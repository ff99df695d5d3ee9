"""`hf-causal-video extract`: a folder of videos to a feature set."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hf_causal_video.cli.options import argument, option
from hf_causal_video.utils.errors import require

if TYPE_CHECKING:
    from hf_causal_video.features.build import ExtractionReport

EXAMPLES = """examples:
  hf-causal-video extract videos/ --frame-model google/siglip2-base-patch16-224 --output features/
  hf-causal-video extract videos/ --frame-model facebook/dinov2-base --object-model PekingU/rtdetr_r50vd \\
      --sampling uniform-16 --num-objects 20 --device cuda --dtype bfloat16 --output features/
  hf-causal-video extract a.mp4 --frame-model ./my-vit --frame-layer cls --sampling fps-1 --output out/

on several processes or machines that share the output folder:
  accelerate launch --num_processes 8 scripts/extract_features.py videos/ --frame-model ID --output out/

Clips that cannot be read are listed with the reason in OUTPUT/failed.json; they never stop the run, but
the exit code is then 1. It is 2 where nothing could be done at all.
Read the result with FeatureStore.open(OUTPUT), or datasets.load_dataset(OUTPUT, "features").
"""


@dataclass(kw_only=True)
class Options:
    """Turn a folder of videos into a feature set: one row per video; networks, layers and instants are recorded.

    Run the same command again after an interruption and it goes on with the shard where it stopped.
    """

    videos: list[str] = argument("a folder, searched in depth, or video files; a file's name is its video id")
    frame_model: str = option("vision backbone: Hub id or local folder", metavar="ID")
    output: str = option("folder of the feature set", metavar="DIR")
    frame_layer: Literal["pooled", "cls", "mean", "projected"] = option("which output to keep", "pooled")
    frame_revision: str | None = option("branch, tag or commit of the backbone", None, metavar="REV")
    label_words: str | None = option(
        "text encoder: a frame is the words that --frame-model, an image classifier, finds for it",
        None,
        metavar="TEXT_ID",
    )
    object_model: str | None = option(
        "detector for object regions: Hub id or local folder (default: none)", None, metavar="ID"
    )
    object_revision: str | None = option("branch, tag or commit of the detector", None, metavar="REV")
    object_threshold: float = option("leave out regions that score less", 0.0)
    num_objects: int = option("regions per frame, best first", 20)
    sampling: str = option("uniform-N, fps-R or seconds-a,b,c", "uniform-16")
    split: str = option("name of the split", "train")
    rows_per_shard: int = option("videos per file", 32)
    batch_size: int = option("frames per forward pass", 16)
    device: str = option("cpu, cuda, cuda:1, mps", "cpu")
    dtype: Literal["float32", "bfloat16"] = option("arithmetic", "float32")
    progress: bool = option("no bar", True)
    push_to_hub: str | None = option("upload the set as a dataset repository", None, metavar="ORG/NAME")
    private: bool = option("with --push-to-hub: for members only", False)


def run(options: Options) -> int:
    """Extract; 1 if a video failed, and a run that could read none at all is an error."""
    from hf_causal_video.features.extract import extract_folder

    report = extract_folder(
        options.videos[0] if len(options.videos) == 1 else options.videos,
        options.output,
        options.frame_model,
        options.object_model,
        options.sampling,
        options.num_objects,
        frame_layer=options.frame_layer,
        frame_revision=options.frame_revision,
        label_words=options.label_words,
        object_revision=options.object_revision,
        object_threshold=options.object_threshold,
        split=options.split,
        rows_per_shard=options.rows_per_shard,
        batch_size=options.batch_size,
        device=options.device,
        dtype=options.dtype,
        progress=options.progress,
    )
    return conclude(report, options.push_to_hub, options.private)


def conclude(report: "ExtractionReport", repository: str | None, private: bool) -> int:
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
    if repository:
        store = FeatureStore.open(report.output)
        print("pushed:", store.push_to_hub(repository, private=True if private else None))
    return int(bool(report.failed))
