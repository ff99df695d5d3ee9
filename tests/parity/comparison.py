"""How stored numbers of a model fixture are compared with ours, and how one is altered to see that it counts."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

Values = dict[str, Tensor]
NOTHING = 5e-5  # a gradient smaller than this share of the largest one is compared absolutely


def is_gradient(name: str) -> bool:
    """Whether a stored output is a gradient: `grad.<key>`, `grad_<kind>.<key>`, or `<case>.grad_<kind>`."""
    return any(part == "grad" or part.startswith("grad_") for part in name.split("."))


def largest_gradient(stored: Values) -> float:
    """The largest entry of all gradients of a fixture."""
    return max((float(value.abs().max()) for name, value in stored.items() if is_gradient(name)), default=0.0)


def compare(stored: Values, found: Values, spec: dict[str, Any], operator: bool = False) -> None:
    """Every stored output against ours, within the tolerances that the fixtures state (gradients: a tenth of them)."""
    assert not (unknown := sorted(set(stored) - set(found))), f"stored outputs that nobody compares: {unknown}"
    assert stored, "a fixture without outputs"
    largest = largest_gradient(stored)
    rounding = spec.get("float32_rounding", {}).get("gradient_max_relative", 0.0)
    for name, wanted in stored.items():
        got = found[name]
        assert got.shape == wanted.shape, f"{name}: shape {tuple(got.shape)}, stored {tuple(wanted.shape)}"
        if not wanted.is_floating_point():
            assert torch.equal(got, wanted), f"{name}: indices differ"
            continue
        peak = float(wanted.abs().max())
        if operator:
            tight = wanted.dtype == torch.float64
            limit = 1e-9 * max(1.0, peak) if tight else 1e-4 * peak + 1e-6 * largest if is_gradient(name) else 1e-6
        elif is_gradient(name):
            floor = 1e-7 if peak > NOTHING * largest else 1e-6  # what is zero but for rounding has no third digit
            limit = min(2.5e-3, max(5e-4, 20 * rounding)) * peak + floor * largest
        elif name.startswith("loss"):
            limit = 1e-5 * peak
        else:
            limit = 2e-5 * max(1.0, peak)
        gap = float((got.to(wanted.dtype) - wanted).abs().max())
        assert gap <= limit, f"{name}: off by {gap:.3g}, allowed {limit:.3g}"  # NaN fails too


def assert_alterations_are_noticed(stored: Values, check: Callable[[Values], None]) -> None:
    """Alter the largest entry of every stored output in its third digit; `check` must fail and name it."""
    largest = largest_gradient(stored)
    for name, value in stored.items():
        if is_gradient(name) and float(value.abs().max()) <= NOTHING * largest:
            continue
        flat = value.clone().flatten()
        place = flat.abs().argmax()  # one entry, in its third digit
        flat[place] = flat[place] * 1.005 if value.is_floating_point() else flat[place] + 1
        with pytest.raises(AssertionError, match=name):
            check(stored | {name: flat.view(value.shape)})
