"""`hf-causal-video`: the package from the shell, one verb for each thing a user does."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from hf_causal_video.cli.options import add_options, read_options
from hf_causal_video.utils.errors import CausalVideoError, parse_arguments, require, run_command
from hf_causal_video.utils.plugins import add_import_argument, import_modules
from hf_causal_video.utils.version import __version__

VERBS = {  # verb: summary. Its module in this folder holds `Options`, `EXAMPLES` and `run(options)`.
    "extract": "Turn a folder of videos into a feature set.",
    "import": "Turn features that were made elsewhere into a feature set.",
    "splice": "Make a grounded test of own clips: films of stretches, windows known exactly.",
    "questions": "Check a file of your own questions.",
    "track": "Turn a folder of videos into a track set, for relations.",
    "evaluate": "Measure a checkpoint on a benchmark.",
    "compare": "Compare runs on the same questions, with intervals.",
    "answer": "Ask a checkpoint about one clip.",
    "relations": "Detect the relations between the objects of a clip.",
    "select": "Choose frames of a clip for a video language model.",
    "app": "Upload a clip, ask, and see the evidence in a browser.",
    "stress": "Test whether answers depend on the clip and on the evidence.",
    "push": "Check a checkpoint and upload it to the Hub in one commit.",
}
MODULES = {"import": "import_features"}  # where a verb is a word of Python


def module_of(verb: str) -> str:
    """Module of a verb."""
    return f"hf_causal_video.cli.{MODULES.get(verb, verb)}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; invalid input ends with its message and exit code 2, never with a traceback of our own code.

    Why the verb is looked up before the arguments are parsed: only its own module is imported, and that one imports
    what it works with when it runs, so `--help` and `--version` cost no import of torch or transformers.
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
    for name, summary in VERBS.items():
        verb = verbs.add_parser(name, help=summary, description=summary)
        if name == chosen:
            home = import_module(module_of(name))
            add_options(verb, home.Options, home.EXAMPLES)
            add_import_argument(verb)
    args = parse_arguments(parser, argv)
    home = import_module(module_of(args.verb))

    def checked() -> int | None:
        options = read_options(home.Options, args)
        _hide_bars_of_weights()
        import_modules(args.imports)
        _check(options)
        return home.run(options)  # extraction: 1 if some videos failed

    return run_command(f"hf-causal-video {args.verb}", checked)


def _hide_bars_of_weights() -> None:
    """No bar for reading weights, which takes a second; downloads and our own work keep theirs."""
    from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
    from transformers.utils.logging import disable_progress_bar

    wanted = not are_progress_bars_disabled()
    disable_progress_bar()  # of transformers, and of the Hub's client with it
    if wanted:
        enable_progress_bars()


def _check(options: object) -> None:
    """Refuse what would fail after minutes of reading weights, and make room for the pictures."""
    from hf_causal_video.utils.checks import check_file

    if video := getattr(options, "video", None):
        check_file("clip", video)
    checkpoints = getattr(options, "checkpoints", [])
    if hasattr(options, "checkpoint") and getattr(options, "selector", None) not in ("uniform", "random"):
        checkpoints = [options.checkpoint]  # these two look at no checkpoint
    for name in checkpoints:
        _check_checkpoint(name)
    if device := getattr(options, "device", None):
        _check_device(device)
    for name in ("html", "png"):
        if path := getattr(options, name, None):
            path.parent.mkdir(parents=True, exist_ok=True)


def _check_checkpoint(name: str) -> None:
    folder = Path(name)
    if folder.is_dir():
        is_model = any((folder / f"{kind}config.json").is_file() for kind in ("", "adapter_"))
        problem = "no config.json in"
        fix = "name the --output_dir of a finished training run"
    else:
        is_model = not folder.is_file() and not folder.is_absolute() and name.count("/") <= 1  # a Hub id
        problem = "no folder"
        fix = "check the path"
    expected = "a folder or Hub id with a model and its processor"
    require(is_model, "checkpoint", found=f"{problem} {name}", expected=expected, fix=fix)


def _check_device(device: str) -> None:
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise CausalVideoError(
            "--device",
            found=f"{device}: {str(error).splitlines()[0]}",
            expected="a device torch has here",
            fix="take cpu, or install a torch built for the device",
        ) from error
