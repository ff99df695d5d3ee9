"""One HTML file of answered questions with their evidence.

Why: a table says how often a model is right; only looking at cases says why. The page carries its pictures,
style and script inside and forbids itself any request, so it opens anywhere, for years. Without JavaScript
everything is there but the slider.
"""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from hf_causal_video.utils.errors import require
from hf_causal_video.utils.files import write_whole
from hf_causal_video.viewer.answer import EvidenceCase
from hf_causal_video.viewer.page import along, axis, html_page, in_percent, jpeg, placed
from hf_causal_video.viewer.style import SCRIPT
from hf_causal_video.viewer.words import axis_ticks, clock, percent, spans_in_words

VIEWS = {"full": "whole clip", "without": "evidence removed", "only": "only evidence"}
FILM_HEIGHT = 72  # pixels, as in the style
STAGE_SIZE = (512, 400)  # most pixels across and down of the large frame; small frames are enlarged


def write_report(
    path: str | Path,
    cases: Sequence[EvidenceCase],
    metrics: Mapping[str, object] | None = None,
    title: str = "What it answered, and why",
    note: str = "",
    frame_width: int = 512,
) -> Path:
    """Write the report as one self-contained html file, whole or not at all.

    Args:
        path: the file to write.
        cases: what to show, in this order; `scores_without` and `scores_only` become buttons where given.
        metrics: `{name: number}` for a list, or `{row: {name: number}}` for a table with a row each; nested
            `counts` are left out.
        title: headline of the page.
        note: a paragraph under it, such as data, split and number of questions.
        frame_width: pictures are stored no wider than this, in pixels.

    Returns:
        The path.

    Raises:
        CausalVideoError: no cases at all.

    Example:
        >>> from hf_causal_video.models.outputs import Evidence
        >>> frames = [np.zeros((90, 160, 3), np.uint8)] * 4
        >>> case = EvidenceCase("why", Evidence("run", 0, 0.9, [0.9, 0.1], ["run", "sit"]), frames, [1, 3, 5, 7])
        >>> page = report_html([case], {"Acc": 61.5}, title="Demo")
        >>> page.startswith("<!doctype html>"), page.count('class="frame')
        (True, 4)
    """
    return write_whole(path, report_html(cases, metrics, title, note, frame_width))


def report_html(
    cases: Sequence[EvidenceCase],
    metrics: Mapping[str, object] | None = None,
    title: str = "What it answered, and why",
    note: str = "",
    frame_width: int = 512,
) -> str:
    """The page of `write_report` as text."""
    require(cases, "nothing to report", found="0 cases", expected="at least 1", fix="pass some cases")
    parts = [f'<p class="note">{escape(note)}</p>' if note else "", _metrics(metrics or {})]
    if len(cases) > 1:
        parts.append(_index(cases))
    parts += [_case(number, case, frame_width) for number, case in enumerate(cases, 1)]
    return html_page(title, parts, script=SCRIPT)


def _metrics(metrics: Mapping[str, object]) -> str:
    if not metrics:
        return ""
    tables = {label: row for label, row in metrics.items() if isinstance(row, Mapping)}
    if len(tables) == len(metrics):
        names = list(dict.fromkeys(name for row in tables.values() for name in row if name != "counts"))
        head = "".join(f'<th class="number">{escape(str(name))}</th>' for name in names)
        rows = "".join(
            f"<tr><td>{escape(str(label))}</td>" + "".join(_number(row.get(name)) for name in names) + "</tr>"
            for label, row in tables.items()
        )
        return f'<div class="scroll"><table><tr><th></th>{head}</tr>{rows}</table></div>'
    shown = {name: value for name, value in metrics.items() if not isinstance(value, Mapping)}
    rows = "".join(f"<tr><td>{escape(str(name))}</td>{_number(value)}</tr>" for name, value in shown.items())
    return f'<div class="scroll"><table><tr><th>measure</th><th class="number">value</th></tr>{rows}</table></div>'


def _number(value: object) -> str:
    text = "–" if value is None else f"{value:.2f}" if isinstance(value, (float, np.floating)) else str(value)
    return f'<td class="number">{escape(text)}</td>'


def _index(cases: Sequence[EvidenceCase]) -> str:
    verdict = {True: "right", False: "wrong", None: ""}
    rows = "".join(
        f'<tr><td class="number">{number}</td>'
        f'<td class="wide"><a href="#case-{number}">{escape(case.question)}</a></td>'
        f"<td>{escape(case.evidence.answer)}</td><td>{verdict[case.right]}</td></tr>"
        for number, case in enumerate(cases, 1)
    )
    head = '<tr><th class="number">case</th><th>question</th><th>answer</th><th></th></tr>'
    return f'<div class="scroll"><table>{head}{rows}</table></div>'


def _case(number: int, case: EvidenceCase, frame_width: int) -> str:
    pictures = [jpeg(frame, frame_width) for frame in case.frames]
    first = max(case.kept, key=lambda one: case.kept_scores[one]) if case.kept else 0
    boxes = "".join(f'<div class="object" style="{placed(in_percent(box))}"></div>' for box in case.boxes(first))
    title = f'<p class="muted">{escape(case.title)}</p>' if case.title else ""
    height, width = case.frames[first].shape[:2]
    wide = min(STAGE_SIZE[0], round(STAGE_SIZE[1] * width / height))
    return (
        f'<section class="case" id="case-{number}">{title}<h2>{escape(case.question)}</h2><div class="columns"><div>'
        f'<div class="stage" style="width:{wide}px">'
        f'<img src="{pictures[first]}" alt="frame at {clock(case.times_s[first])}">{boxes}'
        f'<span class="stamp">{clock(case.times_s[first])}</span></div>'
        f'<input class="scrub" type="range" min="0" max="{len(pictures) - 1}" value="{first}" step="1" '
        f'aria-label="frame of the clip"></div><div>{_answers(number, case)}</div></div>'
        f'<div class="clip">{_film(case, pictures)}</div>{_spans(case)}</section>'
    )


def _answers(number: int, case: EvidenceCase) -> str:
    views = {"full": case.evidence.scores, "without": case.scores_without, "only": case.scores_only}
    scores = {name: values for name, values in views.items() if values is not None}
    parts = []
    for name in scores if len(scores) > 1 else ():
        key = f"case-{number}-{name}"
        checked = " checked" if name == "full" else ""
        parts.append(
            f'<input class="view view-{name}" type="radio" name="view-{number}" id="{key}"{checked}>'
            f'<label for="{key}">{VIEWS[name]}</label>'
        )
    parts.append('<ul class="choices">')
    parts += [_choice(case, row, scores) for row in range(len(case.evidence.choices))]
    parts.append("</ul>")
    if case.true_answer is not None and case.true_row < 0:
        parts.append(f'<p class="legend truth">true answer: {escape(str(case.true_answer))}</p>')
    if case.verdict is not None:
        kind = "needed" if case.verdict.necessary else "reason"
        parts.append(f'<p class="{kind}">{escape(case.reason)}</p>')
    parts += [f'<p class="note">{escape(text)}</p>' for text in case.findings]
    parts += [f'<p class="warning">{escape(text)}</p>' for text in case.notes]
    return "".join(parts)


def _choice(case: EvidenceCase, row: int, scores: Mapping[str, Sequence[float]]) -> str:
    """One choice with its tags, and its score and bar in every view."""
    chosen = row == case.predicted_row
    tag = ""
    if chosen:
        kind = {True: "right", False: "wrong", None: "answer"}[case.right]
        tag = f'<span class="tag {kind}">{kind}</span>'
    elif row == case.true_row:
        tag = '<span class="tag true">true answer</span>'
    for name, values in scores.items():
        if name != "full" and row == int(np.argmax(values)):
            tag += f'<span class="tag now {name}">answer now</span>'
    shares = {name: min(max(float(values[row]), 0.0), 1.0) for name, values in scores.items()}
    figures = "".join(f'<b class="{name}">{percent(share)}</b>' for name, share in shares.items())
    bars = "".join(f'<i class="{name}" style="width:{100 * share:.2f}%"></i>' for name, share in shares.items())
    return (
        f'<li{" class=chosen" if chosen else ""}><span class="choice">'
        f"<span>{escape(case.evidence.choices[row]) or '(empty)'}{tag}</span>{figures}</span>"
        f'<span class="bar">{bars}</span></li>'
    )


def _film(case: EvidenceCase, pictures: Sequence[str]) -> str:
    end = case.end_s
    parts = [f'<p class="muted">{escape(case.looked_at)}</p>', '<div class="film"><div class="playhead"></div>']
    for index, picture in enumerate(pictures):
        start, stop = case.slices[index]
        height, width = case.frames[index].shape[:2]
        kept = index in case.kept_scores
        classes = "frame" + " kept" * kept + " gone" * (index in case.removed)
        label = clock(case.times_s[index]) + ", evidence" * kept
        boxes = escape(json.dumps([in_percent(box) for box in case.boxes(index)]))
        parts.append(
            f'<button type="button" class="{classes}" style="{along(start / end, stop / end)}" data-label="{label}" '
            f'data-at="{100 * case.times_s[index] / end:.3f}" data-boxes="{boxes}" title="{label}">'
            f'<img src="{picture}" alt="frame at {label}" style="max-width:{round(FILM_HEIGHT * width / height)}px">'
            "</button>"
        )
    return "".join(parts) + f"</div>{axis(axis_ticks(end, 12))}"


def _spans(case: EvidenceCase) -> str:
    parts = []
    for name, kind, spans in (("evidence", "", case.evidence.spans), ("annotated", " truth", case.true_spans)):
        if spans:
            ordered = sorted((float(span[0]), float(span[1])) for span in spans)
            marks = "".join(f'<i style="{along(start / case.end_s, end / case.end_s)}"></i>' for start, end in ordered)
            seconds = spans_in_words(ordered)
            parts.append(f'<div class="track{kind}">{marks}</div><p class="legend{kind}">{name} {seconds}</p>')
    return "".join(parts)
