"""IVRD where transformers models are used: peft, offload, int8, graphs, Trainer, accelerate, a plain loop."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModel, Trainer, TrainingArguments

from hf_causal_video.models.ivrd import IVRDConfig, IVRDForVideoRelationDetection
from hf_causal_video.models.ivrd.configuration_ivrd import PRESETS
from hf_causal_video.models.ivrd.outputs import VideoRelationOutput
from hf_causal_video.models.loading import open_pretrained
from hf_causal_video.utils.errors import CausalVideoError
from tests.models.test_ivrd import batch, build, segment

every_preset = pytest.mark.parametrize("preset", sorted(PRESETS))


def labelled() -> dict[str, Tensor]:
    """Two segments of 6 and 2 pairs with labels."""
    inputs = batch(segment(3), segment(2, 4, seed=1))
    predicates = torch.full((2, 6, 4), -100.0)
    predicates[0], predicates[1, :2] = torch.eye(4)[[0, 1, 2, 3, 0, 1]], torch.eye(4)[:2]
    return inputs | {"track_labels": torch.tensor([[0, 3, 1], [2, 0, -100]]), "predicate_labels": predicates}


@every_preset
def test_every_adapter_of_all_linear_learns_moves_the_output_and_merges(preset: str) -> None:
    peft = pytest.importorskip("peft")
    inputs = labelled()
    adapted = peft.get_peft_model(build(preset), peft.LoraConfig(r=2, target_modules="all-linear"))
    adapters = {name: weight for name, weight in adapted.named_parameters() if "lora_" in name}
    layers = [module for module in build(preset).modules() if isinstance(module, torch.nn.Linear)]
    assert len(adapters) == 2 * len(layers)
    torch.manual_seed(0)
    for name, weight in adapters.items():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    adapted.train()(**inputs).loss.backward()
    assert [name for name, weight in adapters.items() if weight.grad is None or not weight.grad.any()] == []
    adapted.eval()

    def output() -> Tensor:
        with torch.no_grad():
            found = adapted(**inputs)
        return torch.cat([found.predicate_logits.flatten(), found.object_logits.flatten()])

    before = output()
    for name, weight in adapters.items():
        if "lora_B" in name:
            kept = weight.detach().clone()
            weight.data += 0.5
            assert not torch.allclose(output(), before, atol=1e-5), f"{name} is not used"
            weight.data = kept
    merged = adapted.merge_and_unload()
    with torch.no_grad():
        found = merged(**inputs)
    after = torch.cat([found.predicate_logits.flatten(), found.object_logits.flatten()])
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)


@every_preset
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_model_that_is_offloaded_to_disk_gives_the_same_output(preset: str, share: float, tmp_path: Path) -> None:
    model, inputs = build(preset), labelled()
    model.save_pretrained(tmp_path / "model")
    size = sum(weight.numel() * weight.element_size() for weight in model.state_dict().values())
    offloaded = AutoModel.from_pretrained(
        tmp_path / "model",
        device_map="auto",
        max_memory={"cpu": int(share * size)},
        offload_folder=str(tmp_path / "disk"),
    )
    assert any(weight.is_meta for weight in offloaded.parameters())
    with torch.no_grad():
        found, wanted = offloaded(**inputs), model(**inputs)
        empty = offloaded(**segment(0))
    torch.testing.assert_close(found.predicate_logits, wanted.predicate_logits)
    torch.testing.assert_close(found.loss, wanted.loss)
    assert empty.predicate_logits.shape == (1, 0, 4)


@every_preset
def test_dynamic_int8_stays_close(preset: str) -> None:
    model, inputs = build(preset), labelled()
    with torch.no_grad():
        wanted = model(**inputs)
        small = torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {torch.nn.Linear})
        found = small(**inputs)
    scale = wanted.predicate_logits.abs().max()
    assert (found.predicate_logits - wanted.predicate_logits).abs().max() < 0.2 * scale


def named(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same batch with its pairs named, one of them padding."""
    pairs = build()(**inputs).pair_index
    pairs[0, 2] = -100
    labels = inputs["predicate_labels"].masked_fill((pairs < 0).any(-1, keepdim=True), -100.0)
    return inputs | {"pair_index": pairs, "predicate_labels": labels}


def relations(output: VideoRelationOutput) -> dict[tuple[int, int, int], Tensor]:
    """Predicate logits by sample, subject and object."""
    index, logits = output.pair_index, output.predicate_logits
    return {
        (row, *index[row, place].tolist()): logits[row, place] for row, place in output.pair_mask.nonzero().tolist()
    }


@pytest.mark.slow
@pytest.mark.parametrize("with_pairs", [False, True])
@every_preset
def test_export(preset: str, with_pairs: bool) -> None:
    """A graph has a place for every ordered pair: it answers other tracks of the same shape, and refuses alike."""
    inputs = {name: value for name, value in labelled().items() if "labels" not in name}
    other = {**inputs, "track_start": inputs["track_start"].flip(1), "track_mask": inputs["track_mask"].flip(1)}
    model = build(preset)
    if with_pairs:
        inputs = {**inputs, "pair_index": named(labelled())["pair_index"]}
        other = {**other, "pair_index": model(**other).pair_index[:, :6]}
    graph = torch.export.export(model, (), inputs, strict=False).module()
    for given in (inputs, other):
        found, wanted = graph(**given), model(**given)
        torch.testing.assert_close(relations(found), relations(wanted), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(found.object_logits, wanted.object_logits, atol=1e-5, rtol=1e-4)
        assert not found.predicate_logits[~found.pair_mask].any()
    for name, message in (("track_features", "finite"), ("track_boxes", "finite xyxy")):
        bad = inputs | {name: inputs[name].clone().index_fill_(1, torch.tensor([0]), torch.nan)}
        with pytest.raises(CausalVideoError, match=message):
            model(**bad)
        with pytest.raises(RuntimeError, match=message):
            graph(**bad)


@pytest.mark.slow
@every_preset
def test_compiled(preset: str) -> None:
    torch.compiler.reset()
    inputs = {name: part.double() if part.is_floating_point() else part for name, part in named(labelled()).items()}
    models = [build(preset, hidden_dropout_prob=0.0).double() for _ in range(2)]
    calls = (models[0], torch.compile(models[1], backend="aot_eager", dynamic=False))
    with torch.no_grad():
        found, wanted = (relations(call(**inputs)) for call in calls)
    torch.testing.assert_close(found, wanted, atol=1e-9, rtol=1e-7)
    for model, call in zip(models, calls, strict=True):
        model.train()
        call(**inputs).loss.backward()
    for (name, one), other in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-9, rtol=1e-6, msg=name)
    torch.compiler.reset()


@every_preset
def test_it_trains_by_itself_in_a_plain_loop(preset: str) -> None:
    torch.manual_seed(0)
    fields = {"num_object_classes": 3, "num_predicates": 4, "hidden_size": 8, "feature_dim": 5}
    model = IVRDForVideoRelationDetection(IVRDConfig.preset(preset, hidden_dropout_prob=0.0, **fields)).train()
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=1e-2), []
    for _ in range(40):
        loss = model(**labelled()).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def collate(items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    joined = batch(*({name: value for name, value in one.items() if "labels" not in name} for one in items))
    pairs = [one["predicate_labels"].shape[1] for one in items]
    joined["predicate_labels"] = torch.cat(
        [
            torch.nn.functional.pad(one["predicate_labels"], [0, 0, 0, max(pairs) - count], value=-100.0)
            for one, count in zip(items, pairs, strict=True)
        ]
    )
    joined["track_labels"] = joined["track_mask"].any(-1).long() * 100 - 100
    return joined


def clips(count: int = 6) -> list[dict[str, Tensor]]:
    """Clips of 2, 3 and 4 tracks; the labels of each name the clip, so that none is lost unseen."""
    items = []
    for number in range(count):
        item = segment(2 + number % 3, 5, seed=number)
        pairs = build()(**item).pair_index.shape[1]
        item["predicate_labels"] = torch.eye(4)[[(number + place) % 4 for place in range(pairs)]].unsqueeze(0)
        item["track_labels"] = torch.zeros(1, 2 + number % 3, dtype=torch.long)
        items.append(item)
    return items


class Clips(torch.utils.data.Dataset):
    def __init__(self, items: list[dict[str, Tensor]]):
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.items[index]


def test_trainer_trains_and_predicts_every_pair(tmp_path: Path) -> None:
    model, items = build(), clips()
    arguments = TrainingArguments(
        str(tmp_path),
        per_device_train_batch_size=4,
        per_device_eval_batch_size=4,
        max_steps=3,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        eval_strategy="steps",
        eval_steps=2,
    )
    trainer = Trainer(model, arguments, train_dataset=Clips(items), eval_dataset=Clips(items), data_collator=collate)
    before = model.reference[0].weight.clone()
    trainer.train()
    assert not torch.equal(model.reference[0].weight, before)
    assert any("eval_loss" in entry for entry in trainer.state.log_history)
    found = trainer.predict(Clips(items))
    logits, objects, pairs = found.predictions
    labels = found.label_ids[trainer.label_names.index("predicate_labels")]
    assert logits.shape[:2] == labels.shape[:2] == pairs.shape[:2] and len(logits) == len(items) == len(objects)
    model.eval()
    for row, item in enumerate(items):
        count = item["predicate_labels"].shape[1]
        output = model(**item)
        real = pairs[row, :, 0] >= 0
        assert real.sum() == count == (labels[row, :, 0] != -100).sum()
        torch.testing.assert_close(torch.tensor(labels[row][:count]), item["predicate_labels"][0])
        torch.testing.assert_close(torch.tensor(pairs[row][:count]), output.pair_index[0])
        torch.testing.assert_close(
            torch.tensor(logits[row][:count]), output.predicate_logits[0].detach(), atol=1e-5, rtol=1e-5
        )


def test_gathering_for_metrics_and_slicing_keep_the_pairs_of_a_sample() -> None:
    from accelerate import Accelerator

    items = clips()
    accelerator = Accelerator(cpu=True)
    model = accelerator.prepare(build())
    loader = accelerator.prepare(torch.utils.data.DataLoader(Clips(items), batch_size=4, collate_fn=collate))
    seen = 0
    for inputs in loader:
        output = accelerator.gather_for_metrics(dict(model(**inputs).items()))
        one = {name: value[1:] for name, value in output.items() if name.startswith(("pair", "predicate"))}
        assert one["predicate_logits"].shape[:2] == one["pair_mask"].shape
        seen += int(output["pair_mask"].sum())
    assert seen == sum(item["predicate_labels"].shape[1] for item in items)


def test_it_can_return_a_tuple() -> None:
    model, inputs = build(), labelled()
    output, values = model(**inputs), model(**inputs, return_dict=False)
    assert isinstance(values, tuple) and torch.equal(values[0], output.loss)
    torch.testing.assert_close(values[2], output.predicate_logits)


@every_preset
def test_a_pickled_model_and_one_saved_whole_give_the_same_output(preset: str, tmp_path: Path) -> None:
    model, inputs = build(preset), labelled()
    torch.save(model, tmp_path / "model.pt")
    for again in (pickle.loads(pickle.dumps(model)), torch.load(tmp_path / "model.pt", weights_only=False)):
        torch.testing.assert_close(again(**inputs).predicate_logits, model(**inputs).predicate_logits)


def test_only_safetensors_are_opened(tmp_path: Path) -> None:
    model = build()
    model.save_pretrained(tmp_path)
    with pytest.raises(CausalVideoError, match="use_safetensors"):
        IVRDForVideoRelationDetection.from_pretrained(tmp_path, use_safetensors=False)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    for load in (AutoModel.from_pretrained, IVRDForVideoRelationDetection.from_pretrained):
        with pytest.raises(CausalVideoError, match="safetensors"):
            open_pretrained(load, tmp_path)
