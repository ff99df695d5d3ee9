"""Write a feature set from any source, on one process or many: resumable, never stopped by a bad video.

A run reads the next videos in threads while this thread runs the networks, and writes in another thread; each stage is
bounded, so that memory does not grow with the set. One process writes each row once, into its shard. Several processes
first put each finished video into a file of its own, see `Journal`.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np

from hf_causal_video.features.store.provenance import Provenance
from hf_causal_video.features.store.rows import VideoFeatures
from hf_causal_video.features.store.writer import FeatureWriter, Journal, claim_folder, finished_ids
from hf_causal_video.utils.errors import CausalVideoError
from hf_causal_video.utils.files import write_whole

if TYPE_CHECKING:
    from accelerate import PartialState

FAILED_FILE = "failed.json"
MOST_NOTES = 10
READERS = min(4, os.cpu_count() or 1)  # threads that read ahead
WAITING_WRITES = 4  # rows that wait for the disk
PATIENCE = timedelta(days=30)  # how long a process that is done waits for the others
Source = TypeVar("Source")
SourceIn = TypeVar("SourceIn", contravariant=True)
Content = TypeVar("Content")
Make = Callable[[str, Source], VideoFeatures]


class RowMaker(Protocol[SourceIn, Content]):
    """Make the rows of a feature set in two steps.

    Args:
        group_size: consecutive videos that are made together. Groups depend on the list of videos alone, so that the
            numbers of a row depend neither on interruptions nor on the number of processes.
    """

    group_size: int

    def read(self, video_id: str, source: SourceIn) -> Content:
        """Read what `make` needs, in a thread; a CausalVideoError lists this video in `failed.json`."""

    def make(self, video_ids: Sequence[str], contents: Sequence[Content]) -> list[VideoFeatures]:
        """Make the rows of a group; a CausalVideoError lists all its videos in `failed.json`."""


@dataclass
class ExtractionReport:
    """Say what an extraction did.

    Args:
        output: the feature set.
        written: ids written by this run.
        kept: ids of earlier runs.
        failed: id to reason.
        notes: id to what is worth knowing about a row that was written, such as a clip with few frames.
        seconds: time taken by this run.
    """

    output: Path
    written: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def __str__(self) -> str:
        rate = f", {len(self.written) / self.seconds:.2f} videos/s" if self.seconds and self.written else ""
        lines = [
            f"{len(self.written)} videos written, {len(self.kept)} kept, {len(self.failed)} failed{rate}",
            f"features: {self.output}",
        ]
        lines += [f"failed: {name}: {reason}" for name, reason in self.failed.items()]
        lines += [f"note: {note}" for note in list(self.notes.values())[:MOST_NOTES]]
        more = len(self.notes) - MOST_NOTES
        return "\n".join(lines + [f"note: and {more} more of this kind"] * (more > 0))


def build_feature_set(
    sources: Mapping[str, Source],
    make: Make[Source] | RowMaker[Source, Content],
    output: str | Path,
    provenance: Provenance,
    *,
    split: str = "train",
    rows_per_shard: int = 64,
    progress: bool = True,
    label: str = "extract",
    notes: dict[str, str] | None = None,
) -> ExtractionReport:
    """Make and write one row for each source that is not yet in the feature set.

    Started by `accelerate launch`, the videos are split over its processes, on one machine or on several that share
    the output folder; the result is that of one process, byte for byte.

    Args:
        sources: video id to whatever `make` needs; its order is the order of the rows.
        make: a function that gives the features of a video, or a `RowMaker`; a CausalVideoError from it, or a row
            that is refused, is listed in `failed.json` and the run goes on.
        output: folder of the feature set.
        provenance: how the rows are made.
        split: name of the split.
        rows_per_shard: videos per shard; a kill costs at most the shard in progress.
        progress: show a bar.
        label: what the bar says.
        notes: filled by `make`, by video id, for the report.

    Raises:
        CausalVideoError: the folder holds a set that was made in another way, or another run writes to it.
    """
    state = start_processes()
    start = time.monotonic()
    report = ExtractionReport(Path(output), notes={} if notes is None else notes)
    maker: RowMaker = _OneByOne(make) if callable(make) else make
    # a run of several processes is one run: its main process claims the folder and sweeps it before any other reads it
    with claim_folder(report.output) if state.is_main_process else nullcontext():
        writer = FeatureWriter(output, provenance, split, rows_per_shard) if state.is_main_process else None
        state.wait_for_everyone()
        if writer is None:
            Provenance.read(output).must_equal(provenance, report.output)
        done = writer.done if writer is not None else finished_ids(report.output, provenance)
        order = [video_id for video_id in sources if video_id not in done]
        journal = Journal(report.output, split, provenance, order, writer)
        if writer is not None:
            journal.sweep(done.intersection(sources))
        state.wait_for_everyone()
        finished = journal.finished()  # by an earlier run of several processes
        todo = {video_id for video_id in order if video_id not in finished}
        report.kept = [video_id for video_id in sources if video_id not in todo]
        is_alone = state.num_processes == 1 and not finished
        state.wait_for_everyone()  # all have seen the same, so that they split the same
        groups = _groups(list(sources), maker.group_size, todo)
        with writer or nullcontext(), state.split_between_processes(groups) as share:
            sink = _Direct(writer) if is_alone and writer is not None else journal
            run = _Run(sources, maker, todo, provenance, sink, report, writer is not None)
            run.make_rows(share, label, progress)
            state.wait_for_everyone()
            _add_up(report, order)
            if writer is not None:
                sink.gather(report.failed, last=True)
                journal.remove()
                _write_failed(report)
        state.wait_for_everyone()
    report.seconds = time.monotonic() - start
    return report


class _Sink(Protocol):
    def add(self, video_id: str, arrays: dict[str, np.ndarray]) -> None:
        """Write a row that was checked."""

    def gather(self, failed: Mapping[str, str], last: bool = False) -> None:
        """Write the shards that are complete by now."""


class _Direct:
    """Write rows straight into the shards of a set."""

    def __init__(self, writer: FeatureWriter):
        self.add = writer.add_checked

    def gather(self, failed: Mapping[str, str], last: bool = False) -> None:
        """Do nothing: the writer finishes its shards itself."""


class _OneByOne(Generic[Source]):
    """Make rows by a function of one video."""

    group_size = 1

    def __init__(self, make: Make[Source]):
        self._make = make

    def read(self, video_id: str, source: Source) -> Source:
        """Leave the source as it is."""
        return source

    def make(self, video_ids: Sequence[str], contents: Sequence[Source]) -> list[VideoFeatures]:
        """Call the function."""
        return [self._make(video_id, source) for video_id, source in zip(video_ids, contents, strict=True)]


def start_processes(device: str | None = None) -> PartialState:
    """Give accelerate's view of this process among those that `accelerate launch` or `torchrun` started.

    Args:
        device: where to compute; processes that share no accelerator talk over the CPU.
    """
    import torch
    from accelerate import PartialState

    is_launched = "LOCAL_RANK" in os.environ
    on_cpu = is_launched and (device == "cpu" or not torch.accelerator.is_available())
    return PartialState(cpu=on_cpu, timeout=PATIENCE)


def _groups(video_ids: list[str], size: int, todo: set[str]) -> list[list[str]]:
    """Cut the list of all videos into groups, and leave out those with nothing to do."""
    groups = (video_ids[start : start + size] for start in range(0, len(video_ids), size))
    return [group for group in groups if not todo.isdisjoint(group)]


@dataclass
class _Run(Generic[Source, Content]):
    """The share of one process in a run."""

    sources: Mapping[str, Source]
    maker: RowMaker[Source, Content]
    todo: set[str]
    provenance: Provenance
    sink: _Sink
    report: ExtractionReport
    is_main: bool
    listed: int = 0  # failures in failed.json

    def make_rows(self, groups: list[list[str]], label: str, progress: bool) -> None:
        """Make the rows of the groups and pass them to the writing thread."""
        from tqdm import tqdm

        bar = tqdm(total=sum(map(len, groups)), desc=label, unit="video", disable=not (progress and self.is_main))
        with bar, _in_background() as submit:
            for group, contents in self._read_ahead(groups):
                for video_id, arrays in self._make(contents):
                    submit(self.sink.add, video_id, arrays)
                    self.report.written.append(video_id)
                submit(self.sink.gather, self.report.failed)
                bar.update(len(group))

    def _read_ahead(self, groups: list[list[str]]) -> Iterator[tuple[list[str], dict[str, Content]]]:
        """Give each group with what was read of its videos, while the next ones are being read."""
        upcoming = (video_id for group in groups for video_id in group)
        waiting: deque[Future] = deque()
        with ThreadPoolExecutor(READERS, thread_name_prefix="read") as pool:

            def read_next() -> None:
                if (video_id := next(upcoming, None)) is not None:
                    waiting.append(pool.submit(self.maker.read, video_id, self.sources[video_id]))

            try:
                for _ in range(READERS + self.maker.group_size - 1):  # bounds what is in memory
                    read_next()
                for group in groups:
                    contents: dict[str, Content] = {}
                    for video_id in group:
                        content = waiting.popleft()
                        try:
                            contents[video_id] = content.result()
                        except CausalVideoError as error:
                            self._fail(video_id, error)
                        read_next()
                    yield group, contents
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _make(self, contents: dict[str, Content]) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        """Make the rows of a group, and check each: nothing behind this line looks at its numbers again."""
        try:
            rows = self.maker.make(list(contents), list(contents.values())) if contents else []
        except CausalVideoError as error:
            for video_id in contents:
                self._fail(video_id, error)
            return
        for video_id, row in zip(contents, rows, strict=True):
            if video_id not in self.todo:
                continue
            try:
                yield video_id, replace(row, video_id=video_id).to_arrays(self.provenance)
            except CausalVideoError as error:
                self._fail(video_id, error)

    def _fail(self, video_id: str, error: CausalVideoError) -> None:
        if video_id not in self.todo:
            return
        self.report.failed[video_id] = str(error)
        # each time the list has grown by a tenth: written at every failure, long lists would be written forever
        if self.is_main and len(self.report.failed) >= 1.1 * self.listed:
            self.listed = len(self.report.failed)
            _write_failed(self.report)


@contextmanager
def _in_background() -> Iterator[Callable[..., None]]:
    """Give a function that runs others in a thread, one after another; their errors come with a later call."""
    waiting: deque[Future] = deque()
    has_failed = threading.Event()

    def run(write: Callable[..., None], *args: object) -> None:
        if not has_failed.is_set():  # a row behind one that is lost would be out of order
            try:
                write(*args)
            except BaseException:
                has_failed.set()
                raise

    with ThreadPoolExecutor(1, thread_name_prefix="write") as pool:

        def submit(write: Callable[..., None], *args: object) -> None:
            while len(waiting) >= WAITING_WRITES:
                waiting.popleft().result()
            waiting.append(pool.submit(run, write, *args))

        try:
            yield submit
            while waiting:
                waiting.popleft().result()
        finally:
            pool.shutdown()  # rows that were made before an error elsewhere are still written


def _add_up(report: ExtractionReport, order: list[str]) -> None:
    """Merge the reports of all processes into one."""
    from accelerate.utils import gather_object

    reports = gather_object([(report.written, report.failed, report.notes)])
    written = {video_id for ids, _, _ in reports for video_id in ids}
    report.written = [video_id for video_id in order if video_id in written]
    report.failed = {name: reason for _, failed, _ in reports for name, reason in failed.items()}
    report.notes = {name: note for _, _, notes in reports for name, note in notes.items()}


def _write_failed(report: ExtractionReport) -> None:
    listed = [{"video_id": name, "reason": reason} for name, reason in sorted(report.failed.items())]
    write_whole(report.output / FAILED_FILE, json.dumps(listed, indent=2, ensure_ascii=False) + "\n")
