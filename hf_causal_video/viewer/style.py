"""Style and script of the report, put into every page whole, so that a page needs nothing but itself."""

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

STYLE = """
:root { --paper: #fff; --card: #fff; --ink: #1b1f2a; --muted: #5f6b7c; --faint: #e9ecf1; --edge: #d9dee6;
  --evidence: #d9500b; --truth: #0b7a75; --wrong: #c92a2a; --plain: #98a2b3; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171c; --card: #1b1f26; --ink: #e8ebf0; --muted: #9aa5b5;
  --faint: #2a303a; --edge: #343c48; --evidence: #ff7a33; --truth: #3cb8b0; --wrong: #ff7b7b; --plain: #6b7788; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 32px 20px 80px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 8px; text-wrap: balance; }
h2 { font-size: 23px; line-height: 1.3; margin: 0 0 16px; overflow-wrap: anywhere; }
.muted, .note { color: var(--muted); }
.needed { color: var(--evidence); font-weight: 650; }
.warning { color: var(--wrong); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 20px 0; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 6px 20px 6px 0; border-bottom: 1px solid var(--faint);
  vertical-align: top; }
th { font-weight: 600; color: var(--muted); font-size: 14px; }
td.number, th.number { text-align: right; }
td.wide { width: 52%; }
a { color: inherit; text-decoration-color: var(--plain); }
.case { background: var(--card); border: 1px solid var(--edge); border-radius: 12px; padding: 24px;
  margin: 28px 0; }
.case > .muted { margin: 0 0 2px; font-size: 14px; }
.columns { display: grid; grid-template-columns: minmax(0, 11fr) minmax(0, 10fr); gap: 28px;
  align-items: start; }
@media (max-width: 760px) { .columns { grid-template-columns: minmax(0, 1fr); } .case { padding: 16px; } }
.stage { position: relative; border-radius: 8px; overflow: hidden; background: #000; width: fit-content;
  max-width: 100%; }
.stage img { display: block; width: 100%; max-width: 100%; }
.object { position: absolute; border: 3px solid var(--evidence); border-radius: 4px;
  box-shadow: 0 0 0 1.5px #fffc; }
.stamp { position: absolute; left: 8px; bottom: 8px; background: #1b1f2ae6; color: #fff;
  border-radius: 6px; padding: 1px 9px; }
.scrub { width: 100%; margin: 12px 0 0; accent-color: var(--evidence); display: none; }
.js .scrub { display: block; }
.view { position: absolute; opacity: 0; pointer-events: none; }
.view + label { display: inline-block; padding: 3px 12px; margin: 0 6px 10px 0; border: 1px solid var(--edge);
  border-radius: 99px; font-size: 14px; cursor: pointer; }
.view:checked + label { background: var(--ink); color: var(--paper); border-color: var(--ink); }
.view:focus-visible + label, .frame:focus-visible { outline: 2px solid var(--evidence); outline-offset: 2px; }
.choices { list-style: none; margin: 6px 0 0; padding: 0; }
.choices li { margin: 0 0 12px; }
.choice { display: flex; gap: 12px; justify-content: space-between; overflow-wrap: anywhere; }
.choice b { font-weight: 500; font-variant-numeric: tabular-nums; white-space: nowrap; }
.chosen .choice { color: var(--evidence); font-weight: 650; }
.chosen .choice b { font-weight: 650; }
.tag { display: inline-block; border: 1px solid; border-radius: 99px; padding: 0 9px; margin-left: 8px;
  font-size: 13px; font-weight: 500; white-space: nowrap; }
.tag.right, .tag.true { color: var(--truth); }
.tag.wrong { color: var(--wrong); }
.tag.answer { color: var(--evidence); }
.tag.now { color: var(--ink); }
.bar { display: block; height: 8px; border-radius: 4px; background: var(--faint); margin-top: 4px;
  overflow: hidden; }
.bar i { display: block; height: 100%; border-radius: 4px; background: var(--plain); }
.chosen .bar i { background: var(--evidence); }
.without, .only { display: none !important; }
.view-without:checked ~ .choices :is(.full, .only),
.view-only:checked ~ .choices :is(.full, .without) { display: none !important; }
.view-without:checked ~ .choices .without, .view-only:checked ~ .choices .only { display: block !important; }
.view-without:checked ~ .choices .tag.without, .view-only:checked ~ .choices .tag.only {
  display: inline-block !important; }
.case:has(.view-without:checked) .frame.gone img, .case:has(.view-only:checked) .frame:not(.kept) img {
  visibility: hidden; }
.clip { position: relative; margin-top: 40px; }
.film { position: relative; height: 72px; }
.frame { position: absolute; top: 0; height: 72px; padding: 0 1px; border: 0; background: none;
  cursor: pointer; min-width: 4px; }
.frame img { display: block; width: 100%; height: 100%; margin: auto; object-fit: cover;
  border-radius: 3px; opacity: .38; filter: grayscale(.8); }
.frame.kept { transform: translateY(-14px); z-index: 1; }
.frame.kept img { opacity: 1; filter: none; outline: 2px solid var(--evidence); outline-offset: -2px; }
.js .frame.shown img { opacity: 1; filter: none; box-shadow: 0 0 0 2px var(--ink); }
.playhead { position: absolute; top: -18px; bottom: 0; width: 2px; background: var(--ink); z-index: 2;
  display: none; }
.js .playhead { display: block; }
.axis { position: relative; height: 26px; border-top: 1px solid var(--plain); margin-top: 6px;
  font-size: 13px; color: var(--muted); }
.axis span { position: absolute; top: 4px; transform: translateX(-50%); white-space: nowrap; }
.axis span:first-child { transform: none; } .axis span.last { transform: translateX(-100%); }
.track { position: relative; height: 10px; border-radius: 5px; background: var(--faint); margin: 6px 0 2px; }
.track i { position: absolute; top: 0; bottom: 0; min-width: 3px; border-radius: 5px;
  background: var(--evidence); }
.track.truth i { background: var(--truth); }
.legend { margin: 0; font-size: 14px; color: var(--evidence); } .legend.truth { color: var(--truth); }
"""

SCRIPT = """
document.documentElement.classList.add('js');
for (const card of document.querySelectorAll('.case')) {
  const frames = [...card.querySelectorAll('.frame')], stage = card.querySelector('.stage');
  const scrub = card.querySelector('.scrub'), playhead = card.querySelector('.playhead');
  const show = (index) => {
    const frame = frames[index];
    stage.querySelector('img').src = frame.querySelector('img').src;
    stage.querySelector('.stamp').textContent = frame.dataset.label;
    stage.querySelectorAll('.object').forEach((box) => box.remove());
    for (const [left, top, width, height] of JSON.parse(frame.dataset.boxes)) {
      const box = document.createElement('div');
      box.className = 'object';
      Object.assign(box.style, { left: left + '%', top: top + '%', width: width + '%', height: height + '%' });
      stage.append(box);
    }
    frames.forEach((other) => other.classList.toggle('shown', other === frame));
    playhead.style.left = frame.dataset.at + '%';
    scrub.value = index;
    scrub.setAttribute('aria-valuetext', frame.dataset.label);
  };
  frames.forEach((frame, index) => frame.addEventListener('click', () => show(index)));
  scrub.addEventListener('input', () => show(Number(scrub.value)));
  show(Number(scrub.value));
}
"""
