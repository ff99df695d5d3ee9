"""Text inputs of TranSTR: the question as tokens, and the answer queries, one per choice or the question's mean.

Source: TranSTR (arXiv 2307.12058) section 3; the published code encodes the question and each choice apart.
"""

from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn

from hf_causal_video.backbones.text import FirstTokens
from hf_causal_video.models.base import VideoQAPreTrainedModel
from hf_causal_video.models.inputs import ids_or_features, read_choices, read_question


def encode_question(
    model: VideoQAPreTrainedModel,
    ids: Tensor | None,
    mask: Tensor | None,
    choice_ids: Tensor | None,
    choice_mask: Tensor | None,
    question: Tensor | None,
    choices: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Encode a question and its choices in one pass, or accept cached features of them.

    Args:
        model: holds the text encoder, its `text_resize` to width D, and the config.
        ids, mask: (B, L) the question.
        choice_ids, choice_mask: (B, A, L') question and choice as one string.
        question, choices: (B, L, D_text) and (B, A, D_text), cached text instead of ids; `choice_mask` is then (B, A),
            True at present choices.

    Returns:
        The question (B, L, D) and its mask; the answer queries, (B, A, D) or, open-ended, (B, 1, D); and the mask of
        present choices (B, A), None if all are.

    Raises:
        CausalVideoError: missing text, a question of zero tokens, no choice, or another number than the config's.
    """
    resize = cast(nn.Module, model.text_resize)
    tokens, question_mask, queries, present = _token_features(
        model, ids, mask, choice_ids, choice_mask, question, choices
    )
    question = resize(tokens)
    if queries is None:  # one query for the whole vocabulary: the question's mean token
        weight = question_mask.unsqueeze(-1).to(question.dtype)
        return question, question_mask, ((question * weight).sum(1) / weight.sum(1)).unsqueeze(1), None
    return question, question_mask, resize(queries), present


def encode_texts(model: VideoQAPreTrainedModel, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return inputs of TranSTR with token features in place of ids."""
    names = {
        "ids": "input_ids",
        "mask": "attention_mask",
        "choice_ids": "choice_input_ids",
        "choice_mask": "choice_attention_mask",
        "question": "question_features",
        "choices": "choice_features",
    }
    texts = {short: inputs.get(name) for short, name in names.items()}
    tokens, question_mask, queries, present = _token_features(model, **texts)
    encoded = {name: value for name, value in inputs.items() if name not in names.values()}
    encoded |= {"question_features": tokens, "attention_mask": question_mask}
    if queries is not None:
        encoded["choice_features"] = queries
        if present is not None:
            encoded["choice_attention_mask"] = present
    return encoded


def _token_features(
    model: VideoQAPreTrainedModel,
    ids: Tensor | None,
    mask: Tensor | None,
    choice_ids: Tensor | None,
    choice_mask: Tensor | None,
    question: Tensor | None,
    choices: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Return the question (B, L, D_text), its mask, choices (B, A, D_text) or None, and which are present (B, A)."""
    config = model.config
    text = ids_or_features("", ids, question, 3, config.text_width)
    question_mask = read_question(text, mask)
    groups: list[tuple[Tensor, Tensor]] = [] if text is question else [(text, question_mask.long())]
    token_mask = present = queries = None
    if config.num_answers is None:
        queries = ids_or_features("choice_", choice_ids, choices, 3, config.text_width)
        if queries is choices:  # a vector per choice
            one_token = None if choice_mask is None else choice_mask.unsqueeze(-1)
            known = read_choices(queries.unsqueeze(2), one_token, config.num_choices)[1]
            present = None if choice_mask is None else known
        else:
            token_mask, present = read_choices(queries, choice_mask, config.num_choices)  # (B, A, L'), (B, A)
            strings = queries.flatten(0, 1), token_mask.flatten(0, 1).long()
            groups.append(FirstTokens(*strings) if config.choice_pooling == "cls" else strings)
    states = model.encode_text(groups) if groups else []
    tokens = text.to(model.dtype) if text is question else states.pop(0)
    if queries is not None and token_mask is not None:
        words = states.pop(0).unflatten(0, token_mask.shape[:2])  # (B, A, L', D_text)
        if config.choice_pooling == "mean":
            queries = words.sum(2) / token_mask.sum(-1, keepdim=True).clamp(min=1).to(words.dtype)
        else:
            queries = words[:, :, 0]
    return tokens, question_mask, None if queries is None else queries.to(model.dtype), present
