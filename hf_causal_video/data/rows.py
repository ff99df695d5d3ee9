"""One row per question: the only table of questions that the package knows.

Every reader (NExT-QA, NExT-GQA, the confounded world, a user's own file) ends here, so that training,
evaluation and the evidence tools need one layout. A row names its video by id and holds no features;
`data/dataset.py` joins the two tables.

The table is an ordinary `datasets.Dataset` and goes round every ordinary door unchanged:

    questions.to_parquet("questions/train-00000-of-00001.parquet")
    load_dataset("parquet", data_files="questions/train-*.parquet", split="train")
    questions.push_to_hub("org/my-videoqa", config_name="questions")
    load_dataset("org/my-videoqa", "questions")

Call `questions_dataset` on rows that come from outside (a loaded `Dataset` is an iterable of rows too) to
have them checked.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, List, Value

from hf_causal_video.utils.errors import CausalVideoError, require

QUESTION_FEATURES = Features(
    {
        "question_id": Value("string"),
        "video_id": Value("string"),
        "question": Value("string"),
        "choices": List(Value("string")),
        "answer": Value("int32"),
        "answer_text": Value("string"),
        "question_type": Value("string"),
        "spans": List(List(Value("float64"), length=2)),
        "duration_s": Value("float64"),
    }
)
LARGEST = sys.float_info.max
REQUIRED = ("question_id", "video_id", "question")
DEFAULTS: dict[str, Any] = {
    "choices": [],
    "answer": -1,
    "answer_text": None,
    "question_type": "",
    "spans": [],
    "duration_s": 0.0,
}


def questions_dataset(rows: Iterable[Mapping[str, Any]], extra: Features | None = None) -> Dataset:
    """Check question rows and put them in one typed table.

    Args:
        rows: mappings with the columns of `QUESTION_FEATURES`. Only question_id, video_id and question must
            be there; choices default to none (an open-ended question), answer to -1 (unknown), spans (in
            seconds) to none, duration_s to 0.0 (unknown), and answer_text to the text of the right choice.
        extra: typed columns beyond the layout, such as the truth columns of the confounded world.

    Raises:
        CausalVideoError: a row that is not a mapping, a missing or unknown column, a question_id twice, an empty
            question, an answer outside the choices or at odds with answer_text, a span that is not a pair of finite
            seconds in order, a negative duration, or a value of another kind than its column.

    Example:
        >>> row = {"question_id": "v1_0", "video_id": "v1", "question": "who runs"}
        >>> questions_dataset([row | {"choices": ["a boy", "a dog"], "answer": 1}])[0]["answer_text"]
        'a dog'
    """
    if isinstance(rows, str | Mapping) or not isinstance(rows, Iterable):
        _fail("question rows", type(rows).__name__, "a list of mappings, or a Dataset", "pass a list of rows")
    features = Features({**QUESTION_FEATURES, **(extra or {})})
    columns: dict[str, list[Any]] = {name: [] for name in features}
    seen: dict[str, int] = {}
    for number, row in enumerate(rows):
        checked = _checked_row(row, number, set(extra or {}))
        first = seen.setdefault(checked["question_id"], number)
        require(
            first == number,
            "a question_id stands twice",
            found=f"{checked['question_id']!r} in rows {first} and {number}",
            expected="one row per question_id",
            fix="name questions '<video_id>_<number of the question>' and drop repeated rows",
        )
        for name, column in columns.items():
            column.append(checked[name])
    try:
        return Dataset.from_dict(columns, features=features)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:  # of the columns in `extra`
        raise CausalVideoError(
            "question rows cannot be put in a table",
            found=str(error).splitlines()[0],
            expected=f"values of {features}",
            fix="correct the column",
        ) from error


def _checked_row(row: Mapping[str, Any], number: int, extra: set[str]) -> dict[str, Any]:
    if not isinstance(row, Mapping) or not all(isinstance(column, str) for column in row):
        _fail(f"question row {number}", repr(row)[:80], "a mapping by column", "pass rows as mappings")
    name = f"question row {number} ({row.get('question_id', 'without question_id')!r})"
    needed = {*REQUIRED, *extra}
    if missing := sorted(needed - set(row)):
        _fail(
            f"{name} lacks columns",
            list(row),
            f"also {missing}",
            "fill these columns; the others have defaults",
        )
    if unknown := sorted(set(row) - set(QUESTION_FEATURES) - extra):
        _fail(
            f"{name} has unknown columns",
            unknown,
            f"columns among {list(QUESTION_FEATURES)}",
            "rename them, drop them, or declare them with questions_dataset(rows, extra=Features(...))",
        )
    checked = {**DEFAULTS, **row}
    for column in REQUIRED:
        if not is_text(checked[column]) or not checked[column].strip():
            _fail(
                f"{name}: {column} is empty or not text",
                repr(checked[column]),
                "text",
                f"write the {column} as a string",
            )
    for column in ("choices", "spans"):
        if not is_list(checked[column]):
            _fail(f"{name}: {column} is not a list", repr(checked[column]), "a list", f"write {column} as a list")
    if checked["question_type"] is not None and not is_text(checked["question_type"]):
        _fail(f"{name}: question_type is not text", repr(checked["question_type"]), "text", "write it as a string")
    checked["choices"] = list(checked["choices"])
    _check_answer(checked, name)
    checked["spans"] = [_checked_span(span, name) for span in checked["spans"]]
    if not is_number(checked["duration_s"]) or checked["duration_s"] < 0:
        _fail(
            f"{name}: invalid duration_s",
            checked["duration_s"],
            "seconds, 0.0 if unknown",
            "give it in seconds",
        )
    return checked


def _check_answer(row: dict[str, Any], name: str) -> None:
    answer, choices = row["answer"], row["choices"]
    if any(not is_text(choice) for choice in choices):
        _fail(f"{name}: a choice is not text", choices, "a list of strings", "write every choice as a string")
    if not isinstance(answer, Integral) or isinstance(answer, bool) or not -1 <= answer < 2**31:  # type: ignore[operator]
        _fail(
            f"{name}: the answer is not an index",
            repr(answer),
            "a whole number, -1 if unknown",
            "give the index, zero-based",
        )
    if choices and answer >= len(choices):
        _fail(
            f"{name}: the answer is outside the choices",
            answer,
            f"-1 (unknown) or 0 to {len(choices) - 1}",
            "answers are zero-based indices into choices",
        )
    stated = row["answer_text"]
    if stated is not None and not is_text(stated):
        _fail(f"{name}: answer_text is not text", repr(stated), "text", "leave it out, or write it as a string")
    text = choices[answer] if choices and answer >= 0 else ""
    if stated and text and stated != text:
        _fail(
            f"{name}: answer and answer_text disagree",
            f"{stated!r} and choice {answer} = {text!r}",
            "the same text",
            "give only the answer index, the text follows from it",
        )
    row["answer_text"] = stated or text


def _checked_span(span: Any, name: str) -> list[float]:
    pair = list(span) if is_list(span) else []
    if len(pair) != 2 or not all(map(is_number, pair)) or pair[0] > pair[1]:
        _fail(
            f"{name}: invalid span",
            span,
            "[start_s, end_s], finite, start first",
            "correct the annotation",
        )
    return [float(pair[0]), float(pair[1])]


def is_text(value: Any) -> bool:
    """Tell whether a value is a string that can be stored (a lone surrogate cannot)."""
    return isinstance(value, str) and value.isascii() or isinstance(value, str) and _encodes(value)


def is_list(value: Any) -> bool:
    """Tell whether a value is a sequence other than text."""
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes)


def is_number(value: Any) -> bool:
    """Tell whether a value is a finite number that a float holds."""
    return isinstance(value, Real) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST  # type: ignore[operator]


def _encodes(text: str) -> bool:
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False


def _fail(what: str, found: object, expected: object, fix: str) -> None:
    raise CausalVideoError(what, found=found, expected=expected, fix=fix)
