"""How much faster and smaller our TranSTR is than the original algorithm, measured side by side.

Both sides run in one process on one thread, turn about, and the medians of their CPU seconds are compared; memory is
the most that torch held beyond weights and optimizer state. The original is `reference.py`, with the same weights.
Ratios are what counts: seconds differ from machine to machine. Floors and moonshots are those the project set itself.
"""

import argparse
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from measure import Point, Row, medians, peak_mib, plot, row, show, write
from reference import ReferenceTranSTR, one_hot_topk
from torch import Tensor

from hf_causal_video.causal import perturbed_topk
from hf_causal_video.models.transtr import TranSTRConfig, TranSTRForVideoQuestionAnswering

RESULTS = Path(__file__).parent / "results" / "speed.csv"
# Words of NExT-QA validation questions and choices at the deciles; a token a word, plus the special ones.
QUESTION_WORDS, CHOICE_WORDS = (3, 6, 8, 9, 10, 12, 13, 14, 15, 17, 23), (1, 1, 1, 2, 2, 3, 3, 3, 4, 5, 8)
EXAMPLES = """
examples:
  python scripts/benchmarks/speed.py                     every case at paper size (about 20 minutes on one core)
  python scripts/benchmarks/speed.py --cases topk        the selection alone (about 2 minutes)
  python scripts/benchmarks/speed.py --growth            how cost grows with frames, objects and questions, and a plot
  python scripts/benchmarks/speed.py --quick             small sizes, to see that it runs; ratios mean nothing there

columns: `ratio` is original / ours; for `growth` the cost of 1,024 frames / the cost of 64, where less is better; for
`ceiling` what bfloat16 itself gives on this core, which differs much from core to core (2.3 to 4.5 so far).
bf16 predictions have bf16 weights, as `from_pretrained(..., dtype=torch.bfloat16)` gives; bf16 training is autocast.
"""


@dataclass(frozen=True)
class Size:
    """Sizes of every case: paper size by default."""

    batch: int = 8
    questions: int = 8
    frames: int = 16
    objects: int = 20
    long_frames: tuple[int, int] = (64, 1024)
    topk: tuple[int, int, int, int] = (384, 440, 5, 500)  # rows, positions, kept, draws: NExT-QA objects
    layers: int = 12
    hidden: int = 768
    object_dim: int = 2048


QUICK = Size(2, 2, 16, 6, (16, 32), (8, 40, 5, 50), 1, 64, 32)


class World:
    """A pair of models with the same weights, and inputs of paper size."""

    def __init__(self, size: Size, seed: int = 0):
        torch.manual_seed(seed)
        text = {
            "model_type": "deberta", "vocab_size": 50265, "type_vocab_size": 0, "relative_attention": True,
            "position_biased_input": False, "pos_att_type": ["c2p", "p2c"], "hidden_size": size.hidden,
            "num_hidden_layers": size.layers, "num_attention_heads": 12 if size.hidden % 12 == 0 else 4,
            "intermediate_size": 4 * size.hidden,
        }  # fmt: skip
        config = TranSTRConfig.preset(
            "official-nextqa", text_config=text, hidden_size=size.hidden, frame_feature_dim=size.hidden,
            object_feature_dim=size.object_dim, text_length_buckets=8,
        )  # fmt: skip
        self.size = size
        self.ours = TranSTRForVideoQuestionAnswering(config)
        self.original = ReferenceTranSTR(self.ours.config)
        self.original.load_state_dict(self.ours.state_dict())

    def text(self, questions: int, choices: int = 5) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Ids and masks of questions and choices, as long as those of NExT-QA."""

        def words(quantiles: tuple[int, ...], shape: tuple[int, ...]) -> Tensor:
            place = torch.rand(shape) * (len(quantiles) - 1)
            low, table = place.long(), torch.tensor(quantiles).float()
            return (table[low] + (table[low + 1] - table[low]) * (place - low)).round().long()

        def strings(lengths: Tensor) -> tuple[Tensor, Tensor]:
            mask = torch.arange(int(lengths.max())) < lengths.unsqueeze(-1)
            return torch.randint(5, 50265, mask.shape) * mask, mask.long()

        asked = words(QUESTION_WORDS, (questions,))
        return strings(asked + 2), strings(asked.unsqueeze(1) + words(CHOICE_WORDS, (questions, choices)) + 4)

    def video(self, clips: int, frames: int) -> tuple[Tensor, Tensor]:
        """Frame features, and object features with their boxes."""
        size = self.size
        return torch.randn(clips, frames, size.hidden), torch.randn(clips, frames, size.objects, size.object_dim + 4)

    def answer_ours(self, video, text, rows: Tensor | None = None, **more: Tensor):
        """Our model on these inputs."""
        (ids, mask), (choice_ids, choice_mask) = text
        return self.ours(
            frame_features=video[0], object_features=video[1], input_ids=ids, attention_mask=mask,
            choice_input_ids=choice_ids, choice_attention_mask=choice_mask, video_index=rows, **more,
        )  # fmt: skip

    def reason(self, frames: int) -> tuple[Callable[[], Tensor], ...]:
        """The method's own part on one video: the original, ours on a new video, ours on one encoded before."""
        (_, mask), (choice_ids, _) = self.text(self.size.questions)
        question = torch.randn(*mask.shape, self.size.hidden)
        choices = torch.randn(*choice_ids.shape[:2], self.size.hidden)
        given = self.video(1, frames)
        repeated = [tensor.expand(self.size.questions, *tensor.shape[1:]) for tensor in given]
        encoded, rows = self.ours.encode_video(*given), torch.zeros(self.size.questions, dtype=torch.long)
        text = {"question_features": question, "attention_mask": mask, "choice_features": choices, "video_index": rows}
        return (
            lambda: self.original.reason(repeated[0], repeated[1], question, mask.bool(), choices),
            lambda: self.ours(frame_features=given[0], object_features=given[1], **text).logits,
            lambda: self.ours(video=encoded, **text).logits,
        )


@torch.no_grad()
def ceiling(size: Size, rounds: int) -> list[Row]:
    """What bfloat16 can give on this core: a matrix product of the text encoder's shape in float32 over bfloat16."""
    x, weight = torch.randn(40 * size.questions, size.hidden), torch.randn(4 * size.hidden, size.hidden)
    pairs = {"fp32": (x, weight), "bf16": (x.bfloat16(), weight.bfloat16())}
    runs = {
        name: lambda pair=pair: [torch.nn.functional.linear(*pair) for _ in range(20)] for name, pair in pairs.items()
    }
    seconds = medians(runs, rounds)
    return [row("matrix product, fp32 / bf16", "ceiling", seconds["fp32"], seconds["bf16"], 0, 0)]


def topk(size: Size, rounds: int) -> list[Row]:
    """The perturbed top-K alone, forward and backward."""
    rows, positions, k, draws = size.topk
    scores, upstream = torch.rand(rows, positions, requires_grad=True), torch.randn(rows, positions, k)

    def step(operator: Callable[..., Tensor], **options: str) -> Callable[[], None]:
        def run() -> None:
            torch.autograd.grad(operator(scores, k, draws, 0.05, **options), scores, upstream)

        return run

    runs = {"original": step(one_hot_topk)}
    runs |= {kind: step(perturbed_topk, gradient=kind) for kind in ("diagonal", "full")}
    seconds, memory = medians(runs, rounds), {name: peak_mib(run) for name, run in runs.items()}
    found = []
    for kind in ("diagonal", "full"):
        found.append(row(f"top-K, {kind} gradient", "time", seconds["original"], seconds[kind], 8, 20))
        found.append(row(f"top-K, {kind} gradient", "memory", memory["original"], memory[kind], 100, 400))
    return found


def training(size: Size, rounds: int) -> list[Row]:
    """One training step: forward, backward, optimizer."""
    world = World(size)
    video, text, labels = world.video(size.batch, size.frames), world.text(size.batch), torch.randint(5, (size.batch,))

    def step(model: torch.nn.Module, loss: Callable[[], Tensor], fused: bool, bf16: bool) -> Callable[[], None]:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=1e-3, fused=fused)

        def run() -> None:
            model.train()
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                value = loss()
            value.backward()
            optimizer.step()
            optimizer.zero_grad()

        return run

    def original() -> Tensor:
        return torch.nn.functional.cross_entropy(world.original(*video, *text), labels)

    def ours() -> Tensor:
        return world.answer_ours(video, text, labels=labels).loss

    runs = {
        "original": step(world.original, original, False, False),
        "fp32": step(world.ours, ours, True, False),
        "bf16": step(world.ours, ours, True, True),
    }
    seconds, memory = medians(runs, rounds), {name: peak_mib(run) for name, run in runs.items()}
    return [
        row("training step, fp32", "time", seconds["original"], seconds["fp32"], 1.3, 2),
        row("training step, fp32", "memory", memory["original"], memory["fp32"], 1.8, 4),
        row("training step, bf16", "time", seconds["original"], seconds["bf16"], 2.5, 4),
        row("training step, bf16", "memory", memory["original"], memory["bf16"], 1.8, 4),
    ]


@torch.no_grad()
def prediction(size: Size, rounds: int) -> list[Row]:
    """All questions of one video answered at once."""
    world = World(size)
    world.ours.eval(), world.original.eval()
    video, text = world.video(1, size.frames), world.text(size.questions)
    repeated = [tensor.expand(size.questions, *tensor.shape[1:]).contiguous() for tensor in video]
    rows = torch.zeros(size.questions, dtype=torch.long)
    torch.testing.assert_close(
        world.answer_ours(video, text, rows).logits, world.original(*repeated, *text), atol=1e-4, rtol=1e-3
    )
    small = World(size)
    small.ours.bfloat16().eval()
    runs = {
        "original": lambda: world.original(*repeated, *text),
        "fp32": lambda: world.answer_ours(video, text, rows),
        "bf16": lambda: small.answer_ours(video, text, rows),
    }
    seconds = medians(runs, rounds)
    return [
        row("prediction, fp32", "time", seconds["original"], seconds["fp32"], 1.25, 2),
        row("prediction, bf16", "time", seconds["original"], seconds["bf16"], 3.5, 6),
    ]


@torch.no_grad()
def long_video(size: Size, rounds: int) -> list[Row]:
    """The method's own part on long videos: questions asked together, of a new video or of one encoded before."""
    world = World(Size(**(asdict(size) | {"layers": 1})))
    world.ours.eval(), world.original.eval()
    (_, short, _), (original, long, cached) = (world.reason(frames) for frames in size.long_frames)
    for ours in (long, cached):
        torch.testing.assert_close(ours(), original(), atol=1e-4, rtol=1e-3)
    seconds = medians({"short": short, "long": long, "cached": cached, "original": original}, rounds)
    name = f"{size.long_frames[1]:,} frames, own part"
    return [
        row(f"{name}, cached video", "time", seconds["original"], seconds["cached"], 8, 20),
        row(f"{name}, new video", "time", seconds["original"], seconds["long"], 1, 8),
        row(f"{size.long_frames[0]} to {name}", "growth", seconds["long"], seconds["short"], 16, 8),
    ]


@torch.no_grad()
def growth(size: Size, rounds: int) -> list[Point]:
    """How the method's own part grows, each axis alone: a new video, one encoded before, and the original.

    The last points are 64 times the frames, 5 times the objects, 16 times the questions of the first.
    """
    axes = {"frames": (16, 64, 256, 1024), "objects": (20, 40, 60, 80, 100), "questions": (1, 2, 4, 8, 16)}
    axes = axes if size.layers > 1 else {name: values[:2] for name, values in axes.items()}  # quick
    points = []
    for axis, values in axes.items():
        for value in values:
            fields = asdict(size) | {"layers": 1} | {axis: value}
            world = World(Size(**fields))
            world.ours.eval(), world.original.eval()
            names = "cached", "new", "original"
            runs = dict(zip(names, reversed(world.reason(world.size.frames)), strict=True))
            seconds = medians(runs, rounds)
            points += [Point(axis, value, name, seconds[name]) for name in names]
    return points


CASES = {"ceiling": ceiling, "topk": topk, "training": training, "prediction": prediction, "long_video": long_video}


def main(arguments: list[str] | None = None) -> list[Row]:
    """Run the cases asked for, print the table and write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="which cases (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds a case (default: 5)")
    parser.add_argument("--growth", action="store_true", help="measure how cost grows instead; needs matplotlib")
    parser.add_argument("--quick", action="store_true", help="small sizes and one round: a test of the script itself")
    parser.add_argument("--out", type=Path, help=f"where the CSV goes (default: {RESULTS.name} in results/)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    size, rounds = (QUICK, 1) if options.quick else (Size(), options.rounds)
    print(f"one thread, torch {torch.__version__}, {platform.machine()}, {rounds} rounds", flush=True)
    if options.growth:
        points = growth(size, rounds)
        for point in points:
            print(f"{point.axis:10}{point.value:6}  {point.side:10}{point.seconds:10.4g} s", flush=True)
        out = options.out or RESULTS.with_name("growth.csv")
        write(points, out)
        plot(points, out.with_suffix(".png"))
        return []
    rows: list[Row] = []
    for name in options.cases:
        found = CASES[name](size, rounds)
        show(found, options.quick, header=not rows)
        rows += found
    if options.out or not options.quick:
        write(rows, options.out or RESULTS)
    return rows


if __name__ == "__main__":
    main()
