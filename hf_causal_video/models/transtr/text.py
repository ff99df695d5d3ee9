"""Text inputs of TranSTR: the question as tokens, and the answer queries, one per choice or the question's mean.

Source: TranSTR (arXiv 2307.12058) section 3; the published code encodes the question and each choice apart.
"""

from typing import cast

from torch import Tensor, nn

from hf_causal_video.backbones.text import FirstTokens
from hf_causal_video.models.base import VideoQAPreTrainedModel
from hf_causal_video.models.inputs import given_text, read_choices, read_question


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
        question, choices: (B, L, D_text) and (B, A, D_text), cached text instead of ids.

    Returns:
        The question (B, L, D) and its mask; the answer queries, (B, A, D) or, open-ended, (B, 1, D); and the mask of
        present choices (B, A), None if all are.

    Raises:
        CausalVideoError: missing text, a question of zero tokens, no choice, or another number than the config's.
    """
    resize = cast(nn.Module, model.text_resize)
    config = model.config
    text = given_text("", ids, question, 3, config.text_width)
    question_mask = read_question(text, mask)
    groups: list[tuple[Tensor, Tensor]] = [] if text is question else [(text, question_mask.long())]
    token_mask = present = None
    if config.num_answers is None:
        queries = given_text("choice_", choice_ids, choices, 3, config.text_width)
        if queries is choices:  # a vector per choice, so all are present
            read_choices(queries.unsqueeze(2), None, config.num_choices)
        else:
            token_mask, present = read_choices(queries, choice_mask, config.num_choices)  # (B, A, L'), (B, A)
            strings = queries.flatten(0, 1), token_mask.flatten(0, 1).long()
            groups.append(FirstTokens(*strings) if config.choice_pooling == "cls" else strings)
    states = model.encode_text(groups) if groups else []
    question = resize(text.to(model.dtype) if text is question else states.pop(0))
    if config.num_answers is not None:  # one query for the whole vocabulary: the question's mean token
        weight = question_mask.unsqueeze(-1).to(question.dtype)
        return question, question_mask, ((question * weight).sum(1) / weight.sum(1)).unsqueeze(1), None
    if token_mask is not None:
        tokens = states.pop(0).unflatten(0, token_mask.shape[:2])  # (B, A, L', D_text)
        if config.choice_pooling == "mean":
            queries = tokens.sum(2) / token_mask.sum(-1, keepdim=True).clamp(min=1).to(tokens.dtype)
        else:
            queries = tokens[:, :, 0]
    return question, question_mask, resize(queries.to(model.dtype)), present
