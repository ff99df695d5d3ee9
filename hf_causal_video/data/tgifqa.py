"""Reader of the multiple-choice parts of TGIF-QA: what is done how often (action), what comes before and after
(transition).

Why: short clips whose answer lies in motion and order, not in a single frame. Paper: Jang et al., CVPR 2017
(arXiv 1704.04497). The FrameQA part is open ended: `read_frameqa`.
"""

from pathlib import Path

from datasets import Dataset

from hf_causal_video.data.tables import CHOICE_COLUMNS, check_counts, choice_index, make_table, read_lines
from hf_causal_video.utils.errors import require

TGIFQA_SOURCE = "https://github.com/doc-doc/HQGA (folder dataset/tgifqa)"
# questions and videos of the full files; the size of the train file of transition in this layout is not known to us
TGIFQA_COUNTS = {
    "action": {"train": (20473, 20473), "test": (2274, 2274)},
    "transition": {"test": (6232, 3116)},
}


def read_tgifqa(path: str | Path, task: str, split: str | None = None) -> Dataset:
    """Read the action or the transition part of TGIF-QA; the task becomes the question type.

    Args:
        path: train or test csv (`video, question, a0..a4, answer, qid`), plain or gzipped; the answer is an index.
        task: "action" or "transition".
        split: where given, the counts of questions and videos must be the published ones.

    Raises:
        CausalVideoError: another task, no such file, a missing column, a malformed line, an id twice, or other counts.

    Source: Jang et al., TGIF-QA, CVPR 2017.

    Example:
        >>> read_tgifqa("no/such/test.csv", "action")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: ...
    """
    require(
        task in TGIFQA_COUNTS,
        "no such task of TGIF-QA",
        found=task,
        expected=" or ".join(TGIFQA_COUNTS),
        fix="FrameQA: read_frameqa",
    )
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
    found = (len(rows), len({row["video_id"] for row in rows}))
    check_counts(path, split, found, TGIFQA_COUNTS[task], "questions, videos", TGIFQA_SOURCE)
    return make_table(path, rows, names=[number for number, _ in lines])
