"""How opening, the first batch, resuming and memory of a feature set grow with its number of videos.

Rows are tiny, so that what is measured is what grows with the set and not its arrays. Each size is measured in a
process of its own: CPU seconds, and resident memory above that of the process with everything imported.
"""

import argparse
import csv
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from hf_causal_video.features.build import build_feature_set
from hf_causal_video.features.store import FeatureStore, Provenance, VideoFeatures

RESULTS = Path(__file__).parent / "results" / "feature_scale.csv"
CARD = Provenance("bench/vit", "none", "pooled", 4, sampling="uniform-2")
BATCH = 64


def make_row(video_id: str, _: object = None) -> VideoFeatures:
    """Make a tiny row."""
    return VideoFeatures(video_id, torch.tensor([0.5, 1.5]), torch.ones(2, 4))


def resident_mb() -> float:
    """Resident memory of this process in MB."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure(folder: Path, count: int) -> dict[str, float]:
    """Measure a set of `count` videos."""
    ids = [f"v{number:06d}" for number in range(count)]
    build_feature_set({"warm": 0}, make_row, folder / "warm", CARD, progress=False)
    before, start = resident_mb(), time.process_time()
    build_feature_set(dict.fromkeys(ids, 0), make_row, folder / "set", CARD, progress=False)
    result: dict[str, float] = {"videos": count, "build_rows_per_s": count / (time.process_time() - start)}
    result["build_mb"] = resident_mb() - before
    before, start = resident_mb(), time.process_time()
    store = FeatureStore.open(folder / "set")
    result["open_s"] = time.process_time() - start
    result["open_mb"] = resident_mb() - before
    order = np.random.default_rng(0).permutation(count)
    start = time.process_time()
    store.get_many([ids[place] for place in order[:BATCH]])
    result["first_batch_s"] = time.process_time() - start
    start = time.process_time()
    for place in range(0, count - BATCH, BATCH):
        store.get_many([ids[row] for row in order[place : place + BATCH]])
    result["epoch_rows_per_s"] = count / (time.process_time() - start)
    result["epoch_mb"] = resident_mb() - before
    del store
    before, start = resident_mb(), time.process_time()
    report = build_feature_set(dict.fromkeys([*ids, "new"], 0), make_row, folder / "set", CARD, progress=False)
    assert len(report.kept) == count and report.written == ["new"]
    result["resume_s"] = time.process_time() - start
    result["resume_mb"] = resident_mb() - before
    return result


def main() -> None:
    """Measure each size in its own process and write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--output", default=str(RESULTS), help=f"CSV, '-' for none; default results/{RESULTS.name}")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.one is not None:
        print(json.dumps(measure(args.one, args.sizes[0])))
        return
    lines = []
    for size in args.sizes:
        with tempfile.TemporaryDirectory(prefix="feature-scale-") as folder:
            command = [sys.executable, __file__, "--sizes", str(size), "--one", folder]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        lines.append(json.loads(done.stdout.splitlines()[-1]))
        print("  ".join(f"{name} {value:.4g}" for name, value in lines[-1].items()), flush=True)
    if args.output != "-":
        path = Path(args.output)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(lines[0]))
            writer.writeheader()
            writer.writerows({name: f"{value:.4g}" for name, value in line.items()} for line in lines)


if __name__ == "__main__":
    main()
