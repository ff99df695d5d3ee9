"""Write a feature set from any source: resumable, never stopped by one bad video, with a report of what failed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_causal_video.errors import CausalVideoError
from hf_causal_video.features.store import FeatureWriter, Provenance, VideoFeatures
from hf_causal_video.features.writer import write_text

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

    Args:
        sources: video id to whatever `make` needs; its order is the order of the rows.
        make: gives the features of a video; a CausalVideoError from it, or a row that is refused, is listed in
            `failed.json` and the run goes on.
        output: folder of the feature set.
        provenance: how the rows are made.
        split: name of the split.
        rows_per_shard: videos a shard; a kill loses at most this many.
        progress: show a bar.
        label: what the bar says.

    Raises:
        CausalVideoError: the folder holds a set that was made in another way.
    """
    from tqdm import tqdm

    start, report = time.monotonic(), ExtractionReport(Path(output))
    with FeatureWriter(output, provenance, split, rows_per_shard) as writer:
        report.kept = [video_id for video_id in sources if video_id in writer.done]
        todo = [video_id for video_id in sources if video_id not in writer.done]
        bar = tqdm(todo, desc=label, unit="video", initial=len(report.kept), total=len(sources), disable=not progress)
        for video_id in bar:
            try:
                writer.add(make(video_id, sources[video_id]))
                report.written.append(video_id)
            except CausalVideoError as error:
                report.failed[video_id] = str(error)
                _write_failed(report)
                bar.set_postfix(failed=len(report.failed))
    _write_failed(report)
    report.seconds = time.monotonic() - start
    return report


def _write_failed(report: ExtractionReport) -> None:
    listed = [{"video_id": name, "reason": reason} for name, reason in sorted(report.failed.items())]
    write_text(report.output / FAILED_FILE, json.dumps(listed, indent=2, ensure_ascii=False) + "\n")
