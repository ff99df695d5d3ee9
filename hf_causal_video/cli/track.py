"""`hf-causal-video track`: a folder of videos to a track set, for relations."""

from dataclasses import dataclass
from pathlib import Path

from hf_causal_video.cli.options import argument, option
from hf_causal_video.utils.errors import require

EXAMPLES = """examples:
  hf-causal-video track videos/ --detector PekingU/rtdetr_r50vd --sampling fps-30 --output tracks/

Track at the pace that the annotations count frames. Videos that cannot be read are in OUTPUT/failed.json.
Run the same command again after an interruption and it goes on with the video where it stopped.
"""


@dataclass(kw_only=True)
class Options:
    """Turn a folder of videos into a track set, for relations."""

    videos: list[str] = argument("a folder, searched in depth, or video files; a file's name is its video id")
    detector: str = option("detector: Hub id or local folder", metavar="ID")
    output: str = option("folder of the track set", metavar="DIR")
    sampling: str = option("frames per second", "fps-10")
    min_score: float = option("least score that starts a track", 0.5)
    threshold: float = option("leave out detections that score less", 0.0)
    num_objects: int = option("detections per frame, best first", 20)
    max_gap: int = option("frames an unseen object is remembered", 15)
    device: str = option("cpu, cuda, cuda:1, mps", "cpu")
    progress: bool = option("no bar", True)


def run(options: Options) -> int:
    """Track; 1 if a video failed, and a run that could read none at all is an error."""
    from hf_causal_video.features.encoders import ObjectEncoder
    from hf_causal_video.tracks.track_set import TrackSet, track_folder
    from hf_causal_video.tracks.tracker import ClipTracker

    encoder = ObjectEncoder(options.detector, options.num_objects, options.threshold, device=options.device)
    tracker = ClipTracker(encoder, options.sampling, options.min_score, options.max_gap)
    videos = options.videos[0] if len(options.videos) == 1 else options.videos
    failed = track_folder(videos, options.output, tracker, options.progress)
    tracked = len(TrackSet.open(options.output))
    print(f"{tracked} videos tracked in {options.output}, {len(failed)} failed")
    print("".join(f"failed: {name}: {reason}\n" for name, reason in failed.items()), end="")
    fix = f"see {Path(options.output) / 'failed.json'}"
    require(tracked, "no video could be tracked", found=f"{len(failed)} failed", expected="at least one", fix=fix)
    return int(bool(failed))
