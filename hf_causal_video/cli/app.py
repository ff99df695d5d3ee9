"""`hf-causal-video app`: upload a clip, ask, and see what the answer rests on, in a browser.

Why: who judges a model is often not who can run it. The page inside is the same self-contained file that
`hf-causal-video answer --html` writes. The app listens on this machine alone by default, limits uploads, sends nothing
to any other server, and deletes uploads after an hour.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hf_causal_video.cli.options import FONT, FRAME_MODEL, OBJECT_MODEL, argument, option
from hf_causal_video.utils.checks import check_file, check_whole
from hf_causal_video.utils.errors import require

if TYPE_CHECKING:
    from hf_causal_video.pipelines.question_answering import VideoQuestionAnsweringPipeline
    from hf_causal_video.pipelines.relation_detection import VideoRelationDetectionPipeline

LOOPBACK = "127.0.0.1"
EXAMPLES = """examples:
  hf-causal-video app outputs/transtr
  hf-causal-video app outputs/transtr outputs/ivrd --port 7861           # questions and relations
  hf-causal-video app outputs/transtr --example clip.mp4                 # offer a clip to try
  hf-causal-video app org/igv-nextqa --max-size 500 --device cuda
"""


@dataclass(kw_only=True)
class Options:
    """Upload a clip, ask, and see the evidence in a browser."""

    checkpoints: list[str] = argument(
        "folder or Hub id of a question model, a relation model, or one of each", metavar="CHECKPOINT"
    )
    host: str = option("address to listen on; by default this machine alone", LOOPBACK)
    port: int = option("port to listen on", 7860)
    max_size: int = option("largest upload", 200, metavar="MB")
    example: Path | None = option(
        "a clip to offer as an example (default: the first one in CHECKPOINT/examples)", None, metavar="CLIP"
    )
    font: Path | None = option(FONT, None)
    device: str = option("cpu, cuda, cuda:1, ...", "cpu")
    frame_model: str | None = option(FRAME_MODEL, None, metavar="DIR")
    object_model: str | None = option(OBJECT_MODEL, None, metavar="DIR")


def run(options: Options) -> None:
    """Serve until stopped."""
    from hf_causal_video.cli.app_page import STYLE, build_app

    check_whole("--max-size in megabytes", options.max_size, fix="raise it")
    check_whole("--port", options.port, 0, 65535, fix="name a free port")
    if options.example is not None:
        check_file("--example", options.example)
    networks = {"frame_model": options.frame_model, "object_model": options.object_model}
    qa, detect = load_models(options.checkpoints, options.device, networks)
    demo = build_app(qa, detect, options.example, options.font)
    if options.host != LOOPBACK:
        print(f"listening on {options.host}: anyone who reaches this address can upload clips and use this machine")
    demo.launch(
        server_name=options.host,
        server_port=options.port,
        max_file_size=f"{options.max_size}mb",
        share=False,
        css=STYLE,
    )


def load_models(
    checkpoints: Sequence[str | Path], device: str = "cpu", networks: dict[str, str | None] | None = None
) -> "tuple[VideoQuestionAnsweringPipeline | None, VideoRelationDetectionPipeline | None]":
    """Open up to two checkpoints: the pipeline for questions and the one for relations, or None.

    Args:
        checkpoints: folders or Hub ids.
        device: where to compute.
        networks: `frame_model` and `object_model` of the question model, if they are not in or next to it.

    Raises:
        CausalVideoError: two checkpoints of one kind.
    """
    from transformers import AutoConfig

    from hf_causal_video.cli.relations import load_relation_pipeline
    from hf_causal_video.models import RELATION_METHODS
    from hf_causal_video.models.loading import open_pretrained
    from hf_causal_video.pipelines.question_answering import load_pipeline

    qa = detect = None
    for checkpoint in checkpoints:
        is_relation = open_pretrained(AutoConfig.from_pretrained, checkpoint).model_type in RELATION_METHODS
        require(
            (detect if is_relation else qa) is None,
            "two checkpoints of one kind",
            found=", ".join(map(str, checkpoints)),
            expected="a question model, a relation model, or one of each",
            fix="start a second app",
        )
        if is_relation:
            detect = load_relation_pipeline(checkpoint, device)
        else:
            qa = load_pipeline(checkpoint, device=device, **networks or {})
    return qa, detect
