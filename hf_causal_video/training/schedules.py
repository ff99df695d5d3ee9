"""Learning rates over a run: the schedules of the published recipes, next to those of transformers.

Why: two of the four TranSTR recipes lower the rate on a validation plateau or at a milestone in epochs, and our own
world recipe climbs and falls once (one-cycle). Every schedule scales all parameter groups alike.
"""

import math

import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau
from transformers import get_scheduler

from hf_causal_video.training.arguments import CausalVideoTrainingArguments
from hf_causal_video.utils.errors import CausalVideoError, require


def build_schedule(
    arguments: CausalVideoTrainingArguments, optimizer: torch.optim.Optimizer, num_steps: int, steps_per_epoch: int
) -> LRScheduler:
    """Build the schedule that `lr_scheduler_type` and `lr_scheduler_kwargs` name.

    Args:
        arguments: of the run.
        optimizer: its groups carry their own peak rates.
        num_steps: optimizer steps of the whole run.
        steps_per_epoch: optimizer steps of an epoch, in which multistep's milestones are counted.

    Raises:
        CausalVideoError: options that the schedule does not have, or multistep without milestones.

    Example:
        >>> arguments = CausalVideoTrainingArguments(
        ...     "out", lr_scheduler_type="multistep", lr_scheduler_kwargs={"milestones": [1], "gamma": 0.1}
        ... )
        >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        >>> build_schedule(arguments, optimizer, num_steps=4, steps_per_epoch=2).lr_lambdas[0](2)
        0.1
    """
    name = arguments.lr_scheduler_type
    assert not isinstance(arguments.lr_scheduler_kwargs, str)  # the parent class has parsed it
    options: dict = dict(arguments.lr_scheduler_kwargs or {})
    warmup = arguments.get_warmup_steps(num_steps)
    require(
        name not in ("multistep", "one_cycle", "reduce_lr_on_plateau", "constant") or not warmup,
        f"schedule {name} has no warm-up",
        found=f"{warmup} steps",
        expected="warmup_steps 0",
        fix="set warmup_steps to 0, or take another schedule (constant_with_warmup, linear, cosine)",
    )
    try:
        if name == "multistep":
            return _multistep(optimizer, steps_per_epoch, **options)
        if name == "one_cycle":
            peaks = [group["lr"] for group in optimizer.param_groups]
            return _OneCycle(optimizer, max_lr=peaks, total_steps=num_steps, **options)
        if name == "reduce_lr_on_plateau":
            # torch's default watches a metric that should fall: with accuracy it would punish every improvement
            mode = "max" if arguments.greater_is_better else "min"
            return ReduceLROnPlateau(optimizer, **{"mode": mode, **options})
        if name == "constant" and options:
            raise TypeError("constant takes no options")
        return get_scheduler(name, optimizer, warmup, num_steps, options)
    except TypeError as error:
        raise CausalVideoError(
            f"options that the schedule {name} does not have",
            found=f"{options} ({error})",
            expected="its lr_scheduler_kwargs",
            fix="see --help, or the documentation of torch's schedulers",
        ) from error


class _OneCycle(OneCycleLR):
    """One-cycle whose length is that of the run: a resumed run that trains longer keeps its new end.

    Why: torch stores the length with the state, and would raise behind the last step of the shorter run.
    """

    def load_state_dict(self, state_dict: dict) -> None:
        length = {name: self.__dict__[name] for name in ("total_steps", "_schedule_phases")}
        super().load_state_dict({**state_dict, **length})


def _multistep(
    optimizer: torch.optim.Optimizer, steps_per_epoch: int, *, milestones: list[float], gamma: float = 0.1
) -> LambdaLR:
    edges = sorted(math.ceil(float(epoch) * steps_per_epoch) for epoch in milestones)
    return LambdaLR(optimizer, lambda step: float(gamma) ** sum(step >= edge for edge in edges))
