"""The relation world is what it says: a long tail and a confounder in training, neither in the balanced split."""

import pytest
import torch

from hf_causal_video.models.ivrd.motion import relative_motion
from hf_causal_video.utils.errors import CausalVideoError
from hf_causal_video.worlds.relations import PARTS, RelationWorldConfig, generate_relation_world

WORLD = RelationWorldConfig()


def test_the_same_arguments_make_the_same_pairs_and_splits_and_seeds_differ() -> None:
    one, two = (generate_relation_world(WORLD, "iid", 50, seed=3) for _ in range(2))
    assert torch.equal(one.boxes, two.boxes) and torch.equal(one.predicates, two.predicates)
    for split, seed in (("train", 3), ("iid", 4)):
        assert not torch.equal(one.boxes, generate_relation_world(WORLD, split, 50, seed).boxes)


def test_training_has_a_long_tail_and_balanced_has_none() -> None:
    counts = torch.bincount(generate_relation_world(WORLD, "train", 6000).predicates, minlength=20)
    shares = {part: counts[where].float().mean() / 6000 for part, where in PARTS.items()}
    assert shares["head"] > 10 * shares["body"] > 20 * shares["tail"]
    assert torch.bincount(generate_relation_world(WORLD, "balanced", 2000).predicates).tolist() == [100] * 20


def test_classes_tell_the_predicate_in_training_and_nothing_in_balanced() -> None:
    train = generate_relation_world(WORLD, "train", 6000)
    table = torch.zeros(10, 10, 20)
    table.index_put_((*train.classes.unbind(1), train.predicates), torch.ones(6000), accumulate=True)
    accuracy = {}
    for split in ("iid", "balanced"):
        test = generate_relation_world(WORLD, split, 2000)
        accuracy[split] = (table[tuple(test.classes.unbind(1))].argmax(1) == test.predicates).float().mean().item()
    assert accuracy["iid"] > 0.6 and accuracy["balanced"] < 0.08


def test_a_predicate_is_its_relative_motion_not_its_place() -> None:
    """Mean relative motion of one predicate agrees between splits, and differs between predicates."""
    means = []
    for split in ("train", "balanced"):
        pairs = generate_relation_world(WORLD, split, 8000)
        motion = relative_motion(pairs.boxes[:, 0], pairs.boxes[:, 1]).flatten(1)
        means.append(torch.stack([motion[pairs.predicates == p].mean(0) for p in range(5)]))
    one, two = (torch.nn.functional.normalize(mean, dim=1) for mean in means)
    agreement = one @ two.T
    assert agreement.diagonal().min() > 0.8 and agreement.fill_diagonal_(0).max() < 0.8


def test_boxes_are_boxes_inside_the_frame() -> None:
    boxes = generate_relation_world(WORLD, "train", 2000).boxes
    assert (boxes[..., 2:] > boxes[..., :2]).all() and boxes.min() > 0 and boxes.max() < 1


def test_a_batch_is_what_the_model_takes() -> None:
    batch = generate_relation_world(WORLD, "iid", 9).batch(torch.tensor([4, 2]))
    assert batch["track_boxes"].shape == (2, 2, 16, 4) and batch["track_features"].shape == (2, 2, 32)
    assert batch["pair_index"].tolist() == [[[0, 1]]] * 2


def test_bad_settings_are_errors() -> None:
    with pytest.raises(CausalVideoError):
        generate_relation_world(WORLD, "test", 5)
    with pytest.raises(CausalVideoError):
        generate_relation_world(WORLD, "iid", 0)
    with pytest.raises(CausalVideoError):
        RelationWorldConfig(favoured=30)
