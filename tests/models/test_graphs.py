"""Compiled and exported models: no check in `forward` waits for a value; graphs answer and refuse as models do."""

import traceback
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hf_causal_video.utils.errors import CausalVideoError
from tests.models.cases import CASES, Case

NAMES = ("transtr-choices", "backbone-open-ended", "igv-choices", "eigv-open-ended")
ONE_EACH = [next(case for case in CASES if case.name == name) for name in NAMES]
one_of_each = pytest.mark.parametrize("case", ONE_EACH, ids=lambda case: case.name)
WAITS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default, torch.ops.aten.is_nonzero.default)
# What waits to save work, not to check: buckets of strings, packed sequences; and a seed, which lies on the CPU.
ALLOWED = ("backbones/", "causal/topk.py", "keep_causal")


class Waits(TorchDispatchMode):
    """Notes where in our models and mechanisms a value is read on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.places: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in WAITS:
            ours = [frame for frame in traceback.extract_stack() if "/hf_causal_video/" in frame.filename]
            place = f"{ours[-1].filename.split('/hf_causal_video/')[1]}:{ours[-1].lineno} {ours[-1].name}"
            if not any(part in place for part in ALLOWED):
                self.places.add(place)
        return function(*args, **(kwargs or {}))


def without(inputs: dict[str, Tensor], name: str = "labels") -> dict[str, Tensor]:
    return {key: value for key, value in inputs.items() if key != name}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("training", [False, True])
def test_no_check_waits_for_a_value(case: Case, training: bool) -> None:
    model, inputs = case.build().train(training), case.inputs()
    with Waits() as waits:
        model(**inputs)
    assert not waits.places


def test_a_wait_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from hf_causal_video.models import inputs as reading

    monkeypatch.setattr(reading, "require_values", lambda condition, *_, **__: bool(condition))
    model, inputs = ONE_EACH[0].build(), ONE_EACH[0].inputs()
    with Waits() as waits:
        model(**inputs)
    # the spy itself is a test's; what it names is the function that asked
    assert any("models/inputs.py" in place for place in waits.places)


@pytest.mark.slow
@one_of_each
def test_export(case: Case) -> None:
    """The graph of one batch answers another of the same shape, and refuses what the model refuses."""
    model, inputs = case.build(), without(case.inputs())
    graph = torch.export.export(model, (), inputs, strict=False).module()
    other = without(case.inputs(seed=1))
    other = {name: value if value.shape == inputs[name].shape else inputs[name] for name, value in other.items()}
    for given in (inputs, other):
        torch.testing.assert_close(graph(**given).logits, model(**given).logits, atol=1e-5, rtol=1e-4)
    nan = inputs["frame_features"].clone().index_fill_(1, torch.tensor([0]), torch.nan)
    empty = torch.zeros_like(inputs["attention_mask"])
    for name, bad, message in (("attention_mask", empty, "at least one token"), ("frame_features", nan, "finite")):
        with pytest.raises(CausalVideoError, match=message):
            model(**inputs | {name: bad})
        with pytest.raises(RuntimeError, match=message):
            graph(**inputs | {name: bad})


@pytest.mark.slow
@one_of_each
def test_compiled_prediction(case: Case) -> None:
    torch.compiler.reset()
    model, inputs = case.build(), case.inputs()
    compiled = torch.compile(model, backend="aot_eager", dynamic=False)
    with torch.no_grad():
        torch.testing.assert_close(compiled(**inputs).logits, model(**inputs).logits, atol=1e-5, rtol=1e-4)
    torch.compiler.reset()


@pytest.mark.slow
@one_of_each
def test_compiled_training(case: Case) -> None:
    torch.compiler.reset()
    inputs = {name: part.double() if part.is_floating_point() else part for name, part in case.inputs().items()}
    gradients = []
    text = case.fields["text_config"] | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    for compiled in (False, True):
        model = case.build(**case.still, text_config=text).double().train()
        call = torch.compile(model, backend="aot_eager") if compiled else model
        torch.manual_seed(0)
        call(**inputs).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        gap = (gradients[1][name] - gradient).norm()
        assert gap < 1e-3 * gradient.norm() + 1e-5, name
    torch.compiler.reset()
