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
from typing import Any

import numpy as np
import torch

from hf_causal_video.features.build import ExtractionReport, build_feature_set
from hf_causal_video.features.store.reader import Provenance, VideoFeatures
from hf_causal_video.utils.errors import CausalVideoError, require

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
            require(
                len(parts[0]) == len(parts[1]),
                f"video {video_id!r}: unequal lengths",
                found=lambda: [len(p) for p in parts],
                expected="one motion row for each appearance row",
                fix="check the two files",
            )
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
    require(
        sizes is not None,
        "boxes in pixels without picture sizes",
        found="no sizes",
        expected="width and height of each video",
        fix="pass sizes={video_id: (width, height)}",
    )
    with _Legacy(frames, "feat") as first, _Legacy(objects, "feat") as second:
        first.must_match(second)
        boxes = second.dataset("bbox")
        require(
            second.features.ndim == 5 and boxes.shape == (*second.features.shape[:4], 4),
            f"{objects} has another layout",
            found=f"feat {second.features.shape}, bbox {boxes.shape}",
            expected="feat (videos, clips, frames, N, C), bbox (videos, clips, frames, N, 4)",
            fix="check which of the two files this is",
        )

        def make(video_id: str, row: int) -> VideoFeatures:
            keep, there = provenance.num_objects, second.rows[video_id]
            regions = second.features[there][::clip_stride, :, :keep]
            regions = regions.reshape(-1, *regions.shape[2:])  # (T, N, C)
            corners = boxes[there][::clip_stride, :, :keep].reshape(*regions.shape[:2], 4)
            frame_rows = first.features[row]
            require(
                len(regions) == len(frame_rows),
                f"video {video_id!r}: unequal lengths",
                found=lambda: f"{len(frame_rows)} frames, {len(regions)} object rows",
                expected="one object row for each frame",
                fix="change clip_stride",
            )
            is_object = (regions != 0).any(-1)
            scale = np.array([*_of(video_id, sizes, "size"), *_of(video_id, sizes, "size")], dtype=np.float32)
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
        self.path, self.file = path, open_hdf5(path)
        import h5py

        held = [n for n in self.file if n != "ids" and isinstance(self.file.get(n, getlink=True), h5py.HardLink)]
        names = sorted(n for n in held if len(getattr(self.file[n], "shape", None) or ()) > 2)
        require(
            key is not None or len(names) == 1,
            f"which dataset of {path}?",
            found=names,
            expected="one name",
            fix="pass its name",
        )
        self.features = self.dataset(key or names[0])
        ids = [i.decode(errors="replace") if isinstance(i, bytes) else str(i) for i in self._ids()]
        self.rows = {video_id: row for row, video_id in enumerate(ids)}
        require(
            len(self.rows) == len(ids) and len(ids) == len(self.features),
            f"the ids of {path} do not name its rows",
            found=lambda: f"{len(ids)} ids, {len(self.rows)} different, {len(self.features)} rows",
            expected="one id for each row",
            fix="check the file",
        )

    def _ids(self) -> list:
        ids = self.dataset("ids")[()]
        require(
            getattr(ids, "ndim", 0) == 1 and ids.dtype.kind in "SUOiu",
            f"the ids of {self.path} do not name its rows",
            found=lambda: f"{getattr(ids, 'dtype', type(ids).__name__)} {getattr(ids, 'shape', '')}",
            expected="a row of texts or whole numbers",
            fix="check the file",
        )
        return ids.tolist()

    def dataset(self, name: str):
        """Give a dataset, unread."""
        return check_dataset(self.path, self.file, name)

    def must_match(self, other: _Legacy) -> None:
        """Refuse two files that do not hold the same videos."""
        odd = sorted(set(self.rows) ^ set(other.rows))
        require(
            not odd,
            f"{self.path} and {other.path} do not hold the same videos",
            found=lambda: f"{len(odd)} videos in one only, such as {odd[:3]}",
            expected="the same ids",
            fix="use files of the same split",
        )

    def __enter__(self) -> _Legacy:
        return self

    def __exit__(self, *error) -> None:
        self.file.close()


def open_hdf5(path: str | Path) -> Any:
    """Open an HDF5 file.

    Raises:
        CausalVideoError: h5py is absent, or the file is of another kind.
    """
    try:
        import h5py
    except ImportError as error:
        raise CausalVideoError(
            "HDF5 files cannot be read", found="no h5py", expected="the package h5py", fix="pip install h5py"
        ) from error
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise CausalVideoError(
            f"{path} is not an HDF5 file",
            found=error,
            expected="an HDF5 file",
            fix="check the path; fetch the file again if it is cut off",
        ) from error


def check_dataset(path: str | Path, group: Any, name: str, allow_groups: bool = False) -> Any:
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
    require(
        link is None or isinstance(inside, h5py.Dataset),
        f"{name!r} of {path} is not a dataset of this file",
        found="something that lies in another file, or a group",
        expected="the numbers themselves",
        fix="copy them into one file: h5repack, or h5py's File.copy",
    )
    require(
        inside is not None and (name in ("ids", "video_ids") or inside.dtype.kind in "fiu"),
        f"{path} has another layout",
        found=lambda: sorted(group),
        expected=f"a dataset {name!r} of numbers",
        fix="pass the name of the dataset, or another file",
    )
    return inside


def _row(video_id: str, frames: np.ndarray, durations_s: Durations, **objects: torch.Tensor) -> VideoFeatures:
    duration = durations_s if isinstance(durations_s, float | int) else _of(video_id, durations_s, "duration")
    times = (torch.arange(len(frames)) + 0.5) * duration / len(frames)  # the files cut a video into equal clips
    return VideoFeatures(video_id, times, torch.from_numpy(np.asarray(frames)), **objects)


def _middle_frames(rows: np.ndarray) -> np.ndarray:
    return rows[:, rows.shape[1] // 2] if rows.ndim == 3 else rows


def _of(video_id: str, values: Mapping, what: str):
    require(
        video_id in values,
        f"no {what} for video {video_id!r}",
        found=lambda: f"{len(values)} entries",
        expected=f"the {what} of every video",
        fix="add it, or leave the video out",
    )
    return values[video_id]
