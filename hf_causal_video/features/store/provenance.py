"""Where a feature set comes from: the identity card without which no feature file is accepted.

Why: the most frequent question put to the authors of the original code is which backbone, layer and frames the
features were made of. Here the answer travels with the arrays, and a model that was trained on other features
refuses them instead of quietly losing accuracy.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from hf_causal_video.utils.errors import CausalVideoError
from hf_causal_video.utils.version import __version__

PROVENANCE_FILE = "provenance.json"
CONTENT_HASH = "sha256-"  # revision of a local folder: a hash over its files
OBJECT_FIELDS = ("object_model", "object_revision", "object_layer", "object_dim", "num_objects")


@dataclass(frozen=True)
class Provenance:
    """Say how every row of a feature set was made.

    Args:
        frame_model: Hub id or folder of the backbone, as the user gave it.
        frame_revision: commit of the Hub repository, or `sha256-...` over the files of a local folder.
        frame_layer: which output of the backbone was kept ("pooled", "cls", "mean", ...).
        frame_dim: channels C of a frame feature.
        object_model, object_revision, object_layer, object_dim: the same for object regions; None without objects.
        num_objects: regions N a frame, zero-padded; 0 without objects.
        sampling: the instants that were looked at, such as "uniform-16" or "fps-1".
        package_version: our version.
        created_with: anything else that decides a number (arithmetic, decoder, threshold, library versions).

    Raises:
        CausalVideoError: a field that identifies the features is empty or contradicts another.

    Example:
        >>> card = Provenance("org/vit", "main", "pooled", 768, sampling="uniform-16")
        >>> Provenance.from_dict(card.to_dict()) == card
        True
    """

    frame_model: str
    frame_revision: str
    frame_layer: str
    frame_dim: int
    object_model: str | None = None
    object_revision: str | None = None
    object_layer: str | None = None
    object_dim: int | None = None
    num_objects: int = 0
    sampling: str = ""
    package_version: str = __version__
    created_with: dict = field(default_factory=dict)

    def __post_init__(self):
        texts = ["frame_model", "frame_revision", "frame_layer", "sampling", "package_version"]
        counts = ["frame_dim"]
        if self.has_objects:
            texts, counts = texts + list(OBJECT_FIELDS[:3]), counts + list(OBJECT_FIELDS[3:])
        empty = [n for n in texts if not isinstance(getattr(self, n), str) or not getattr(self, n)]
        empty += [n for n in counts if type(getattr(self, n)) is not int or getattr(self, n) < 1]
        empty += [] if isinstance(self.created_with, dict) else ["created_with"]
        if empty:
            raise CausalVideoError(
                "incomplete provenance",
                found=f"nothing of use in {', '.join(empty)}",
                expected="backbone, revision, layer, width and sampling of the features",
                fix="fill these fields; ask whoever made the features, or extract them again",
            )

    @property
    def has_objects(self) -> bool:
        """True if the rows carry object regions."""
        return any(getattr(self, name) for name in OBJECT_FIELDS)

    def to_dict(self) -> dict:
        """Give plain JSON data."""
        return asdict(self)

    def digest(self) -> str:
        """Give a hash that two provenances share only if they agree in every field."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    @classmethod
    def from_dict(cls, data: dict) -> Provenance:
        """Rebuild from `to_dict`; unknown or missing keys are refused by name."""
        names = {f.name for f in fields(cls)}
        if not isinstance(data, dict):
            raise CausalVideoError(
                "provenance is no mapping", found=type(data).__name__, expected="field: value", fix="restore the file"
            )
        missing = {"frame_model", "frame_revision", "frame_layer", "frame_dim", "sampling"} - set(data)
        if missing or set(data) - names:
            raise CausalVideoError(
                "provenance does not have the expected fields",
                found=f"missing {sorted(missing)}, unknown {sorted(map(str, set(data) - names))}",
                expected=f"the fields {sorted(names)}",
                fix="read the feature set with the version that wrote it",
            )
        return cls(**data)

    @classmethod
    def read(cls, folder: str | Path) -> Provenance:
        """Read `provenance.json` of a feature set; a set without it is refused."""
        file = Path(folder) / PROVENANCE_FILE
        if not file.is_file():
            raise CausalVideoError(
                f"the feature set {folder} has no provenance",
                found=f"no {PROVENANCE_FILE}",
                expected="a card that names backbone, layer and sampling",
                fix="extract with `hf-causal-video extract`, or write the card if you know how the features were made",
            )
        try:
            return cls.from_dict(json.loads(file.read_text(encoding="utf-8")))
        except CausalVideoError as error:
            raise CausalVideoError(
                f"{file}: {error.what}", found=error.found, expected=error.expected, fix=error.fix
            ) from error
        except (ValueError, RecursionError) as error:
            raise CausalVideoError(
                f"{file} cannot be read", found=str(error), expected="JSON", fix="restore or extract again"
            ) from error

    def must_equal(self, expected: Provenance, folder: Path) -> None:
        """Refuse rows that are made in another way than those of the set, which this is the provenance of.

        Args:
            expected: how the new rows are made.
            folder: of the set, for the error.
        """
        there, ours = self.to_dict(), json.loads(json.dumps(expected.to_dict()))
        differs = [name for name in ours if ours[name] != there[name]]
        if differs:
            raise CausalVideoError(
                f"the feature set {folder} was made in another way",
                found=", ".join(f"{name} {there[name]!r}" for name in differs),
                expected=", ".join(f"{name} {ours[name]!r}" for name in differs),
                fix="write to a new folder, or go on with the settings and versions found there",
            )

    def differences(self, expected: dict) -> dict[str, tuple]:
        """Compare the backbones: `{field: (here, expected)}`, empty if the features come from the same networks.

        A hash over the files of a local folder decides alone, for a folder may be renamed; otherwise name and revision
        must agree. Sampling is not compared: a model takes any number of frames.

        Args:
            expected: fields of another provenance; fields that are absent or empty are not compared.
        """
        found = {}
        for kind in ("frame", "object"):
            if kind == "object" and not (expected.get("object_model") or expected.get("object_revision")):
                continue
            revisions = getattr(self, f"{kind}_revision"), expected.get(f"{kind}_revision")
            hashed = all(str(revision).startswith(CONTENT_HASH) for revision in revisions)
            identity = () if hashed else (f"{kind}_model",)
            for name in (*identity, f"{kind}_revision", f"{kind}_layer", f"{kind}_dim"):
                here, there = getattr(self, name), expected.get(name)
                if there and here != there:
                    found[name] = (here, there)
        return found
