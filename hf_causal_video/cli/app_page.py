"""The page of the app: tabs over loaded pipelines, and what an answer looks like on it."""

import base64
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from hf_causal_video.cli.about import about_model, example_clip, example_rows
from hf_causal_video.utils.checks import check_whole
from hf_causal_video.utils.errors import CausalVideoError, as_message, require

if TYPE_CHECKING:
    from gradio import Blocks
    from PIL import Image

    from hf_causal_video.pipelines.question_answering import VideoQuestionAnsweringPipeline
    from hf_causal_video.pipelines.relation_detection import VideoRelationDetectionPipeline
    from hf_causal_video.viewer import EvidenceCase

FORGET_S = 3600  # uploads older than this are deleted
MOST_QUESTION = 500  # characters; the page counts them too, but a caller of the API need not
MOST_CHOICES = 4000
MOST_SCORES = 6  # answers with a bar
STYLE = """
.verdict p { margin: 2px 0; } .verdict .because { font-weight: 650; } .verdict .warning { color: #c92a2a; }
.error { border: 1px solid #c92a2a; border-radius: 8px; padding: 8px 12px; overflow-wrap: anywhere; }
@media (max-width: 640px) {
  .sides { flex-direction: column; }
  .sides:has(.filled) .results { order: -1; }
  .sides .results, .sides .asking { min-width: 0 !important; width: 100%; }
}
"""
Ask = Callable[..., dict]  # the pipelines, or what stands for them
Detect = Callable[..., dict]


def build_app(
    qa: "VideoQuestionAnsweringPipeline | None" = None,
    detect: "VideoRelationDetectionPipeline | None" = None,
    example: Path | None = None,
    font: Path | None = None,
) -> "Blocks":
    """Build the app over loaded pipelines, a tab for each; `.launch()` serves it.

    Args:
        qa: a `VideoQuestionAnsweringPipeline`, or None.
        detect: a `VideoRelationDetectionPipeline`, or None.
        example: a clip to offer.
        font: font file for the picture.

    Raises:
        CausalVideoError: neither, or Gradio is not installed.
    """
    require(qa or detect, "an app without a model", found="neither", expected="qa or detect", fix="pass one")
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio as gr
    except ImportError as error:
        raise CausalVideoError(
            "the app needs Gradio",
            found="no package gradio",
            expected="the extra `app`",
            fix="pip install 'hf-causal-video[app,video]'",
        ) from error
    with gr.Blocks(title="hf_causal_video", analytics_enabled=False, delete_cache=(FORGET_S, FORGET_S)) as demo:
        if qa is not None:
            with gr.Tab("Ask"):
                _add_questions(gr, qa, example, font)
        if detect is not None:
            with gr.Tab("Relations"):
                _add_relations(gr, detect)
    demo.queue(default_concurrency_limit=1, max_size=16)
    return demo


def _add_questions(
    gr: ModuleType, qa: "VideoQuestionAnsweringPipeline", example: Path | None, font: Path | None
) -> None:
    takes_choices = qa.model.config.num_answers is None
    clip_path = example_clip(qa, example)
    gr.Markdown(f"# Why this answer?\n{about_model(qa)}")
    with gr.Row(elem_classes="sides"):
        with gr.Column(scale=2, min_width=280, elem_classes="asking"):
            clip = gr.Video(label="Clip", sources=["upload"], height=220)
            question = gr.Textbox(label="Question", placeholder="what happens", max_length=MOST_QUESTION)
            choices = gr.Textbox(
                label="Choices, one per line", lines=3, max_length=MOST_CHOICES, visible=takes_choices
            )
            ask = gr.Button("Ask", variant="primary")
            if rows := example_rows(qa, clip_path):
                columns = [clip, question, choices] if takes_choices else [clip, question]
                gr.Examples([row[: len(columns)] for row in rows], columns, label="Try", examples_per_page=6)
        with gr.Column(scale=3, min_width=280, elem_classes="results"):
            error = gr.HTML(visible=False)
            scores = gr.Label(label="Answer", num_top_classes=MOST_SCORES, visible=False)
            verdict = gr.HTML()
            strip = gr.Image(
                show_label=False, format="png", interactive=False, visible=False, buttons=["download", "fullscreen"]
            )
            with gr.Accordion("Every frame, and the page to keep", open=False, visible=False) as closer:
                page = gr.HTML()

    def answer(path: str | None, text: str | None, lines: str | None) -> list[object]:
        try:
            shown = answer_clip(qa, path, text, lines, font)
        except Exception as fault:  # in one place, and nothing of the answer before is left
            hidden = gr.update(value=None, visible=False)
            return [gr.update(value=_as_error(fault), visible=True), hidden, gr.update(visible=False), "", hidden, ""]
        return [
            gr.update(value="", visible=False),
            gr.update(value=shown.scores, visible=True),
            gr.update(visible=True),
            shown.verdict,
            gr.update(value=shown.strip, visible=True),
            shown.page,
        ]

    ask.click(answer, [clip, question, choices], [error, scores, closer, verdict, strip, page], api_name="ask")


def _add_relations(gr: ModuleType, detect: Detect) -> None:
    with gr.Row():
        with gr.Column(scale=1):
            gr.Markdown("# Who does what to whom?\nThe relations of a clip, with their seconds and tracks.")
            scene = gr.Video(label="Clip", sources=["upload"], height=220)
            least = gr.Slider(0.0, 1.0, 0.2, step=0.05, label="Least confidence of a predicate")
            find = gr.Button("Find relations", variant="primary")
            error = gr.HTML(visible=False)
        with gr.Column(scale=2):
            heads = ["subject", "predicate", "object", "score", "from s", "to s"]
            table = gr.Dataframe(headers=heads, label="Relations", interactive=False, max_height=320)
            picture = gr.Image(show_label=False, format="png", interactive=False, buttons=["download", "fullscreen"])
            relations = gr.HTML(label="Relation page")

    def relate(path: str | None, confidence: float) -> list[object]:
        try:
            rows, drawn, page = relate_clip(detect, path, confidence)
        except Exception as fault:
            return [gr.update(value=_as_error(fault), visible=True), [], None, ""]
        return [gr.update(value="", visible=False), rows, drawn, page]

    find.click(relate, [scene, least], [error, table, picture, relations], api_name="relations")


@dataclass
class ShownAnswer:
    """One answer as the app shows it.

    Args:
        scores: score of each answer; equal choices are numbered.
        verdict: HTML of what asking again has shown, and notes.
        strip: the picture.
        page: HTML with the evidence page in a frame and a link that saves it.
    """

    scores: dict[str, float]
    verdict: str
    strip: "Image.Image"
    page: str


def answer_clip(
    qa: Ask, clip: str | None, question: str | None, choices: str | None, font: Path | None = None
) -> ShownAnswer:
    """Answer one question about an uploaded clip.

    Args:
        qa: the pipeline.
        clip: path of the upload.
        question: the question.
        choices: one per line, none for an open question.
        font: font file for the picture.

    Raises:
        CausalVideoError: no clip, a longer text than the page takes, and what the pipeline refuses.
    """
    from hf_causal_video.stress.ablation import unique_labels
    from hf_causal_video.viewer import EvidenceCase, draw_strip, report_html

    path = _uploaded(clip)
    question = (question or "").strip()  # a box that is not shown is None
    choices = choices or ""
    check_whole("number of characters of the question", len(question), 0, MOST_QUESTION, fix="shorten it")
    check_whole("number of characters of the choices", len(choices), 0, MOST_CHOICES, fix="shorten them")
    lines = [line.strip() for line in choices.splitlines() if line.strip()]
    result = qa(str(path), question=question, choices=lines or None, return_frames=True)
    evidence = result["evidence"]
    case = EvidenceCase.of_result(question, result, title=path.name)
    scores = dict(zip(unique_labels(evidence.choices), evidence.scores, strict=True))
    strip = draw_strip(case, font_path=None if font is None else str(font))
    return ShownAnswer(scores, _verdict_html(case), strip, _framed(report_html([case]), "evidence"))


def _verdict_html(case: "EvidenceCase") -> str:
    """The reason, the findings and the notes of a case; the class `filled` lifts the results on a narrow screen."""
    lines = [f'<p class="because">{escape(case.reason[0].upper() + case.reason[1:])}</p>']
    lines += [f"<p>{escape(text)}</p>" for text in (*case.findings, case.looked_at + ".")]
    lines += [f'<p class="warning">{escape(text)}</p>' for text in case.notes]
    return f'<div class="verdict filled">{"".join(lines)}</div>'


def relate_clip(detect: Detect, clip: str | None, least: float) -> tuple[list[list[object]], "Image.Image", str]:
    """Find the relations of an uploaded clip.

    Args:
        detect: the pipeline.
        clip: path of the upload.
        least: least confidence of a predicate.

    Returns:
        A row for each relation (triplet, score, seconds), the picture, and the page in a frame of its own.

    Raises:
        CausalVideoError: no clip, and what the pipeline refuses.
    """
    from hf_causal_video.viewer import RelationCase, draw_relations
    from hf_causal_video.viewer.relations_page import relations_html

    path = _uploaded(clip)
    result = detect(str(path), predicate_threshold=least, return_clip=True)
    relations = result["relations"]
    case = RelationCase(
        relations, result["frames"], result["frame_indices"], result["frame_size"], result["times_s"], path.name
    )
    rows = [
        [*one["triplet"], round(one["score"], 3), round(one["start_s"], 2), round(one["end_s"], 2)]
        for one in relations
    ]
    return rows, draw_relations(case), _framed(relations_html(case), "relations")


def _as_error(fault: Exception) -> str:
    """A fault as HTML; one that is not about the input is a defect, whose stack goes to the terminal."""
    if not isinstance(fault, CausalVideoError | OSError):
        traceback.print_exception(fault)
        fault = CausalVideoError(
            "this did not work",
            found=type(fault).__name__,
            expected="an answer",
            fix="try another clip or question; the terminal of the app says more",
        )
    return f'<div class="error filled" role="alert">{escape(str(as_message(fault)))}</div>'


def _uploaded(clip: str | None) -> Path:
    is_file = clip is not None and Path(clip).is_file()
    require(is_file, "no clip", found="nothing uploaded", expected="a video file", fix="upload one")
    return Path(str(clip))


def _framed(page: str, name: str) -> str:
    """A page inside another, its script kept away from everything around it, and a link that saves it."""
    data = base64.b64encode(page.encode()).decode()
    return (
        f'<p><a download="{name}.html" href="data:text/html;base64,{data}">Save this page</a></p>'
        f'<iframe sandbox="allow-scripts" srcdoc="{escape(page)}" title="{name}" '
        'style="width:100%;height:860px;border:0"></iframe>'
    )
