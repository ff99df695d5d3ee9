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

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import pyarrow as pa
from datasets import Dataset, Features, List, Value

from hf_causal_video.utils.checks import check_fields, is_list, is_number, is_text, is_whole
from hf_causal_video.utils.errors import CausalVideoError, require, reworded

Rows = TypeVar("Rows")
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
DEFAULTS: dict[str, object] = {
    "choices": [],
    "answer": -1,
    "answer_text": None,
    "question_type": "",
    "spans": [],
    "duration_s": 0.0,
}


def questions_dataset(
    rows: Iterable[Mapping[str, object]], extra: Features | None = None, names: Sequence[int] = ()
) -> Dataset:
    """Check question rows and put them in one typed table.

    Args:
        rows: mappings with the columns of `QUESTION_FEATURES`. Only question_id, video_id and question must
            be there; choices default to none (an open-ended question), answer to -1 (unknown), spans (in
            seconds) to none, duration_s to 0.0 (unknown), and answer_text to the text of the right choice.
        extra: typed columns beyond the layout, such as the truth columns of the confounded world.
        names: numbers of the rows' lines in their file, for the errors.

    Raises:
        CausalVideoError: a row that is not a mapping, a missing or unknown column, a question_id twice, an empty
            question, an answer outside the choices or at odds with answer_text, a span that is not a pair of finite
            seconds in order, a negative duration, or a value of another kind than its column.

    Example:
        >>> row = {"question_id": "v1_0", "video_id": "v1", "question": "who runs"}
        >>> questions_dataset([row | {"choices": ["a boy", "a dog"], "answer": 1}])[0]["answer_text"]
        'a dog'
    """
    features = Features({**QUESTION_FEATURES, **(extra or {})})
    columns: dict[str, list[object]] = {name: [] for name in features}
    seen: dict[str, str] = {}
    for number, row in enumerate(check_rows("question rows", rows)):
        place = f"line {names[number]}" if names else f"question row {number}"
        checked = _completed_row(row, place, set(extra or {}))
        question_id = checked["question_id"]
        first = seen.setdefault(question_id, place)
        if first != place:
            raise CausalVideoError(
                "a question_id stands twice",
                found=f"{question_id!r} in {first} and {place}",
                expected="one row per question_id",
                fix="drop the repeated row, or give it an id of its own",
            )
        for name, column in columns.items():
            column.append(checked[name])
    return typed_table("question rows", columns, features)


def check_rows(what: str, rows: Rows) -> Rows:
    """Refuse a path or one mapping where rows are expected."""
    is_table = isinstance(rows, Iterable) and not isinstance(rows, str | Mapping)
    require(is_table, what, found=type(rows).__name__, expected="a list of mappings, or a Dataset")
    return rows


def typed_table(what: str, columns: Mapping[str, Sequence[object]], features: Features) -> Dataset:
    """Put columns in a table of these features; an error for values of another kind."""
    faults = (pa.ArrowException, TypeError, ValueError, OverflowError)  # such as of True among numbers
    with reworded(faults, f"{what} cannot be put in a table", expected=f"values of {features}"):
        return Dataset.from_dict(dict(columns), features=features)


def _completed_row(row: Mapping[str, Any], place: str, extra: set[str]) -> dict[str, Any]:
    """A row with its defaults and the text of its answer; the values of columns in `extra` are not looked at."""
    require(isinstance(row, Mapping), place, found=lambda: repr(row)[:80], expected="a mapping by column")
    name = f"{place} ({row.get('question_id', 'without question_id')!r})"
    check_fields(name, row, ["question_id", "video_id", "question", *sorted(extra)])
    unknown = [column for column in row if column not in QUESTION_FEATURES and column not in extra]
    fix = "rename them, drop them, or declare them with questions_dataset(rows, extra=Features(...))"
    require(not unknown, f"{name} has unknown columns", found=unknown, expected=list(QUESTION_FEATURES), fix=fix)
    checked = {**DEFAULTS, **row}
    wrong = next((column for column, (is_valid, _) in COLUMNS.items() if not is_valid(checked[column])), None)
    if wrong is not None:
        what = f"{name}: invalid {wrong}"
        raise CausalVideoError(what, found=repr(checked[wrong])[:200], expected=COLUMNS[wrong][1], fix="correct it")
    choices = list(checked["choices"])
    answer = checked["answer"]
    is_choice = not choices or answer < len(choices)
    expected = f"-1 (unknown) or a zero-based index up to {len(choices) - 1}"
    require(is_choice, f"{name}: the answer is outside the choices", found=answer, expected=expected)
    text = choices[answer] if choices and answer >= 0 else ""
    stated = checked["answer_text"] or text
    problem = f"{stated!r}, and choice {answer} = {text!r}"
    agree = stated == text or not text
    require(agree, f"{name}: answer and answer_text disagree", found=problem, expected="the same text")
    spans = [[float(start), float(end)] for start, end in checked["spans"]]
    return {**checked, "choices": choices, "answer_text": stated, "spans": spans}


def _is_index(value: object) -> bool:
    return is_whole(value, -1, 2**31 - 1)


def _is_span(value: object) -> bool:
    pair = list(value) if is_list(value) else []
    return len(pair) == 2 and all(map(is_number, pair)) and pair[0] <= pair[1]


def _is_filled(value: object) -> bool:
    return is_text(value) and bool(value.strip())


def _is_text_or_none(value: object) -> bool:
    return value is None or is_text(value)


COLUMNS: dict[str, tuple[Callable[[object], bool], str]] = {  # column: (is it valid, what it should be)
    "question_id": (_is_filled, "text, not empty"),
    "video_id": (_is_filled, "text, not empty"),
    "question": (_is_filled, "text, not empty"),
    "choices": (lambda value: is_list(value) and all(map(is_text, value)), "a list of texts"),
    "answer": (_is_index, "the zero-based index of a choice, -1 if unknown"),
    "answer_text": (_is_text_or_none, "text"),
    "question_type": (_is_text_or_none, "text"),
    "spans": (lambda value: is_list(value) and all(map(_is_span, value)), "[[start_s, end_s], ...], start first"),
    "duration_s": (lambda value: is_number(value) and value >= 0, "seconds, 0.0 if unknown"),
}
