"""Read the HDF5 files of the original code, so that nobody with the old features is stranded.

Three layouts, all with a dataset `ids` that names the row of each video:

    appearance + motion   two files, (videos, 16, 2048) each; clips of frames (videos, 16, frames, 2048) also occur
    app_mot               one file, `feat` (videos, 16, 4096)
    TranSTR               frames `feat` (videos, 16, 768); objects `feat` (videos, clips, frames, N, 2048) and
                          `bbox` (videos, clips, frames, N, 4) in pixels

Files are joined by id, never by row. They carry neither times nor sources: the caller states both, the length of each
video in seconds and the full provenance.

The trap of the TranSTR object files: the original loader takes every second *clip* of the file, while its frame file
has 16 frames spread over the whole video. From a file of 8 clips with 4 frames, the 16 object rows then come from
clips 0, 2, 4 and 6, four neighbouring frames each: frame row t and object row t do not show the same instant.
`clip_stride=2` repeats that, as the published numbers need; `hf-causal-video extract` takes both from the same
instants.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from hf_causal_video.features.build import ExtractionReport, build_feature_set
from hf_causal_video.features.store.reader import Provenance, VideoFeatures
from hf_causal_video.utils.errors import require, reworded

if TYPE_CHECKING:
    import h5py

Value = TypeVar("Value")
Durations = Mapping[str, float] | float


def import_appearance_motion(
    appearance: str | Path,
    motion: str | Path,
    output: str | Path,
    provenance: Provenance,
    durations_s: Durations,
    *,
    appearance_key: str | None = None,
    motion_key: str | None = None,
    split: str = "train",
    progress: bool = True,
) -> ExtractionReport:
    """Join an appearance file and a motion file into frame features, appearance first (IGV and EIGV on MSVD, MSRVTT).

    Args:
        appearance, motion: HDF5 files; of clips of frames the middle frame is taken.
        output: folder of the feature set.
        provenance: where the features come from; `frame_dim` is the width of both together.
        durations_s: seconds of each video; 1.0 for all of them gives times as fractions of the clip.
        appearance_key, motion_key: dataset names, needed if a file has more than one in addition to `ids`.
        split, progress: see `build_feature_set`.

    Raises:
        CausalVideoError: h5py is absent, a file has another layout, or the two do not hold the same videos.
    """
    with _Legacy(appearance, appearance_key) as first, _Legacy(motion, motion_key) as second:
        first.must_match(second)

        def make(video_id: str, row: int) -> VideoFeatures:
            parts = [_middle_frames(first.features[row]), _middle_frames(second.features[second.rows[video_id]])]
            _check_lengths(video_id, parts[0], parts[1])
            return _row(video_id, np.concatenate(parts, axis=-1), durations_s)

        return build_feature_set(first.rows, make, output, provenance, split=split, progress=progress, label="import")


def import_app_mot(
    file: str | Path,
    output: str | Path,
    provenance: Provenance,
    durations_s: Durations,
    *,
    split: str = "train",
    progress: bool = True,
) -> ExtractionReport:
    """Read an `app_mot_<split>.h5` file (EIGV on NExT-QA); arguments as in `import_appearance_motion`."""
    with _Legacy(file, "feat") as source:
        return build_feature_set(
            source.rows,
            lambda video_id, row: _row(video_id, source.features[row], durations_s),
            output,
            provenance,
            split=split,
            progress=progress,
            label="import",
        )


def import_transtr(
    frames: str | Path,
    objects: str | Path | None,
    output: str | Path,
    provenance: Provenance,
    durations_s: Durations,
    sizes: Mapping[str, tuple[int, int]] | None = None,
    *,
    clip_stride: int = 2,
    split: str = "train",
    progress: bool = True,
) -> ExtractionReport:
    """Read TranSTR's frame file and object file.

    Args:
        frames: HDF5 file of frame features.
        objects: HDF5 file of regions; None for frames only.
        output: folder of the feature set.
        provenance: where both come from; `num_objects` regions of each frame are kept.
        durations_s: seconds of each video; 1.0 for all of them gives times as fractions of the clip.
        sizes: width and height of each video in pixels, to bring the pixel boxes to [0, 1].
        clip_stride: 2 takes every second clip as the original does, see the trap above; 1 takes all of them.
        split, progress: see `build_feature_set`.

    Raises:
        CausalVideoError: h5py is absent, a file has another layout, the two do not hold the same videos, or `sizes`
            is not given although there are objects. A video whose rows do not fit is listed in `failed.json`.
    """
    if objects is None:
        return import_app_mot(frames, output, provenance, durations_s, split=split, progress=progress)
    what = "boxes in pixels without picture sizes"
    fix = "pass sizes={video_id: (width, height)}"
    require(sizes is not None, what, found="no sizes", expected="width and height of each video", fix=fix)
    assert sizes is not None
    with _Legacy(frames, "feat") as first, _Legacy(objects, "feat") as second:
        first.must_match(second)
        boxes = second.dataset("bbox")
        fits = second.features.ndim == 5 and boxes.shape == (*second.features.shape[:4], 4)
        problem = f"feat {second.features.shape}, bbox {boxes.shape}"
        expected = "feat (videos, clips, frames, N, C), bbox (videos, clips, frames, N, 4)"
        fix = "check which of the two files this is"
        require(fits, f"{objects} has another layout", found=problem, expected=expected, fix=fix)

        def make(video_id: str, row: int) -> VideoFeatures:
            keep = provenance.num_objects
            object_row = second.rows[video_id]
            regions = second.features[object_row][::clip_stride, :, :keep]
            regions = regions.reshape(-1, *regions.shape[2:])  # (T, N, C)
            corners = boxes[object_row][::clip_stride, :, :keep].reshape(*regions.shape[:2], 4)
            frame_rows = first.features[row]
            _check_lengths(video_id, frame_rows, regions, fix="change clip_stride")
            is_object = (regions != 0).any(-1)
            scale = np.array([*value_of(video_id, sizes, "size")] * 2, dtype=np.float32)
            return _row(
                video_id,
                frame_rows,
                durations_s,
                object_features=torch.from_numpy(regions),
                object_boxes=torch.from_numpy(np.clip(corners / scale, 0, 1) * is_object[..., None]),
                object_scores=torch.from_numpy(is_object).float(),  # these files store no scores: 1 is "there"
                object_labels=torch.full(is_object.shape, -1),
            )

        return build_feature_set(first.rows, make, output, provenance, split=split, progress=progress, label="import")


class _Legacy:
    """An open HDF5 file whose rows are found by video id."""

    def __init__(self, path: str | Path, key: str | None):
        self.path = path
        self.file = open_hdf5(path)
        import h5py

        held = [n for n in self.file if n != "ids" and isinstance(self.file.get(n, getlink=True), h5py.HardLink)]
        names = sorted(n for n in held if len(getattr(self.file[n], "shape", None) or ()) > 2)
        is_clear = key is not None or len(names) == 1
        require(is_clear, f"which dataset of {path}?", found=names, expected="one name", fix="pass its name")
        self.features = self.dataset(key or names[0])
        ids = [i.decode(errors="replace") if isinstance(i, bytes) else str(i) for i in self._ids()]
        self.rows = {video_id: row for row, video_id in enumerate(ids)}
        fits = len(self.rows) == len(ids) == len(self.features)
        problem = f"{len(ids)} ids, {len(self.rows)} different, {len(self.features)} rows"
        require(fits, f"the ids of {path} do not name its rows", found=problem, expected="one id for each row")

    def _ids(self) -> list:
        ids = self.dataset("ids")[()]
        is_row = getattr(ids, "ndim", 0) == 1 and ids.dtype.kind in "SUOiu"
        what = f"the ids of {self.path} do not name its rows"
        require(is_row, what, found=type(ids).__name__, expected="a row of texts or whole numbers")
        return ids.tolist()

    def dataset(self, name: str) -> h5py.Dataset:
        """Give a dataset, unread."""
        return check_dataset(self.path, self.file, name)

    def must_match(self, other: _Legacy) -> None:
        """Refuse two files that do not hold the same videos."""
        odd = sorted(set(self.rows) ^ set(other.rows))
        problem = f"{len(odd)} videos in one only, such as {odd[:3]}"
        what = f"{self.path} and {other.path} do not hold the same videos"
        require(not odd, what, found=problem, expected="the same ids", fix="use files of the same split")

    def __enter__(self) -> _Legacy:
        return self

    def __exit__(self, *error) -> None:
        self.file.close()


def open_hdf5(path: str | Path) -> h5py.File:
    """Open an HDF5 file.

    Raises:
        CausalVideoError: h5py is absent, or the file is of another kind.
    """
    with reworded(ImportError, "HDF5 files cannot be read", expected="the package h5py", fix="pip install h5py"):
        import h5py
    fix = "check the path; fetch the file again if it is cut off"
    with reworded(OSError, f"{path} is not an HDF5 file", expected="an HDF5 file", fix=fix):
        return h5py.File(path, "r")


def check_dataset(path: str | Path, group: h5py.Group, name: str, allow_groups: bool = False) -> h5py.Dataset:
    """Give a dataset of an HDF5 file or group, unread.

    Args:
        path: of the file.
        group: the open file, or a group in it.
        name: of the dataset.
        allow_groups: give a group of datasets, too.

    Raises:
        CausalVideoError: no such dataset of numbers ("ids" may be texts), or one that lies in another file, since a
            file can name any.
    """
    import h5py

    link = group.get(name, getlink=True)
    inside = group[name] if isinstance(link, h5py.HardLink) else None
    if isinstance(inside, h5py.Dataset) and (inside.is_virtual or inside.external):
        inside = None
    if allow_groups and isinstance(inside, h5py.Group):
        return inside
    what = f"{name!r} of {path} is not a dataset of this file"
    fix = "copy the numbers into one file: h5repack, or h5py's File.copy"
    is_here = link is None or isinstance(inside, h5py.Dataset)
    require(is_here, what, found="something in another file, or a group", expected="the numbers themselves", fix=fix)
    is_number = inside is not None and (name in ("ids", "video_ids") or inside.dtype.kind in "fiu")
    fix = "pass the name of the dataset, or another file"
    expected = f"a dataset {name!r} of numbers"
    require(is_number, f"{path} has another layout", found=lambda: sorted(group), expected=expected, fix=fix)
    return inside


def _row(video_id: str, frames: np.ndarray, durations_s: Durations, **objects: torch.Tensor) -> VideoFeatures:
    times = centres_s(video_id, len(frames), durations_s)  # the files cut a video into equal clips
    return VideoFeatures(video_id, times, torch.from_numpy(np.asarray(frames)), **objects)


def _middle_frames(rows: np.ndarray) -> np.ndarray:
    return rows[:, rows.shape[1] // 2] if rows.ndim == 3 else rows


def centres_s(video_id: str, count: int, durations_s: Durations) -> torch.Tensor:
    """Seconds (count,) in the middle of equal parts of a video."""
    duration = durations_s if isinstance(durations_s, float | int) else value_of(video_id, durations_s, "duration")
    return (torch.arange(count) + 0.5) * duration / count


def value_of(video_id: str, values: Mapping[str, Value], what: str) -> Value:
    """Look up what is known of a video."""
    fix = "add it, or leave the video out"
    is_known = video_id in values
    what = f"no {what} for video {video_id!r}"
    require(is_known, what, found=f"{len(values)} entries", expected="one for every video", fix=fix)
    return values[video_id]


def _check_lengths(video_id: str, one: np.ndarray, two: np.ndarray, fix: str = "check the two files") -> None:
    problem = f"{len(one)} and {len(two)} rows"
    what = f"video {video_id!r}: unequal lengths"
    require(len(one) == len(two), what, found=problem, expected="as many rows in both files", fix=fix)
