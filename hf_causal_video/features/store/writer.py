"""Write a feature set so that a kill at any moment costs at most one shard and leaves no broken file."""

from __future__ import annotations

import json
import os
from pathlib import Path

from hf_causal_video.features.store.card import feature_card
from hf_causal_video.features.store.provenance import PROVENANCE_FILE, Provenance
from hf_causal_video.features.store.rows import VideoFeatures
from hf_causal_video.features.store.shards import ShardWriter, open_shards
from hf_causal_video.utils.errors import CausalVideoError


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
        >>> import tempfile, torch
        >>> from hf_causal_video.features import VideoFeatures
        >>> card = Provenance("org/vit", "main", "pooled", 8, sampling="uniform-2")
        >>> with tempfile.TemporaryDirectory() as folder, FeatureWriter(folder, card) as writer:
        ...     writer.add(VideoFeatures("v1", torch.tensor([0.5, 1.5]), torch.ones(2, 8)))
    """

    def __init__(self, folder: str | Path, provenance: Provenance, split: str = "train", rows_per_shard: int = 64):
        self.folder, self.provenance, self.split, self.rows_per_shard = Path(folder), provenance, split, rows_per_shard
        whole = isinstance(rows_per_shard, int) and rows_per_shard > 0
        if not whole or not isinstance(split, str) or not split.replace("_", "").isalnum():
            raise CausalVideoError(
                "bad shard settings",
                found=f"split {split!r}, rows_per_shard {rows_per_shard}",
                expected="a split of letters, digits and _, at least one row",
                fix="change them",
            )
        self._shard: ShardWriter | None = None
        (self.folder / "features").mkdir(parents=True, exist_ok=True)
        for leftover in (self.folder / "features").glob(f".{split}-*.tmp"):
            leftover.unlink()
        self._claim_folder()
        self.done = finished_ids(self.folder, provenance)
        names = [path.stem for path in (self.folder / "features").glob(f"{split}-*.parquet")]
        numbers = [int(number) for name in names if (number := name.rsplit("-", 1)[1]).isdigit()]
        self._next_number = max(numbers, default=-1) + 1

    def add(self, features: VideoFeatures) -> None:
        """Append one video; nothing is written if it is refused."""
        if features.video_id in self.done:
            raise CausalVideoError(
                f"video id {features.video_id!r} is there twice",
                found="a row with this id",
                expected="each video once",
                fix="skip the ids in FeatureWriter.done",
            )
        arrays = features.to_arrays(self.provenance)
        if self._shard is None:
            path = self.folder / "features" / f"{self.split}-{self._next_number:05d}.parquet"
            self._shard = ShardWriter(path, self.provenance)
        self._shard.add(features.video_id, arrays)
        self.done.add(features.video_id)
        if len(self._shard.video_ids) >= self.rows_per_shard:
            self.finish_shard()

    def finish_shard(self) -> None:
        """Put the rows so far on disk, whether or not the shard is full."""
        if self._shard is not None:
            self._shard.finish()
            self._shard, self._next_number = None, self._next_number + 1

    def close(self) -> None:
        """Finish the last shard and write the card."""
        self.finish_shard()
        write_text(self.folder / "README.md", feature_card(self.folder, self.provenance))

    def __enter__(self) -> FeatureWriter:
        return self

    def __exit__(self, kind, error, trace) -> None:
        if kind is None:
            self.close()
        elif self._shard is not None:
            self._shard.discard()

    def _claim_folder(self) -> None:
        if not (self.folder / PROVENANCE_FILE).exists():
            if any((self.folder / "features").glob("*.parquet")):
                Provenance.read(self.folder)
            card = json.dumps(self.provenance.to_dict(), indent=2, sort_keys=True)
            write_text(self.folder / PROVENANCE_FILE, card + "\n")
            return
        Provenance.read(self.folder).must_equal(self.provenance, self.folder)


def finished_ids(folder: Path, provenance: Provenance) -> set[str]:
    """Give the ids of every video that the shards of a feature set hold."""
    return {video_id for shard in open_shards(folder, provenance) for video_id in shard.video_ids}


def write_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
