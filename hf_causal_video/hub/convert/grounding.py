"""Config that the tensors of a released IGV or EIGV checkpoint imply, and their names here.

A released model is one flat network; here the backbone is a part of it. The many small layers of a Block fusion stand
in one tensor, and the two halves of a normalised weight are called g and v.
"""

import re
from collections.abc import Mapping
from itertools import groupby

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hf_causal_video.models.eigv import EIGVConfig, EIGVForVideoQuestionAnswering
from hf_causal_video.models.igv import IGVConfig, IGVForVideoQuestionAnswering
from hf_causal_video.utils.errors import require

DATASETS = {"nextqa": "nextqa", "msvd": "msvdqa", "msrvtt": "msrvttqa"}
PRESETS = {
    "igv": {f"{short}-hga": f"official-{DATASETS[short]}-hga" for short in ("msvd", "msrvtt")},
    "eigv": {
        f"{short}-{backbone}": f"official-{dataset}-{backbone}"
        for short, dataset in DATASETS.items()
        for backbone in ("hga", "comem", "mspan")
    },
}
CLASSES: dict[str, tuple[type[IGVConfig] | type[EIGVConfig], type[PreTrainedModel]]] = {
    "igv": (IGVConfig, IGVForVideoQuestionAnswering),
    "eigv": (EIGVConfig, EIGVForVideoQuestionAnswering),
}
OWN = ("indicator.", "project_head.")  # parts of the method; all others are the backbone's
CHUNK = re.compile(r"(.*)\.merge_linears([01])\.(\d+)\.(weight|bias)")


def grounding_model(
    state_dict: Mapping[str, Tensor], method: str, variant: str, overrides: Mapping[str, object]
) -> tuple[PreTrainedModel, dict[str, Tensor]]:
    """A model of the checkpoint's sizes, and its tensors under our names."""
    config_class, model_class = CLASSES[method]
    preset = PRESETS[method][variant]
    backbone = variant.split("-")[1]
    fields: dict = SIZES[backbone](_Shapes(state_dict, f"{method} checkpoint"))
    released = config_class.preset(preset)
    require(
        (fields["num_answers"] == 1) == (released.num_answers is None),
        f"{method} checkpoint",
        found=lambda: f"{fields['num_answers']} answers",
        expected=f"{released.num_answers or 1} in {preset}",
        fix="name the variant the file was trained with",
    )
    if released.num_answers is None:
        fields["num_answers"] = None
    if method == "eigv":
        fields["projection_dim"] = _Shapes(state_dict, "eigv checkpoint")["project_head.1.weight"][0]
    changes = dict(overrides)
    changed = changes.pop("backbone_config", {})
    assert isinstance(changed, dict)
    fields["backbone_config"] = {**fields["backbone_config"], **changed}
    return model_class(config_class.preset(preset, **{**fields, **changes})), renamed(state_dict)


def renamed(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Released tensors under our names, chunks of a Block fusion stacked.

    Example:
        >>> old = {"fg_att.linear_q.bias": torch.zeros(2), "gcn.layers.0.weight.weight": torch.zeros(2, 2)}
        >>> sorted(renamed(old))
        ['backbone.gcn.layers.0.weight.weight', 'indicator.fg_att.linear_q.bias']
    """
    tensors: dict[str, Tensor] = {}
    chunks: dict[str, dict[int, Tensor]] = {}
    for key, tensor in state_dict.items():
        key = re.sub(r"^(fg_att|bg_att)\.", r"indicator.\1.", key)  # older trees of IGV, and EIGV
        key = key if key.startswith(OWN) else f"backbone.{key}"
        key = re.sub(r"\.weight_([gv])$", r".\1", key)
        if match := CHUNK.fullmatch(key):
            chunks.setdefault(f"{match[1]}.merge{match[2]}.{match[4]}", {})[int(match[3])] = tensor
        else:
            tensors[key] = tensor
    for key, parts in chunks.items():
        block, name = key.rsplit(".", 1)
        kept = [parts[number] for number in sorted(parts) if parts[number].numel()]
        sizes = [list(same) for _, same in groupby(kept, lambda part: part.shape)]
        require(
            sorted(parts) == list(range(len(parts))) and 1 <= len(sizes) <= 2,
            "checkpoint",
            found=f"chunks {sorted(parts)} of {key}, shapes {[tuple(same[0].shape) for same in sizes]}",
            expected="all chunks of a Block fusion, of one size or two",
            fix="pass the dictionary of tensors that torch.save wrote",
        )
        for place, same in zip((block, f"{block}_rest"), sizes, strict=False):
            tensors[f"{place}.{name}"] = torch.stack(same)
    return tensors


class _Shapes:
    """Shapes of released tensors; an absent one is an error that names it."""

    def __init__(self, tensors: Mapping[str, Tensor], what: str):
        self.tensors = tensors
        self.what = what

    def __getitem__(self, key: str) -> tuple[int, ...]:
        require(
            key in self.tensors,
            self.what,
            found=f"no {key}",
            expected="a released state_dict of this variant",
            fix="pass the dictionary of tensors that torch.save wrote, or name its variant",
        )
        return tuple(self.tensors[key].shape)

    def count(self, pattern: str) -> int:
        """How many different numbers stand in the group of a pattern."""
        return len({match[1] for key in self.tensors if (match := re.match(pattern, key))})


def hga_sizes(shapes: _Shapes) -> dict[str, object]:
    """Config fields that the shapes of an HGA checkpoint tell."""
    hidden, frame_dim = shapes["vid_encoder.vid2hid.0.weight"]
    word_dim, text_dim = shapes["qns_encoder.embedding.0.weight"]
    outputs, size = shapes["global_fusion.merge_linears0.0.weight"]
    return {
        "text_feature_dim": text_dim,
        "frame_feature_dim": frame_dim,
        "num_answers": shapes["decoder.weight"][0],
        "backbone_config": {
            "hidden_dim": hidden,
            "word_dim": word_dim,
            "cell": {3: "gru", 4: "lstm"}.get(shapes["vid_encoder.rnn.weight_hh_l0"][0] // hidden, "lstm"),
            "gcn_layers": shapes.count(r"gcn\.layers\.(\d+)\."),
            "bilinear_dim": shapes["global_fusion.linear0.weight"][0],
            "bilinear_chunks": shapes.count(r"global_fusion\.merge_linears0\.(\d+)\."),
            "bilinear_rank": outputs // size,
        },
    }


def comem_sizes(shapes: _Shapes) -> dict[str, object]:
    """Config fields that the shapes of a Co-Mem checkpoint tell."""
    word_dim, text_dim = shapes["qns_encoder.embedding.0.weight"]
    appearance, motion = (shapes[f"vid_encoder.rnn_{stream}_l1.weight_ih_l0"][1] for stream in ("app", "motion"))
    return {
        "text_feature_dim": text_dim,
        "frame_feature_dim": appearance + motion,
        "num_answers": shapes["decoder.weight"][0],
        "backbone_config": {
            "hidden_size": shapes["epm_app.AGRU.AGRUCell.W.weight"][0],
            "word_dim": word_dim,
            "question_layers": shapes.count(r"qns_encoder\.rnn\.weight_ih_l(\d+)$"),
            "appearance_dim": appearance,
        },
    }


def mspan_sizes(shapes: _Shapes) -> dict[str, object]:
    """Config fields that the shapes of an MSPAN checkpoint tell; the number of scales is not among them."""
    hidden, frame_dim = shapes["fc_cat.weight"]
    return {
        "text_feature_dim": shapes["linguistic.encoder.weight_ih_l0"][1],
        "frame_feature_dim": frame_dim,
        "num_answers": shapes["classifier.4.weight"][0],
        "backbone_config": {
            "hidden_size": hidden,
            "rounds": shapes.count(r"ssp_offer\.GCN_Module\.(\d+)\."),
            "gcn_layers": shapes.count(r"ssp_offer\.GCN_Module\.0\.gcn\.(\d+)\."),
        },
    }


SIZES = {"hga": hga_sizes, "comem": comem_sizes, "mspan": mspan_sizes}
