"""Sources of spliced films: a folder of clips or photographs, with their questions or classes."""

import csv
import difflib
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hf_causal_video.data.tables import ALIASES, read_text
from hf_causal_video.features.decode import decode_video
from hf_causal_video.utils.errors import CausalVideoError, require

VIDEO_ENDINGS = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".gif", ".mpg", ".mpeg", ".ts", ".flv", ".wmv")
PHOTO_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
CLASS_COLUMNS = ("class", "label", "class_name")
NAMED_BY = ("file-names", "folders")
WORDNET_ID = re.compile(r"^n\d{8}[_ -]")
NUMBER_AT_END = re.compile(r"[_ -]*\d+$")
LAYOUT = "columns video, question and answer (with choices or a0, a1, ... where it is an index), or video and class"


@dataclass(frozen=True)
class ClipQuestion:
    """A question about one clip: its text, the text of its answer, and the seconds of the clip that show it."""

    question: str
    answer: str
    span: tuple[float, float] | None = None


@dataclass
class Source:
    """One clip or photograph.

    Args:
        clip_id: its file name without ending.
        path: its file.
        questions: about it.
        name: its class, where classes and not questions are known.
        duration_s: length of a clip; None for a photograph.
    """

    clip_id: str
    path: Path
    questions: list[ClipQuestion] = field(default_factory=list)
    name: str | None = None
    duration_s: float | None = None

    @property
    def is_photo(self) -> bool:
        """True for a still picture, which can be shown for any time."""
        return self.path.suffix.lower() in PHOTO_ENDINGS


def read_sources(clips: str | Path, questions: str | Path) -> tuple[list[Source], dict[str, str]]:
    """Read clips and what is known about them.

    Args:
        clips: a folder of clips and photographs, searched in depth.
        questions: csv (comma or tab) or JSONL with one row per question (`video, question, answer`; where the answer
            is an index also `choices` or `a0`, `a1`, ...; optionally `spans` in seconds) or per clip (`video, class`);
            or "file-names" or "folders": the class is the file's name without numbers, or the name of its folder.

    Returns:
        the sources in order of their id, and the files left out with the reason: no question, or not readable.

    Raises:
        CausalVideoError: no such folder or file, rows in another layout, or questions about none of the clips.
    """
    files = _find(Path(clips))
    sources = {clip_id: Source(clip_id, path) for clip_id, path in files.items()}
    left_out: dict[str, str] = {}
    if str(questions) in NAMED_BY:
        for source in sources.values():
            source.name = _class_of(source.path, str(questions))
    else:
        _read_rows(Path(questions), sources, left_out)
    for clip_id, source in list(sources.items()):
        if not source.questions and source.name is None:
            left_out[clip_id] = "no question"
        else:
            try:
                source.duration_s = None if source.is_photo else decode_video(source.path, "uniform-1").duration_s
            except CausalVideoError as error:
                left_out[clip_id] = str(error)
    return [source for clip_id, source in sorted(sources.items()) if clip_id not in left_out], left_out


def _find(folder: Path) -> dict[str, Path]:
    require(folder.is_dir(), "clips", found=f"no folder {folder}", expected="a folder of clips", fix="check the path")
    endings = VIDEO_ENDINGS + PHOTO_ENDINGS
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in endings and file.is_file())
    require(
        files,
        "clips",
        found=f"none in {folder}",
        expected=f"files ending in {' '.join(endings)}",
        fix="check the path",
    )
    by_id: dict[str, Path] = {}
    for file in files:
        require(
            file.stem not in by_id,
            f"two clips named {file.stem!r}",
            found=partial("{} and {}".format, by_id.get(file.stem), file),
            expected="one file for each name",
            fix="rename or leave out one of them",
        )
        by_id[file.stem] = file
    return by_id


def _class_of(path: Path, named_by: str) -> str:
    """ "n01440764_tench.jpg" is a tench, and so is "fish_tench_003.jpg" in the folder "tench"."""
    text = path.parent.name if named_by == "folders" else NUMBER_AT_END.sub("", WORDNET_ID.sub("", path.stem))
    return text.replace("_", " ").strip() or path.stem


def _read_rows(path: Path, sources: Mapping[str, Source], left_out: dict[str, str]) -> None:
    """Give every source its questions or its class."""
    rows = _table(path)
    unknown: list[str] = []
    for number, row in rows:
        video = _cell(row, ALIASES["video_id"])
        require(video, f"row {number} of {path}", found="no video", expected=LAYOUT, fix="fill the column")
        source = sources.get(video) or sources.get(Path(video).stem)
        if source is None:
            unknown.append(video)
        elif name := _cell(row, CLASS_COLUMNS):
            source.name = name
        else:
            source.questions.append(_question(row, number, path))
    near = difflib.get_close_matches(unknown[0], list(sources), n=1) if unknown else []
    require(
        len(unknown) < len(rows),
        f"questions of {path}",
        found=f"{len(rows)} rows, none about a clip of the folder; the first is about {unknown[:1]}",
        expected="names of its files, with or without their ending",
        fix=f"did you mean {near[0]!r}?" if near else "check that folder and questions belong together",
    )
    named = [source for source in sources.values() if source.name]
    questioned = [source for source in sources.values() if source.questions]
    require(
        not (named and questioned),
        f"rows of {path}",
        found=f"classes of {len(named)} clips and questions about {len(questioned)}",
        expected="one of the two",
        fix="split the file",
    )
    if unknown:
        left_out.update({video: "a row about it, but no file" for video in unknown})


def _table(path: Path) -> list[tuple[int, dict[str, Any]]]:
    text = read_text(path, "whoever made the questions")
    if path.name.removesuffix(".gz").endswith((".jsonl", ".json")):
        lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        rows = [(number, _parsed(line, f"line {number} of {path}", dict)) for number, line in lines]
    else:
        is_tabbed = "\t" in text.split("\n", 1)[0]
        options: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if is_tabbed else {}
        reader = csv.DictReader(io.StringIO(text, newline=""), **options)
        rows = [(reader.line_num, {str(k).strip(): v for k, v in row.items() if v is not None}) for row in reader]
    require(rows, f"questions of {path}", found="no rows", expected=LAYOUT, fix="check the file")
    return rows


def _cell(row: Mapping[str, Any], names: tuple[str, ...]) -> str:
    return next((str(row[name]).strip() for name in names if row.get(name) not in (None, "")), "")


def _question(row: Mapping[str, Any], number: int, path: Path) -> ClipQuestion:
    question, answer = _cell(row, ("question",)), _cell(row, ("answer_text",)) or _cell(row, ("answer",))
    what = f"row {number} of {path}"
    choices = row.get("choices") or [row[f"a{i}"] for i in range(26) if row.get(f"a{i}") not in (None, "")]
    choices = [str(choice).strip() for choice in _parsed(choices, f"choices in {what}", list)]
    if answer not in choices and answer.isdecimal() and choices:
        answer = choices[int(answer)] if int(answer) < len(choices) else ""
    require(
        question and answer,
        what,
        found={name: row.get(name) for name in ("question", "answer")},
        expected=LAYOUT,
        fix="fill both columns",
    )
    spans = _parsed(row.get("spans") or [], f"spans in {what}", list)
    if not spans:
        return ClipQuestion(question, answer)
    pair = spans[0] if isinstance(spans[0], list) and len(spans[0]) == 2 else []
    is_span = len(pair) == 2 and all(isinstance(edge, int | float) for edge in pair) and 0 <= pair[0] < pair[1]
    require(is_span, f"spans in {what}", found=spans[:2], expected="[[start_s, end_s], ...] in seconds")
    return ClipQuestion(question, answer, (float(pair[0]), float(pair[1])))


def _parsed(value: Any, what: str, kind: type) -> Any:
    """A value of JSON, which a csv file holds as text."""
    try:
        parsed = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError) as error:
        raise CausalVideoError(
            what, found=error, expected=f"JSON, a {kind.__name__}", fix="correct the row"
        ) from error
    require(isinstance(parsed, kind), what, found=str(value)[:60], expected=f"a JSON {kind.__name__}")
    return parsed
