"""Whatever takes the place of a layer's call takes part in the answer: hooks, adapters, offloading, int8."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import AutoModel, PreTrainedModel

from hf_causal_video.models.backbone import BackboneForVideoQuestionAnswering
from hf_causal_video.training.lora import add_lora
from tests.models.cases import CASES, FRAME_DIM, TEXT, Case

SIZES = {name: value for name, value in TEXT.items() if name != "model_type"}
ENCODERS: dict[str, dict[str, Any]] = {
    "bert": TEXT,
    "roberta": {"model_type": "roberta", "pad_token_id": 0, **SIZES},
    "deberta": {
        "model_type": "deberta", "relative_attention": True, "pos_att_type": ["c2p", "p2c"],
        "position_biased_input": False, "type_vocab_size": 0, **SIZES,
    },
    "modernbert": {
        "model_type": "modernbert", "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1,
        "sep_token_id": 2, "global_attn_every_n_layers": 2, "local_attention": 8, "reference_compile": False, **SIZES,
    },
}  # fmt: skip
BACKBONES = {
    "comem": {"hidden_size": 8, "word_dim": 6},
    "mspan": {"hidden_size": 8},
    "plain": {"hidden_size": 8, "heads": 2, "intermediate_size": 8},
    "pooling": {"hidden_size": 8},
}


def other_backbone(name: str) -> Case:
    fields = {"text_config": TEXT, "frame_feature_dim": FRAME_DIM, "backbone": name, "num_answers": 7}
    return Case(
        f"backbone-{name}", BackboneForVideoQuestionAnswering, {**fields, "backbone_config": BACKBONES[name]}, False
    )


class WithSimilarities(Case):
    """TranSTR that also reads how well each choice fits each frame."""

    def inputs(self, **sizes: Any) -> dict[str, torch.Tensor]:
        """The batch, and similarities of 4 choices and 9 frames."""
        batch = super().inputs(**sizes)
        source = torch.Generator().manual_seed(0)
        return batch | {"similarities": torch.rand(3, 4, 9, 2, generator=source)}


SIMILARITY = WithSimilarities(
    "transtr-similarity",
    CASES[0].model_class,
    CASES[0].fields | {"num_similarities": 2, "rank_by": "scorer"},
    unused=CASES[0].unused,
)
EVERY = [*CASES, SIMILARITY, *map(other_backbone, BACKBONES)]
ALL = pytest.mark.parametrize("case", EVERY, ids=lambda case: case.name)
# One question model of each class over every encoder, and every case over the first.
PAIRS = [(case, "bert") for case in EVERY] + [
    (case, kind)
    for case in EVERY
    if case.name in ("transtr-choices", "backbone-open-ended", "igv-open-ended", "eigv-open-ended")
    for kind in ENCODERS
    if kind != "bert"
]
OVER_ENCODERS = pytest.mark.parametrize(("case", "kind"), PAIRS, ids=lambda value: getattr(value, "name", value))


def build(case: Case, kind: str = "bert") -> PreTrainedModel:
    """A model whose every weight matters: no two are alike, no norm has a flat spot."""
    model = case.build(text_config=ENCODERS[kind])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def inputs(model: Any, case: Case) -> dict[str, torch.Tensor]:
    """The case's batch in the model's precision."""
    kind = next(model.parameters()).dtype
    return {name: x.to(kind) if x.is_floating_point() else x for name, x in case.inputs().items()}


def answer(model: Any, case: Case) -> torch.Tensor:
    batch = {name: tensor for name, tensor in inputs(model, case).items() if name != "labels"}
    torch.manual_seed(0)
    with torch.no_grad():
        return model.eval()(**batch).logits


def adapters(wrapped: Any) -> dict[str, Any]:
    """Every adapted layer by its name; none is left as the nothing that LoRA starts with."""
    layers = {name: layer for name, layer in wrapped.named_modules() if isinstance(layer, LoraLayer)}
    assert layers
    for layer in layers.values():
        torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.3)
    return layers


def without_gradient(layers: dict[str, Any], exempt: tuple[str, ...] = ()) -> list[str]:
    """Adapters that learned nothing in the last backward pass."""
    dead = []
    for name, layer in layers.items():
        for weight in (layer.lora_A["default"].weight, layer.lora_B["default"].weight):
            if not any(part in name for part in exempt) and (weight.grad is None or not weight.grad.any()):
                dead.append(name)
    return dead


def assert_merged_equals_adapted(wrapped: Any, case: Case, before: torch.Tensor) -> None:
    adapted = answer(wrapped, case)
    assert (adapted - before).abs().max() > 1e-6  # the adapters change the answer
    merged = answer(wrapped.merge_and_unload(), case)
    torch.testing.assert_close(merged, adapted, atol=1e-9, rtol=1e-9)


@OVER_ENCODERS
def test_lora_of_the_recipes(case: Case, kind: str) -> None:
    """Adapters on the text encoder learn, each of them moves the answer, and merging them changes nothing."""
    model = build(case, kind).double()
    before = answer(model, case)
    wrapped = add_lora(model, rank=2, alpha=4.0)
    layers = adapters(wrapped)
    torch.manual_seed(0)
    wrapped.train()(**inputs(wrapped, case)).loss.backward()
    assert not without_gradient(layers)
    whole = answer(wrapped, case)
    for name, layer in layers.items():
        scaling = layer.scaling["default"]
        layer.scaling["default"] = 0.0
        assert (answer(wrapped, case) - whole).abs().max() > 1e-10, name  # in float64; MSPAN weakens a question much
        layer.scaling["default"] = scaling
    assert_merged_equals_adapted(wrapped, case, before)


# The only query of an open question attends to itself alone, so its weights cancel.
DEAD = {case.name: tuple(part for part in case.unused if "_lin" in part) for case in EVERY}


@OVER_ENCODERS
def test_lora_on_all_linear_layers(case: Case, kind: str) -> None:
    model = build(case, kind).double()
    before = answer(model, case)
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear"))
    layers = adapters(wrapped)
    torch.manual_seed(0)
    wrapped.train()(**inputs(wrapped, case)).loss.backward()
    assert not without_gradient(layers, DEAD[case.name])
    assert_merged_equals_adapted(wrapped, case, before)


@OVER_ENCODERS
def test_int8_linear_layers(case: Case, kind: str) -> None:
    model = build(case, kind)
    before = answer(model, case)
    quantised = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    assert any("quantized" in type(module).__module__ for module in quantised.modules())
    after = answer(quantised, case)
    assert after.isfinite().all() and not torch.equal(after, before)


@OVER_ENCODERS
def test_offloading_to_disk(case: Case, kind: str, tmp_path: Path) -> None:
    model = build(case, kind)
    model.save_pretrained(tmp_path / "model")
    size = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    for share in (2, 8):
        loaded = AutoModel.from_pretrained(
            tmp_path / "model", device_map="auto", max_memory={"cpu": size // share}, offload_folder=tmp_path / "disk"
        )
        assert "disk" in loaded.hf_device_map.values()
        assert any(weight.is_meta for weight in loaded.parameters())
        torch.testing.assert_close(answer(loaded, case), answer(model, case), atol=1e-6, rtol=1e-6)


@OVER_ENCODERS
def test_hooks_of_every_module_that_is_called(case: Case, kind: str) -> None:
    """Every module with weights of its own is reached by a call, in a training step or in prediction."""
    model, called = build(case, kind), set()
    for name, module in model.named_modules():
        module.register_forward_hook(lambda module, args, result, name=name: called.add(name))
    answer(model, case)
    model.train()(**case.inputs())
    owners = {name for name, module in model.named_modules() if list(module.parameters(recurse=False))}
    assert owners - called == set()
    assert "text_encoder" in called


@OVER_ENCODERS
def test_blocks_that_may_not_be_split(case: Case, kind: str) -> None:
    """A block's layers run inside a call of the block, which is where sharding and offloading bring its weights in."""
    model, active, outside = build(case, kind), [], set()
    blocks = {
        name: module for name, module in model.named_modules() if type(module).__name__ in model._no_split_modules
    }
    assert blocks

    def end(*_: Any) -> None:
        active.pop()

    for name, module in model.named_modules():
        owners = [block for block in blocks if name == block or name.startswith(f"{block}.")]

        def begin(
            module: torch.nn.Module, args: Any, name: str = name, owners: tuple[str, ...] = tuple(owners)
        ) -> None:
            active.append(name)
            outside.update((name, block) for block in owners if block not in active)

        module.register_forward_pre_hook(begin)
        module.register_forward_hook(end)
    answer(model, case)
    model.train()(**case.inputs())
    assert outside == set() and not active
