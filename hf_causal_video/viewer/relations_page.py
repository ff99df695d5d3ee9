"""The relations of a clip as one html file: slide through the clip, press a relation, see its two boxes.

Why: which box belongs to which triplet, and whether it holds when it is said to, takes more than a few moments to
check. The page carries its pictures, style and script inside and forbids itself any request. Without JavaScript the
best moment and all relations with their stretches of time are there.
"""

import json
from html import escape
from pathlib import Path

from hf_causal_video.utils.files import write_whole
from hf_causal_video.viewer.page import along, axis, html_page, in_percent, jpeg, placed
from hf_causal_video.viewer.relations import DrawnObject, DrawnRelation, RelationCase
from hf_causal_video.viewer.relations_picture import summary

RELATION_STYLE = """
.stage { margin: 0 auto 4px; }
.stage img { width: auto; max-height: 520px; }
.object { border-color: var(--own); box-shadow: 0 0 0 1.5px #fffc; }
.object b, .chip { background: var(--own); color: #fff; font-weight: 650; font-size: 14px; line-height: 1;
  padding: 3px 6px; border-radius: 4px; font-variant-numeric: tabular-nums; }
.object b { position: absolute; left: -3px; top: -3px; }
.object.dim { opacity: .18; }
.rows { display: grid; grid-template-columns: minmax(180px, max-content) minmax(120px, 1fr) max-content; gap: 0 18px;
  margin-top: 22px; position: relative; }
.relation { display: contents; }
.relation > * { align-self: center; border-bottom: 1px solid var(--faint); height: 100%; padding: 5px 0; }
.who { grid-column: 1; border: 0; border-bottom: 1px solid var(--faint); background: none; color: inherit;
  font: inherit;  text-align: left; cursor: pointer; overflow-wrap: anywhere; }
.who b { font-weight: 650; }
.who:focus-visible { outline: 2px solid var(--ink); outline-offset: -2px; }
.score { grid-column: 3; text-align: right; font-variant-numeric: tabular-nums; }
.when { grid-column: 2; position: relative; min-height: 34px; }
.when::before { content: ''; position: absolute; inset: calc(50% - 5px) 0; border-radius: 5px;
  background: var(--faint); }
.when i { position: absolute; top: calc(50% - 8px); height: 16px; min-width: 4px; border-radius: 5px;
  background: var(--own); }
.when .now { position: absolute; top: 0; bottom: 0; width: 2px; background: var(--ink); display: none; z-index: 1; }
.js .when .now { display: block; }
.js .relation:not(.on) .who, .js .relation:not(.on) .score { color: var(--muted); }
.relation.picked .who { background: var(--faint); }
.rows .scrub { grid-column: 2; margin: 0 0 6px; }
.rows .axis { grid-column: 2; border-top: 0; margin: 0; }
.hint { display: none; } .js .hint { display: block; }
@media (max-width: 620px) { .rows { grid-template-columns: minmax(0, 1fr) max-content; }
  .relation .when { grid-column: 1 / -1; order: 1; } .score { grid-column: 2; }
  .relation { display: grid; grid-column: 1 / -1; grid-template-columns: minmax(0, 1fr) max-content; }
  .relation > * { border-bottom: 0; } .rows .axis, .rows .scrub { grid-column: 1 / -1; } }
"""

RELATION_SCRIPT = """
document.documentElement.classList.add('js');
for (const card of document.querySelectorAll('.case')) {
  const data = JSON.parse(card.querySelector('.data').textContent), stage = card.querySelector('.stage');
  const scrub = card.querySelector('.scrub'), rows = [...card.querySelectorAll('.relation')];
  let picked = -1;
  const show = (place) => {
    const moment = data.moments[place], pair = picked < 0 ? null : data.pairs[picked];
    stage.querySelector('img').src = moment.picture;
    stage.querySelector('.stamp').textContent = moment.label;
    stage.querySelectorAll('.object').forEach((box) => box.remove());
    for (const [number, colour, left, top, width, height] of moment.boxes) {
      const box = document.createElement('div'), name = document.createElement('b');
      box.className = 'object' + (pair && !pair.includes(number) ? ' dim' : '');
      name.textContent = number;
      box.style.setProperty('--own', colour);
      Object.assign(box.style, { left: left + '%', top: top + '%', width: width + '%', height: height + '%' });
      box.append(name);
      stage.append(box);
    }
    rows.forEach((row, index) => {
      row.classList.toggle('on', moment.active.includes(index));
      row.classList.toggle('picked', index === picked);
      row.querySelector('.who').setAttribute('aria-pressed', index === picked);
      row.querySelector('.now').style.left = 'calc(' + moment.at + '% - 1px)';
    });
    scrub.value = place;
    scrub.setAttribute('aria-valuetext', moment.label);
  };
  rows.forEach((row, index) => row.querySelector('.who').addEventListener('click', () => {
    picked = picked === index ? -1 : index;
    const places = data.moments.flatMap((moment, place) => moment.active.includes(index) ? [place] : []);
    const here = places.includes(Number(scrub.value)) || !places.length;
    show(picked < 0 || here ? Number(scrub.value) : places[Math.floor(places.length / 2)]);
  }));
  scrub.addEventListener('input', () => show(Number(scrub.value)));
  show(Number(scrub.value));
}
"""


def relations_html(case: RelationCase, frame_width: int = 720) -> str:
    """The page of `write_relations` as text.

    Example:
        >>> relation = {"triplet": ["dog", "chase", "cat"], "score": 0.9, "duration": [2, 4],
        ...             "sub_traj": [[0, 0, 9, 9]] * 2, "obj_traj": [[20, 0, 30, 9]] * 2}
        >>> page = relations_html(RelationCase([relation], frame_size=(40, 20)))
        >>> page.startswith("<!doctype html>"), page.count('class="relation')
        (True, 1)
    """
    title = case.title or "Relations of a clip"
    return html_page(title, [_card(case, frame_width)], RELATION_STYLE, RELATION_SCRIPT)


def write_relations(path: str | Path, case: RelationCase, frame_width: int = 720) -> Path:
    """Write the relations of a clip as one self-contained html file, whole or not at all, and return its path.

    Args:
        path: the file to write.
        case: relations and frames.
        frame_width: pictures are stored no wider than this, in pixels.
    """
    return write_whole(path, relations_html(case, frame_width).encode())


def _card(case: RelationCase, frame_width: int) -> str:
    moments = case.moments if case.frame_indices or case.shown else []
    if not moments:
        return f'<section class="case"><h2>{summary(case)}</h2></section>'
    best = max(moments, key=lambda moment: sum(one.score or 1.0 for one in case.active(moment)))
    blank = "" if case.frame_indices else jpeg(case.picture(moments[0]), frame_width)  # the same for all moments
    shown = [
        {
            "picture": blank or jpeg(case.picture(moment), frame_width),
            "label": case.label_of(moment),
            "at": round(100 * case.position(moment + 0.5), 3),
            "boxes": [(one.number, one.colour, *in_percent(one.boxes[moment])) for one in case.present(moment)],
            "active": [place for place, one in enumerate(case.shown) if one.holds(moment)],
        }
        for moment in moments
    ]
    pairs = [[one.subject.number, one.object.number] for one in case.shown]
    place = moments.index(best)
    boxes = "".join(
        f'<div class="object" style="--own:{one.colour};{placed(in_percent(one.boxes[best]))}">'
        f"<b>{one.number}</b></div>"
        for one in case.present(best)
    )
    hint = '<p class="note hint">Press a relation to see its two objects; the slider moves through the clip.</p>'
    # no text can close the script element
    content = json.dumps({"moments": shown, "pairs": pairs}).replace("<", "\\u003c")
    return (
        f'<section class="case"><h2>{summary(case)}</h2>{hint if case.shown else ""}'
        f'<div class="stage"><img src="{shown[place]["picture"]}" alt="{case.label_of(best)}"{_enlarged(case)}>{boxes}'
        f'<span class="stamp">{case.label_of(best)}</span></div>'
        f'<div class="rows"><input class="scrub" type="range" min="0" max="{len(moments) - 1}" value="{place}" '
        f'aria-label="moment of the clip">{"".join(_row(one, case) for one in case.shown)}{axis(case.ticks(8))}</div>'
        f'<script type="application/json" class="data">{content}</script></section>'
    )


def _row(one: DrawnRelation, case: RelationCase) -> str:
    bars = "".join(
        f'<i title="{case.label_of(first)} to {case.label_of(last - 1)}" '
        f'style="--own:{one.subject.colour};{along(case.position(first), case.position(last))}"></i>'
        for first, last in one.spans
    )
    return (
        f'<div class="relation"><button type="button" class="who">{_chip(one.subject)} {escape(one.subject.label)} '
        f"<b>{escape(one.words)}</b> {_chip(one.object)} {escape(one.object.label)}</button>"
        f'<div class="when">{bars}<span class="now"></span></div>'
        f'<div class="score">{"" if one.score is None else f"{one.score:.2f}"}</div></div>'
    )


def _chip(one: DrawnObject) -> str:
    return f'<span class="chip" style="--own:{one.colour}">{one.number}</span>'


def _enlarged(case: RelationCase) -> str:
    """The width of a picture that would be too small to see boxes on, as an attribute; nothing for a larger one."""
    width, height = case.shape
    wanted = round(min(560, 480 * width / height))
    return f' style="width: {wanted}px"' if case.frames and width < wanted else ""
