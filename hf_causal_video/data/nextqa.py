"""Readers of NExT-QA (multiple choice) and NExT-GQA (the same questions with the seconds that answer them).

Why both: NExT-QA asks for causes in real clips; NExT-GQA says *when* the answer is seen, so evidence can be
scored and not only answers. Papers: Xiao et al., CVPR 2021 (NExT-QA, arXiv 2105.08276) and CVPR 2024
(NExT-GQA, arXiv 2309.01327).
"""

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from hf_causal_video.data.rows import questions_dataset
from hf_causal_video.errors import CausalVideoError

NEXTQA_SOURCE = "https://github.com/doc-doc/NExT-QA (folder dataset/nextqa)"
NEXTGQA_SOURCE = "https://github.com/doc-doc/NExT-GQA (folder datasets/nextgqa)"
# questions and videos (NExT-QA), questions and spans (NExT-GQA) of the full files, as published
NEXTQA_COUNTS = {"train": (34132, 3870), "val": (4996, 570), "test": (8564, 1000)}
NEXTGQA_COUNTS = {"val": (3358, 3931), "test": (5553, 6600)}
CHOICE_COLUMNS = ("a0", "a1", "a2", "a3", "a4")


def read_nextqa(path: str | Path, split: str | None = None) -> Dataset:
    """Read a NExT-QA multiple-choice file into question rows.

    Args:
        path: the official `train.csv`, `val.csv` or `test.csv`, plain or gzipped (`.csv.gz`). The column of
            the video may be called `video` or `video_id`; the fine types (CW, CH, TN, TC, TP, DC, DL, DO) are
            kept.
        split: where given, the counts of questions and videos must be the published ones of this split.

    Raises:
        CausalVideoError: no such file, a column is missing, a row is malformed, or the counts are not the
            published ones.

    Source: Xiao et al., NExT-QA, CVPR 2021.

    Example:
        >>> read_nextqa("no/such/val.csv")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        hf_causal_video.errors.CausalVideoError: ...
    """
    rows = [_question_row(line, _index_of_answer(line, path)) for line in _read_csv(path, NEXTQA_SOURCE)]
    found = (len(rows), len({row["video_id"] for row in rows}))
    _check_counts(path, split, found, NEXTQA_COUNTS, "questions, videos", NEXTQA_SOURCE)
    return questions_dataset(rows)


def read_nextgqa(path: str | Path, spans_path: str | Path, split: str | None = None) -> Dataset:
    """Read NExT-GQA: questions, and the spans in seconds in which their answer is seen.

    Spans are kept as annotated: some twenty start up to 0.2 s before the clip and some end half a second
    after its rounded duration, and the published measures are taken on them as they are. The file states the
    answer as text; where two choices read alike (one question of the test file) the first is taken.

    Args:
        path: the official `val.csv` or `test.csv`, plain or gzipped.
        spans_path: the official `gsub_val.json` or `gsub_test.json`, plain or gzipped.
        split: where given, the counts of questions and spans must be the published ones of this split.

    Raises:
        CausalVideoError: no such file, a question without spans, an answer that is none of the choices, other
            counts than the published ones.

    Source: Xiao et al., NExT-GQA, CVPR 2024.

    Example:
        >>> read_nextgqa("no/such/val.csv", "gsub_val.json")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        hf_causal_video.errors.CausalVideoError: ...
    """
    lines = _read_csv(path, NEXTGQA_SOURCE)
    located = json.loads(_read_text(spans_path, NEXTGQA_SOURCE))
    rows, without = [], []
    for line in lines:
        video = located.get(line["video_id"], {})
        spans = video.get("location", {}).get(line["qid"], [])
        if not spans:
            without.append(f"{line['video_id']}_{line['qid']}")
            continue
        rows.append(
            _question_row(line, _choice_of_text(line, path), spans=spans, duration_s=float(video["duration"]))
        )
    if without:
        raise CausalVideoError(
            f"questions of {path} without spans",
            found=f"{len(without)} of {len(lines)} without, in {spans_path}: {without[:5]} ...",
            expected="a list of [start_s, end_s] for every question",
            fix=f"give the gsub_*.json of the same split; both files come from {NEXTGQA_SOURCE}",
        )
    found = (len(rows), sum(len(row["spans"]) for row in rows))
    _check_counts(path, split, found, NEXTGQA_COUNTS, "questions, spans", NEXTGQA_SOURCE)
    return questions_dataset(rows)


def video_folds(video_ids: Iterable[str], k: int = 5) -> list[int]:
    """Assign every video to one of k folds by the sha256 of its id: the same on every machine.

    Args:
        video_ids: ids as text, such as `questions["video_id"]`; equal ids get the same fold.
        k: how many folds.

    Raises:
        CausalVideoError: fewer than 2 folds.

    Example:
        >>> video_folds(["4010069381", "4882821564", "4010069381"])
        [2, 4, 2]
    """
    if k < 2:
        raise CausalVideoError("too few folds", found=k, expected="2 or more", fix="leave k at its default 5")
    return [int(hashlib.sha256(video_id.encode("utf-8")).hexdigest(), 16) % k for video_id in video_ids]


def _read_text(path: str | Path, source: str) -> str:
    path = Path(path)
    if not path.is_file():
        raise CausalVideoError(
            "an annotation file is not there",
            found=f"no file {path}",
            expected="the official annotation",
            fix=f"download it from {source}; nothing is downloaded for you",
        )
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")


def _read_csv(path: str | Path, source: str) -> list[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(_read_text(path, source), newline=""))
    lines = [
        {("video_id" if key == "video" else key): value for key, value in line.items()} for line in reader
    ]
    needed = {"video_id", "question", "answer", "qid", "type", *CHOICE_COLUMNS}
    for number, line in enumerate(lines, start=2):
        if missing := sorted(str(key) for key in needed if line.get(key) is None):
            raise CausalVideoError(
                f"line {number} of {path} is not in the multiple-choice layout",
                found=f"nothing in {missing}",
                expected="columns video (or video_id), question, answer, qid, type, a0 to a4",
                fix=f"use the multiple-choice csv of {source}",
            )
    if not lines:
        raise CausalVideoError(
            f"{path} has no rows", found="0 rows", expected="1 or more", fix=f"get it from {source}"
        )
    return lines


def _question_row(line: dict[str, str], answer: int, **more: Any) -> dict[str, Any]:
    return {
        "question_id": f"{line['video_id']}_{line['qid']}",
        "video_id": line["video_id"],
        "question": line["question"],
        "choices": [line[column] for column in CHOICE_COLUMNS],
        "answer": answer,
        "question_type": line["type"],
        **more,
    }


def _index_of_answer(line: dict[str, str], path: str | Path) -> int:
    if line["answer"] not in ("0", "1", "2", "3", "4"):
        raise CausalVideoError(
            f"question {line['video_id']}_{line['qid']} of {path} has no answer index",
            found=repr(line["answer"]),
            expected="0 to 4",
            fix="use the multiple-choice csv; NExT-GQA (answers as text) is read by read_nextgqa",
        )
    return int(line["answer"])


def _choice_of_text(line: dict[str, str], path: str | Path) -> int:
    choices: Sequence[str] = [line[column] for column in CHOICE_COLUMNS]
    if line["answer"] not in choices:
        raise CausalVideoError(
            f"the answer of question {line['video_id']}_{line['qid']} of {path} is none of its choices",
            found=repr(line["answer"]),
            expected=f"one of {choices}",
            fix="use the csv of NExT-GQA; NExT-QA (answers as indices) is read by read_nextqa",
        )
    return choices.index(line["answer"])


def _check_counts(
    path: str | Path,
    split: str | None,
    found: tuple[int, int],
    table: dict[str, tuple[int, int]],
    what: str,
    source: str,
) -> None:
    if split is None:
        return
    if split not in table:
        raise CausalVideoError(
            "no published counts", found=f"split {split!r}", expected=sorted(table), fix="name one of them"
        )
    if found != table[split]:
        raise CausalVideoError(
            f"{path} is not the full {split} file",
            found=f"{found} ({what})",
            expected=f"{table[split]} as published",
            fix=f"get the full file from {source}, or leave `split` out to read a part",
        )
