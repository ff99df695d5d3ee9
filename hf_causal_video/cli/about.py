"""About a checkpoint, for the app: its name, what it was trained on, and a clip with questions to try."""

import json
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hf_causal_video.pipelines.question_answering import VideoQuestionAnsweringPipeline

CLIPS = {".mp4", ".webm", ".mkv", ".mov", ".avi", ".gif"}


def about_model(qa: "VideoQuestionAnsweringPipeline") -> str:
    """Name a model and what it was trained on, in a line of Markdown.

    Args:
        qa: a pipeline; a folder's `card_data.json` says more than its config.
    """
    model = qa.model
    config = qa.model.config
    name = Path(str(model.name_or_path)).name if model.name_or_path else type(model).__name__
    parts = [f"**{_plain(name)}** ({config.model_type})"]
    card = Path(str(model.name_or_path)) / "card_data.json"
    if card.is_file():
        data = json.loads(card.read_text(encoding="utf-8"))
        dataset = Path(str(data.get("dataset") or "")).name
        parts += [f"trained on {_plain(dataset)}"] if dataset else []
        accuracy = [row for row in data.get("metrics", []) if row["name"] == "Acc"]
        parts += [f"{row['value']:.1f} % right on {_plain(row['split'])} (measured here)" for row in accuracy[:1]]
    provenance = config.feature_provenance or {}
    if provenance.get("frame_model"):
        seen = Path(str(provenance["frame_model"])).name
        parts.append(f"sees frames through {_plain(seen)}, {_plain(provenance.get('sampling', ''))}")
    parts.append("chooses among your choices" if config.num_answers is None else f"knows {config.num_answers} answers")
    return " · ".join(parts)


def example_clip(qa: "VideoQuestionAnsweringPipeline", example: Path | None = None) -> Path | None:
    """Return the clip to offer: the one named, or the first in the checkpoint's folder `examples`."""
    if example is not None:
        return example
    folder = Path(str(qa.model.name_or_path or "")) / "examples"
    clips = sorted(path for path in folder.glob("*") if path.suffix.lower() in CLIPS)
    return clips[0] if clips else None


def example_rows(qa: "VideoQuestionAnsweringPipeline", clip: Path | None) -> list[list[str | None]]:
    """Rows of clip, question and choices, from the questions that the checkpoint keeps."""
    questions = qa.processor.example_questions or []
    rows = [[row["question"], "\n".join(row.get("choices") or [])] for row in questions]
    return [[None if clip is None else str(clip), *row] for row in rows] or ([[str(clip), "", ""]] if clip else [])


def _plain(text: str) -> str:
    """Text of a checkpoint as Markdown shows it: no markup, no HTML."""
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]()#+!|" else escape(letter) for letter in text)
