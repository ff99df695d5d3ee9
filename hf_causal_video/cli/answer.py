"""`hf-causal-video answer`: one question about one clip, with the evidence for the answer."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from hf_causal_video.cli.options import FONT, FRAME_MODEL, OBJECT_MODEL, argument, option
from hf_causal_video.cli.pictures import check_picture, font_path, write_picture
from hf_causal_video.utils.errors import require

EXAMPLES = """examples:
  hf-causal-video answer outputs/transtr clip.mp4 "why did the boy run" --choices "to play" "to hide" "he was late"
  hf-causal-video answer org/transtr-msvdqa clip.mp4 "what is a man doing" --html out.html --png out.png
"""


@dataclass(kw_only=True)
class Options:
    """Ask a checkpoint about one clip."""

    checkpoint: str = argument("folder or Hub id of a trained model")
    video: str = argument("a video file")
    question: str = argument("what you want to know")
    choices: list[str] | None = option("the choices of a multiple-choice model", None)
    truncate: bool = option("cut a text that is longer than the model can read", False)
    html: Path | None = option("write a self-contained page with the clip's evidence", None)
    png: Path | None = option("write a picture strip with the clip's evidence", None)
    font: Path | None = option(FONT, None)
    json: bool = option("print JSON instead of text", False)
    device: str = option("cpu, cuda, cuda:1, ...", "cpu")
    frame_model: str | None = option(FRAME_MODEL, None, metavar="DIR")
    object_model: str | None = option(OBJECT_MODEL, None, metavar="DIR")


def run(options: Options) -> None:
    """Answer one question about one clip."""
    import hf_causal_video.pipelines.question_answering as pipelines
    from hf_causal_video.models import METHODS

    check_picture(options.png, options.font)
    networks = {"frame_model": options.frame_model, "object_model": options.object_model}
    qa = pipelines.load_pipeline(options.checkpoint, device=options.device, **networks)
    method = qa.model.config.model_type
    require(
        method in METHODS,
        "wrong kind of model",
        found=f"a {method} in {options.checkpoint}",
        expected=f"one of {', '.join(METHODS)}",
        fix="relation models go to `hf-causal-video relations`",
    )
    result = qa(
        options.video,
        question=options.question,
        choices=options.choices,
        truncation=options.truncate,
        return_frames=True,
    )
    if options.json:
        shown = {name: value for name, value in result.items() if name not in ("frames", "times_s")}
        print(json.dumps({"question": options.question, **shown}, indent=2))
    else:
        _print_answer(result)
    _write_pictures(options, result)


def _write_pictures(options: Options, result: dict) -> None:
    if options.html is None and options.png is None:
        return
    from hf_causal_video.viewer import EvidenceCase, draw_strip, write_report

    case = EvidenceCase.of_result(options.question, result, title=Path(options.video).name)
    if options.png is not None:
        write_picture(options.png, draw_strip(case, font_path=font_path(options.font)))
    if options.html is not None:
        write_report(options.html, [case])
        print(f"written: {options.html}", file=sys.stderr)


def _print_answer(result: dict) -> None:
    from hf_causal_video.viewer.answer import notes_of
    from hf_causal_video.viewer.words import pace_in_words, percent, reason_in_words, verdict_in_words

    evidence = result["evidence"]
    verdict = result["verdict"]
    print(f"{evidence.answer}  ({percent(evidence.score)})")
    print(reason_in_words(verdict, evidence.spans))
    if evidence.answer in evidence.choices:
        for line in verdict_in_words(verdict, evidence.choices.index(evidence.answer), evidence.score):
            print(line)
    for line in notes_of(result):
        print(f"note: {line}")
    if pace := pace_in_words(result["times_s"]):
        print(f"note: {pace}, so what happens in between was not seen")
    columns = [
        ("whole clip", evidence.scores),
        ("evidence only", None if verdict.scores_only is None else list(verdict.scores_only.values())),
        ("without it", None if verdict.scores_without is None else list(verdict.scores_without.values())),
    ]
    shown = [(title, scores) for title, scores in columns if scores is not None]
    print("".join(f"{title:>15}" for title, _ in shown) + "  answer")
    for row, choice in enumerate(evidence.choices):
        print("".join(f"{percent(scores[row]):>15}" for _, scores in shown) + f"  {choice}")
