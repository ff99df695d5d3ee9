"""The confounded world: short clips whose causes are known, because we wrote them.

Some objects of a clip act, each in its own window of frames; one question asks about one of them. So the
causal frames and the causal object are facts, not annotations. The environment of the clip agrees with the
answer too often (`rho`): a model that leans on it does well until the split *ood*, where the environment is
always wrong. Harder worlds make the cause itself unreliable, let the environment follow the question, or
show it in every frame; see `WorldConfig` and README_worlds.md.

This file draws what happens in a clip and asks the question. `world_features.py` turns the same clips into
feature vectors, `render.py` into real video files; both carry the same truth.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from datasets import Dataset, Features, List, Value

from hf_causal_video.data.rows import questions_dataset
from hf_causal_video.utils.errors import require
from hf_causal_video.worlds.config import ACTIONS, ANSWERS, CLASSES, KINDS, NUM_VALUES, SPLITS, WorldConfig

TRUTH_FEATURES = Features(
    {
        "causal_frames": List(Value("bool")),
        "causal_object": Value("int32"),
        "environment": Value("int32"),
        "environment_answer": Value("int32"),
        "environment_agrees": Value("bool"),
        "tint": Value("int32"),
        "cause_answer": Value("int32"),
    }
)


@dataclass(frozen=True)
class WorldClips:
    """Events of every clip of a split: the truth from which features, videos and questions are made.

    Shapes: n clips, T frames, N objects. Objects that never act have action -1 and the window [0, 0).
    """

    config: WorldConfig
    split: str
    seed: int
    classes: np.ndarray  # (n, N)
    colours: np.ndarray  # (n, N)
    actions: np.ndarray  # (n, N)
    windows: np.ndarray  # (n, N, 2) first frame, and the frame after the last
    kinds: np.ndarray  # (n,) index into KINDS
    causal_object: np.ndarray  # (n,)
    answer: np.ndarray  # (n,) index among the 8 values of the asked kind
    environment: np.ndarray  # (n,)
    choices: np.ndarray | None  # (n, A) indices among the 8 values, or None for open-ended answers
    tint: np.ndarray | None = None  # (n,) of the environment, where it follows answer and question

    def __len__(self) -> int:
        return len(self.answer)

    @cached_property
    def video_ids(self) -> list[str]:
        """One id per clip, different between splits and seeds."""
        return [f"world-{self.split}-s{self.seed}-{number:05d}" for number in range(len(self))]

    @cached_property
    def acting(self) -> np.ndarray:
        """Who acts when, (n, T, N)."""
        frames = np.arange(self.config.sizes(self.split)[0])[None, :, None]
        return (frames >= self.windows[:, None, :, 0]) & (frames < self.windows[:, None, :, 1])

    @cached_property
    def values(self) -> np.ndarray:
        """The values of each object that questions ask for, in the order of KINDS: action, class, colour. (3, n, N)"""
        return np.stack([self.actions, self.classes, self.colours])

    @property
    def shown_answer(self) -> np.ndarray:
        """The value of the asked kind that the clip shows: the answer, but for a noisy cause. (n,)"""
        return self.values[self.kinds, np.arange(len(self)), self.causal_object]

    @property
    def causal_frames(self) -> np.ndarray:
        """The frames in which the asked object acts, (n, T)."""
        return self.acting[np.arange(len(self)), :, self.causal_object]


def draw_clips(config: WorldConfig, split: str, num_clips: int, seed: int = 0) -> WorldClips:
    """Draw what happens in the clips of a split, and what is asked.

    Args:
        config: the world.
        split: one of `SPLITS`; they differ in their clips, in size (long, crowded, both), in the environment
            (ood), and in what the asked actor does (unseen).
        num_clips: n, one question each.
        seed: with the split it fixes the clips.

    Raises:
        CausalVideoError: an unknown split, fewer than 1 clip, or unseen pairs of a world that withholds none.

    Example:
        >>> draw_clips(WorldConfig.grounding(), "long", num_clips=3).causal_frames.shape
        (3, 64)
    """
    num_frames, num_objects = config.sizes(split)
    require(num_clips >= 1, "number of clips", found=num_clips, expected="1 or more")
    rng = np.random.default_rng([seed, SPLITS.index(split), 0])
    clip = np.arange(num_clips)
    actors = config.num_actors
    slots = _permutations(rng, num_clips, num_objects)[:, :actors]  # where the actors stand, (n, M)

    def with_actors(actor_values: np.ndarray, others: np.ndarray) -> np.ndarray:
        others[clip[:, None], slots] = actor_values
        return others

    class_order = _permutations(rng, num_clips, NUM_VALUES)
    if config.unique_actors and actors < NUM_VALUES:
        bystanders = rng.integers(actors, NUM_VALUES, (num_clips, num_objects))
    else:
        bystanders = rng.integers(0, NUM_VALUES, (num_clips, num_objects))
    classes = with_actors(class_order[:, :actors], np.take_along_axis(class_order, bystanders, axis=1))
    colours = with_actors(
        _permutations(rng, num_clips, NUM_VALUES)[:, :actors], rng.integers(0, NUM_VALUES, (num_clips, num_objects))
    )
    actions = with_actors(_permutations(rng, num_clips, NUM_VALUES)[:, :actors], np.full((num_clips, num_objects), -1))
    windows = np.zeros((num_clips, num_objects, 2), dtype=np.int64)
    windows[clip[:, None], slots] = _windows(rng, config, num_clips, num_frames)
    kinds = rng.permutation(np.resize([KINDS.index(kind) for kind in config.question_kinds], num_clips))
    causal_object = slots[clip, rng.integers(0, actors, num_clips)]
    _withhold(rng, config, split, classes, actions, causal_object)
    answer = np.stack([actions, classes, colours])[kinds, clip, causal_object]  # in the order of KINDS
    named = np.where(kinds == KINDS.index("action"), classes[clip, causal_object], actions[clip, causal_object])
    if config.cause_noise:  # streams of their own, so that worlds without noise and tint stay as they are
        noise = np.random.default_rng([seed, SPLITS.index(split), 4])
        wrong = noise.random(num_clips) < config.cause_noise
        answer = np.where(wrong, (answer + noise.integers(1, NUM_VALUES, num_clips)) % NUM_VALUES, answer)
    environment = _follow(rng, config.rho, split, named if config.environment_follows == "question" else answer)
    tint = None
    if config.environment_follows == "both":
        tint = _follow(np.random.default_rng([seed, SPLITS.index(split), 5]), config.rho, split, named)
    return WorldClips(
        config,
        split,
        seed,
        classes,
        colours,
        actions,
        windows,
        kinds,
        causal_object,
        answer,
        environment,
        choices=None if config.num_choices is None else _choices(rng, answer, config.num_choices),
        tint=tint,
    )


def _follow(rng: np.random.Generator, rho: float, split: str, target: np.ndarray) -> np.ndarray:
    """Draw an environment per clip that agrees with its target (n,) too often; in the split ood, never."""
    if split == "ood":
        return (target + rng.integers(1, NUM_VALUES, len(target))) % NUM_VALUES
    agrees = rng.random(len(target)) < rho
    return np.where(agrees, target, rng.integers(0, NUM_VALUES, len(target)))


def _withhold(
    rng: np.random.Generator,
    config: WorldConfig,
    split: str,
    classes: np.ndarray,
    actions: np.ndarray,
    asked: np.ndarray,
) -> None:
    """Draw the actions (n, N) of a clip again, in place, while an actor does what its class never does, but for the
    asked one (n,) in the split unseen, which must."""
    require(
        split != "unseen" or config.unseen_pairs,
        "split unseen of a world without unseen pairs",
        found="unseen_pairs=0",
        expected="1 or more",
        fix="set unseen_pairs in the world",
    )
    slots = np.argsort(actions < 0, axis=1, kind="stable")[:, : config.num_actors]  # the actors, (n, M)
    wanted = (slots == asked[:, None]) & (split == "unseen")
    kinds = np.take_along_axis(classes, slots, axis=1)
    while True:
        done = np.take_along_axis(actions, slots, axis=1)
        wrong = (((kinds + done) % NUM_VALUES < config.unseen_pairs) != wanted).any(axis=1)
        if not wrong.any():
            return
        fresh = _permutations(rng, int(wrong.sum()), NUM_VALUES)[:, : config.num_actors]
        actions[np.flatnonzero(wrong)[:, None], slots[wrong]] = fresh


@dataclass(frozen=True)
class _Question:
    """A question about one clip: what is asked about which object, and the values of the asked kind on offer."""

    clip: int
    number: int
    kind: int
    target: int  # the object
    answer: int
    offered: list[int]


def world_questions(clips: WorldClips) -> Dataset:
    """Ask about the clips: question rows, and the truth in further columns.

    Spans are the causal frames in seconds at one frame per second: frame i is the second [i, i + 1). The
    columns of `TRUTH_FEATURES` follow: causal_frames (T flags), causal_object, environment,
    environment_answer (the answer that the environment suggests, -1 where that is not among the choices, or
    where the environment follows the question), environment_agrees (with what it follows), tint (-1 in a
    world without), cause_answer (the answer that the causal frames show, -1 where it is not among the
    choices; always the answer in a world without cause_noise).

    Example:
        >>> world_questions(draw_clips(WorldConfig.rendered(), "iid", num_clips=2)).num_rows
        2
    """
    questions = _all_questions(clips) if clips.config.ask_all else _one_question(clips)
    return questions_dataset([_row(clips, question) for question in questions], extra=TRUTH_FEATURES)


def _one_question(clips: WorldClips) -> Iterator[_Question]:
    """Yield the question of each clip."""
    for i in range(len(clips)):
        offered = [] if clips.choices is None else clips.choices[i].tolist()
        yield _Question(i, 0, int(clips.kinds[i]), int(clips.causal_object[i]), int(clips.answer[i]), offered)


def _all_questions(clips: WorldClips) -> Iterator[_Question]:
    """Yield every kind of question about every actor of each clip."""
    rng = np.random.default_rng([clips.seed, SPLITS.index(clips.split), 3])
    kinds = [KINDS.index(kind) for kind in clips.config.question_kinds]
    count = clips.config.num_choices
    for i in range(len(clips)):
        number = 0
        for target in np.flatnonzero(clips.actions[i] >= 0).tolist():
            for kind in kinds:
                answer = clips.values[kind, i, target]
                if clips.split == "ood" and _environment_agrees(clips, i, kind, target, int(answer)):
                    continue
                offered = [] if count is None else _choices(rng, answer[None], count)[0].tolist()
                yield _Question(i, number, kind, target, int(answer), offered)
                number += 1


def _environment_agrees(clips: WorldClips, i: int, kind: int, target: int, answer: int) -> bool:
    """Return whether the environment, or its tint, agrees with what it follows in this question."""
    named = clips.classes[i, target] if KINDS[kind] == "action" else clips.actions[i, target]
    if clips.config.environment_follows == "question":
        return bool(clips.environment[i] == named)
    return bool(clips.environment[i] == answer or (clips.tint is not None and clips.tint[i] == named))


def _row(clips: WorldClips, question: _Question) -> dict[str, object]:
    templates = ("what is the {0} doing", "who is {1}", "what colour is the one that is {1}")
    i = question.clip
    kind = question.kind
    target = question.target
    video_id = clips.video_ids[i]
    words = ANSWERS[NUM_VALUES * kind : NUM_VALUES * (kind + 1)]
    environment = int(clips.environment[i])
    follows_question = clips.config.environment_follows == "question"
    positions = {value: position for position, value in enumerate(question.offered)}
    if not question.offered:
        positions = {value: NUM_VALUES * kind + value for value in range(NUM_VALUES)}
    agrees = _environment_agrees(clips, i, kind, target, question.answer)
    return {
        "question_id": f"{video_id}_{question.number}",
        "video_id": video_id,
        "question": templates[kind].format(CLASSES[clips.classes[i, target]], ACTIONS[clips.actions[i, target]]),
        "choices": [words[value] for value in question.offered],
        "answer": positions[question.answer],
        "answer_text": words[question.answer],
        "question_type": KINDS[kind],
        "spans": [clips.windows[i, target].astype(float).tolist()],
        "duration_s": float(clips.config.sizes(clips.split)[0]),
        "causal_frames": clips.acting[i, :, target].tolist(),
        "causal_object": target,
        "environment": environment,
        "environment_answer": -1 if follows_question else positions.get(environment, -1),
        "environment_agrees": agrees if follows_question else environment == question.answer,
        "tint": -1 if clips.tint is None else int(clips.tint[i]),
        "cause_answer": positions.get(int(clips.values[kind, i, target]), -1),
    }


def _permutations(rng: np.random.Generator, rows: int, size: int) -> np.ndarray:
    return np.argsort(rng.random((rows, size)), axis=1)


def _windows(rng: np.random.Generator, config: WorldConfig, num_clips: int, num_frames: int) -> np.ndarray:
    """Place one window per actor: lengths first, then the idle frames at random between them. (n, M, 2)"""
    size = (num_clips, config.num_actors)
    lengths = rng.integers(config.min_window, config.max_window + 1, size)
    idle = num_frames - lengths.sum(axis=1, keepdims=True)
    before = np.sort(rng.integers(0, idle + 1, size), axis=1)  # idle frames before each window
    starts = before + np.cumsum(lengths, axis=1) - lengths
    return np.stack([starts, starts + lengths], axis=-1)


def _choices(rng: np.random.Generator, answer: np.ndarray, count: int) -> np.ndarray:
    """Offer the answer and count - 1 other values of its kind, all equally likely, in random order. (n, A)"""
    order = rng.random((len(answer), NUM_VALUES))
    order[np.arange(len(answer)), answer] = -1
    offered = np.argsort(order, axis=1)[:, :count]
    return np.take_along_axis(offered, _permutations(rng, len(answer), count), axis=1)
