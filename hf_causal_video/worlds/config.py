"""The settings of the confounded world, and the words that are spoken in it."""

from dataclasses import asdict, dataclass
from typing import Any

from hf_causal_video.utils.errors import CausalVideoError

CLASSES = ("circle", "square", "triangle", "star", "cross", "diamond", "ring", "moon")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "pink", "white")
ACTIONS = ("jumping", "spinning", "shaking", "growing", "flashing", "sliding", "swinging", "circling")
ENVIRONMENTS = ("stripes", "checks", "dots", "waves", "bars", "bricks", "grid", "rays")
KINDS = ("action", "class", "colour")
ANSWERS = ACTIONS + CLASSES + COLOURS  # the open answer vocabulary: 8 of each kind, in the order of KINDS
SPLITS = ("train", "validation", "iid", "ood", "long", "crowded", "both", "unseen")
NUM_VALUES = 8  # of classes, of colours, of actions, of environments


@dataclass(frozen=True)
class WorldConfig:
    """Everything that defines a confounded world; the presets hold the settings of our two studies.

    Args:
        num_frames: frames T of a clip, one a second; four times as many in the splits long and both.
        num_objects: objects N in every frame; three times as many in the splits crowded and both.
        num_actors: objects that act, with classes, colours and actions different from one another.
        min_window: frames that an action lasts at least.
        max_window: frames that an action lasts at most. Windows of one clip never overlap.
        rho: probability that the environment is set to the answer (it is drawn uniformly otherwise).
        question_kinds: what is asked for, in equal shares: "action", "class", "colour".
        num_choices: candidates of the asked kind; None for open-ended answers, indices into `ANSWERS`.
        ask_all: ask every kind about every actor; if not, one question a clip. The environment keeps to that
            one question, and in the split ood the questions that it happens to answer are left out.
        unseen_pairs: actions that each class never does, out of 8; none by default. In the split unseen the asked
            actor does one of them.
        unique_actors: no bystander shares its class with an actor, so that a class names one object.
        feature_dim: length of every feature and vocabulary vector.
        background_scale: strength of the environment in frames where nobody acts.
        context_scale: strength of the mean of all objects in every frame.
        sigma: length of the noise vector of a frame, about (standard deviation sigma / sqrt(feature_dim)).
        object_sigma: the same for an object.
        action_gain: strength of the action in the features of the acting object.
        colour_in_frames: whether frame features tell colours; if not, colours must be read from the object.
        world_seed: fixes the vocabulary vectors; a split and its seed fix the clips.

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

    def __post_init__(self) -> None:
        object.__setattr__(self, "question_kinds", tuple(self.question_kinds))
        most_actors = min(NUM_VALUES, self.num_objects)
        sound = {
            "feature_dim": (self.feature_dim >= 1, "1 or more"),
            "num_actors": (
                1 <= self.num_actors <= most_actors,
                f"1 to {most_actors} (objects; kinds of them)",
            ),
            "min_window": (1 <= self.min_window <= self.max_window, f"1 to max_window = {self.max_window}"),
            "num_frames": (
                self.num_actors * self.max_window <= self.num_frames,
                f"at least num_actors * max_window = {self.num_actors * self.max_window}",
            ),
            "unseen_pairs": (
                0 <= self.unseen_pairs <= NUM_VALUES - self.num_actors and not (self.ask_all and self.unseen_pairs),
                f"0 to 8 - num_actors = {NUM_VALUES - self.num_actors}, and one question a clip",
            ),
            "rho": (0 <= self.rho <= 1, "a probability"),
            "question_kinds": (
                bool(self.question_kinds) and set(self.question_kinds) <= set(KINDS),
                f"some of {KINDS}",
            ),
            "num_choices": (
                self.num_choices is None or 2 <= self.num_choices <= NUM_VALUES,
                f"2 to {NUM_VALUES}, or None",
            ),
        }
        for name, (is_sound, expected) in sound.items():
            if not is_sound:
                raise CausalVideoError(
                    f"no world with this {name}",
                    found=getattr(self, name),
                    expected=expected,
                    fix=f"change {name}",
                )

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
        if split not in SPLITS:
            raise CausalVideoError("no such split", found=repr(split), expected=f"one of {SPLITS}", fix="name one")
        frames = self.num_frames * (4 if split in ("long", "both") else 1)
        return frames, self.num_objects * (3 if split in ("crowded", "both") else 1)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return asdict(self) | {"question_kinds": list(self.question_kinds)}
