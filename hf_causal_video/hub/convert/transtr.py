"""Config that the tensors of a released TranSTR checkpoint imply."""

import re
from collections.abc import Mapping

from torch import Tensor
from transformers import PreTrainedModel

from hf_causal_video.models.transtr import TranSTRConfig, TranSTRForVideoQuestionAnswering
from hf_causal_video.models.transtr.configuration_transtr import BOX_WIDTH
from hf_causal_video.utils.errors import require

# Buffers that older transformers versions saved and newer ones build: no weights, so dropping them loses nothing.
STALE_BUFFERS = ("text_encoder.embeddings.position_ids",)
PRESETS = {
    "next": "official-nextqa",
    "causalvid": "official-causalvidqa",
    "msvd": "official-msvdqa",
    "msrvtt": "official-msrvttqa",
}


def transtr_model(
    state_dict: Mapping[str, Tensor], variant: str, overrides: Mapping[str, object]
) -> tuple[PreTrainedModel, dict[str, Tensor]]:
    """A model of the checkpoint's sizes, and its tensors under our names."""
    tensors = {key: value for key, value in state_dict.items() if key not in STALE_BUFFERS}
    fields = {**_transtr_sizes(tensors, PRESETS[variant]), **overrides}
    return TranSTRForVideoQuestionAnswering(TranSTRConfig.preset(PRESETS[variant], **fields)), tensors


def _transtr_sizes(tensors: Mapping[str, Tensor], preset: str) -> dict[str, object]:
    """Config fields that the tensor shapes tell."""

    def shape(key: str) -> tuple[int, ...]:
        require(
            key in tensors,
            "transtr checkpoint",
            found=f"no {key}",
            expected="a released TranSTR state_dict",
            fix="pass the dictionary of tensors that torch.save wrote",
        )
        return tuple(tensors[key].shape)

    config = TranSTRConfig.preset(preset)
    answers, dim = shape("classifier.weight")
    objects = shape("obj_resize.fc.weight")[1]
    other = {config.object_feature_dim + width for width in BOX_WIDTH.values()} - {config.object_input_dim}
    require(
        (answers == 1) == (config.num_answers is None) and objects not in other,
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
    layers = {match[1] for key in tensors if (match := re.match(rf"{re.escape(prefix)}\.(\d+)\.", key))}
    return len(layers)
