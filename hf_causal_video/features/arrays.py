"""Feature arrays that somebody made elsewhere (.npy, .npz, .pt, HDF5) as a feature set.

A file is one video, named by the file, or many videos, named by its keys:

    walk.npy                          (T, C) frame features of the video "walk"
    walk.npz, walk.pt, walk.h5        `frame_features` and, if there are any, the other columns of a feature row
    all.npz, all.pt, all.h5           one array, or one group of such columns, per video id
    all.npz, all.h5                   `ids` (videos,) and columns with the videos as first axis

Nothing is unpickled but tensors. Arrays do not say how they were made: the card does, see `complete_card`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from hf_causal_video.features.build import ExtractionReport, build_feature_set
from hf_causal_video.features.extract import VIDEO_ENDINGS
from hf_causal_video.features.legacy_hdf5 import Durations, centres_s, check_dataset, open_hdf5
from hf_causal_video.features.store.provenance import Provenance, complete_card
from hf_causal_video.features.store.rows import VideoFeatures
from hf_causal_video.features.store.shards import COLUMNS
from hf_causal_video.utils.errors import CausalVideoError, first_line, require

ENDINGS = (".npy", ".npz", ".pt", ".pth", ".h5", ".hdf5")
FRAME_NAMES = ("frame_features", "features", "feat", "arr_0")
ID_NAMES = ("ids", "video_ids")


@dataclass
class _Source:
    """Position of the arrays of one video.

    Args:
        path: the file.
        key: its key in a file of many videos; None if the file is the video.
        row: its row in a file with ids.
    """

    path: Path
    key: str | None = None
    row: int | None = None


def import_arrays(
    files: str | Path,
    output: str | Path,
    card: Mapping[str, object],
    durations_s: Durations | None = None,
    *,
    split: str = "train",
    progress: bool = True,
) -> ExtractionReport:
    """Make a feature set from arrays.

    Args:
        files: a file, or a folder that is searched in depth, see the head of this module.
        output: folder of the feature set.
        card: fields of `Provenance`; widths and the number of objects are read from the arrays if absent.
        durations_s: seconds of each video, for arrays without `timestamps_s`. Without it, a sampling "fps-R" gives the
            times; with any other the times are fractions of the clip, which a note says.
        split, progress: see `build_feature_set`.

    Raises:
        CausalVideoError: no arrays, one video id twice, a card that lacks a field or contradicts the arrays. A video
            whose arrays cannot be read never raises but is listed in `failed.json`.
    """
    reader = _Reader()
    sources = _list_sources(Path(files), reader)
    example = _first_readable(sources, reader)
    widths = infer_fields(example)
    fix = "correct the card, or check which arrays these are"
    for name, value in widths.items():
        fits = card.get(name) in (None, "", value)
        expected = f"{value}, as in the arrays"
        require(fits, f"{name} of the provenance card", found=card.get(name), expected=expected, fix=fix)
    provenance = Provenance.from_dict(complete_card({**card, **widths}))
    notes: dict[str, str] = {}
    if durations_s is None and "timestamps_s" not in example and not provenance.sampling.startswith("fps-"):
        notes["times"] = "no times are known: they are fractions of the clip; --durations gives seconds"
        made = {**provenance.created_with, "times": "fractions of the clip"}
        provenance = replace(provenance, created_with=made)

    def make(video_id: str, source: _Source) -> VideoFeatures:
        columns = reader.read(source)
        if "timestamps_s" not in columns:
            columns["timestamps_s"] = _times(video_id, len(columns["frame_features"]), provenance, durations_s)
        return VideoFeatures(video_id, **columns)

    try:
        return build_feature_set(
            sources, make, output, provenance, split=split, progress=progress, label="import", notes=notes
        )
    finally:
        reader.close()


def infer_fields(columns: Mapping[str, Tensor]) -> dict[str, int]:
    """Read the fields of a provenance card that the arrays of a video tell."""
    widths = {"frame_dim": columns["frame_features"].shape[-1]}
    objects = columns.get("object_features")
    if objects is not None and objects.ndim == 3:
        widths |= {"num_objects": objects.shape[1], "object_dim": objects.shape[2]}
    return widths


def infer_from(files: str | Path) -> dict[str, int]:
    """Read the fields of a provenance card that the arrays of a folder or file tell."""
    reader = _Reader()
    try:
        return infer_fields(_first_readable(_list_sources(Path(files), reader), reader))
    finally:
        reader.close()


def _times(video_id: str, count: int, provenance: Provenance, durations_s: Durations | None) -> Tensor:
    rule, _, rate = provenance.sampling.partition("-")
    if durations_s is None and rule == "fps":
        return (torch.arange(count) + 0.5) / float(rate)
    return centres_s(video_id, count, 1.0 if durations_s is None else durations_s)


def _list_sources(files: Path, reader: _Reader) -> dict[str, _Source]:
    paths = [files]
    if files.is_dir():
        inside = (path.relative_to(files) for path in files.rglob("*"))
        shown = (path for path in inside if not any(part.startswith(".") for part in path.parts))
        paths = sorted(files / path for path in shown if path.suffix.lower() in ENDINGS)
    problem = "no file" if not files.exists() else "no file with such an ending"
    expected = f"files ending in {' '.join(ENDINGS)}"
    are_files = paths and all(path.is_file() for path in paths)
    require(are_files, f"no arrays in {files}", found=problem, expected=expected, fix="check the path")
    sources: dict[str, _Source] = {}
    for path in paths:
        for video_id, source in reader.videos(path):
            first = sources.setdefault(video_id, source)
            what = f"video id {video_id!r} occurs twice"
            require(first is source, what, found=f"{first.path} and {path}", expected="each once", fix="rename one")
    return sources


def _first_readable(sources: Mapping[str, _Source], reader: _Reader) -> dict[str, Tensor]:
    reason = "no videos"
    for source in sources.values():
        try:
            return reader.read(source)
        except CausalVideoError as error:
            reason = str(error)
    what = "no arrays that can be read"
    raise CausalVideoError(what, found=reason, expected="at least one video", fix="check the files")


def _video_id(name: str) -> str:
    """Cut the ending of a video file from an id: features of walk.mp4 may lie in walk.mp4.npy."""
    stem, dot, ending = name.rpartition(".")
    return stem if stem and f"{dot}{ending.lower()}" in VIDEO_ENDINGS else name


# What an opened file holds is a mapping of h5py or numpy, an array or a tensor: `Any` until `_tensor` has read it.
class _Reader:
    """Read arrays from files, keeping the last file open for its other videos."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._content: Any = None

    def videos(self, path: Path) -> list[tuple[str, _Source]]:
        """List the videos of a file; one that cannot be read is listed by its name, and fails when it is read."""
        alone = [(_video_id(path.stem), _Source(path))]
        if path.suffix.lower() == ".npy":
            return alone
        try:
            content = self._open(path)
            names = list(content) if isinstance(content, Mapping) else []
            if not names or set(names) <= {*FRAME_NAMES, *COLUMNS}:
                return alone
            if id_name := next((name for name in ID_NAMES if name in names), None):
                ids = np.asarray(_values(path, content, id_name))
                texts = [i.decode() if isinstance(i, bytes) else str(i) for i in ids.reshape(-1).tolist()]
                return [(_video_id(text), _Source(path, row=row)) for row, text in enumerate(texts)]
            return [(_video_id(str(name)), _Source(path, key=name)) for name in names]
        except (CausalVideoError, UnicodeDecodeError):
            return alone

    def read(self, source: _Source) -> dict[str, Tensor]:
        """Give the columns of one video."""
        path = source.path
        content = self._open(source.path)
        if source.key is not None:
            content = _values(path, content, source.key)
        if isinstance(content, Mapping):
            names = [name for name in content if name not in ID_NAMES]
            unknown = sorted(map(str, set(names) - {*FRAME_NAMES, *COLUMNS}))
            what = f"{path.name}{f', video {source.key!r}' if source.key else ''} has unknown arrays"
            fix = "rename them, or write one array for each video"
            require(not unknown, what, found=unknown[:5], expected=f"some of {', '.join(COLUMNS)}", fix=fix)
            arrays = {name: _values(path, content, name) for name in names}
        else:
            arrays = {FRAME_NAMES[0]: content}
        columns = {}
        for name, values in arrays.items():
            column = FRAME_NAMES[0] if name in FRAME_NAMES else name
            columns[column] = _tensor(path, name, values if source.row is None else values[source.row])
        has_frames = FRAME_NAMES[0] in columns
        what = f"{path.name} has no frame features"
        require(has_frames, what, found=sorted(columns), expected=" or ".join(FRAME_NAMES), fix="name them so")
        return _complete(path, columns)

    def close(self) -> None:
        """Close the file that is open."""
        if hasattr(self._content, "close"):
            self._content.close()
        self._path = self._content = None

    def _open(self, path: Path) -> Any:
        if path != self._path:
            self.close()
            self._content = _OPENERS[path.suffix.lower()](path)
            self._path = path
        return self._content


def _complete(path: Path, columns: dict[str, Tensor]) -> dict[str, Tensor]:
    """Bring frame features to (T, C), and fill in scores and labels of objects that have none."""
    frames = columns["frame_features"]
    if frames.ndim == 3 and len(frames) == 1:
        frames = frames[0]
    columns["frame_features"] = frames = frames[None] if frames.ndim == 1 else frames
    is_table = frames.ndim == 2 and frames.numel()
    problem = f"shape {tuple(frames.shape)}"
    fix = "pool maps of places and the clips of a video to one vector per frame"
    require(is_table, f"frame features of {path.name}", found=problem, expected="(frames, channels)", fix=fix)
    objects = columns.get("object_features")
    if objects is not None and objects.ndim == 3:
        is_object = (objects != 0).any(-1)
        columns.setdefault("object_scores", is_object.float())
        columns.setdefault("object_labels", torch.full(is_object.shape, -1))
    return columns


def _values(path: Path, content: Any, name: str) -> Any:
    with _readable(path, ValueError, OSError, KeyError, EOFError, BadZipFile):
        if path.suffix.lower() in (".h5", ".hdf5"):
            return check_dataset(path, content, name, allow_groups=True)
        return content[name]


def _tensor(path: Path, name: str, values: Any) -> Tensor:
    if isinstance(values, Tensor):
        return values
    array = np.asarray(values[()] if hasattr(values, "shape") else values)
    is_number = array.dtype.kind in "fiu" and array.ndim
    problem = f"{array.dtype} {array.shape}"
    fix = "leave out what is not a feature"
    require(is_number, f"invalid array {name!r} of {path.name}", found=problem, expected="numbers", fix=fix)
    if array.dtype.itemsize > 8 or not array.dtype.isnative:
        array = array.astype(np.float64 if array.dtype.itemsize > 8 else array.dtype.newbyteorder("="))
    return torch.from_numpy(np.array(array))


def _open_numpy(path: Path) -> Any:
    with _readable(path, OSError, ValueError, EOFError, BadZipFile):
        return np.load(path, allow_pickle=False, mmap_mode="r" if path.suffix.lower() == ".npy" else None)


def _open_torch(path: Path) -> Any:
    from pickle import UnpicklingError

    with _readable(path, OSError, RuntimeError, UnpicklingError, ValueError, EOFError, LookupError):
        content = torch.load(path, map_location="cpu", weights_only=True)
    is_known = isinstance(content, Tensor | Mapping)
    fix = "save it so: torch.save({video_id: tensor}, file)"
    expected = "a tensor, or tensors by name"
    require(is_known, f"{path.name} cannot be read", found=type(content).__name__, expected=expected, fix=fix)
    return content


_OPENERS: dict[str, Callable[[Path], Any]] = {
    ".npy": _open_numpy,
    ".npz": _open_numpy,
    ".pt": _open_torch,
    ".pth": _open_torch,
    ".h5": open_hdf5,
    ".hdf5": open_hdf5,
}


@contextmanager
def _readable(path: Path, *faults: type[Exception]) -> Iterator[None]:
    try:
        yield
    except CausalVideoError:
        raise
    except faults as error:
        would_run = any(words in str(error) for words in ("weights_only", "allow_pickle", "Python objects"))
        reason = "pickled objects, which would run code" if would_run else first_line(error)
        expected = "an array file with numbers and nothing else"
        fix = "write it again with np.save, np.savez, torch.save of tensors, or h5py"
        raise CausalVideoError(f"{path.name} cannot be read", found=reason, expected=expected, fix=fix) from error
