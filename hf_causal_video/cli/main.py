"""`hf-causal-video`: the package from the shell, one verb for each thing a user does."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from hf_causal_video.utils.errors import CausalVideoError, parse_arguments, require, run_command
from hf_causal_video.utils.plugins import add_import_argument, import_modules
from hf_causal_video.utils.version import __version__

PACKAGE = "hf_causal_video"
VERBS = {  # verb: summary, module that holds its `add_arguments` and `run`
    "extract": ("Turn a folder of videos into a feature set.", "cli.extract"),
    "import": ("Turn features that were made elsewhere into a feature set.", "cli.import_features"),
    "splice": ("Make a grounded test of own clips: films of stretches, windows known exactly.", "cli.splice"),
    "questions": ("Check a file of your own questions.", "cli.questions"),
    "track": ("Turn a folder of videos into a track set, for relations.", "cli.track"),
    "evaluate": ("Measure a checkpoint on a benchmark.", "cli.evaluate"),
    "compare": ("Compare runs on the same questions, with intervals.", "cli.compare"),
    "answer": ("Ask a checkpoint about one clip.", "cli.answer"),
    "relations": ("Detect the relations between the objects of a clip.", "cli.relations"),
    "select": ("Choose frames of a clip for a video language model.", "cli.select"),
    "app": ("Upload a clip, ask, and see the evidence in a browser.", "cli.app"),
    "stress": ("Test whether answers depend on the clip and on the evidence.", "cli.stress"),
    "push": ("Check a checkpoint and upload it to the Hub in one commit.", "cli.push"),
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
    for name, (summary, module) in VERBS.items():
        verb = verbs.add_parser(name, help=summary, description=summary)
        if name == chosen:
            home = import_module(f"{PACKAGE}.{module}")
            home.add_arguments(verb)
            add_import_argument(verb)
            verb.set_defaults(run=home.run)
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

    if hasattr(args, "video"):
        require(
            Path(args.video).is_file(),
            "clip",
            found=f"no file {args.video}",
            expected="a video file",
            fix="check the path",
        )
    read = getattr(args, "selector", None) not in ("uniform", "random")  # these two look at no checkpoint
    for name in getattr(args, "checkpoints", [args.checkpoint] if read and hasattr(args, "checkpoint") else []):
        folder = Path(name)
        if folder.is_dir():
            require(
                any((folder / f"{kind}config.json").is_file() for kind in ("", "adapter_")),
                "checkpoint",
                found=f"no config.json in {name}",
                expected="a folder or Hub id with a model and its processor",
                fix="name the --output_dir of a finished training run",
            )
        else:
            require(
                not folder.is_file() and not folder.is_absolute() and name.count("/") <= 1,
                "checkpoint",
                found=f"no folder {name}",
                expected="a folder or Hub id with a model and its processor",
                fix="check the path",
            )
    if getattr(args, "device", None) is not None:
        try:
            torch.empty(0, device=args.device)
        except (RuntimeError, AssertionError) as error:
            raise CausalVideoError(
                "--device",
                found=f"{args.device}: {str(error).splitlines()[0]}",
                expected="a device torch has here",
                fix="take cpu, or install a torch built for the device",
            ) from error
    for name in ("html", "png"):
        if getattr(args, name, None) is not None:
            getattr(args, name).parent.mkdir(parents=True, exist_ok=True)
