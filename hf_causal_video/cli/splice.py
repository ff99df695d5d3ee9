"""`hf-causal-video splice`: a grounded test from own clips, in one command."""

import argparse

from hf_causal_video.worlds.spliced import PLAN_FILE, splice
from hf_causal_video.worlds.spliced_plan import ASK, SpliceOptions
from hf_causal_video.worlds.spliced_sources import LAYOUT

EXAMPLES = """examples:
  hf-causal-video splice clips/ questions.csv --per-film 4 --seed 0 --output spliced/
  hf-causal-video splice photos/ file-names --per-film 8 --ask order --output spliced/
  hf-causal-video extract spliced/videos --frame-model ID --output spliced-features/
  accelerate launch scripts/train.py --dataset spliced/ --features spliced-features/ ...
  hf-causal-video evaluate outputs/model --dataset spliced/ --split test --features spliced-features/
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `hf-causal-video splice`."""
    parser.epilog, parser.formatter_class = EXAMPLES, argparse.RawDescriptionHelpFormatter
    default, add = SpliceOptions(), parser.add_argument
    add("clips", help="folder of clips or photographs")
    add("questions", help=f'csv or JSONL with {LAYOUT}; or "file-names" or "folders" where these say the class')
    add("--output", required=True, metavar="SET", help="folder of the set")
    add("--per-film", type=int, default=default.per_film, help="stretches per film (default: %(default)s)")
    add("--stretch", type=float, default=default.stretch_s, help="seconds per stretch (default: %(default)s)")
    add("--ask", choices=ASK, default=default.ask, help="what the questions are about (default: %(default)s)")
    add("--rounds", type=int, default=default.rounds, help="films that every clip is in (default: %(default)s)")
    add("--test-share", type=float, default=default.test_share, help="of the clips (default: %(default)s)")
    add("--validation-share", type=float, default=default.validation_share, help="of the clips (default: %(default)s)")
    add("--size", type=int, nargs=2, default=(default.width, default.height), metavar=("WIDTH", "HEIGHT"))
    add("--fps", type=int, default=default.fps, help="frames per second of a film (default: %(default)s)")
    add("--seed", type=int, default=default.seed, help="fixes everything (default: %(default)s)")
    add("--no-progress", dest="progress", action="store_false", help="no bar")


def run(args: argparse.Namespace) -> None:
    """Run `hf-causal-video splice`."""
    options = SpliceOptions(
        per_film=args.per_film,
        stretch_s=args.stretch,
        ask=args.ask,
        rounds=args.rounds,
        test_share=args.test_share,
        validation_share=args.validation_share,
        width=args.size[0],
        height=args.size[1],
        fps=args.fps,
        seed=args.seed,
    )
    report = splice(args.clips, args.questions, args.output, options, args.progress)
    for split, counts in report["splits"].items():
        print(f"{split}: {counts['films']} films of {counts['clips']} clips, {counts['questions']} questions")
    if report["left_out"]:
        first = next(iter(report["left_out"].items()))
        print(f"left out: {len(report['left_out'])}, such as {first[0]}: {first[1]} (all in {PLAN_FILE})")
    print(f"written: {args.output}; next: hf-causal-video extract {args.output}/videos --frame-model ID --output DIR")
