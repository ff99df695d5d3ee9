"""Models and operators equal the published implementations, on every fixture in the folder, whatever its sizes.

The comparison is chosen by the fixture's fields. Every stored output must have a counterpart of ours: an output that
the test does not know is a failure, as is a fixture that nobody compares although its method is built.
"""

import os
import shutil
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from hf_causal_video.causal import hard_topk, perturbed_topk, topk_indices
from hf_causal_video.hub import convert_official_checkpoint
from hf_causal_video.models.base import RandomInputs
from hf_causal_video.models.transtr import selection
from tests.parity.comparison import Values, assert_alterations_are_noticed, compare
from tests.parity.fixtures import VARIABLE, all_fixtures, evaluator_kind, read_fixture
from tests.parity.test_evaluators import COMPARISONS

pytestmark = pytest.mark.parity

ORDERS = {"": "unsorted", "temporal.": "temporal", "score_descending.": "score"}


def model_kind(spec: dict[str, Any]) -> str | None:
    """What a fixture's fields say it holds, among what is built: "transtr", "topk", or None."""
    if "text_encoder" in spec and {"num_frames_kept", "num_objects_kept"} <= spec.get("effective", {}).keys():
        return "transtr"
    if spec.get("cases") and all({"case", "k", "sigma", "num_samples"} <= case.keys() for case in spec["cases"]):
        return "topk"
    return None


def compared_in_test_grounding(spec: dict[str, Any]) -> str | None:
    """IGV or EIGV, where a fixture comes from their code and holds a constructed model."""
    methods = {"yl3800/IGV": "IGV", "yl3800/EIGV": "EIGV"}
    origin = {source.get("repository") for source in spec.get("source", [])} if "config" in spec else set()
    return next((method for repository, method in methods.items() if repository in origin), None)


def topk_values(parts: dict[str, Values], spec: dict[str, Any]) -> Values:
    """Our numbers under the names of an operator fixture."""
    values: Values = {}
    for case in spec["cases"]:
        name, k, sigma, samples = case["case"], case["k"], case["sigma"], case["num_samples"]
        scores, noise = parts["input"][f"{name}.scores"].requires_grad_(), parts["input"][f"{name}.noise"]
        upstream = parts["input"][f"{name}.upstream_gradient"].transpose(1, 2)  # (B, d, k)

        def gradient(kind: str, baseline: bool = False, *, given=(scores, k, sigma, noise, upstream)) -> Tensor:
            scores, k, sigma, noise, upstream = given
            selector = perturbed_topk(scores, k, sigma=sigma, noise=noise, gradient=kind, baseline=baseline)
            return torch.autograd.grad(selector, scores, upstream)[0]

        values |= {
            f"{name}.indicator": perturbed_topk(scores, k, sigma=sigma, noise=noise).transpose(1, 2).detach(),
            f"{name}.sample_indices": topk_indices(scores.unsqueeze(1) + noise * sigma, k),
            f"{name}.grad_diagonal": gradient("diagonal"),
            f"{name}.grad_full": gradient("full"),
            # Theirs subtracts the mean credit of all draws, ours of the other draws, which keeps the estimate unbiased
            f"{name}.grad_full_mean_baseline": gradient("full", baseline=True) * ((samples - 1) / samples),
            f"{name}.hard_index_temporal": hard_topk(scores, k).argmax(1),
            f"{name}.hard_index_official_order": topk_indices(scores, k, "unsorted"),
        }
    return values


def build_transtr(parts: dict[str, Values], spec: dict[str, Any], **overrides: Any):
    """A converted model of the fixture's own sizes."""
    made, constructor = spec["text_encoder"], spec["constructor"]
    text = getattr(transformers, made["class"].split(".")[-1]).config_class(**made["config"])
    fields = {
        "text_config": text.to_dict(),
        "num_attention_heads": constructor["nheads"],
        "hidden_dropout_prob": constructor["dropout"],
        "freeze_text_encoder": constructor.get("freeze_text_encoder", False),
        **{name: spec["effective"][name] for name in ("num_frames_kept", "num_objects_kept")},
    }
    copy = {source["path"].split("/")[0] for source in spec["source"]} & {"next", "causalvid", "msvd", "msrvtt"}
    variant = copy.pop() if copy else "next" if spec["num_classes"] is None else "msvd"
    if "candidate_ids" in parts["input"]:
        fields["num_choices"] = parts["input"]["candidate_ids"].shape[1]
    if "topk" in spec:
        fields |= {"topk_samples": spec["topk"]["num_samples"], "topk_sigma": spec["topk"]["sigma"]}
    if "frame_noise" in parts["input"]:
        fields["topk_eval"] = "perturbed"
    return convert_official_checkpoint(parts["state_dict"], "transtr", variant, fields | overrides)


def transtr_inputs(given: Values) -> Values:
    """The fixture's inputs under our argument names."""
    ours = {
        "question_ids": "input_ids", "question_mask": "attention_mask", "candidate_ids": "choice_input_ids",
        "candidate_mask": "choice_attention_mask", "answer": "labels",
    }  # fmt: skip
    return {ours.get(name, name): tensor for name, tensor in given.items()}


def transtr_run(model: torch.nn.Module, inputs: Values) -> tuple[Any, Values]:
    """One forward pass with every intermediate that a fixture may store."""
    seen: dict[str, Any] = {"topk_indices": [], "perturbed_topk": []}
    inputs = dict(inputs)

    def raw_text(groups):  # the published code does not zero the states of padding, so stored values have them
        states = [model.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state for ids, mask in groups]
        seen["text"] = states[0]
        return list(states)

    def spy(name: str):
        function = getattr(selection, name)

        def call(*args: Any, **kwargs: Any) -> Tensor:
            seen[name].append(function(*args, **kwargs))
            return seen[name][-1]

        return patch.object(selection, name, call)

    names = ("obj_resize", "frame_decoder", "obj_decoder", "fo_decoder", "vl_encoder", "ans_decoder")
    handles = [
        getattr(model, name).register_forward_hook(
            lambda _, args, options, out, name=name: seen.update({name: (args, out, options)}), with_kwargs=True
        )
        for name in names
    ]
    with spy("topk_indices"), spy("perturbed_topk"), patch.object(model, "encode_text", raw_text):
        noise = RandomInputs(inputs.pop("frame_noise", None), inputs.pop("object_noise", None))
        with model.fixed_random_inputs(noise):
            out = model(**inputs)
    for handle in handles:
        handle.remove()

    (rows, slots), tokens = out.kept_frames.shape, inputs["input_ids"].shape[1]

    def whole(name: str) -> tuple[Tensor, Tensor]:  # where the choice is hard, our layers finish what is kept alone
        args, _, options = seen[name]
        return getattr(model, name)(*args, **options | {"keep": None})

    early = seen["frame_decoder"][2]["keep"] is not None
    (frames, frame_att), (objects, object_att) = (
        whole(name) if early else seen[name][1] for name in ("frame_decoder", "obj_decoder")
    )
    object_in = seen["obj_resize"][1]
    if len(object_in) == rows * slots:
        object_in = object_in.unflatten(0, (rows, slots))
    else:  # each frame was encoded once, the kept ones were gathered afterwards
        object_in = object_in.unflatten(0, (rows, -1))[torch.arange(rows).unsqueeze(1), out.kept_frames]
    values = {
        "logits": out.logits, "loss": out.loss, "frame_index": out.kept_frames, "object_index": out.kept_objects,
        "q_local": seen["text"], "frame_local": frames, "frame_att": frame_att,
        "frame_local_selected": seen["fo_decoder"][0][0], "object_local_in": object_in,
        "object_local": objects.unflatten(0, (rows, slots)), "object_att": object_att.unflatten(0, (rows, slots)),
        "frame_object": seen["fo_decoder"][1][0], "vl_memory": seen["vl_encoder"][1][0],
        "candidate_cls": seen["ans_decoder"][0][0], "answer_hidden": seen["ans_decoder"][1][0],
    }  # fmt: skip
    if seen["perturbed_topk"]:
        frame, item = (soft.unflatten(1, (-1, tokens)).sum(2) for soft in seen["perturbed_topk"])
        values |= {"frame_selector": frame, "object_selector": item.unflatten(0, (rows, slots))}
    else:
        frame, item = seen["topk_indices"][0], seen["topk_indices"][1].unflatten(0, (rows, slots))
        values |= {"frame_flat_index": frame, "object_flat_index": item}
        values["frame_selector"] = F.one_hot(frame // tokens, frames.shape[1]).transpose(1, 2).float()
        values["object_selector"] = F.one_hot(item // tokens, objects.shape[1]).transpose(2, 3).float()
    return out, {name: value.detach() for name, value in values.items() if value is not None}


def transtr_values(parts: dict[str, Values], spec: dict[str, Any]) -> Values:
    """Our numbers under the names of a TranSTR fixture: a training step, or an evaluation in each slot order."""
    model, inputs, values = build_transtr(parts, spec), transtr_inputs(parts["input"]), {}
    if "answer" not in parts["input"]:
        for prefix, order in ORDERS.items():
            model.config.topk_order = order
            with torch.no_grad():
                values |= {f"{prefix}{name}": value for name, value in transtr_run(model, inputs)[1].items()}
        return values
    model.train()
    for gradient in ("diagonal", "full"):
        model.config.topk_gradient = gradient
        model.zero_grad()
        out, found = transtr_run(model, inputs)
        out.loss.backward()
        values |= found
        values |= {f"grad_{gradient}.{n}": p.grad for n, p in model.named_parameters() if p.grad is not None}
    return values


VALUES = {"transtr": transtr_values, "topk": topk_values}


@cache
def ours(path: Path) -> Values:
    """Our numbers for a fixture."""
    parts, spec = read_fixture(path)
    return VALUES[str(model_kind(spec))](parts, spec)


def check(stored: Values, found: Values, spec: dict[str, Any]) -> None:
    """Every stored output against ours."""
    compare(stored, found, spec, operator=model_kind(spec) == "topk")


SPECS = {path: read_fixture(path)[1] for path in all_fixtures()}
BUILT = [path for path, spec in SPECS.items() if model_kind(spec)]
OTHERS = [path for path, spec in SPECS.items() if not model_kind(spec)]


@pytest.mark.parametrize("path", BUILT, ids=lambda path: path.stem)
def test_model_equals_the_published_one(path: Path) -> None:
    check(read_fixture(path)[0]["output"], ours(path), SPECS[path])


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.stem)
def test_no_fixture_is_overlooked(path: Path) -> None:
    spec = SPECS[path]
    if method := compared_in_test_grounding(spec):
        if not find_spec("tests.parity.test_grounding"):
            pytest.skip(f"{method} is not built yet")
        return
    if kind := evaluator_kind(spec):
        if kind not in COMPARISONS and not find_spec("tests.parity.test_relations"):
            pytest.skip(f"the evaluation of {kind} is not built yet")
        return  # compared in test_evaluators.py or test_relations.py
    pytest.fail(f"{path.name}: no comparison knows a fixture with the fields {sorted(spec)}")


@pytest.mark.parametrize(
    "path", [path for path in BUILT if model_kind(SPECS[path]) == "transtr"], ids=lambda path: path.stem
)
@pytest.mark.parametrize("buckets", [1, 2, 4])
def test_text_buckets_keep_the_published_answers(path: Path, buckets: int) -> None:
    parts, spec = read_fixture(path)
    model = build_transtr(parts, spec, text_length_buckets=buckets).train("answer" in parts["input"])
    with torch.no_grad():
        inputs = transtr_inputs(parts["input"])
        noise = RandomInputs(inputs.pop("frame_noise", None), inputs.pop("object_noise", None))
        with model.fixed_random_inputs(noise):
            logits = model(**inputs).logits
    check({"logits": parts["output"]["logits"]}, {"logits": logits}, spec)


@pytest.mark.parametrize("path", BUILT, ids=lambda path: path.stem)
def test_an_altered_output_is_noticed(path: Path) -> None:
    stored, spec = read_fixture(path)[0]["output"], SPECS[path]
    assert_alterations_are_noticed(stored, lambda altered: check(altered, ours(path), spec))


def test_an_unknown_output_is_noticed() -> None:
    if not BUILT:
        pytest.skip(f"no parity fixtures: set {VARIABLE} to their folder")
    with pytest.raises(AssertionError, match="nobody compares"):
        check({"telepathy": torch.zeros(1)}, ours(BUILT[0]), SPECS[BUILT[0]])


@pytest.mark.slow
def test_the_variable_names_the_folder_and_the_run_fails_where_it_should(tmp_path: Path) -> None:
    if not BUILT:
        pytest.skip(f"no parity fixtures: set {VARIABLE} to their folder")
    path = BUILT[0]
    shutil.copy(path, tmp_path / "renamed.json")
    tensors = load_file(path.with_suffix(".safetensors"))
    name = next(name for name in tensors if name.startswith("output.") and tensors[name].is_floating_point())
    save_file(tensors | {name: tensors[name] * 1.005}, tmp_path / "renamed.safetensors")
    (tmp_path / "mystery.json").write_text('{"name": "mystery"}')
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", __file__, "-kequals or overlooked"],
        env=os.environ | {VARIABLE: str(tmp_path)}, capture_output=True, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert run.returncode == 1 and "2 failed" in run.stdout, run.stdout
    assert "off by" in run.stdout and "mystery.json: no comparison knows" in run.stdout
