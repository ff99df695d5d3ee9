"""Answer a question about a clip with a video language model, from chosen frames and from uniform ones.

    python scripts/answer_with_vlm.py Qwen/Qwen3-VL-4B-Instruct clip.mp4 "why did the boy run" \
        --checkpoint outputs/transtr --frames 8

For each selector it prints the seconds chosen, the tokens of the prompt and of the pictures in it, and the answer. The
language model is loaded once, from a folder or the Hub, and is never edited: the selector is bound to its processor
for one call at a time. It needs torchvision, as the video processors of transformers do.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence

from transformers import AutoModelForImageTextToText, AutoProcessor

from hf_causal_video.cli.select import SELECTORS, make_selector
from hf_causal_video.models.loading import open_pretrained
from hf_causal_video.selection import TokenBudget, ask_vlm
from hf_causal_video.utils.errors import parse_arguments, require, run_command

VLM = "a video language model"


def build_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vlm", help="folder or Hub id of a video language model")
    parser.add_argument("video", help="a video file")
    parser.add_argument("question")
    parser.add_argument("--choices", nargs="+", help="the answers offered")
    parser.add_argument("--selectors", nargs="+", choices=SELECTORS, default=["uniform", "causal"])
    parser.add_argument("--checkpoint", default="", help="VideoQA model of the causal selector")
    parser.add_argument(
        "--dual-encoder", default="google/siglip2-base-patch16-224", help="of the selectors by similarity"
    )
    parser.add_argument(
        "--label-words", help="text encoder: --dual-encoder is an image classifier, read by its labels"
    )
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--frames", type=int, default=8, help="how many frames (default: 8)")
    budget.add_argument("--tokens", type=int, help="as many frames as fit into this many visual tokens")
    parser.add_argument("--candidates", help="moments looked at, such as uniform-64 (default: each selector's own)")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--device", default="cpu", help="of the language model and of the selector")
    parser.add_argument("--dtype", default="auto", help="of the language model, such as bfloat16")
    parser.add_argument("--json", action="store_true", help="print one JSON object per selector")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Ask once for each selector."""
    options = parse_arguments(build_parser(), argv)
    return run_command("answer_with_vlm", lambda: ask(options))


def ask(options: argparse.Namespace) -> None:
    """Body of the command."""
    require(
        "causal" not in options.selectors or options.checkpoint,
        "a causal selector",
        found="no --checkpoint",
        expected="a trained VideoQA model",
        fix="add --checkpoint outputs/transtr, or choose --selectors uniform similarity",
    )
    processor = open_pretrained(AutoProcessor.from_pretrained, options.vlm, kind=VLM)
    model = open_pretrained(AutoModelForImageTextToText.from_pretrained, options.vlm, kind=VLM, dtype=options.dtype)
    model = model.to(options.device).eval()
    budget = options.frames if options.tokens is None else TokenBudget(options.tokens, processor)
    for name in options.selectors:
        source = options.checkpoint if name == "causal" else options.dual_encoder
        selector = make_selector(name, source, options.candidates, options.device, label_words=options.label_words)
        started = time.perf_counter()
        reply = ask_vlm(
            model,
            processor,
            selector,
            options.video,
            options.question,
            budget,
            options.choices,
            max_new_tokens=options.max_new_tokens,
        )
        report(name, reply, time.perf_counter() - started, options.json)


def report(name, reply, seconds, as_json) -> None:
    """Print one answer."""
    if as_json:
        tokens = {"prompt_tokens": reply.prompt_tokens, "visual_tokens": reply.visual_tokens}
        print(json.dumps({"selector": name, "answer": reply.text, **tokens, "selection": reply.selection.to_dict()}))
        return
    print(f"{name}: {reply.selection.reason}")
    print("  seconds", ", ".join(f"{second:.1f}" for second in reply.selection.timestamps_s))
    print(f"  tokens  {reply.prompt_tokens} in the prompt, {reply.visual_tokens} of them pictures; {seconds:.1f} s")
    print(f"  answer  {reply.text}")


if __name__ == "__main__":
    sys.exit(main())
