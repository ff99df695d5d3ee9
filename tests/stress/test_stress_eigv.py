"""The stress test tells an EIGV that answers from the frames it shows from one that only shows them."""

import numpy as np
import pytest
import torch

from hf_causal_video.data import VideoQADataset
from hf_causal_video.models import EIGVConfig, EIGVForVideoQuestionAnswering
from hf_causal_video.stress.runner import stress_test
from hf_causal_video.worlds import ANSWERS, WorldConfig, generate_world
from hf_causal_video.worlds.config import ACTIONS, CLASSES, COLOURS
from hf_causal_video.worlds.features import world_vocabulary

CONFIG = WorldConfig.grounding(rho=0.95, cause_noise=0.3, sigma=0.4, feature_dim=32, question_kinds=("action",))
VECTORS = world_vocabulary(CONFIG)
WORDS = {
    word: torch.from_numpy(VECTORS[kind][place])
    for kind, words in (("classes", CLASSES), ("colours", COLOURS), ("actions", ACTIONS))
    for place, word in enumerate(words)
}


def questions(rows) -> torch.Tensor:
    """Token features (n, 1, C): the word that each question names."""
    return torch.stack([next(WORDS[word] for word in row.split() if word in WORDS) for row in rows]).unsqueeze(1)


class Reader:
    """A model as the stress test asks it: clips of any number of frames, padded."""

    def __init__(self, model):
        self.model = model

    def output(self, asked):
        frames = [torch.as_tensor(clip["frame_features"]).float() for clip, _, _ in asked]
        padded = torch.nn.utils.rnn.pad_sequence(frames, batch_first=True)
        mask = torch.arange(padded.shape[1]) < torch.tensor([[len(clip)] for clip in frames])
        features = questions([question for _, question, _ in asked])
        with torch.inference_mode():
            return self.model(frame_features=padded, frame_mask=mask, question_features=features, output_evidence=True)

    def __call__(self, frames, question, choices):
        return self.batch([(frames, question, choices)])[0]

    def batch(self, asked):
        return list(self.output(asked).logits)

    def evidence(self, asked):
        return [np.flatnonzero(row) for row in self.output(asked).causal_mask]


@pytest.fixture(scope="module")
def model() -> EIGVForVideoQuestionAnswering:
    """Trained for a few seconds, in a world where the environment is the better guide."""
    torch.manual_seed(0)
    world = generate_world(CONFIG, "train", 1200)
    words = questions(world.questions["question"])
    frames = torch.stack([world.features[name].frame_features for name in world.questions["video_id"]]).float()
    labels = torch.tensor(world.questions["answer"][:])
    sizes = {"text_feature_dim": 32, "frame_feature_dim": 32, "num_answers": len(ANSWERS), "projection_dim": 32}
    pooling = {"backbone": "pooling", "backbone_config": {"hidden_size": 48}}
    model = EIGVForVideoQuestionAnswering(EIGVConfig(**sizes, **pooling, contrast_weight=0.0)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.0)
    steps = 400
    for step in range(steps):
        rows = torch.randint(0, len(labels), (48,))
        model.training_progress = step / steps
        loss = model(frame_features=frames[rows], question_features=words[rows], labels=labels[rows]).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


def test_the_environment_moves_the_answer_of_one_and_not_of_the_other(model):
    world = generate_world(CONFIG, "iid", 200)
    items = VideoQADataset(world.questions, world.features)
    reports, evidence = {}, {}
    for answer_from in ("causal", "clip"):
        model.config.answer_from = answer_from
        reader = Reader(model)
        report = stress_test(
            reader, items, evidence="own", tests=["environment_swapped"], progress=False, batch_size=100
        )
        accuracy = {row["test"]: row["accuracy"] for row in report["rows"]}
        reports[answer_from] = accuracy
        evidence[answer_from] = reader.output([(items[0], world.questions[0]["question"], None)]).causal_mask
    assert torch.equal(evidence["causal"], evidence["clip"])  # both show the same frames
    causal, clip = reports["causal"], reports["clip"]
    assert clip["whole"] - clip["environment_swapped"] > 25  # it answered from the environment
    assert abs(causal["whole"] - causal["environment_swapped"]) < 12
