"""Numbers of a stress test: accuracies and effects with intervals, a table, and metadata for the card.

Intervals: 95 % of a bootstrap that draws whole videos, since questions about one video are right or wrong together;
every accuracy and difference comes from the same draws, so differences are paired.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

import numpy as np

from hf_causal_video.stress.records import Record, Settings
from hf_causal_video.utils.files import write_whole

EFFECTS = {  # name: (what it says, test, minus test)
    "evidence_effect": ("evidence only - evidence removed", "evidence_only", "evidence_removed"),
    "control_effect": ("window only - window removed", "window_only", "window_removed"),
    "visual_gain": ("whole clip - blind", "whole", "blind"),
}
BOTH = "evidence_over_control"  # the evidence effect minus the control's
LEVEL = (2.5, 97.5)  # percentiles


class Row(TypedDict):
    """One test, in percent; `change` and `same_answer` compare it with the whole clip."""

    test: str
    asks: str
    accuracy: float
    interval: list[float]
    change: float
    change_interval: list[float]
    same_answer: float


# a difference of two accuracies, in percentage points, and what it is
Effect = TypedDict("Effect", {"is": str, "value": float, "interval": list[float]})


class Report(TypedDict):
    """Figures of a stress test, see `summarize`."""

    settings: Settings
    questions: int
    videos: int
    evidence_share: float | None
    removed_share: float | None
    chance: float | None
    rows: list[Row]
    effects: dict[str, Effect]
    not_applicable: dict[str, str]
    notes: dict[str, int]
    mark: NotRequired[str]


def summarize(
    records: Sequence[Record],
    settings: Settings,
    not_applicable: Mapping[str, str],
    tests: Mapping[str, str],
    resamples: int = 2000,
) -> Report:
    """Turn one record per question into the report.

    Args:
        records: of `stress_test`: `video_id`, `answer`, `choices` (their number), `predictions` by test.
        settings: of the run; `tests` and `seed` are read.
        not_applicable: tests that could not be made, with the reason.
        tests: what each test asks, in words.
        resamples: bootstrap draws.

    Returns:
        `rows`: one per test with `accuracy`, `change` from the whole clip, their `interval` and `change_interval`, and
        `same_answer` (share of questions answered as on the whole clip), in percent. `effects`: `value` and
        `interval`. `chance`: accuracy of a guess, None for open-ended questions. `evidence_share`, `removed_share`:
        percent of the frames that are evidence, and that are removed with it; None without evidence.

    Example:
        >>> rows = [{"video_id": str(i), "answer": 0, "choices": 2, "predictions": {"whole": 0, "blind": i % 2},
        ...          "frames": 8, "evidence": None, "notes": []} for i in range(10)]
        >>> report = summarize(rows, {"tests": ["whole", "blind"], "seed": 0}, {}, {"whole": "", "blind": ""})
        >>> report["rows"][1]["accuracy"], report["effects"]["visual_gain"]["value"], report["chance"]
        (50.0, 50.0, 50.0)
    """
    names = list(settings["tests"])
    predicted = np.array([[row["predictions"][name] for name in names] for row in records])  # (n, tests)
    right = predicted == np.array([row["answer"] for row in records])[:, None]
    videos = np.unique([row["video_id"] for row in records], return_inverse=True)[1]
    accuracy = 100 * right.mean(0)  # (tests,)
    draws = _bootstrap(right, videos, resamples, settings["seed"])  # (resamples, tests)
    whole = names.index("whole")
    rows: list[Row] = [
        {
            "test": name,
            "asks": tests[name],
            "accuracy": round(float(accuracy[place]), 2),
            "interval": _interval(draws[:, place]),
            "change": round(float(accuracy[place] - accuracy[whole]), 2),
            "change_interval": _interval(draws[:, place] - draws[:, whole]),
            "same_answer": round(100 * float((predicted[:, place] == predicted[:, whole]).mean()), 2),
        }
        for place, name in enumerate(names)
    ]
    sizes = [row["choices"] for row in records]
    notes: dict[str, int] = {}
    for row in records:
        for note in row["notes"]:
            notes[note] = notes.get(note, 0) + 1
    return {
        "settings": settings,
        "questions": len(records),
        "videos": int(videos.max()) + 1,
        "evidence_share": _share(records, "evidence"),
        "removed_share": _share(records, "removed"),
        "chance": round(100 * float(np.mean([1 / size for size in sizes])), 2) if all(sizes) else None,
        "rows": rows,
        "effects": _effects(names, accuracy, draws),
        "not_applicable": dict(not_applicable),
        "notes": notes,
    }


def stress_table(report: Report) -> str:
    """The report as a Markdown table, which is as well read on a terminal.

    Example:
        >>> row = {"test": "blind", "asks": "every frame blank", "accuracy": 50.0, "interval": [40.0, 60.0],
        ...        "change": -40.0, "change_interval": [-50.0, -30.0], "same_answer": 55.0}
        >>> print(stress_table({"rows": [row], "effects": {}, "not_applicable": {}, "notes": {},
        ...                     "evidence_share": None}))
        | asked with                           | accuracy            | change                  | same answer |
        |--------------------------------------|---------------------|-------------------------|-------------|
        | every frame blank                    |  50.0 (40.0, 60.0)  | -40.0 (-50.0, -30.0)    |        55.0 |
    """
    lines = [
        f"| {'asked with':<36} | {'accuracy':<19} | {'change':<23} | same answer |",
        f"|{'-' * 38}|{'-' * 21}|{'-' * 25}|-------------|",
    ]
    for row in report["rows"]:
        low, high = row["interval"]
        change = "" if row["test"] == "whole" else _signed(row["change"], row["change_interval"])
        same = "" if row["test"] == "whole" else f"{row['same_answer']:.1f}"
        level = f"{row['accuracy']:5.1f} ({low:.1f}, {high:.1f})"
        lines.append(f"| {row['asks']:<36} | {level:<19} | {change:<23} | {same:>11} |")
    for name, effect in report["effects"].items():
        words = f"{name.replace('_', ' ')}: {_signed(effect['value'], effect['interval'])}"
        lines += ["", f"{words}  [{effect['is']}]"]
    if report["evidence_share"] is not None:
        whole = ": this model singles out none" if report["evidence_share"] == 100 else ""
        removed = report.get("removed_share")
        event = "" if removed is None else f"; removed with the gaps in between: {removed:.1f} %"
        lines += ["", f"evidence: {report['evidence_share']:.1f} % of the frames{whole or event}"]
    lines += [""] * bool(report["not_applicable"]) + [
        f"not made: {test.replace('_', ' ')} ({why})" for test, why in report["not_applicable"].items()
    ]
    lines += [f"note: {note} ({count} questions)" for note, count in sorted(report["notes"].items())]
    return "\n".join(lines)


def card_results(report: Report, dataset: str, split: str) -> list[dict[str, object]]:
    """The report as entries of a model card's `model-index`.

    Args:
        report: of `stress_test`.
        dataset: its name, such as "nextqa".
        split: its split.

    Returns:
        `results` of one model in the Hub's model-index: one entry, each figure a metric.
    """
    figures = [("accuracy", row["asks"], row["accuracy"], row["interval"]) for row in report["rows"]]
    figures += [(name, one["is"], one["value"], one["interval"]) for name, one in report["effects"].items()]
    metrics = [
        {"type": kind, "name": f"stress: {words}", "value": value, "args": {"bootstrap_95": list(interval)}}
        for kind, words, value, interval in figures
    ]
    return [
        {
            "task": {"type": "video-question-answering", "name": "stress test"},
            "dataset": {
                "type": dataset,
                "name": dataset,
                "split": split,
                "args": {"questions": report["questions"], "seed": report["settings"]["seed"]},
            },
            "metrics": metrics,
        }
    ]


def save_report(report: Mapping[str, object], path: str | Path) -> Path:
    """Write the report as JSON, whole or not at all."""
    return write_whole(path, json.dumps(report, indent=2) + "\n")


def _bootstrap(right: np.ndarray, videos: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Accuracies in percent over draws of whole videos with replacement, (resamples, tests)."""
    count = int(videos.max()) + 1
    totals = np.zeros((count, right.shape[1] + 1))  # right answers of each test, and questions
    np.add.at(totals, videos, np.column_stack([right, np.ones(len(right))]))
    rng = np.random.default_rng([seed, 1])
    drawn = []
    for start in range(0, resamples, 256):
        weights = rng.multinomial(count, np.full(count, 1 / count), size=min(256, resamples - start))
        sums = weights @ totals  # (draws, tests + 1)
        drawn.append(100 * sums[:, :-1] / sums[:, -1:])
    return np.concatenate(drawn)


def _effects(names: list[str], accuracy: np.ndarray, draws: np.ndarray) -> dict[str, Effect]:
    values: dict[str, float] = {}
    spread: dict[str, np.ndarray] = {}
    words = {name: effect[0] for name, effect in EFFECTS.items()} | {BOTH: "evidence effect - control effect"}
    for name, (_, test, other) in EFFECTS.items():
        if test in names and other in names:
            first, second = names.index(test), names.index(other)
            values[name] = float(accuracy[first] - accuracy[second])
            spread[name] = draws[:, first] - draws[:, second]
    if {"evidence_effect", "control_effect"} <= set(values):
        values[BOTH] = values["evidence_effect"] - values["control_effect"]
        spread[BOTH] = spread["evidence_effect"] - spread["control_effect"]
    return {
        name: {"is": words[name], "value": round(value, 2), "interval": _interval(spread[name])}
        for name, value in values.items()
    }


def _share(records: Sequence[Record], name: Literal["evidence", "removed"]) -> float | None:
    shares = [len(frames) / row["frames"] for row in records if (frames := row.get(name)) is not None]
    return round(100 * float(np.mean(shares)), 2) if shares else None


def _interval(values: np.ndarray) -> list[float]:
    return [round(float(edge), 2) for edge in np.percentile(values, LEVEL)]


def _signed(value: float, interval: Sequence[float]) -> str:
    return f"{value:+.1f} ({interval[0]:+.1f}, {interval[1]:+.1f})"
