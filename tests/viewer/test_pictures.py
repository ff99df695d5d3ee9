"""Strip and report: everything given is in the picture, user text cannot break out, and bad cases never get drawn."""

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hf_causal_video.models.outputs import Evidence, EvidenceFrame, EvidenceObject
from hf_causal_video.utils.errors import CausalVideoError
from hf_causal_video.viewer import EvidenceCase, draw_strip, fonts, report_html, save_strip, write_report
from hf_causal_video.viewer import canvas as drawing
from hf_causal_video.viewer.canvas import EVIDENCE, TRUTH, Canvas
from hf_causal_video.viewer.fonts import font_with

CHOICES = ["to catch the ball", "to sit", "because it rains", "to wave", "for fun"]


def make_case(frames: int = 8, kept: tuple[int, ...] = (2, 3), boxes: bool = True, **changes) -> EvidenceCase:
    times = [2 * index + 1.0 for index in range(frames)]
    pictures = [np.full((36, 64, 3), 40 + 200 * index // frames, np.uint8) for index in range(frames)]
    found = [EvidenceFrame(index, times[index], 0.5 + index / 100) for index in kept]
    objects = [EvidenceObject(index, times[index], 1, (0.25, 0.25, 0.5, 0.75), 0.9) for index in kept if boxes]
    spans = [(times[index] - 1, times[index] + 1) for index in kept]
    evidence = Evidence(CHOICES[0], 0, 0.6, [0.6, 0.1, 0.1, 0.1, 0.1], CHOICES, spans, found, objects)
    given = {"question": "why did the boy run", "evidence": evidence, "frames": pictures, "times_s": times}
    return EvidenceCase(**(given | changes))


def has_colour(image: Image.Image, colour: str) -> int:
    wanted = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)])
    return int((np.abs(np.asarray(image, np.int16) - wanted).max(-1) <= 6).sum())


@pytest.mark.parametrize(
    ("frames", "kept"), [(1, (0,)), (2, (1,)), (8, ()), (16, (1, 2, 9)), (64, tuple(range(20, 40)))]
)
def test_a_strip_is_drawn_for_any_number_of_frames(frames: int, kept: tuple[int, ...]) -> None:
    image = draw_strip(make_case(frames, kept), width=1000)
    assert image.size[0] == 1000 and 300 < image.size[1] < 1400
    assert np.asarray(image)[-8:].min() == 255, "nothing touches the lower edge"


def test_truth_and_boxes_add_their_colour() -> None:
    plain, boxed = draw_strip(make_case(boxes=False)), draw_strip(make_case())
    assert has_colour(boxed, EVIDENCE) > has_colour(plain, EVIDENCE)
    assert has_colour(plain, TRUTH) == 0
    assert has_colour(draw_strip(make_case(true_spans=[(3.0, 7.0)])), TRUTH) > 200


def test_long_text_wraps_within_the_width() -> None:
    short, long = make_case(), make_case(question="why did the boy run " * 20, title="video 7")
    assert draw_strip(long).height > draw_strip(short).height + 100
    canvas = Canvas(400, 50)
    for text in ("a few words that need several lines to fit", "x" * 300, "où – 中文 " * 20):
        lines = canvas.wrap(text, 20, 150)
        assert all(canvas.width_of(line, 20) <= 150 for line in lines)
        assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    cut = canvas.wrap("word " * 50, 20, 150, most=2)
    assert len(cut) == 2 and cut[1].endswith("…") and canvas.width_of(cut[1], 20) <= 150


def test_a_strip_is_written_whole(tmp_path: Path) -> None:
    path = save_strip(make_case(), tmp_path / "strip.png", width=800)
    assert Image.open(path).size[0] == 800 and [file.name for file in tmp_path.iterdir()] == ["strip.png"]


def test_an_open_ended_answer_needs_no_index_into_the_choices() -> None:
    evidence = replace(make_case().evidence, answer="sit", answer_index=812, choices=["sit", "run"], scores=[0.6, 0.2])
    case = make_case(evidence=evidence, true_answer="jump")
    assert (case.predicted_row, case.true_row, case.right) == (0, -1, False)
    assert make_case(evidence=evidence, true_answer="sit").right is True
    assert make_case(evidence=evidence).right is None and make_case(true_answer=-1).right is None
    assert "true answer: jump" in report_html([case])
    draw_strip(case, width=800)


def test_evidence_is_matched_by_time_not_by_index() -> None:
    shown = make_case(frames=16, kept=())
    evidence = replace(shown.evidence, frames=[EvidenceFrame(1, 21.2, 0.5), EvidenceFrame(0, 5.1, 0.7)])
    assert replace(shown, evidence=evidence).kept == [2, 10]


@pytest.mark.parametrize(
    "change",
    [
        {"times_s": [1.0, 2.0]},
        {"times_s": [1.0] * 8},
        {"frames": [np.zeros((4, 4, 3), np.float32)] * 8},
        {"frames": [np.zeros((3, 4, 4), np.uint8)] * 8},
        {"frames": [], "times_s": []},
        {"scores_only": [0.5]},
        {"true_answer": 5},
        {"true_spans": [(5.0, 2.0)]},
        {"evidence": replace(make_case().evidence, scores=[1.0])},
        {"evidence": replace(make_case().evidence, scores=[float("nan")] * 5)},
        {"evidence": replace(make_case().evidence, scores=[], choices=[])},
        {"scores_only": [0.1, 0.2, float("inf"), 0.1, 0.1]},
        {"evidence": replace(make_case().evidence, frames=[EvidenceFrame(0, float("nan"), 1.0)])},
        {"evidence": replace(make_case().evidence, frames=[EvidenceFrame(0, 99.0, 1.0)])},
    ],
)
def test_a_case_that_does_not_fit_together_is_an_error(change: dict) -> None:
    with pytest.raises(CausalVideoError, match="Fix:"):
        replace(make_case(), **change)


class Page(HTMLParser):
    """Collects tags, and what a page would fetch."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "action", "poster")]


def test_a_report_fetches_nothing_and_holds_its_pictures() -> None:
    text = report_html([make_case(), make_case(4, (1,))], {"Acc": 61.5})
    page = Page(text)
    assert all(source.startswith(("data:image/jpeg;base64,", "#case-")) for source in page.sources)
    assert "http://" not in text and "https://" not in text and "@import" not in text and "url(" not in text
    assert page.tags.count("img") == 8 + 4 + 2
    first = next(source for source in page.sources if source.startswith("data:"))
    assert base64.b64decode(first.split(",", 1)[1])[:3] == b"\xff\xd8\xff"


def test_user_text_stays_text() -> None:
    nasty = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;"
    evidence = replace(make_case().evidence, choices=[nasty, *CHOICES[1:]], answer=nasty)
    case = make_case(question=nasty, evidence=evidence, title=nasty, true_answer=nasty, scores_only=[0, 1, 0, 0, 0])
    text = report_html([case, case], {nasty: 1.0, "b": nasty}, title=nasty, note=nasty)
    plain = report_html([make_case(scores_only=[0, 1, 0, 0, 0], true_answer=0)] * 2, {"a": 1.0, "b": 2}, note="n")
    assert Page(text).tags.count("script") == 1
    assert Page(text).tags.count("img") == Page(plain).tags.count("img")
    assert "<script>alert" not in text and "onerror=alert(2)>" not in text.replace("onerror=alert(2)&gt;", "")


def test_a_report_says_what_it_was_given() -> None:
    case = make_case(
        true_answer=1,
        true_spans=[(3.0, 8.0)],
        duration_s=15.5,
        scores_without=[0.2, 0.5, 0.1, 0.1, 0.1],
        scores_only=[0.7, 0.1, 0.1, 0.1, 0.0],
    )
    text = report_html([case], {"TranSTR": {"Acc": 55.214, "counts": {"a": 1}}, "uniform": {"Acc": None, "mIoP": 3}})
    for words in (
        "why did the boy run",
        *CHOICES,
        "60.0 %",
        "wrong",
        "true answer",
        "55.21",
        "annotated 3.0 to 8.0 s",
    ):
        assert words in text
    assert "60.0 % to 20.0 %, the answer becomes “to sit” (50.0 %)." in text
    assert "60.0 % to 70.0 %, the answer stays." in text
    assert "counts" not in text and text.count('type="radio"') == 3
    assert text.count('class="frame kept"') == 2 and text.count('class="frame"') == 6
    assert 'type="radio"' not in report_html([make_case()])


def test_a_report_is_written_whole(tmp_path: Path) -> None:
    path = write_report(tmp_path / "report.html", [make_case()])
    assert path.read_text(encoding="utf-8").endswith("</html>\n") and len(list(tmp_path.iterdir())) == 1
    assert len(re.findall("<section", path.read_text(encoding="utf-8"))) == 1
    with pytest.raises(CausalVideoError, match="0 cases"):
        write_report(tmp_path / "none.html", [])
    assert not (tmp_path / "none.html").exists()


def ink(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L")) < 128


def test_letters_that_the_font_lacks_come_from_a_font_of_the_system() -> None:
    letter = "\N{CYRILLIC SMALL LETTER YA}"
    if font_with(letter) is None:
        pytest.skip("no font of this system has Cyrillic letters")
    canvas = Canvas(60, 30)
    canvas.text(4, 4, letter, 20)
    asked = Canvas(60, 30)
    asked.text(4, 4, "?", 20)
    drawn, question_mark = canvas.finish(), asked.finish()
    assert ink(drawn).any() and (ink(drawn) != ink(question_mark)).any() and drawn.info["replaced"] == ""


def test_letters_that_no_font_has_are_counted_and_said(monkeypatch) -> None:
    letter = "\ue001"
    monkeypatch.setattr(fonts, "font_files", lambda: ())
    fonts.font_with.cache_clear()
    drawing._written.cache_clear()
    try:
        image = draw_strip(make_case(question=f"who is {letter}", title=f"{letter}{letter}"))
        assert image.info["replaced"] == letter
        assert image.height > draw_strip(make_case(question="who is x", title="xx")).height, "a line says so"
        assert draw_strip(make_case(question="où – x")).info["replaced"] == ""
    finally:
        fonts.font_with.cache_clear()
        drawing._written.cache_clear()


def test_a_font_can_be_named_and_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CausalVideoError, match="a font file"):
        draw_strip(make_case(), font_path=str(tmp_path / "none.ttf"))
    if not (files := fonts.font_files()):
        pytest.skip("no font file on this system")
    named = next(path for path in files if fonts.has_letter(path, "a"))
    assert (np.asarray(draw_strip(make_case(), font_path=named)) != np.asarray(draw_strip(make_case()))).any()


def test_a_png_is_called_png(tmp_path: Path) -> None:
    with pytest.raises(CausalVideoError, match="name it strip.png"):
        save_strip(make_case(), tmp_path / "strip.jpg")
    assert not list(tmp_path.iterdir())


def test_a_long_clip_is_in_minutes_and_says_how_often_it_was_looked_at() -> None:
    case = make_case(frames=16, kept=(2, 9))
    frames = [EvidenceFrame(index, 75 * index + 37.5, 0.5) for index in (2, 9)]
    evidence = replace(case.evidence, spans=[(150.0, 225.0), (675.0, 750.0)], frames=frames, objects=[])
    hour = make_case(frames=16, times_s=[75 * index + 37.5 for index in range(16)], evidence=evidence)
    page = report_html([hour])
    assert "looked once every 75 s" in page and "evidence 2:30 to 3:45, 11:15 to 12:30" in page
    assert ">4:00<" in page and "looked once" not in report_html([case])
    draw_strip(hour)
