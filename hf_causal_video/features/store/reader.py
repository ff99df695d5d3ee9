"""The feature store: one row per video, read lazily by video id, refused without provenance.

Why: whole feature files in memory are what makes the old code need 64 GB, and features of unknown origin are what
makes its numbers impossible to repeat. A feature set is a folder that is also a Hub dataset repository:

    provenance.json                 which networks, layers and instants
    README.md                       card; `load_dataset(folder, "features")` works
    features/<split>-00000.parquet  one row group per video
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hf_causal_video.features.store.provenance import PROVENANCE_FILE, Provenance
from hf_causal_video.features.store.rows import VideoFeatures
from hf_causal_video.features.store.shards import AGAIN, Shard, open_shards, row_shapes
from hf_causal_video.features.store.writer import FeatureWriter
from hf_causal_video.utils.checks import check_fields
from hf_causal_video.utils.errors import CausalVideoError, require

__all__ = ["FeatureStore", "FeatureWriter", "Provenance", "VideoFeatures"]


class FeatureStore:
    """Read feature sets by video id, one video at a time.

    Example:
        >>> card = Provenance("org/vit", "main", "pooled", 8, sampling="uniform-2")
        >>> store = FeatureStore.from_rows(card, [VideoFeatures("v1", torch.tensor([0.5, 1.5]), torch.ones(2, 8))])
        >>> store["v1"].frame_features.shape
        torch.Size([2, 8])
    """

    def __init__(self, provenance: Provenance, shards: list, folder: Path | None = None):
        self.provenance = provenance
        self.folder = folder
        self._shards = shards
        self._where: dict[str, tuple[int, int]] = {}
        for number, shard in enumerate(shards):
            for row, video_id in enumerate(shard.video_ids):
                if video_id in self._where:
                    problem = f"{shards[self._where[video_id][0]].path} and {shard.path}"
                    what = f"video id {video_id!r} occurs twice"
                    raise CausalVideoError(what, found=problem, expected="each video once", fix="delete one shard")
                self._where[video_id] = (number, row)

    @classmethod
    def open(cls, path_or_repo_id: str | Path, revision: str | None = None) -> FeatureStore:
        """Open a local feature set or a dataset repository of the Hub.

        Args:
            path_or_repo_id: a folder, or "org/name".
            revision: branch, tag or commit on the Hub.

        Raises:
            CausalVideoError: no such set, no provenance, no rows, a damaged shard, or an id that occurs twice.
        """
        folder = Path(path_or_repo_id)
        if not folder.is_dir():
            folder = _download(str(path_or_repo_id), revision)
        provenance = Provenance.read(folder)
        shards = open_shards(folder, provenance)
        has_rows = any(shard.video_ids for shard in shards)
        fix = "see failed.json there, or extract again"
        require(has_rows, f"the feature set {folder} is empty", found="no rows", expected="1 or more", fix=fix)
        return cls(provenance, shards, folder)

    @classmethod
    def from_rows(cls, provenance: Provenance, rows: Iterable[VideoFeatures]) -> FeatureStore:
        """Hold features in memory, for small sets."""
        return cls(provenance, [_MemoryShard(provenance, rows)])

    @property
    def video_ids(self) -> list[str]:
        """All ids, in the order of the files."""
        return list(self._where)

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, video_id: object) -> bool:
        return isinstance(video_id, str) and video_id in self._where

    def __iter__(self) -> Iterator[VideoFeatures]:
        return (self[video_id] for video_id in self._where)

    def __getitem__(self, video_id: str) -> VideoFeatures:
        return self.get_many([video_id])[0]

    def get_many(self, video_ids: Iterable[str]) -> list[VideoFeatures]:
        """Read several videos, in the order asked for, into one block of memory that lives as long as any of them.

        Raises:
            CausalVideoError: an id is not there, or a row is damaged; the error names the video and the file.
        """
        rows = [(video_id, *self._find(video_id)) for video_id in video_ids]
        sizes = [shard.nbytes(row) for _, shard, row in rows]
        block = np.empty(sum(sizes), np.uint8)
        buffers = [block[end - size : end] for size, end in zip(sizes, np.cumsum(sizes), strict=True)]
        return [
            VideoFeatures(video_id, **self._to_tensors(video_id, shard.read(row, buffer), shard))
            for (video_id, shard, row), buffer in zip(rows, buffers, strict=True)
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
        fields = expected.to_dict() if isinstance(expected, Provenance) else expected
        check_fields("feature_provenance of the model", fields, (), fix="correct feature_provenance in config.json")
        differs = self.provenance.differences(fields)
        present, wanted = (", ".join(f"{name} {pair[i]!r}" for name, pair in differs.items()) for i in (0, 1))
        what = f"the features {self.folder or 'in memory'} were made by another backbone than the model expects"
        fix = "extract the videos again with the expected models, or train a model on these features"
        require(not differs, what, found=present, expected=wanted, fix=fix)

    def push_to_hub(self, repo_id: str, private: bool | None = None, token: str | None = None) -> str:
        """Upload the folder with its card as a dataset repository, in one commit; give the commit's address.

        Features that the repository holds are replaced; its other tables, such as the questions about these videos,
        stay, and its card goes on to list them.

        Args:
            repo_id: "org/name", made if absent.
            private: who sees it, where it is made.
            token: of the Hub; the one you logged in with if None.

        Raises:
            CausalVideoError: features in memory, an existing repository of another visibility, no token, no network,
                or a name that is not yours.
        """
        from hf_causal_video.features.store.card import push_features

        return push_features(self.folder, self.provenance, repo_id, private, token)

    def _find(self, video_id: str) -> tuple[Shard, int]:
        if video_id not in self:
            near = difflib.get_close_matches(str(video_id), list(self._where), n=3, cutoff=0.0)
            problem = f"{len(self)} videos, nearest ids {near}"
            fix = "extract this video into the same folder, or leave its questions out"
            raise CausalVideoError(f"no features for video {video_id!r}", found=problem, expected="a row", fix=fix)
        number, row = self._where[video_id]
        return self._shards[number], row

    def _to_tensors(self, video_id: str, arrays: dict[str, np.ndarray], shard: Shard) -> dict[str, Tensor]:
        shapes = row_shapes(self.provenance, arrays["timestamps_s"].size if "timestamps_s" in arrays else 0)
        if arrays.keys() != shapes.keys():  # read often: no text in advance
            what = f"{shard.path} does not have the columns that the provenance promises"
            fix = "keep shards and provenance.json of one extraction together"
            raise CausalVideoError(what, found=", ".join(arrays), expected=", ".join(shapes), fix=fix)
        for name, array in arrays.items():
            if array.size != math.prod(shapes[name]):
                what = f"{name} of video {video_id!r} in {shard.path} is damaged"
                raise CausalVideoError(what, found=f"{array.size} values", expected=shapes[name], fix=AGAIN)
        tensors = {name: torch.from_numpy(array.reshape(shapes[name])) for name, array in arrays.items()}
        if not shard.is_checked:  # nobody but the writer has looked at these numbers
            try:
                VideoFeatures(video_id, **tensors).to_arrays(self.provenance)
            except CausalVideoError as error:
                what = f"{shard.path}: {error.what}"
                raise CausalVideoError(what, found=error.found, expected=error.expected, fix=AGAIN) from error
        return tensors


class _MemoryShard:
    path = "memory"
    is_checked = True

    def __init__(self, provenance: Provenance, rows: Iterable[VideoFeatures]):
        self._rows = [(row.video_id, row.to_arrays(provenance)) for row in rows]
        self.video_ids = [video_id for video_id, _ in self._rows]

    def nbytes(self, row: int) -> int:
        return 0

    def read(self, row: int, room: np.ndarray) -> dict[str, np.ndarray]:
        return {name: array.copy() for name, array in self._rows[row][1].items()}


def _download(repo_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                repo_id,
                repo_type="dataset",
                revision=revision,
                allow_patterns=[PROVENANCE_FILE, "README.md", "features/*.parquet"],
            )
        )
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise CausalVideoError(
            f"no feature set at {repo_id!r}" + (f", revision {revision!r}" if revision else ""),
            found=f"no such folder; the Hub says: {' '.join(str(error).split())}",
            expected="a folder with provenance.json, or a dataset repository org/name",
            fix="check the path or the name, or extract features with `hf-causal-video extract`",
        ) from error
