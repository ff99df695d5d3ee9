"""A light causal regulariser for a video language model: its answer must survive an exchange of the environment.

On one step in `every`, the visual tokens of the environment frames are exchanged between the clips of the batch, at
the input of the language model, where the first forward pass has left them. One more pass of the language model alone
gives the answer on the exchanged clips, and at the position of the answer the two distributions must agree:

    loss = CE(answer) + weight * KL(p(answer | clip) || p(answer | clip with another environment))

Pictures are neither decoded nor encoded again, the language head runs on one position a sample, and only LoRA weights
of the language model learn. Which frames are causal is said by a frozen selector. Nothing is claimed about
hallucination: it was not measured.

Source: the intervention of IGV (arXiv 2206.02349) at the cost asked for in section 7 of the thesis (arXiv 2503.12447).
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hf_causal_video.causal.divergence import divergence
from hf_causal_video.selection.token_swap import frames_of_tokens, swap_sources, swap_tokens
from hf_causal_video.utils.errors import CausalVideoError


@dataclass
class RegularizedLoss:
    """The loss of a step and its terms; `consistency` is None on a step without intervention."""

    loss: Tensor
    answer: Tensor
    consistency: Tensor | None


class EnvironmentSwap:
    """The loss of a video language model, regularised on one step in `every`.

    Args:
        model: image-text-to-text model of transformers, bare or with LoRA.
        visual_token_ids: ids of the placeholders of pictures.
        every: 4 intervenes on a quarter of the steps, the first included.
        weight: of the consistency term.
    """

    def __init__(self, model: Any, visual_token_ids: Sequence[int], every: int = 4, weight: float = 1.0):
        if every < 1 or weight < 0:
            raise CausalVideoError(
                "regulariser", found=f"every {every}, weight {weight}", expected="every >= 1, weight >= 0",
                fix="every=4 intervenes on a quarter of the steps",
            )  # fmt: skip
        self.model, self.every, self.weight = model, every, weight
        self.visual_token_ids = torch.tensor(list(visual_token_ids))
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.language_model: nn.Module = base.get_decoder()
        self.head: nn.Module = base.get_output_embeddings()

    def __call__(self, inputs: Mapping[str, Any], causal: Tensor, step: int) -> RegularizedLoss:
        """The loss of one step.

        Args:
            inputs: what the processor returned for B samples, with `labels` (B, L), -100 outside the answer.
            causal: (B, T) bool, the causal frames; for a model that merges frames in pairs, the pairs.
            step: number of the step; the intervention takes place where it is a multiple of `every`.

        Raises:
            CausalVideoError: no labels, a sample without an answer, or clips that cannot exchange frames.
        """
        if step % self.every or not self.weight:
            output = self.model(**inputs, use_cache=False)
            return RegularizedLoss(output.loss, output.loss.detach(), None)
        rows, places = answer_positions(inputs.get("labels"))
        with _Recorder(self.language_model) as seen:
            output = self.model(**inputs, use_cache=False)
        is_visual = torch.isin(inputs["input_ids"], self.visual_token_ids.to(inputs["input_ids"].device))
        sources = swap_sources(frames_of_tokens(is_visual, causal.shape[1]), causal)
        again = swapped_arguments(seen.arguments, sources, is_visual)
        hidden = self.language_model(**again).last_hidden_state[rows, places]  # (B, D)
        consistency = divergence(output.logits[rows, places].detach(), self.head(hidden))
        loss = output.loss + self.weight * consistency
        return RegularizedLoss(loss, output.loss.detach(), consistency.detach())


def answer_positions(labels: Tensor | None) -> tuple[Tensor, Tensor]:
    """Row and position (B,) whose logits predict the first token of each answer.

    Example:
        >>> answer_positions(torch.tensor([[-100, -100, 5, 6], [-100, 7, -100, -100]]))[1].tolist()
        [1, 0]
    """
    if labels is None or not (labels[:, 1:] != -100).any(1).all():
        raise CausalVideoError(
            "labels", found="none" if labels is None else "a sample without an answer",
            expected="(B, L) with -100 outside the answer", fix="set labels to the ids of the answer's tokens",
        )  # fmt: skip
    return torch.arange(len(labels), device=labels.device), (labels[:, 1:] != -100).int().argmax(1)


def swapped_arguments(arguments: Mapping[str, Any], sources: Tensor, is_visual: Tensor) -> dict[str, Any]:
    """The recorded arguments of the language model with the environment's tokens exchanged.

    Qwen3-VL adds visual features of inner layers too (`deepstack_visual_embeds`, one row a visual token); they go
    where their tokens go.
    """
    again = {**arguments, "inputs_embeds": swap_tokens(arguments["inputs_embeds"].detach(), sources)}
    again |= {name: None for name in ("past_key_values", "cache") if name in again}  # else the first pass is read too
    if again.get("deepstack_visual_embeds") is not None:
        number = (is_visual.flatten().cumsum(0) - 1).view_as(is_visual)  # of each visual token in the batch
        taken = number.flatten()[sources[is_visual]]
        again["deepstack_visual_embeds"] = [layer[taken] for layer in again["deepstack_visual_embeds"]]
    return again


def add_language_lora(
    model: Any, rank: int = 8, alpha: int = 16, targets: Sequence[str] = ("q_proj", "v_proj")
) -> Any:
    """Wrap a video language model so that nothing but adapters of its language model learns.

    Args:
        model: bare model.
        rank, alpha: of the adapters.
        targets: names of the linear layers to adapt.

    Raises:
        CausalVideoError: no such layer in the language model.
    """
    from peft import LoraConfig, get_peft_model

    inside = {id(module) for module in model.get_decoder().modules()}
    names = [
        name for name, module in model.named_modules()
        if id(module) in inside and name.rsplit(".", 1)[-1] in targets and isinstance(module, nn.Linear)
    ]  # fmt: skip
    if not names:
        raise CausalVideoError(
            "no layer to adapt", found=f"a language model without {', '.join(targets)}",
            expected="linear layers of these names", fix="pass targets that the language model has",
        )  # fmt: skip
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=alpha, target_modules=names))


class _Recorder:
    """Keeps what the language model was called with inside a `with` block."""

    def __init__(self, language_model: nn.Module):
        self.language_model, self.arguments = language_model, dict[str, Any]()

    def __enter__(self) -> "_Recorder":
        names = list(inspect.signature(self.language_model.forward).parameters)

        def keep(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            self.arguments = {**dict(zip(names, args, strict=False)), **kwargs}

        self.handle = self.language_model.register_forward_pre_hook(keep, with_kwargs=True)
        return self

    def __exit__(self, *error: object) -> None:
        self.handle.remove()
        if error[0] is None and self.arguments.get("inputs_embeds") is None:
            raise CausalVideoError(
                "this model cannot be regularised", found="a language model that is not called with inputs_embeds",
                expected="visual tokens merged before the language model, as in Qwen-VL, LLaVA-OneVision, SmolVLM",
                fix="use one of these models",
            )  # fmt: skip
