"""What TranSTR reads: the question as tokens, and what asks for the answer, a vector a choice or the question's mean.

Source: TranSTR (arXiv 2307.12058) section 3; the published code encodes the question and each choice apart.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hf_causal_video.backbones.text import FirstTokens
from hf_causal_video.errors import CausalVideoError

if TYPE_CHECKING:
    from hf_causal_video.models.transtr.modeling_transtr import TranSTRForVideoQuestionAnswering


def encode_question(
    model: "TranSTRForVideoQuestionAnswering",
    ids: Tensor | None,
    mask: Tensor | None,
    choice_ids: Tensor | None,
    choice_mask: Tensor | None,
    question: Tensor | None,
    choices: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Encode a question and its choices in one pass, or take over what was encoded before.

    Args:
        model: holds the text encoder and the config.
        ids, mask: (B, L) the question.
        choice_ids, choice_mask: (B, A, L') question and choice as one string.
        question, choices: (B, L, D_text) and (B, A, D_text), cached text instead of ids.

    Returns:
        The question (B, L, D) and its mask; the answer queries, (B, A, D) or, open-ended, (B, 1, D), and which choices
        are there (B, A), None where nothing says so.

    Raises:
        CausalVideoError: no text, a question of zero tokens, no choice, or not as many choices as the config says.
    """
    config, multiple_choice = model.config, model.config.num_answers is None
    given = ids if question is None else question
    asks = choice_ids if choices is None else choices
    if given is None or multiple_choice and asks is None:
        raise CausalVideoError(
            "text",
            found=f"no {'input_ids' if given is None else 'choice_input_ids'}",
            expected="ids, or cached features in their place",
            fix="pass what the processor returned; an open-ended model sets num_answers",
        )
    mask = given.new_ones(given.shape[:2]) if mask is None else mask
    question_mask = mask.bool()
    if not torch.compiler.is_compiling() and not question_mask.any(1).all():
        raise CausalVideoError(
            "question",
            found="a question of zero tokens",
            expected="at least one token",
            fix="check the question column and the attention mask",
        )
    groups: list[tuple[Tensor, Tensor]] = [] if given is question else [(given, mask)]
    if multiple_choice and asks is not None and asks is not choices:
        choice_mask = torch.ones_like(asks) if choice_mask is None else choice_mask
        strings = asks.flatten(0, 1), choice_mask.flatten(0, 1)
        groups.append(FirstTokens(*strings) if config.choice_pooling == "cls" else strings)
    states = model.encode_text(groups) if groups else []
    question = model.text_resize(given.to(model.dtype) if given is question else states.pop(0))
    if not multiple_choice:  # the question's mean token asks the vocabulary
        weight = question_mask.unsqueeze(-1).to(question.dtype)
        return question, question_mask, ((question * weight).sum(1) / weight.sum(1)).unsqueeze(1), None
    present = None
    if choices is None:
        assert choice_mask is not None
        present = choice_mask.bool().any(-1)  # (B, A)
        if not torch.compiler.is_compiling() and not present.any(1).all():
            raise CausalVideoError(
                "choices",
                found="a question without any choice",
                expected="at least one choice that is not empty",
                fix="drop the question, or give its choices",
            )
        choices = states.pop(0).unflatten(0, present.shape)  # (B, A, L', D)
        if config.choice_pooling == "mean":
            choices = choices.sum(2) / choice_mask.sum(-1, keepdim=True).clamp(min=1).to(choices.dtype)
        else:
            choices = choices[:, :, 0]
    choices = model.text_resize(choices.to(model.dtype))  # (B, A, D)
    wanted = config.num_choices
    if wanted is not None and (choices.shape[1] != wanted or present is not None and not present.all()):
        raise CausalVideoError(
            "choices",
            found=f"{choices.shape[1]} choices a question, some may be empty",
            expected=f"num_choices={wanted}",
            fix="give every choice, or set num_choices=None",
        )
    return question, question_mask, choices, present
