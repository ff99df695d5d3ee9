"""`hf-causal-video select`: which frames of a clip a trained model would show a video language model."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from hf_causal_video.cli.answer import add_network_arguments
from hf_causal_video.cli.pictures import add_font_argument, check_picture, font_path, write_picture
from hf_causal_video.utils.checks import check_whole
from hf_causal_video.utils.errors import require

if TYPE_CHECKING:
    from hf_causal_video.selection.selectors import FrameSelector

EXAMPLES = """examples:
  hf-causal-video select outputs/transtr clip.mp4 "why did the boy run" --frames 8 --png chosen.png
  hf-causal-video select outputs/transtr clip.mp4 "why did the boy run" --tokens 2048 --vlm Qwen/Qwen3-VL-4B-Instruct
  hf-causal-video select google/siglip2-base-patch16-224 clip.mp4 "a boy runs" --selector spread --frames 8 --json
  hf-causal-video select lite0/ clip.mp4 "a dog" --label-words minilm/ --selector split_judge --frames 8

The seconds printed are what `bind_selector` gives a processor; scripts/answer_with_vlm.py goes on to the answer.
"""
USUAL_FRAMES = 8
BY_SIMILARITY = ("similarity", "spread", "inverse_transform", "split_judge", "determinantal")
SELECTORS = ("causal", *BY_SIMILARITY, "uniform", "random")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("checkpoint", help="folder or Hub id: a VideoQA model, or a dual encoder for similarity")
    parser.add_argument(
        "--label-words",
        metavar="TEXT_ID",
        help="text encoder: the checkpoint is an image classifier, read by its labels",
    )
    parser.add_argument("video", help="a video file")
    parser.add_argument("question")
    parser.add_argument("--choices", nargs="+", help="the answers offered; read by models that rank frames by them")
    parser.add_argument("--selector", choices=SELECTORS, default="causal", help="who chooses (default: causal)")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--frames", type=int, help="how many frames (default: 8, or all of a clip with fewer)")
    budget.add_argument("--tokens", type=int, help="as many frames as fit into this many visual tokens of --vlm")
    parser.add_argument("--vlm", help="processor of a video language model, for --tokens")
    parser.add_argument("--candidates", help="moments looked at, such as uniform-64 or fps-1")
    parser.add_argument(
        "--scene", type=float, default=0.0, metavar="S", help="judge each frame with the S s around it"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the selector random")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument("--png", type=Path, help="write a picture of the choice")
    add_font_argument(parser)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")
    add_network_arguments(parser)


def make_selector(
    name: str,
    checkpoint: str,
    candidates: str | None = None,
    device: str = "cpu",
    seed: int = 0,
    scene_s: float = 0.0,
    label_words: str | None = None,
    **networks: str | None,
) -> "FrameSelector":
    """A selector by name.

    Args:
        name: one of `SELECTORS`.
        checkpoint: the VideoQA model of "causal", the dual encoder of `BY_SIMILARITY`; not read otherwise.
        candidates: see `FrameSelector`; None for the selector's own.
        device: where its network runs.
        seed: of "random".
        scene_s: of "causal" and `BY_SIMILARITY`, see `FrameSelector`.
        label_words: a text encoder; `checkpoint` is then an image classifier, see `WordEncoder`.
        networks: of "causal", see `CausalSelector.from_pretrained`.

    Example:
        >>> type(make_selector("uniform", "")).__name__
        'UniformSelector'
    """
    from hf_causal_video import selection

    if name == "causal":
        return selection.CausalSelector.from_pretrained(checkpoint, device, candidates, scene_s, **networks)
    candidates = candidates or "uniform-64"
    if name in BY_SIMILARITY:
        encoder = selection.open_encoder(checkpoint, label_words, device)
        diversity = 0.5 if name == "spread" else 0.0
        rule = "best" if name in ("similarity", "spread") else name
        return selection.SimilaritySelector(encoder, diversity, candidates, scene_s, rule)
    return selection.UniformSelector(candidates) if name == "uniform" else selection.RandomSelector(seed, candidates)


def run(args: argparse.Namespace) -> None:
    """Body of the verb."""
    from hf_causal_video.selection import Clip, TokenBudget

    for flag, number, usual in (("--frames", args.frames, USUAL_FRAMES), ("--tokens", args.tokens, 2048)):
        if number is not None:
            check_whole(flag, number, fix=f"try {flag} {usual}")
    require(
        args.label_words is None or args.selector in BY_SIMILARITY,
        "--label-words",
        found=f"--selector {args.selector}",
        expected=f"one of {', '.join(BY_SIMILARITY)}",
        fix="add --selector similarity, or leave --label-words out",
    )
    require(
        (args.tokens is None) == (args.vlm is None),
        "a budget in tokens",
        found="no --tokens" if args.tokens is None else "no --vlm",
        expected="--tokens with the model whose tokens are counted",
        fix="add --tokens 2048" if args.tokens is None else "add --vlm with a folder or Hub id, or use --frames",
    )
    check_picture(args, args.png)
    selector = make_selector(
        args.selector,
        args.checkpoint,
        args.candidates,
        args.device,
        args.seed,
        args.scene,
        args.label_words,
        frame_model=args.frame_model,
        object_model=args.object_model,
    )
    # a default that nobody typed takes the frames there are
    clip = Clip.read(args.video, sampling=selector.sampling, allow_fewer=args.candidates is None)
    budget: int | TokenBudget = min(USUAL_FRAMES, len(clip)) if args.frames is None else args.frames
    if args.tokens is not None:
        from transformers import AutoProcessor

        budget = TokenBudget(args.tokens, AutoProcessor.from_pretrained(args.vlm, trust_remote_code=False))
    chosen = selector.select(clip, args.question, budget, args.choices)
    if args.json:
        print(json.dumps({"question": args.question, **chosen.to_dict()}, indent=2))
    else:
        print(chosen.reason)
        scores = dict(zip(chosen.candidates, chosen.scores, strict=True))
        for index, second in zip(chosen.frame_indices, chosen.timestamps_s, strict=True):
            why = "" if chosen.kept is None else "   kept" if index in chosen.kept else "   next in the ranking"
            print(f"  {second:8.2f} s   frame {index:>4}   score {scores[index]:.3f}{why}")
    if args.png:
        from hf_causal_video.selection.picture import draw_selection

        assert clip.frames is not None
        frames = [clip.frames[index] for index in chosen.frame_indices]
        write_picture(args.png, draw_selection(chosen, frames, args.question, font_path=font_path(args)))
