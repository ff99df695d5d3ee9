"""`hf-causal-video`: the package from the shell, one verb for each thing a user does."""

import argparse
import json
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from hf_causal_video.utils.errors import CausalVideoError, parse_arguments, require, run_command
from hf_causal_video.utils.plugins import add_import_argument, import_modules
from hf_causal_video.utils.version import __version__

ANSWER_EXAMPLES = """examples:
  hf-causal-video answer outputs/transtr clip.mp4 "why did the boy run" --choices "to play" "to hide" "he was late"
  hf-causal-video answer org/transtr-msvdqa clip.mp4 "what is a man doing" --html out.html --png out.png
"""


PACKAGE = "hf_causal_video"
VERBS = {  # verb: summary, module, function that adds its arguments, function that runs it
    "extract": ("Turn a folder of videos into a feature set.", "features.extract", "add_arguments", "run"),
    "import": (
        "Turn features that were made elsewhere into a feature set.",
        "cli.import_features",
        "add_arguments",
        "run",
    ),
    "splice": (
        "Make a grounded test of own clips: films of stretches, windows known exactly.",
        "cli.splice",
        "add_arguments",
        "run",
    ),
    "questions": ("Check a file of your own questions.", "cli.questions", "add_arguments", "run"),
    "track": ("Turn a folder of videos into a track set, for relations.", "tracks.track_set", "add_arguments", "run"),
    "evaluate": ("Measure a checkpoint on a benchmark.", "training.evaluate", "add_arguments", "run"),
    "compare": ("Compare runs on the same questions, with intervals.", "cli.compare", "add_arguments", "run"),
    "answer": ("Ask a checkpoint about one clip.", "cli.main", "_add_answer", "_answer"),
    "relations": (
        "Detect the relations between the objects of a clip.",
        "cli.relations",
        "add_relations_arguments",
        "run_relations",
    ),
    "select": (
        "Choose frames of a clip for a video language model.",
        "cli.select",
        "add_select_arguments",
        "run_select",
    ),
    "app": ("Upload a clip, ask, and see the evidence in a browser.", "cli.app", "add_app_arguments", "run_app"),
    "stress": (
        "Test whether answers depend on the clip and on the evidence.",
        "cli.stress",
        "add_stress_arguments",
        "run_stress",
    ),
    "push": ("Check a checkpoint and upload it to the Hub in one commit.", "hub.push", "add_arguments", "run"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; invalid input ends with its message and exit code 2, never with a traceback of our own code.

    Why the verb is looked up before the arguments are parsed: only its own module is imported, so `--help` and
    `--version` cost no import of torch or transformers.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = argparse.ArgumentParser(
        prog="hf-causal-video",
        description="Video question answering that shows the frames and objects it used.",
        epilog="Each verb has its own --help with examples. Training: accelerate launch scripts/train.py --help",
    )
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    chosen = next((word for word in argv if not word.startswith("-")), None)
    for name, (summary, module, add, run) in VERBS.items():
        verb = verbs.add_parser(name, help=summary, description=summary)
        if name == chosen:
            home = import_module(f"{PACKAGE}.{module}")
            getattr(home, add)(verb)
            add_import_argument(verb)
            verb.set_defaults(run=getattr(home, run))
    args = parse_arguments(parser, argv)
    _hide_bars_of_weights()

    def checked() -> int | None:
        import_modules(args.imports)
        _check(args)
        return args.run(args)  # extraction: 1 if some videos failed

    return run_command(f"hf-causal-video {args.verb}", checked)


def _hide_bars_of_weights() -> None:
    """No bar for reading weights, which takes a second; downloads and our own work keep theirs."""
    from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
    from transformers.utils.logging import disable_progress_bar

    wanted = not are_progress_bars_disabled()
    disable_progress_bar()  # of transformers, and of the Hub's client with it
    if wanted:
        enable_progress_bars()


def _check(args: argparse.Namespace) -> None:
    """Refuse what would fail after minutes of reading weights, and make room for the pictures."""
    import torch

    if hasattr(args, "video") and not Path(args.video).is_file():
        raise CausalVideoError("clip", found=f"no file {args.video}", expected="a video file", fix="check the path")
    read = getattr(args, "selector", None) not in ("uniform", "random")  # these two look at no checkpoint
    for name in getattr(args, "checkpoints", [args.checkpoint] if read and hasattr(args, "checkpoint") else []):
        folder = Path(name)
        if folder.is_dir() and not any((folder / f"{kind}config.json").is_file() for kind in ("", "adapter_")):
            raise CausalVideoError(
                "checkpoint", found=f"no config.json in {name}",
                expected="a folder or Hub id with a model and its processor",
                fix="name the --output_dir of a finished training run",
            )  # fmt: skip
        if not folder.is_dir() and (folder.is_file() or folder.is_absolute() or name.count("/") > 1):
            raise CausalVideoError(
                "checkpoint", found=f"no folder {name}",
                expected="a folder or Hub id with a model and its processor",
                fix="check the path",
            )  # fmt: skip
    if getattr(args, "device", None) is not None:
        try:
            torch.empty(0, device=args.device)
        except (RuntimeError, AssertionError) as error:
            raise CausalVideoError(
                "--device", found=f"{args.device}: {str(error).splitlines()[0]}", expected="a device torch has here",
                fix="take cpu, or install a torch built for the device",
            ) from error  # fmt: skip
    for name in ("html", "png"):
        if getattr(args, name, None) is not None:
            getattr(args, name).parent.mkdir(parents=True, exist_ok=True)


def _add_answer(parser: argparse.ArgumentParser) -> None:
    parser.epilog = ANSWER_EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("checkpoint", help="folder or Hub id of a trained model")
    parser.add_argument("video", help="a video file")
    parser.add_argument("question")
    parser.add_argument("--choices", nargs="+", help="the choices of a multiple-choice model")
    parser.add_argument("--truncate", action="store_true", help="cut a text that is longer than the model can read")
    parser.add_argument("--html", type=Path, help="write a self-contained page with the clip's evidence")
    parser.add_argument("--png", type=Path, help="write a picture strip with the clip's evidence")
    parser.add_argument(
        "--font", type=Path, help="font file for the picture (default: a font of the system that has the letters)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")
    add_network_arguments(parser)


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare where the vision networks of a checkpoint lie, if they are not in or next to it."""
    parser.add_argument("--frame-model", metavar="DIR", help="where the frame network of the checkpoint lies now")
    parser.add_argument("--object-model", metavar="DIR", help="where its object network lies now")


def _answer(args: argparse.Namespace) -> None:
    import hf_causal_video.pipelines.question_answering as pipelines
    from hf_causal_video.models import METHODS

    _check_pictures(args)
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


def _check_pictures(args: argparse.Namespace) -> None:
    """Refuse names and fonts before the weights are read."""
    if args.png is not None:
        from hf_causal_video.viewer.canvas import Canvas, check_ending

        check_ending(args.png)
        Canvas(1, 1, None if args.font is None else str(args.font))


def _write_pictures(args: argparse.Namespace, result: dict) -> None:
    if args.html is None and args.png is None:
        return
    from hf_causal_video.viewer import EvidenceCase, draw_strip, write_report
    from hf_causal_video.viewer.canvas import write_png
    from hf_causal_video.viewer.words import replaced_in_words

    case = EvidenceCase.of_result(args.question, result, title=Path(args.video).name)
    if args.png is not None:
        picture = draw_strip(case, font_path=None if args.font is None else str(args.font))
        write_png(args.png, picture)
        print(f"written: {args.png}", file=sys.stderr)
        if letters := picture.info["replaced"]:
            print(f"note: {replaced_in_words(letters)}", file=sys.stderr)
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
