"""From a folder of videos to a feature set."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from hf_causal_video.features.build import ExtractionReport, build_feature_set, start_processes
from hf_causal_video.features.encoders import FrameEncoder, ObjectEncoder
from hf_causal_video.features.extractor import PreparedClip, VideoFeatureExtractor, short_clip_note
from hf_causal_video.features.store.rows import VideoFeatures
from hf_causal_video.features.words import WordEncoder
from hf_causal_video.utils.checks import is_text
from hf_causal_video.utils.errors import require

__all__ = ["ExtractionReport", "VideoFeatureExtractor", "extract_folder", "find_videos"]

logger = logging.getLogger(__name__)
VIDEO_ENDINGS = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".gif", ".mpg", ".mpeg", ".ts", ".flv", ".wmv")


def extract_folder(
    videos: str | Path | Iterable[str | Path],
    output: str | Path,
    frame_model: str,
    object_model: str | None = None,
    sampling: str = "uniform-16",
    num_objects: int = 20,
    *,
    frame_layer: str = "pooled",
    frame_revision: str | None = None,
    label_words: str | None = None,
    object_revision: str | None = None,
    object_threshold: float = 0.0,
    split: str = "train",
    rows_per_shard: int = 32,
    batch_size: int = 16,
    device: str = "cpu",
    dtype: str = "float32",
    progress: bool = True,
) -> ExtractionReport:
    """Extract a feature set from videos; run it again after a kill and it goes on.

    Args:
        videos: a folder (searched in depth) or a list of files; the name without ending is the video id.
        output: folder of the feature set.
        frame_model, frame_layer, frame_revision: see `FrameEncoder`.
        label_words: a text encoder; `frame_model` is then an image classifier with label names, see `WordEncoder`.
        object_model, num_objects, object_threshold, object_revision: see `ObjectEncoder`; None for frames only.
        sampling: see `decode_video`; frames and objects come from the same instants.
        split: name of the split.
        rows_per_shard: videos per shard.
        batch_size: frames per forward pass; clips with fewer frames share a pass.
        device, dtype: where and how to compute; several processes of `accelerate launch` take one accelerator each.
        progress: show a bar.

    Returns:
        what was written, kept and failed; clips that failed are also in `failed.json` with the reason.

    Raises:
        CausalVideoError: no videos, two files of one name, a network that cannot be loaded, or an output folder that
            was made in another way. A clip that cannot be read never raises.
    """
    files = find_videos(videos)
    state = start_processes(device)
    if state.num_processes > 1 and device in ("cuda", "xpu", "npu"):
        device = f"{device}:{state.local_process_index}"
    objects = None
    if object_model is not None:
        objects = ObjectEncoder(
            object_model, num_objects, object_threshold, object_revision, device, dtype, batch_size
        )
    frames: FrameEncoder | WordEncoder
    if label_words is None:
        frames = FrameEncoder(frame_model, frame_layer, frame_revision, device, dtype, batch_size)
    else:
        frames = WordEncoder(
            frame_model, label_words, revision=frame_revision, device=device, dtype=dtype, batch_size=batch_size
        )
    maker = _ClipMaker(VideoFeatureExtractor(frames, objects, sampling), batch_size)
    return build_feature_set(
        files,
        maker,
        output,
        maker.extractor.provenance,
        split=split,
        rows_per_shard=rows_per_shard,
        progress=progress,
        notes=maker.notes,
    )


class _ClipMaker:
    """Make rows from video files; short clips share batches.

    Args:
        extractor: turns a clip into features.
        batch_size: frames per forward pass.
    """

    def __init__(self, extractor: VideoFeatureExtractor, batch_size: int):
        self.extractor = extractor
        self.notes: dict[str, str] = {}
        rule, _, count = extractor.sampling.partition("-")
        self.group_size = max(1, batch_size // int(count)) if rule == "uniform" else 1

    def read(self, video_id: str, file: Path) -> PreparedClip:
        """Decode a clip and prepare its frames."""
        clip = self.extractor.read(file)
        if clip.missing:
            self.notes[video_id] = short_clip_note(video_id, len(clip.frames), clip.missing)
        return self.extractor.prepare(clip)

    def make(self, video_ids: Sequence[str], clips: Sequence[PreparedClip]) -> list[VideoFeatures]:
        """Encode a group of clips."""
        return self.extractor.encode_together(clips)


def find_videos(videos: str | Path | Iterable[str | Path]) -> dict[str, Path]:
    """List video files by id, sorted, so that a resumed run goes the same way.

    A folder is searched in depth. Linked folders are followed, each folder once; files and folders whose name begins
    with a dot, and links to nothing, are left out. A warning says which.

    Args:
        videos: a folder, a file, or files.

    Raises:
        CausalVideoError: no such folder or file, no videos in it, a name that is not UTF-8, or one id for two files.
    """
    if isinstance(videos, str | os.PathLike):
        files = _search(Path(videos)) if os.path.isdir(videos) else [Path(videos)]
    else:
        files = [Path(file) for file in videos]
    absent = [str(file) for file in files if not file.is_file()]
    problem = absent[:3] or f"nothing in {videos}"
    expected = f"files ending in {' '.join(VIDEO_ENDINGS)}"
    require(files and not absent, "no videos to extract", found=problem, expected=expected, fix="check the path")
    odd = [os.fsencode(file) for file in files if not is_text(file.stem)]
    require(not odd, "a file name that is not text", found=odd[:3], expected="UTF-8", fix="rename the file")
    by_id: dict[str, Path] = {}
    for file in sorted(files, key=lambda f: (f.stem, str(f))):
        first = by_id.setdefault(file.stem, file)
        is_same = first is file or file.resolve() == first.resolve()  # a link and what it links to
        what = f"video id {file.stem!r} occurs twice"
        require(is_same, what, found=f"{first} and {file}", expected="one file for each name", fix="rename one")
    return by_id


def _search(root: Path) -> list[Path]:
    """List the video files of a folder in depth, and warn about those left out and folders that are links."""
    files: list[Path] = []
    hidden: list[Path] = []
    broken: list[Path] = []
    linked: list[Path] = []
    visited: set[str] = set()
    waiting = [root]
    for start in waiting:  # linked folders are appended, so that a folder is found under its own name first
        if start is not root and os.path.realpath(start) not in visited:
            linked.append(start)
        for path, folders, names in os.walk(start):
            folder = Path(path)
            place = os.path.realpath(path)
            if place in visited:  # a link back
                folders.clear()
                continue
            visited.add(place)
            waiting += [folder / name for name in folders if (folder / name).is_symlink() and name[0] != "."]
            hidden += [f for name in folders if name[0] == "." for f in (folder / name).rglob("*") if _is_video(f)]
            folders[:] = [name for name in folders if name[0] != "."]
            videos = [folder / name for name in names if _is_video(folder / name)]
            hidden += [file for file in videos if file.name[0] == "."]
            shown = [file for file in videos if file.name[0] != "."]
            broken += [file for file in shown if not file.is_file()]
            files += [file for file in shown if file.is_file()]
    if os.environ.get("RANK", "0") == "0":
        groups = {"hidden, left out": hidden, "linked folders, followed": linked, "links to nothing, left out": broken}
        for what, paths in groups.items():
            if paths:
                some = ", ".join(sorted(str(path.relative_to(root)) for path in paths)[:3])
                logger.warning("%s: %d %s: %s%s", root, len(paths), what, some, ", ..." * (len(paths) > 3))
    return files


def _is_video(file: Path) -> bool:
    return file.suffix.lower() in VIDEO_ENDINGS
