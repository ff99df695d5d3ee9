"""`hf-causal-video splice`: a grounded test from own clips, in one command."""

from dataclasses import dataclass

from hf_causal_video.cli.options import argument, option
from hf_causal_video.worlds.spliced_options import ASK, SpliceOptions

EXAMPLES = """examples:
  hf-causal-video splice clips/ questions.csv --per-film 4 --seed 0 --output spliced/
  hf-causal-video splice photos/ file-names --per-film 8 --ask order --output spliced/
  hf-causal-video extract spliced/videos --frame-model ID --output spliced-features/
  accelerate launch scripts/train.py --dataset spliced/ --features spliced-features/ ...
  hf-causal-video evaluate outputs/model --dataset spliced/ --split test --features spliced-features/
"""


@dataclass(kw_only=True)
class Options:
    """Make a grounded test of own clips: films of stretches, windows known exactly."""

    clips: str = argument("folder of clips or photographs")
    questions: str = argument(
        "csv or JSONL with columns video, question and answer (with choices or a0, a1, ... where it is an index), "
        'or video and class; or "file-names" or "folders" where these say the class'
    )
    output: str = option("folder of the set", metavar="SET")
    per_film: int = option("stretches per film", SpliceOptions.per_film)
    stretch: float = option("seconds per stretch", SpliceOptions.stretch_s)
    ask: str = option("what the questions are about", SpliceOptions.ask, choices=ASK)
    rounds: int = option("films that every clip is in", SpliceOptions.rounds)
    test_share: float = option("of the clips", SpliceOptions.test_share)
    validation_share: float = option("of the clips", SpliceOptions.validation_share)
    size: tuple[int, int] = option(
        "pixels of a film", (SpliceOptions.width, SpliceOptions.height), metavar=("WIDTH", "HEIGHT")
    )
    fps: int = option("frames per second of a film", SpliceOptions.fps)
    seed: int = option("fixes everything", SpliceOptions.seed)
    progress: bool = option("no bar", True)


def run(options: Options) -> None:
    """Make the films, and say what they hold."""
    from hf_causal_video.worlds.spliced import PLAN_FILE, splice

    films = SpliceOptions(
        per_film=options.per_film,
        stretch_s=options.stretch,
        ask=options.ask,
        rounds=options.rounds,
        test_share=options.test_share,
        validation_share=options.validation_share,
        width=options.size[0],
        height=options.size[1],
        fps=options.fps,
        seed=options.seed,
    )
    report = splice(options.clips, options.questions, options.output, films, options.progress)
    for split, counts in report["splits"].items():
        print(f"{split}: {counts['films']} films of {counts['clips']} clips, {counts['questions']} questions")
    if report["left_out"]:
        first = next(iter(report["left_out"].items()))
        print(f"left out: {len(report['left_out'])}, such as {first[0]}: {first[1]} (all in {PLAN_FILE})")
    following = f"hf-causal-video extract {options.output}/videos --frame-model ID --output DIR"
    print(f"written: {options.output}; next: {following}")
