"""Options of data that a recipe nests under one key: `world` and `relations`, read once into dataclasses."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from hf_causal_video.data.relations.labels import PairRule
from hf_causal_video.utils.errors import CausalVideoError, require
from hf_causal_video.worlds import WorldConfig

STUDIES = ("selection", "grounding", "rendered")
READERS = ("annotations", "jaad")


@dataclass(frozen=True)
class WorldOptions:
    """The confounded world of a run.

    Args:
        study: preset of `WorldConfig`.
        train_clips: clips of the split train.
        eval_clips: clips of every other split.
        seed: of the clips; a split and its seed fix them.
        fields: fields of `WorldConfig` that replace those of the study.
    """

    study: str = "selection"
    train_clips: int = 4000
    eval_clips: int = 1000
    seed: int = 0
    fields: dict[str, object] = field(default_factory=dict)

    @classmethod
    def read(cls, options: Mapping[str, object]) -> "WorldOptions":
        """Read the mapping of a recipe.

        Raises:
            CausalVideoError: an unknown study or option.

        Example:
            >>> WorldOptions.read({"seed": 3, "rho": 0.9})
            WorldOptions(study='selection', train_clips=4000, eval_clips=1000, seed=3, fields={'rho': 0.9})
        """
        names = [one.name for one in fields(cls) if one.name != "fields"]
        config = [one.name for one in fields(WorldConfig)]
        unknown = sorted(set(options) - {*names, *config})
        study = options.get("study", cls.study)
        require(
            study in STUDIES and not unknown,
            "invalid options of the world",
            found=f"unknown options {unknown}" if unknown else f"study {study!r}",
            expected=f"study ({', '.join(STUDIES)}), {', '.join(names[1:])}, or a field of WorldConfig: "
            f"{', '.join(config)}",
            fix="correct the world options",
        )
        rest = {name: value for name, value in options.items() if name in config}
        named: dict[str, Any] = {name: options[name] for name in names if name in options}
        return cls(**named, fields=rest)

    def config(self) -> WorldConfig:
        """The settings of the world; another seed has other vectors, not only other clips."""
        return getattr(WorldConfig, self.study)(**{"world_seed": self.seed, **self.fields})

    def clips(self, split: str) -> int:
        """Number of clips of a split."""
        return self.train_clips if split == "train" else self.eval_clips


@dataclass(frozen=True)
class RelationOptions:
    """How annotated videos and their tracks become segments.

    Args:
        reader: "annotations" (VidVRD, VidOR) or "jaad".
        segment_frames: frames of a segment.
        segment_stride: frames from one segment to the next.
        appearance: read the appearance features of the tracks.
        rule: which pairs of tracks are labelled.
    """

    reader: str = "annotations"
    segment_frames: int = 30
    segment_stride: int = 15
    appearance: bool = True
    rule: PairRule = field(default_factory=PairRule)

    @classmethod
    def read(cls, options: Mapping[str, object]) -> "RelationOptions":
        """Read the mapping of a recipe.

        Raises:
            CausalVideoError: an unknown reader or option.

        Example:
            >>> RelationOptions.read({"segment_stride": 30}).segment_stride
            30
        """
        names = [one.name for one in fields(cls) if one.name != "rule"]
        rules = [one.name for one in fields(PairRule)]
        unknown = sorted(set(options) - {*names, *rules})
        reader = options.get("reader", cls.reader)
        require(
            reader in READERS and not unknown,
            "invalid options of relations",
            found=f"unknown options {unknown}" if unknown else f"reader {reader!r}",
            expected=f"{', '.join((*names, *rules))}; reader {' or '.join(READERS)}",
            fix="correct `relations`",
        )
        rule: dict[str, Any] = {name: options[name] for name in rules if name in options}
        named: dict[str, Any] = {name: options[name] for name in names if name in options}
        return cls(**named, rule=PairRule(**rule))


def path_of_split(mapping: object, split: str, what: str) -> str:
    """Return the path that a mapping of the recipe has for a split.

    Args:
        mapping: from split to path.
        split: name.
        what: key of the recipe, for the error.

    Raises:
        CausalVideoError: no mapping, or none for this split.

    Example:
        >>> path_of_split({"train": "train.csv"}, "train", "dataset")
        'train.csv'
    """
    if isinstance(mapping, dict) and split in mapping:
        return str(mapping[split])
    raise CausalVideoError(
        f"no {what} for split {split!r}",
        found=mapping,
        expected=f"a mapping from split to path with {split!r}",
        fix=f"add it to {what}: {{{split}: PATH}}",
    )
