"""One Parquet shard of a feature set, written row by row and read row by row at the speed of the disk.

Why: a question needs the features of one video, never a split. Parquet is what the Hub and `datasets` read, but
decoding nested float16 gives about 190 rows of 1.3 MB a second. So each video is a row group of its own and each
column of it is a single page, plain and uncompressed: the values of an array are then the last bytes of its column
chunk, and a row is one `pread` away. Any Parquet reader still reads the file. A shard that another tool wrote
(several rows per group, compressed) is read through the ordinary decoder: same numbers, slower.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hf_causal_video.features.store.provenance import Provenance
from hf_causal_video.utils.errors import CausalVideoError, require
from hf_causal_video.utils.files import partial_path

# column -> (dtype, axes); the first axis T is free, the others are fixed by the provenance
COLUMNS = {
    "timestamps_s": ("float32", "T"),
    "frame_features": ("float16", "TC"),
    "object_features": ("float16", "TNC"),
    "object_boxes": ("float32", "TN4"),
    "object_scores": ("float32", "TN"),
    "object_labels": ("int32", "TN"),
}
IDS_KEY = b"hf_causal_video.video_ids"
SUMS_KEY = b"hf_causal_video.checksums"
ORIGIN_KEY = b"hf_causal_video.provenance_sha256"
SEAL = b"hf_causal_video.footer_crc32"  # with 4 bytes behind it stands before the footer, where Parquet reads nothing
MOST_OPEN = 128  # files
AGAIN = "delete this file and run the extraction again (it resumes), or download it again"
TAIL = 8  # length of the footer, and "PAR1"


def make_schema(provenance: Provenance) -> pa.Schema:
    """Give the Arrow schema of a feature row, with the types of `datasets` inside for `load_dataset`."""
    from datasets import Array2D, Array3D, Features, List, Value

    columns = {
        "video_id": Value("string"),
        "timestamps_s": List(Value("float32")),
        "frame_features": Array2D((None, provenance.frame_dim), "float16"),
    }
    if provenance.has_objects:
        num_objects = provenance.num_objects
        columns["object_features"] = Array3D((None, num_objects, provenance.object_dim), "float16")
        columns["object_boxes"] = Array3D((None, num_objects, 4), "float32")
        columns["object_scores"] = Array2D((None, num_objects), "float32")
        columns["object_labels"] = Array2D((None, num_objects), "int32")
    return Features(columns).arrow_schema


def row_shapes(provenance: Provenance, frames: int) -> dict[str, tuple[int, ...]]:
    """Give the shape that each column of a row must have.

    Args:
        provenance: of the set.
        frames: T of the row.
    """
    sizes = {"T": frames, "N": provenance.num_objects, "4": 4}
    shapes = {}
    for name, (_, axes) in COLUMNS.items():
        if provenance.has_objects or not name.startswith("object_"):
            width = provenance.object_dim if name == "object_features" else provenance.frame_dim
            shapes[name] = tuple({**sizes, "C": width or 0}[axis] for axis in axes)
    return shapes


def is_finite(array: np.ndarray) -> bool:
    """Tell whether every number is finite, fast for half precision."""
    if array.dtype != np.float16:
        return bool(np.isfinite(array).all())
    if not array.size:
        return True
    # half-precision NaN and infinity have all exponent bits set: two integer maxima, five times faster than isfinite
    return bool(array.view(np.int16).max() < 0x7C00 and array.view(np.uint16).max() < 0xFC00)


def checksum(array: np.ndarray) -> int:
    """Sum the bytes of an array as 64-bit words: at the speed of memory, and no changed byte keeps it.

    Example:
        >>> checksum(np.array([1, 2], np.uint64)), checksum(np.ones(3, np.uint8))
        (3, 3)
    """
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    whole = data.size // 8 * 8
    return (int(data[:whole].view(np.uint64).sum(dtype=np.uint64)) + int(data[whole:].sum())) % 2**64


class ShardWriter:
    """Write one shard into a temporary file that takes its final name only when complete.

    Args:
        path: final path of the shard.
        provenance: of the set; its digest is kept in the shard.
    """

    def __init__(self, path: Path, provenance: Provenance):
        self.path = path
        self.provenance = provenance
        self.schema = make_schema(provenance)
        self.video_ids: list[str] = []
        self._sums: list[dict[str, int]] = []
        self.temporary = partial_path(path)
        try:
            self._writer = pq.ParquetWriter(
                self.temporary,
                self.schema,
                compression="none",
                use_dictionary=False,
                write_statistics=False,
                data_page_size=1 << 30,
            )
        except BaseException:
            self.temporary.unlink(missing_ok=True)
            raise

    def add(self, video_id: str, arrays: dict[str, np.ndarray]) -> None:
        """Append one video as a row group."""
        columns = [pa.array([video_id])]
        columns += [_nest(arrays[column.name], column.type) for column in self.schema if column.name != "video_id"]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self.schema), row_group_size=1)
        self.video_ids.append(video_id)
        self._sums.append({name: checksum(array) for name, array in arrays.items()})

    def finish(self) -> None:
        """Close the file, force it to disk and give it its name; nothing is left of a shard that cannot be written."""
        try:
            self._finish()
        except BaseException:
            self.discard()
            raise

    def _finish(self) -> None:
        ids = json.dumps(self.video_ids)
        sums = json.dumps({"video_ids": zlib.crc32(ids.encode()), "rows": self._sums})
        origin = self.provenance.digest()
        keys = {IDS_KEY: ids, SUMS_KEY: sums, ORIGIN_KEY: origin}
        self._writer.add_key_value_metadata({key.decode(): value for key, value in keys.items()})
        self._writer.close()
        with open(self.temporary, "r+b") as file:
            footer, tail, start = _read_footer(file)
            file.seek(start)
            file.write(SEAL + zlib.crc32(footer).to_bytes(4, "little") + footer + tail)
            file.flush()
            os.fsync(file.fileno())
        os.replace(self.temporary, self.path)

    def discard(self) -> None:
        """Drop what was written, on a full disk too."""
        try:
            self._writer.close()
        except (OSError, pa.ArrowException):
            pass
        finally:
            self.temporary.unlink(missing_ok=True)


class _Index(NamedTuple):
    """Byte positions of the rows of a shard."""

    columns: list[str]
    group_of: np.ndarray  # (rows,) row group
    ends: np.ndarray  # (rows, columns) first byte after the values
    counts: np.ndarray  # (rows, columns) values
    sizes: np.ndarray  # (rows, columns) bytes, a multiple of 64


class Shard:
    """Read the rows of one shard by position, holding nothing in memory but their positions.

    Args:
        path: the Parquet file.

    Raises:
        CausalVideoError: the file is truncated, damaged or not a feature shard; the error names it.
    """

    open_count = 0  # files that stay open in this process

    def __init__(self, path: Path):
        self.path = path
        self._file: int | None = None
        self._sums: np.ndarray | None = None  # (rows, columns) of the columns in _summed
        try:
            self._check_seal()
            metadata = pq.read_metadata(path)
            keys = metadata.metadata or {}
            ids = keys.get(IDS_KEY)
            sums = json.loads(keys.get(SUMS_KEY, b"null"))
            self.is_plain = ids is not None
            self.video_ids = json.loads(ids) if ids else pq.read_table(path, columns=["video_id"])[0].to_pylist()
            if sums is not None:
                self._summed, self._sums = _pack_sums(sums["rows"])
            same_ids = sums is None or ids is None or zlib.crc32(ids) == sums["video_ids"]
            self.origin = keys[ORIGIN_KEY].decode() if ORIGIN_KEY in keys else None
        except (pa.ArrowException, OSError, KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
            raise self._damaged(error) from error
        rows = {metadata.num_rows, len(self.video_ids), metadata.num_rows if self._sums is None else len(self._sums)}
        if len(rows) != 1 or not same_ids or not all(isinstance(name, str) for name in self.video_ids):
            raise self._damaged(f"{metadata.num_rows} rows, and ids and checksums that do not belong to them")

    def nbytes(self, row: int) -> int:
        """Say how much room `read` wants for this row, in bytes."""
        sizes = self._index.sizes  # building the index settles is_plain
        return int(sizes[row].sum()) if self.is_plain else 0

    def read(self, row: int, room: np.ndarray) -> dict[str, np.ndarray]:
        """Give the arrays of one row, flat; the caller shapes them.

        Args:
            row: position in the shard.
            room: (nbytes(row),) uint8 that the arrays are read into; one allocation for a whole batch is three
                times faster than one an array, as the kernel clears every fresh page.
        """
        index = self._index
        arrays = self._read_plain(index, row, room) if self.is_plain else self._read_decoded(index, row)
        if self._sums is not None:
            expected = dict(zip(self._summed, self._sums[row].tolist(), strict=True))
            changed = [n for n in {*arrays, *expected} if n not in arrays or checksum(arrays[n]) != expected.get(n)]
            if changed:  # read often: no text in advance
                what = f"{sorted(changed)[0]} of video {self.video_ids[row]!r} in {self.path} is damaged"
                raise CausalVideoError(what, found="other bytes", expected="those that were written", fix=AGAIN)
        return arrays

    def close(self) -> None:
        """Let go of the file; the next read opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
            Shard.open_count -= 1

    def _check_seal(self) -> None:
        """Compare the footer with its checksum: pyarrow ends the process on some damaged footers."""
        with open(self.path, "rb") as file:
            footer, _, start = _read_footer(file)
            file.seek(max(start - len(SEAL) - 4, 0))
            before = file.read(min(start, len(SEAL) + 4))
        if before[:-4] == SEAL and int.from_bytes(before[-4:], "little") != zlib.crc32(footer):
            raise ValueError("the footer is damaged")

    @property
    def is_checked(self) -> bool:
        """True if `read` compares checksums, so that it gives what was written."""
        return self._sums is not None

    @cached_property
    def _index(self) -> _Index:
        try:
            return self._make_index()
        except CausalVideoError:
            raise
        except (pa.ArrowException, OSError, KeyError, IndexError, TypeError, ValueError) as error:
            raise self._damaged(error) from error

    def _make_index(self) -> _Index:
        metadata = pq.read_metadata(self.path)
        groups = [metadata.row_group(g) for g in range(metadata.num_row_groups)]
        names = [groups[0].column(c).path_in_schema.split(".")[0] for c in range(groups[0].num_columns)]
        columns = [name for name in names if name in COLUMNS]
        chunks = [[group.column(names.index(name)) for name in columns] for group in groups]
        ends = np.array([[c.data_page_offset + c.total_compressed_size for c in row] for row in chunks])
        counts = np.array([[c.num_values for c in row] for row in chunks])
        sizes = -(-counts * np.array([np.dtype(COLUMNS[name][0]).itemsize for name in columns]) // 64) * 64
        group_of = np.repeat(np.arange(len(groups)), [group.num_rows for group in groups])
        index = _Index(columns, group_of, ends, counts, sizes)
        if self.is_plain:
            plain = self._read_plain(index, 0, np.empty(sizes[0].sum(), np.uint8))
            decoded = self._read_decoded(index, 0)
            # pages laid out in another way than ours cost the short cut, never a number
            self.is_plain = all(np.array_equal(plain[name], decoded[name], equal_nan=True) for name in columns)
        return index

    def _read_plain(self, index: _Index, row: int, room: np.ndarray) -> dict[str, np.ndarray]:
        arrays = {}
        start = 0
        with self._opened() as file:
            for column, name in enumerate(index.columns):
                dtype = np.dtype(COLUMNS[name][0])
                array = room[start : start + int(index.counts[row, column]) * dtype.itemsize]
                if os.preadv(file, [array.data], int(index.ends[row, column]) - array.nbytes) != array.nbytes:
                    raise self._damaged(f"the file ends inside row {row}")
                arrays[name] = array.view(dtype)
                start += int(index.sizes[row, column])
        return arrays

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """Give the open file. A process may open about a thousand, so that only some stay open for the next read."""
        if self._file is None and Shard.open_count < MOST_OPEN:
            self._file = os.open(self.path, os.O_RDONLY)
            Shard.open_count += 1
        if self._file is not None:
            yield self._file
            return
        file = os.open(self.path, os.O_RDONLY)
        try:
            yield file
        finally:
            os.close(file)

    def _read_decoded(self, index: _Index, row: int) -> dict[str, np.ndarray]:
        group = int(index.group_of[row])
        offset = row - int(np.searchsorted(index.group_of, group))
        try:
            table = pq.ParquetFile(self.path).read_row_group(group, columns=index.columns)
            rows = {name: table[name].combine_chunks()[offset : offset + 1] for name in index.columns}
            return {name: _flatten(array, COLUMNS[name][0]) for name, array in rows.items()}
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self._damaged(error) from error

    def _damaged(self, why: object) -> CausalVideoError:
        return CausalVideoError(
            f"the feature shard {self.path} cannot be read", found=why, expected="a complete Parquet file", fix=AGAIN
        )

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_file": None}

    def __del__(self):
        self.close()


def _pack_sums(rows: list[dict[str, int]]) -> tuple[list[str], np.ndarray]:
    """Give the names of the columns and their checksums (rows, columns): a set of many videos holds all of them."""
    names = sorted(rows[0]) if rows else []
    if any(len(row) != len(names) for row in rows):
        raise ValueError("checksums of different columns")
    return names, np.array([[row[name] for name in names] for row in rows], dtype=np.uint64)


def _read_footer(file: BinaryIO) -> tuple[bytes, bytes, int]:
    """Give the footer of a Parquet file, the bytes behind it, and where it starts."""
    end = file.seek(0, os.SEEK_END)
    file.seek(max(end - TAIL, 0))
    tail = file.read(TAIL)
    start = end - TAIL - int.from_bytes(tail[:4], "little")
    if tail[4:] != b"PAR1" or start < 4:
        raise ValueError(f"{end} bytes that do not end as a Parquet file")
    file.seek(start)
    return file.read(end - TAIL - start), tail, start


def open_shards(folder: Path, provenance: Provenance) -> list[Shard]:
    """Open the shards of a feature set, in the order of their names.

    Raises:
        CausalVideoError: a damaged shard, or one that was made in another way than the provenance says.
    """
    shards = [Shard(path) for path in sorted((folder / "features").glob("*.parquet"))]
    digest = provenance.digest()
    fix = "keep shards and provenance.json of one extraction together, each set in a folder of its own"
    for shard in shards:
        what = f"the shard {shard.path} was made in another way than the provenance of its folder says"
        require(shard.origin in (None, digest), what, found=shard.origin, expected=digest, fix=fix)
    return shards


def _nest(array: np.ndarray, kind: pa.DataType) -> pa.Array:
    """Turn (T, ...) into a column of one row of nested lists, without copying values."""
    nested = pa.array(np.ascontiguousarray(array).reshape(-1))
    for size in (*reversed(array.shape[1:]), len(array)):
        offsets = np.arange(0, len(nested) + 1, size, dtype=np.int32)
        nested = pa.ListArray.from_arrays(pa.array(offsets), nested)
    if isinstance(kind, pa.ExtensionType):
        return pa.ExtensionArray.from_storage(kind, nested)
    return nested.cast(kind)


def _flatten(array: pa.Array, dtype: str) -> np.ndarray:
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    while isinstance(array, pa.ListArray | pa.FixedSizeListArray | pa.LargeListArray):
        array = array.flatten()
    values = array.to_numpy(zero_copy_only=False)
    wanted = np.dtype(dtype)
    if values.dtype.kind not in ("iu" if wanted.kind == "i" else "iuf"):
        raise ValueError(f"{array.type} where numbers of {dtype} are wanted")
    with np.errstate(over="ignore"):  # an overflow is not finite, and refused as such
        converted = values.astype(wanted)  # a copy that may be written to
    if wanted.kind == "i" and not np.array_equal(converted, values):
        raise ValueError(f"{array.type} beyond {dtype}")
    return converted
