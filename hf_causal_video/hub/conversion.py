"""Original checkpoints to our models: nothing is guessed, nothing is dropped in silence.

The key layouts are those of the authors' released `state_dict`s. A converted model behaves as the released code does:
every legacy switch of the `official-*` presets is on.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from hf_causal_video.errors import CausalVideoError
from hf_causal_video.models.transtr import TranSTRConfig, TranSTRForVideoQuestionAnswering
from hf_causal_video.models.transtr.configuration_transtr import BOX_WIDTH

# Buffers that older transformers versions saved and newer ones build: no weights, so dropping them loses nothing.
STALE_BUFFERS = ("text_encoder.embeddings.position_ids",)
TRANSTR_PRESETS = {
    "next": "official-nextqa",
    "causalvid": "official-causalvidqa",
    "msvd": "official-msvdqa",
    "msrvtt": "official-msrvttqa",
}


def convert_official_checkpoint(
    state_dict: Mapping[str, Tensor], method: str, variant: str, config_overrides: Mapping[str, Any] | None = None
) -> PreTrainedModel:
    """Load an original checkpoint into our model of the same method.

    Args:
        state_dict: the released tensors under the released names.
        method: "transtr".
        variant: which copy of the released code: "next", "causalvid", "msvd" or "msrvtt".
        config_overrides: config fields that the tensors cannot tell (heads, effective K's of another run, a text
            encoder other than DeBERTa base). Widths are read off the tensors.

    Returns:
        The model in evaluation mode.

    Raises:
        CausalVideoError: an unknown method or variant, or any missing, unexpected or misshapen key, by name.

    Example:
        >>> convert_official_checkpoint({}, "transtr", "next")
        Traceback (most recent call last):
        hf_causal_video.errors.CausalVideoError: transtr checkpoint: found no classifier.weight; expected ...
    """
    if method != "transtr":
        raise CausalVideoError("method", found=method, expected=["transtr"], fix="name a method that is built")
    if variant not in TRANSTR_PRESETS:
        raise CausalVideoError("variant", found=variant, expected=sorted(TRANSTR_PRESETS), fix="name one of these")
    tensors = {key: value for key, value in state_dict.items() if key not in STALE_BUFFERS}
    fields = {**_transtr_sizes(tensors, TRANSTR_PRESETS[variant]), **(config_overrides or {})}
    model = TranSTRForVideoQuestionAnswering(TranSTRConfig.preset(TRANSTR_PRESETS[variant], **fields))
    load_exactly(model, tensors)
    return model.eval()


def load_exactly(model: PreTrainedModel, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors into a model whose keys and shapes must be exactly theirs."""
    wanted = model.state_dict()
    problems = [f"missing {key}" for key in wanted if key not in tensors]
    problems += [f"unexpected {key}" for key in tensors if key not in wanted]
    problems += [
        f"{key} of shape {tuple(tensors[key].shape)}, not {tuple(wanted[key].shape)}"
        for key in wanted
        if key in tensors and tensors[key].shape != wanted[key].shape
    ]
    if problems:
        raise CausalVideoError(
            f"{model.config.model_type} checkpoint",
            found="; ".join(problems),
            expected=f"exactly the {len(wanted)} tensors of this variant",
            fix="name the variant the file was trained with, or the fields that differ in config_overrides",
        )
    model.load_state_dict(tensors)


def _transtr_sizes(tensors: Mapping[str, Tensor], preset: str) -> dict[str, Any]:
    """Config fields that the tensor shapes tell."""

    def shape(key: str) -> tuple[int, ...]:
        if key not in tensors:
            raise CausalVideoError(
                "transtr checkpoint",
                found=f"no {key}",
                expected="a released TranSTR state_dict",
                fix="pass the dictionary of tensors that torch.save wrote",
            )
        return tuple(tensors[key].shape)

    config = TranSTRConfig.preset(preset)
    (answers, dim), objects = shape("classifier.weight"), shape("obj_resize.fc.weight")[1]
    other = {config.object_feature_dim + width for width in BOX_WIDTH.values()} - {config.object_input_dim}
    if (answers == 1) != (config.num_answers is None) or objects in other:
        raise CausalVideoError(
            "transtr checkpoint",
            found=f"{answers} answers and objects of width {objects}",
            expected=f"{config.num_answers or 1} answers and objects of width {config.object_input_dim} in {preset}",
            fix="name the variant the file was trained with",
        )
    return {
        "hidden_size": dim,
        "frame_feature_dim": dim,
        "intermediate_size": shape("frame_decoder.layers.0.linear1.weight")[0],
        "num_layers": _layers(tensors, "frame_decoder.layers"),
        "object_feature_dim": objects - BOX_WIDTH[config.bbox_mode],
        "num_answers": None if config.num_answers is None else answers,
    }


def _layers(tensors: Mapping[str, Tensor], prefix: str) -> int:
    found = {match[1] for key in tensors if (match := re.match(rf"{re.escape(prefix)}\.(\d+)\.", key))}
    return len(found)
