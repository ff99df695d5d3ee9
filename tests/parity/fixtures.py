"""Where the parity fixtures lie, how one is read, and which evaluator one is about (by its fields, not its name)."""

import json
import os
from pathlib import Path
from typing import Any

from hf_causal_video.evaluation.nextqa import FINE_TYPES

VARIABLE = "HF_CAUSAL_VIDEO_PARITY"
PARTS = ("state_dict", "input", "output")


def parity_folder() -> Path:
    """The folder that HF_CAUSAL_VIDEO_PARITY names, or ../shared/parity beside the project."""
    named = os.environ.get(VARIABLE)
    if named and not Path(named).is_dir():
        raise FileNotFoundError(f"{VARIABLE} names {named!r}, which is not a folder")
    return Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "parity"


def all_fixtures() -> list[Path]:
    """The json file of every fixture, sorted by name; empty where the default folder is absent."""
    return sorted(parity_folder().glob("*.json"))


def read_fixture(path: Path) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """The tensors of a fixture by part (`state_dict`, `input`, `output`; empty without safetensors), and its json."""
    parts: dict[str, dict[str, Any]] = {part: {} for part in PARTS}
    tensors = path.with_suffix(".safetensors")
    if tensors.is_file():
        from safetensors.torch import load_file

        for name, tensor in load_file(tensors).items():
            part, key = name.split(".", 1)
            parts[part][key] = tensor
    return parts, json.loads(path.read_text(encoding="utf-8"))


def evaluator_kind(spec: dict[str, Any]) -> str | None:
    """The evaluation that a fixture holds: nextqa, nextgqa, causalvidqa, vidvrd, or None (a model or an operator)."""
    if "groundtruth" in spec and ("train_triplets" in spec or "viou_cases" in spec):
        return "vidvrd"
    if "groundtruth" in spec and ("predictions_seconds" in spec or "tiou_cases" in spec):
        return "nextgqa"
    if "rows" in spec and "predictions" in spec:
        types = {row.get("type") for row in spec["rows"]}
        if types <= {*FINE_TYPES, "TP"}:
            return "nextqa"
        if types <= {"d", "e", "p", "pr", "c", "cr"}:
            return "causalvidqa"
    return None
