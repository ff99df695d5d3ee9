"""Weights of every model: pickled, under the names of older checkpoints, and where a checkpoint lacks them."""

import io
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from tests.models.cases import RELATION_CASES, Case
from tests.models.test_adapters import ENCODERS, EVERY, answer, build

OVER_HGA = [case for case in EVERY if case.name in ("backbone-choices", "igv-official", "eigv-open-ended")]
OLD = {
    "released": {".g": ".weight_g", ".v": ".weight_v"},
    "parametrised": {".g": ".parametrizations.weight.original0", ".v": ".parametrizations.weight.original1"},
}


def close(one: torch.Tensor, other: torch.Tensor) -> None:
    """Equal but for the rounding that the place of a weight in memory decides."""
    torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)


@pytest.fixture
def raw_memory() -> Iterator[None]:
    """Whatever is allocated and not written holds NaN."""
    before = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = before


@pytest.mark.parametrize("case", EVERY + RELATION_CASES, ids=lambda case: case.name)
def test_a_whole_model_is_pickled(case: Case) -> None:
    model, file = build(case), io.BytesIO()
    expected = answer(model, case)
    close(answer(pickle.loads(pickle.dumps(model)), case), expected)
    torch.save(model, file)
    file.seek(0)
    close(answer(torch.load(file, weights_only=False), case), expected)
    assert not [module for module in model.modules() if torch.nn.utils.parametrize.is_parametrized(module)]


def old_state(model: PreTrainedModel, names: dict[str, str]) -> dict[str, torch.Tensor]:
    """A model's tensors under the names that normalised weights had once."""
    state = {}
    for key, tensor in model.state_dict().items():
        end = key[-2:]
        state[key[:-2] + names[end] if end in names else key] = tensor
    assert len(set(state) - set(model.state_dict())) == 4
    return state


@pytest.mark.parametrize("names", OLD.values(), ids=OLD)
@pytest.mark.parametrize("case", OVER_HGA, ids=lambda case: case.name)
def test_older_names_are_loaded(case: Case, names: dict[str, str], tmp_path: Path) -> None:
    model = build(case)
    model.save_pretrained(tmp_path)
    old = old_state(model, names)
    save_file(old, tmp_path / "model.safetensors", {"format": "pt"})
    loaded, report = case.model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    expected = answer(model, case)
    close(answer(loaded, case), expected)
    other = case.build()
    other.load_state_dict(old)
    close(answer(other, case), expected)
    loaded.save_pretrained(tmp_path / "again")  # in whatever layout: it opens again
    again = case.model_class.from_pretrained(tmp_path / "again")
    close(answer(again, case), expected)


MISSING = [(case, "bert") for case in EVERY + RELATION_CASES] + [(EVERY[5], kind) for kind in ENCODERS]


@pytest.mark.parametrize(("case", "kind"), MISSING, ids=lambda value: getattr(value, "name", value))
def test_a_weight_that_a_checkpoint_lacks_is_initialised(
    case: Case, kind: str, tmp_path: Path, raw_memory: None
) -> None:
    """All but one are missing, and none is left as memory happened to be."""
    model = build(case, kind)
    model.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    keep = next(iter(sorted(state)))
    save_file({keep: state[keep]}, tmp_path / "model.safetensors", {"format": "pt"})
    loaded = case.model_class.from_pretrained(tmp_path)
    bad = [
        name for name, weight in loaded.state_dict().items() if not weight.isfinite().all() or weight.abs().max() > 10
    ]
    assert not bad
    assert torch.equal(loaded.state_dict()[keep], state[keep])


@pytest.mark.parametrize("lacks", ["g", "v"])
def test_half_of_a_normalised_weight_leaves_the_other_alone(lacks: str, tmp_path: Path, raw_memory: None) -> None:
    case = OVER_HGA[0]
    build(case).save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    gone = [key for key in state if key.endswith(f".{lacks}")]
    save_file({key: state[key] for key in state if key not in gone}, tmp_path / "model.safetensors", {"format": "pt"})
    loaded = case.model_class.from_pretrained(tmp_path).state_dict()
    for key, tensor in loaded.items():
        assert torch.equal(tensor, state[key]) != (key in gone), key
        assert tensor.isfinite().all()
    if lacks == "g":
        for key in gone:
            torch.testing.assert_close(loaded[key], state[key[:-1] + "v"].norm(dim=1, keepdim=True))
