"""One HTML file of answered questions with their evidence.

Why: a table says how often a model is right; only looking at cases says why. The page carries its pictures,
style and script inside and forbids itself any request, so it opens anywhere, for years. Without JavaScript
everything is there but the slider.
"""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hf_causal_video.utils.errors import require
from hf_causal_video.utils.files import write_whole
from hf_causal_video.viewer.answer import EvidenceCase
from hf_causal_video.viewer.style import POLICY, SCRIPT, STYLE
from hf_causal_video.viewer.words import clock, percent, spans_in_words, tick_in_words

VIEWS = (("full", "whole clip"), ("without", "evidence removed"), ("only", "only evidence"))
FILM_HEIGHT = 72  # pixels, as in the style
STAGE_SIZE = (512, 400)  # most pixels across and down of the large frame; small frames are enlarged


def write_report(
    path: str | Path,
    cases: Sequence[EvidenceCase],
    metrics: Mapping[str, Any] | None = None,
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
    metrics: Mapping[str, Any] | None = None,
    title: str = "What it answered, and why",
    note: str = "",
    frame_width: int = 512,
) -> str:
    """The page of `write_report` as text."""
    require(cases, "nothing to report", found="0 cases", expected="at least 1", fix="pass some cases")
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="note">{escape(note)}</p>' if note else "",
        _metrics(metrics or {}),
    ]
    if len(cases) > 1:
        body.append(_index(cases))
    body += [_case(number, case, frame_width) for number, case in enumerate(cases, 1)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body><main>\n"
        + "\n".join(part for part in body if part)
        + f"\n</main><script>{SCRIPT}</script></body></html>\n"
    )


def _metrics(metrics: Mapping[str, Any]) -> str:
    if not metrics:
        return ""
    if all(isinstance(row, Mapping) for row in metrics.values()):
        names = list(dict.fromkeys(name for row in metrics.values() for name in row if name != "counts"))
        head = "".join(f'<th class="number">{escape(str(name))}</th>' for name in names)
        rows = "".join(
            f"<tr><td>{escape(str(label))}</td>" + "".join(_number(row.get(name)) for name in names) + "</tr>"
            for label, row in metrics.items()
        )
        return f'<div class="scroll"><table><tr><th></th>{head}</tr>{rows}</table></div>'
    shown = {name: value for name, value in metrics.items() if not isinstance(value, Mapping)}
    rows = "".join(f"<tr><td>{escape(str(name))}</td>{_number(value)}</tr>" for name, value in shown.items())
    return f'<div class="scroll"><table><tr><th>measure</th><th class="number">value</th></tr>{rows}</table></div>'


def _number(value: Any) -> str:
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
    pictures = [_jpeg(frame, frame_width) for frame in case.frames]
    first = max(case.kept, key=lambda one: case.kept_scores[one]) if case.kept else 0
    boxes = "".join(
        f'<div class="object" style="left:{x:g}%;top:{y:g}%;width:{w:g}%;height:{h:g}%"></div>'
        for x, y, w, h in _percent_boxes(case, first)
    )
    title = f'<p class="muted">{escape(case.title)}</p>' if case.title else ""
    tall, across = case.frames[first].shape[:2]
    wide = min(STAGE_SIZE[0], round(STAGE_SIZE[1] * across / tall))
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
    scores = {"full": case.evidence.scores, "without": case.scores_without, "only": case.scores_only}
    scores_shown = {name: values for name, values in scores.items() if values is not None}
    parts = []
    if len(scores_shown) > 1:
        for name, label in VIEWS:
            if name in scores_shown:
                checked = " checked" if name == "full" else ""
                key = f"case-{number}-{name}"
                parts.append(
                    f'<input class="view view-{name}" type="radio" name="view-{number}" id="{key}"{checked}>'
                    f'<label for="{key}">{label}</label>'
                )
    best = {name: int(np.argmax(each)) for name, each in scores_shown.items()}
    parts.append('<ul class="choices">')
    for row, choice in enumerate(case.evidence.choices):
        chosen, true = row == case.predicted_row, row == case.true_row
        tag = ""
        if chosen:
            kind = {True: "right", False: "wrong", None: "answer"}[case.right]
            tag = f'<span class="tag {kind}">{kind}</span>'
        elif true:
            tag = '<span class="tag true">true answer</span>'
        for name, top in best.items():
            if name != "full" and row == top:
                tag += f'<span class="tag now {name}">answer now</span>'
        values = {name: min(max(float(each[row]), 0.0), 1.0) * 100 for name, each in scores_shown.items()}
        figures = "".join(f'<b class="{name}">{percent(value / 100)}</b>' for name, value in values.items())
        bars = "".join(f'<i class="{name}" style="width:{value:.2f}%"></i>' for name, value in values.items())
        parts.append(
            f'<li{" class=chosen" if chosen else ""}><span class="choice">'
            f'<span>{escape(choice) or "(empty)"}{tag}</span>{figures}</span><span class="bar">{bars}</span></li>'
        )
    parts.append("</ul>")
    if case.true_answer is not None and case.true_row < 0:
        parts.append(f'<p class="legend truth">true answer: {escape(str(case.true_answer))}</p>')
    if case.verdict is not None:
        kind = "needed" if case.verdict.necessary else "reason"
        parts.append(f'<p class="{kind}">{escape(case.reason)}</p>')
    parts += [f'<p class="note">{escape(text)}</p>' for text in case.findings]
    parts += [f'<p class="warning">{escape(text)}</p>' for text in case.notes]
    return "".join(parts)


def _film(case: EvidenceCase, pictures: Sequence[str]) -> str:
    end = case.end_s
    pace = f'<p class="muted">{escape(case.looked_at)}</p>'
    parts = [pace, '<div class="film"><div class="playhead"></div>']
    for index, picture in enumerate(pictures):
        start, stop = case.slices[index]
        kept = index in case.kept_scores
        widest = round(FILM_HEIGHT * case.frames[index].shape[1] / case.frames[index].shape[0])
        label = clock(case.times_s[index]) + (", evidence" if kept else "")
        style = f"left:{100 * start / end:.3f}%;width:{100 * (stop - start) / end:.3f}%"
        gone = " gone" if index in case.removed else ""
        boxes = escape(json.dumps(_percent_boxes(case, index)))
        parts.append(
            f'<button type="button" class="frame{" kept" if kept else ""}{gone}" style="{style}" data-label="{label}" '
            f'data-at="{100 * case.times_s[index] / end:.3f}" data-boxes="{boxes}" title="{label}">'
            f'<img src="{picture}" alt="frame at {label}" style="max-width:{widest}px"></button>'
        )
    step = next(size for size in (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1e9) if end / size <= 12)
    ticks = [number * step for number in range(int(end / step + 1e-6) + 1)]
    marks = "".join(
        f'<span{" class=last" if tick > 0.98 * end else ""} style="left:{100 * tick / end:.3f}%">'
        f"{tick_in_words(tick, step, tick == ticks[-1])}</span>"
        for tick in ticks
    )
    return "".join(parts) + f'</div><div class="axis">{marks}</div>'


def _spans(case: EvidenceCase) -> str:
    parts = []
    for name, kind, spans in (("evidence", "", case.evidence.spans), ("annotated", " truth", case.true_spans)):
        if spans:
            ordered = sorted((float(span[0]), float(span[1])) for span in spans)
            marks = "".join(
                f'<i style="left:{100 * start / case.end_s:.3f}%;width:{100 * (end - start) / case.end_s:.3f}%"></i>'
                for start, end in ordered
            )
            seconds = spans_in_words(ordered)
            parts.append(f'<div class="track{kind}">{marks}</div><p class="legend{kind}">{name} {seconds}</p>')
    return "".join(parts)


def _percent_boxes(case: EvidenceCase, index: int) -> list[list[float]]:
    """Boxes on a frame as left, top, width, height in percent."""
    boxes = []
    for one in case.boxes(index):
        x0, y0, x1, y1 = (min(max(float(value), 0.0), 1.0) for value in one.box or (0, 0, 0, 0))
        boxes.append([round(100 * value, 2) for value in (x0, y0, x1 - x0, y1 - y0)])
    return boxes


def _jpeg(frame: np.ndarray, width: int) -> str:
    image = Image.fromarray(frame)
    image.thumbnail((width, width), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
