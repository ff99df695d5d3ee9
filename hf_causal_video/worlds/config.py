"""Settings of the confounded world, its vocabulary, and the accuracy that each setting allows."""

import warnings
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from hf_causal_video.utils.errors import require

CLASSES = ("circle", "square", "triangle", "star", "cross", "diamond", "ring", "moon")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "pink", "white")
ACTIONS = ("jumping", "spinning", "shaking", "growing", "flashing", "sliding", "swinging", "circling")
ENVIRONMENTS = ("stripes", "checks", "dots", "waves", "bars", "bricks", "grid", "rays")
KINDS = ("action", "class", "colour")
ANSWERS = ACTIONS + CLASSES + COLOURS  # the open answer vocabulary: 8 of each kind, in the order of KINDS
TINTS = ("red", "amber", "lime", "emerald", "teal", "azure", "violet", "magenta")  # of a backdrop, in the world "both"
FOLLOWS = ("answer", "question", "both")
SPLITS = ("train", "validation", "iid", "ood", "long", "crowded", "both", "unseen")
NUM_VALUES = 8  # of classes, of colours, of actions, of environments


@dataclass(frozen=True)
class WorldConfig:
    """Definition of a confounded world; the presets hold the settings of our studies.

    Args:
        num_frames: frames T of a clip, one per second; four times as many in the splits long and both.
        num_objects: objects N in every frame; three times as many in the splits crowded and both.
        num_actors: objects that act, with classes, colours and actions different from one another.
        min_window: frames that an action lasts at least.
        max_window: frames that an action lasts at most. Windows of one clip never overlap.
        rho: probability that the environment is set to what it follows (it is drawn uniformly otherwise).
        question_kinds: what is asked for, in equal shares: "action", "class", "colour".
        num_choices: candidates of the asked kind; None for open-ended answers, indices into `ANSWERS`.
        ask_all: ask every kind about every actor; if not, one question per clip. The environment follows that one
            question, and in the split ood the questions that it happens to answer are left out.
        unseen_pairs: actions that each class never does, out of 8; none by default. In the split unseen the asked
            actor does one of them.
        unique_actors: no bystander shares its class with an actor, so that a class names one object.
        feature_dim: length of every feature and vocabulary vector.
        background_scale: strength of the environment in frames where nobody acts.
        context_scale: strength of the mean of all objects in every frame.
        sigma: length of the noise vector of a frame, about (standard deviation sigma / sqrt(feature_dim)).
        object_sigma: the same for an object.
        action_gain: strength of the action in the features of the acting object.
        colour_in_frames: whether frame features show colours; if not, colours must be read from the object.
        world_seed: fixes the vocabulary vectors; a split and its seed fix the clips.
        cause_noise: probability q that the clip shows another value than the answer, in every split. Without it the
            cause is never wrong, and a strong learner finds it by itself, whatever the environment does.
        environment_follows: what the environment agrees with: the "answer"; the word that the "question" names (its
            class or action), which tells nothing about the answer and tempts whoever matches clips with questions; or
            "both": the environment follows the answer, and its tint (a second vector) the question.
        background_everywhere: the environment is also in the frames where somebody acts, so that no mask of frames
            can separate it from the cause.

    With r = rho + (1 - rho) / 8 the reliability of the environment, the best predictor on iid clips leans on the
    environment, and fails in ood, exactly where **r > 1 - q**; see `bayes_accuracy`. A noisy cause in a world where
    the environment cannot win is allowed, with a warning.

    Raises:
        CausalVideoError: settings that no clip can meet.

    Example:
        >>> WorldConfig.selection(num_choices=5).question_kinds
        ('colour',)
    """

    num_frames: int = 16
    num_objects: int = 6
    num_actors: int = 2
    min_window: int = 3
    max_window: int = 5
    rho: float = 0.7
    question_kinds: tuple[str, ...] = KINDS
    num_choices: int | None = None
    ask_all: bool = False
    unique_actors: bool = False
    unseen_pairs: int = 0
    feature_dim: int = 64
    background_scale: float = 0.6
    context_scale: float = 0.3
    sigma: float = 1.4
    object_sigma: float = 1.0
    action_gain: float = 1.0
    colour_in_frames: bool = True
    world_seed: int = 0
    cause_noise: float = 0.0
    environment_follows: Literal["answer", "question", "both"] = "answer"
    background_everywhere: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "question_kinds", tuple(self.question_kinds))
        most_actors = min(NUM_VALUES, self.num_objects)
        frames_needed = self.num_actors * self.max_window
        most_pairs = NUM_VALUES - self.num_actors
        valid = {
            "feature_dim": (self.feature_dim >= 1, "1 or more"),
            "num_actors": (
                1 <= self.num_actors <= most_actors,
                f"1 to {most_actors} (number of objects and of kinds)",
            ),
            "min_window": (1 <= self.min_window <= self.max_window, f"1 to max_window = {self.max_window}"),
            "num_frames": (frames_needed <= self.num_frames, f"at least num_actors * max_window = {frames_needed}"),
            "unseen_pairs": (
                0 <= self.unseen_pairs <= most_pairs and not (self.ask_all and self.unseen_pairs),
                f"0 to 8 - num_actors = {most_pairs}, and one question per clip",
            ),
            "rho": (0 <= self.rho <= 1, "a probability"),
            "cause_noise": (
                0 <= self.cause_noise <= 1 and not (self.ask_all and self.cause_noise),
                "a probability, and one question per clip",
            ),
            "environment_follows": (self.environment_follows in FOLLOWS, f"one of {FOLLOWS}"),
            "question_kinds": (
                bool(self.question_kinds) and set(self.question_kinds) <= set(KINDS),
                f"some of {KINDS}",
            ),
            "num_choices": (
                self.num_choices is None or 2 <= self.num_choices <= NUM_VALUES,
                f"2 to {NUM_VALUES}, or None",
            ),
        }
        for name, (is_valid, expected) in valid.items():
            require(is_valid, f"invalid {name} of a world", found=getattr(self, name), expected=expected)
        if self.cause_noise and self.environment_follows != "question" and not self.environment_wins:
            warnings.warn(
                f"the environment cannot win in this world, since r = rho + (1 - rho) / {NUM_VALUES} = "
                f"{self.environment_reliability:.3f} is not above 1 - cause_noise = {1 - self.cause_noise:.3f}: the "
                "best predictor follows the cause, and does not fall in the split ood. Rule: r > 1 - cause_noise",
                stacklevel=3,
            )

    @property
    def environment_reliability(self) -> float:
        """How often the environment agrees with what it follows, r = rho + (1 - rho) / 8."""
        return self.rho + (1 - self.rho) / NUM_VALUES

    @property
    def environment_wins(self) -> bool:
        """True if the best predictor on iid clips leans on the environment: it follows the answer, and r > 1 - q."""
        return self.environment_follows != "question" and self.environment_reliability > 1 - self.cause_noise

    @classmethod
    def grounding(cls, **overrides: Any) -> "WorldConfig":
        """The world in which grounding is studied: a tempting environment and noisy frames."""
        return cls(**overrides)

    @classmethod
    def selection(cls, **overrides: Any) -> "WorldConfig":
        """The world in which selection is studied: colours live in objects, so the object must be found."""
        settings: dict[str, Any] = dict(
            rho=0.0,
            sigma=0.6,
            object_sigma=1.0,
            action_gain=1.5,
            min_window=2,
            max_window=4,
            question_kinds=("colour",),
            colour_in_frames=False,
        )
        return cls(**(settings | overrides))

    @classmethod
    def rendered(cls, **overrides: Any) -> "WorldConfig":
        """The world that is drawn as video: four objects, five choices, and a class names one actor."""
        return cls(**(dict(num_objects=4, num_choices=5, unique_actors=True) | overrides))

    def sizes(self, split: str) -> tuple[int, int]:
        """Return frames and objects of a clip in this split."""
        require(split in SPLITS, "unknown split of the world", found=repr(split), expected=f"one of {SPLITS}")
        frames = self.num_frames * (4 if split in ("long", "both") else 1)
        return frames, self.num_objects * (3 if split in ("crowded", "both") else 1)

    def to_dict(self) -> dict[str, object]:
        """Return the settings as plain values."""
        return asdict(self) | {"question_kinds": list(self.question_kinds)}


@dataclass(frozen=True)
class BayesAccuracy:
    """Accuracy in percent of ideal predictors in a world, see `bayes_accuracy`.

    Args:
        iid: of the best predictor on iid clips, which sees cause and environment.
        ood: of the same predictor on ood clips.
        cause: of the best predictor that sees the cause alone, in any split.
        environment: of the best predictor that sees the environment alone, on iid clips.
    """

    iid: float
    ood: float
    cause: float
    environment: float


def bayes_accuracy(config: WorldConfig) -> BayesAccuracy:
    """Exact accuracy of ideal predictors that see the shown value, the environment, or both, without any noise.

    Why: a learner that reaches `iid` has learned everything there is to learn, and `ood` is what that costs. Where the
    environment wins (r > 1 - q) no better learner escapes.

    The sum runs over shown value s and environment e: a predictor answers with argmax over offered values a of
    P(s | a) P(e | a); ties, and evidence that never occurs in training, are resolved uniformly.

    Raises:
        CausalVideoError: a world that asks several questions per clip.

    Example:
        >>> bayes_accuracy(WorldConfig(cause_noise=0.2, rho=0.9))
        BayesAccuracy(iid=91.25, ood=0.0, cause=80.0, environment=91.25)
    """
    require(not config.ask_all, "world", found="ask_all=True", expected="one question per clip")
    values = NUM_VALUES
    offered = np.eye(values)[:, : config.num_choices or values]  # (value, answer): the answer is a value

    def channel(share: float) -> np.ndarray:
        """P(seen value | answer), right with a probability and uniformly wrong otherwise. (8, A)"""
        return share * offered + (1 - share) / (values - 1) * (1 - offered)

    cause = channel(1 - config.cause_noise)
    if config.environment_follows == "question":
        environment = environment_ood = np.full_like(offered, 1 / values)
    else:
        environment = channel(config.environment_reliability)
        environment_ood = channel(0.0)
    joint = cause[:, None] * environment  # (8, 8, A)
    joint_ood = cause[:, None] * environment_ood

    def accuracy(seen: np.ndarray, asked: np.ndarray) -> float:
        """Percent right on `asked` of the predictor that knows the joint probabilities `seen`."""
        best = np.isclose(seen, seen.max(-1, keepdims=True), rtol=1e-9, atol=0)
        decision = best / best.sum(-1, keepdims=True)
        return round(100 * float((decision * asked).sum()) / offered.shape[1], 6)

    return BayesAccuracy(
        iid=accuracy(joint, joint),
        ood=accuracy(joint, joint_ood),
        cause=accuracy(cause, cause),
        environment=accuracy(environment, environment),
    )
