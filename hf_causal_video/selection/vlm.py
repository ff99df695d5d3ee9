"""Ask a video language model about the frames a selector chose, and count what they cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from transformers import ProcessorMixin
from transformers.video_utils import VideoInput, VideoMetadata

from hf_causal_video.selection.binding import bind_selector
from hf_causal_video.selection.budget import TokenBudget, count_visual_tokens
from hf_causal_video.selection.rules import Selection
from hf_causal_video.selection.selectors import FrameSelector
from hf_causal_video.utils.checks import check_whole
from hf_causal_video.utils.errors import require


@dataclass
class VLMAnswer:
    """An answer in words, the frames it was given, and its prompt's tokens: all of them, and those of pictures."""

    text: str
    selection: Selection
    prompt_tokens: int
    visual_tokens: int


class GenerativeModel(Protocol):
    """Interface of a video language model: an image-text-to-text model of transformers."""

    device: torch.device
    dtype: torch.dtype

    def generate(self, **inputs: object) -> Tensor:
        """Return the ids of prompt and answer (B, L)."""


def prompt_of(question: str, choices: Sequence[str] | None = None) -> str:
    """Write the prompt: the question, and its choices by letter.

    Example:
        >>> print(prompt_of("why did he run", ["to play", "to hide"]))
        why did he run
        A. to play
        B. to hide
        Answer with the letter of one choice.
    """
    if not choices:
        return question
    check_whole("number of choices", len(choices), 1, 26, fix="offer fewer")
    letters = [f"{chr(ord('A') + i)}. {choice}" for i, choice in enumerate(choices)]
    return "\n".join([question, *letters, "Answer with the letter of one choice."])


@torch.inference_mode()
def ask_vlm(
    model: GenerativeModel,
    processor: ProcessorMixin,
    selector: FrameSelector,
    video: VideoInput,
    question: str,
    budget: int | TokenBudget,
    choices: Sequence[str] | None = None,
    video_metadata: VideoMetadata | dict | None = None,
    prompt: str | None = None,
    **generation: object,
) -> VLMAnswer:
    """Choose frames, put them with the question to a video language model, and return what it says.

    Args:
        model: an image-text-to-text model of transformers.
        processor: its processor, with a chat template; bound to the selector for this call only.
        selector: chooses.
        video: a path, or decoded frames with `video_metadata` that says their rate.
        question: in words.
        budget: frames, or a `TokenBudget`.
        choices: the answers offered, shown by letter; a causal selector may read them, see `CausalSelector`.
        video_metadata: as the processor takes it.
        prompt: what the model is asked instead of question and choices.
        generation: arguments of `generate`, such as max_new_tokens.

    Raises:
        CausalVideoError: as the binding and the selector, or a processor without a chat template.
    """
    require(
        getattr(processor, "chat_template", None),
        "a prompt",
        found=f"{type(processor).__name__} without a chat template",
        expected="the processor of an instruction-tuned model",
        fix="load the -Instruct checkpoint, or set processor.chat_template",
    )
    content: list = [{"type": "video"}, {"type": "text", "text": prompt or prompt_of(question, choices)}]
    messages: list = [{"role": "user", "content": content}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    times = {} if video_metadata is None else {"video_metadata": [video_metadata]}
    with bind_selector(processor, selector, question, budget, choices) as bound:
        inputs = processor(text=[text], videos=[video], return_tensors="pt", **times)
    ids = inputs["input_ids"]
    answer = model.generate(**inputs.to(model.device, dtype=model.dtype), **{"do_sample": False, **generation})
    words = processor.batch_decode(answer[:, ids.shape[1] :], skip_special_tokens=True)[0]
    return VLMAnswer(words.strip(), bound.selections[0], ids.shape[1], count_visual_tokens(processor, ids.cpu()))
