"""Vocabularies of open-ended answers: the words a model can answer with, and the class of all others.

Why: open-ended VideoQA is classification over the frequent training answers. Which words, in which order, and what
becomes of the rest decides the number; the published models keep the rest as one more class in training and count it
as wrong in evaluation. Source: Xu et al. 2017 (MSVD-QA, MSRVTT-QA).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from hf_causal_video.data.rows import is_text
from hf_causal_video.data.tables import read_json
from hf_causal_video.utils.errors import require


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
    require(
        counted and counted.total() >= len(answers),
        "no vocabulary of answers",
        found="no answers" if not counted else "an answer without text",
        expected="texts",
        fix="build it from the answers of the training split",
    )
    require(
        size is None or (isinstance(size, int) and not isinstance(size, bool) and size >= 1),
        "no vocabulary of answers",
        found=f"size {size}",
        expected="1 or more",
        fix="raise it",
    )
    return [answer for answer, _ in counted.most_common(size)]


def read_answer_vocabulary(path: str | Path, source: str) -> list[str]:
    """Read a published list of answers, such as `ans_word.json`.

    Args:
        path: a JSON list of texts, plain or gzipped.
        source: where the official file comes from.

    Raises:
        CausalVideoError: no such file, no list of texts, or a text that is there twice.
    """
    words = read_json(path, source)
    good = isinstance(words, list) and all(isinstance(word, str) and word.strip() for word in words)
    require(
        good and words and len(set(words)) == len(words),
        f"{path} is no list of answers",
        found=f"{len(words) - len(set(words))} texts twice" if good and words else "no list of texts",
        expected="a JSON list of different texts",
        fix=f"use ans_word.json of {source}",
    )
    return words


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
