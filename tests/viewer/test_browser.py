"""The report in a real browser: slider and buttons do what they say, and nothing is fetched."""

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from hf_causal_video.viewer import report_html
from tests.viewer.test_pictures import CHOICES, make_case

pytestmark = pytest.mark.slow

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
ACT = """<script>
const card = document.querySelector('.case'), seen = {};
const look = (name) => { seen[name] = {
  label: card.querySelector('.stamp').textContent,
  boxes: card.querySelectorAll('.object').length,
  same: card.querySelector('.stage img').src === card.querySelector('.frame.shown img').src,
  marker: parseFloat(card.querySelector('.playhead').style.left),
  scores: [...card.querySelectorAll('.choice b')].filter((b) => getComputedStyle(b).display !==
  'none').map((b) => b.textContent), slider: getComputedStyle(card.querySelector('.scrub')).display,
  now: [...card.querySelectorAll('.now')].map((tag, row) => getComputedStyle(tag).display !== 'none' &&
  tag.closest('li').querySelector('.choice span').firstChild.textContent).filter((words) => words),
  seen: [...card.querySelectorAll('.frame img')].map((picture, row) =>
  getComputedStyle(picture).visibility === 'visible' ? row : -1).filter((row) => row >= 0) }; };
look('start');
const scrub = card.querySelector('.scrub');
scrub.value = 0; scrub.dispatchEvent(new Event('input')); look('slid');
card.querySelectorAll('.frame')[2].click(); look('clicked');
card.querySelector('.view-without').click(); look('without');
card.querySelector('.view-only').click(); look('only');
seen.requests = performance.getEntriesByType('resource').filter((one) =>
!one.name.startsWith('data:')).length; seen.width = document.documentElement.scrollWidth <= innerWidth; const
out = document.createElement('pre'); out.id = 'seen'; out.textContent = JSON.stringify(seen);
document.body.append(out); </script></body>"""


def browse(page: str, folder: Path) -> str:
    """The document of a page after its scripts ran, in a browser without network rights or a profile of its own."""
    browser = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )
    if browser is None:
        pytest.skip("no chromium on this machine to open the report with")
    path = folder / "page.html"
    path.write_text(page, encoding="utf-8")
    command = [browser, *FLAGS, f"--user-data-dir={folder / 'profile'}", "--dump-dom", path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=True).stdout


def test_the_report_can_be_operated(tmp_path: Path) -> None:
    case = make_case(scores_without=[0.2, 0.5, 0.1, 0.1, 0.1], scores_only=[0.7, 0.1, 0.1, 0.1, 0.0])
    document = browse(report_html([case]).replace("</body>", ACT), tmp_path)
    found = re.search(r'<pre id="seen">(.*?)</pre>', document, re.S)
    assert found, document[-500:]
    seen = json.loads(html.unescape(found.group(1)))
    assert seen["start"]["label"] == "7.0 s, evidence" and seen["start"]["boxes"] == 1  # the strongest kept frame
    assert seen["slid"]["label"] == "1.0 s" and seen["slid"]["boxes"] == 0
    assert seen["clicked"]["label"] == "5.0 s, evidence" and seen["clicked"]["boxes"] == 1
    assert all(seen[name]["same"] and seen[name]["slider"] == "block" for name in ("start", "slid", "clicked"))
    assert seen["slid"]["marker"] < seen["clicked"]["marker"] < seen["start"]["marker"]
    assert [seen[name]["scores"][0] for name in ("start", "without", "only")] == ["60.0 %", "20.0 %", "70.0 %"]
    assert [seen[name]["now"] for name in ("start", "without", "only")] == [[], ["to sit"], ["to catch the ball"]]
    shown = [seen[name]["seen"] for name in ("start", "without", "only")]
    assert shown == [list(range(8)), [0, 1, 4, 5, 6, 7], [2, 3]], "the film shows what the model was shown"
    assert seen["requests"] == 0 and seen["width"]


def test_what_a_question_and_a_file_name_say_does_not_run(tmp_path: Path) -> None:
    nasty = "<script>document.title='broken'</script><img src=x onerror=\"document.title='broken'\">"
    evidence = replace(make_case().evidence, choices=[nasty, *CHOICES[1:]], answer=nasty)
    case = make_case(question=nasty, title=f"{nasty}.mp4", evidence=evidence, scores_only=[0.1, 0.9, 0, 0, 0])
    document = browse(report_html([case, case], {nasty: 1.0}, title="sound", note=nasty), tmp_path)
    assert "<title>sound</title>" in document and 'class="js"' in document
    assert document.count("<script") == 1 and 'src="x"' not in document


def test_without_script_the_evidence_is_there(tmp_path: Path) -> None:
    page = re.sub("<script>.*</script>", "", report_html([make_case()]), flags=re.S)
    document = browse(page, tmp_path)
    stage = document[document.index('class="stage"') : document.index('class="scrub"')]
    assert "7.0 s" in stage and stage.count('class="object"') == 1 and 'class="js"' not in document
