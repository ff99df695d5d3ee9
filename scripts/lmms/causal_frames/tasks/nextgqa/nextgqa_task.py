"""NExT-GQA for lmms-eval: the questions of NExT-QA that have annotated spans, answered and compared with them.

Environment: NEXTGQA_SPANS is gsub_test.json of github.com/doc-doc/NExT-GQA; NEXTGQA_VIDEOS a folder of mp4 files, by
default where lmms-eval unpacks those of its NExT-QA task.

A model that ends its answer with `<frames>1.5,3.0</frames>`, the seconds it was shown, is also scored on them:
`frames_in_span` is the share of them inside a true span, `any_frame_in_span` whether one is, `right_and_grounded`
whether the answer is right and at least half of them are. These are measures of frames, not the IoP and Acc@GQA of the
paper, which are of one span. An answer without a letter is wrong; it is never drawn by chance.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import datasets

LETTERS = "ABCDE"


def spans_file() -> dict[str, Any]:
    """The annotated spans by video."""
    path = os.environ.get("NEXTGQA_SPANS", "")
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"NEXTGQA_SPANS={path!r} is not a file: name gsub_test.json of github.com/doc-doc/NExT-GQA there"
        )
    return json.loads(Path(path).read_text(encoding="utf-8"))


def grounded_only(questions: datasets.Dataset) -> datasets.Dataset:
    """Keep the questions that have spans, with their spans."""
    known = spans_file()

    def spans_of(row: dict[str, Any]) -> list[list[float]]:
        return known.get(str(row["video"]), {}).get("location", {}).get(str(row["qid"]), [])

    rows = questions.filter(lambda row: bool(spans_of(row)))
    if not len(rows):
        raise ValueError("no question has a span: the questions and NEXTGQA_SPANS are of different splits")
    return rows.map(lambda row: {"spans": [[float(a), float(b)] for a, b in spans_of(row)]})


def video_of(row: dict[str, Any]) -> list[str]:
    """The path of the clip."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    folder = Path(os.environ.get("NEXTGQA_VIDEOS", home / "nextqa" / "NExTVideo"))
    clip = next(
        (path for ending in (".mp4", ".mkv", ".webm") if (path := folder / f"{row['video']}{ending}").is_file()), None
    )
    if clip is None:
        raise FileNotFoundError(f"no clip {row['video']} in {folder}: set NEXTGQA_VIDEOS to the folder of the videos")
    return [str(clip)]


def prompt_of(row: dict[str, Any], lmms_eval_specific_kwargs: dict[str, Any] | None = None) -> str:
    """The question and its choices by letter."""
    choices = [f"{letter}. {row[f'a{i}']}" for i, letter in enumerate(LETTERS)]
    return "\n".join([f"{row['question'].strip()}?", *choices, "Answer with the letter of one choice."])


def letter_of(row: dict[str, Any]) -> str:
    """The right letter."""
    return LETTERS[int(row["answer"])]


def score(row: dict[str, Any], results: list[str]) -> dict[str, float | None]:
    """The metrics of one answer; None where no seconds were reported."""
    text, seconds = split_frames(results[0])
    right = float(first_letter(text) == letter_of(row))
    if not seconds:
        return {"accuracy": right, "frames_in_span": None, "any_frame_in_span": None, "right_and_grounded": None}
    inside = [any(start <= second <= end for start, end in row["spans"]) for second in seconds]
    share = sum(inside) / len(inside)
    return {
        "accuracy": right,
        "frames_in_span": share,
        "any_frame_in_span": float(any(inside)),
        "right_and_grounded": float(right and share >= 0.5),
    }


def split_frames(text: str) -> tuple[str, list[float]]:
    """The answer without its tag, and the seconds in the tag.

    Example:
        >>> split_frames("B <frames>1.5,3.0</frames>")
        ('B', [1.5, 3.0])
    """
    tag = re.search(r"<frames>([\d.,]*)</frames>", text)
    if tag is None:
        return text.strip(), []
    return text[: tag.start()].strip(), [float(second) for second in tag[1].split(",") if second]


def first_letter(text: str) -> str | None:
    """The letter a model chose: alone, in brackets, or before a point or a colon; None if there is none.

    Example:
        >>> [first_letter(text) for text in ("B", "(C) because", "The answer is D.", "A boy runs", "")]
        ['B', 'C', 'D', None, None]
    """
    text = text.strip()
    if text in LETTERS and text:
        return text
    match = re.search(r"\(([A-E])\)|\b([A-E])(?=[.:)]|$)", text)
    return next((letter for letter in match.groups() if letter), None) if match else None


def mean_of_known(values: list[float | None]) -> float | None:
    """The mean over answers that have the metric."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
