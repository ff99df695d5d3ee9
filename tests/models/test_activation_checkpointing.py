"""Checkpointed layers: the same gradients from less memory, for each kind of text encoder, by the recipe too."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from hf_causal_video.training import main
from hf_causal_video.training.trainer import CausalVideoTrainer
from tests.backbones.test_text import text_config
from tests.models.cases import CASES, Case
from tests.training.conftest import write_recipe

pytestmark = pytest.mark.rounding

TRANSTR, IGV = (next(case for case in CASES if case.name == name) for name in ("transtr-choices", "igv-choices"))


def gradients(case: Case, kind: str, every: int | None) -> tuple[dict[str, Tensor], int]:
    """Gradients of a step, and the bytes that its forward pass keeps for the backward pass."""
    model = case.build(text_config=text_config(kind).to_dict()).train()
    inputs = case.inputs()
    for name in ("input_ids", "choice_input_ids"):
        mask = inputs["attention_mask" if name == "input_ids" else "choice_attention_mask"]
        inputs[name] = (inputs[name] % 30 + 5).masked_fill(mask == 0, text_config(kind).pad_token_id)
    if every is not None:
        model.activation_checkpointing_enable(every_n_layers=every)
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(3)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(**inputs).loss
    loss.backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    return found, sum(kept.values())


@pytest.mark.parametrize("kind", ["bert", "roberta", "deberta", "deberta-v2", "modernbert"])
@pytest.mark.parametrize("case", [TRANSTR, IGV], ids=lambda case: case.name)
def test_gradients_stay_and_memory_falls(case: Case, kind: str) -> None:
    plain, most = gradients(case, kind, None)
    kept = [most]
    for every in (2, 1):
        saved, size = gradients(case, kind, every)
        kept.append(size)
        assert plain.keys() == saved.keys()
        for name, gradient in plain.items():
            torch.testing.assert_close(saved[name], gradient, atol=1e-6, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    assert kept[0] > kept[1] > kept[2]


def test_a_recipe_checkpoints_every_other_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers that are checkpointed run again in the backward pass; the weights end the same."""
    calls: list[str] = []
    models = []
    start = CausalVideoTrainer.train

    def train(trainer: CausalVideoTrainer, *args, **options):
        models.append(trainer.model)
        for name, layer in trainer.model.text_encoder.encoder.layer.named_children():
            layer.attention.register_forward_pre_hook(
                lambda module, args, name=name: calls.append(name) if torch.is_grad_enabled() else None
            )
        return start(trainer, *args, **options)

    monkeypatch.setattr(CausalVideoTrainer, "train", train)
    text = {
        "text_config": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    }
    recipe = write_recipe(
        tmp_path / "recipe.yaml",
        config_overrides={
            **text,
            "hidden_size": 16,
            "num_attention_heads": 2,
            "num_frames_kept": 2,
            "num_objects_kept": 2,
        },
        max_steps=2,
        test_splits=None,
    )
    every = ["--activation_checkpointing", "true", "--activation_checkpointing_kwargs", '{"every_n_layers": 2}']
    counts = []
    for number, flags in enumerate(([], every)):
        calls.clear()
        main(["--config", str(recipe), "--output_dir", str(tmp_path / str(number)), *flags])
        counts.append((calls.count("0"), calls.count("1")))
    (plain, _), (first, second) = counts
    assert 0 < plain and (first, second) == (2 * plain, plain)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
