"""The confounded world as features: what a perfect, noisy backbone would see in its clips.

Every word of the world is a random unit vector. A frame in which somebody acts is the sum of the words of the
actors; a frame in which nobody acts shows the environment instead. So the cause of an answer and the
confounder never share a frame, and a mask over frames can separate them, unless the world has
`background_everywhere`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset

from hf_causal_video.features.store.reader import FeatureStore, FeatureWriter, Provenance, VideoFeatures
from hf_causal_video.utils.files import whole_file
from hf_causal_video.worlds.clips import WorldClips, draw_clips, world_questions
from hf_causal_video.worlds.config import NUM_VALUES, SPLITS, WorldConfig

CHUNK = 256  # clips whose noise is drawn at a time; fixed, since it decides the order of the draws


@dataclass(frozen=True)
class WorldSplit:
    """One split of a world: questions with their truth, features by video id, and what happens in clips."""

    questions: Dataset
    features: FeatureStore
    clips: WorldClips

    def write(self, folder: str | Path) -> Path:
        """Write a feature set together with `questions.parquet`, and return the folder.

        Args:
            folder: one folder per split, since crowded clips hold another number of objects.
        """
        folder = Path(folder)
        with FeatureWriter(folder, self.features.provenance, split=self.clips.split) as writer:
            for video in self.features:
                writer.add(video)
        with whole_file(folder / "questions.parquet") as partial:
            self.questions.to_parquet(partial)
        return folder


def generate_world(config: WorldConfig, split: str, num_clips: int, seed: int = 0) -> WorldSplit:
    """Make one split of the confounded world: questions, features and truth, the same for the same arguments.

    Args:
        config: the world; its world_seed fixes the vocabulary vectors, so keep it between splits.
        split: "train", "validation", "iid", "ood" (the environment is always wrong), "long" (4 T frames),
            "crowded" (3 N objects), "both", or "unseen" (the asked class does what it never did before).
        num_clips: clips, one question each.
        seed: with the split it fixes the clips.

    Raises:
        CausalVideoError: an unknown split, or fewer than 1 clip.

    Example:
        >>> world = generate_world(WorldConfig.grounding(), "ood", num_clips=10)
        >>> any(world.questions["environment_agrees"]), len(world.features)
        (False, 10)
    """
    clips = draw_clips(config, split, num_clips, seed)
    return WorldSplit(world_questions(clips), world_features(clips), clips)


def world_vocabulary(config: WorldConfig) -> dict[str, np.ndarray]:
    """Return the unit vectors of the world's words: classes, colours, actions, environments, tints, each (8, C)."""
    size = (NUM_VALUES, config.feature_dim)
    vectors = np.random.default_rng([config.world_seed]).standard_normal((4, *size))
    tints = np.random.default_rng([config.world_seed, 1]).standard_normal((1, *size))
    vectors = np.concatenate([vectors, tints])
    vectors = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
    return dict(zip(("classes", "colours", "actions", "environments", "tints"), vectors, strict=True))


def world_features(clips: WorldClips) -> FeatureStore:
    """Turn clips into features.

    With unit vectors c (class), k (colour), a (action), e (environment, plus its tint in a world that has
    one) and noise n ~ N(0, 1 / C):

        frame_t = sum over actors acting at t of (c + a + k)  +  background_scale * e if nobody acts at t
                  + context_scale * mean over objects of (c + k)  +  sigma * n
        object_t = c + k + action_gain * a if acting at t  +  object_sigma * n

    where k is left out of frames if the world has no colour_in_frames, and the environment is in every
    frame if it has background_everywhere. Boxes follow a random walk.
    """
    num_objects = clips.config.sizes(clips.split)[1]
    return FeatureStore.from_rows(_provenance(clips.config, num_objects), _rows(clips))


def _rows(clips: WorldClips) -> Iterator[VideoFeatures]:
    config = clips.config
    num_frames, num_objects = config.sizes(clips.split)
    words = world_vocabulary(config)
    rng = np.random.default_rng([clips.seed, SPLITS.index(clips.split), 1])
    for first in range(0, len(clips), CHUNK):
        part = slice(first, first + CHUNK)
        acting = clips.acting[part].astype(np.float32)  # (n, T, N)
        kind = words["classes"][clips.classes[part]]  # (n, N, C)
        look = kind + words["colours"][clips.colours[part]]
        action = words["actions"][clips.actions[part]]  # read only where somebody acts
        seen = look if config.colour_in_frames else kind
        scenery = words["environments"][clips.environment[part]]  # (n, C)
        if clips.tint is not None:
            scenery = scenery + words["tints"][clips.tint[part]]
        visible = (acting.sum(axis=2) == 0)[..., None] | config.background_everywhere  # (n, T, 1)
        frames = (
            acting @ (seen + action)
            + config.background_scale * visible * scenery[:, None]
            + config.context_scale * seen.mean(axis=1, keepdims=True)
            + _noise(rng, config.sigma, (*acting.shape[:2], config.feature_dim))
        )
        objects = (
            look[:, None]
            + config.action_gain * acting[..., None] * action[:, None]
            + _noise(rng, config.object_sigma, (*acting.shape, config.feature_dim))
        )
        boxes = _boxes(rng, acting.shape)
        for i, video_id in enumerate(clips.video_ids[part]):
            yield VideoFeatures(
                video_id=video_id,
                timestamps_s=torch.arange(num_frames) + 0.5,  # the middle of each second
                frame_features=torch.from_numpy(frames[i]).half(),
                object_features=torch.from_numpy(objects[i]).half(),
                object_boxes=torch.from_numpy(boxes[i]).float(),
                object_scores=torch.ones(num_frames, num_objects),
                object_labels=torch.from_numpy(clips.classes[first + i]).int().expand(num_frames, -1),
            )


def _noise(rng: np.random.Generator, length: float, shape: tuple[int, ...]) -> np.ndarray:
    return length / np.sqrt(shape[-1], dtype=np.float32) * rng.standard_normal(shape, dtype=np.float32)


def _boxes(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """Let boxes of constant size walk at random, reflected at the borders of the picture. (n, T, N, 4)"""
    n, num_frames, num_objects = shape
    half = rng.uniform(0.04, 0.10, (n, 1, num_objects, 2))
    steps = rng.normal(0.0, 0.02, (n, num_frames, num_objects, 2))
    steps[:, 0] = rng.uniform(0.0, 1.0, (n, num_objects, 2))
    room = 1 - 2 * half
    path = np.abs(np.mod(np.cumsum(steps, axis=1) + room, 2 * room) - room)  # a triangle wave stays in [0, room]
    return np.concatenate([path, path + 2 * half], axis=-1).clip(0, 1)


def _provenance(config: WorldConfig, num_objects: int) -> Provenance:
    return Provenance(
        frame_model="confounded-world",
        frame_revision=f"seed-{config.world_seed}",
        frame_layer="class+action+colour" if config.colour_in_frames else "class+action",
        frame_dim=config.feature_dim,
        object_model="confounded-world",
        object_revision=f"seed-{config.world_seed}",
        object_layer="class+colour+action",
        object_dim=config.feature_dim,
        num_objects=num_objects,
        sampling="fps-1",
        created_with=config.to_dict(),
    )
