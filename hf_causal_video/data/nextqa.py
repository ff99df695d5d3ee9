"""Readers of NExT-QA (multiple choice and open ended) and NExT-GQA (which seconds answer a question).

Why: NExT-QA asks for causes in real clips; NExT-GQA says *when* the answer is seen, so evidence can be scored and not
only answers. Papers: Xiao et al., CVPR 2021 (NExT-QA, arXiv 2105.08276) and CVPR 2024 (NExT-GQA, arXiv 2309.01327).
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, List, Value

from hf_causal_video.data.open_ended import index_answers
from hf_causal_video.data.tables import (
    CHOICE_COLUMNS,
    check_counts,
    choice_index,
    choice_of_text,
    make_table,
    read_json,
    read_lines,
)
from hf_causal_video.utils.checks import check_whole, is_text
from hf_causal_video.utils.errors import CausalVideoError, require

NEXTQA_SOURCE = "https://github.com/doc-doc/NExT-QA (folder dataset/nextqa)"
NEXTQA_OE_SOURCE = "https://github.com/doc-doc/NExT-OE (folder dataset/nextqa)"
NEXTGQA_SOURCE = "https://github.com/doc-doc/NExT-GQA (folder datasets/nextgqa)"
ATP_HARD_SOURCE = "https://github.com/StanfordVL/atp-video-language (as csv: Hritikbansal/videocon, folder datasets)"
# questions and videos (NExT-QA), questions and spans (NExT-GQA) of the full files, as published
NEXTQA_COUNTS = {"train": (34132, 3870), "val": (4996, 570), "test": (8564, 1000), "atp-hard": (2269, 559)}
NEXTQA_OE_COUNTS = {"train": (37523, 3870), "val": (5343, 570), "test": (9178, 1000)}
NEXTGQA_COUNTS = {"val": (3358, 3931), "test": (5553, 6600)}
NEXTQA_COLUMNS = ("video_id", "question", "answer", "qid", "type")
Row = dict[str, object]
# the official open-ended train file gives two different questions each of these ids
SHARED_IDS = frozenset({"4598213889_5", "4598213889_2", "3617262562_2"})


def read_nextqa(path: str | Path, split: str | None = None) -> Dataset:
    """Read a NExT-QA multiple-choice file into question rows.

    Args:
        path: the official `train.csv`, `val.csv` or `test.csv`, or the ATP-hard part of val, plain or gzipped. The
            fine types (CW, CH, TN, TC, TP, DC, DL, DO) are kept.
        split: where given, the counts of questions and videos must be the published ones of this split: train, val,
            test, or atp-hard (the 2,269 questions of val that no single frame answers; Buch et al., CVPR 2022).

    Raises:
        CausalVideoError: no such file, a column is missing, a line is malformed, an id is there twice, or the counts
            are not the published ones.

    Source: Xiao et al., NExT-QA, CVPR 2021.

    Example:
        >>> read_nextqa("no/such/val.csv")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: ...
    """
    source = ATP_HARD_SOURCE if split == "atp-hard" else NEXTQA_SOURCE
    lines = read_lines(path, source, (*NEXTQA_COLUMNS, *CHOICE_COLUMNS), "NExT-QA multiple choice")
    hint = "use the multiple-choice csv; NExT-GQA (answers as text) is read by read_nextgqa"
    rows = [_question_row(line, choice_index(path, number, line, hint)) for number, line in lines]
    check_counts(path, split, (len(rows), _videos(rows)), NEXTQA_COUNTS, "questions, videos", source)
    return make_table(path, rows, names=[number for number, _ in lines])


def read_nextqa_open(
    path: str | Path,
    references_path: str | Path | None = None,
    split: str | None = None,
    vocabulary: Sequence[str] | None = None,
    outside_is_a_class: bool | None = None,
) -> Dataset:
    """Read open-ended NExT-QA; the column `reference_answers` holds every answer that counts as right.

    Three ids of the official train file name two different questions each; the second of them gets the id with a "b"
    behind it.

    Args:
        path: the official csv, plain or gzipped.
        references_path: `add_reference_answer_test.json`, a second answer for 4,632 questions of test.
        split: where given, the counts of questions and videos must be the published ones.
        vocabulary: answers in the order of their indices. Without one every `answer` is -1 (these answers are phrases
            of up to nine words, and most of them occur once).
        outside_is_a_class: as in `read_msvdqa`.

    Raises:
        CausalVideoError: as `read_nextqa`, or reference answers to questions that are not in the csv.

    Source: Xiao et al., NExT-QA, CVPR 2021, open-ended part.

    Example:
        >>> read_nextqa_open("no/such/val.csv")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: ...
    """
    lines = read_lines(path, NEXTQA_OE_SOURCE, NEXTQA_COLUMNS, "NExT-QA open ended")
    outside = split == "train" if outside_is_a_class is None else outside_is_a_class
    texts = [line["answer"] for _, line in lines]
    indices = [-1] * len(lines) if vocabulary is None else index_answers(texts, vocabulary, outside)
    rows: list[Row] = []
    references: dict[str, list[str]] = {}  # by question id, the lists in the rows
    for (_, line), index in zip(lines, indices, strict=True):
        answers = [line["answer"]]
        name = f"{line['video_id']}_{line['qid']}"
        name += "b" * (name in SHARED_IDS and name in references)
        references[name] = answers
        row = _question_row(line, index, choices=[], answer_text=line["answer"], reference_answers=answers)
        rows.append({**row, "question_id": name})
    check_counts(path, split, (len(rows), _videos(rows)), NEXTQA_OE_COUNTS, "questions, videos", NEXTQA_OE_SOURCE)
    if references_path is not None:
        _add_references(references, references_path, path)
    extra = Features({"reference_answers": List(Value("string"))})
    return make_table(path, rows, extra, names=[number for number, _ in lines])


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
        CausalVideoError: a missing file, a question without spans, an answer that is not among the choices, other
            counts than the published ones.

    Source: Xiao et al., NExT-GQA, CVPR 2024.

    Example:
        >>> read_nextgqa("no/such/val.csv", "gsub_val.json")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: ...
    """
    lines = read_lines(path, NEXTGQA_SOURCE, (*NEXTQA_COLUMNS, *CHOICE_COLUMNS), "NExT-GQA")
    hint = "use the csv of NExT-GQA; NExT-QA (answers as indices) is read by read_nextqa"
    located = read_json(spans_path, NEXTGQA_SOURCE)
    rows: list[Row] = []
    without = []
    num_spans = 0
    for number, line in lines:
        answer = choice_of_text(path, number, line, hint)
        spans, duration_s = _located(spans_path, located, line)
        if not spans:
            without.append(f"{line['video_id']}_{line['qid']}")
        num_spans += len(spans)
        rows.append(_question_row(line, answer, spans=spans, duration_s=duration_s))
    require(
        not without,
        f"questions of {path} without spans",
        found=lambda: f"{len(without)} of {len(lines)} without, in {spans_path}: {without[:5]} ...",
        expected="a list of [start_s, end_s] for every question",
        fix=f"give the gsub_*.json of the same split; both files come from {NEXTGQA_SOURCE}",
    )
    check_counts(path, split, (len(rows), num_spans), NEXTGQA_COUNTS, "questions, spans", NEXTGQA_SOURCE)
    return make_table(path, rows, names=[number for number, _ in lines])


def video_folds(video_ids: Iterable[str], k: int = 5) -> list[int]:
    """Assign every video to one of k folds by the sha256 of its id: the same on every machine.

    Args:
        video_ids: ids as text, such as `questions["video_id"]`; equal ids get the same fold.
        k: how many folds.

    Raises:
        CausalVideoError: fewer than 2 folds, or an id that is not text.

    Example:
        >>> video_folds(["4010069381", "4882821564", "4010069381"])
        [2, 4, 2]
    """
    check_whole("number of folds", k, 2)
    video_ids = list(video_ids)
    are_text = all(map(is_text, video_ids))
    require(are_text, "video ids", found=lambda: repr(video_ids)[:80], expected="texts", fix="use str(id)")
    return [int(hashlib.sha256(video_id.encode("utf-8")).hexdigest(), 16) % k for video_id in video_ids]


def _located(path: str | Path, located: Any, line: Mapping[str, str]) -> tuple[list[list[float]], float]:
    """Spans of a question and length of its video, both in seconds; no spans where the file has none."""
    try:
        video = located.get(line["video_id"], {})
        spans = video.get("location", {}).get(line["qid"], [])
        return ([list(span) for span in spans], float(video["duration"])) if spans else ([], 0.0)
    except (AttributeError, TypeError, KeyError, ValueError) as error:
        raise CausalVideoError(
            f"invalid layout of {path}",
            found=f"{type(error).__name__} at video {line['video_id']}",
            expected="{video: {duration: seconds, location: {qid: [[start_s, end_s], ...]}}}",
            fix=f"use gsub_*.json of {NEXTGQA_SOURCE}",
        ) from error


def _question_row(line: Mapping[str, str], answer: int, **more: object) -> Row:
    return {
        "question_id": f"{line['video_id']}_{line['qid']}",
        "video_id": line["video_id"],
        "question": line["question"],
        "choices": [line[column] for column in CHOICE_COLUMNS if column in line],
        "answer": answer,
        "question_type": line["type"],
        **more,
    }


def _videos(rows: list[Row]) -> int:
    return len({row["video_id"] for row in rows})


def _add_references(references: Mapping[str, list[str]], references_path: str | Path, path: str | Path) -> None:
    answers = read_json(references_path, NEXTQA_OE_SOURCE)
    fix = f"use add_reference_answer_test.json of {NEXTQA_OE_SOURCE}, and both files of the same split"
    what = f"invalid reference answers in {references_path}"
    is_nested = isinstance(answers, dict) and all(isinstance(entry, dict) for entry in answers.values())
    require(is_nested, what, found=lambda: repr(answers)[:80], expected="{video: {qid: text}}", fix=fix)
    assert isinstance(answers, dict)
    for video_id, by_question in answers.items():
        for qid, answer in by_question.items():
            name = f"{video_id}_{qid}"
            problem = f"{answer!r} to question {name}"
            is_known = name in references and isinstance(answer, str) and answer.strip()
            require(is_known, what, found=problem, expected=f"a text, to a question of {path}", fix=fix)
            if answer not in references[name]:
                references[name].append(answer)
