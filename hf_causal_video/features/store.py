"""The feature store: one row a video, read lazily by video id, refused without provenance.

Why: whole feature files in memory are what makes the old code need 64 GB, and features of unknown origin are what
makes its numbers impossible to repeat. A feature set is a folder that is also a Hub dataset repository:

    provenance.json                 which networks, layers and instants
    README.md                       card; `load_dataset(folder, "features")` works
    features/<split>-00000.parquet  one row group a video
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hf_causal_video.errors import CausalVideoError
from hf_causal_video.features.card import feature_card
from hf_causal_video.features.provenance import PROVENANCE_FILE, Provenance
from hf_causal_video.features.shards import COLUMNS, Shard, ShardWriter, make_schema

__all__ = ["FeatureStore", "FeatureWriter", "Provenance", "VideoFeatures"]


@dataclass
class VideoFeatures:
    """Hold the features of one video.

    Args:
        video_id: unique name.
        timestamps_s: (T,) seconds, increasing; frame and object row t both show this instant.
        frame_features: (T, C) float16.
        object_features: (T, N, C) float16, zero where there is no object; None without objects.
        object_boxes: (T, N, 4) xyxy in [0, 1].
        object_scores: (T, N); 0 is padding.
        object_labels: (T, N); -1 is padding.

    Example:
        >>> clip = VideoFeatures("v1", torch.tensor([0.5, 1.5]), torch.zeros(2, 8))
        >>> clip.object_mask is None
        True
    """

    video_id: str
    timestamps_s: Tensor
    frame_features: Tensor
    object_features: Tensor | None = None
    object_boxes: Tensor | None = None
    object_scores: Tensor | None = None
    object_labels: Tensor | None = None

    @property
    def object_mask(self) -> Tensor | None:
        """(T, N) True where there is an object; None without objects."""
        return None if self.object_scores is None else self.object_scores > 0

    def to_arrays(self, provenance: Provenance) -> dict[str, np.ndarray]:
        """Give the arrays as they are stored, after checking every shape and value against the provenance.

        Raises:
            CausalVideoError: T is zero, a width differs, a value is not finite or overflows float16, times do not
                increase, a box leaves [0, 1], or object tensors are missing.
        """
        sizes = {"T": len(self.timestamps_s), "N": provenance.num_objects, "4": 4}
        if sizes["T"] == 0:
            raise self._wrong("has no frames", "T = 0", "at least one frame", "leave the video out")
        arrays = {}
        for name, (dtype, axes) in COLUMNS.items():
            tensor = getattr(self, name)
            wanted = name in ("timestamps_s", "frame_features") or provenance.has_objects
            if wanted != (tensor is not None):
                raise self._wrong(f"{name} and provenance disagree", "tensor" if tensor is not None else "nothing",
                                  "object tensors exactly if the provenance names an object model",
                                  "pass all four object tensors, or none and a provenance without objects")
            if tensor is None:
                continue
            sizes["C"] = provenance.object_dim if name == "object_features" else provenance.frame_dim
            expected = tuple(sizes[axis] for axis in axes)
            if tuple(tensor.shape) != expected:
                raise self._wrong(f"{name} has the wrong shape", tuple(tensor.shape), expected,
                                  "extract with the models that the provenance names")
            array = tensor.detach().cpu().to(getattr(torch, dtype)).numpy()
            if not np.isfinite(array).all():
                cause = "NaN or infinity" if not torch.isfinite(tensor).all() else f"values too large for {dtype}"
                raise self._wrong(f"{name} is not finite", cause, "finite numbers",
                                  "check the backbone and its arithmetic (try float32)")
            arrays[name] = array
        if (np.diff(arrays["timestamps_s"]) <= 0).any():
            raise self._wrong("timestamps_s do not increase", arrays["timestamps_s"].tolist(),
                              "strictly increasing seconds", "sort the frames and drop repeated ones")
        boxes = arrays.get("object_boxes")
        if boxes is not None and (boxes.min() < 0 or boxes.max() > 1):
            raise self._wrong("object_boxes leave the picture", f"values {boxes.min()} to {boxes.max()}",
                              "xyxy in [0, 1]", "divide pixel boxes by width and height")
        return arrays

    def _wrong(self, what: str, found: object, expected: object, fix: str) -> CausalVideoError:
        return CausalVideoError(f"video {self.video_id!r}: {what}", found=found, expected=expected, fix=fix)


class FeatureStore:
    """Read feature sets by video id, one video at a time.

    Example:
        >>> card = Provenance("org/vit", "main", "pooled", 8, sampling="uniform-2")
        >>> store = FeatureStore.from_rows(card, [VideoFeatures("v1", torch.tensor([0.5, 1.5]), torch.ones(2, 8))])
        >>> store["v1"].frame_features.shape
        torch.Size([2, 8])
    """

    def __init__(self, provenance: Provenance, shards: list, folder: Path | None = None):
        self.provenance, self.folder, self._shards = provenance, folder, shards
        self._where: dict[str, tuple[int, int]] = {}
        for number, shard in enumerate(shards):
            for row, video_id in enumerate(shard.video_ids):
                if video_id in self._where:
                    first = shards[self._where[video_id][0]].path
                    raise CausalVideoError(
                        f"video id {video_id!r} is there twice", found=f"{first} and {shard.path}",
                        expected="each video once in a feature set", fix="delete one of the two shards",
                    )
                self._where[video_id] = (number, row)

    @classmethod
    def open(cls, path_or_repo_id: str | Path, revision: str | None = None) -> FeatureStore:
        """Open a local feature set or a dataset repository of the Hub.

        Args:
            path_or_repo_id: a folder, or "org/name".
            revision: branch, tag or commit on the Hub.

        Raises:
            CausalVideoError: no such set, no provenance, no rows, a damaged shard, or an id that is there twice.
        """
        folder = Path(path_or_repo_id)
        if not folder.is_dir():
            folder = _download(str(path_or_repo_id), revision)
        provenance = Provenance.read(folder)
        shards = [Shard(path) for path in sorted((folder / "features").glob("*.parquet"))]
        if not any(shard.video_ids for shard in shards):
            raise CausalVideoError(f"the feature set {folder} is empty", found="no rows in features/*.parquet",
                                   expected="at least one video", fix="see failed.json there, or extract again")
        return cls(provenance, shards, folder)

    @classmethod
    def from_rows(cls, provenance: Provenance, rows: Iterable[VideoFeatures]) -> FeatureStore:
        """Hold features in memory, for sets that are small or made on the fly."""
        return cls(provenance, [_MemoryShard(provenance, rows)])

    @property
    def video_ids(self) -> list[str]:
        """All ids, in the order of the files."""
        return list(self._where)

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._where

    def __iter__(self) -> Iterator[VideoFeatures]:
        return (self[video_id] for video_id in self._where)

    def __getitem__(self, video_id: str) -> VideoFeatures:
        return self.get_many([video_id])[0]

    def get_many(self, video_ids: Iterable[str]) -> list[VideoFeatures]:
        """Read several videos, in the order asked for, into one block of memory that lives as long as any of them.

        Raises:
            CausalVideoError: an id is not there, or a row is damaged; the error names the video and the file.
        """
        places = [(video_id, *self._find(video_id)) for video_id in video_ids]
        sizes = [shard.nbytes(row) for _, shard, row in places]
        block, ends = np.empty(sum(sizes), np.uint8), np.cumsum(sizes)
        rooms = [block[end - size : end] for size, end in zip(sizes, ends, strict=True)]
        return [
            VideoFeatures(video_id, **self._to_tensors(video_id, shard.read(row, room), shard.path))
            for (video_id, shard, row), room in zip(places, rooms, strict=True)
        ]

    def check(self, expected: Provenance | dict | None) -> None:
        """Refuse to serve a model that was trained on features of another backbone.

        Args:
            expected: the provenance that a checkpoint carries; None checks nothing.

        Raises:
            CausalVideoError: names each field that differs.
        """
        if expected is None:
            return
        expected = expected.to_dict() if isinstance(expected, Provenance) else expected
        differs = self.provenance.differences(expected)
        if differs:
            raise CausalVideoError(
                f"the features {self.folder or 'in memory'} were made by another backbone than the model expects",
                found=", ".join(f"{name} {here!r}" for name, (here, _) in differs.items()),
                expected=", ".join(f"{name} {there!r}" for name, (_, there) in differs.items()),
                fix="extract the videos again with the expected models, or train a model on these features",
            )

    def push_to_hub(self, repo_id: str, private: bool | None = None, token: str | None = None) -> str:
        """Upload the folder with its card as a dataset repository, in one commit; give the commit's address."""
        from huggingface_hub import HfApi

        if self.folder is None:
            raise CausalVideoError("features in memory cannot be pushed", found="no folder",
                                   expected="a feature set on disk", fix="write it with FeatureWriter first")
        api = HfApi(token=token)
        api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        return api.upload_folder(
            repo_id=repo_id, repo_type="dataset", folder_path=self.folder,
            allow_patterns=[PROVENANCE_FILE, "README.md", "failed.json", "features/*.parquet"],
            commit_message="Upload features",
        ).commit_url

    def _find(self, video_id: str) -> tuple[Shard, int]:
        if video_id not in self._where:
            near = difflib.get_close_matches(str(video_id), list(self._where), n=3, cutoff=0.0)
            raise CausalVideoError(
                f"no features for video {video_id!r}", found=f"{len(self)} videos, nearest ids {near}",
                expected="a row for every video that is asked for",
                fix="extract this video into the same folder, or leave its questions out",
            )
        number, row = self._where[video_id]
        return self._shards[number], row

    def _to_tensors(self, video_id: str, arrays: dict[str, np.ndarray], path: object) -> dict[str, Tensor]:
        sizes = {"T": arrays["timestamps_s"].size, "N": self.provenance.num_objects, "4": 4}
        tensors = {}
        for name, array in arrays.items():
            sizes["C"] = self.provenance.object_dim if name == "object_features" else self.provenance.frame_dim
            shape = tuple(sizes[axis] for axis in COLUMNS[name][1])
            if array.size != np.prod(shape) or not _is_finite(array):
                wrong = "NaN or infinity" if array.size == np.prod(shape) else f"{array.size} values for shape {shape}"
                raise CausalVideoError(f"{name} of video {video_id!r} in {path} is damaged", found=wrong,
                                       expected=f"finite values of shape {shape}", fix="extract this set again")
            tensors[name] = torch.from_numpy(array.reshape(shape))
        return tensors


class FeatureWriter:
    """Write a feature set shard by shard; a killed run loses at most the shard in progress.

    Open it again on the same folder to go on: `done` holds the ids that are safe on disk. The shards of a resumed run
    have the bytes of an uninterrupted one if the videos come in the same order.

    Args:
        folder: made if absent; an existing set must have the same provenance.
        provenance: how the rows are made.
        split: prefix of the shards' names.
        rows_per_shard: videos a shard.

    Raises:
        CausalVideoError: another provenance in the folder, an id twice, or a row that contradicts the provenance.

    Example:
        >>> import tempfile
        >>> card = Provenance("org/vit", "main", "pooled", 8, sampling="uniform-2")
        >>> with tempfile.TemporaryDirectory() as folder, FeatureWriter(folder, card) as writer:
        ...     writer.add(VideoFeatures("v1", torch.tensor([0.5, 1.5]), torch.ones(2, 8)))
    """

    def __init__(self, folder: str | Path, provenance: Provenance, split: str = "train", rows_per_shard: int = 64):
        self.folder, self.provenance, self.split, self.rows_per_shard = Path(folder), provenance, split, rows_per_shard
        if rows_per_shard < 1 or not split.replace("_", "").isalnum():
            raise CausalVideoError("bad shard settings", found=f"split {split!r}, rows_per_shard {rows_per_shard}",
                                   expected="a split of letters, digits and _, at least one row", fix="change them")
        self._shard: ShardWriter | None = None
        (self.folder / "features").mkdir(parents=True, exist_ok=True)
        for leftover in (self.folder / "features").glob(f".{split}-*.tmp"):
            leftover.unlink()
        self._claim_folder()
        shards = [Shard(path) for path in sorted((self.folder / "features").glob("*.parquet"))]
        self.done: set[str] = {video_id for shard in shards for video_id in shard.video_ids}
        numbers = [int(s.path.stem.rsplit("-", 1)[1]) for s in shards if s.path.stem.startswith(f"{split}-")]
        self._next_number = max(numbers, default=-1) + 1
        self._schema = make_schema(provenance.frame_dim, provenance.num_objects, provenance.object_dim)

    def add(self, features: VideoFeatures) -> None:
        """Append one video; nothing is written if it is refused."""
        if features.video_id in self.done:
            raise CausalVideoError(f"video id {features.video_id!r} is there twice", found="a row with this id",
                                   expected="each video once", fix="skip the ids in FeatureWriter.done")
        arrays = features.to_arrays(self.provenance)
        if self._shard is None:
            path = self.folder / "features" / f"{self.split}-{self._next_number:05d}.parquet"
            self._shard = ShardWriter(path, self._schema)
        self._shard.add(features.video_id, arrays)
        self.done.add(features.video_id)
        if len(self._shard.video_ids) >= self.rows_per_shard:
            self._finish_shard()

    def close(self) -> None:
        """Finish the last shard and write the card."""
        if self._shard is not None:
            self._finish_shard()
        _write(self.folder / "README.md", feature_card(self.folder, self.provenance))

    def __enter__(self) -> FeatureWriter:
        return self

    def __exit__(self, kind, error, trace) -> None:
        if kind is None:
            self.close()
        elif self._shard is not None:
            self._shard.discard()

    def _finish_shard(self) -> None:
        self._shard.finish()
        self._shard, self._next_number = None, self._next_number + 1

    def _claim_folder(self) -> None:
        if not (self.folder / PROVENANCE_FILE).exists():
            if any((self.folder / "features").glob("*.parquet")):
                Provenance.read(self.folder)
            _write(self.folder / PROVENANCE_FILE, json.dumps(self.provenance.to_dict(), indent=2, sort_keys=True) + "\n")
            return
        there, ours = Provenance.read(self.folder).to_dict(), json.loads(json.dumps(self.provenance.to_dict()))
        differs = [name for name in ours if ours[name] != there[name]]
        if differs:
            raise CausalVideoError(
                f"the feature set {self.folder} was made in another way",
                found=", ".join(f"{name} {there[name]!r}" for name in differs),
                expected=", ".join(f"{name} {ours[name]!r}" for name in differs),
                fix="write to a new folder, or go on with the settings and versions found there",
            )


class _MemoryShard:
    path = "memory"

    def __init__(self, provenance: Provenance, rows: Iterable[VideoFeatures]):
        self._rows = [(row.video_id, row.to_arrays(provenance)) for row in rows]
        self.video_ids = [video_id for video_id, _ in self._rows]

    def nbytes(self, row: int) -> int:
        return 0

    def read(self, row: int, room: np.ndarray) -> dict[str, np.ndarray]:
        return {name: array.copy() for name, array in self._rows[row][1].items()}


def _is_finite(array: np.ndarray) -> bool:
    if array.dtype != np.float16:
        return bool(np.isfinite(array).all())
    # half-precision NaN and infinity have all exponent bits set: two integer maxima, five times faster than isfinite
    return bool(array.view(np.int16).max() < 0x7C00 and array.view(np.uint16).max() < 0xFC00)


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _download(repo_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo_id, repo_type="dataset", revision=revision,
                                      allow_patterns=[PROVENANCE_FILE, "README.md", "features/*.parquet"]))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise CausalVideoError(
            f"no feature set at {repo_id!r}", found=f"no such folder; the Hub says: {error}".splitlines()[0],
            expected="a folder with provenance.json, or a dataset repository org/name",
            fix="check the path or the name, or extract features with `hf-causal-video extract`",
        ) from error
