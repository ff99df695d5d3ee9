"""What TranSTR reads: the question as tokens, and what asks for the answer, a vector a choice or the question's mean.

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
    """Encode a question and its choices in one pass, or take over what was encoded before.

    Args:
        model: holds the text encoder, its `text_resize` to width D, and the config.
        ids, mask: (B, L) the question.
        choice_ids, choice_mask: (B, A, L') question and choice as one string.
        question, choices: (B, L, D_text) and (B, A, D_text), cached text instead of ids.

    Returns:
        The question (B, L, D) and its mask; the answer queries, (B, A, D) or, open-ended, (B, 1, D), and which choices
        are there (B, A), None where nothing says so.

    Raises:
        CausalVideoError: no text, a question of zero tokens, no choice, or not as many choices as the config says.
    """
    resize = cast(nn.Module, model.text_resize)
    config, multiple_choice = model.config, model.config.num_answers is None
    given = given_text("", ids, question, 3, config.text_width)
    question_mask = read_question(given, mask)
    groups: list[tuple[Tensor, Tensor]] = [] if given is question else [(given, question_mask.long())]
    shown = present = None
    if multiple_choice:
        asked = given_text("choice_", choice_ids, choices, 3, config.text_width)
        if asked is choices:  # a vector a choice, so all are there
            read_choices(asked.unsqueeze(2), None, config.num_choices)
        else:
            shown, present = read_choices(asked, choice_mask, config.num_choices)  # (B, A, L'), (B, A)
            strings = asked.flatten(0, 1), shown.flatten(0, 1).long()
            groups.append(FirstTokens(*strings) if config.choice_pooling == "cls" else strings)
    states = model.encode_text(groups) if groups else []
    question = resize(given.to(model.dtype) if given is question else states.pop(0))
    if not multiple_choice:  # the question's mean token asks the vocabulary
        weight = question_mask.unsqueeze(-1).to(question.dtype)
        return question, question_mask, ((question * weight).sum(1) / weight.sum(1)).unsqueeze(1), None
    if shown is not None:
        tokens = states.pop(0).unflatten(0, shown.shape[:2])  # (B, A, L', D_text)
        if config.choice_pooling == "mean":
            asked = tokens.sum(2) / shown.sum(-1, keepdim=True).clamp(min=1).to(tokens.dtype)
        else:
            asked = tokens[:, :, 0]
    return question, question_mask, resize(asked.to(model.dtype)), present  # asked: (B, A, D)
