"""Write a feature set from any source, on one process or many: resumable by the video, never stopped by a bad one."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hf_causal_video.features.store.parts import Gatherer, Parts, start_processes
from hf_causal_video.features.store.provenance import Provenance
from hf_causal_video.features.store.reader import FeatureStore
from hf_causal_video.features.store.rows import VideoFeatures
from hf_causal_video.features.store.writer import FeatureWriter, finished_ids, write_text
from hf_causal_video.utils.errors import CausalVideoError

FAILED_FILE = "failed.json"


@dataclass
class ExtractionReport:
    """Say what an extraction did.

    Args:
        output: the feature set.
        written: ids written by this run.
        kept: ids that were there already.
        failed: id to reason.
        seconds: time taken by this run.
    """

    output: Path
    written: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def __str__(self) -> str:
        rate = f", {len(self.written) / self.seconds:.2f} videos/s" if self.seconds and self.written else ""
        lines = [
            f"{len(self.written)} videos written, {len(self.kept)} were there, {len(self.failed)} failed{rate}",
            f"features: {self.output}",
        ]
        return "\n".join(lines + [f"failed: {name}: {reason}" for name, reason in self.failed.items()])


def build_feature_set(
    sources: Mapping[str, Any],
    make: Callable[[str, Any], VideoFeatures],
    output: str | Path,
    provenance: Provenance,
    *,
    split: str = "train",
    rows_per_shard: int = 64,
    progress: bool = True,
    label: str = "extract",
) -> ExtractionReport:
    """Make and write one row for each source that is not yet in the feature set.

    Started by `accelerate launch`, the videos are split over its processes, on one machine or on several that share
    the output folder; the result is that of one process, byte for byte.

    Args:
        sources: video id to whatever `make` needs; its order is the order of the rows.
        make: gives the features of a video; a CausalVideoError from it, or a row that is refused, is listed in
            `failed.json` and the run goes on.
        output: folder of the feature set.
        provenance: how the rows are made.
        split: name of the split.
        rows_per_shard: videos a shard; a kill loses the videos in progress, not the shard.
        progress: show a bar.
        label: what the bar says.

    Raises:
        CausalVideoError: the folder holds a set that was made in another way.
    """
    state, start, report = start_processes(), time.monotonic(), ExtractionReport(Path(output))
    # the main process claims the folder and sweeps it before any other looks at it
    writer = FeatureWriter(output, provenance, split, rows_per_shard) if state.is_main_process else None
    state.wait_for_everyone()
    if writer is None:
        Provenance.read(output).must_equal(provenance, report.output)
    parts, done = Parts(report.output, split, provenance), finished_ids(report.output, provenance)
    if writer is not None:
        parts.sweep()
        parts.drop(done.intersection(sources))
    state.wait_for_everyone()
    order = [video_id for video_id in sources if video_id not in done]
    todo = [video_id for video_id in order if video_id not in parts]
    report.kept = [video_id for video_id in sources if video_id not in set(todo)]
    state.wait_for_everyone()  # all have seen the same, so that they split the same
    gatherer = None if writer is None else Gatherer(order, parts, writer)
    with writer or nullcontext(), state.split_between_processes(todo) as mine:
        for video_id in _bar(mine, label, progress and state.is_main_process):
            try:
                parts.add(replace(make(video_id, sources[video_id]), video_id=video_id))
                report.written.append(video_id)
            except CausalVideoError as error:
                report.failed[video_id] = str(error)
                if writer is not None:
                    _write_failed(report)
            if gatherer is not None:
                gatherer.gather(report.failed)
        state.wait_for_everyone()
        _add_up(report, order)
        if gatherer is not None:
            gatherer.gather(report.failed, last=True)
            parts.remove()
            _write_failed(report)
    state.wait_for_everyone()
    report.seconds = time.monotonic() - start
    return report


def add_push_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare where a finished set goes."""
    parser.add_argument("--push-to-hub", metavar="ORG/NAME", help="upload the set as a dataset repository")
    parser.add_argument("--private", action="store_true", help="with --push-to-hub: for members only")


def conclude(report: ExtractionReport, args: argparse.Namespace) -> int:
    """Print what was done, and push it if asked to; once for all processes.

    Returns:
        The exit code: 1 if a video failed, so that a script notices; the others are written all the same.

    Raises:
        CausalVideoError: the set holds no video.
    """
    if not start_processes().is_main_process:
        return 0
    print(report)
    if not report.written and not report.kept:
        raise CausalVideoError(
            "no video could be read",
            found=f"{len(report.failed)} failed",
            expected="at least one feature row",
            fix=f"see {report.output / 'failed.json'}",
        )
    if args.push_to_hub:
        store = FeatureStore.open(report.output)
        print("pushed:", store.push_to_hub(args.push_to_hub, private=True if args.private else None))
    return int(bool(report.failed))


def _bar(video_ids: list[str], label: str, show: bool) -> Iterable[str]:
    from tqdm import tqdm

    return tqdm(video_ids, desc=label, unit="video", disable=not show)


def _add_up(report: ExtractionReport, order: list[str]) -> None:
    """Make the report of every process that of all."""
    from accelerate.utils import gather_object

    reports = gather_object([(report.written, report.failed)])
    written = {video_id for ids, _ in reports for video_id in ids}
    report.written = [video_id for video_id in order if video_id in written]
    report.failed = {name: reason for _, failed in reports for name, reason in failed.items()}


def _write_failed(report: ExtractionReport) -> None:
    listed = [{"video_id": name, "reason": reason} for name, reason in sorted(report.failed.items())]
    write_text(report.output / FAILED_FILE, json.dumps(listed, indent=2, ensure_ascii=False) + "\n")
