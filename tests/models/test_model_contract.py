"""One contract for every model of the package: what a user of transformers may rely on, whichever method it is."""

import copy
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel

from hf_causal_video.models.ivrd.outputs import VideoRelationOutput
from hf_causal_video.models.outputs import VideoQAOutput
from tests.models.cases import CASES, RELATION_CASES, Case, batched

pytestmark = pytest.mark.rounding

every_model = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
# Laws that hold for relations too, whose output has predicates of pairs in place of answers.
question_and_relation_models = pytest.mark.parametrize("case", CASES + RELATION_CASES, ids=lambda case: case.name)
choice_models = pytest.mark.parametrize("case", [case for case in CASES if not case.open_ended], ids=lambda c: c.name)
MODEL_FILES = Path(__file__).resolve().parents[2]


def answer(model: torch.nn.Module, inputs: dict[str, Tensor]) -> VideoQAOutput:
    with torch.no_grad():
        return model(**inputs)


def scores(output: VideoQAOutput | VideoRelationOutput) -> Tensor:
    """(B, ...) scores of the answers, or of the predicates."""
    return output.predicate_logits if isinstance(output, VideoRelationOutput) else output.logits


def kept(output: VideoQAOutput | VideoRelationOutput) -> list[set[int]]:
    """The frames an answer rests on; slots may repeat one."""
    frames = getattr(output, "kept_frames", None)
    return [] if frames is None else [set(row) for row in frames.tolist()]


def same(one: VideoQAOutput, other: VideoQAOutput, **tolerance: float) -> None:
    """Equal answers for equal reasons."""
    torch.testing.assert_close(scores(one), scores(other), **(tolerance or {"atol": 2e-5, "rtol": 1e-4}))
    assert kept(one) == kept(other)
    if getattr(one, "kept_objects", None) is not None:
        assert torch.equal(one.kept_objects, other.kept_objects)


@every_model
def test_it_is_built_from_its_config_alone(case: Case, no_network: None) -> None:
    model = case.build()
    assert model.accepts_loss_kwargs is False
    assert model.main_input_name == "frame_features"
    own = [module for name, module in model.named_modules() if not name.startswith("text_encoder")]
    assert not [buffer for module in own for buffer in module._non_persistent_buffers_set]
    assert model.config.to_dict()["text_config"]["model_type"] == "bert"


@every_model
def test_the_output_says_answer_loss_and_evidence(case: Case) -> None:
    inputs = case.inputs()
    output = answer(case.build(), inputs)
    (batch, frames), answers = inputs["frame_mask"].shape, 7 if case.open_ended else 4
    assert output.logits.shape == (batch, answers)
    assert output.frame_scores.shape == (batch, frames)
    assert (output.frame_scores[~inputs["frame_mask"]] == -torch.inf).all()
    assert inputs["frame_mask"].gather(1, output.kept_frames).all()  # padding is never evidence
    if case.objects:
        present = inputs["object_mask"][torch.arange(batch)[:, None], output.kept_frames]  # (B, K, N)
        assert output.kept_objects.shape[:2] == output.kept_frames.shape
        assert (output.object_scores[~present] == -torch.inf).all()
    torch.testing.assert_close(output.loss, sum(output.losses.values()))
    assert answer(case.build(), {k: v for k, v in inputs.items() if k != "labels"}).loss is None


@question_and_relation_models
def test_every_training_step_names_the_same_terms(case: Case) -> None:
    model, inputs = case.build().train(), case.inputs()
    names = set()
    for progress in (0.0, 0.15, 1.0):
        if hasattr(model, "training_progress"):
            model.training_progress = progress
        output = model(**inputs)
        assert all(term.isfinite() for term in output.losses.values())
        names.add(tuple(output.losses))
    assert len(names) == 1


@question_and_relation_models
def test_it_is_deterministic_in_evaluation_and_by_seed_in_training(case: Case) -> None:
    model, inputs = case.build(), case.inputs()
    same(answer(model, inputs), answer(model, inputs), atol=0, rtol=0)
    model.train()

    def loss(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return answer(model, inputs).loss

    assert torch.equal(loss(1), loss(1)) and not torch.equal(loss(1), loss(2))


@question_and_relation_models
def test_it_is_saved_and_loaded_whole(case: Case, tmp_path: Path, no_network: None) -> None:
    model, inputs = case.build(), case.inputs()
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file() and not list(tmp_path.glob("*.bin"))
    loaded, report = case.model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    weights = loaded.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    # Equal weights at other addresses may be summed in another order.
    same(answer(model, inputs), answer(loaded.eval(), inputs), atol=1e-6, rtol=1e-5)
    for name in case.fields:
        if name != "text_config":
            assert getattr(loaded.config, name) == getattr(model.config, name)
    text = case.fields.get("text_config", {})
    assert not text or text.items() <= loaded.config.text_config.to_dict().items()
    assert type(AutoConfig.from_pretrained(tmp_path)) is case.model_class.config_class
    assert type(AutoModel.from_pretrained(tmp_path)) is case.model_class


@pytest.mark.parametrize("case", CASES[:1], ids=lambda case: case.name)
@pytest.mark.slow
def test_another_process_loads_it_through_auto_model(case: Case, tmp_path: Path) -> None:
    model, inputs = case.build(), case.inputs()
    model.save_pretrained(tmp_path / "model")
    torch.save(inputs, tmp_path / "inputs.pt")
    package = case.model_class.__module__.rsplit(".", 1)[0]
    program = (
        f"import sys, torch, {package}\nfrom transformers import AutoModel\n"
        "folder = sys.argv[1]\nmodel = AutoModel.from_pretrained(folder + '/model').eval()\n"
        "inputs = torch.load(folder + '/inputs.pt', weights_only=True)\n"
        "torch.save(model(**inputs).logits.detach(), folder + '/logits.pt')"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(MODEL_FILES)}
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, env=environment)
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), answer(model, inputs).logits, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("case", [c for c in CASES + RELATION_CASES if c.rows_apart], ids=lambda case: case.name)
def test_rows_of_a_batch_do_not_hear_of_each_other(case: Case) -> None:
    model, inputs = case.build(), case.inputs()
    whole = answer(model, inputs)
    order = torch.tensor([2, 0, 1])
    turned = answer(model, batched(lambda x: x[order], inputs))
    torch.testing.assert_close(scores(turned), scores(whole)[order], atol=2e-5, rtol=1e-4)
    for row in range(3):
        alone = answer(model, batched(lambda x, row=row: x[row : row + 1], inputs))
        torch.testing.assert_close(scores(alone), scores(whole)[row : row + 1], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("case", [case for case in CASES if case.padding_free], ids=lambda case: case.name)
def test_padding_never_changes_an_answer(case: Case) -> None:
    model, inputs = case.build(), case.inputs()
    # Longer questions and choices, more frames and objects than anybody has, filled with what must not be read.
    grown = {
        "input_ids": (3, [1]), "attention_mask": (0, [1]),
        "choice_input_ids": (3, [2]), "choice_attention_mask": (0, [2]),
        "frame_features": (9.0, [1]), "frame_mask": (False, [1]),
        "object_features": (9.0, [1, 2]), "object_boxes": (0.5, [1, 2]), "object_mask": (False, [1, 2]),
    }  # fmt: skip
    padded = {}
    for name, tensor in inputs.items():
        value, axes = grown.get(name, (0, []))
        for where in axes:
            extra = list(tensor.shape)
            extra[where] = 3
            tensor = torch.cat([tensor, torch.full(extra, value, dtype=tensor.dtype)], where)
        padded[name] = tensor
    same(answer(model, inputs), answer(model, padded))


@every_model
def test_what_stands_in_padding_is_never_read(case: Case) -> None:
    model, inputs = case.build(), case.inputs()
    other = dict(inputs)
    other["frame_features"] = inputs["frame_features"].masked_fill(~inputs["frame_mask"][..., None], 7.0)
    if case.objects:
        gone = ~(inputs["object_mask"] & inputs["frame_mask"][..., None])
        other["object_features"] = inputs["object_features"].masked_fill(gone[..., None], -7.0)
    same(answer(model, inputs), answer(model, other))


@choice_models
def test_permuted_choices_permute_the_answer(case: Case) -> None:
    model, inputs = case.build(), case.inputs()
    order = torch.tensor([2, 0, 3, 1])
    turned = inputs | {name: inputs[name][:, order] for name in ("choice_input_ids", "choice_attention_mask")}
    del turned["labels"]
    one, other = answer(model, inputs), answer(model, turned)
    torch.testing.assert_close(other.logits, one.logits[:, order], atol=2e-5, rtol=1e-4)
    assert kept(one) == kept(other)


@choice_models
def test_an_absent_choice_is_never_the_answer(case: Case) -> None:
    model, inputs = case.build(), case.inputs()
    mask = inputs["choice_attention_mask"].clone()
    mask[0, 3] = 0
    fewer = answer(model, inputs | {"choice_attention_mask": mask, "labels": torch.zeros(3, dtype=torch.long)})
    assert fewer.logits[0].softmax(-1)[3] == 0 and fewer.loss.isfinite()
    short = {name: tensor[:1, :3] if name.startswith("choice") else tensor[:1] for name, tensor in inputs.items()}
    short["labels"] = torch.zeros(1, dtype=torch.long)
    torch.testing.assert_close(fewer.logits[:1, :3], answer(model, short).logits, atol=2e-5, rtol=1e-4)


@question_and_relation_models
def test_every_parameter_learns(case: Case) -> None:
    """In double precision, the loss too: in single the rounding of a gradient that is zero looks like a small one."""
    model = case.build(**case.still).double().train()
    inputs = {name: value.double() if value.is_floating_point() else value for name, value in case.inputs().items()}
    with patch.object(Tensor, "float", Tensor.double):
        model(**inputs).loss.backward()
    for name, parameter in model.named_parameters():
        largest = 0.0 if parameter.grad is None else parameter.grad.abs().max()
        if any(part in name for part in case.unused):
            assert largest < 1e-14, name
        else:
            assert 1e-9 < largest < torch.inf, name


def fall(case: Case, rate: float) -> float:
    """The training loss after 30 steps on one batch, as a share of the loss before; both a mean over the same 4 draws.

    Why: one loss of one step has the luck of its draw in it, and roundings of another processor lead elsewhere.
    """
    model, inputs = case.build(**case.still).train(), case.inputs()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)

    def loss(draw: int) -> Tensor:
        torch.manual_seed(draw)
        return model(**inputs).loss

    def level() -> float:
        with torch.no_grad():
            return sum(loss(draw).item() for draw in range(1000, 1004)) / 4

    before = level()
    for step in range(30):
        optimizer.zero_grad()
        loss(step).backward()
        optimizer.step()
    return level() / before


@every_model
def test_the_loss_falls(case: Case) -> None:
    assert fall(case, 3e-3) < 0.7


def test_without_learning_no_loss_falls() -> None:
    assert fall(CASES[0], 0.0) == 1.0


@every_model
def test_gradient_checkpointing_changes_no_gradient(case: Case) -> None:
    inputs = case.inputs()

    def gradients(checkpointing: bool) -> dict[str, Tensor]:
        model = case.build().train()
        if checkpointing:
            model.gradient_checkpointing_enable()
            assert model.is_gradient_checkpointing
        torch.manual_seed(3)
        model(**inputs).loss.backward()
        return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}

    plain, saved = gradients(False), gradients(True)
    assert plain.keys() == saved.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(saved[name], gradient, atol=1e-6, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@question_and_relation_models
@pytest.mark.parametrize("how", ["weights", "autocast"])
def test_bfloat16_trains_and_answers(case: Case, how: str) -> None:
    model, inputs = case.build(), case.inputs()
    exact = answer(model, inputs)
    if how == "weights":
        model = model.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        rough = answer(model, inputs)
        loss = model.train()(**inputs).loss
    found, wanted = scores(rough), scores(exact)
    allowed = 0.5 if isinstance(exact, VideoQAOutput) else 0.1 * wanted.abs().max()  # 16 times a cosine
    assert found.isfinite().all() and (found.float() - wanted).abs().max() < allowed
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all() and parameter.grad.dtype == parameter.dtype, (
            name
        )
    assert loss.dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES[:2], ids=lambda case: case.name)
def test_torch_compile_changes_no_answer(case: Case) -> None:
    torch.compiler.reset()
    model, inputs = case.build(text_length_buckets=1), case.inputs()
    compiled = torch.compile(model, backend="aot_eager", dynamic=False)
    same(answer(model, inputs), answer(compiled, inputs))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES[:1], ids=lambda case: case.name)
def test_torch_compile_trains(case: Case) -> None:
    torch.compiler.reset()
    inputs, found = case.inputs(), []
    for compiled in (False, True):
        text = case.fields["text_config"] | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        model = case.build(**case.still, text_config=text).train()
        run = torch.compile(model, backend="aot_eager") if compiled else model
        torch.manual_seed(0)
        run(**inputs).loss.backward()
        found.append([parameter.grad for parameter in model.parameters() if parameter.grad is not None])
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-3)


@every_model
def test_lora_trains_adapters_only(case: Case, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model, inputs = case.build(), case.inputs()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=r".*text_encoder.*(query|value)")).train()
    trained = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert trained and all("lora_" in name and "text_encoder" in name for name in trained)
    optimizer = torch.optim.SGD(adapted.parameters(), lr=1.0)
    for _ in range(2):
        optimizer.zero_grad()
        adapted(**inputs).loss.backward()
        optimizer.step()
    adapted.save_pretrained(tmp_path)
    assert (tmp_path / "adapter_model.safetensors").is_file()
    merged = adapted.merge_and_unload().state_dict()
    changed = {name for name, tensor in merged.items() if not torch.equal(tensor, before[name])}
    assert changed and all("query.weight" in name or "value.weight" in name for name in changed)


@every_model
def test_a_frozen_text_encoder_stays_as_it_is(case: Case) -> None:
    model = case.build(freeze_text_encoder=True).train()
    own = {name: part for name, part in model.named_modules() if name and not name.startswith("text_encoder")}
    assert not model.text_encoder.training and all(part.training for part in own.values())
    model(**case.inputs()).loss.backward()
    assert all(parameter.grad is None for parameter in model.text_encoder.parameters())
    assert any(p.grad is not None for name, p in model.named_parameters() if not name.startswith("text_encoder"))


@question_and_relation_models
def test_deep_copies_answer_alike(case: Case) -> None:
    model, inputs = case.build(), case.inputs()
    same(answer(model, inputs), answer(copy.deepcopy(model), inputs), atol=0, rtol=0)
