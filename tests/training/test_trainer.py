"""The trainer: groups, loss terms, noise, early stopping, and errors that name the questions."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from hf_causal_video.training import CausalVideoTrainer, CausalVideoTrainingArguments
from hf_causal_video.training.callbacks import IndependentNoise, SigmaAnnealing
from hf_causal_video.utils.errors import CausalVideoError

pytestmark = pytest.mark.rounding


class ToyConfig(PreTrainedConfig):
    model_type = "toy-for-trainer-tests"
    width: int = 4
    answers: int = 3
    topk_sigma: float | int = 1.0
    topk_sigma_final: float | int | None = None


@dataclass
class ToyOutput(ModelOutput):
    loss: Tensor | None = None
    losses: dict[str, Tensor] | None = None
    logits: Tensor | None = None
    frame_scores: Tensor | None = None


class ToyModel(PreTrainedModel):
    """A text encoder, a norm, a head and two loss terms: the least that has every part the trainer handles."""

    config: ToyConfig
    accepts_loss_kwargs = False
    main_input_name = "frame_features"

    def __init__(self, config: ToyConfig):
        super().__init__(config)
        self.text_encoder = nn.Sequential(nn.Linear(config.width, config.width), nn.LayerNorm(config.width))
        self.layer_norm = nn.LayerNorm(config.width)
        self.classifier = nn.Linear(config.width, config.answers)
        self.topk_sigma = float(config.topk_sigma)
        self.seen_sigmas: list[float] = []
        self.post_init()

    def forward(self, frame_features: Tensor, labels: Tensor | None = None, **kwargs: Any) -> ToyOutput:
        if self.training:
            self.seen_sigmas.append(self.topk_sigma)
        logits = self.classifier(self.layer_norm(self.text_encoder(frame_features).mean(1)))  # (B, A)
        if labels is None:
            return ToyOutput(logits=logits, frame_scores=frame_features[..., 0])
        terms = {"answer": nn.functional.cross_entropy(logits, labels), "size": 2 * logits.square().mean()}
        return ToyOutput(sum(terms.values()), terms, logits, frame_features[..., 0])


class Questions(torch.utils.data.Dataset):
    """Random features; the answer is the largest of the first three channels of their mean."""

    def __init__(self, count: int = 24, seed: int = 0):
        self.features = torch.randn(count, 5, 4, generator=torch.Generator().manual_seed(seed))

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: int) -> dict[str, Any]:
        features = self.features[index]
        return {"question_id": f"q{index}", "features": features, "answer": int(features.mean(0)[:3].argmax())}


def collate(items: list[dict[str, Any]]) -> dict[str, Tensor]:
    features = torch.stack([item["features"] for item in items])
    return {"frame_features": features, "labels": torch.tensor([item["answer"] for item in items])}


def make_trainer(
    folder: Path, model: nn.Module | None = None, train: Any = None, **arguments: Any
) -> CausalVideoTrainer:
    usual = {
        "use_cpu": True, "disable_tqdm": True, "num_train_epochs": 2, "per_device_train_batch_size": 4,
        "logging_steps": 3, "learning_rate": 0.01,
    }  # fmt: skip
    return CausalVideoTrainer(
        model=model or ToyModel(ToyConfig()),
        args=CausalVideoTrainingArguments(str(folder), **{**usual, **arguments}),
        data_collator=collate,
        train_dataset=train or Questions(),
        eval_dataset=Questions(10, seed=1),
    )


def test_every_trained_weight_is_in_one_group_with_its_rate_and_decay(tmp_path: Path):
    trainer = make_trainer(tmp_path, weight_decay=0.1, learning_rate=1e-3, text_encoder_learning_rate=1e-5)
    trainer.model.text_encoder[0].bias.requires_grad_(False)
    groups = trainer.create_optimizer().param_groups
    where = {id(parameter): group for group in groups for parameter in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(where)
    for name, parameter in trainer.model.named_parameters():
        if not parameter.requires_grad:
            assert id(parameter) not in where
            continue
        group = where[id(parameter)]
        assert group["lr"] == (1e-5 if name.startswith("text_encoder") else 1e-3)
        is_matrix = name in ("text_encoder.0.weight", "classifier.weight")
        assert group["weight_decay"] == (0.1 if is_matrix else 0.0)
    assert groups[0]["lr"] == 1e-3  # the rate that is logged


def test_one_decay_for_every_weight_where_asked(tmp_path: Path):
    trainer = make_trainer(tmp_path, weight_decay=0.1, decay_biases_and_norms=True, text_encoder_learning_rate=1e-5)
    groups = trainer.create_optimizer().param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.1]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_loss_terms_are_logged_and_add_up_to_the_loss(tmp_path: Path, accumulation: int):
    trainer = make_trainer(
        tmp_path, gradient_accumulation_steps=accumulation, per_device_train_batch_size=4 // accumulation
    )
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(logs) == 4
    for entry in logs:
        assert entry["loss_answer"] + entry["loss_size"] == pytest.approx(entry["loss"], rel=1e-4)


def test_accumulated_batches_train_as_one_large_batch(tmp_path: Path):
    weights = []
    for accumulation in (1, 4):
        torch.manual_seed(0)
        trainer = make_trainer(
            tmp_path / str(accumulation), ToyModel(ToyConfig()), gradient_accumulation_steps=accumulation,
            per_device_train_batch_size=8 // accumulation, optim="sgd",
        )  # fmt: skip
        trainer.train()
        weights.append(trainer.model.classifier.weight.detach())
    torch.testing.assert_close(weights[0], weights[1])


def test_evaluation_gathers_logits_only_and_counts_unknown_answers_as_wrong(tmp_path: Path):
    trainer = make_trainer(tmp_path)
    known = trainer.predict(Questions(10, seed=1))
    assert known.predictions.shape == (10, 3)

    class Unknown(Questions):
        def __getitem__(self, index: int) -> dict[str, Any]:
            return {**super().__getitem__(index), "answer": -100}

    nobody_knows = trainer.predict(Unknown(10))
    assert nobody_knows.metrics["test_accuracy"] == 0.0 and "test_loss" not in nobody_knows.metrics
    logits, labels = torch.tensor(known.predictions), torch.tensor(known.label_ids)
    assert known.metrics["test_loss"] == pytest.approx(nn.functional.cross_entropy(logits, labels).item())


def test_a_loss_that_is_not_finite_stops_and_names_the_questions(tmp_path: Path):
    questions = Questions()
    questions.features[7] = math.nan
    trainer = make_trainer(tmp_path, train=questions)
    with pytest.raises(CausalVideoError, match=r"'q7'") as caught:
        trainer.train()
    assert "answer" in str(caught.value) and "not finite at step" in str(caught.value)
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())  # no step was taken on it


def test_bad_input_is_named_by_its_questions(tmp_path: Path):
    def refuse(items: list[dict[str, Any]]) -> None:
        raise CausalVideoError("frame_features", found="NaN in rows [0]", expected="numbers", fix="extract again")

    trainer = make_trainer(tmp_path)
    trainer.data_collator.collator = refuse
    with pytest.raises(CausalVideoError, match=r"frame_features, in the batch of questions \['q\d+'.*NaN in rows"):
        trainer.train()


def test_sigma_goes_down_linearly_from_first_to_final(tmp_path: Path):
    model = ToyModel(ToyConfig(topk_sigma=1.5, topk_sigma_final=0.3))
    make_trainer(tmp_path, model).train()
    expected = torch.linspace(1.5, 0.3, 12).tolist()
    assert model.seen_sigmas == pytest.approx(expected, abs=1e-6)
    assert model.config.topk_sigma == 1.5


def test_sigma_stays_where_nothing_is_annealed(tmp_path: Path):
    model = ToyModel(ToyConfig(topk_sigma=0.7))
    make_trainer(tmp_path, model).train()
    assert set(model.seen_sigmas) == {0.7}


def test_a_step_knows_its_sigma_without_the_steps_before():
    model, callback = ToyModel(ToyConfig(topk_sigma=2.0, topk_sigma_final=1.0)), SigmaAnnealing()
    state = type("State", (), {"global_step": 50, "max_steps": 101})
    callback.on_step_begin(None, state, None, model=model)
    assert model.topk_sigma == pytest.approx(1.5)


@pytest.mark.parametrize(("rank", "same"), [(0, True), (1, False)])
def test_only_processes_beyond_the_first_draw_other_noise(rank: int, same: bool):
    torch.manual_seed(3)
    usual = torch.rand(2)
    torch.manual_seed(3)
    IndependentNoise().on_train_begin(type("Args", (), {"process_index": rank, "seed": 3}), None, None)
    assert torch.equal(torch.rand(2), usual) == same


def test_training_stops_early_and_keeps_the_best(tmp_path: Path):
    """With a rate of zero nothing improves on the first validation."""
    trainer = make_trainer(tmp_path, learning_rate=0.0, early_stopping_patience=2, num_train_epochs=9)
    trainer.train()
    assert trainer.state.epoch == 3.0
    assert trainer.state.best_global_step == 6


def test_weights_that_do_not_fit_are_an_error_on_resuming(tmp_path: Path):
    make_trainer(tmp_path, num_train_epochs=1).train()
    wider = ToyModel(ToyConfig())
    wider.extra = nn.Linear(2, 2)
    with pytest.raises(CausalVideoError, match="extra"):
        make_trainer(tmp_path, wider).train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))


def test_one_process_does_not_take_several_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(CausalVideoTrainingArguments, "n_gpu", 2)
    with pytest.raises(CausalVideoError, match="accelerate launch"):
        make_trainer(tmp_path)


def test_a_resumed_run_refuses_to_lose_its_best_checkpoint(tmp_path: Path):
    import shutil

    make_trainer(tmp_path, learning_rate=0.0, save_total_limit=None).train()  # the first is the best
    shutil.rmtree(tmp_path / "checkpoint-6")
    with pytest.raises(CausalVideoError, match="checkpoint-6"):
        make_trainer(tmp_path).train(resume_from_checkpoint=str(tmp_path / "checkpoint-12"))
