"""`hf-causal-video questions`: check a file of your own questions, and say what it holds."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from hf_causal_video.cli.options import argument, option

EXAMPLES = """examples:
  hf-causal-video questions questions.csv                        # is it readable, and what does it hold?
  hf-causal-video questions questions.jsonl --features features/ # and does every video have features?

The file is csv, tab-separated, JSON Lines or Parquet, one row per question:

  video,question,answer,a0,a1,a2
  walk.mp4,what does the man do,1,he runs,he walks,he sits
  walk.mp4,where is he,in a park,at home,in a park,on a street

`answer` is the index of a choice (zero-based) or its text. Choices may also be a list in a column `choices`; without
choices the question is open-ended. Optional: question_id, type, split, spans ([[start_s, end_s]]), duration_s.
The same file is what train, evaluate and stress take as --dataset.
"""


@dataclass(kw_only=True)
class Options:
    """Check a file of your own questions, and say what it holds."""

    file: str = argument("file of questions")
    features: str | None = option("feature set, folder or Hub id: every video must be in it", None)
    json: bool = option("print JSON instead of text", False)


def run(options: Options) -> int:
    """Check a file of questions; 1 if some videos have no features."""
    from hf_causal_video.data import read_questions
    from hf_causal_video.features.store import FeatureStore

    file = read_questions(options.file)
    summary = summarize(file.questions.to_list(), file.splits)
    summary["notes"] = file.notes
    if options.features:
        store = FeatureStore.open(options.features)
        names = sorted(set(file.questions["video_id"]))
        without = [name for name in names if name not in store]
        summary["videos_without_features"] = without
        close = {name: get_close_matches(name, store.video_ids, 1) for name in without}
        summary["did_you_mean"] = {name: match[0] for name, match in close.items() if match}
    if options.json:
        print(json.dumps(summary, indent=2, ensure_ascii=False))
    else:
        _print(options.file, summary)
    return 1 if summary.get("videos_without_features") else 0


def summarize(questions: Sequence[dict[str, Any]], splits: Sequence[str]) -> dict[str, Any]:
    """Count what a file of questions holds.

    Args:
        questions: question rows.
        splits: split of each row, "" where none is named.

    Returns:
        `questions`, `videos`, `kind`, `splits`, `choices` (number of choices: rows), `answers` (text: rows, most
        frequent first), `unknown_answers`, `words` (shortest, median and longest question), `with_spans`.
    """
    lengths = sorted(len(row["question"].split()) for row in questions)
    answers = Counter(row["answer_text"] for row in questions if row["answer_text"])
    return {
        "questions": len(questions),
        "videos": len({row["video_id"] for row in questions}),
        "kind": "multiple choice" if questions[0]["choices"] else "open-ended",
        "splits": dict(Counter(split or "(none named)" for split in splits)),
        "choices": {str(count): rows for count, rows in sorted(Counter(len(q["choices"]) for q in questions).items())},
        "positions": {str(place): rows for place, rows in sorted(Counter(q["answer"] for q in questions).items())},
        "answers": dict(answers.most_common(10)),
        "different_answers": len(answers),
        "unknown_answers": sum(not row["answer_text"] for row in questions),
        "words": [lengths[0], lengths[len(lengths) // 2], lengths[-1]],
        "with_spans": sum(bool(row["spans"]) for row in questions),
    }


def _print(name: str, summary: dict[str, Any]) -> None:
    print(f"{name}: {summary['questions']} questions about {summary['videos']} videos, {summary['kind']}")
    print("  splits     ", ", ".join(f"{split} {rows}" for split, rows in summary["splits"].items()))
    if summary["kind"] == "multiple choice":
        print("  choices    ", ", ".join(f"{count} in {rows} rows" for count, rows in summary["choices"].items()))
        print("  right at   ", ", ".join(f"{place}: {rows}" for place, rows in summary["positions"].items()))
    answers = ", ".join(f"{text!r} {rows}" for text, rows in summary["answers"].items())
    print(f"  answers     {summary['different_answers']} different; most frequent: {answers or '-'}")
    if summary["unknown_answers"]:
        print(f"  unknown     {summary['unknown_answers']} rows without an answer (fine for a test split only)")
    shortest, median, longest = summary["words"]
    print(f"  words       {shortest} to {longest} in a question, median {median}")
    print(f"  spans       in {summary['with_spans']} rows")
    for note in summary["notes"]:
        print(f"  note        {note}")
    if "videos_without_features" in summary:
        without = summary["videos_without_features"]
        print(f"  features    {f'missing for {len(without)} videos' if without else 'for every video'}")
        for name in without[:10]:
            hint = summary["did_you_mean"].get(name)
            print(f"              {name}" + (f" (did you mean {hint!r}?)" if hint else ""))
