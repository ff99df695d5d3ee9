"""The relation world: pairs of tracks whose predicate is known, with a long tail and a confounder that we wrote.

A relation is a smooth signature of the motion of the subject relative to the object. Which predicate is annotated
depends on the classes of the two (each pair of classes favours three predicates) and on a Zipf law over predicates,
in train, validation and iid. In the split *balanced* every predicate is equally frequent and independent of the
classes: a model that answers with what is frequent, or with what the classes suggest, fails there on the tail.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hf_causal_video.utils.errors import require

RELATION_SPLITS = ("train", "validation", "iid", "balanced")
PARTS: Mapping[str, slice] = {"head": slice(0, 5), "body": slice(5, 12), "tail": slice(12, 20)}  # by falling frequency
CENTRE = 0.5
REACH = 0.03
SIDE = 0.2
GROWTH = 0.1  # how the four numbers of a track become a box


@dataclass(frozen=True)
class RelationWorldConfig:
    """Settings of a relation world; the defaults are the settings of our study.

    Args:
        num_predicates: P, the first is the most frequent.
        num_classes: object classes.
        num_steps: steps T of a track, one a frame.
        zipf: exponent of the frequency of predicates.
        favoured: predicates that each ordered pair of classes favours.
        other_affinity: weight of the predicates that it does not favour.
        noise: standard deviation of the noise on a relation, whose signature has unit power.
        walk: standard deviation of a step of the object's random walk.
        feature_dim: width of the appearance feature: a random unit vector for each class, and noise.
        feature_noise: length of that noise, about.
        world_seed: fixes signatures, class vectors and affinities; a split and its seed fix the pairs.
    """

    num_predicates: int = 20
    num_classes: int = 10
    num_steps: int = 16
    zipf: float = 1.3
    favoured: int = 3
    other_affinity: float = 0.02
    noise: float = 1.5
    walk: float = 0.3
    feature_dim: int = 32
    feature_noise: float = 0.5
    world_seed: int = 0

    def __post_init__(self) -> None:
        require(
            1 <= self.favoured <= self.num_predicates and self.num_steps >= 2 and self.num_classes >= 1,
            "relation world",
            found=f"{self}",
            expected="1 <= favoured <= predicates, 2 steps or more, a class",
            fix="change the field that is out of range",
        )


@dataclass(frozen=True)
class RelationWorldSplit:
    """Pairs of tracks with their predicate; n pairs, T steps, C feature channels.

    Args:
        boxes: (n, 2, T, 4) subject and object, xyxy as fractions of the frame.
        features: (n, 2, C) appearance.
        classes: (n, 2) object classes.
        predicates: (n,).
    """

    boxes: Tensor
    features: Tensor
    classes: Tensor
    predicates: Tensor

    def __len__(self) -> int:
        return len(self.predicates)

    def batch(self, index: Tensor) -> dict[str, Tensor]:
        """Model inputs of some pairs: one segment per pair, subject first, one pair to judge."""
        rows = len(index)
        return {
            "track_boxes": self.boxes[index],
            "track_features": self.features[index],
            "pair_index": torch.tensor([[0, 1]]).repeat(rows, 1, 1),  # (B, 1, 2)
            "track_labels": self.classes[index],
            "predicate_labels": self.predicates[index].unsqueeze(1),  # (B, 1)
        }


def generate_relation_world(
    config: RelationWorldConfig, split: str, num_pairs: int, seed: int = 0
) -> RelationWorldSplit:
    """Make one split of the relation world, the same for the same arguments.

    Args:
        config: the world; keep its world_seed between splits.
        split: "train", "validation", "iid", or "balanced" (predicates uniform and independent of the classes).
        num_pairs: pairs of tracks.
        seed: with the split it fixes the pairs.

    Raises:
        CausalVideoError: an unknown split, or fewer than 1 pair.

    Example:
        >>> generate_relation_world(RelationWorldConfig(), "balanced", num_pairs=3).boxes.shape
        torch.Size([3, 2, 16, 4])
    """
    require(
        split in RELATION_SPLITS and num_pairs >= 1,
        "relation world",
        found=f"{num_pairs} pairs of split {split!r}",
        expected=f"1 or more of {RELATION_SPLITS}",
        fix="name one of them",
    )
    world = np.random.default_rng([config.world_seed, 17])
    signatures = _signatures(world, config)  # (P, T, 4)
    words = world.normal(size=(config.num_classes, config.feature_dim))
    words /= np.linalg.norm(words, axis=1, keepdims=True)
    chances = _predicate_chances(world, config)  # (classes, classes, P)

    rng = np.random.default_rng([seed, RELATION_SPLITS.index(split), config.world_seed, 23])
    classes = rng.integers(0, config.num_classes, (num_pairs, 2))
    if split == "balanced":
        predicates = rng.permutation(np.resize(np.arange(config.num_predicates), num_pairs))
    else:
        chance = chances[classes[:, 0], classes[:, 1]].cumsum(axis=1)  # (n, P)
        predicates = (rng.random((num_pairs, 1)) > chance).sum(axis=1).clip(max=config.num_predicates - 1)
    shape = (num_pairs, config.num_steps, 4)
    relation = signatures[predicates] * rng.uniform(0.7, 1.3, (num_pairs, 1, 1)) + rng.normal(0, config.noise, shape)
    other = rng.normal(0, config.walk, shape).cumsum(axis=1)
    tracks = np.stack([other + relation, other], axis=1)  # (n, 2, T, 4), four numbers per step
    scatter = config.feature_noise * config.feature_dim**-0.5
    features = words[classes] + rng.normal(0, scatter, (num_pairs, 2, config.feature_dim))
    return RelationWorldSplit(
        torch.tensor(_boxes(tracks), dtype=torch.float32),
        torch.tensor(features, dtype=torch.float32),
        torch.tensor(classes),
        torch.tensor(predicates),
    )


def _signatures(rng: np.random.Generator, config: RelationWorldConfig) -> np.ndarray:
    """One smooth motion a predicate: in each of four numbers a linear trend and a sinusoid, unit power in all."""
    size = (config.num_predicates, 1, 4)
    time = np.linspace(-1, 1, config.num_steps)[None, :, None]
    trend, swing = rng.normal(size=size), rng.normal(size=size)
    motion = trend * time + swing * np.sin(
        np.pi * rng.uniform(0.5, 2.0, size) * time + rng.uniform(0, 2 * np.pi, size)
    )
    return motion / np.sqrt((motion**2).mean(axis=(1, 2), keepdims=True))


def _predicate_chances(rng: np.random.Generator, config: RelationWorldConfig) -> np.ndarray:
    """P(predicate | subject class, object class): affinity times Zipf, (classes, classes, P)."""
    pairs = (config.num_classes, config.num_classes)
    frequency = np.arange(1, config.num_predicates + 1) ** -config.zipf
    # The favoured are drawn by the same law, without replacement (the largest of Gumbel-perturbed log-frequencies).
    keys = np.log(frequency) + rng.gumbel(size=(*pairs, config.num_predicates))
    ranks = (-keys).argsort(axis=-1).argsort(axis=-1)
    chance = np.where(ranks < config.favoured, 1.0, config.other_affinity) * frequency
    return chance / chance.sum(axis=-1, keepdims=True)


def _boxes(tracks: np.ndarray) -> np.ndarray:
    """Four numbers per step as a box: the first two place its centre, the others its width and height (..., 4)."""
    centre, size = CENTRE + REACH * tracks[..., :2], SIDE * np.exp(GROWTH * tracks[..., 2:])
    return np.concatenate([centre - size / 2, centre + size / 2], axis=-1)
