"""FSDP as scripts/fsdp.yaml says: the numbers of one process, with half of the weights in each."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from tests.training.conftest import TINY, write_recipe
from tests.training.test_processes import STILL_TEXT, igv, ivrd, log
from tests.training.warm import Warm

DEBERTA = {"model_type": "deberta", "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "type_vocab_size": 0,
           "position_biased_input": False, "intermediate_size": 24} | STILL_TEXT  # fmt: skip


def transtr_over_deberta(folder: Path) -> Path:
    fields = {**TINY["config_overrides"], "text_config": DEBERTA, "hidden_dropout_prob": 0.0}
    return write_recipe(folder / "r.yaml", config_overrides=fields, num_train_epochs=3, test_splits=["iid"])


def test_two_sharded_processes_train_as_one(warm: Warm, tmp_path: Path):
    """Every term of the loss at every step; the model is saved whole, loads, and answers alike."""
    command = ["--config", transtr_over_deberta(tmp_path), "--logging_steps", 1, "--per_device_train_batch_size"]
    one, two = tmp_path / "one", tmp_path / "two"
    warm.run(*command, 8, "--output_dir", one, before="draw_by_group")
    warm.run(*command, 4, "--output_dir", two, processes=2, before="shard")
    assert len(log(one)) == len(log(two)) >= 10
    for sharded, whole in zip(log(two), log(one), strict=True):
        terms = {name for name in whole if name.startswith("loss")}
        assert {name: sharded[name] for name in terms} == pytest.approx({n: whole[n] for n in terms}, abs=1e-5)
    shares = [json.loads((tmp_path / f"two.share{rank}.json").read_text()) for rank in (0, 1)]
    assert max(shares) < 0.6 and sum(shares) == pytest.approx(1.0)
    models = [AutoModel.from_pretrained(folder) for folder in (one, two)]
    for (name, weight), (_, other) in zip(*(model.named_parameters() for model in models), strict=True):
        torch.testing.assert_close(weight, other, rtol=1e-4, atol=1e-5, msg=name)
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (one, two)]
    assert metrics[0]["test"] == metrics[1]["test"]


def test_what_cannot_be_sharded_is_refused_in_words(warm: Warm, tmp_path: Path):
    for make, options, words in (
        (transtr_over_deberta, ["--lora_rank", 2], "adapters cannot be merged into sharded weights"),
        (igv, [], "this model cannot be sharded: found IGVForVideoQuestionAnswering"),
        (ivrd, [], "this model cannot be sharded: found IVRDForVideoRelationDetection"),
    ):
        command = ["--config", make(tmp_path), *options, "--output_dir", tmp_path / make.__name__]
        with pytest.raises(AssertionError, match=words):
            warm.run(*command, processes=2, before="shard")
