"""What a user of transformers does with a model: train it, ask for maps, resize, freeze, load and export it."""

import copy
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMultipleChoice,
    AutoModelForVisualQuestionAnswering,
    BertConfig,
    BertModel,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
    default_data_collator,
)

from hf_causal_video.backbones.transformer import DotProductAttention
from hf_causal_video.models import ALL_METHODS, METHODS, RELATION_METHODS
from hf_causal_video.models.backbone import modeling_backbone
from hf_causal_video.models.loading import open_pretrained
from hf_causal_video.utils.errors import CausalVideoError
from tests.models.cases import CASES, FRAME_DIM, OBJECT_DIM, PREDICATES, RELATION_CASES, TEXT, Case

RELATIONS = RELATION_CASES[0]
every_model = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
ROOT = Path(__file__).resolve().parents[2]
NAMES = ("transtr-choices", "backbone-open-ended", "igv-choices", "eigv-open-ended")
ONE_EACH = [next(case for case in CASES if case.name == name) for name in NAMES]
one_of_each = pytest.mark.parametrize("case", ONE_EACH, ids=lambda case: case.name)
transtr = pytest.mark.parametrize("case", [c for c in CASES if c.name.startswith("transtr")], ids=lambda c: c.name)
TRANSTR = ONE_EACH[0]


def default_model(method: str, **fields: Any) -> PreTrainedModel:
    """A model of a method's default config; only text and widths are small."""
    config_class, model_class = ALL_METHODS[method].config, ALL_METHODS[method].model
    torch.manual_seed(0)
    if method in RELATION_METHODS:
        sizes = {"num_object_classes": 3, "num_predicates": PREDICATES, "hidden_size": 8, "feature_dim": OBJECT_DIM}
        return model_class(config_class(**sizes, **fields))
    small: dict[str, Any] = {"num_objects_kept": 0, "hidden_size": 16, "num_frames_kept": 2, "topk_samples": 8}
    if method != "transtr":
        sizes = {"hidden_dim": 8, "word_dim": 8, "bilinear_dim": 12, "bilinear_chunks": 3, "bilinear_rank": 2}
        small = {"backbone_config": sizes}
    return model_class(config_class(text_config=TEXT, frame_feature_dim=FRAME_DIM, num_answers=3, **small, **fields))


def rows(count: int, method: str = "transtr") -> Dataset:
    """Questions, or segments, as plain rows, each about a clip of its own."""
    if method in RELATION_METHODS:
        inputs = RELATIONS.inputs(count)
        return Dataset.from_dict({name: tensor.tolist() for name, tensor in inputs.items()} | {"note": [""] * count})
    source = torch.Generator().manual_seed(0)
    return Dataset.from_dict(
        {
            "frame_features": torch.randn(count, 5, FRAME_DIM, generator=source).tolist(),
            "input_ids": torch.randint(3, 50, (count, 4), generator=source).tolist(),
            "labels": [index % 3 for index in range(count)],
            "note": ["a column that no model reads"] * count,
        }
    )


def batch_of(count: int, method: str) -> dict[str, Tensor]:
    return default_data_collator(list(rows(count, method).remove_columns("note")))


# training by itself


every_method = pytest.mark.parametrize("method", ALL_METHODS)


@every_method
def test_plain_loop_trains_the_default_config(method: str) -> None:
    model, batch = default_model(method).train(), batch_of(4, method)
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = model(**batch).loss
    loss.backward()
    optimizer.step()
    moved = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
    assert loss.isfinite() and len(moved) > len(before) / 2


@every_method
def test_trainer_trains_evaluates_and_predicts(method: str, tmp_path: Path) -> None:
    """Nine rows by four: the last batch holds one clip, with nothing to swap or mix with."""
    options: dict[str, Any] = {"use_cpu": True, "report_to": "none", "save_strategy": "no", "num_train_epochs": 1}
    related = method in RELATION_METHODS
    options |= {"label_names": ["predicate_labels"]} if related else {"neftune_noise_alpha": 5}
    arguments = TrainingArguments(str(tmp_path), per_device_train_batch_size=4, **options)
    model, data = default_model(method), rows(9, method)
    trainer = Trainer(model, arguments, train_dataset=data, data_collator=default_data_collator)
    assert trainer.train().global_step == 3
    predicted = trainer.predict(data)
    if related:  # logits of every pair, none cut off
        assert predicted.predictions[0].shape == (9, 4, PREDICATES) == predicted.label_ids.shape
        assert math.isfinite(trainer.evaluate(data)["eval_loss"])
        return
    assert predicted.predictions.shape == (9, 3) and torch.isfinite(torch.tensor(trainer.evaluate(data)["eval_loss"]))
    assert trainer.label_names == ["labels"]


# outputs


@one_of_each
def test_return_dict(case: Case) -> None:
    model, inputs = case.build(), case.inputs()
    output = model(**inputs)
    given = model(**inputs, return_dict=False)
    assert isinstance(given, tuple) and torch.equal(given[0], output.loss) and torch.equal(given[2], output.logits)
    model.config.return_dict = False
    assert isinstance(model(**inputs), tuple)
    model.config.return_dict = True
    model.text_encoder.config.return_dict = False
    assert torch.equal(model(**inputs).logits, output.logits)


@one_of_each
def test_unknown_arguments(case: Case) -> None:
    with pytest.raises(CausalVideoError, match="unknown argument frame_featurs"):
        case.build()(**case.inputs(), frame_featurs=torch.zeros(1))
    assert case.build()(**case.inputs(), num_items_in_batch=torch.tensor(3)).loss.isfinite()


@every_model
def test_hidden_states(case: Case) -> None:
    model, inputs = case.build(), case.inputs()
    plain, output = model(**inputs), model(**inputs, output_hidden_states=True)
    assert plain.hidden_states is None
    torch.testing.assert_close(output.logits, plain.logits, atol=1e-5, rtol=1e-4)
    wanted = 2 if "transtr" not in case.name else 6 if case.objects else 4
    assert len(output.hidden_states) == wanted and output.hidden_states[0].shape[:2] == inputs["frame_mask"].shape
    gradient = torch.autograd.grad(output.loss, output.hidden_states[0], retain_graph=True)[0]
    assert gradient.any()  # the answer depends on what is returned
    model.config.output_hidden_states = True
    assert len(model(**inputs).hidden_states) == wanted


@transtr
def test_attention_maps(case: Case) -> None:
    model, inputs = case.build(), case.inputs()
    output = model(**inputs, output_attentions=True)
    torch.testing.assert_close(output.logits, model(**inputs).logits, atol=1e-5, rtol=1e-4)
    layers = model.config.num_layers * (9 if case.objects else 5)  # two per decoder, one per encoder
    assert len(output.attentions) == layers
    batch, frames = inputs["frame_mask"].shape
    first, second = (
        output.attentions[0],
        [a for a in output.attentions if a.shape[-1] == inputs["input_ids"].shape[1]][0],
    )
    assert first.shape == (batch, 2, frames, frames) and second.shape == (
        batch,
        2,
        frames,
        inputs["input_ids"].shape[1],
    )
    for attention in output.attentions:
        torch.testing.assert_close(attention.sum(-1), torch.ones(attention.shape[:-1]))
    padded = first.masked_select(~inputs["frame_mask"][:, None, None, :])
    assert not padded.any()  # no frame attends to padding


@pytest.mark.parametrize("case", [*ONE_EACH[1:], RELATIONS], ids=lambda case: case.name)
def test_attention_maps_of_a_backbone_are_refused(case: Case) -> None:
    with pytest.raises(CausalVideoError, match="output_attentions=True.*no attention layers"):
        case.build()(**case.inputs(), output_attentions=True)


def test_a_relation_model_gives_tuples_and_hidden_states() -> None:
    model, inputs = RELATIONS.build(), RELATIONS.inputs()
    output, given = model(**inputs), model(**inputs, return_dict=False)
    assert torch.equal(given[0], output.loss) and any(torch.equal(part, output.predicate_logits) for part in given[2:])
    tracks, pairs = model(**inputs, output_hidden_states=True).hidden_states
    assert tracks.shape[:2] == inputs["track_mask"].shape[:2] and torch.equal(pairs, output.references)


@transtr
def test_attn_implementation(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    fused = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or fused(*a, **k))
    inputs = case.inputs()
    case.build().save_pretrained(tmp_path)
    logits, counts = {}, {}
    for name in ("eager", "sdpa"):
        model = case.model_class.from_pretrained(tmp_path, attn_implementation=name).eval()
        calls.clear()
        logits[name], counts[name] = model(**inputs).logits, len(calls)
        model.set_attn_implementation("eager")
        calls.clear()
        model(**inputs)
        assert not calls
    assert (
        counts["eager"] == 0 and counts["sdpa"] > sum(isinstance(m, DotProductAttention) for m in model.modules()) / 2
    )
    torch.testing.assert_close(logits["eager"], logits["sdpa"], atol=1e-5, rtol=1e-4)


def test_only_models_with_attention_claim_sdpa() -> None:
    claims = {name: method.model._supports_sdpa for name, method in METHODS.items()}
    assert claims == {name: name == "transtr" for name in METHODS}


# the vocabularies


@one_of_each
def test_token_embeddings_are_resized_saved_and_loaded(case: Case, tmp_path: Path) -> None:
    model, inputs = case.build(), case.inputs()
    before = model(**inputs).logits
    assert model.get_input_embeddings() is model.text_encoder.get_input_embeddings()
    model.resize_token_embeddings(60)
    torch.testing.assert_close(model(**inputs).logits, before, atol=0, rtol=0)
    inputs["input_ids"] = inputs["input_ids"].where(inputs["input_ids"] != inputs["input_ids"][0, 0], 59)
    after = model(**inputs).logits
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path).eval()
    assert loaded.config.text_config.vocab_size == 60 and len(loaded.get_input_embeddings().weight) == 60
    torch.testing.assert_close(loaded(**inputs).logits, after, atol=1e-6, rtol=1e-5)


def test_a_model_of_token_features_has_no_embeddings() -> None:
    model = METHODS["igv"].model(METHODS["igv"].config(text_config=None, backbone="pooling", num_answers=3))
    with pytest.raises(NotImplementedError, match="IGVFor.*reads features"):
        model.resize_token_embeddings(5)


@pytest.mark.parametrize("method", METHODS)
def test_labels_come_from_the_answers(method: str, tmp_path: Path) -> None:
    config_class = METHODS[method].config
    config = config_class(num_answers=3)
    assert config.num_labels == 3 and config.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    config.set_answer_vocabulary(["cat", "dog"])
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert loaded.id2label == {0: "cat", 1: "dog", 2: "<other>"} and loaded.label2id["dog"] == 1
    assert config_class(num_answers=2, id2label={0: "a", 1: "b"}).label2id == {"a": 0, "b": 1}
    assert config_class(num_answers=3, id2label={0: "LABEL_0", 1: "LABEL_1"}).num_labels == 3  # an older checkpoint
    with pytest.raises(CausalVideoError, match="2 labels; expected num_answers=3"):
        config_class(num_answers=3, id2label={0: "a", 1: "b"})


# frozen encoders


@one_of_each
def test_adapters_in_a_frozen_encoder_learn(case: Case) -> None:
    peft = pytest.importorskip("peft")
    model = case.build(freeze_text_encoder=True, **case.still)
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=r".*text_encoder.*(query|value)")).train()
    loss = adapted(**case.inputs()).loss
    loss.backward()
    gradients = {name: p.grad for name, p in adapted.named_parameters() if "lora_B" in name}
    assert len(gradients) == 4 and all(gradient is not None and gradient.any() for gradient in gradients.values())
    frozen = [p.grad for name, p in adapted.named_parameters() if "text_encoder" in name and "lora" not in name]
    assert all(gradient is None for gradient in frozen)


# loading


@one_of_each
def test_weights_come_from_safetensors_alone(case: Case, tmp_path: Path) -> None:
    model = case.build()
    model.save_pretrained(tmp_path)
    with pytest.raises(CausalVideoError, match="use_safetensors: found False"):
        case.model_class.from_pretrained(tmp_path, use_safetensors=False)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(OSError, match="safetensors"):
        AutoModel.from_pretrained(tmp_path)
    with pytest.raises(CausalVideoError, match="safetensors"):
        open_pretrained(AutoModel.from_pretrained, tmp_path)


def test_open_pretrained_opens_no_pickle_of_another_model(tmp_path: Path) -> None:
    other = BertModel(BertConfig(**{name: value for name, value in TEXT.items() if name != "model_type"}))
    other.config.save_pretrained(tmp_path)
    torch.save(other.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(CausalVideoError, match="safetensors"):
        open_pretrained(AutoModel.from_pretrained, tmp_path)


@one_of_each
def test_pickled_adapters_are_refused(case: Case, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(CausalVideoError, match="adapters .*no adapter_model.safetensors"):
        case.build().load_adapter(str(tmp_path))


@every_model
def test_a_task_class_refuses_the_other_head(case: Case, tmp_path: Path) -> None:
    case.build().save_pretrained(tmp_path)
    fits, other = (AutoModelForVisualQuestionAnswering, AutoModelForMultipleChoice)[:: 1 if case.open_ended else -1]
    assert type(fits.from_pretrained(tmp_path)) is case.model_class
    for load in (other.from_pretrained, lambda folder: other.from_config(AutoConfig.from_pretrained(folder))):
        with pytest.raises(CausalVideoError, match="num_answers=.*load it by AutoModel"):
            load(tmp_path)


@every_method
def test_register_for_auto_class_names_the_push(method: str) -> None:
    for one in (ALL_METHODS[method].config, ALL_METHODS[method].model, ALL_METHODS[method].processor):
        with pytest.raises(CausalVideoError, match="hf-causal-video push"):
            one.register_for_auto_class()
        assert one._auto_class is None


@pytest.mark.slow
def test_two_processes_of_accelerate_train_the_default_configs(tmp_path: Path) -> None:
    command = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    program = Path(__file__).with_name("raw_training.py")
    command += ["--mixed_precision", "no", "--main_process_port", "0", str(program), str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    one, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    for method in ALL_METHODS:
        assert one[method]["weights"] == other[method]["weights"]  # the gradients were averaged
        assert one[method]["losses"] != other[method]["losses"] and all(map(math.isfinite, one[method]["losses"]))


@pytest.mark.slow
def test_parameters_sharded_over_two_processes_train_as_in_one(tmp_path: Path) -> None:
    """TranSTR over DeBERTa and IGV over HGA: equal losses, half of the weights each, saved whole and loaded back."""
    program = Path(__file__).with_name("sharded_training.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [*command, str(program), str(tmp_path)], env=environment, capture_output=True, text=True, timeout=900
    )
    assert run.returncode == 0, run.stderr[-3000:]
    report = json.loads((tmp_path / "report.json").read_text())
    assert len(report) == 2
    for made in report.values():
        assert made["losses"] == pytest.approx(made["wanted"], abs=1e-5) and made["losses"][0] != made["losses"][2]
        assert made["gap"] < 1e-5 and made["share"] < 0.6


def test_the_table_names_tests_that_exist() -> None:
    """Each row of "Models and transformers" is held by a test."""
    text = (Path(modeling_backbone.__file__).parents[1] / "README.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line][1:]
    source = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for row in rows:
        names = re.findall(r"`(test_\w+)`", row)
        assert names and all(f"def {name}(" in source for name in names), row
