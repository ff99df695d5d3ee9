"""Questions of your own: a csv, tab-separated, JSON Lines or Parquet file with `video, question, answer`.

Why: a researcher has a folder of clips and a spreadsheet. Everything but the three columns is optional, answers may be
indices or texts, and whatever would change a number in silence (an answer that is not among the choices, a text that
is also an index) is an error that names the line.
"""

import json
import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from datasets import Dataset

from hf_causal_video.data.tables import make_table, read_cells, read_text
from hf_causal_video.utils.checks import check_choice, check_file
from hf_causal_video.utils.errors import require, reworded

SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
VIDEO_SUFFIX = re.compile(r"\.(mp4|m4v|mov|mkv|webm|avi|mpe?g|wmv|flv|gif|ts|3gp)$", re.IGNORECASE)
ALIASES = {
    "video_id": ("video_id", "video", "vid", "vid_id", "video_name", "clip"),
    "question": ("question", "q"),
    "answer": ("answer", "label", "correct_answer"),
    "question_id": ("question_id", "qid", "id"),
    "question_type": ("question_type", "type"),
    "choices": ("choices", "options", "candidates"),
    "spans": ("spans", "span"),
    "duration_s": ("duration_s", "duration"),
    "answer_text": ("answer_text",),
    "split": ("split",),
}
CHOICE_COLUMN = re.compile(r"(?:a|choice_?|option_?)(\d+)$")
EXAMPLE = "video,question,answer,a0,a1,a2"


@dataclass
class QuestionFile:
    """Questions of a file, and what was changed while reading it.

    Args:
        questions: question rows, see `QUESTION_FEATURES`; of an open-ended question `answer` is -1 and `answer_text`
            its text, until a vocabulary is known.
        splits: split of each row; "" where the file has no such column.
        notes: one sentence per kind of change, for the user.
    """

    questions: Dataset
    splits: list[str]
    notes: list[str] = field(default_factory=list)

    def of_split(self, split: str) -> Dataset:
        """Rows of a split; all rows where the file names none.

        Raises:
            CausalVideoError: the file has a column `split`, and none of its rows is of this split.
        """
        if not any(self.splits):
            return self.questions
        rows = [row for row, name in enumerate(self.splits) if name == split]
        splits = f"one of {', '.join(sorted(set(self.splits)))}"
        require(rows, f"no questions of split {split!r}", found="0 rows", expected=splits, fix="name one")
        return self.questions.select(rows)


def is_question_file(path: str | Path) -> bool:
    """Tell whether a path is an existing file in a format that `read_questions` reads.

    Example:
        >>> is_question_file("no/such/questions.csv")
        False
    """
    path = Path(path)
    return path.is_file() and path.name.removesuffix(".gz").endswith(SUFFIXES)


def read_questions(path: str | Path, videos: Container[str] | None = None) -> QuestionFile:
    """Read a file of questions.

    Args:
        path: csv (comma or tab), JSON Lines, a JSON list or Parquet; csv and JSON also with `.gz` behind it. Columns:
            `video`, `question`, `answer`, and optionally `choices` (a list; in csv a JSON list) or `a0, a1, ...`,
            `question_id`, `type`, `split`, `spans` ([[start_s, end_s], ...]), `duration_s`. An answer is the
            zero-based index of a choice or its text; without choices it is the text itself.
        videos: ids that are known, such as a feature set. A video is found under its name with or without suffix.

    Raises:
        CausalVideoError: a missing file or column, a line that is cut off, an answer that is not among the choices
            or is ambiguous, or a video that is not among `videos`.

    Example:
        >>> path = Path("/tmp/questions-example.csv")
        >>> _ = path.write_text("video,question,answer,a0,a1\\nwalk.mp4,who walks,a man,a dog, a man \\n")
        >>> file = read_questions(path)
        >>> file.questions[0]["video_id"], file.questions[0]["answer"], file.notes
        ('walk', 1, ['blanks around 1 value were cut'])
    """
    path = Path(path)
    cut = Counter[str]()
    rows: list[dict[str, object]] = []
    splits: list[str] = []
    numbers: list[int] = []
    seen = Counter[str]()
    for number, cells in read_rows(path):
        line = _Line(path, number, {name: _strip(value, cut) for name, value in cells.items()})
        video = _video_id(line, videos)
        seen[video] += 1
        choices = line.choices()
        answer, text = _answer(line, choices)
        rows.append(
            {
                "question_id": line.text("question_id", default=f"{video}_{seen[video] - 1}"),
                "video_id": video,
                "question": line.text("question"),
                "choices": choices,
                "answer": answer,
                "answer_text": text,
                "question_type": line.text("question_type", default=""),
                "spans": line.spans(),
                "duration_s": line.duration(),
            }
        )
        splits.append(line.text("split", default=""))
        numbers.append(number)
    require(rows, f"{path} has no questions", found="0 rows", expected="1 or more", fix=f"columns: {EXAMPLE}")
    kinds = {bool(row["choices"]) for row in rows}
    problem = "questions with choices and questions without"
    require(
        len(kinds) == 1, f"{path} mixes two kinds", found=problem, expected="one kind", fix="split the file in two"
    )
    notes = [f"blanks around {cut.total()} value{'s' if cut.total() > 1 else ''} were cut"] if cut else []
    return QuestionFile(make_table(path, rows, names=numbers), splits, notes)


@dataclass
class _Line:
    """One row of the file by canonical column; errors name file and line."""

    path: Path
    number: int
    cells: Mapping[str, object]

    def require(self, condition: object, what: str, found: object, expected: str, fix: str) -> None:
        require(condition, f"line {self.number} of {self.path}: {what}", found=found, expected=expected, fix=fix)

    def value(self, column: str) -> object:
        names = [name for name in ALIASES[column] if name in self.cells]
        self.require(len(names) < 2, f"two columns for {column}", names, "one of them", "drop one column")
        value = self.cells[names[0]] if names else None
        return None if value == "" else value

    def text(self, column: str, default: str | None = None) -> str:
        value = self.value(column)
        if value is None and default is not None:
            return default
        is_cell = value is not None and not isinstance(value, list | dict | bool)
        shown = "nothing" if value is None else repr(value)
        self.require(is_cell, f"no {column}", shown, "text", f"fill {ALIASES[column][0]}; columns: {EXAMPLE}")
        return str(value)

    def choices(self) -> list[str]:
        value = self.value("choices")
        if value is None:
            columns = sorted((int(m[1]), name) for name in self.cells if (m := CHOICE_COLUMN.match(name)))
            texts = [self.cells[name] for _, name in columns]
            while texts and texts[-1] in ("", None):  # fewer choices than the widest row
                texts.pop()
        else:
            texts = _parsed(value)
        choices = [str(text).strip() for text in texts if _is_cell(text)] if isinstance(texts, list) else []
        is_whole_list = isinstance(texts, list) and len(choices) == len(texts)
        problem = repr(value or texts)
        self.require(is_whole_list, "invalid choices", problem, '["a man", "a dog"]', "give a list without gaps")
        return choices

    def spans(self) -> list[object]:
        value = _parsed(self.value("spans"))
        if value is None:
            return []
        spans = [value] if isinstance(value, list) and value and not isinstance(value[0], list) else value
        self.require(isinstance(spans, list), "invalid spans", value, "[[start_s, end_s], ...]", "give seconds")
        return spans if isinstance(spans, list) else []

    def duration(self) -> float:
        value = self.text("duration_s", default="0")
        try:
            return float(value)
        except ValueError:
            self.require(False, "invalid duration_s", repr(value), "seconds", "give a number")
            raise


def _answer(line: _Line, choices: list[str]) -> tuple[int, str]:
    """Index and text of an answer; -1 where it is unknown or open-ended."""
    value = line.value("answer_text") if not choices else None
    value = line.value("answer") if value is None else value
    if value is None:
        return -1, ""
    text = str(value)
    if not choices:
        return -1, text
    by_index = int(text) if re.fullmatch(r"\d+", text) and int(text) < len(choices) else None
    by_text = choices.index(text) if text in choices else None
    is_clear = by_index is None or by_text is None or by_index == by_text
    fix = "give the text in answer_text and leave answer empty, or use indices throughout"
    line.require(is_clear, "ambiguous answer", f"{text}: choice {by_index} or the choice {text!r}", "one meaning", fix)
    index = by_text if by_index is None else by_index
    expected = f"0 to {len(choices) - 1}, or one of {choices}"
    line.require(index is not None, "the answer is not among the choices", repr(text), expected, "correct one of them")
    assert index is not None
    return index, choices[index]


def _video_id(line: _Line, videos: Container[str] | None) -> str:
    name = line.text("video_id")
    bare = VIDEO_SUFFIX.sub("", name)
    if videos is None or bare in videos:
        return bare
    if name in videos:
        return name
    known = sorted(videos) if isinstance(videos, Iterable) else []
    close = get_close_matches(bare, known, 1) or get_close_matches(Path(bare).name, known, 1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    expected = f"one of {len(known)} videos{hint}"
    line.require(False, "unknown video", repr(name), expected, "extract it, or correct the name")
    return name


def read_rows(path: Path) -> Iterable[tuple[int, Mapping[str, object]]]:
    """Read the number of each line and its cells by column, in the formats of `read_questions`."""
    suffix = check_choice(f"format of {path}", Path(path.name.removesuffix(".gz")).suffix, SUFFIXES)
    check_file("file of questions", path)
    if suffix == ".parquet":
        return enumerate(Dataset.from_parquet(str(path)).to_list(), start=1)
    source = "your own file"
    if suffix in (".csv", ".tsv"):
        header, lines = read_cells(path, source)
        return ((number, dict(zip(header, cells, strict=True))) for number, cells in lines)
    return _json_rows(path, read_text(path, source))


def _json_rows(path: Path, text: str) -> Iterable[tuple[int, Mapping[str, object]]]:
    with reworded(ValueError, f"{path} cannot be read", expected="a JSON list, or one object per line"):
        if text.lstrip().startswith("["):
            rows = list(enumerate(json.loads(text), start=1))
        else:
            rows = [(n, json.loads(line)) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    for number, row in rows:
        require(isinstance(row, dict), f"line {number} of {path}", found=type(row).__name__, expected="one object")
    return rows


def _is_cell(value: object) -> bool:
    return isinstance(value, str | int | float) and value != ""


def _parsed(value: object) -> Any:
    """A cell that holds JSON; other texts as they are."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def _strip(value: object, cut: Counter[str]) -> object:
    if isinstance(value, list):
        return [_strip(item, cut) for item in value]
    if isinstance(value, str) and value != value.strip():
        cut["blanks"] += 1
        return value.strip()
    return value
