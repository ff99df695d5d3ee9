"""`hf-causal-video app`: upload a clip, ask, and see what the answer rests on, in a browser.

Why: who judges a model is often not who can run it. The page that the app shows is the same self-contained file that
`hf-causal-video answer --html` writes. It listens on this machine alone unless told otherwise, limits uploads, asks
nothing of any other server, and forgets uploads after an hour.
"""

import argparse
import base64
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import AutoConfig

from hf_causal_video.utils.errors import CausalVideoError

if TYPE_CHECKING:
    from PIL import Image

LOOPBACK = "127.0.0.1"
FORGET_S = 3600  # uploads older than this are deleted
MOST_QUESTION, MOST_CHOICES = 500, 4000  # characters; the page counts them too, but whoever calls the API need not
EXAMPLES = """examples:
  hf-causal-video app outputs/transtr
  hf-causal-video app outputs/transtr outputs/ivrd --port 7861           # questions and relations
  hf-causal-video app org/igv-nextqa --max-size 500 --device cuda
"""


def add_app_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb `app`."""
    parser.epilog, parser.formatter_class = EXAMPLES, argparse.RawDescriptionHelpFormatter
    parser.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT", help="folder or Hub id of a question model, a "
                        "relation model, or one of each")  # fmt: skip
    parser.add_argument("--host", default=LOOPBACK, help="address to listen on (default: this machine alone)")
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--max-size", type=int, default=200, metavar="MB", help="largest upload (default: 200)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")
    parser.add_argument("--frame-model", metavar="DIR", help="where the frame network of the checkpoint lies now")
    parser.add_argument("--object-model", metavar="DIR", help="where its object network lies now")


def run_app(args: argparse.Namespace) -> None:
    """Body of `hf-causal-video app`: serve until stopped."""
    if args.max_size < 1:
        raise CausalVideoError("--max-size", found=args.max_size, expected="1 or more megabytes", fix="raise it")
    networks = {"frame_model": args.frame_model, "object_model": args.object_model}
    demo = build_app(*load_models(args.checkpoints, args.device, networks))
    if args.host != LOOPBACK:
        print(f"listening on {args.host}: whoever reaches this address can upload clips and use this machine")
    demo.launch(server_name=args.host, server_port=args.port, max_file_size=f"{args.max_size}mb", share=False)


def load_models(
    checkpoints: Sequence[str | Path], device: str = "cpu", networks: dict[str, str | None] | None = None
) -> tuple[Any, Any]:
    """The pipelines of up to two checkpoints: for questions and for relations, None where there is none.

    Args:
        checkpoints: folders or Hub ids.
        device: where to compute.
        networks: `frame_model` and `object_model` of the question model, if they are not in or next to it.

    Raises:
        CausalVideoError: two checkpoints of one kind.
    """
    from hf_causal_video.cli.relations import load_relation_pipeline
    from hf_causal_video.models import RELATION_METHODS
    from hf_causal_video.models.loading import open_pretrained
    from hf_causal_video.pipelines.question_answering import load_pipeline

    found: dict[bool, Any] = {}
    for checkpoint in checkpoints:
        related = open_pretrained(AutoConfig.from_pretrained, checkpoint).model_type in RELATION_METHODS
        if related in found:
            raise CausalVideoError(
                "two checkpoints of one kind", found=", ".join(map(str, checkpoints)),
                expected="a question model, a relation model, or one of each", fix="start a second app",
            )  # fmt: skip
        if related:
            found[related] = load_relation_pipeline(checkpoint, device=device)
        else:
            found[related] = load_pipeline(checkpoint, device=device, **networks or {})
    return found.get(False), found.get(True)


def build_app(qa: Any = None, detect: Any = None) -> Any:
    """The app over loaded pipelines, a tab for each; `.launch()` serves it.

    Args:
        qa: a `VideoQuestionAnsweringPipeline`, or None.
        detect: a `VideoRelationDetectionPipeline`, or None.

    Raises:
        CausalVideoError: neither, or Gradio is not installed.
    """
    if qa is None and detect is None:
        raise CausalVideoError("an app without a model", found="neither", expected="qa or detect", fix="pass one")
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio as gr
    except ImportError as error:
        raise CausalVideoError(
            "the app needs Gradio", found="no package gradio", expected="the extra `app`",
            fix="pip install 'hf-causal-video[app,video]'",
        ) from error  # fmt: skip

    def told(run: Any) -> Any:
        """Bad input as a message on the page instead of a stack."""

        def wrapped(*given: Any) -> Any:
            try:
                return run(*given)
            except CausalVideoError as error:
                raise gr.Error(escape(str(error)), print_exception=False) from error  # Gradio shows it as HTML

        return wrapped

    with gr.Blocks(title="hf_causal_video", analytics_enabled=False, delete_cache=(FORGET_S, FORGET_S)) as demo:
        if qa is not None:
            with gr.Tab("Ask"), gr.Row():
                with gr.Column(scale=1):
                    gr.Markdown("# Why this answer?\nThe frames it rests on, and what it becomes without them.")
                    clip = gr.Video(label="Clip", sources=["upload"])
                    question = gr.Textbox(
                        label="Question", placeholder="why did the boy run", max_length=MOST_QUESTION
                    )
                    choices = gr.Textbox(
                        label="Choices, one a line (none for an open question)", lines=5, max_length=MOST_CHOICES
                    )
                    ask = gr.Button("Ask", variant="primary")
                    scores = gr.Label(label="Answer")
                    seconds = gr.Textbox(label="Evidence", interactive=False)
                with gr.Column(scale=2):
                    strip = gr.Image(
                        show_label=False, format="png", interactive=False, buttons=["download", "fullscreen"]
                    )
                    page = gr.HTML(label="Evidence page")
            shown = [scores, seconds, strip, page]
            ask.click(told(lambda *given: answer_clip(qa, *given)), [clip, question, choices], shown, api_name="ask")
        if detect is not None:
            with gr.Tab("Relations"), gr.Row():
                with gr.Column(scale=1):
                    gr.Markdown("# Who does what to whom?\nThe relations of a clip, with their seconds and tracks.")
                    scene = gr.Video(label="Clip", sources=["upload"])
                    least = gr.Slider(0.0, 1.0, 0.2, step=0.05, label="Least confidence of a predicate")
                    find = gr.Button("Find relations", variant="primary")
                with gr.Column(scale=2):
                    heads = ["subject", "predicate", "object", "score", "from s", "to s"]
                    table = gr.Dataframe(headers=heads, label="Relations", interactive=False, max_height=320)
                    picture = gr.Image(
                        show_label=False, format="png", interactive=False, buttons=["download", "fullscreen"]
                    )
                    relations = gr.HTML(label="Relation page")
            shown = [table, picture, relations]
            find.click(told(lambda *given: relate_clip(detect, *given)), [scene, least], shown, api_name="relations")
    demo.queue(default_concurrency_limit=1, max_size=16)
    return demo


def answer_clip(
    qa: Any, clip: str | None, question: str, choices: str
) -> tuple[dict[str, float], str, "Image.Image", str]:
    """Answer one question about an uploaded clip.

    Args:
        qa: the pipeline.
        clip: path of the upload.
        question: the question.
        choices: one a line, none for an open question.

    Returns:
        Score of each choice, the seconds of the evidence in words, the strip, and the evidence page in a frame.

    Raises:
        CausalVideoError: no clip, a longer text than the page takes, and what the pipeline refuses.
    """
    from hf_causal_video.viewer import EvidenceCase, draw_strip, report_html

    path = _uploaded(clip)
    for what, text, most in (("question", question, MOST_QUESTION), ("choices", choices, MOST_CHOICES)):
        if len(text) > most:
            raise CausalVideoError(
                f"the {what}", found=f"{len(text)} characters", expected=f"at most {most}", fix="shorten it"
            )
    offered = [line.strip() for line in choices.splitlines() if line.strip()]
    result = qa(str(path), question=question.strip(), choices=offered or None, return_frames=True)
    evidence = result["evidence"]
    case = EvidenceCase.of_result(question.strip(), result, title=path.name)
    seconds = ", ".join(f"{start:.1f} to {end:.1f} s" for start, end in sorted(evidence.spans))
    scores = dict(zip(evidence.choices, evidence.scores, strict=True))
    page = _framed(report_html([case]), "evidence")
    return scores, seconds or "no frame was singled out", draw_strip(case), page


def relate_clip(detect: Any, clip: str | None, least: float) -> tuple[list[list[Any]], "Image.Image", str]:
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
    found = detect(str(path), predicate_threshold=least, return_clip=True)
    case = RelationCase(
        found["relations"], found["frames"], found["frame_indices"], found["frame_size"], found["times_s"], path.name
    )
    rows = [
        [*one["triplet"], round(one["score"], 3), round(one["start_s"], 2), round(one["end_s"], 2)]
        for one in found["relations"]
    ]
    return rows, draw_relations(case), _framed(relations_html(case), "relations")


def _uploaded(clip: str | None) -> Path:
    if not clip or not Path(clip).is_file():
        raise CausalVideoError("no clip", found="nothing uploaded", expected="a video file", fix="upload one")
    return Path(clip)


def _framed(page: str, name: str) -> str:
    """A page inside another, its script kept away from everything around it, and a link that saves it."""
    data = base64.b64encode(page.encode()).decode()
    return (
        f'<p><a download="{name}.html" href="data:text/html;base64,{data}">Save this page</a></p>'
        f'<iframe sandbox="allow-scripts" srcdoc="{escape(page)}" title="{name}" '
        'style="width:100%;height:860px;border:0"></iframe>'
    )
