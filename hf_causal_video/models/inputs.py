"""Check the tensors of a batch once, and encode its strings: what a network takes.

Every model refuses bad tensors in the words of this file. `read_batch` does all of it; a model with more inputs
(TranSTR) calls the parts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from hf_causal_video.models.base import VideoQAPreTrainedModel, check_mask, check_width
from hf_causal_video.models.configuration import VideoQAConfig
from hf_causal_video.utils.errors import require, require_values


@dataclass
class EncodedText:
    """Token features of several strings.

    Args:
        tokens: (R, L, D_text).
        mask: (R, L) bool, at least one token a row.
    """

    tokens: Tensor
    mask: Tensor


@dataclass
class Batch:
    """One batch for a network: R strings over V clips, each a question (open answers, R = B) or a candidate.

    Args:
        strings: the strings that are scored: the questions, or all question and candidate pairs, sample by sample.
        question: the questions alone, where a multiple-choice model needs them.
        present: (B, A) bool, False at absent candidates; None for open answers.
        frames: (V, T, C) frames, or (V, T, E) as a backbone embeds them.
        frame_mask: (V, T) bool.
        rows: (B,) the clip of each question.
        video_ids: (B,) int, questions about one video share an id; None where every clip is a video of its own.
    """

    strings: EncodedText
    question: EncodedText | None
    present: Tensor | None
    frames: Tensor
    frame_mask: Tensor
    rows: Tensor
    video_ids: Tensor | None

    @property
    def candidates(self) -> int:
        """Number of strings per question."""
        return len(self.strings.mask) // len(self.rows)

    @property
    def string_samples(self) -> Tensor:
        """(R,) the sample of each string."""
        return torch.arange(len(self.rows), device=self.rows.device).repeat_interleave(self.candidates)

    def logits(self, scores: Tensor) -> Tensor:
        """Answer scores (B, A) from those of strings, (R, A) or (R, 1); an absent choice gets the lowest finite."""
        if self.present is None:
            return scores
        return scores.view(self.present.shape).masked_fill(~self.present, torch.finfo(scores.dtype).min)


def read_batch(
    model: VideoQAPreTrainedModel,
    frame_features: Tensor | None = None,
    input_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
    choice_input_ids: Tensor | None = None,
    choice_attention_mask: Tensor | None = None,
    frame_mask: Tensor | None = None,
    question_features: Tensor | None = None,
    choice_features: Tensor | None = None,
    video_index: Tensor | None = None,
    video_ids: Tensor | None = None,
    *,
    with_question: bool = False,
) -> Batch:
    """Check the inputs of a model of frames, and encode its strings.

    Args:
        model: holds the config, a `VideoQAConfig`, and the text encoder.
        frame_features: (V, T, C); V = B, or fewer clips than questions together with `video_index`.
        input_ids, attention_mask: (B, L) the question.
        choice_input_ids, choice_attention_mask: (B, A, L) question and choice as one string; a row of zeros in the
            mask is an absent choice. Multiple choice only.
        frame_mask: (V, T) bool, False at padding.
        question_features, choice_features: (B, L, D_text) and (B, A, L, D_text) token features in place of ids.
        video_index: (B,) the clip of each question.
        video_ids: (B,) int, clips of one video share an id; the trainer gives them to a `forward` that names them.
        with_question: encode the question in addition to the candidates of a multiple-choice model.

    Raises:
        CausalVideoError: a wrong width, an empty axis, an empty question, a clip without frames, too few choices,
            questions without a clip.

    Example, a whole model, which answers from the frame that fits question and candidate best:
        >>> from hf_causal_video.models.base import answer_loss
        >>> from hf_causal_video.models.outputs import VideoQAOutput
        >>> class BestFrame(VideoQAPreTrainedModel):
        ...     config_class = VideoQAConfig
        ...
        ...     def __init__(self, config):
        ...         super().__init__(config)
        ...         self._build_text_encoder()
        ...         self.frame = torch.nn.Linear(config.frame_feature_dim, config.text_width)
        ...         self.head = torch.nn.Linear(config.text_width, config.num_answers or 1)
        ...         self.post_init()
        ...
        ...     def forward(self, labels=None, **inputs):
        ...         batch = read_batch(self, **inputs)
        ...         text = batch.strings.tokens[:, 0]  # (R, D), one string per candidate, or per question
        ...         rows = batch.rows[batch.string_samples]  # (R,) its clip
        ...         frames = self.frame(batch.frames)[rows]  # (R, T, D)
        ...         scores = (frames @ text.unsqueeze(-1)).squeeze(-1).float()  # (R, T)
        ...         scores = scores.masked_fill(~batch.frame_mask[rows], -torch.inf)
        ...         best = frames[torch.arange(len(rows)), scores.argmax(1)]  # (R, D)
        ...         logits = batch.logits(self.head(best * text))  # (B, A)
        ...         scores = scores.unflatten(0, (-1, batch.candidates)).amax(1)  # (B, T), of the best candidate
        ...         loss = None if labels is None else answer_loss(logits, labels)
        ...         kept = scores.topk(1).indices
        ...         return VideoQAOutput(loss=loss, logits=logits, frame_scores=scores, kept_frames=kept)
        >>> text = {"model_type": "bert", "vocab_size": 9, "hidden_size": 8, "num_attention_heads": 2,
        ...         "num_hidden_layers": 1, "intermediate_size": 8}
        >>> model = BestFrame(VideoQAConfig(text_config=text, frame_feature_dim=6)).eval()
        >>> choices = torch.tensor([[[1, 2], [3, 4], [5, 6]]])
        >>> model(frame_features=torch.randn(1, 5, 6), choice_input_ids=choices, labels=torch.tensor([2])).logits.shape
        torch.Size([1, 3])
    """
    config = cast(VideoQAConfig, model.config)
    groups, present = _text_groups(
        model,
        input_ids,
        attention_mask,
        choice_input_ids,
        choice_attention_mask,
        question_features,
        choice_features,
        with_question,
    )
    strings = _encoded(model, groups)
    frames, mask = read_frames(frame_features, frame_mask, config)
    count = len(strings["question"].mask) if present is None else len(present)
    return Batch(
        strings=strings["question" if present is None else "choices"],
        question=strings.get("question"),
        present=present,
        frames=frames.to(model.dtype),
        frame_mask=mask,
        rows=read_rows(video_index, count, len(frames), frames.device),
        video_ids=video_ids,
    )


def _text_groups(
    model: VideoQAPreTrainedModel,
    input_ids: Tensor | None,
    attention_mask: Tensor | None,
    choice_input_ids: Tensor | None,
    choice_attention_mask: Tensor | None,
    question_features: Tensor | None,
    choice_features: Tensor | None,
    with_question: bool,
) -> tuple[list[tuple[str, Tensor, Tensor]], Tensor | None]:
    """Return name, ids or features, and mask of the strings to encode, and the present choices (B, A)."""
    config = cast(VideoQAConfig, model.config)
    width = config.text_width
    multiple = config.num_answers is None
    groups: list[tuple[str, Tensor, Tensor]] = []
    present = None
    if not multiple or with_question or input_ids is not None or question_features is not None:
        text = ids_or_features("", input_ids, question_features, 3, width)
        question_mask = read_question(text, attention_mask)
        if not multiple or with_question:
            groups.append(("question", text, question_mask))
    if multiple:
        text = ids_or_features("choice_", choice_input_ids, choice_features, 4, width)
        token_mask, present = read_choices(text, choice_attention_mask, config.num_choices)  # (B, A, L), (B, A)
        # An absent choice is read as one empty token; its score is masked.
        token_mask = token_mask | torch.nn.functional.pad(~present.unsqueeze(-1), (0, token_mask.shape[-1] - 1))
        groups.append(("choices", text.flatten(0, 1), token_mask.flatten(0, 1)))
    return groups, present


def encode_texts(
    model: VideoQAPreTrainedModel, inputs: Mapping[str, Tensor], with_question: bool = False
) -> dict[str, Tensor]:
    """Return inputs of a model that reads them by `read_batch`, with token features in place of ids.

    Args:
        model, with_question: as in `read_batch`.
        inputs: of `forward`.
    """
    names = ("input_ids", "attention_mask", "choice_input_ids", "choice_attention_mask")
    texts = {name: inputs.get(name) for name in (*names, "question_features", "choice_features")}
    groups, present = _text_groups(model, **texts, with_question=with_question)
    encoded = {name: text for name, text in inputs.items() if name not in texts}
    for name, text in _encoded(model, groups).items():
        if present is not None and name == "choices":
            encoded["choice_features"] = text.tokens.unflatten(0, present.shape)  # (B, A, L, D_text)
            # an absent choice was read as one empty token, and stays absent
            encoded["choice_attention_mask"] = text.mask.unflatten(0, present.shape) & present.unsqueeze(-1)
        else:
            encoded["question_features"] = text.tokens  # (B, L, D_text)
            encoded["attention_mask"] = text.mask
    return encoded


def _encoded(model: VideoQAPreTrainedModel, groups: list[tuple[str, Tensor, Tensor]]) -> dict[str, EncodedText]:
    """Encode the ids of all groups in one pass; keep features as they are."""
    ids = [(text, mask.long()) for _, text, mask in groups if not text.is_floating_point()]
    states = model.encode_text(ids) if ids else []
    encoded = {}
    for name, text, mask in groups:
        tokens = text.to(model.dtype) if text.is_floating_point() else states.pop(0)  # (R, L, D_text)
        encoded[name] = EncodedText(tokens, mask)
    return encoded


def ids_or_features(prefix: str, ids: Tensor | None, features: Tensor | None, dims: int, width: int) -> Tensor:
    """Return token features if passed, else ids; raise if both are missing.

    Args:
        prefix: "" for questions, "choice_" for choices.
        ids, features: one of the two, or None.
        dims: axes of features.
        width: D_text.
    """
    name = f"{prefix or 'question_'}features"
    if features is not None:
        check_width(name, features, dims, width, "give token features of the width in text_feature_dim")
        return features
    fix = "pass what the processor returned; an open-ended model sets num_answers"
    expected = f"ids, or {name} in their place"
    require(ids is not None, "text", found=f"no {prefix}input_ids", expected=expected, fix=fix)
    return cast(Tensor, ids)


def read_question(text: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mask (B, L) of the questions; refuse an empty one."""
    question_mask = check_mask("attention_mask", mask, text, 2)
    _require_any(question_mask.any(1), "question", "a question of zero tokens", "at least one token")
    return question_mask


def read_choices(text: Tensor, mask: Tensor | None, number: int | None) -> tuple[Tensor, Tensor]:
    """Return the mask (B, A, L) of all choices, and which of them are present (B, A)."""
    choice_mask = check_mask("choice_attention_mask", mask, text, 3)
    present = choice_mask.any(-1)
    _require_any(present.any(1), "choices", "a question without any choice", "at least one that is not empty")
    if number is not None:
        require_values(
            present.all() & (present.shape[1] == number),
            "choices",
            found=lambda: f"{present.shape[1]} choices per question, some may be empty",
            expected=f"num_choices={number}",
            fix="give every choice, or set num_choices=None",
        )
    return choice_mask, present


def read_frames(frames: Tensor | None, mask: Tensor | None, config: VideoQAConfig) -> tuple[Tensor, Tensor]:
    """Return frames (V, T, C) and their mask (V, T), at least one true frame per clip."""
    require(frames is not None, "frame_features", found="none", expected="(V, T, C)", fix="pass frame_features")
    frames = cast(Tensor, frames)
    made_by = (config.feature_provenance or {}).get("frame_model", "the frame model it was trained with")
    fix = f"this checkpoint expects features of {made_by}; extract them, or load another checkpoint"
    check_width("frame_features", frames, 3, config.frame_feature_dim, fix)
    mask = check_mask("frame_mask", mask, frames, 2)
    _require_any(mask.any(1), "frames", "a clip without frames", "at least one frame per clip")
    return frames, mask


def read_rows(video_index: Tensor | None, questions: int, videos: int, device: torch.device) -> Tensor:
    """Return the clip of each question (B,)."""
    rows = torch.arange(questions, device=device) if video_index is None else video_index

    def problem() -> str:
        return f"{questions} questions, {videos} videos, video_index {rows.tolist()}"

    expected = "video_index with a row of the videos for each question, or a video for each"
    fits = len(rows) == questions and (video_index is not None or videos == questions)
    require(fits, "batch", found=problem, expected=expected)
    require_values(((rows >= 0) & (rows < videos)).all(), "batch", found=problem, expected=expected)
    return rows


def _require_any(some: Tensor, what: str, found: str, expected: str) -> None:
    """Refuse rows (R,) that have nothing."""
    require_values(some.all(), what, found=lambda: found, expected=expected, fix="drop the row, or check its mask")
