"""How much faster and smaller our IGV and EIGV over HGA are than the original algorithms, measured side by side.

Both sides run in one process on one thread, in turns, with the same weights; the original is `reference_grounding.py`,
our own plain implementation of the published methods, and not the authors' code. Before anything is timed, both answer
alike, and one training step with the same random draws gives the same loss. Ours is measured as the published setting
and as our own (`clean`), whose backbone is of the same size.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measure import Plan, Row, add_flags, peaks, row, run_cases, timings
from reference_grounding import ReferenceEIGV, ReferenceIGV, Shape
from torch import Tensor, nn

from hf_causal_video import convert_official_checkpoint
from hf_causal_video.causal import FrameBank
from hf_causal_video.models.base import RandomInputs
from hf_causal_video.models.eigv import EIGVConfig, EIGVForVideoQuestionAnswering
from hf_causal_video.models.igv import IGVConfig, IGVForVideoQuestionAnswering

RESULTS = Path(__file__).parent / "results" / "speed_grounding.csv"
MSVD = Shape(word=512, answers=1853, cell="GRU", dropout=0.5, tau=1.0)
TINY: dict[str, Any] = {"video": 32, "text": 24, "word": 16, "hidden": 8, "block": (30, 5, 3)}
EXAMPLES = """
examples:
  python scripts/benchmarks/speed_grounding.py             published sizes (about 10 minutes on one core)
  python scripts/benchmarks/speed_grounding.py --quick     the same in 3 rounds without memory (about 5 minutes): which
                                                           ratio moved by more than its spread?
  python scripts/benchmarks/speed_grounding.py --tiny      tiny sizes, to see that it runs; ratios mean nothing there

Sizes: IGV as on MSVD-QA, 64 questions, a bank of 1,161 videos; EIGV as on NExT-QA, 16 questions of 5 candidates, 5
negatives of each kind, the same bank; 16 frames of 4,096 numbers. `ratio` is original / ours.
"""


def batch(shape: Shape, size: int, videos: int, strings: int | None = None) -> dict[str, Tensor]:
    """Questions as long as those of the data sets, on clips of a bank."""
    rows = (size,) if strings is None else (size, strings)
    lengths = torch.randint(5, 13, rows) if strings is None else torch.randint(10, 31, rows)
    tokens = torch.randn(*rows, int(lengths.max()), shape.text)
    bank, own = torch.randn(videos, 16, shape.video), torch.randperm(videos)[:size]
    answers = strings or shape.answers or 1
    return {
        "frames": bank[own], "tokens": tokens, "lengths": lengths, "bank": bank, "own": own,
        "answer": torch.randint(answers, (size,)),
    }  # fmt: skip


def inputs_of(given: dict[str, Tensor], multiple: bool) -> dict[str, Tensor]:
    """The same batch under our names."""
    mask = torch.arange(given["tokens"].shape[-2]) < given["lengths"].unsqueeze(-1)
    what = "choice_features" if multiple else "question_features"
    named = "choice_attention_mask" if multiple else "attention_mask"
    return {
        "frame_features": given["frames"], what: given["tokens"], named: mask, "video_ids": given["own"],
        "labels": given["answer"],
    }  # fmt: skip


def pair(original: Any, method: str, variant: str, given: dict[str, Tensor]) -> Any:
    """Our model with the original's weights, as published but without dropout, and its bank."""
    shape: Shape = original.shape
    width, chunks, rank = shape.block
    sizes = {
        "cell": shape.cell.lower(), "hidden_dim": shape.hidden, "word_dim": shape.word, "dropout": shape.dropout,
        "pool_mask": "post", "bilinear_dim": width, "bilinear_chunks": chunks, "bilinear_rank": rank,
        "bilinear_epsilon": None,
    }  # fmt: skip
    ours: Any = convert_official_checkpoint(
        original.state_dict(), method, variant,
        {"backbone_config": sizes, "frame_feature_dim": shape.video, "text_feature_dim": shape.text,
         "num_answers": shape.answers, "zero_sum_padding": False, "gumbel_tau": shape.tau},
    )  # fmt: skip
    ours.bank = FrameBank(given["bank"], torch.arange(len(given["bank"])))
    return ours


def own_setting(kind: Any, config: Any, shape: Shape, **fields: Any) -> Any:
    """Our setting (`clean`) at the same sizes, past its warm-up."""
    width, chunks, rank = shape.block
    sizes = {
        "cell": shape.cell.lower(), "hidden_dim": shape.hidden, "word_dim": shape.word, "dropout": shape.dropout,
        "bilinear_dim": width, "bilinear_chunks": chunks, "bilinear_rank": rank,
    }  # fmt: skip
    model = kind(config(
        backbone_config=sizes, frame_feature_dim=shape.video, text_feature_dim=shape.text,
        num_answers=shape.answers, **fields,
    ))  # fmt: skip
    model.training_progress = 1.0
    return model


def step(model: nn.Module, loss: Callable[[], Tensor], fused: bool, bf16: bool = False) -> Callable[[], None]:
    """Forward, backward, optimizer."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=fused)

    def run() -> None:
        model.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def same_loss(theirs: Tensor, ours: Tensor) -> None:
    """Both training steps compute one number."""
    torch.testing.assert_close(ours.float(), theirs.float(), atol=1e-4, rtol=1e-4)


def without_dropout(*models: nn.Module) -> None:
    """For the comparison; what is timed keeps its dropout."""
    for model in models:
        model.train()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.eval()
            elif isinstance(getattr(module, "dropout", None), float):
                module.training = False


def predictions(models: dict[str, Any], calls: dict[str, Callable[[Any], object]]) -> dict[str, Callable[[], None]]:
    """A call of each model in evaluation mode, without gradients."""

    @torch.no_grad()
    def predict(name: str) -> None:
        calls[name](models[name].eval())

    return {name: partial(predict, name) for name in models}


def rows_of(
    method: str,
    plan: Plan,
    steps: dict[str, Callable[[], None]],
    answers: dict[str, Callable[[], None]],
    floors: dict[str, tuple[float, float]],
) -> list[Row]:
    """Time prediction and training of a method; `floors` has floor and moonshot of each line."""
    seconds = {"prediction": timings(answers, plan.rounds), "training step": timings(steps, plan.rounds)}
    memory = peaks({name: steps[name] for name in ("original", "ours")}, plan)
    against = "reference_grounding.py"
    found = []
    for what, times in seconds.items():
        for name in times:
            if name != "original":
                line = f"{what}" + ("" if name == "ours" else f", {name}")
                limits = floors.get(line, (0, 0))
                found.append(row(f"{method} {line}", "time", times["original"], times[name], *limits, against=against))
    if memory:
        both = memory["original"], memory["ours"]
        found.append(row(f"{method} training step", "memory", *both, 0, 0, against=against))
    return found


def run(model: Any, draws: RandomInputs, inputs: dict[str, Any]) -> Any:
    """One call with given random inputs."""
    with model.fixed_random_inputs(draws):
        return model(**inputs)


def igv(size: int, videos: int, shape: Shape, plan: Plan) -> list[Row]:
    """Prediction and a training step of IGV."""
    given = batch(shape, size, videos)
    original = ReferenceIGV(shape)
    ours = pair(original, "igv", "msvd-hga", given)
    clean = own_setting(IGVForVideoQuestionAnswering, IGVConfig, shape)
    arguments: Any = [given[name] for name in ("frames", "tokens", "lengths", "bank", "own")]
    inputs = inputs_of(given, False)
    noise, flat = -torch.empty(size, 2, 16).exponential_().log(), torch.randint(videos * 16, (size, 16))
    draws = RandomInputs(gumbel=noise, foreign=flat)
    without_dropout(original, ours)
    logits = original(*arguments, noise, flat)
    same_loss(original.loss(logits, given["answer"]), run(ours, draws, inputs).loss)
    original.eval(), ours.eval()
    torch.testing.assert_close(
        run(ours, draws, inputs).logits, original(*arguments, noise, flat)[0], atol=1e-4, rtol=1e-3
    )
    steps = {
        "original": step(original, lambda: original.loss(original(*arguments), given["answer"]), False),
        "ours": step(ours, lambda: ours(**inputs).loss, True),
        "clean": step(clean, lambda: clean(**inputs).loss, True),
        "bf16": step(ours, lambda: ours(**inputs).loss, True, bf16=True),
    }
    asked = {name: tensor for name, tensor in inputs.items() if name != "labels"}
    answers = predictions(
        {"original": original, "ours": ours, "clean": clean},
        {
            "original": lambda model: model(*arguments),
            "ours": lambda model: model(**asked),
            "clean": lambda model: model(**asked),
        },
    )
    floors: dict[str, tuple[float, float]] = {
        "prediction": (3.1, 4),
        "prediction, clean": (2.8, 4),
        "training step": (1.5, 2),
        "training step, clean": (1.5, 2),
        "training step, bf16": (2.6, 3.5),
    }
    return rows_of("IGV", plan, steps, answers, floors)


def eigv(size: int, videos: int, shape: Shape, plan: Plan) -> list[Row]:
    """Prediction and a training step of EIGV."""
    given = batch(shape, size, videos, 5)
    original: Any = ReferenceEIGV(shape)
    ours = pair(original, "eigv", "nextqa-hga", given)
    clean = own_setting(EIGVForVideoQuestionAnswering, EIGVConfig, shape, num_choices=5)
    arguments: Any = [given[name] for name in ("frames", "tokens", "lengths", "answer", "bank", "own")]
    inputs, copies = inputs_of(given, True), original.negatives
    noise = [-torch.empty(size, 2, 16).exponential_().log() for _ in range(2)]
    foreign = [torch.randint(videos * 16, (rows, 16)) for rows in (size, copies * size)]
    lambdas, partner, order = torch.rand(2), torch.randperm(size), torch.randperm(copies * size)
    theirs = {
        "gumbel_noise_1": noise[0], "gumbel_noise_2": noise[1], "bank_index_positive": foreign[0],
        "bank_index_negative": foreign[1], "lambda1": lambdas[0], "lambda2": lambdas[1], "permutation": partner,
        "question_shuffle": order,
    }  # fmt: skip
    draws = RandomInputs(
        gumbel=noise[0], gumbel_mixed=noise[1], foreign=foreign[0], foreign_negative=foreign[1].view(copies, size, -1),
        lambda1=lambdas[0], lambda2=lambdas[1], partner=partner, question_swap=order.view(copies, size),
    )  # fmt: skip
    without_dropout(original, ours)
    same_loss(original.step(*arguments, theirs), run(ours, draws, inputs).loss)
    steps = {
        "original": step(original, lambda: original.step(*arguments), False),
        "ours": step(ours, lambda: ours(**inputs).loss, True),
        "clean": step(clean, lambda: clean(**inputs).loss, True),
        "bf16": step(ours, lambda: ours(**inputs).loss, True, bf16=True),
    }
    asked = {name: tensor for name, tensor in inputs.items() if name != "labels"}
    answers = predictions(
        {"original": original, "ours": ours},
        {"original": lambda model: model(*arguments[:3]), "ours": lambda model: model(**asked)},
    )
    floors: dict[str, tuple[float, float]] = {
        "prediction": (1.5, 2.5),
        "training step": (1.65, 2),
        "training step, clean": (1.65, 2),
        "training step, bf16": (2.9, 3.5),
    }
    return rows_of("EIGV", plan, steps, answers, floors)


def main(arguments: list[str] | None = None) -> list[Row]:
    """Run the cases asked for, print the table, and write or compare it."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_flags(parser, ["igv", "eigv"], RESULTS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if options.tiny:
        cases = {
            "igv": partial(igv, 4, 9, Shape(**TINY, answers=7, cell="GRU")),
            "eigv": partial(eigv, 3, 9, Shape(**TINY)),
        }
    else:
        cases = {"igv": partial(igv, 64, 1161, MSVD), "eigv": partial(eigv, 16, 1161, Shape())}
    return run_cases(cases, options, RESULTS)


if __name__ == "__main__":
    main()
