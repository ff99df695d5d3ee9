"""Sources of spliced films: a folder of clips or photographs, with their questions or classes."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from hf_causal_video.data.custom import ALIASES, read_questions, read_rows
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
        questions: a file with one row per question, as `read_questions` reads it, or per clip (`video, class`);
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
    fix = "check the path"
    require(files, "clips", found=f"none in {folder}", expected=f"files ending in {' '.join(endings)}", fix=fix)
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
    rows = list(read_rows(path))
    has_questions = any(_cell(row, ALIASES["question"]) for _, row in rows)
    known = _questions(path, rows) if has_questions else _classes(path, rows)
    unknown: list[str] = []
    for video, fact in known:
        source = sources.get(video) or sources.get(Path(video).stem)
        if source is None:
            unknown.append(video)
        elif isinstance(fact, ClipQuestion):
            source.questions.append(fact)
        else:
            source.name = fact
    near = difflib.get_close_matches(unknown[0], list(sources), n=1) if unknown else []
    require(
        len(unknown) < len(known),
        f"questions of {path}",
        found=f"{len(known)} rows, none about a clip of the folder; the first is about {unknown[:1]}",
        expected="names of its files, with or without their ending",
        fix=f"did you mean {near[0]!r}?" if near else "check that folder and questions belong together",
    )
    left_out.update({video: "a row about it, but no file" for video in unknown})


def _classes(path: Path, rows: Sequence[tuple[int, Mapping[str, object]]]) -> list[tuple[str, str]]:
    known = [(number, _cell(row, ALIASES["video_id"]), _cell(row, CLASS_COLUMNS)) for number, row in rows]
    for number, video, name in known:
        require(video and name, f"line {number} of {path}", found="an empty cell", expected=LAYOUT, fix="fill it")
    require(known, f"questions of {path}", found="no rows", expected=LAYOUT, fix="check the file")
    return [(video, name) for _, video, name in known]


def _questions(path: Path, rows: Sequence[tuple[int, object]]) -> list[tuple[str, ClipQuestion]]:
    known = []
    for (number, _), row in zip(rows, read_questions(path).questions, strict=True):
        what = f"line {number} of {path}"
        require(row["answer_text"], what, found="no answer", expected=LAYOUT, fix="fill the column answer")
        span = tuple(row["spans"][0]) if row["spans"] else None
        is_stretch = span is None or 0 <= span[0] < span[1]
        require(is_stretch, f"{what}: invalid spans", found=row["spans"], expected="[[start_s, end_s], ...]")
        known.append((row["video_id"], ClipQuestion(row["question"], row["answer_text"], span)))
    return known


def _cell(row: Mapping[str, object], names: Sequence[str]) -> str:
    return next((str(row[name]).strip() for name in names if row.get(name) not in (None, "")), "")
