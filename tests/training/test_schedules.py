"""Schedules: all groups are scaled alike, and each one does what its name says."""

from typing import Any

import pytest
import torch

from hf_causal_video.training.arguments import SCHEDULES, CausalVideoTrainingArguments
from hf_causal_video.training.schedules import build_schedule
from hf_causal_video.utils.errors import CausalVideoError

RATES = (1.0, 0.25)


def build(name: str, steps: int = 20, steps_per_epoch: int = 5, **arguments: Any) -> tuple[Any, torch.optim.Optimizer]:
    optimizer = torch.optim.AdamW([{"params": [torch.zeros(1, requires_grad=True)], "lr": rate} for rate in RATES])
    run = CausalVideoTrainingArguments("out", use_cpu=True, lr_scheduler_type=name, **arguments)
    return build_schedule(run, optimizer, steps, steps_per_epoch), optimizer


def rates_of(name: str, steps: int = 20, **arguments: Any) -> list[list[float]]:
    schedule, optimizer = build(name, steps, **arguments)
    rates = []
    for _ in range(steps):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "reduce_lr_on_plateau"])
def test_all_groups_are_scaled_alike(name: str):
    options = {"multistep": {"milestones": [1]}, "cosine_with_min_lr": {"min_lr_rate": 0.1}}.get(name, {})
    if name == "cosine_warmup_with_min_lr":
        options = {"min_lr_rate": 0.1}
    if name == "warmup_stable_decay":
        options = {"num_decay_steps": 5}
    for main, text in rates_of(name, lr_scheduler_kwargs=options or None):
        assert text == pytest.approx(main * RATES[1] / RATES[0], rel=1e-6, abs=1e-9) or name == "polynomial"


def test_multistep_counts_epochs():
    rates = [main for main, _ in rates_of("multistep", lr_scheduler_kwargs={"milestones": [2, 3], "gamma": 0.1})]
    assert rates[:10] == [1.0] * 10
    assert rates[10:15] == pytest.approx([0.1] * 5) and rates[15:] == pytest.approx([0.01] * 5)


def test_one_cycle_climbs_to_the_learning_rate_and_falls_below_its_start():
    rates = [main for main, _ in rates_of("one_cycle")]
    assert max(rates) == pytest.approx(1.0) and rates[-1] < rates[0] < 0.1


def test_plateau_lowers_the_rate_when_accuracy_does_not_rise():
    options = {"factor": 0.25, "patience": 1}
    schedule, optimizer = build("reduce_lr_on_plateau", metric_for_best_model="accuracy", lr_scheduler_kwargs=options)
    for accuracy in (50.0, 51.0, 52.0, 53.0):
        schedule.step(accuracy)
    assert [group["lr"] for group in optimizer.param_groups] == list(RATES)
    for accuracy in (53.0, 52.0):
        schedule.step(accuracy)
    assert [group["lr"] for group in optimizer.param_groups] == [rate / 4 for rate in RATES]


def test_constant_is_constant():
    assert rates_of("constant") == [list(RATES)] * 20


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("multistep", {}),
        ("multistep", {"lr_scheduler_kwargs": {"milestones": [1], "step": 3}}),
        ("one_cycle", {"lr_scheduler_kwargs": {"peak": 3}}),
        ("one_cycle", {"warmup_steps": 5}),
        ("constant", {"lr_scheduler_kwargs": {"gamma": 0.1}}),
        ("cosine", {"lr_scheduler_kwargs": {"milestones": [1]}}),
    ],
)
def test_options_that_a_schedule_does_not_have_are_refused(name: str, arguments: dict[str, Any]):
    with pytest.raises(CausalVideoError, match=name):
        build(name, **arguments)
