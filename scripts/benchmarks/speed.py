"""How much faster and smaller our TranSTR is than the original algorithm, measured side by side.

Both sides run in one process on one thread, in turns, and ratios are medians over rounds of paired CPU seconds; memory
is the most that torch held beyond weights and optimizer state. The original is `reference.py`: our own plain
implementation of the published method, with the same weights, and not the authors' code. Ratios are what counts:
seconds differ from machine to machine. Strings are as long as those of NExT-QA. Ours is measured as published
(`official-nextqa`) and in our own setting (`clean`). Floors and moonshots are those the project set itself.
"""

import argparse
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from measure import Plan, Point, Row, add_flags, peaks, plot, row, run_cases, timings, write
from reference import ReferenceTranSTR, one_hot_topk
from torch import Tensor

from hf_causal_video.causal import perturbed_topk
from hf_causal_video.models.transtr import TranSTRConfig, TranSTRForVideoQuestionAnswering

RESULTS = Path(__file__).parent / "results" / "speed.csv"
# Words of 48 random questions of NExT-QA's validation split, and of their five choices; a token per word, plus the
# special ones. The tokens of a batch, padding included, are within 2 % of those of the whole split.
WORDS = (
    (8, 2, 2, 5, 4, 5), (13, 3, 3, 3, 3, 5), (8, 2, 2, 1, 1, 1), (15, 4, 3, 5, 3, 4), (10, 3, 4, 3, 1, 6),
    (18, 3, 6, 3, 3, 1), (7, 1, 1, 1, 1, 1), (17, 5, 3, 5, 3, 4), (14, 4, 4, 4, 3, 3), (9, 4, 4, 1, 2, 6),
    (8, 3, 3, 3, 3, 2), (8, 4, 4, 1, 5, 2), (15, 4, 4, 3, 3, 2), (12, 2, 1, 1, 6, 1), (11, 3, 3, 4, 2, 5),
    (18, 5, 3, 3, 3, 5), (8, 3, 4, 3, 5, 5), (12, 4, 4, 1, 1, 3), (11, 2, 6, 3, 7, 3), (12, 4, 2, 1, 1, 1),
    (9, 5, 1, 4, 3, 4), (11, 5, 6, 3, 5, 4), (19, 3, 2, 1, 6, 2), (16, 4, 6, 5, 4, 4), (16, 1, 5, 2, 3, 4),
    (10, 1, 4, 6, 3, 5), (9, 1, 2, 2, 2, 3), (7, 2, 3, 1, 1, 1), (11, 3, 2, 2, 4, 2), (5, 1, 1, 1, 1, 1),
    (9, 3, 3, 3, 1, 1), (6, 1, 3, 1, 3, 5), (10, 3, 1, 3, 4, 4), (6, 2, 1, 2, 1, 1), (5, 2, 2, 1, 2, 1),
    (10, 4, 6, 5, 3, 4), (10, 2, 4, 1, 2, 4), (16, 3, 2, 4, 2, 4), (8, 1, 1, 1, 1, 1), (12, 2, 2, 2, 1, 2),
    (8, 5, 2, 2, 4, 4), (11, 1, 5, 2, 5, 5), (8, 4, 5, 4, 4, 5), (15, 4, 1, 3, 1, 4), (15, 4, 4, 4, 5, 2),
    (13, 2, 6, 1, 3, 3), (14, 6, 4, 5, 3, 5), (15, 1, 3, 5, 2, 2),
)  # fmt: skip
EXAMPLES = """
examples:
  python scripts/benchmarks/speed.py                     every case at paper size (about 20 minutes on one core)
  python scripts/benchmarks/speed.py --quick             the same in 3 rounds without memory (about 5 minutes): which
                                                         ratio moved by more than its spread?
  python scripts/benchmarks/speed.py --cases topk        the selection alone (about 2 minutes)
  python scripts/benchmarks/speed.py --growth            how cost grows with frames, objects and questions, and a plot
  python scripts/benchmarks/speed.py --tiny              tiny sizes, to see that it runs; ratios mean nothing there

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


TINY = Size(2, 2, 16, 6, (16, 32), (8, 40, 5, 50), 1, 64, 32)


def clean_config(published: TranSTRConfig) -> TranSTRConfig:
    """Our own setting at the sizes of a published one."""
    sizes = ("text_config", "hidden_size", "frame_feature_dim", "object_feature_dim", "text_length_buckets")
    kept = ("num_frames_kept", "num_objects_kept", "bbox_mode")
    return TranSTRConfig.preset("clean", **{name: getattr(published, name) for name in (*sizes, *kept)})


class World:
    """A pair of models with the same weights, our own setting beside them, and inputs of paper size."""

    def __init__(self, size: Size, seed: int = 0):
        torch.manual_seed(seed)
        text = {
            "model_type": "deberta",
            "vocab_size": 50265,
            "type_vocab_size": 0,
            "relative_attention": True,
            "position_biased_input": False,
            "pos_att_type": ["c2p", "p2c"],
            "hidden_size": size.hidden,
            "num_hidden_layers": size.layers,
            "num_attention_heads": 12 if size.hidden % 12 == 0 else 4,
            "intermediate_size": 4 * size.hidden,
        }
        config = TranSTRConfig.preset(
            "official-nextqa",
            text_config=text,
            hidden_size=size.hidden,
            frame_feature_dim=size.hidden,
            object_feature_dim=size.object_dim,
            text_length_buckets=8,
        )
        self.size = size
        self.ours = TranSTRForVideoQuestionAnswering(config)
        self.clean = TranSTRForVideoQuestionAnswering(clean_config(config))
        self.original = ReferenceTranSTR(self.ours.config)
        self.original.load_state_dict(self.ours.state_dict())

    def eval(self) -> None:
        """Set all models to evaluation mode."""
        for model in (self.ours, self.clean, self.original):
            model.eval()

    def text(self, questions: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Ids and masks of questions and choices, as long as those of NExT-QA."""
        words = torch.tensor(WORDS)[torch.randint(len(WORDS), (questions,))]  # (B, 1 + A)

        def strings(lengths: Tensor) -> tuple[Tensor, Tensor]:
            mask = torch.arange(int(lengths.max())) < lengths.unsqueeze(-1)
            return torch.randint(5, 50265, mask.shape) * mask, mask.long()

        return strings(words[:, 0] + 2), strings(words[:, :1] + words[:, 1:] + 4)

    def video(self, clips: int, frames: int) -> tuple[Tensor, Tensor]:
        """Frame features, and object features with their boxes."""
        size = self.size
        return torch.randn(clips, frames, size.hidden), torch.randn(clips, frames, size.objects, size.object_dim + 4)

    def answer(self, model: TranSTRForVideoQuestionAnswering, video, text, rows: Tensor | None = None, **more: Tensor):
        """Run one of our models on these inputs."""
        (ids, mask), (choice_ids, choice_mask) = text
        return model(
            frame_features=video[0],
            object_features=video[1],
            input_ids=ids,
            attention_mask=mask,
            choice_input_ids=choice_ids,
            choice_attention_mask=choice_mask,
            video_index=rows,
            **more,
        )

    def reason(self, frames: int) -> dict[str, Callable[[], Tensor]]:
        """The method's own part on one video: the original; ours, on a new video and on one encoded before."""
        (_, mask), (choice_ids, _) = self.text(self.size.questions)
        question = torch.randn(*mask.shape, self.size.hidden)
        choices = torch.randn(*choice_ids.shape[:2], self.size.hidden)
        video = self.video(1, frames)
        repeated = [tensor.expand(self.size.questions, *tensor.shape[1:]) for tensor in video]
        rows = torch.zeros(self.size.questions, dtype=torch.long)
        text = {"question_features": question, "attention_mask": mask, "choice_features": choices, "video_index": rows}
        features = {"frame_features": video[0], "object_features": video[1]}
        runs = {"original": lambda: self.original.reason(repeated[0], repeated[1], question, mask.bool(), choices)}

        def answer(model: TranSTRForVideoQuestionAnswering, order: str, video: Mapping[str, object]) -> Tensor:
            model.config.select_after = order
            return model(**video, **text).logits

        settings = (
            ("", self.ours, "feedforward"),
            (", clean", self.clean, "feedforward"),
            (", clean, early choice", self.clean, "cross_attention"),
        )
        for name, model, order in settings:
            encoded = {"video": model.encode_video(*video)}
            runs[f"new video{name}"] = partial(answer, model, order, features)
            runs[f"cached video{name}"] = partial(answer, model, order, encoded)
        return runs


@torch.no_grad()
def ceiling(size: Size, plan: Plan) -> list[Row]:
    """What bfloat16 can give on this core: a matrix product of the text encoder's shape in float32 over bfloat16."""
    x, weight = torch.randn(40 * size.questions, size.hidden), torch.randn(4 * size.hidden, size.hidden)
    pairs = {"fp32": (x, weight), "bf16": (x.bfloat16(), weight.bfloat16())}
    runs = {
        name: lambda pair=pair: [torch.nn.functional.linear(*pair) for _ in range(20)] for name, pair in pairs.items()
    }
    seconds = timings(runs, plan.rounds)
    return [row("matrix product, fp32 / bf16", "ceiling", seconds["fp32"], seconds["bf16"], 0, 0, against="torch")]


def topk(size: Size, plan: Plan) -> list[Row]:
    """The perturbed top-K alone, forward and backward."""
    rows, positions, k, draws = size.topk
    scores, upstream = torch.rand(rows, positions, requires_grad=True), torch.randn(rows, positions, k)

    def step(operator: Callable[..., Tensor], **options: str) -> Callable[[], None]:
        def run() -> None:
            torch.autograd.grad(operator(scores, k, draws, 0.05, **options), scores, upstream)

        return run

    runs = {"original": step(one_hot_topk)}
    runs |= {kind: step(perturbed_topk, gradient=kind) for kind in ("diagonal", "full")}
    seconds = timings(runs, plan.rounds)
    memory = peaks(runs, plan)
    found = []
    for kind, floors in (("diagonal", (16, 22)), ("full", (12, 18))):
        found.append(row(f"top-K, {kind} gradient", "time", seconds["original"], seconds[kind], *floors))
        if memory:
            found.append(row(f"top-K, {kind} gradient", "memory", memory["original"], memory[kind], 100, 400))
    return found


def training(size: Size, plan: Plan) -> list[Row]:
    """One training step: forward, backward, optimizer."""
    world = World(size)
    video, text, labels = world.video(size.batch, size.frames), world.text(size.batch), torch.randint(5, (size.batch,))

    def step(
        model: torch.nn.Module, loss: Callable[[], Tensor], fused: bool, bf16: bool = False
    ) -> Callable[[], None]:
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

    def ours(model: TranSTRForVideoQuestionAnswering) -> Tensor:
        return world.answer(model, video, text, labels=labels).loss

    runs = {
        "original": step(world.original, original, False),
        "fp32": step(world.ours, partial(ours, world.ours), True),
        "bf16": step(world.ours, partial(ours, world.ours), True, bf16=True),
        "fp32, clean": step(world.clean, partial(ours, world.clean), True),
    }
    seconds = timings(runs, plan.rounds)
    memory = peaks(runs, plan)
    floors = {"fp32": (2, 2.9), "bf16": (4.2, 5), "fp32, clean": (2, 2.9)}
    found = [
        row(f"training step, {name}", "time", seconds["original"], seconds[name], *floors[name]) for name in floors
    ]
    for name in floors if memory else ():
        found.append(row(f"training step, {name}", "memory", memory["original"], memory[name], 1.8, 4))
    return found


@torch.no_grad()
def prediction(size: Size, plan: Plan) -> list[Row]:
    """All questions of one video answered at once."""
    world = World(size)
    world.eval()
    video, text = world.video(1, size.frames), world.text(size.questions)
    repeated = [tensor.expand(size.questions, *tensor.shape[1:]).contiguous() for tensor in video]
    rows = torch.zeros(size.questions, dtype=torch.long)
    logits = world.answer(world.ours, video, text, rows).logits
    torch.testing.assert_close(logits, world.original(*repeated, *text), atol=1e-4, rtol=1e-3)
    small = World(size).ours.bfloat16().eval()
    models = {"fp32": world.ours, "bf16": small, "fp32, clean": world.clean}
    runs: dict[str, Callable[[], object]] = {"original": lambda: world.original(*repeated, *text)}
    runs |= {name: partial(world.answer, model, video, text, rows) for name, model in models.items()}
    seconds = timings(runs, plan.rounds)
    floors = {"fp32": (2, 3), "bf16": (6.5, 8), "fp32, clean": (2, 3)}
    return [row(f"prediction, {name}", "time", seconds["original"], seconds[name], *floors[name]) for name in floors]


@torch.no_grad()
def long_video(size: Size, plan: Plan) -> list[Row]:
    """The method's own part on long videos: questions asked together, of a new video or of one encoded before."""
    world = World(Size(**(asdict(size) | {"layers": 1})))
    world.eval()
    few, many = size.long_frames
    runs = world.reason(many)
    for name in ("new video", "cached video"):
        torch.testing.assert_close(runs[name](), runs["original"](), atol=1e-4, rtol=1e-3)
    seconds = timings({"short": world.reason(few)["new video"], **runs}, plan.rounds)
    floors = {
        "cached video": (20, 30),
        "cached video, clean": (8, 20),
        "cached video, clean, early choice": (8, 20),
        "new video": (1, 8),
        "new video, clean": (1, 8),
        "new video, clean, early choice": (1, 8),
    }
    found = [
        row(f"{many:,} frames, own part, {name}", "time", seconds["original"], seconds[name], *floors[name])
        for name in floors
    ]
    growth = row(
        f"{few} to {many:,} frames, own part", "growth", seconds["new video"], seconds["short"], 16, 8, "our own part"
    )
    return [*found, growth]


@torch.no_grad()
def growth(size: Size, rounds: int) -> list[Point]:
    """How the method's own part grows, each axis alone: a new video, one encoded before, and the original.

    The last points are 64 times the frames, 5 times the objects, 16 times the questions of the first.
    """
    axes = {"frames": (16, 64, 256, 1024), "objects": (20, 40, 60, 80, 100), "questions": (1, 2, 4, 8, 16)}
    axes = axes if size.layers > 1 else {name: values[:2] for name, values in axes.items()}  # tiny
    points = []
    for axis, values in axes.items():
        for value in values:
            fields = asdict(size) | {"layers": 1} | {axis: value}
            world = World(Size(**fields))
            world.eval()
            runs = world.reason(world.size.frames)
            names = {"cached": "cached video", "new": "new video", "original": "original"}
            seconds = timings({name: runs[run] for name, run in names.items()}, rounds)
            points += [Point(axis, value, name, statistics.median(seconds[name])) for name in names]
    return points


CASES = {"ceiling": ceiling, "topk": topk, "training": training, "prediction": prediction, "long_video": long_video}


def main(arguments: list[str] | None = None) -> list[Row]:
    """Run the cases asked for, print the table, and write or compare it."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_flags(parser, list(CASES), RESULTS)
    parser.add_argument("--growth", action="store_true", help="measure how cost grows instead; needs matplotlib")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    size = TINY if options.tiny else Size()
    if options.growth:
        points = growth(size, 1 if options.tiny else options.rounds or 5)
        for point in points:
            print(f"{point.axis:10}{point.value:6}  {point.side:10}{point.seconds:10.4g} s", flush=True)
        out = options.out or RESULTS.with_name("growth.csv")
        write(points, out)
        plot(points, out.with_suffix(".png"))
        return []
    return run_cases({name: partial(case, size) for name, case in CASES.items()}, options, RESULTS)


if __name__ == "__main__":
    main()
