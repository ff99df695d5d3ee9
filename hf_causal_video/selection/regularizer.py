"""A light causal regulariser for a video language model: its answer must survive an exchange of the environment.

Why: if the model answers from the causal frames, its answer must not change when the other frames come from another
video. Decoding and encoding those videos again for every intervention is too costly for a large model. Their visual
tokens are already in the batch, at the input of the language model, so they are exchanged there on one step in
`every`. One more pass of the language model alone gives the answer on the exchanged clips, and at the position of the
answer the two distributions must agree:

    loss = CE(answer) + weight * KL(p(answer | clip) || p(answer | clip with another environment))

Pictures are neither decoded nor encoded again, the language head runs on one position per sample, and only LoRA
weights of the language model are trained. A frozen selector says which frames are causal. No claim is made about
hallucination: it was not measured.

Source: the intervention of IGV (arXiv 2206.02349, section 3.3) on the tokens of a video language model, the second
open question of the thesis (arXiv 2503.12447, section 7).
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hf_causal_video.causal.intervention import divergence
from hf_causal_video.utils.checks import check_number, check_whole
from hf_causal_video.utils.errors import CausalVideoError, require

if TYPE_CHECKING:
    from peft import PeftMixedModel, PeftModel

ONE_SIZE = "resize the clips of a batch to one size"
MERGED = "visual tokens merged before the language model, as in Qwen-VL, LLaVA-OneVision, SmolVLM"


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

    def __init__(self, model: nn.Module, visual_token_ids: Sequence[int], every: int = 4, weight: float = 1.0):
        self.model = model
        self.every = check_whole("every", every, fix="every=4 intervenes on a quarter of the steps")
        self.weight = check_number("weight", weight, 0)
        self.visual_token_ids = torch.tensor(list(visual_token_ids))
        base = cast(PreTrainedModel, getattr(model, "get_base_model", lambda: model)())  # of a model with LoRA
        self.language_model: nn.Module = base.get_decoder()
        self.head: nn.Module = base.get_output_embeddings()

    def __call__(self, inputs: Mapping[str, Tensor], causal: Tensor, step: int) -> RegularizedLoss:
        """Compute the loss of one step.

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
        rows, positions = answer_positions(inputs.get("labels"))
        with _Recorder(self.language_model) as recorded:
            output = self.model(**inputs, use_cache=False)
        is_visual = torch.isin(inputs["input_ids"], self.visual_token_ids.to(inputs["input_ids"].device))
        sources = swap_sources(frames_of_tokens(is_visual, causal.shape[1]), causal)
        again = swapped_arguments(recorded.arguments, sources, is_visual)
        hidden = self.language_model(**again).last_hidden_state[rows, positions]  # (B, D)
        # the clip as it is teaches the exchanged one, never the other way round: detached, unlike IGV's KL
        consistency = divergence(output.logits[rows, positions].detach(), self.head(hidden))
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
            "labels",
            found="none" if labels is None else "a sample without an answer",
            expected="(B, L) with -100 outside the answer",
            fix="set labels to the ids of the answer's tokens",
        )
    return torch.arange(len(labels), device=labels.device), (labels[:, 1:] != -100).int().argmax(1)


def frames_of_tokens(is_visual: Tensor, num_frames: int) -> Tensor:
    """Number the frame that each token shows: visual tokens come frame by frame, equally many per frame.

    Args:
        is_visual: (B, L) bool.
        num_frames: T; for a model that merges frames in pairs, the pairs.

    Returns:
        (B, L) int64, -1 for text and for visual tokens left over at the end (a closing newline).

    Raises:
        CausalVideoError: a clip with fewer visual tokens than frames.

    Example:
        >>> frames_of_tokens(torch.tensor([[False, True, True, True, True, True, False]]), 2).tolist()
        [[-1, 0, 0, 1, 1, -1, -1]]
    """
    tokens_per_frame = is_visual.sum(1, keepdim=True) // max(num_frames, 1)  # (B, 1)
    fits = num_frames >= 1 and (tokens_per_frame > 0).all()
    expected = f"at least one for each of {num_frames} frames"
    require(fits, "visual tokens", found=is_visual.sum(1).tolist, expected=expected, fix="count merged frames once")
    number = is_visual.cumsum(1) - 1  # (B, L) among the visual tokens
    frame = number // tokens_per_frame
    return frame.where(is_visual & (frame < num_frames), -1)


def swap_sources(frame_of: Tensor, causal: Tensor, partner: Tensor | None = None) -> Tensor:
    """Find the source of each token when environment frames are exchanged between clips.

    The e-th environment frame of a clip gets the tokens of its partner's, counted in a circle where the partner has
    fewer. Text, causal frames and tokens of no frame stay where they are.

    Args:
        frame_of: (B, L) from `frames_of_tokens`.
        causal: (B, T) bool, the frames that hold the answer.
        partner: (B,) another clip for each; the next one of the batch by default.

    Returns:
        (B, L) int64 indices into the B*L tokens of the batch.

    Raises:
        CausalVideoError: one clip alone, a clip that is its own partner, a partner without environment, or frames of
            different sizes.

    Example:
        >>> frame_of = torch.tensor([[-1, 0, 1], [-1, 0, 1]])
        >>> swap_sources(frame_of, torch.tensor([[True, False], [False, True]])).tolist()
        [[0, 1, 4], [3, 2, 5]]
    """
    batch, length = frame_of.shape
    rows = torch.arange(batch, device=frame_of.device)
    partner = rows.roll(-1) if partner is None else partner
    environment = ~causal  # (B, T)
    has_no_source = environment.sum(1)[partner] == 0
    fits = batch >= 2 and (partner != rows).all() and not (has_no_source & environment.any(1)).any()
    problem = f"{batch} clips, some without another clip that has environment frames"
    fix = "use a batch of two clips or more, and call fewer frames causal than there are"
    require(fits, "environment swap", found=problem, expected="another clip with environment frames for each", fix=fix)
    sources = torch.arange(batch * length, device=frame_of.device).view(batch, length)
    result = sources.clone()
    for row, other in enumerate(partner.tolist()):
        frames = environment[row].nonzero().flatten().tolist()
        partner_frames = environment[other].nonzero().flatten().tolist()
        for number, frame in enumerate(frames):
            is_target = frame_of[row] == frame
            source = sources[other][frame_of[other] == partner_frames[number % len(partner_frames)]]
            counts = f"frames of {int(is_target.sum())} and {len(source)} tokens"
            fits = len(source) == int(is_target.sum())
            require(fits, "environment swap", found=counts, expected="equally many in every frame", fix=ONE_SIZE)
            result[row, is_target] = source
    return result


def swap_tokens(tokens: Tensor, sources: Tensor) -> Tensor:
    """Tokens (B, L, D) in their new positions; a token that stays is the same to the bit."""
    return tokens.flatten(0, 1)[sources.flatten()].view_as(tokens)


def swapped_arguments(arguments: Mapping[str, Any], sources: Tensor, is_visual: Tensor) -> dict[str, Any]:
    """Exchange the environment's tokens in the recorded arguments of the language model.

    Qwen3-VL adds visual features of inner layers too (`deepstack_visual_embeds`, one row per visual token); they go
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
    model: PreTrainedModel, rank: int = 8, alpha: int = 16, targets: Sequence[str] = ("q_proj", "v_proj")
) -> "PeftModel | PeftMixedModel":
    """Wrap a video language model so that only adapters of its language model are trained.

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
        name
        for name, module in model.named_modules()
        if id(module) in inside and name.rsplit(".", 1)[-1] in targets and isinstance(module, nn.Linear)
    ]
    problem = f"a language model without {', '.join(targets)}"
    require(names, "no layer to adapt", found=problem, expected="linear layers of these names", fix="pass its targets")
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=alpha, target_modules=names))


class _Recorder:
    """Record what the language model is called with inside a `with` block."""

    def __init__(self, language_model: nn.Module):
        self.language_model = language_model
        self.arguments = dict[str, Any]()

    def __enter__(self) -> "_Recorder":
        names = list(inspect.signature(self.language_model.forward).parameters)

        def keep(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            self.arguments = {**dict(zip(names, args, strict=False)), **kwargs}

        self.handle = self.language_model.register_forward_pre_hook(keep, with_kwargs=True)
        return self

    def __exit__(self, *error: object) -> None:
        self.handle.remove()
        is_merged = error[0] is not None or self.arguments.get("inputs_embeds") is not None
        problem = "a language model that is not called with inputs_embeds"
        require(is_merged, "this model cannot be regularised", found=problem, expected=MERGED, fix="use such a model")
