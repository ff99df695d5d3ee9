"""Write a feature set so that a kill at any moment costs at most one shard and leaves no broken file."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import numpy as np

from hf_causal_video.features.store.card import feature_card
from hf_causal_video.features.store.provenance import PROVENANCE_FILE, Provenance
from hf_causal_video.features.store.rows import VideoFeatures
from hf_causal_video.features.store.shards import Shard, ShardWriter, open_shards, row_shapes
from hf_causal_video.utils.checks import check_whole
from hf_causal_video.utils.errors import CausalVideoError, require
from hf_causal_video.utils.files import remove_partial, write_whole

CLAIM_FILE = ".claim"
JOURNAL_FOLDER = ".parts"


class FeatureWriter:
    """Write a feature set shard by shard; a killed run loses at most the shard in progress.

    Open it again on the same folder to go on: `done` holds the ids that are safe on disk. The shards of a resumed run
    have the bytes of an uninterrupted one if the videos come in the same order.

    Args:
        folder: made if absent; an existing set must have the same provenance.
        provenance: how the rows are made.
        split: prefix of the shards' names.
        rows_per_shard: videos per shard.

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
        self.folder = Path(folder)
        self.provenance = provenance
        self.split = split
        self.rows_per_shard = rows_per_shard
        check_whole("rows_per_shard", rows_per_shard)
        is_name = isinstance(split, str) and split.replace("_", "").isalnum()
        require(is_name, "invalid split", found=repr(split), expected="letters, digits and _", fix="rename it")
        self._shard: ShardWriter | None = None
        (self.folder / "features").mkdir(parents=True, exist_ok=True)
        remove_partial(self.folder)
        remove_partial(self.folder / "features", f"{split}-*")
        self._claim_folder()
        self.done = finished_ids(self.folder, provenance)
        names = [path.stem for path in (self.folder / "features").glob(f"{split}-*.parquet")]
        numbers = [int(number) for name in names if (number := name.rsplit("-", 1)[1]).isdigit()]
        self._next_number = max(numbers, default=-1) + 1

    def add(self, features: VideoFeatures) -> None:
        """Append one video; nothing is written if it is refused."""
        what = f"video id {features.video_id!r} occurs twice"
        fix = "skip the ids in FeatureWriter.done"
        require(features.video_id not in self.done, what, found="a row of it", expected="each video once", fix=fix)
        self.add_checked(features.video_id, features.to_arrays(self.provenance))

    def add_checked(self, video_id: str, arrays: dict[str, np.ndarray]) -> None:
        """Append a video whose arrays `VideoFeatures.to_arrays` gave."""
        if self._shard is None:
            path = self.folder / "features" / f"{self.split}-{self._next_number:05d}.parquet"
            self._shard = ShardWriter(path, self.provenance)
        self._shard.add(video_id, arrays)
        self.done.add(video_id)
        if len(self._shard.video_ids) >= self.rows_per_shard:
            self.finish_shard()

    def finish_shard(self) -> None:
        """Put the rows so far on disk, whether or not the shard is full."""
        if self._shard is not None:
            self._shard.finish()
            self._shard = None
            self._next_number += 1

    def close(self) -> None:
        """Finish the last shard and write the card."""
        self.finish_shard()
        write_whole(self.folder / "README.md", feature_card(self.folder, self.provenance))

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
            write_whole(self.folder / PROVENANCE_FILE, card + "\n")
            return
        Provenance.read(self.folder).must_equal(self.provenance, self.folder)


class Journal:
    """Finished videos that no shard holds yet: one file per video, written whole or not at all.

    Why: a job on many processes is killed sooner or later. Each process puts every finished video into a file of its
    own, so a kill costs at most the videos in progress; the main process gathers them into shards in the order of the
    sources. So the shards have the same bytes whatever the number of processes and of interruptions.

    Args:
        folder: the feature set.
        split: name of the split.
        provenance: how the rows are made.
        order: ids that no shard holds, in the order of the rows.
        writer: of the set, in the main process.
    """

    def __init__(
        self, folder: Path, split: str, provenance: Provenance, order: list[str], writer: FeatureWriter | None
    ):
        self.folder = folder / JOURNAL_FOLDER / split
        self.provenance = provenance
        self._order = order
        self._writer = writer
        self._next = 0

    def finished(self) -> set[str]:
        """Give the ids that lie here."""
        files = {path.name for path in self.folder.glob("[!.]*")}
        return {video_id for video_id in self._order if self._path(video_id).name in files} if files else set()

    def add(self, video_id: str, arrays: dict[str, np.ndarray]) -> None:
        """Write one video whose arrays `VideoFeatures.to_arrays` gave."""
        self.folder.mkdir(parents=True, exist_ok=True)
        shard = ShardWriter(self._path(video_id), self.provenance)
        try:
            shard.add(video_id, arrays)
        except BaseException:
            shard.discard()
            raise
        shard.finish()

    def gather(self, failed: Container[str], last: bool = False) -> None:
        """Move videos into the shards that are complete by now, in the order of the rows.

        Args:
            failed: ids that will not come.
            last: nothing more will come: write what there is, and pass over what is not.
        """
        if self._writer is None:
            return
        ready: list[str] = []
        for place in range(self._next, len(self._order)):
            video_id = self._order[place]
            if self._path(video_id).exists():
                ready.append(video_id)
            elif not last and video_id not in failed:
                break
            if len(ready) == self._writer.rows_per_shard:
                self._move(ready, place + 1)
                ready = []
        if last:
            self._move(ready, len(self._order))

    def sweep(self, written: set[str]) -> None:
        """Remove what a kill left half written, and videos that a shard holds by now; only while no process writes."""
        for file in self.folder.glob("*"):
            if file.name.startswith("."):
                file.unlink()
        for video_id in written if self.folder.exists() else ():
            self._path(video_id).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder, which is empty when everything is in shards."""
        for folder in (self.folder, self.folder.parent):
            if folder.exists() and not any(folder.iterdir()):
                folder.rmdir()

    def _move(self, ready: list[str], following: int) -> None:
        assert self._writer is not None
        for video_id in ready:
            shard = Shard(self._path(video_id))
            flat = shard.read(0, np.empty(shard.nbytes(0), np.uint8))
            shapes = row_shapes(self.provenance, flat["timestamps_s"].size)
            self._writer.add_checked(video_id, {name: array.reshape(shapes[name]) for name, array in flat.items()})
            shard.close()
        self._writer.finish_shard()
        for video_id in ready:
            self._path(video_id).unlink()
        self._next = following

    def _path(self, video_id: str) -> Path:
        return self.folder / f"{hashlib.sha256(video_id.encode()).hexdigest()[:32]}.parquet"


def finished_ids(folder: Path, provenance: Provenance) -> set[str]:
    """Give the ids of every video that the shards of a feature set hold."""
    return {video_id for shard in open_shards(folder, provenance) for video_id in shard.video_ids}


@contextmanager
def claim_folder(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder while this one writes there.

    Why: two runs that write one set delete each other's unfinished files. The system gives up the lock of a process
    that ends in any way, so a killed run leaves nothing that has to be cleaned up.

    Args:
        folder: made if absent.

    Raises:
        CausalVideoError: another run holds the folder; the error names its process, machine, command and start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CLAIM_FILE
    claim = _lock(path)
    try:
        command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:2]]).strip()
        claim.write(f"process {os.getpid()} on {socket.gethostname()} since {time.ctime()} ({command})")
        claim.flush()
        yield
    finally:
        path.unlink(missing_ok=True)
        claim.close()


def _lock(path: Path) -> TextIO:
    while True:
        claim = open(path, "a+", encoding="utf-8")  # noqa: SIM115  closed by whoever holds the claim
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            with claim:
                claim.seek(0)
                holder = claim.read()
            raise CausalVideoError(
                f"another run writes to {path.parent}",
                found=holder or "a run that is just starting",
                expected="one run at a time",
                fix="wait for it or end it, or write to another folder",
            ) from error
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
                claim.close()
                raise
            logging.getLogger(__name__).warning(
                "%s lies on a file system without locks: make sure that no other run writes there", path.parent
            )
        # the last holder may have removed the file after it was opened here
        if path.exists() and os.path.samestat(os.fstat(claim.fileno()), path.stat()):
            claim.truncate(0)
            return claim
        claim.close()
