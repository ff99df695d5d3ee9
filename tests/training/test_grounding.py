"""Backbone, IGV and EIGV through the training command: warm-up, swaps, bank."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModel, AutoProcessor

from hf_causal_video.data import VideoQACollator, VideoQADataset, video_number
from hf_causal_video.models import IGVConfig, IGVForVideoQuestionAnswering
from hf_causal_video.training.callbacks import TrainingProgress, read_bank
from hf_causal_video.utils.errors import CausalVideoError
from hf_causal_video.worlds import WorldConfig, generate_world
from tests.training.conftest import TINY, write_recipe
from tests.training.test_run import run

TEXT = TINY["config_overrides"]["text_config"]
POOLING = {"text_config": TEXT, "backbone": "pooling", "backbone_config": {"hidden_size": 8}}
FIELDS = {
    "video_qa_backbone": {},
    "igv": {"warmup_share": 0.25, "ramp_share": 0.25},
    "eigv": {"warmup_share": 0.25, "contrast_weight": 0.1, "num_negatives": 2, "projection_dim": 8},
}
TERMS = {"video_qa_backbone": {"answer"}, "igv": {"answer", "size", "match", "environment", "intervened"}}
TERMS["eigv"] = {"answer", "size", "match", "contrast"}


def recipe(path: Path, method: str, world: dict | None = None, fields: dict | None = None, **changes: object) -> Path:
    """The tiny recipe for a method that takes a backbone."""
    overrides = {**POOLING, **FIELDS[method], **(fields or {})}
    options = {**TINY["world"], "study": "grounding", "min_window": 2, "max_window": 3, **(world or {})}
    changes = {"test_splits": ["iid"], "world": options, **changes}
    return write_recipe(path, method=method, config_overrides=overrides, **changes)


@pytest.mark.parametrize("choices", [4, None])
@pytest.mark.parametrize("method", FIELDS)
def test_a_method_trains_and_logs_every_term(tmp_path: Path, method: str, choices: int | None):
    made = recipe(tmp_path / "r.yaml", method, world={"num_choices": choices})
    metrics = run(made, tmp_path / "run")
    assert 0 <= metrics["test"]["iid"]["Acc"] <= 100
    log = [json.loads(line) for line in (tmp_path / "run" / "training_log.jsonl").read_text().splitlines()]
    terms = [{name[5:] for name in entry if name.startswith("loss_")} for entry in log if "loss_answer" in entry]
    assert set().union(*terms) - {"separation"} == TERMS[method]
    if method != "video_qa_backbone":  # the first quarter of the steps warms up
        warm = {"answer", "size", "match"} | ({"separation"} if method == "igv" else set())
        assert terms[0] == warm and terms[-1] == TERMS[method]
    saved = AutoModel.from_pretrained(tmp_path / "run")
    assert saved.config.backbone == "pooling" and (saved.config.num_answers is None) is (choices is not None)
    if choices is None:  # the words of the answers are the labels of the config
        words = AutoProcessor.from_pretrained(tmp_path / "run").answer_vocabulary
        assert list(saved.config.id2label.values()) == words and saved.config.num_labels == len(words)


def test_a_last_batch_of_one_is_left_out(tmp_path: Path):
    """49 clips in batches of 8: the 49th has nothing to swap with."""
    made = recipe(tmp_path / "r.yaml", "igv", world={"train_clips": 49}, test_splits=[])
    assert run(made, tmp_path / "a")["training"]["steps"] == 12
    plain = recipe(tmp_path / "p.yaml", "video_qa_backbone", world={"train_clips": 49}, test_splits=[])
    assert run(plain, tmp_path / "b")["training"]["steps"] == 14


@pytest.mark.parametrize(("clips", "contrast", "steps"), [(50, 0.1, 6), (51, 0.1, 7), (50, 0.0, 7)])
def test_a_last_batch_of_two_is_left_out_where_the_contrast_needs_three(
    tmp_path: Path, clips: int, contrast: float, steps: int
):
    fields = {"contrast_weight": contrast, "warmup_share": 0.0}
    made = recipe(tmp_path / "r.yaml", "eigv", {"train_clips": clips}, fields, test_splits=[], num_train_epochs=1)
    assert run(made, tmp_path / "run")["training"]["steps"] == steps


def test_batches_of_one_say_what_is_missing(tmp_path: Path):
    made = recipe(tmp_path / "r.yaml", "igv", test_splits=[], per_device_train_batch_size=1)
    with pytest.raises(CausalVideoError, match="nothing to swap frames with.*batches of 1"):
        run(made, tmp_path / "a")


def test_progress_is_a_share_of_all_steps():
    model = IGVForVideoQuestionAnswering(
        IGVConfig(text_feature_dim=4, frame_feature_dim=4, num_answers=2, backbone="pooling")
    )
    for step, share in ((0, 0.0), (30, 0.3), (99, 0.99)):
        TrainingProgress().on_step_begin(None, SimpleNamespace(global_step=step, max_steps=100), None, model=model)
        assert model.training_progress == share


def test_the_bank_holds_every_video_once_and_the_frames_that_training_reads():
    config = WorldConfig(num_frames=8, num_objects=3, feature_dim=8, min_window=2, max_window=3, ask_all=True)
    world = generate_world(config, "train", 5)
    assert len(world.questions) > 5
    bank = read_bank(VideoQADataset(world.questions, world.features, num_frames=4))
    assert bank.frames.shape == (5, 4, 8) and bank.mask is None
    item = VideoQADataset(world.questions, world.features, num_frames=4)[len(world.questions) - 1]
    (row,) = (bank.video_ids == video_number(item["video_id"])).nonzero().flatten().tolist()
    assert torch.equal(bank.frames[row], item["frame_features"])


def test_questions_about_one_video_share_its_number():
    items = [
        {"question": "who", "choices": [], "answer": 0, "video_id": name, "frame_features": torch.zeros(2, 3)}
        for name in ("a", "b", "a")
    ]
    ids = VideoQACollator(lambda **inputs: {}, with_video_ids=True)(items)["video_ids"].tolist()
    assert ids[0] == ids[2] != ids[1]
    assert "video_ids" not in VideoQACollator(lambda **inputs: {})(items)
