"""`hf-causal-video select`: which frames of a clip a trained model would show a video language model."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hf_causal_video.cli.options import FONT, FRAME_MODEL, OBJECT_MODEL, argument, option
from hf_causal_video.cli.pictures import check_picture, font_path, write_picture
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


@dataclass(kw_only=True)
class Options:
    """Choose frames of a clip for a video language model."""

    checkpoint: str = argument("folder or Hub id: a VideoQA model, or a dual encoder for similarity")
    video: str = argument("a video file")
    question: str = argument("what the video language model will be asked")
    label_words: str | None = option(
        "text encoder: the checkpoint is an image classifier, read by its labels", None, metavar="TEXT_ID"
    )
    choices: list[str] | None = option("the answers offered; read by models that rank frames by them", None)
    selector: str = option("who chooses", "causal", choices=SELECTORS)
    frames: int | None = option("how many frames (default: 8, or all of a clip with fewer)", None, exclusive="budget")
    tokens: int | None = option(
        "as many frames as fit into this many visual tokens of --vlm", None, exclusive="budget"
    )
    vlm: str | None = option("processor of a video language model, for --tokens", None)
    candidates: str | None = option("moments looked at, such as uniform-64 or fps-1", None)
    scene: float = option("judge each frame with the S s around it", 0.0, metavar="S")
    seed: int = option("of the selector random", 0)
    json: bool = option("print JSON instead of text", False)
    png: Path | None = option("write a picture of the choice", None)
    font: Path | None = option(FONT, None)
    device: str = option("cpu, cuda, cuda:1, ...", "cpu")
    frame_model: str | None = option(FRAME_MODEL, None, metavar="DIR")
    object_model: str | None = option(OBJECT_MODEL, None, metavar="DIR")


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


def run(options: Options) -> None:
    """Choose the frames, print them with the reason, and draw them."""
    from hf_causal_video.selection import Clip, TokenBudget
    from hf_causal_video.utils.checks import check_whole

    if options.frames is not None:
        check_whole("--frames", options.frames, fix=f"try --frames {USUAL_FRAMES}")
    if options.tokens is not None:
        check_whole("--tokens", options.tokens, fix="try --tokens 2048")
    require(
        options.label_words is None or options.selector in BY_SIMILARITY,
        "--label-words",
        found=f"--selector {options.selector}",
        expected=f"one of {', '.join(BY_SIMILARITY)}",
        fix="add --selector similarity, or leave --label-words out",
    )
    require(
        (options.tokens is not None) == bool(options.vlm),
        "a budget in tokens",
        found="no --tokens" if options.vlm else "no --vlm",
        expected="a number of tokens and the model whose tokens are counted",
        fix="add --tokens 2048" if options.vlm else "add --vlm with a folder or Hub id, or use --frames",
    )
    check_picture(options.png, options.font)
    selector = make_selector(
        options.selector,
        options.checkpoint,
        options.candidates,
        options.device,
        options.seed,
        options.scene,
        options.label_words,
        frame_model=options.frame_model,
        object_model=options.object_model,
    )
    # a default that nobody typed takes the frames there are
    clip = Clip.read(options.video, sampling=selector.sampling, allow_fewer=options.candidates is None)
    budget: int | TokenBudget = min(USUAL_FRAMES, len(clip)) if options.frames is None else options.frames
    if options.tokens is not None:
        from transformers import AutoProcessor

        budget = TokenBudget(options.tokens, AutoProcessor.from_pretrained(options.vlm, trust_remote_code=False))
    chosen = selector.select(clip, options.question, budget, options.choices)
    if options.json:
        print(json.dumps({"question": options.question, **chosen.to_dict()}, indent=2))
    else:
        print(chosen.reason)
        scores = dict(zip(chosen.candidates, chosen.scores, strict=True))
        for index, second in zip(chosen.frame_indices, chosen.timestamps_s, strict=True):
            why = "" if chosen.kept is None else "   kept" if index in chosen.kept else "   next in the ranking"
            print(f"  {second:8.2f} s   frame {index:>4}   score {scores[index]:.3f}{why}")
    if options.png:
        from hf_causal_video.selection.picture import draw_selection

        assert clip.frames is not None
        frames = [clip.frames[index] for index in chosen.frame_indices]
        write_picture(options.png, draw_selection(chosen, frames, options.question, font_path=font_path(options.font)))
