"""Rows a second and resident memory of the feature store, beside pyarrow's and datasets' own decoding.

Training reads one row a video at random, thousands of times; the row of a method with objects weighs 1.3 MB. Two
sets are written into a temporary folder and every reader gives the same float16 tensors, eight rows at a time, in file
order and shuffled, in this one process on one thread. Readers take turns, so a busy machine is busy for all of them.

With `--limit` one set is read under RLIMIT_AS, a limit of the address space that is `--limit` MB above what the
process holds: whatever allocates or maps more of the set than that is refused by the kernel. The limit is shown to
bite: a reader that keeps its rows, and one that maps the set as `datasets` does, must fail under it.
"""

import argparse
import csv
import ctypes
import gc
import mmap
import os
import platform
import resource
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from hf_causal_video.features.store import FeatureStore, FeatureWriter, Provenance, VideoFeatures

BATCH = 8
RESULTS = Path(__file__).parent / "results" / "features.csv"
ARRAYS = ("frame_features", "object_features")
PACKAGES = ("hf-causal-video", "torch", "pyarrow", "datasets", "numpy")
EXAMPLES = """examples:
  python scripts/benchmarks/features.py                     # 256 rows of 1.3 MB, 2048 of 64 KB; 1 GB of disk
  python scripts/benchmarks/features.py --limit 128 --rows 1500   # 2 GB read where 128 MB may be allocated
  python scripts/benchmarks/features.py --quick --output -  # a few seconds, nothing written

columns of the table:
  rows/s      by the clock, median over the passes
  rows/CPU s  by the seconds this process computed, median; other work on the machine hardly changes it
  own MB      resident memory of the process, its highest rise in any pass above the level before its first row
  mapped MB   the same of files that it maps; the kernel takes them back when memory is short
"""


class Row(NamedTuple):
    """Shape of a feature row: T frames of width C and N objects a frame of width D."""

    name: str
    frames: int
    frame_dim: int
    objects: int
    object_dim: int
    share: int  # rows of this set for one of `--rows`

    @property
    def arrays(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the large columns."""
        frames = {"frame_features": (self.frames, self.frame_dim)}
        return frames | ({"object_features": (self.frames, self.objects, self.object_dim)} if self.objects else {})


ROWS = (Row("1.3 MB", 16, 768, 20, 2048, 1), Row("64 KB", 16, 2048, 0, 0, 8))
Reader = Callable[[list[int]], list[dict[str, torch.Tensor]]]


def write_set(folder: Path, row: Row, count: int) -> None:
    """Write `count` random rows as a feature set."""
    card = Provenance("bench/vit", "none", "pooled", row.frame_dim, sampling=f"uniform-{row.frames}")
    if row.objects:
        detector = {"object_model": "bench/detr", "object_revision": "none", "object_layer": "last"}
        card = Provenance(**card.to_dict() | detector | {"object_dim": row.object_dim, "num_objects": row.objects})
    source, times = torch.Generator().manual_seed(0), torch.arange(row.frames) + 0.5
    with FeatureWriter(folder, card) as writer:
        for number in range(count):
            tensors = [torch.randn(shape, generator=source).half() for shape in row.arrays.values()]
            if row.objects:
                shape = (row.frames, row.objects)
                tensors += [torch.rand(*shape, 4, generator=source), torch.rand(shape, generator=source)]
                tensors.append(torch.zeros(shape, dtype=torch.int32))
            writer.add(VideoFeatures(f"v{number}", times, *tensors))


def make_readers(folder: Path, row: Row) -> dict[str, Reader]:
    """Give the readers by name; each turns row numbers into the tensors of `row.arrays`."""
    store = FeatureStore.open(folder)
    files = [pq.ParquetFile(path) for path in sorted((folder / "features").glob("*.parquet"))]
    places = [(file, group) for file in files for group in range(file.num_row_groups)]
    table = datasets.load_dataset(str(folder), "features", split="train", cache_dir=str(folder / "cache"))
    table = table.with_format("torch", columns=list(row.arrays), dtype=torch.float16)

    def by_store(numbers: list[int]) -> list[dict[str, torch.Tensor]]:
        rows = store.get_many(store.video_ids[number] for number in numbers)
        return [{name: getattr(video, name) for name in row.arrays} for video in rows]

    def by_pyarrow(numbers: list[int]) -> list[dict[str, torch.Tensor]]:
        picked = [places[number] for number in numbers]
        groups = [file.read_row_group(group, columns=list(row.arrays)) for file, group in picked]
        return [{name: _flat(group[name], shape) for name, shape in row.arrays.items()} for group in groups]

    def by_datasets(numbers: list[int]) -> list[dict[str, torch.Tensor]]:
        batch = table[numbers]
        return [{name: batch[name][i] for name in row.arrays} for i in range(len(numbers))]

    return {"FeatureStore": by_store, "pyarrow": by_pyarrow, "datasets": by_datasets}


def _flat(column: pa.ChunkedArray, shape: tuple[int, ...]) -> torch.Tensor:
    array = column.combine_chunks()
    array = array.storage if isinstance(array, pa.ExtensionArray) else array
    while pa.types.is_list(array.type):
        array = array.flatten()
    return torch.from_numpy(array.to_numpy(zero_copy_only=False).copy().reshape(shape))


def release() -> None:
    """Give freed memory back to the system, so that a pass starts from what is really held."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    ctypes.CDLL(None).malloc_trim(0)


def resident() -> tuple[float, float]:
    """Megabytes of this process in memory: its own, and of files it maps."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    own, mapped = (int(fields[name].split()[0]) / 1000 for name in ("RssAnon", "RssFile"))
    return own, mapped


class Pass(NamedTuple):
    """One reading of a whole set."""

    rows_per_second: float
    rows_per_cpu_second: float
    own_mb: float
    mapped_mb: float


def read_once(reader: Reader, numbers: list[int]) -> Pass:
    """Read every row once, in batches; memory is looked at after each batch, outside the clock."""
    release()
    (own, mapped), peak, wall, cpu = resident(), (0.0, 0.0), 0.0, 0.0
    for start in range(0, len(numbers), BATCH):
        clock, work = time.perf_counter(), time.process_time()
        batch = reader(numbers[start : start + BATCH])
        wall, cpu = wall + time.perf_counter() - clock, cpu + time.process_time() - work
        now = resident()
        peak = max(peak[0], now[0] - own), max(peak[1], now[1] - mapped)
        del batch
    return Pass(len(numbers) / wall, len(numbers) / cpu, *peak)


def measure(row: Row, rows: int, repeats: int) -> Iterator[dict[str, Any]]:
    """Write a set, check that the readers agree, and time them in turns."""
    count = rows * row.share
    with tempfile.TemporaryDirectory(prefix="features-benchmark-") as folder:
        print(f"writing {count} rows of {row.name}", file=sys.stderr, flush=True)
        write_set(Path(folder), row, count)
        readers = make_readers(Path(folder), row)
        sample = list(range(0, count, max(1, count // BATCH)))[:BATCH]
        expected, *others = [reader(sample) for reader in readers.values()]
        for found in others:
            for ours, theirs in zip(expected, found, strict=True):
                if not all(torch.equal(ours[name], theirs[name]) for name in row.arrays):
                    raise AssertionError("two readers give other numbers")
        orders = _orders(count)
        passes: dict[tuple[str, str], list[Pass]] = {(name, order): [] for order in orders for name in readers}
        for turn in range(repeats):
            for (name, order), done in passes.items():
                print(f"{row.name}, pass {turn + 1} of {repeats}: {name} {order}", file=sys.stderr, flush=True)
                done.append(read_once(readers[name], orders[order]))
        for (name, order), done in passes.items():
            columns = zip(Pass._fields, zip(*done, strict=True), strict=True)
            # what one pass leaves mapped is no rise in the next, so memory is the worst pass and not the median
            middle = {f: max(values) if f.endswith("_mb") else statistics.median(values) for f, values in columns}
            yield {"row": row.name, "reader": name, "order": order, "rows": count, **middle}


def limited(rows: int, limit_mb: int) -> dict[str, Any]:
    """Read a set of 1.3 MB rows, in file order and shuffled, with `limit_mb` of address space to spare."""
    row = ROWS[0]
    with tempfile.TemporaryDirectory(prefix="features-benchmark-") as folder:
        print(f"writing {rows} rows of {row.name}", file=sys.stderr, flush=True)
        write_set(Path(folder), row, rows)
        size = sum(path.stat().st_size for path in Path(folder).glob("features/*.parquet")) / 1e6
        if size < 2 * limit_mb:
            raise SystemExit(f"the set has {size:.0f} MB; for a limit of {limit_mb} MB it must be twice as large")
        store = FeatureStore.open(Path(folder))
        store.get_many(store.video_ids[: 2 * BATCH])
        release()
        held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (held + limit_mb * 10**6, resource.RLIM_INFINITY))
        passes = {}
        ids: list[str] = store.video_ids

        def by_store(numbers: list[int]) -> list[Any]:
            return store.get_many(ids[number] for number in numbers)

        for order, numbers in _orders(rows).items():
            passes[order] = read_once(by_store, numbers)
        controls = {"keeps its rows": lambda: list(store), "maps the set": lambda: _map(Path(folder))}
        for name, control in controls.items():
            try:
                control()
            except (MemoryError, OSError, RuntimeError):
                release()
            else:
                raise AssertionError(f"the limit does not bite: a reader that {name} gets through")
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return {"set_mb": size, "limit_mb": limit_mb, "rows": rows, "passes": passes}


def _map(folder: Path) -> list[mmap.mmap]:
    maps = []
    for path in sorted(folder.glob("features/*.parquet")):
        with path.open("rb") as file:
            maps.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return maps


def _orders(count: int) -> dict[str, list[int]]:
    return {"sequential": list(range(count)), "shuffled": np.random.default_rng(0).permutation(count).tolist()}


def main() -> None:
    """Measure, print a table and write the CSV."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, help="rows of 1.3 MB (64 KB: eight times as many); default 256")
    parser.add_argument("--repeats", type=int, help="passes of which the median is taken; default 5")
    parser.add_argument("--quick", action="store_true", help="16 rows and one pass, where nothing else is said")
    parser.add_argument("--limit", type=int, metavar="MB", help="read one set under a limit of memory; no CSV")
    parser.add_argument("--output", default=str(RESULTS), help=f"CSV, '-' for none; default results/{RESULTS.name}")
    args = parser.parse_args()
    rows, repeats = args.rows or (16 if args.quick else 256), args.repeats or (1 if args.quick else 5)
    if rows < 1 or repeats < 1:
        parser.error("--rows and --repeats start at 1")
    torch.set_num_threads(1)
    if args.limit is not None:
        result = limited(args.rows or 1500, args.limit)
        print("a set of {set_mb:.0f} MB ({rows} rows), {limit_mb} MB of address space to spare".format(**result))
        for order, found in result["passes"].items():
            print(f"{order:12}{found.rows_per_second:9.0f} rows/s{found.rows_per_cpu_second:9.0f} rows/CPU s"
                  f"{found.own_mb:7.0f} MB own{found.mapped_mb:7.0f} MB mapped")  # fmt: skip
        print("under the same limit a reader that keeps its rows fails, and one that maps the set")
        return
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    datasets.disable_progress_bars()
    before = os.getloadavg()[0]
    lines = [line for row in ROWS for line in measure(row, rows, repeats)]
    load = f"{before:.1f} before, {os.getloadavg()[0]:.1f} after, {os.cpu_count()} cores"
    made_by = {
        "repeats": repeats,
        "command": shlex.join(["python", "scripts/benchmarks/features.py", *sys.argv[1:]]),
        "versions": " ".join([f"python-{platform.python_version()}", *(f"{n}-{_version(n)}" for n in PACKAGES)]),
        "load_average": load,
    }
    print(f"{'row':8}{'reader':14}{'order':12}{'rows/s':>9}{'rows/CPU s':>12}{'own MB':>9}{'mapped MB':>11}")
    for line in lines:
        numbers = "{rows_per_second:9.0f}{rows_per_cpu_second:12.0f}{own_mb:9.0f}{mapped_mb:11.0f}".format(**line)
        print(f"{line['row']:8}{line['reader']:14}{line['order']:12}{numbers}")
    print(f"load average {load}")
    if args.output != "-":
        write_csv(Path(args.output), [line | made_by for line in lines])
        print(f"written: {args.output}")


def _version(package: str) -> str:
    from hf_causal_video import __version__

    return __version__ if package == "hf-causal-video" else version(package)


def write_csv(path: Path, lines: list[dict[str, Any]]) -> None:
    """Write the lines whole or not at all, numbers to four digits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(lines[0]))
        writer.writeheader()
        for line in lines:
            writer.writerow({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in line.items()})
    os.replace(temporary, path)


if __name__ == "__main__":
    main()
