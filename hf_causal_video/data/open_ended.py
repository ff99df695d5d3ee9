"""Readers of MSVD-QA, MSRVTT-QA and TGIF-QA, and the vocabularies of open-ended answers.

Why one reader: the open-ended files differ only in their columns and sizes. Why a vocabulary: open-ended VideoQA is
classification over the frequent training answers. The choice of words, their order, and the treatment of the rest
decide the number; the published models keep the rest as one more class in training, and count it as wrong in
evaluation.

Papers: Xu et al., ACM MM 2017 (MSVD-QA, MSRVTT-QA); Jang et al., CVPR 2017 (TGIF-QA, arXiv 1704.04497).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from datasets import Dataset

from hf_causal_video.data.tables import CHOICE_COLUMNS, check_counts, choice_index, make_table, read_json, read_lines
from hf_causal_video.utils.checks import check_choice, check_whole, is_text
from hf_causal_video.utils.errors import require

HQGA = "https://github.com/doc-doc/HQGA (folder dataset/{})"
MSVDQA_SOURCE, MSRVTTQA_SOURCE, FRAMEQA_SOURCE = map(HQGA.format, ("msvd", "msrvtt", "tgifqa/frameqa"))
# questions and videos of the full files
MSVDQA_COUNTS = {"train": (30933, 1161), "val": (6415, 245), "test": (13157, 504)}
MSRVTTQA_COUNTS = {"train": (158581, 6513), "val": (12278, 497), "test": (72821, 2990)}
FRAMEQA_COUNTS = {"train": (39392, 32347), "test": (13691, 7132)}
FIRST_WORDS = ("what", "who", "how", "when", "where")


def read_msvdqa(
    path: str | Path, vocabulary: Sequence[str], split: str | None = None, outside_is_a_class: bool | None = None
) -> Dataset:
    """Read MSVD-QA; the columns of both exports in use are known (`video, qid` and tab-separated `video_id, id`).

    Args:
        path: train, val or test csv, plain or gzipped.
        vocabulary: the published 1,852 answers (`ans_word.json`), or the list that a model was trained with.
        split: if not None, the counts of questions and videos must be the published ones.
        outside_is_a_class: True gives an answer outside the vocabulary the class `len(vocabulary)`, as in training;
            False gives it -1, which is scored as wrong. None: True for the split "train".

    Raises:
        CausalVideoError: a missing file or column, a malformed line, an id twice, or other counts.

    Example:
        >>> read_msvdqa("no/such/val.csv", ["dog"])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: ...
    """
    return _read(path, vocabulary, split, outside_is_a_class, MSVDQA_COUNTS, "MSVD-QA", MSVDQA_SOURCE)


def read_msrvttqa(
    path: str | Path, vocabulary: Sequence[str], split: str | None = None, outside_is_a_class: bool | None = None
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
    path: str | Path, vocabulary: Sequence[str], split: str | None = None, outside_is_a_class: bool | None = None
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


TGIFQA_SOURCE = "https://github.com/doc-doc/HQGA (folder dataset/tgifqa)"
# questions and videos of the full files; the size of the train file of transition in this layout is not known to us
TGIFQA_COUNTS = {"action": {"train": (20473, 20473), "test": (2274, 2274)}, "transition": {"test": (6232, 3116)}}


def read_tgifqa(path: str | Path, task: str, split: str | None = None) -> Dataset:
    """Read the action or the transition part of TGIF-QA; the task becomes the question type.

    Args:
        path: train or test csv (`video, question, a0..a4, answer, qid`), plain or gzipped; the answer is an index.
        task: "action" or "transition".
        split: if not None, the counts of questions and videos must be the published ones.

    Raises:
        CausalVideoError: an unknown task, a missing file or column, a malformed line, an id twice, or other counts.

    Source: Jang et al., TGIF-QA, CVPR 2017.

    Example:
        >>> read_tgifqa("no/such/test.csv", "action")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: ...
    """
    check_choice("task of TGIF-QA", task, TGIFQA_COUNTS, fix="FrameQA: read_frameqa")
    columns = ("qid", "video_id", "question", "answer", *CHOICE_COLUMNS)
    lines = read_lines(path, TGIFQA_SOURCE, columns, f"TGIF-QA {task}")
    hint = f"use the csv of {TGIFQA_SOURCE}"
    rows = [
        {
            "question_id": line["qid"],
            "video_id": line["video_id"],
            "question": line["question"],
            "choices": [line[column] for column in CHOICE_COLUMNS],
            "answer": choice_index(path, number, line, hint),
            "question_type": task,
        }
        for number, line in lines
    ]
    counts = (len(rows), len({row["video_id"] for row in rows}))
    check_counts(path, split, counts, TGIFQA_COUNTS[task], "questions, videos", TGIFQA_SOURCE)
    return make_table(path, rows, names=[number for number, _ in lines])


def build_answer_vocabulary(answers: Iterable[str], size: int | None = None) -> list[str]:
    """List the answers of a training split, the most frequent first.

    Of equally frequent answers the one that occurs first in the file comes first, which gives the published lists of
    MSVD-QA and of the FrameQA part of TGIF-QA, in their order.

    Args:
        answers: texts of the training answers, in the order of the file.
        size: at most this many; all if None. The index `size` is the class of every other answer.

    Raises:
        CausalVideoError: no answers, an empty one, or a size below 1.

    Example:
        >>> build_answer_vocabulary(["dog", "cat", "dog", "cow"], size=2)
        ['dog', 'cat']
    """
    answers = list(answers)
    counted = Counter(answer for answer in answers if is_text(answer) and answer.strip())
    problem = "an answer without text" if counted else "no answers"
    is_whole_list = counted and counted.total() >= len(answers)
    require(is_whole_list, "no vocabulary of answers", found=problem, expected="texts", fix="take the training split")
    if size is not None:
        check_whole("size of the vocabulary", size)
    return [answer for answer, _ in counted.most_common(size)]


def read_answer_vocabulary(path: str | Path, source: str) -> list[str]:
    """Read a published list of answers, such as `ans_word.json`.

    Args:
        path: a JSON list of texts, plain or gzipped.
        source: where the official file comes from.

    Raises:
        CausalVideoError: a missing file, other values than texts, or a text twice.
    """
    words = read_json(path, source)
    texts = [word for word in words if isinstance(word, str) and word.strip()] if isinstance(words, list) else []
    distinct = list(dict.fromkeys(texts))
    require(
        distinct and distinct == words,
        f"{path} is not a list of answers",
        found=f"{len(texts) - len(distinct)} texts twice" if texts == words else "other values",
        expected="a JSON list of different texts",
        fix=f"use ans_word.json of {source}",
    )
    return distinct


def index_answers(answers: Iterable[str], vocabulary: Sequence[str], outside_is_a_class: bool) -> list[int]:
    """Give each answer its index in the vocabulary.

    Args:
        answers: texts.
        vocabulary: in the order of the indices.
        outside_is_a_class: True gives an answer outside the vocabulary the class `len(vocabulary)`, to learn from;
            False gives it -1, which no prediction equals and which is scored as wrong.

    Example:
        >>> index_answers(["cat", "aardvark"], ["dog", "cat"], outside_is_a_class=True)
        [1, 2]
        >>> index_answers(["cat", "aardvark"], ["dog", "cat"], outside_is_a_class=False)
        [1, -1]
    """
    index = {word: position for position, word in enumerate(vocabulary)}
    outside = len(vocabulary) if outside_is_a_class else -1
    return [index.get(answer, outside) for answer in answers]
