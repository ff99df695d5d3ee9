"""Reader of Causal-VidQA: six questions a clip, two of which ask for the reason of another answer.

Why: d (what is there) and e (why did it happen) are followed by p (what next) and c (what if), each with a reason (pr,
cr); an answer to p or c counts only together with its reason, so a clip is read whole or not at all. The pair rule is
`evaluation.causalvidqa_accuracy`. Paper: Li et al., CVPR 2022 (arXiv 2205.14895).
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from datasets import Dataset

from hf_causal_video.data.tables import (
    CHOICE_COLUMNS,
    check_counts,
    choice_of_text,
    make_table,
    read_json,
    read_lines,
    read_text,
)
from hf_causal_video.utils.checks import check_choice
from hf_causal_video.utils.errors import CausalVideoError, require

CAUSALVIDQA_SOURCE = "https://github.com/bcmi/Causal-VidQA (text annotation QA.tar, and dataset split)"
UNPACK = f"unpack QA.tar of {CAUSALVIDQA_SOURCE}"
Row = dict[str, object]
Kind = TypeVar("Kind", list, str, int)
# questions and videos, six questions a video
CAUSALVIDQA_COUNTS = {name: (6 * videos, videos) for name, videos in (("train", 18776), ("val", 2695), ("test", 5429))}
# question type -> key of the clip's files, key of choices and answer there
KEYS = {
    "d": ("descriptive", "answer"),
    "e": ("explanatory", "answer"),
    "p": ("predictive", "answer"),
    "pr": ("predictive", "reason"),
    "c": ("counterfactual", "answer"),
    "cr": ("counterfactual", "reason"),
}
ANSWERS = tuple("01234")


def read_causalvidqa(path: str | Path, split: str | None = None, videos_path: str | Path | None = None) -> Dataset:
    """Read Causal-VidQA from a csv, or from the released folder of two JSON files a clip.

    Args:
        path: a csv (`video_id, question, type, answer, a0..a4`; the answer as the text of a choice or, throughout the
            file, as an index), or the unpacked folder `QA/`. There `<video>/text.json` holds the question, `answer`
            choices and, of predictive and counterfactual, `reason` choices; `<video>/answer.json` the indices. The
            released test answers are -1: unknown.
        split: where given, the counts of questions and videos must be the published ones.
        videos_path: for the folder: a text file with one video id a line. The released split lists are pickles, which
            this package does not open; write their ids to such a file.

    Raises:
        CausalVideoError: a missing file or folder, a clip without all six questions, an answer that is not a
            choice, an id that stands twice, or other counts.

    Source: Li et al., Causal-VidQA, CVPR 2022.

    Example:
        >>> read_causalvidqa("no/such/val.csv")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: ...
    """
    rows, names = _from_folder(Path(path), videos_path) if Path(path).is_dir() else _from_csv(path)
    types: dict[str, set[str]] = {}
    for row in rows:
        types.setdefault(str(row["video_id"]), set()).add(str(row["question_type"]))
    lacking = {video: sorted(set(KEYS) - kinds) for video, kinds in types.items() if len(kinds) < len(KEYS)}
    short = [f"{video} ({', '.join(kinds)})" for video, kinds in lacking.items()]
    require(
        not short,
        f"{path} lacks questions, so that answers cannot be paired with their reasons",
        found=lambda: f"{len(short)} of {len(types)} videos without all types: {', '.join(short[:4])}",
        expected=f"{', '.join(KEYS)} of every video",
        fix="keep all six questions of a video, or leave the video out",
    )
    check_counts(path, split, (len(rows), len(types)), CAUSALVIDQA_COUNTS, "questions, videos", CAUSALVIDQA_SOURCE)
    return make_table(path, rows, names=names)


def _from_csv(path: str | Path) -> tuple[list[Row], list[int]]:
    columns = ("video_id", "question", "type", "answer", *CHOICE_COLUMNS)
    lines = read_lines(path, CAUSALVIDQA_SOURCE, columns, "Causal-VidQA")
    by_index = all(line["answer"] in (*ANSWERS, "-1") for _, line in lines)
    rows = []
    for number, line in lines:
        check_choice(f"type in line {number} of {path}", line["type"], KEYS, fix="check the column type")
        hint = f"use the annotation of {CAUSALVIDQA_SOURCE}"
        answer = int(line["answer"]) if by_index else choice_of_text(path, number, line, hint)
        choices = [line[column] for column in CHOICE_COLUMNS]
        rows.append(_row(line["video_id"], line["type"], line["question"], choices, answer))
    return rows, [number for number, _ in lines]


def _from_folder(folder: Path, videos_path: str | Path | None) -> tuple[list[Row], list[int]]:
    if videos_path is None:
        videos: Iterable[str] = sorted(child.name for child in folder.iterdir() if child.is_dir())
    else:
        videos = [line.strip() for line in read_text(videos_path, CAUSALVIDQA_SOURCE).splitlines() if line.strip()]
    rows = []
    for video in videos:
        files = [folder / video / name for name in ("text.json", "answer.json")]
        text, answers = (read_json(file, CAUSALVIDQA_SOURCE) for file in files)
        for kind, (key, part) in KEYS.items():
            choices = _look(text, files[0], key, part, list)
            question = _look(text, files[0], key, "question", str)
            rows.append(_row(video, kind, question, choices, _look(answers, files[1], key, part, int)))
    expected = "<video>/text.json and <video>/answer.json"
    require(rows, f"{folder} has no clips", found="no folders", expected=expected, fix=UNPACK)
    return rows, []


def _look(data: object, file: Path, key: str, part: str, kind: type[Kind]) -> Kind:
    entry = data.get(key) if isinstance(data, Mapping) else None
    value = entry.get(part) if isinstance(entry, Mapping) else None
    good = not isinstance(value, bool)
    if isinstance(value, list):
        good = len(value) == 5 and all(isinstance(choice, str) and choice.strip() for choice in value)
    if isinstance(value, kind) and good:
        return value
    expected = {list: "five texts", str: "a text", int: "a whole number"}[kind]
    raise CausalVideoError(
        f"invalid layout of {file}", found=f"{key}.{part}: {value!r}", expected=expected, fix=UNPACK
    )


def _row(video: str, kind: str, question: str, choices: list[str], answer: int) -> Row:
    row: Row = {"question_id": f"{video}_{kind}", "video_id": video, "question": question, "question_type": kind}
    return {**row, "choices": choices, "answer": answer}
