"""`hf-causal-video select`: which frames of a clip a trained model would show a video language model."""

import argparse
import json
import sys
from pathlib import Path

from hf_causal_video.utils.errors import CausalVideoError

EXAMPLES = """examples:
  hf-causal-video select outputs/transtr clip.mp4 "why did the boy run" --frames 8 --png chosen.png
  hf-causal-video select outputs/transtr clip.mp4 "why did the boy run" --tokens 2048 --vlm Qwen/Qwen3-VL-4B-Instruct
  hf-causal-video select google/siglip2-base-patch16-224 clip.mp4 "a boy runs" --selector spread --frames 8 --json

The seconds printed are what `bind_selector` gives a processor; scripts/answer_with_vlm.py goes on to the answer.
"""
SELECTORS = ("causal", "similarity", "spread", "uniform", "random")


def add_select_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.epilog, parser.formatter_class = EXAMPLES, argparse.RawDescriptionHelpFormatter
    parser.add_argument("checkpoint", help="folder or Hub id: a VideoQA model, or a dual encoder for similarity")
    parser.add_argument("video", help="a video file")
    parser.add_argument("question")
    parser.add_argument("--choices", nargs="+", help="the answers offered; read by models that rank frames by them")
    parser.add_argument("--selector", choices=SELECTORS, default="causal", help="who chooses (default: causal)")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--frames", type=int, default=8, help="how many frames (default: 8)")
    budget.add_argument("--tokens", type=int, help="as many frames as fit into this many visual tokens of --vlm")
    parser.add_argument("--vlm", help="processor of a video language model, for --tokens")
    parser.add_argument("--candidates", help="moments looked at, such as uniform-64 or fps-1")
    parser.add_argument(
        "--scene", type=float, default=0.0, metavar="S", help="judge each frame with the S s around it"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the selector random")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument("--png", type=Path, help="write a picture of the choice")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")


def make_selector(
    name: str, checkpoint: str, candidates: str | None = None, device: str = "cpu", seed: int = 0, scene_s: float = 0.0
):
    """A selector by name.

    Args:
        name: one of `SELECTORS`.
        checkpoint: the VideoQA model of "causal", the dual encoder of "similarity" and "spread"; not read otherwise.
        candidates: see `FrameSelector`; None for the selector's own.
        device: where its network runs.
        seed: of "random".
        scene_s: of "causal", "similarity" and "spread", see `FrameSelector`.

    Example:
        >>> type(make_selector("uniform", "")).__name__
        'UniformSelector'
    """
    from hf_causal_video import selection

    if name == "causal":
        return selection.CausalSelector.from_pretrained(checkpoint, device, candidates, scene_s)
    candidates = candidates or "uniform-64"
    if name in ("similarity", "spread"):
        encoder = selection.DualEncoder(checkpoint, device=device)
        return selection.SimilaritySelector(encoder, 0.5 if name == "spread" else 0.0, candidates, scene_s)
    return selection.UniformSelector(candidates) if name == "uniform" else selection.RandomSelector(seed, candidates)


def run_select(args: argparse.Namespace) -> None:
    """Body of the verb."""
    from hf_causal_video.selection import Clip, TokenBudget

    flag, asked = ("--frames", args.frames) if args.tokens is None else ("--tokens", args.tokens)
    if asked < 1:
        usual = 8 if args.tokens is None else 2048
        raise CausalVideoError(flag, found=asked, expected="1 or more", fix=f"try {flag} {usual}")
    if args.tokens is None and args.vlm:
        raise CausalVideoError(
            "--vlm", found="no --tokens", expected="a budget in tokens for it to count", fix="add --tokens 2048"
        )
    if args.tokens is not None and not args.vlm:
        raise CausalVideoError(
            "a budget in tokens", found="no --vlm", expected="the model whose tokens are counted",
            fix="add --vlm with a folder or Hub id, or use --frames",
        )  # fmt: skip
    selector = make_selector(args.selector, args.checkpoint, args.candidates, args.device, args.seed, args.scene)
    clip = Clip.read(args.video, sampling=selector.sampling)
    budget: int | TokenBudget = args.frames
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
            print(f"  {second:8.2f} s   frame {index:>4}   score {scores[index]:.3f}")
    if args.png:
        from hf_causal_video.selection.picture import save_selection

        assert clip.frames is not None
        save_selection(chosen, [clip.frames[i] for i in chosen.frame_indices], args.question, args.png)
        print(f"written: {args.png}", file=sys.stderr)
