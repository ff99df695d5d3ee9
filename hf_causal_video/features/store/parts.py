"""Videos that are done but not yet in a shard: one file a video, written whole or not at all.

Why: decoding and detection take seconds a video, and a job on many processes is killed sooner or later. Each process
puts every finished video into a file of its own, so a kill costs at most the videos in progress; the main process
gathers them into shards in the order of the sources. The shards therefore have the same bytes whatever the number of
processes and of interruptions.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch

from hf_causal_video.features.store.provenance import Provenance
from hf_causal_video.features.store.rows import VideoFeatures
from hf_causal_video.features.store.shards import Shard, ShardWriter, row_shapes
from hf_causal_video.features.store.writer import FeatureWriter

PARTS_FOLDER = ".parts"
PATIENCE = timedelta(days=30)  # how long a process that is done waits for the others


def start_processes(device: str | None = None):
    """Give accelerate's view of this process among those that `accelerate launch` or `torchrun` started.

    Args:
        device: where to compute; processes that share no accelerator talk over the CPU.
    """
    from accelerate import PartialState

    launched = "LOCAL_RANK" in os.environ
    on_cpu = launched and (device == "cpu" or not torch.accelerator.is_available())
    return PartialState(cpu=on_cpu, timeout=PATIENCE)


class Parts:
    """The finished videos of a split that no shard holds yet.

    Args:
        folder: the feature set.
        split: name of the split.
        provenance: how the rows are made.
    """

    def __init__(self, folder: Path, split: str, provenance: Provenance):
        self.folder, self.provenance = folder / PARTS_FOLDER / split, provenance
        self.folder.mkdir(parents=True, exist_ok=True)

    def __contains__(self, video_id: str) -> bool:
        return self._path(video_id).exists()

    def add(self, features: VideoFeatures) -> None:
        """Write one video; nothing is written if it is refused."""
        arrays = features.to_arrays(self.provenance)
        writer = ShardWriter(self._path(features.video_id), self.provenance)
        writer.add(features.video_id, arrays)
        writer.finish()

    def read(self, video_id: str) -> VideoFeatures:
        """Read one video back."""
        shard = Shard(self._path(video_id))
        arrays = shard.read(0, np.empty(shard.nbytes(0), np.uint8))
        shapes = row_shapes(self.provenance, arrays["timestamps_s"].size)
        shard.close()
        return VideoFeatures(video_id, **{n: torch.from_numpy(a.reshape(shapes[n])) for n, a in arrays.items()})

    def drop(self, video_ids: Iterable[str]) -> None:
        """Remove videos that a shard holds by now."""
        for video_id in video_ids:
            self._path(video_id).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what a kill left half written; only while no process writes."""
        for leftover in self.folder.glob(".*.tmp"):
            leftover.unlink()

    def remove(self) -> None:
        """Remove the folder, which is empty when everything is in shards."""
        for folder in (self.folder, self.folder.parent):
            if not any(folder.iterdir()):
                folder.rmdir()

    def _path(self, video_id: str) -> Path:
        return self.folder / f"{hashlib.sha256(video_id.encode()).hexdigest()[:32]}.parquet"


class Gatherer:
    """Move parts into shards, in the order of the sources.

    Args:
        order: ids that no shard holds, in the order of the rows.
        parts: where they arrive.
        writer: of the set.
    """

    def __init__(self, order: list[str], parts: Parts, writer: FeatureWriter):
        self._order, self._parts, self._writer, self._next = order, parts, writer, 0

    def gather(self, failed: Iterable[str], last: bool = False) -> None:
        """Write the shards that are complete so far.

        Args:
            failed: ids that will not come.
            last: nothing more will come: write what there is, and pass over what is not.
        """
        ready: list[str] = []
        failed = set(failed)
        for place in range(self._next, len(self._order)):
            video_id = self._order[place]
            if video_id in self._parts:
                ready.append(video_id)
            elif not last and video_id not in failed:
                break
            if len(ready) == self._writer.rows_per_shard:
                self._write(ready, place + 1)
                ready = []
        if last:
            self._write(ready, len(self._order))

    def _write(self, ready: list[str], following: int) -> None:
        for video_id in ready:
            self._writer.add(self._parts.read(video_id))
        self._writer.finish_shard()
        self._parts.drop(ready)
        self._next = following
