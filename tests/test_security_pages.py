"""What a person wrote stays words, on pages and in the app, which takes little and listens to this machine alone."""

import sys
from html.parser import HTMLParser
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest

import hf_causal_video.cli.app as app
import hf_causal_video.cli.app_page as app_page
from hf_causal_video.cli.main import main
from hf_causal_video.features import decode_video
from hf_causal_video.viewer import RelationCase, report_html
from hf_causal_video.viewer.relations_page import relations_html
from tests.test_security import SOURCES
from tests.viewer.test_browser import browse
from tests.viewer.test_pictures import make_case
from tests.viewer.test_relations import relation

BREAK = "document.title='broken'"
NASTY = f'<script>{BREAK}</script>"\'><img src=x onerror="{BREAK}"></title></textarea><!--'


class Page(HTMLParser):
    """What a browser would make of a page: elements, handlers, addresses, words."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[str] = []
        self.bad: list[tuple] = []
        self.words = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            address = name in ("src", "href", "action", "formaction", "data")
            if name.startswith("on") or (address and not (value or "").startswith(("data:", "#"))):
                self.bad.append((tag, name, value))

    def handle_data(self, data):
        self.words += data


def question_page() -> str:
    evidence = make_case().evidence
    evidence = type(evidence)(**{**vars(evidence), "choices": [NASTY, *evidence.choices[1:]], "answer": NASTY})
    told = {"title": f"{NASTY}.mp4", "evidence": evidence, "scores_only": [0.1, 0.9, 0, 0, 0], "true_answer": NASTY}
    case = make_case(question=NASTY, scores_without=[0.1, 0.9, 0, 0, 0], **told)
    return report_html([case, case], {NASTY: {NASTY: 1.0, "b": NASTY}}, title=NASTY, note=NASTY)


def relation_page() -> str:
    one = relation("dog chase cat", 0, 20) | {"triplet": [NASTY, NASTY, NASTY]}
    frames = [np.zeros((100, 200, 3), np.uint8)] * 2
    return relations_html(RelationCase([one], frames, [0, 10], (200, 100), [0.1 * f for f in range(40)], NASTY))


PAGES = {
    "answer_page.py": (question_page, 1),
    "relations_page.py": (relation_page, 2),
}  # writer: page, its own scripts


@pytest.mark.parametrize("writer", PAGES)
def test_what_a_person_wrote_stays_words_on_every_page(writer):
    make, scripts = PAGES[writer]
    page = Page(make())
    assert page.tags.count("script") == scripts and not page.bad
    assert page.tags.count("title") == 1 and not {"textarea", "iframe", "object", "embed", "base"} & set(page.tags)
    assert page.words.count(NASTY) >= 4, "it is there, and can be read"
    assert "default-src 'none'" in make(), "a page may ask nobody for anything"


def test_there_is_no_other_writer_of_pages():
    writers = {path.name for path in SOURCES if "<!doctype" in path.read_text().lower()}
    assert writers == {"page.py", *PAGES}  # one function, and the examples of those that call it
    assert {path.name for path in SOURCES if "viewer.page import" in path.read_text()} == set(PAGES)
    assert {path.name for path in SOURCES if "<iframe" in path.read_text().lower()} == {"app_page.py"}


@pytest.mark.slow
def test_in_a_browser_no_word_of_a_relation_runs(tmp_path):
    document = browse(relation_page(), tmp_path)
    assert "broken</title>" not in document and 'class="js"' in document and 'src="x"' not in document


# the app


def test_a_page_in_the_app_is_shut_in_and_cannot_leave_its_frame():
    framed = Page(app_page._framed(question_page(), "evidence"))
    assert framed.tags == ["p", "a", "iframe"] and not framed.bad


def test_the_app_counts_what_it_is_sent_and_shows_errors_as_words(tmp_path, monkeypatch):
    clip = tmp_path / f"{NASTY[:40].replace('/', '')}.mp4"
    clip.write_bytes(b"")
    gradio = mock.MagicMock(update=lambda **change: change)
    monkeypatch.setitem(sys.modules, "gradio", gradio)
    asked = []

    class Pipeline:
        model = SimpleNamespace(name_or_path="", config=SimpleNamespace(num_answers=None, model_type="transtr"))
        processor = SimpleNamespace(example_questions=None)

        def __call__(self, path, **_):
            asked.append(path)
            return decode_video(path)

    Pipeline.model.config.feature_provenance = None
    app_page.build_app(qa=Pipeline())
    run = gradio.Button.return_value.click.call_args.args[0]
    for question, choices, words in (
        ("q" * 501, "", "characters of the question: found 501"),
        ("q", "c" * 4001, "characters of the choices: found 4001"),
    ):
        error, *others = run(str(clip), question, choices)
        assert words in error["value"] and error["visible"] and not asked
        assert not any(one["value"] if isinstance(one, dict) and "value" in one else one == "x" for one in others)
    error, *_ = run(str(clip), "why", "")
    assert "an empty file" in error["value"] and "<script" not in error["value"]
    assert gradio.Blocks.call_args.kwargs["analytics_enabled"] is False
    assert gradio.Video.call_args.kwargs["sources"] == ["upload"], "a camera or an address is not offered"


def test_the_app_listens_on_this_machine_takes_no_large_upload_and_is_not_shared(monkeypatch):
    served = []
    monkeypatch.setattr(app, "load_models", lambda *_: (None, object()))
    monkeypatch.setattr(app_page, "build_app", lambda *_: SimpleNamespace(launch=lambda **given: served.append(given)))
    assert main(["app", "org/model"]) == 0 and main(["app", "org/model", "--max-size", "5"]) == 0
    assert [(one["server_name"], one["max_file_size"]) for one in served] == [
        ("127.0.0.1", "200mb"),
        ("127.0.0.1", "5mb"),
    ]
    assert not any(one["share"] for one in served) and not any("allowed_paths" in one for one in served)
