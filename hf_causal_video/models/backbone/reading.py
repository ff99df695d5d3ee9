"""From what a collator hands over to what a backbone takes: strings, frames, and which belong together."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_causal_video.errors import CausalVideoError
from hf_causal_video.models.base import check_mask, check_width


@dataclass
class Strings:
    """Token features of several strings.

    Args:
        tokens: (R, L, D_text).
        mask: (R, L) bool, at least one token a row.
    """

    tokens: Tensor
    mask: Tensor


@dataclass
class Batch:
    """One batch as a backbone sees it: R = B * answers strings over V clips.

    Args:
        strings: the strings that are scored: the questions, or all question and candidate pairs, sample by sample.
        question: the questions alone, where a multiple-choice model asks for them.
        present: (B, A) bool, the candidates that are there; None for open answers.
        frames: (V, T, E) frames as the backbone embeds them.
        frame_mask: (V, T) bool.
        rows: (B,) the clip of each question.
        video_ids: (B,) int, questions about one video share an id; None where every clip is a video of its own.
    """

    strings: Strings
    question: Strings | None
    present: Tensor | None
    frames: Tensor
    frame_mask: Tensor
    rows: Tensor
    video_ids: Tensor | None

    @property
    def candidates(self) -> int:
        """Strings a question."""
        return len(self.strings.mask) // len(self.rows)

    @property
    def string_samples(self) -> Tensor:
        """(R,) the sample of each string."""
        return torch.arange(len(self.rows), device=self.rows.device).repeat_interleave(self.candidates)


def given_text(what: str, ids: Tensor | None, features: Tensor | None, dims: int, width: int) -> Tensor:
    """Ids, or token features of the right width in their place; refuses neither.

    Args:
        what: "" for questions, "choice_" for choices.
        ids, features: what the caller handed over.
        dims: axes of features.
        width: D_text.
    """
    name = f"{what or 'question_'}features"
    if features is not None:
        check_width(name, features, dims, width, "give token features of the width in text_feature_dim")
        return features
    if ids is None:
        raise CausalVideoError(
            "text",
            found=f"no {what}input_ids",
            expected=f"ids, or {name} in their place",
            fix="pass what the processor returned; an open-ended model sets num_answers",
        )
    return ids


def read_question(given: Tensor, mask: Tensor | None) -> Tensor:
    """The mask (B, L) of the questions; refuses an empty one."""
    question_mask = check_mask("attention_mask", mask, given, 2)
    if not torch.compiler.is_compiling() and not question_mask.any(1).all():
        raise CausalVideoError(
            "question",
            found="a question of zero tokens",
            expected="at least one token",
            fix="check the question column and the attention mask",
        )
    return question_mask


def read_choices(given: Tensor, mask: Tensor | None, wanted: int | None) -> tuple[Tensor, Tensor]:
    """The mask (B, A, L) of all choices, and which of them are there (B, A)."""
    choice_mask = check_mask("choice_attention_mask", mask, given, 3)
    present = choice_mask.any(-1)
    if torch.compiler.is_compiling():
        return choice_mask, present
    if not present.any(1).all():
        raise CausalVideoError(
            "choices",
            found="a question without any choice",
            expected="at least one choice that is not empty",
            fix="drop the question, or give its choices",
        )
    if wanted is not None and (present.shape[1] != wanted or not present.all()):
        raise CausalVideoError(
            "choices",
            found=f"{present.shape[1]} choices a question, some may be empty",
            expected=f"num_choices={wanted}",
            fix="give every choice, or set num_choices=None",
        )
    return choice_mask, present


def read_frames(frames: Tensor | None, mask: Tensor | None, width: int, made_by: str) -> tuple[Tensor, Tensor]:
    """Frames (V, T, C) and their mask (V, T), at least one true frame a clip."""
    if frames is None:
        raise CausalVideoError("frame_features", found="none", expected="(V, T, C)", fix="give frame_features")
    fix = f"this checkpoint expects features of {made_by}; extract them, or load another checkpoint"
    check_width("frame_features", frames, 3, width, fix)
    mask = check_mask("frame_mask", mask, frames, 2)
    if not torch.compiler.is_compiling() and not mask.any(1).all():
        raise CausalVideoError(
            "frames", found="a clip without frames", expected="at least one a clip", fix="drop the clip"
        )
    return frames, mask


def read_rows(video_index: Tensor | None, questions: int, videos: int, device: torch.device) -> Tensor:
    """The clip of each question (B,)."""
    rows = torch.arange(questions, device=device) if video_index is None else video_index
    known = torch.compiler.is_compiling() or bool(((rows >= 0) & (rows < videos)).all())
    if len(rows) != questions or (video_index is None and videos != questions) or not known:
        raise CausalVideoError(
            "batch",
            found=f"{questions} questions, {videos} videos, video_index {rows.tolist()}",
            expected="a row of the videos for each question",
            fix="give video_index, or a video for each question",
        )
    return rows
