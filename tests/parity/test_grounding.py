"""IGV and EIGV equal the published implementations on every fixture of theirs, whatever its sizes and backbone.

Method, backbone and kind of answer are told by the fixture's fields and tensors. Random draws are handed in as stored;
frames are edited behind the backbone's linear embedding here, so edited clips are compared through the same masks and
draws on the raw frames.
"""

from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from hf_causal_video.causal import FrameBank, mix_scenes, swap_frames
from hf_causal_video.hub import convert_official_checkpoint
from hf_causal_video.hub.convert.grounding import CHUNK, renamed
from hf_causal_video.models.base import RandomInputs
from hf_causal_video.models.eigv import modeling_eigv
from hf_causal_video.models.igv import modeling_igv
from tests.parity.comparison import Values, assert_alterations_are_noticed, compare
from tests.parity.fixtures import all_fixtures, read_fixture
from tests.parity.test_models import compared_in_test_grounding

pytestmark = pytest.mark.parity

BACKBONES = {"adj_learner": "hga", "epm_app": "comem", "ssp_offer": "mspan"}
BRANCHES = ("causal", "complement", "intervened")


def variant(parts: dict[str, Values], spec: dict[str, Any]) -> tuple[str, str]:
    """Method and variant of the released code that a fixture is of."""
    method = str(compared_in_test_grounding(spec)).lower()
    modules = {key.split(".")[0] for key in parts["state_dict"]}
    (backbone,) = (name for part, name in BACKBONES.items() if part in modules)
    paths = " ".join(source["path"] for source in spec["source"])
    dataset = "nextqa" if parts["input"]["question"].dim() == 4 else "msrvtt" if "MSRVTT" in paths else "msvd"
    return method, f"{dataset}-{backbone}"


def build(parts: dict[str, Values], spec: dict[str, Any]) -> torch.nn.Module:
    """A converted model of the fixture's sizes, with the settings that no tensor tells, in the fixture's mode."""
    method, name = variant(parts, spec)
    made, given = spec["config"]["constructor"], parts["input"]
    training = spec["config"]["mode"] == "train"
    fields: dict[str, Any] = {"zero_sum_padding": False, "num_choices": None}
    fields["gumbel_tau"] = made.get("tau", made.get("tau_gumbel", 1.0))
    fields["backbone_config"] = {"dropout": 0.0} if training else {}
    if "num_scale" in made:
        fields["backbone_config"]["num_scales"] = made["num_scale"]
    if "contrast" in spec["config"]:
        fields["contrast_cosine"] = spec["config"]["contrast"] == "infonce_cosine"
        fields["contrast_temperature"] = spec["config"]["nce_temperature"]
        fields["contrast_weight"] = spec["config"]["beta"]
        fields["num_negatives"] = spec["config"]["num_negatives"]
    model = convert_official_checkpoint(parts["state_dict"], method, name, fields).train(training)
    if "bank" in given:
        model.bank = FrameBank(given["bank"], torch.arange(len(given["bank"])))
    return model


def inputs(given: Values) -> dict[str, Any]:
    """The fixture's inputs under our argument names."""
    length = given["question_length"]
    mask = torch.arange(given["question"].shape[-2]) < length.unsqueeze(-1)
    several = given["question"].dim() == 4
    names = ("choice_features", "choice_attention_mask") if several else ("question_features", "attention_mask")
    copies = len(given["question_shuffle"]) // len(length) if "question_shuffle" in given else 0
    draws = RandomInputs(
        gumbel=given.get("gumbel_noise", given.get("gumbel_noise_1")),
        gumbel_mixed=given.get("gumbel_noise_2"),
        foreign=given.get("bank_index", given.get("bank_index_positive")),
        lambda1=given.get("lambda1"),
        lambda2=given.get("lambda2"),
        partner=given.get("permutation"),
    )
    if copies:
        draws.foreign_negative = given["bank_index_negative"].unflatten(0, (copies, -1))
        draws.question_swap = given["question_shuffle"].view(copies, -1)
    return {
        "frame_features": given["video"],
        names[0]: given["question"],
        names[1]: mask,
        "labels": given.get("answer"),
        "video_ids": given.get("video_index"),
        "draws": draws,
    }


def run(model: torch.nn.Module, given: dict[str, Any]) -> tuple[Any, dict[str, list[Any]]]:
    """One forward pass, with the results of every module of the backbone and of every mechanism, call by call."""
    seen: dict[str, list[Any]] = {}

    def note(name: str, value: Any) -> None:
        seen.setdefault(name, []).append(value)

    def spy(place: Any, name: str) -> Any:
        function = getattr(place, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            note(name, (args, result))
            return result

        return patch.object(place, name, call)

    handles = [
        module.register_forward_hook(lambda _, args, result, name=name: note(name, result))
        for name, module in [*model.backbone.named_modules(), ("project_head", getattr(model, "project_head", None))]
        if name and module is not None
    ]
    spied = [(modeling_igv, "grounding_logits"), (modeling_igv, "split_frames"), (modeling_igv, "divergence")]
    spied += [(modeling_eigv, name) for name in ("mix_scenes", "swap_frames", "info_nce", "two_hot")]
    spied += [(model.backbone, name) for name in ("encode_question", "encode_video", "fuse_pairs", "answer")]
    patches = [spy(*one) for one in spied]
    for one in patches:
        one.start()
    try:
        with model.fixed_random_inputs(given["draws"]):
            return model(**{name: value for name, value in given.items() if name != "draws"}), seen
    finally:
        for one in patches:
            one.stop()
        for handle in handles:
            handle.remove()


def gradients(model: torch.nn.Module, released: Values) -> Values:
    """Our gradients under the released names."""
    ours = {name: parameter.grad for name, parameter in model.named_parameters()}
    found = {}
    for key in released:
        if chunk := CHUNK.fullmatch(key):
            block, side, number, name = chunk.groups()
            first, rest = (ours.get(f"backbone.{block}.merge{side}{end}.{name}") for end in ("", "_rest"))
            gradients = [*first, *([] if rest is None else rest)]
            gradient = gradients[int(number)] if int(number) < len(gradients) else None  # a chunk of nothing
        else:
            gradient = ours.get(next(iter(renamed({key: released[key]}))))
        if gradient is not None:
            found[f"grad.{key}"] = gradient
    return found


def indicators(seen: dict[str, list[Any]], names: tuple[str, ...]) -> Values:
    """Logits and masks of every grounding."""
    values = {}
    for name, (_, logits), (_, split) in zip(names, seen["grounding_logits"], seen["split_frames"], strict=True):
        values |= {f"{name}.prob": logits, f"{name}.mask": torch.stack([split.causal, split.environment], 1)}
    return values


def igv_values(parts: dict[str, Values], spec: dict[str, Any]) -> Values:
    """One training step of IGV."""
    model, given = build(parts, spec), parts["input"]
    out, seen = run(model, inputs(given))
    out.loss.backward()
    (_, split), video = seen["split_frames"][0], given["video"]
    values = indicators(seen, ("indicator",)) | gradients(model, parts["state_dict"])
    values |= {
        "causal_mask_after_fallback": split.chosen_causal.float(),
        "complement_mask_after_fallback": split.chosen_environment.float(),
        "video_causal_masked": video * split.causal.unsqueeze(-1),
        "video_complement_masked": video * split.environment.unsqueeze(-1),
        "video_intervened": swap_frames(video, ~split.chosen_causal, model.bank.take(given["bank_index"])),
        "qns_encoder.local": seen["qns_encoder"][0][0],
        "qns_encoder.global": seen["qns_encoder"][0][1],
        "loss_answer": out.losses["answer"],
        "loss_intervention": out.losses["intervened"],
        "loss_complement_uniform": out.losses["environment"],
        "loss_total": out.loss,
    }
    for branch, encoded in zip(("full", *BRANCHES), seen["vid_encoder"], strict=True):
        values |= {f"vid_encoder.{branch}.local": encoded[0], f"vid_encoder.{branch}.global": encoded[1]}
    for number, branch in enumerate(BRANCHES):  # one batch here, one after the other there
        values[f"logits_{branch}"] = seen["answer"][number][1]
        for name in ("adj_learner", "gcn", "atten_pool", "global_fusion", "fusion"):
            values[f"{name}.{branch}"] = seen[name][0].chunk(len(BRANCHES))[number]
    return {name: uncut(value, parts["output"].get(name)) for name, value in values.items()}


def uncut(value: Tensor, stored: Tensor | None) -> Tensor:
    """Ours without the padding behind the longest clip of a branch, which must be zero."""
    if stored is None or value.dim() != stored.dim() or value.shape == stored.shape:
        return value
    kept = value[tuple(slice(size) for size in stored.shape)]
    assert value.count_nonzero() == kept.count_nonzero()
    return kept


def eigv_eval_values(parts: dict[str, Values], spec: dict[str, Any]) -> Values:
    """The plain backbone, the projection of its joint vector, and what the indicator would say of every string."""
    model = build(parts, spec)
    with torch.no_grad():
        out, seen = run(model, inputs(parts["input"]))
        question, video, joint = (seen[name][0][1] for name in ("encode_question", "encode_video", "fuse_pairs"))
        rows = torch.arange(len(video.frames)).repeat_interleave(len(question.pooled) // len(video.frames))
        energies = model.indicator(question.pooled, model.backbone.grounding_key(video), rows)
        probabilities = modeling_igv.grounding_logits(
            energies, torch.ones_like(energies[:, 0], dtype=torch.bool), "prob"
        )
        values = {"logits": out.logits, "project_head": model.project_head(joint)} | modules(seen)
    values |= {"indicator.causal_prob": probabilities[:, 0], "indicator.environment_prob": probabilities[:, 1]}
    # The question where it is one vector, and frames whose projection is no call of a module here.
    values |= {"qns_encoder": question.pooled, "fc_cat": video.frames}
    return {name: value.view(parts["output"].get(name, value).shape) for name, value in values.items()}


def modules(seen: dict[str, list[Any]]) -> Values:
    """The last result of every module, parts of a tuple by number."""
    values: Values = {}
    for name, results in seen.items():
        last = results[-1]
        if isinstance(last, Tensor):
            values[name] = last
        elif isinstance(last, tuple) and all(isinstance(part, Tensor) for part in last):
            values |= {f"{name}.{number}": part for number, part in enumerate(last)}
    return values


def eigv_step_values(parts: dict[str, Values], spec: dict[str, Any]) -> Values:
    """One training step of EIGV."""
    model, given, stored = build(parts, spec), parts["input"], parts["output"]
    out, seen = run(model, inputs(given))
    out.loss.backward()
    video, bank = given["video"], model.bank
    (_, *mixing), _ = seen["mix_scenes"][0]
    mixed = mix_scenes(video, *mixing)
    ((_, positive, _), _), ((_, negative, _), _) = seen["swap_frames"]
    (anchor, good, bad, *_), _ = seen["info_nce"][0]
    copies = len(given["bank_index_negative"]) // len(video)
    values = indicators(seen, ("indicator_1", "indicator_2")) | gradients(model, parts["state_dict"])
    values |= {
        "out": seen["answer"][0][1].view(len(video), -1),
        "out_anchor": anchor,
        "out_positive": good.view_as(stored["out_positive"]),
        "out_negative": bad,
        "video_mixed": mixed,
        "video_positive": swap_frames(mixed, positive, bank.take(given["bank_index_positive"])),
        "video_negative": swap_frames(mixed.repeat(copies, 1, 1), negative, bank.take(given["bank_index_negative"])),
        "loss_answer": out.losses["answer"],
        "loss_nce": out.losses["contrast"],
        "loss_total": out.loss,
    }
    if "two_hot" in seen:
        values["target"] = seen["two_hot"][0][1]
    buffers = dict(model.named_buffers())
    return values | {
        f"buffer_after.{key}": buffers[f"backbone.{key}"]
        for key in parts["state_dict"]
        if f"backbone.{key}" in buffers
    }


@cache
def ours(path: Path) -> Values:
    """Our numbers for a fixture."""
    parts, spec = read_fixture(path)
    training = spec["config"]["mode"] == "train"
    step = eigv_step_values if training else eigv_eval_values
    values = (igv_values if compared_in_test_grounding(spec) == "IGV" else step)(parts, spec)
    return {name: value.detach() for name, value in values.items()}


FIXTURES = [path for path in all_fixtures() if compared_in_test_grounding(read_fixture(path)[1])]


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_model_equals_the_published_one(path: Path) -> None:
    parts, spec = read_fixture(path)
    compare(parts["output"], ours(path), spec)


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_an_altered_output_is_noticed(path: Path) -> None:
    parts, spec = read_fixture(path)
    assert_alterations_are_noticed(parts["output"], lambda stored: compare(stored, ours(path), spec))
