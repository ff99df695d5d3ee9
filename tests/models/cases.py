"""One tiny case for every model of the package: how to build it, and a batch that it takes.

The batch is ragged on purpose: questions, choices, frames and objects of different number in every row.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from hf_causal_video.models.backbone import BackboneForVideoQuestionAnswering
from hf_causal_video.models.base import RandomInputs
from hf_causal_video.models.eigv import EIGVForVideoQuestionAnswering
from hf_causal_video.models.igv import IGVForVideoQuestionAnswering
from hf_causal_video.models.ivrd import IVRDConfig, IVRDForVideoRelationDetection
from hf_causal_video.models.outputs import VideoQAOutput
from hf_causal_video.models.transtr import TranSTRForVideoQuestionAnswering

FRAME_DIM, OBJECT_DIM, VOCABULARY, ANSWERS, PREDICATES = 12, 10, 50, 7, 5
TEXT = {
    "model_type": "bert", "vocab_size": VOCABULARY, "hidden_size": 16, "num_attention_heads": 2,
    "num_hidden_layers": 2, "intermediate_size": 24, "max_position_embeddings": 64,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A model class, a tiny config of it, and the inputs it takes.

    Args:
        name: shown in the test's id.
        model_class: the model.
        fields: fields of its tiny config.
        objects: whether it takes objects.
        unused: parameters that rightly get no gradient, by a part of their name.
        padding_free: whether padding is promised to change no answer; the released behaviour does not promise it.
        rows_apart: whether a row is promised not to hear of the others; the released HGA pads to the longest of them.
        still: fields that switch dropout off.
        needs_question: whether a multiple-choice model reads the question also beside the choices.
        keeps: frames that it has to find in every clip, or None.
    """

    name: str
    model_class: type[PreTrainedModel]
    fields: dict[str, Any]
    objects: bool = True
    unused: tuple[str, ...] = ()
    padding_free: bool = True
    rows_apart: bool = True
    still: dict[str, Any] = field(default_factory=lambda: {"hidden_dropout_prob": 0.0})
    needs_question: bool = False
    keeps: int | None = None

    def config(self, **overrides: Any) -> PreTrainedConfig:
        return self.model_class.config_class(**(self.fields | overrides))

    def build(self, **overrides: Any) -> PreTrainedModel:
        torch.manual_seed(0)
        model = self.model_class(self.config(**overrides)).eval()
        if hasattr(model, "training_progress"):
            model.training_progress = 1.0  # what a trainer says at the end: every term has its weight
        return model

    @property
    def open_ended(self) -> bool:
        return self.fields.get("num_answers") is not None

    def inputs(self, batch: int = 3, frames: int = 9, objects: int = 5, seed: int = 0) -> dict[str, Tensor]:
        """A ragged batch with labels."""
        source = torch.Generator().manual_seed(seed)

        def lengths(low: int, high: int, shape: tuple[int, ...]) -> Tensor:
            drawn = torch.randint(low, high + 1, shape, generator=source)
            drawn.view(-1)[0] = high  # so that the widest row is full
            return drawn

        def strings(shape: tuple[int, ...], high: int) -> tuple[Tensor, Tensor]:
            mask = torch.arange(high) < lengths(2, high, shape).unsqueeze(-1)
            return torch.randint(3, VOCABULARY, mask.shape, generator=source) * mask, mask.long()

        question, question_mask = strings((batch,), 8)
        given = {
            "input_ids": question,
            "attention_mask": question_mask,
            "frame_features": torch.randn(batch, frames, FRAME_DIM, generator=source),
            "frame_mask": torch.arange(frames) < lengths(frames - 2, frames, (batch,))[:, None],
            "labels": torch.randint(0, 4, (batch,), generator=source),
        }
        if not self.open_ended:
            given["choice_input_ids"], given["choice_attention_mask"] = strings((batch, 4), 11)
        if self.objects:
            corners = torch.rand(batch, frames, objects, 2, 2, generator=source).sort(-2).values
            given["object_features"] = torch.randn(batch, frames, objects, OBJECT_DIM, generator=source)
            given["object_boxes"] = corners.flatten(-2)
            given["object_mask"] = torch.arange(objects) < lengths(2, objects, (batch, frames))[..., None]
        return given


TRANSTR: dict[str, Any] = {
    "text_config": TEXT, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24,
    "frame_feature_dim": FRAME_DIM, "object_feature_dim": OBJECT_DIM, "num_frames_kept": 4, "num_objects_kept": 2,
    "topk_samples": 32,
}  # fmt: skip


OFFICIAL: dict[str, Any] = {
    "rank_by": "prob", "rank_after_dropout": True, "score_bound": None, "topk_gradient": "diagonal",
    "topk_baseline": False, "topk_sigma": 0.05, "topk_order": "unsorted", "bbox_mode": "raw4",
    "select_after": "feedforward",
}  # fmt: skip
# A bias that all choices share, attention of a lone query to itself, and a bias of keys, which shifts all scores of a
# softmax alike, can teach nothing.
SHARED_BIAS, LONE_QUERY = (
    ("classifier.bias", "ans_decoder.norm.bias"),
    ("ans_decoder.layers.0.self_attn.q_lin", "ans_decoder.layers.0.self_attn.k_lin"),
)
KEYS = (".self.key.bias", "attn.k_lin.bias")
# Energies are the scores of the last layer before their softmax, where a shift counts.
ENERGY_KEYS = (
    ".self.key.bias",
    "self_attn.k_lin.bias",
    "layers.0.multihead_attn.k_lin.bias",
    "fo_decoder.layers.1.multihead_attn.k_lin.bias",
    "ans_decoder.layers.1.multihead_attn.k_lin.bias",
)


def transtr(name: str, **fields: Any) -> Case:
    fields = TRANSTR | fields
    unused = ENERGY_KEYS if fields.get("rank_by") == "energy" else KEYS
    unused += SHARED_BIAS if fields.get("num_answers") is None else LONE_QUERY
    objects, clean = fields["num_objects_kept"] > 0, fields.get("rank_by") != "prob"
    keeps = fields["num_frames_kept"]
    return Case(
        f"transtr-{name}", TranSTRForVideoQuestionAnswering, fields, objects, unused, clean,
        needs_question=True, keeps=keeps,
    )  # fmt: skip


HGA: dict[str, Any] = {
    "hidden_dim": 8, "word_dim": 10, "bilinear_dim": 12, "bilinear_chunks": 3, "bilinear_rank": 2, "dropout": 0.3,
}  # fmt: skip
# Shared by all nodes of a pooling softmax; and the released scores, whose softmax over frames takes no shared shift.
SHIFTS = ("atten_pool.2.bias",)
KEY_BIASES = ("fg_att.linear_k.bias", "bg_att.linear_k.bias")
RELEASED: dict[str, Any] = {
    "grounding_logits": "prob", "empty_side": "all", "normalize_question": False, "match_weight": 0.0,
    "warmup_share": 0.0, "ramp_share": 0.0,
}  # fmt: skip


def grounded(name: str, model_class: type[PreTrainedModel], official: bool = False, **fields: Any) -> Case:
    backbone = HGA | ({"pool_mask": "post", "bilinear_epsilon": None, "cell": "gru"} if official else {})
    fields = {"text_config": TEXT, "frame_feature_dim": FRAME_DIM, "backbone_config": backbone} | fields
    unused = KEYS + SHIFTS + (KEY_BIASES if official else ())
    if fields.get("num_answers") is None:
        unused += ("decoder.bias",)
        if model_class is not EIGVForVideoQuestionAnswering:  # whose contrast reads what is fused
            unused += ("backbone.fusion.linear_out.bias",)
    return Case(
        name, model_class, fields, False, unused, not official, not official,
        {"backbone_config": backbone | {"dropout": 0.0}}, name == "igv-choices",
    )  # fmt: skip


CASES: list[Case] = [
    transtr("choices"),
    transtr("open-ended", num_answers=ANSWERS),
    transtr("frames-alone", num_objects_kept=0),
    transtr("energy", rank_by="energy", num_layers=2),
    transtr("official", **OFFICIAL),
    transtr("early-choice", select_after="cross_attention"),
    grounded("backbone-choices", BackboneForVideoQuestionAnswering),
    grounded("backbone-open-ended", BackboneForVideoQuestionAnswering, num_answers=ANSWERS),
    grounded("igv-choices", IGVForVideoQuestionAnswering),
    grounded("igv-candidates", IGVForVideoQuestionAnswering, mc_grounding="per_candidate", grounding_logits="logprob"),
    grounded("igv-open-ended", IGVForVideoQuestionAnswering, num_answers=ANSWERS),
    grounded("igv-official", IGVForVideoQuestionAnswering, True, num_answers=ANSWERS, size_weight=0.0, **RELEASED),
    grounded("eigv-choices", EIGVForVideoQuestionAnswering, output_evidence=True),
    grounded("eigv-open-ended", EIGVForVideoQuestionAnswering, num_answers=ANSWERS, mix_question_at="tokens"),
    grounded(
        "eigv-official", EIGVForVideoQuestionAnswering, True, size_weight=0.0, negatives_layout="legacy", **RELEASED
    ),
]


def run(model: PreTrainedModel, random_inputs: RandomInputs, **inputs: Any) -> VideoQAOutput:
    """One call with given random inputs."""
    with model.fixed_random_inputs(random_inputs):
        return model(**inputs)


@dataclass(frozen=True)
class RelationCase(Case):
    """A relation model; its batch holds segments of different numbers of tracks and pairs, with unknown labels."""

    objects: bool = False

    def inputs(self, batch: int = 3, frames: int = 6, objects: int = 4, seed: int = 0) -> dict[str, Tensor]:
        """A ragged batch with labels; an object is a track."""
        source = torch.Generator().manual_seed(seed)
        steps, tracks = frames, objects
        count = torch.tensor([tracks, tracks - 1, 2])[torch.arange(batch) % 3]  # (B,)
        length = torch.randint(steps - 2, steps + 1, (batch, tracks), generator=source)
        length[torch.arange(tracks) >= count.unsqueeze(1)] = 0
        corner = torch.rand(batch, tracks, steps, 2, generator=source) * 0.5
        size = 0.1 + 0.3 * torch.rand(corner.shape, generator=source)
        pairs = torch.tensor([[0, 1], [1, 0], [1, 2], [0, 3]]).expand(batch, 4, 2)
        pairs = pairs.masked_fill((pairs >= count.view(-1, 1, 1)).any(-1, keepdim=True), -100)
        real, multi_label = (pairs >= 0).all(-1), self.fields["multi_label"]
        labels = torch.randint(0, 2 if multi_label else PREDICATES, (batch, 4, PREDICATES), generator=source)
        labels = labels.float() if multi_label else labels[..., 0]
        labels[0, 0] = -100
        labels[~real] = -100
        classes = torch.randint(0, 4, (batch, tracks), generator=source)
        return {
            "track_boxes": torch.cat([corner, corner + size], -1),
            "track_mask": torch.arange(steps) < length.unsqueeze(-1),
            "track_features": torch.randn(batch, tracks, steps, OBJECT_DIM, generator=source),
            "track_start": torch.randint(0, 2, (batch, tracks), generator=source),
            "pair_index": pairs,
            "track_labels": classes.masked_fill(torch.arange(tracks) >= count.unsqueeze(1), -100),
            "predicate_labels": labels,
        }


def relations(name: str, preset: str, **fields: Any) -> RelationCase:
    sizes = {"num_object_classes": 3, "num_predicates": PREDICATES, "hidden_size": 8, "feature_dim": OBJECT_DIM}
    fields = {"multi_label": True, **IVRDConfig.presets()[preset], **sizes, **fields}
    return RelationCase(f"ivrd-{name}", IVRDForVideoRelationDetection, fields)


RELATION_CASES = [
    relations("clean", "clean"),
    relations("one-predicate", "clean", multi_label=False),
    relations("class-pairs", "clean", class_pair_prior=True),
    relations("paper", "paper"),
    relations("paper-exact", "paper-exact"),
    relations("plain", "plain"),
]


def batched(function: Callable[[Tensor], Tensor], inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same function over every tensor of a batch."""
    return {name: function(tensor) for name, tensor in inputs.items()}
