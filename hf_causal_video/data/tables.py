"""Read annotation files in all their copies: plain or gzipped, comma or tab, columns of several names.

Why: the same questions circulate in half a dozen exports whose columns are called differently, and a file that is read
wrongly still trains. Whatever is ambiguous here, or is not what it says it is, is an error that names file and line.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from datasets import Dataset, Features

from hf_causal_video.data.rows import questions_dataset
from hf_causal_video.utils.checks import check_choice, check_file
from hf_causal_video.utils.errors import CausalVideoError, require, reworded

# canonical column -> names it goes by in the public files and their copies
ALIASES = {
    "video_id": ("video_id", "video", "vid", "vid_id", "video_name"),
    "qid": ("qid", "question_id", "id"),
    "type": ("type", "question_type"),
}
CHOICE_COLUMNS = ("a0", "a1", "a2", "a3", "a4")
Line = tuple[int, dict[str, str]]  # number of the line in the file, and its cells by canonical column


def read_text(path: str | Path, source: str) -> str:
    """Read a UTF-8 file, gunzipped if its name ends in `.gz`; a byte order mark is dropped.

    Args:
        path: the file.
        source: where the official file comes from; stands in the errors.

    Raises:
        CausalVideoError: no such file, a gzip file that is cut off or none, or another encoding.
    """
    path = check_file("annotation file", path, fix=f"download it from {source}; nothing is downloaded for you")
    data = path.read_bytes()
    fix = f"get it again from {source}"
    with reworded((OSError, EOFError, zlib.error), f"{path} cannot be unpacked", expected="a gzip file", fix=fix):
        data = gzip.decompress(data) if path.suffix == ".gz" else data
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _other_encoding(path, f"byte 0x{data[error.start]:02x} in line {line}") from error
    if "\0" in text:
        raise _other_encoding(path, "zero bytes, as UTF-16 has them")
    return text


def read_json(path: str | Path, source: str) -> object:
    """Read a JSON file, plain or gzipped; arguments and errors as `read_text`, and an error for other content."""
    fix = f"get it again from {source}"
    with reworded((ValueError, RecursionError), f"{path} cannot be read", expected="one JSON document", fix=fix):
        return json.loads(read_text(path, source))


def read_lines(path: str | Path, source: str, columns: Sequence[str], layout: str) -> list[Line]:
    """Read a table with a header: every line has as many cells as the header, and none of the wanted is empty.

    Args:
        path: csv, or tab-separated if the header has a tab; plain or gzipped.
        source: where the official file comes from.
        columns: canonical names of the columns that are wanted, see `ALIASES`; other columns are left out.
        layout: what the file should be, for the errors.

    Raises:
        CausalVideoError: as `read_text`; a column that is missing or there under two names; a line that is cut off or
            has an empty cell; no lines.
    """
    header, rows = read_cells(path, source)
    positions = {name: _position(path, source, header, name, layout) for name in columns}
    fits = "a0" not in columns or "a5" not in header
    fix = "read it with read_questions, which takes any number of choices"
    require(fits, f"invalid layout of {path}", found="a sixth choice, a5", expected=f"a0 to a4 of {layout}", fix=fix)
    lines: list[Line] = []
    for number, cells in rows:
        line = {name: cells[position] for name, position in positions.items()}
        if empty := [name for name, cell in line.items() if not cell.strip()]:
            raise _bad_line(path, number, f"nothing in {', '.join(empty)}", "text in every column", source)
        lines.append((number, line))
    require(lines, f"{path} has no rows", found="0 rows", expected="1 or more", fix=f"get it from {source}")
    return lines


def read_cells(path: str | Path, source: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Read the header of a table, and the number and cells of each line.

    Why tabs are special: many tab-separated exports quote nothing, and read by the rules of csv a question that begins
    with a quotation mark would swallow the rows behind it. So if every line has as many tabs as the header, a cell
    ends at a tab, and quotes count only around a whole cell.

    Args:
        path: csv, or tab-separated if the header has a tab; plain or gzipped.
        source: where the official file comes from, for the errors.

    Raises:
        CausalVideoError: as `read_text`; a line with more or fewer cells than the header; an open quote.
    """
    text = read_text(path, source)
    head = text.split("\n", 1)[0]
    if "\t" in head:
        whole = [line.removesuffix("\r") for line in text.split("\n")]
        physical = [(number, line.split("\t")) for number, line in enumerate(whole, start=1) if line]
        if len({len(cells) for _, cells in physical}) == 1:
            rows = [(number, [_unquoted(cell) for cell in cells]) for number, cells in physical]
            return [name.strip() for name in rows[0][1]], rows[1:]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if "\t" in head else ",", strict=True)
    rows = []
    try:
        header = [name.strip() for name in next(reader, [])]
        for cells in reader:
            if cells and len(cells) != len(header):
                raise _bad_line(path, reader.line_num, f"{len(cells)} cells", f"{len(header)}, as the header", source)
            if cells:
                rows.append((reader.line_num, cells))
    except csv.Error as error:
        raise _bad_line(path, reader.line_num, error, "cells parted and quoted as csv", source) from error
    return header, rows


def _unquoted(cell: str) -> str:
    """A cell without the quotes around the whole of it; quotes inside must be doubled then, else they are text."""
    if len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1].replace('""', ""):
        return cell[1:-1].replace('""', '"')
    return cell


def make_table(
    path: str | Path, rows: Iterable[Mapping[str, object]], extra: Features | None = None, names: Sequence[int] = ()
) -> Dataset:
    """Check rows with `questions_dataset`, so that an error says which file they come from.

    Args:
        path: the file.
        rows: question rows.
        extra: see `questions_dataset`.
        names: line numbers of the rows, for the errors.
    """
    try:
        return questions_dataset(rows, extra, names)
    except CausalVideoError as error:
        what = f"{path}, {error.what}"
        raise CausalVideoError(what, found=error.found, expected=error.expected, fix=error.fix) from error


def check_counts(
    path: str | Path,
    split: str | None,
    found: tuple[int, int],
    table: Mapping[str, tuple[int, int]],
    what: str,
    source: str,
) -> None:
    """Compare the size of a file with the published size of a split; nothing is compared where `split` is None.

    Raises:
        CausalVideoError: a split without published counts, or other counts.
    """
    if split is None:
        return
    check_choice("split with published counts", split, sorted(table))
    require(
        found == table[split],
        f"{path} is not the full {split} file",
        found=f"{found} ({what})",
        expected=f"{table[split]} as published",
        fix=f"get the full file from {source}, or leave `split` out to read a part",
    )


def choice_index(path: str | Path, number: int, line: Mapping[str, str], hint: str) -> int:
    """Read an answer that is stated as the index of a choice, zero-based."""
    what = f"line {number} of {path} has no answer index"
    require(line["answer"] in tuple("01234"), what, found=repr(line["answer"]), expected="0 to 4", fix=hint)
    return int(line["answer"])


def choice_of_text(path: str | Path, number: int, line: Mapping[str, str], hint: str) -> int:
    """Read an answer that is stated as the text of a choice; of two choices that read alike, the first is taken."""
    choices = [line[column] for column in CHOICE_COLUMNS]
    check_choice(f"answer in line {number} of {path}", line["answer"], choices, fix=hint)
    return choices.index(line["answer"])


def _position(path: str | Path, source: str, header: list[str], name: str, layout: str) -> int:
    names = ALIASES.get(name, (name,))
    positions = [position for position, cell in enumerate(header) if cell in names]
    columns = [header[position] for position in positions]
    require(
        len(positions) == 1,
        f"invalid layout of {path}",
        found=columns or f"no {name} in {', '.join(header) or 'no header'}",
        expected=f"one column named {' or '.join(names)}, as {layout} has it",
        fix="drop one of these columns" if columns else f"use the file of {source}",
    )
    return positions[0]


def _bad_line(path: str | Path, number: int, found: object, expected: str, source: str) -> CausalVideoError:
    what = f"line {number} of {path} cannot be read"
    return CausalVideoError(what, found=found, expected=expected, fix=f"get the file again from {source}")


def _other_encoding(path: Path, found: str) -> CausalVideoError:
    return CausalVideoError(
        f"{path} is not UTF-8",
        found=found,
        expected="text in UTF-8",
        fix="convert it, for instance `iconv -f latin1 -t utf-8`, if you know the encoding it was saved in",
    )
