"""The app: what it shows is what the pipelines say, and, where Gradio is installed, that it serves it safely."""

import argparse
import html
import json
import re

import numpy as np
import pytest

import hf_causal_video.cli.app as app
import hf_causal_video.cli.app_page as app_page
from hf_causal_video.cli.about import about_model, example_clip, example_rows
from hf_causal_video.cli.main import main
from hf_causal_video.utils.errors import CausalVideoError
from tests.browser import Browser
from tests.features.conftest import make_clip
from tests.pipelines.test_question_answering import CHOICES, QUESTION, checkpoint, qa
from tests.pipelines.test_relation_detection import CAT, DOG, SIZE, make
from tests.viewer.test_browser import browse

__all__ = ["checkpoint", "make_clip", "qa"]  # fixtures
NASTY = "<script>document.title='broken'</script>\"'><img src=x onerror=alert(1)>"


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "a clip <b>.mp4"
    path.write_bytes(b"stands for a video")
    return str(path)


def related(*_, **options):
    """Stands for the pipeline: real relations of two tracks, with pictures."""
    found = make()(tracks=[DOG, CAT], frame_size=SIZE, classes="tracks", timestamps_s=np.arange(50) / 10, **options)
    return found | {"frames": [np.zeros((100, 200, 3), np.uint8)] * 2, "frame_indices": [0, 30]}


def page_of(framed: str) -> str:
    return html.unescape(re.search(r'srcdoc="([^"]*)"', framed)[1])


def test_an_answer_is_shown_with_its_scores_its_seconds_and_its_page(qa, clip):
    shown = app_page.answer_clip(qa, clip, f" {QUESTION} ", "\n".join([*CHOICES, "", " "]))
    scores, framed = shown.scores, shown.page
    assert list(scores) == CHOICES and sum(scores.values()) == pytest.approx(1, abs=1e-4)
    assert "With the evidence removed" in shown.verdict and shown.strip.width == 1600
    page = page_of(framed)
    assert page.startswith("<!doctype html>") and QUESTION in page and "evidence removed" in page
    assert 'sandbox="allow-scripts"' in framed and 'download="evidence.html"' in framed


def test_words_of_a_user_stay_words(qa, clip, tmp_path):
    shown = app_page.answer_clip(qa, clip, NASTY, f"{NASTY}\nring")
    framed = shown.page
    assert "<script" not in shown.verdict and "<img" not in shown.verdict
    assert framed.count("<script") == 0 and framed.count("<iframe") == 1
    assert page_of(framed).count("<script") == 1, "the page's own"


@pytest.mark.slow
def test_in_a_browser_the_frame_works_and_what_a_user_wrote_does_not_run(qa, clip, tmp_path):
    framed = app_page.answer_clip(qa, clip, NASTY, f"{NASTY}\nring").page
    document = browse(f"<!doctype html><title>whole</title><body>{framed}</body>", tmp_path)
    assert "<title>whole</title>" in document
    document = browse(page_of(framed), tmp_path)
    assert "broken</title>" not in document and 'class="js"' in document and 'src="x"' not in document


def test_relations_are_shown_as_a_table_a_picture_and_a_page(clip):
    rows, picture, framed = app_page.relate_clip(related, clip, 0.0)
    assert {tuple(row[:3]) for row in rows} >= {("dog", "chase", "cat")} and rows[0][4:] == [0.95, 4.95]
    assert picture.width == 1600 and "<b>.mp4" not in page_of(framed)


@pytest.mark.parametrize(
    ("given", "message"),
    [((None, QUESTION, ""), "upload"), (("gone.mp4", QUESTION, ""), "upload"), (("clip", "  ", ""), "write what")],
)
def test_without_clip_or_question_it_says_what_is_missing(qa, clip, given, message):
    with pytest.raises(CausalVideoError, match=message):
        app_page.answer_clip(qa, clip if given[0] == "clip" else given[0], *given[1:])


def test_each_checkpoint_gets_its_tab_and_two_of_a_kind_are_refused(checkpoint, tmp_path):
    detect = make()
    detect.model.save_pretrained(tmp_path)
    detect.processor.save_pretrained(tmp_path)
    one, other = app.load_models([tmp_path, checkpoint])
    assert (one.task, other.task) == ("video-question-answering", "video-relation-detection")
    assert app.load_models([tmp_path])[0] is None
    with pytest.raises(CausalVideoError, match="of one kind"):
        app.load_models([checkpoint, checkpoint])
    with pytest.raises(CausalVideoError, match="without a model"):
        app_page.build_app()


def test_it_listens_on_this_machine_and_limits_uploads(monkeypatch):
    options = app.Options(checkpoints=["outputs/transtr"])
    assert options.host == "127.0.0.1" and options.max_size == 200
    served = {}
    monkeypatch.setattr(app, "load_models", lambda *_: (None, object()))
    monkeypatch.setattr(
        app_page, "build_app", lambda *_, **__: argparse.Namespace(launch=lambda **options: served.update(options))
    )
    app.run(options)
    told = {"server_name": "127.0.0.1", "server_port": 7860, "max_file_size": "200mb", "share": False}
    assert served == told | {"css": app_page.STYLE}
    with pytest.raises(CausalVideoError, match="--max-size in megabytes: found 0"):
        app.run(app.Options(checkpoints=["outputs/transtr"], max_size=0))


def test_without_gradio_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    with pytest.raises(CausalVideoError, match="hf-causal-video.app,video"):
        app_page.build_app(qa=object())
    with pytest.raises(SystemExit):
        main(["app", "--help"])


@pytest.fixture
def served(qa, monkeypatch):
    gradio = pytest.importorskip("gradio", reason="the extra `app` is not installed")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    demo = app_page.build_app(qa, related)
    options = {"max_file_size": "1mb", "server_name": app.LOOPBACK, "css": app_page.STYLE}
    _, address, _ = demo.launch(prevent_thread_lock=True, quiet=True, **options)
    yield gradio, address, demo
    demo.close()


@pytest.mark.slow
def test_served_it_answers_over_the_loopback_and_refuses_what_is_too_large(served, make_clip, tmp_path):
    import urllib.error
    import urllib.request

    from gradio_client import Client, handle_file

    _, address, demo = served
    assert address.startswith("http://127.0.0.1:") and demo.config["analytics_enabled"] is False
    client = Client(address, verbose=False)
    small = make_clip(tmp_path / "small.mp4")
    error, scores, verdict, strip, framed = (
        part.get("value") if isinstance(part, dict) and "value" in part else part
        for part in client.predict(handle_file(str(small)), QUESTION, "\n".join(CHOICES), api_name="/ask")
    )
    assert not error and scores["label"] in CHOICES and "evidence removed" in verdict
    assert str(strip).endswith(".png") and QUESTION in page_of(framed)
    _, table, _, _ = client.predict(handle_file(str(small)), 0.0, api_name="/relations")
    assert ["dog", "chase", "cat"] in [row[:3] for row in table["data"]]
    failed = client.predict(handle_file(str(small)), "", "", api_name="/ask")
    assert "Fix: write what you want to know" in failed[0]["value"] and failed[2] == "" == failed[4]
    large = tmp_path / "large.mp4"
    large.write_bytes(small.read_bytes() + b"\0" * 2**21)
    with pytest.raises(Exception, match="(?i)large|exceed|413"):
        client.predict(handle_file(str(large)), QUESTION, "\n".join(CHOICES), api_name="/ask")
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"{address}gradio_api/file=/etc/passwd", timeout=300)


def test_of_two_equal_choices_none_vanishes(qa, clip):
    scores = app_page.answer_clip(qa, clip, QUESTION, "star\nring\nstar").scores
    assert list(scores) == ["star", "ring", "star (2)"] and scores["star"] == pytest.approx(scores["star (2)"])


def test_the_model_is_named_with_what_it_was_trained_on(checkpoint, tmp_path):
    import shutil

    from hf_causal_video.pipelines.question_answering import load_pipeline

    folder = shutil.copytree(checkpoint, tmp_path / "my *model*")
    (folder / "examples").mkdir()
    (folder / "examples" / "film.mp4").write_bytes(b"")
    card = {"dataset": "org/nextqa", "metrics": [{"name": "Acc", "value": 61.25, "split": "val"}]}
    (folder / "card_data.json").write_text(json.dumps(card))
    qa = load_pipeline(folder)
    about = about_model(qa)
    assert about.startswith("**my \\*model\\*** (transtr)") and "chooses among your choices" in about
    assert "trained on nextqa" in about and "61.2 % right on val" in about
    assert example_clip(qa) == folder / "examples" / "film.mp4"
    qa.processor.example_questions = [{"question": QUESTION, "choices": CHOICES}]
    assert example_rows(qa, None) == [[None, QUESTION, "\n".join(CHOICES)]]


SEEN = """(() => { const box = (selector) => document.querySelector(selector).getBoundingClientRect();
  return JSON.stringify({top: box('.results').top, verdict: box('.filled').bottom,
    wide: document.documentElement.scrollWidth, text: document.querySelector('.results').innerText}); })()"""


@pytest.mark.slow
def test_on_a_phone_the_answer_is_above_the_fold_and_an_error_replaces_it(served, make_clip, tmp_path):
    """Looked at: the screenshots are left in the folder of the test."""
    _, address, _ = served
    clip = make_clip(tmp_path / "small.mp4")
    with Browser(tmp_path, width=400, height=800) as browser:
        browser.open(address)
        browser.wait_for("document.querySelector('input[type=file]')")
        browser.upload("input[type=file]", clip)
        browser.wait_for("document.querySelector('video')")
        browser.type("label:has(span) textarea, label textarea", [QUESTION, "\n".join(CHOICES)])
        browser.click("button.primary")
        browser.wait_for("document.querySelector('.filled') && document.querySelector('.results img')")
        seen = json.loads(browser.evaluate(SEEN))
        browser.screenshot(tmp_path / "phone.png")
        assert 0 <= seen["top"] < 800 and seen["verdict"] < 800 and seen["wide"] <= 400
        assert any(choice in seen["text"] for choice in CHOICES) and "With the evidence removed" in seen["text"]
        browser.type("label textarea", ["", ""])
        browser.click("button.primary")
        browser.wait_for("document.querySelector('.error')")
        browser.screenshot(tmp_path / "error.png")
        text = browser.evaluate("document.querySelector('.results').innerText")
        assert "Fix: write what you want to know" in text and "With the evidence removed" not in text
        assert browser.evaluate("document.body.innerText.split('write what you want to know').length") == 2
