"""Provenance of a feature set: which networks, layers and instants made it. Without it no feature file is accepted.

Why: the most frequent question put to the authors of the original code is which backbone, layer and frames the
features were made of. Here the answer travels with the arrays, and a model that was trained on other features
refuses them instead of quietly losing accuracy.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from hf_causal_video.utils.checks import check_fields
from hf_causal_video.utils.errors import CausalVideoError, require, reworded
from hf_causal_video.utils.files import write_whole
from hf_causal_video.utils.version import __version__

PROVENANCE_FILE = "provenance.json"
CONTENT_HASH = "sha256-"  # revision of a local folder: a hash over its files
NEEDED = ("frame_model", "frame_revision", "frame_layer", "frame_dim", "sampling")
OBJECT_FIELDS = ("object_model", "object_revision", "object_layer", "object_dim", "num_objects")
QUESTIONS = {
    "frame_model": "network that made the frame features (Hub id or name)",
    "frame_revision": "its revision (commit, date, or who published it)",
    "frame_layer": "which output of it (pooled, cls, pool5, ...)",
    "frame_dim": "channels of a frame feature",
    "sampling": "instants looked at (uniform-16, fps-1, ...)",
    "object_model": "detector that made the object features",
    "object_revision": "its revision",
    "object_layer": "which output of it",
    "object_dim": "channels of an object feature",
    "num_objects": "object regions per frame",
}
EXAMPLE = {
    "frame_model": "google/siglip2-base-patch16-224",
    "frame_revision": "main",
    "frame_layer": "pooled",
    "frame_dim": 768,
    "sampling": "uniform-16",
    "object_model": "PekingU/rtdetr_r50vd",
    "object_revision": "main",
    "object_layer": "decoder last hidden state",
    "object_dim": 256,
    "num_objects": 20,
}


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
        texts = [*NEEDED[:3], "sampling", "package_version"]
        counts = ["frame_dim"]
        if self.has_objects:
            texts += OBJECT_FIELDS[:3]
            counts += OBJECT_FIELDS[3:]
        empty = [name for name in texts if not isinstance(getattr(self, name), str) or not getattr(self, name)]
        empty += [name for name in counts if type(getattr(self, name)) is not int or getattr(self, name) < 1]
        empty += [] if isinstance(self.created_with, dict) else ["created_with"]
        expected = "backbone, revision, layer, width and sampling of the features"
        fix = "fill these fields; ask whoever made the features, or extract them again"
        require(not empty, "incomplete provenance", found=f"no valid {', '.join(empty)}", expected=expected, fix=fix)

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
        fix = "read the feature set with the version that wrote it"
        check_fields("provenance", data, NEEDED, fix=fix)
        unknown = sorted(map(str, set(data) - names))
        require(not unknown, "unknown fields of a provenance", found=unknown, expected=sorted(names), fix=fix)
        return cls(**data)

    @classmethod
    def read(cls, folder: str | Path) -> Provenance:
        """Read `provenance.json` of a feature set; a set without it is refused."""
        file = Path(folder) / PROVENANCE_FILE
        what = f"the feature set {folder} has no provenance"
        expected = "a card that names backbone, layer and sampling"
        fix = "extract with `hf-causal-video extract`, or write the card if you know how the features were made"
        require(file.is_file(), what, found=f"no {PROVENANCE_FILE}", expected=expected, fix=fix)
        with reworded((ValueError, RecursionError), f"{file} cannot be read", expected="JSON", fix="restore it"):
            card = json.loads(file.read_text(encoding="utf-8"))
        try:
            return cls.from_dict(card)
        except CausalVideoError as error:
            what = f"{file}: {error.what}"
            raise CausalVideoError(what, found=error.found, expected=error.expected, fix=error.fix) from error

    def must_equal(self, expected: Provenance, folder: Path) -> None:
        """Refuse rows that are made in another way than those of the set, which this is the provenance of.

        Args:
            expected: how the new rows are made.
            folder: of the set, for the error.
        """
        stored = self.to_dict()
        wanted = json.loads(json.dumps(expected.to_dict()))
        differs = [name for name in wanted if wanted[name] != stored[name]]
        kept, wanted_fields = (", ".join(f"{name} {card[name]!r}" for name in differs) for card in (stored, wanted))
        fix = "write to a new folder, or go on with the settings and versions found there"
        require(
            not differs,
            f"the feature set {folder} was made in another way",
            found=kept,
            expected=wanted_fields,
            fix=fix,
        )

    def differences(self, expected: dict) -> dict[str, tuple]:
        """Compare the backbones: `{field: (here, expected)}`, empty if the features come from the same networks.

        A hash over the files of a local folder decides alone, for a folder may be renamed; otherwise name and revision
        must agree. Sampling is not compared: a model takes any number of frames.

        Args:
            expected: fields of another provenance; fields that are absent or empty are not compared.
        """
        differs = {}
        for kind in ("frame", "object"):
            if kind == "object" and not (expected.get("object_model") or expected.get("object_revision")):
                continue
            revisions = getattr(self, f"{kind}_revision"), expected.get(f"{kind}_revision")
            hashed = all(str(revision).startswith(CONTENT_HASH) for revision in revisions)
            identity = () if hashed else (f"{kind}_model",)
            for name in (*identity, f"{kind}_revision", f"{kind}_layer", f"{kind}_dim"):
                value = getattr(self, name)
                wanted = expected.get(name)
                if wanted and value != wanted:
                    differs[name] = (value, wanted)
        return differs


def complete_card(card: Mapping[str, object], path: Path | None = None) -> dict[str, object]:
    """Ask for the fields that a provenance card lacks, on a terminal; elsewhere refuse it and show an example.

    Args:
        card: the fields that are known.
        path: where the completed card is written, if no file lies there.

    Raises:
        CausalVideoError: a field is missing and nobody can be asked.
    """
    if set(card) - {field.name for field in fields(Provenance)}:
        Provenance.from_dict(dict(card))  # names what is unknown
    needed = [name for name in QUESTIONS if name not in OBJECT_FIELDS or any(card.get(n) for n in OBJECT_FIELDS)]
    missing = [name for name in needed if card.get(name) in (None, "", 0)]
    if not missing:
        return dict(card)
    example = json.dumps({name: card.get(name) or EXAMPLE[name] for name in needed})
    require(
        sys.stdin.isatty() and sys.stderr.isatty(),
        "the provenance card is incomplete",
        found=f"no {', '.join(missing)}" + f" (missing file {path})" * (path is not None and not path.exists()),
        expected=f"a card such as {example}",
        fix="write these fields into the JSON file that --provenance names, or run this on a terminal to be asked",
    )
    print("The arrays do not say how they were made. A model refuses features of another kind, so please say:")
    completed = dict(card)
    for name in missing:
        completed[name] = _ask(name)
    if path is not None and not path.exists():
        write_whole(path, json.dumps(completed, indent=2) + "\n")
        print(f"written: {path}")
    return completed


def _ask(name: str) -> str | int:
    is_number = isinstance(EXAMPLE[name], int)
    while True:
        with reworded(EOFError, "the provenance card is incomplete", expected=f"{name}", fix="write the card"):
            answer = input(f"  {name}, {QUESTIONS[name]}: ").strip()
        if answer and (not is_number or answer.isdecimal() and int(answer) > 0):
            return int(answer) if is_number else answer
        print("  a whole number above 0, please" if is_number else "  a few words, please")
