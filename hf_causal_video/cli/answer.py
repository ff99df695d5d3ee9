"""`hf-causal-video answer`: one question about one clip, with the evidence for the answer."""

import argparse
import json
import sys
from pathlib import Path

from hf_causal_video.cli.pictures import add_font_argument, check_picture, font_path, write_picture
from hf_causal_video.utils.errors import require

EXAMPLES = """examples:
  hf-causal-video answer outputs/transtr clip.mp4 "why did the boy run" --choices "to play" "to hide" "he was late"
  hf-causal-video answer org/transtr-msvdqa clip.mp4 "what is a man doing" --html out.html --png out.png
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hf-causal-video answer`."""
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("checkpoint", help="folder or Hub id of a trained model")
    parser.add_argument("video", help="a video file")
    parser.add_argument("question")
    parser.add_argument("--choices", nargs="+", help="the choices of a multiple-choice model")
    parser.add_argument("--truncate", action="store_true", help="cut a text that is longer than the model can read")
    parser.add_argument("--html", type=Path, help="write a self-contained page with the clip's evidence")
    parser.add_argument("--png", type=Path, help="write a picture strip with the clip's evidence")
    add_font_argument(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")
    add_network_arguments(parser)


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare where the vision networks of a checkpoint lie, if they are not in or next to it."""
    parser.add_argument("--frame-model", metavar="DIR", help="where the frame network of the checkpoint lies now")
    parser.add_argument("--object-model", metavar="DIR", help="where its object network lies now")


def run(args: argparse.Namespace) -> None:
    """Answer one question about one clip."""
    import hf_causal_video.pipelines.question_answering as pipelines
    from hf_causal_video.models import METHODS

    check_picture(args, args.png)
    networks = {"frame_model": args.frame_model, "object_model": args.object_model}
    qa = pipelines.load_pipeline(args.checkpoint, device=args.device, **networks)
    method = qa.model.config.model_type
    require(
        method in METHODS,
        "wrong kind of model",
        found=f"a {method} in {args.checkpoint}",
        expected=f"one of {', '.join(METHODS)}",
        fix="relation models go to `hf-causal-video relations`",
    )
    result = qa(args.video, question=args.question, choices=args.choices, truncation=args.truncate, return_frames=True)
    if args.json:
        shown = {name: value for name, value in result.items() if name not in ("frames", "times_s")}
        print(json.dumps({"question": args.question, **shown}, indent=2))
    else:
        _print_answer(result)
    _write_pictures(args, result)


def _write_pictures(args: argparse.Namespace, result: dict) -> None:
    if args.html is None and args.png is None:
        return
    from hf_causal_video.viewer import EvidenceCase, draw_strip, write_report

    case = EvidenceCase.of_result(args.question, result, title=Path(args.video).name)
    if args.png is not None:
        write_picture(args.png, draw_strip(case, font_path=font_path(args)))
    if args.html is not None:
        write_report(args.html, [case])
        print(f"written: {args.html}", file=sys.stderr)


def _print_answer(result: dict) -> None:
    from hf_causal_video.viewer.answer import notes_of
    from hf_causal_video.viewer.words import pace_in_words, percent, reason_in_words, verdict_in_words

    evidence, verdict = result["evidence"], result["verdict"]
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
