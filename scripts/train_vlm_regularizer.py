"""Fine-tune a video language model with LoRA so that its answer survives an exchange of environment frames.

    python scripts/train_vlm_regularizer.py Qwen/Qwen3-VL-4B-Instruct --data train.jsonl --checkpoint outputs/transtr \
        --output outputs/vlm-lora --frames 16 --causal 4 --steps 500 --device cuda

A row of the data is {"video": path, "question": ..., "answer": ..., "choices": [...] (optional)}. Of the frames shown,
the frozen checkpoint says which are causal. One step in `--every` (4) carries the intervention, see
`hf_causal_video/selection/regularizer.py`. `--measure N` prints what it costs, from N steps of each kind in turn.
No claim about hallucination: it was not measured.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from hf_causal_video.cli.select import SELECTORS, make_selector
from hf_causal_video.models.loading import open_pretrained
from hf_causal_video.selection import Clip, FrameSelector, metadata_in_ms, visual_token_ids
from hf_causal_video.selection.regularizer import EnvironmentSwap, add_language_lora
from hf_causal_video.selection.vlm import prompt_of
from hf_causal_video.utils.errors import CausalVideoError, parse_arguments, require, run_command

VLM = "a video language model"


def build_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("vlm", help="folder or Hub id of a video language model")
    add("--data", type=Path, required=True, help="JSON lines of video, question, answer")
    add("--selector", choices=SELECTORS, default="causal", help="who says which frames are causal")
    add("--checkpoint", default="", help="its model; it is not trained")
    add("--output", type=Path, help="folder for the adapters")
    add("--frames", type=int, default=8, help="frames shown, evenly spaced")
    add("--causal", type=int, default=4, help="how many of them are called causal")
    add("--every", type=int, default=4, help="one step in this many carries the intervention")
    add("--weight", type=float, default=1.0, help="of the consistency term")
    add("--steps", type=int, default=100)
    add("--batch-size", type=int, default=2)
    add("--learning-rate", type=float, default=1e-4)
    add("--lora-rank", type=int, default=8)
    add("--measure", type=int, default=0, metavar="N", help="measure the cost on N steps of each kind, train nothing")
    add("--seed", type=int, default=0)
    add("--device", default="cpu")
    add("--dtype", default="auto", help="of the language model, such as bfloat16")
    return parser


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of the data."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except ValueError as error:  # no UTF-8, or no JSON
        raise CausalVideoError(
            f"data {path}", found=str(error), expected="one JSON object per line, in UTF-8", fix="correct the file"
        ) from error
    needed = ("video", "question", "answer")
    wrong = [n for n, row in enumerate(rows) if not isinstance(row, dict) or not all(map(row.get, needed))]
    require(
        rows and not wrong,
        f"data {path}",
        found=f"{len(rows)} rows, incomplete ones {wrong[:5]}",
        expected="video, question and answer in every row",
        fix="correct these lines",
    )
    return rows


class Batches:
    """Model inputs with labels, and the causal frames as the model groups them."""

    def __init__(self, processor: Any, selector: FrameSelector, frames: int, causal: int):
        require(
            1 <= causal < frames,
            "causal frames",
            found=f"{causal} of {frames}",
            expected=f"1 to {frames - 1}, so that an environment is left",
            fix="lower --causal",
        )
        self.processor = processor
        self.selector = selector
        self.frames = frames
        self.causal = causal
        processor.tokenizer.padding_side = "left"  # so that every answer ends its row

    def __call__(self, rows: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], torch.Tensor]:
        """Make inputs with labels (B, L) of B rows, and causal (B, T) bool, T frames or merged pairs."""
        texts: list[str] = []
        videos: list[np.ndarray] = []
        metadata: list[Any] = []
        flags: list[list[bool]] = []
        answers: list[str] = []
        end = self.processor.tokenizer.eos_token
        for row in rows:
            clip = Clip.read(row["video"], sampling=f"uniform-{self.frames}")
            chosen = self.selector.select(clip, row["question"], self.causal, row.get("choices"))
            flags.append([frame in chosen.frame_indices for frame in range(self.frames)])
            videos.append(np.stack(clip.frames or []))
            metadata.append(metadata_in_ms(clip.times_s, clip.duration_s, videos[-1]))
            content = [{"type": "video"}, {"type": "text", "text": prompt_of(row["question"], row.get("choices"))}]
            prompt = self.processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True
            )
            answers.append(f" {row['answer']}{end}")
            texts.append(prompt + answers[-1])
        inputs = self.processor(
            text=texts,
            videos=videos,
            video_metadata=metadata,
            do_sample_frames=False,
            padding=True,
            return_tensors="pt",
        )
        inputs["labels"] = torch.full_like(inputs["input_ids"], -100)
        for row_number, answer in enumerate(answers):
            size = len(self.processor.tokenizer(answer, add_special_tokens=False)["input_ids"])
            inputs["labels"][row_number, -size:] = inputs["input_ids"][row_number, -size:]
        patch = getattr(self.processor.video_processor, "temporal_patch_size", None) or 1
        causal = torch.tensor(flags)  # (B, frames)
        causal = torch.nn.functional.pad(causal, (0, -self.frames % patch)).unflatten(1, (-1, patch)).any(2)
        return dict(inputs), causal


def endless(rows: list[dict[str, Any]], batch_size: int, seed: int) -> Iterator[list[dict[str, Any]]]:
    """Yield batches of different videos without end, in an order that the seed fixes."""
    draw = np.random.default_rng(seed)
    videos = sorted({row["video"] for row in rows})
    require(
        2 <= batch_size <= len(videos),
        "batch",
        found=f"{batch_size} samples from {len(videos)} videos",
        expected="2 or more, one of each video",
        fix="lower --batch-size or add videos: an environment comes from another clip",
    )
    by_video = {video: [row for row in rows if row["video"] == video] for video in videos}
    while True:
        for video_ids in np.array_split(draw.permutation(videos), len(videos) // batch_size):
            yield [by_video[video][draw.integers(len(by_video[video]))] for video in video_ids[:batch_size]]


def step_cost(loss_of: EnvironmentSwap, inputs: dict[str, Any], causal: torch.Tensor, rounds: int) -> dict[str, float]:
    """Measure the median CPU seconds of a plain step and of one with the intervention, and the overhead they mean."""
    seconds: dict[str, list[float]] = {"plain": [], "intervened": []}
    for turn in range(rounds + 1):
        for name, step in (("plain", 1), ("intervened", 0)):
            started = time.process_time()
            loss_of(inputs, causal, step if loss_of.every > 1 else 0).loss.backward()
            if turn:
                seconds[name].append(time.process_time() - started)
    cost: dict[str, float] = {name: statistics.median(values) for name, values in seconds.items()}
    return cost | {"overhead": (cost["intervened"] / cost["plain"] - 1) / loss_of.every}


def main(argv: Sequence[str] | None = None) -> int:
    """Train the adapters, or measure what a step costs."""
    options = parse_arguments(build_parser(), argv)
    return run_command("train_vlm_regularizer", lambda: train(options))


def train(options: argparse.Namespace) -> None:
    """Body of the command."""
    torch.manual_seed(options.seed)
    rows = read_rows(options.data)
    processor = open_pretrained(AutoProcessor.from_pretrained, options.vlm, kind=VLM)
    bare = open_pretrained(AutoModelForImageTextToText.from_pretrained, options.vlm, kind=VLM, dtype=options.dtype)
    bare = bare.to(options.device)
    model = add_language_lora(bare, options.lora_rank, 2 * options.lora_rank).train()
    selector = make_selector(options.selector, options.checkpoint, None, options.device, options.seed)
    make = Batches(processor, selector, options.frames, options.causal)
    loss_of = EnvironmentSwap(model, visual_token_ids(processor), options.every, options.weight)
    batches = endless(rows, options.batch_size, options.seed)
    if options.measure:
        inputs, causal = make(next(batches))
        cost = step_cost(loss_of, _to(inputs, options.device), causal.to(options.device), options.measure)
        print(f"plain step {cost['plain']:.3f} s, with intervention {cost['intervened']:.3f} s (CPU, medians)")
        print(f"overhead at one step in {options.every}: {cost['overhead']:.1%}")
        return
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=options.learning_rate)
    for step in range(options.steps):
        inputs, causal = make(next(batches))
        terms = loss_of(_to(inputs, options.device), causal.to(options.device), step)
        terms.loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        shown = "" if terms.consistency is None else f", consistency {float(terms.consistency):.4f}"
        print(f"step {step}: answer {float(terms.answer):.4f}{shown}", flush=True)
    if options.output:
        model.save_pretrained(options.output)
        print(f"adapters: {options.output}")


def _to(inputs: dict[str, Any], device: str) -> dict[str, Any]:
    return {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in inputs.items()}


if __name__ == "__main__":
    sys.exit(main())
