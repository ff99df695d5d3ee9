"""Readers of open-ended questions whose answers are words of a vocabulary: MSVD-QA, MSRVTT-QA, TGIF-QA FrameQA.

Why one reader: the three differ in their columns and sizes alone. Papers: Xu et al., ACM MM 2017 (MSVD-QA, MSRVTT-QA);
Jang et al., CVPR 2017 (TGIF-QA, arXiv 1704.04497).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets import Dataset

from hf_causal_video.data.tables import check_counts, make_table, read_lines
from hf_causal_video.data.vocabulary import index_answers

HQGA = "https://github.com/doc-doc/HQGA (folder dataset/{})"
MSVDQA_SOURCE, MSRVTTQA_SOURCE, FRAMEQA_SOURCE = map(HQGA.format, ("msvd", "msrvtt", "tgifqa/frameqa"))
# questions and videos of the full files
MSVDQA_COUNTS = {"train": (30933, 1161), "val": (6415, 245), "test": (13157, 504)}
MSRVTTQA_COUNTS = {"train": (158581, 6513), "val": (12278, 497), "test": (72821, 2990)}
FRAMEQA_COUNTS = {"train": (39392, 32347), "test": (13691, 7132)}
FIRST_WORDS = ("what", "who", "how", "when", "where")


def read_msvdqa(
    path: str | Path,
    vocabulary: Sequence[str],
    split: str | None = None,
    outside_is_a_class: bool | None = None,
) -> Dataset:
    """Read MSVD-QA; the columns of both exports in use are known (`video, qid` and tab-separated `video_id, id`).

    Args:
        path: train, val or test csv, plain or gzipped.
        vocabulary: the published 1,852 answers (`ans_word.json`), or the list that a model was trained with.
        split: where given, the counts of questions and videos must be the published ones.
        outside_is_a_class: whether an answer outside the vocabulary gets the class `len(vocabulary)`, as in training,
            or -1, which is scored as wrong. None: whether the split is "train".

    Raises:
        CausalVideoError: no such file, a missing column, a malformed line, an id twice, or other counts.

    Example:
        >>> read_msvdqa("no/such/val.csv", ["dog"])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: ...
    """
    return _read(path, vocabulary, split, outside_is_a_class, MSVDQA_COUNTS, "MSVD-QA", MSVDQA_SOURCE)


def read_msrvttqa(
    path: str | Path,
    vocabulary: Sequence[str],
    split: str | None = None,
    outside_is_a_class: bool | None = None,
) -> Dataset:
    """Read MSRVTT-QA; arguments and errors as `read_msvdqa`.

    Two vocabularies are in use: the published `ans_word.json` has 4,000 words, the methods of the thesis take the
    5,000 most frequent training answers (`build_answer_vocabulary`). The column `type` is the category of the video
    and is left out.

    Example:
        >>> read_msrvttqa("no/such/val.csv", ["dog"])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: ...
    """
    return _read(path, vocabulary, split, outside_is_a_class, MSRVTTQA_COUNTS, "MSRVTT-QA", MSRVTTQA_SOURCE)


def read_frameqa(
    path: str | Path,
    vocabulary: Sequence[str],
    split: str | None = None,
    outside_is_a_class: bool | None = None,
) -> Dataset:
    """Read the FrameQA part of TGIF-QA (1,540 answers; no val split); arguments and errors as `read_msvdqa`.

    Example:
        >>> read_frameqa("no/such/test.csv", ["dog"])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: ...
    """
    return _read(path, vocabulary, split, outside_is_a_class, FRAMEQA_COUNTS, "TGIF-QA FrameQA", FRAMEQA_SOURCE)


def read_answers(path: str | Path, source: str) -> list[str]:
    """Read the answer texts of an open-ended csv, in the order of the file, to build a vocabulary from."""
    return [line["answer"] for _, line in read_lines(path, source, ("answer",), "open-ended questions")]


def _read(
    path: str | Path,
    vocabulary: Sequence[str],
    split: str | None,
    outside_is_a_class: bool | None,
    counts: Mapping[str, tuple[int, int]],
    layout: str,
    source: str,
) -> Dataset:
    lines = read_lines(path, source, ("qid", "video_id", "question", "answer"), layout)
    outside = split == "train" if outside_is_a_class is None else outside_is_a_class
    indices = index_answers([line["answer"] for _, line in lines], vocabulary, outside)
    rows = [
        {
            "question_id": line["qid"],
            "video_id": line["video_id"],
            "question": line["question"],
            "answer": answer,
            "answer_text": line["answer"],
            "question_type": _first_word(line["question"]),
        }
        for (_, line), answer in zip(lines, indices, strict=True)
    ]
    check_counts(path, split, (len(rows), len({row["video_id"] for row in rows})), counts, "questions, videos", source)
    return make_table(path, rows, names=[number for number, _ in lines])


def _first_word(question: str) -> str:
    word = question.split()[0].lower()
    return word if word in FIRST_WORDS else "other"
