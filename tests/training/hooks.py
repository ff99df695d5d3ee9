"""What a run in a process of its own is told to do differently, or to write down, before it starts."""

import functools
import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, trainer

GROUP = 4  # samples of one process, where two share a batch of eight


class Steps(TrainerCallback):
    """Knows the step that is being made, and how many draws it has made."""

    now = draws = 0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        Steps.now, Steps.draws = state.global_step, 0


def draw_by_group(argv: list[str]) -> None:
    """Every random draw of a step becomes a function of the step and the group of four samples that it is for.

    So one process that trains on two groups draws what two processes draw that train on a group each. Whatever looks
    at other samples of a batch, as swaps, mixing, negatives and matching do, looks at its group, because a process
    sees no other. And all is in double precision: a rounding that tips one of the choices of a top-K would otherwise
    grow into another run within a few steps.
    """
    from hf_causal_video.models.igv import IGVForVideoQuestionAnswering as IGV
    from hf_causal_video.models.igv import modeling_igv
    from hf_causal_video.models.transtr import selection

    torch.set_default_dtype(torch.float64)
    trainer.DEFAULT_CALLBACKS.append(Steps)
    matching_loss = modeling_igv.matching_loss

    def matching_in_groups(margins: Tensor, mask: Tensor, rows: Tensor, own: Tensor) -> Tensor:
        clips = mask.chunk(len(_groups()))
        assert torch.equal(rows.unique(), torch.arange(len(mask)))  # a clip for each question
        losses, ask = [], len(rows) // len(mask)
        for number, part in enumerate(clips):
            here = slice(number * len(part) * ask, (number + 1) * len(part) * ask)
            seen = margins[here, number * len(part) : (number + 1) * len(part)]
            losses.append(matching_loss(seen, part, rows[here] - number * len(part), own[here]))
        return torch.stack(losses).mean()

    exchange = modeling_igv.exchange_surroundings

    def exchange_in_groups(frames: Tensor, causal: Tensor, environment: Tensor, donors: Tensor) -> Tensor:
        moved, sides = [], [side.split(GROUP) for side in (frames, causal, environment)]
        for group, parts in zip(_groups(), zip(*sides, strict=True), strict=True):
            with torch.random.fork_rng():
                torch.manual_seed(1000 * Steps.now + group)
                rotated = torch.roll(torch.arange(GROUP), 1 + int(torch.randint(GROUP - 1, ())))  # the donors
                moved.append(exchange(*parts, rotated))
        return torch.cat(moved)

    separation = modeling_igv.separation_loss

    def separation_in_groups(*sides: Tensor) -> Tensor:
        groups = zip(*(side.split(GROUP) for side in sides), strict=True)
        return torch.stack([separation(*parts) for parts in groups]).mean()

    modeling_igv.matching_loss = matching_in_groups
    modeling_igv.separation_loss = separation_in_groups
    modeling_igv.exchange_surroundings = exchange_in_groups
    perturbed_topk = selection.perturbed_topk

    @functools.wraps(perturbed_topk)
    def repeatable_topk(scores: Tensor, k: int, num_samples: int, sigma: float, noise: None, *rest: Any, **more: Any):
        Steps.draws += 1
        shape = (len(scores) // len(_groups()), num_samples, scores.shape[1])
        noise = torch.cat([torch.randn(shape, generator=_source(group)) for group in _groups()])
        return perturbed_topk(scores, k, num_samples, sigma, noise, *rest, **more)

    selection.perturbed_topk = repeatable_topk
    IGV.forward = _with_draws(IGV.forward)  # type: ignore[method-assign]  and of EIGV, which inherits it


def _groups() -> list[int]:
    return [int(os.environ["RANK"])] if os.environ.get("WORLD_SIZE", "1") == "2" else [0, 1]


def _source(group: int) -> torch.Generator:
    return torch.Generator().manual_seed(1000 * Steps.now + 10 * Steps.draws + group)


def _with_draws(forward: Any) -> Any:
    from hf_causal_video.models.base import RandomInputs

    @functools.wraps(forward)
    def forward_with_draws(self: Any, *args: Any, labels: Tensor | None = None, **inputs: Any) -> Any:
        if self.training and labels is not None:
            Steps.draws += 1
            parts = [_draw(self, group, number) for number, group in enumerate(_groups())]
            axes = {"foreign_negative": 1, "question_swap": 1}
            joined = {name: torch.cat([part[name] for part in parts], axes.get(name, 0)) for name in parts[0]}
            with self.fixed_random_inputs(RandomInputs(**joined)):
                return forward(self, *args, labels=labels, **inputs)
        return forward(self, *args, labels=labels, **inputs)

    return forward_with_draws


def _draw(model: Any, group: int, number: int) -> dict[str, Tensor]:
    """The draws of one group, the `number`-th of its batch."""
    source, frames, first = _source(group), 8, number * GROUP
    config, mixes = model.config, hasattr(model.config, "lambda_per")
    grounded = GROUP * 4 if mixes and model._grounding_share() == 0 else GROUP  # EIGV warms up on every candidate

    def others(*copies: int) -> Tensor:
        step = torch.randint(1, GROUP, (*copies, GROUP, frames), generator=source)
        rows = (torch.arange(GROUP)[:, None] + step) % GROUP + first
        return rows * frames + torch.randint(frames, rows.shape, generator=source)

    drawn = {"gumbel": torch.randn(grounded, 2, frames, generator=source), "foreign": others()}
    if mixes:
        copies = config.num_negatives
        drawn |= {
            "gumbel_mixed": torch.randn(GROUP, 2, frames, generator=source),
            "foreign_negative": others(copies),
            "lambda1": torch.rand(GROUP, generator=source),
            "lambda2": torch.rand(GROUP, generator=source),
            "partner": torch.randperm(GROUP, generator=source) + first,
            "question_swap": torch.stack([torch.randperm(GROUP, generator=source) for _ in range(copies)]) + first,
        }
    return drawn


def note_banks(argv: list[str]) -> None:
    """Write down, for every swap, the videos that could be drawn from and those that were."""
    from hf_causal_video.causal import FrameBank

    draw, notes = FrameBank.try_draw, Path(f"{argv[argv.index('--output_dir') + 1]}.{os.environ.get('RANK', 0)}.jsonl")

    def noted(self: Any, own: Tensor, positions: int) -> tuple[Tensor, Tensor]:
        drawn, possible = draw(self, own, positions)
        rows = self.video_ids[drawn // self.frames.shape[1]].unique()
        line = {"own": own.unique().tolist(), "bank": self.video_ids.tolist(), "drawn": rows.tolist()}
        with notes.open("a") as file:
            file.write(json.dumps(line) + "\n")
        return drawn, possible

    FrameBank.try_draw = noted  # type: ignore[method-assign]


def shard(argv: list[str]) -> None:
    """Shard as `accelerate launch --config_file scripts/fsdp.yaml` does, on CPUs and in double precision.

    Why the patch: on CPUs accelerate passes over the FSDP of a config file and trains with plain data parallelism. All
    that follows its choice of engine is its own code, as on GPUs.
    """
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType
    from accelerate.utils.launch import prepare_multi_gpu_env

    config = Path(__file__).resolve().parents[2] / "scripts" / "fsdp.yaml"
    args, *_ = _validate_launch_command(launch_command_parser().parse_args(["--config_file", str(config), "train.py"]))
    made = prepare_multi_gpu_env(args)
    os.environ |= {name: made[name] for name in made if name.startswith(("FSDP_", "ACCELERATE_USE_FSDP"))}
    choose = AcceleratorState.__init__

    def choose_fsdp(self: AcceleratorState, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        choose(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:
            assert self.distributed_type == DistributedType.MULTI_CPU
            self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
            self.fsdp_plugin = fsdp_plugin

    AcceleratorState.__init__ = choose_fsdp
    prepare = trainer.Trainer.create_accelerator_and_postprocess

    def prepare_in_double(self: Any) -> None:
        self.model.double()  # DeBERTa makes its biases in single precision, and a group of weights has one precision
        prepare(self)

    trainer.Trainer.create_accelerator_and_postprocess = prepare_in_double
    trainer.DEFAULT_CALLBACKS.append(NoteShares)
    draw_by_group(argv)


class NoteShares(TrainerCallback):
    """Writes down which share of the weights this process holds while it trains."""

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Count the weights of the process once."""
        if state.global_step == 1:
            local = sum(weight.to_local().numel() for weight in model.parameters())
            share = local / sum(weight.numel() for weight in model.parameters())
            Path(f"{args.output_dir}.share{args.process_index}.json").write_text(json.dumps(share))
