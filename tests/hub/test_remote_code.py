"""A pushed model loads and runs where only torch and transformers are, and with the package without being trusted.

Every step is a process of its own (`python test_remote_code.py FOLDER STEP`): the HF libraries read their endpoint
when they are imported, and the bare environment of `bare.py` must not have seen the package.
"""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
BASE, ADAPTERS, PRIVATE = "org/base", "org/adapters", "org/private"
QUESTION, CHOICES = "who is doing jump", ["star", "ring"]
TRACKS = [{"start": 0, "boxes": [[0, 0, 9, 9]] * 40}, {"start": 5, "boxes": [[5, 5, 20, 20]] * 40}]


def chosen_cases():
    """A tiny model of every method, for choices and for open answers, and one over every registered backbone."""
    from hf_causal_video.backbones.base import BACKBONES
    from hf_causal_video.models import BackboneForVideoQuestionAnswering
    from tests.backbones.test_backbones import TINY
    from tests.models.cases import ANSWERS, CASES, FRAME_DIM, TEXT, Case

    found = {}
    for case in CASES:
        found.setdefault((case.model_class, case.open_ended, case.fields.get("rank_by")), case)
    for name in [name for name, kind in BACKBONES.items() if kind.__module__.startswith("hf_causal_video.")]:
        fields = {"text_config": TEXT, "frame_feature_dim": FRAME_DIM, "num_answers": ANSWERS}
        fields |= {"backbone": name, "backbone_config": TINY[name]}
        found[name] = Case(f"backbone-{name}", BackboneForVideoQuestionAnswering, fields, objects=False)
    return list(found.values())


def publish(folder: Path) -> None:
    """Push every case, and keep what it got and gave."""
    import torch
    from safetensors.torch import save_file

    from hf_causal_video.hub import push_checkpoint

    cases = {}
    for name, model, processor, inputs, more in [*_question_models(), *_relation_models()]:
        model.save_pretrained(folder / name)
        processor.save_pretrained(folder / name)
        with torch.no_grad():
            output = model.eval()(**inputs)
        stored = {f"in.{key}": value for key, value in inputs.items()} | more.pop("stored")
        stored |= {
            f"out.{key}": value.contiguous() for key, value in output.items() if isinstance(value, torch.Tensor)
        }
        save_file({key: value.clone() for key, value in stored.items()}, folder / f"{name}.safetensors")
        push_checkpoint(folder / name, f"org/{name}")
        cases[name] = more | {
            "repository": f"org/{name}", "config": type(model.config).__name__, "model": type(model).__name__,
            "processor": type(processor).__name__,
        }  # fmt: skip
    (folder / "cases.json").write_text(json.dumps(cases))
    _publish_adapters(folder, next(name for name in cases if name.startswith("transtr")))


def _question_models():
    import torch

    from hf_causal_video.models import VideoQAProcessor
    from hf_causal_video.worlds import world_tokenizer

    tokenizer = world_tokenizer()
    for case in chosen_cases():
        text = case.fields.get("text_config")
        model = case.build(**({"text_config": {**text, "vocab_size": max(text["vocab_size"], 50)}} if text else {}))
        words = [f"word {i}" for i in range(model.config.num_answers)] if case.open_ended else None
        processor = VideoQAProcessor(tokenizer, words)
        choices = None if case.open_ended else CHOICES
        width = model.config.frame_feature_dim
        ids = processor(QUESTION, choices, frame_features=torch.zeros(9, width))["input_ids"]
        task = "AutoModelForVisualQuestionAnswering" if case.open_ended else "AutoModelForMultipleChoice"
        more = {"question": QUESTION, "choices": choices, "width": width, "tasks": [task], "stored": {"ids": ids}}
        inputs = {key: value for key, value in case.inputs().items() if key != "labels"}
        yield case.name, model, processor, inputs, more


def _relation_models():
    import torch

    from hf_causal_video.models import RELATION_METHODS

    for name, method in RELATION_METHODS.items():
        torch.manual_seed(0)
        model = method.model(method.config(num_object_classes=2, num_predicates=3, hidden_size=8))
        if hasattr(model, "set_predicate_counts"):
            model.set_predicate_counts(torch.tensor([5.0, 2.0, 1.0]), 8)
        processor = method.processor(["dog", "cat"], ["chase", "watch", "bite"])
        inputs = dict(processor(TRACKS, frame_size=(100, 100)))
        yield (
            name,
            model,
            processor,
            inputs,
            {"tracks": TRACKS, "tasks": [], "stored": {"boxes": inputs["track_boxes"]}},
        )


def _publish_adapters(folder: Path, name: str) -> None:
    """Adapters and heads onto a base that is on the Hub, as a LoRA run leaves them; and a private repository."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoModel

    from hf_causal_video.hub import push_checkpoint
    from hf_causal_video.models import VideoQAProcessor
    from hf_causal_video.training.lora import add_lora
    from hf_causal_video.utils.errors import CausalVideoError

    push_checkpoint(folder / name, BASE)
    push_checkpoint(folder / name, PRIVATE, private=True)
    wrapped = add_lora(AutoModel.from_pretrained(BASE), rank=2, alpha=4.0)
    torch.manual_seed(1)
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    run = folder / "lora run"
    wrapped.eval().save_pretrained(run / "adapter")
    VideoQAProcessor.from_pretrained(folder / name).save_pretrained(run)
    stored = load_file(folder / f"{name}.safetensors")
    with torch.no_grad():
        output = wrapped(**{key[3:]: value for key, value in stored.items() if key.startswith("in.")})
    assert not torch.equal(output.logits, stored["out.logits"])
    save_file({"logits": output.logits}, folder / "adapted.safetensors")
    (folder / "adapted.json").write_text(json.dumps({"repository": ADAPTERS, "base": name}))
    for base, words in (("org/nowhere", "cannot be loaded"), (str(folder / name), "the Hub id of the model")):
        with pytest.raises(CausalVideoError, match=words):
            push_checkpoint(run / "adapter", ADAPTERS, base=base)
    pushed = push_checkpoint(run / "adapter", ADAPTERS)
    assert {"adapter_config.json", "adapter_model.safetensors", "processor_config.json"} <= pushed.files.keys()
    assert not {"config.json", "model.safetensors"} & pushed.files.keys()


def load_with_the_package(folder: Path) -> None:
    """The package's own classes win, nobody asks whether to trust, and no remote code is fetched."""
    import torch
    import transformers
    from safetensors.torch import load_file

    import hf_causal_video  # noqa: F401

    def forbid(*_: object, **__: object) -> None:
        raise AssertionError("remote code was asked for")

    transformers.dynamic_module_utils.get_cached_module_file = forbid
    for name, case in json.loads((folder / "cases.json").read_text()).items():
        model = transformers.AutoModel.from_pretrained(case["repository"])
        processor = transformers.AutoProcessor.from_pretrained(case["repository"])
        assert type(model).__module__.startswith("hf_causal_video.") and not model.training
        assert type(processor).__module__.startswith("hf_causal_video.")
        for task in case["tasks"]:
            assert type(getattr(transformers, task).from_pretrained(case["repository"])) is type(model)
        if "question" in case:
            answering = transformers.pipeline("video-question-answering", model=case["repository"])
            assert type(answering.model) is type(model)
        stored = load_file(folder / f"{name}.safetensors")
        with torch.no_grad():
            output = model(**{key[3:]: value for key, value in stored.items() if key.startswith("in.")})
        for key in (key for key in stored if key.startswith("out.")):
            torch.testing.assert_close(output[key[4:]], stored[key], rtol=0, atol=1e-6, msg=f"{name}, {key}")
    name = json.loads((folder / "adapted.json").read_text())["base"]
    model = transformers.AutoModel.from_pretrained(ADAPTERS)  # the one line
    assert type(transformers.AutoProcessor.from_pretrained(ADAPTERS)).__name__ == "VideoQAProcessor"
    stored = load_file(folder / f"{name}.safetensors")
    with torch.no_grad():
        output = model.eval()(**{key[3:]: value for key, value in stored.items() if key.startswith("in.")})
    assert torch.allclose(output.logits, load_file(folder / "adapted.safetensors")["logits"], atol=1e-6)


def refuse_a_stranger(folder: Path) -> None:
    """Without a token a private repository cannot be loaded, nor anything pushed; the words are printed."""
    from transformers import AutoModel

    from hf_causal_video.hub import push_checkpoint
    from hf_causal_video.utils.errors import CausalVideoError

    name = json.loads((folder / "adapted.json").read_text())["base"]
    for attempt in (lambda: AutoModel.from_pretrained(PRIVATE), lambda: push_checkpoint(folder / name, PRIVATE)):
        try:
            attempt()
        except (CausalVideoError, OSError) as error:
            print(f"refused: {' '.join(str(error).split())}")
        else:
            raise AssertionError("not refused")


def run_step(hub, folder: Path, step: str, token: str | None = None) -> str:
    from tests.loopback_hub import run_client

    return run_client(hub, __file__, folder, step, token=token)


@pytest.fixture(scope="module")
def hub():
    from tests.loopback_hub import LoopbackHub

    with LoopbackHub() as hub:
        yield hub


@pytest.fixture(scope="module")
def published(hub, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    run_step(hub, folder, "publish", token=hub.token)
    return folder


def run_bare(hub, folder: Path, step: str, *libraries: str) -> str:
    from tests.hub.bare import make_site
    from tests.loopback_hub import run_client

    client = str(Path(__file__).with_name("bare.py"))
    return run_client(hub, client, folder, step, bare=make_site(folder / f"site of {step}", *libraries))


def test_no_method_is_left_out():
    from hf_causal_video.models import METHODS

    assert {case.model_class for case in chosen_cases()} == {method.model for method in METHODS.values()}


@pytest.mark.slow
def test_every_method_loads_and_runs_where_only_torch_and_transformers_are(hub, published):
    printed = run_bare(hub, published, "load_all", "torch", "transformers")
    for case in json.loads((published / "cases.json").read_text()).values():
        assert f"{case['model']} from transformers_modules.org." in printed


@pytest.mark.slow
def test_adapters_load_in_the_same_line_where_peft_is_the_one_library_more(hub, published):
    run_bare(hub, published, "load_adapters", "torch", "transformers", "peft")


@pytest.mark.slow
def test_with_the_package_its_own_classes_win_and_adapters_load_in_one_line(hub, published):
    run_step(hub, published, "load_with_the_package")


@pytest.mark.slow
def test_a_stranger_is_refused(hub, published):
    before = len(hub.repositories["model", PRIVATE].commits)
    printed = run_step(hub, published, "refuse_a_stranger")
    assert printed.count("refused: ") == 2 and "found no token" in printed and PRIVATE in printed
    assert len(hub.repositories["model", PRIVATE].commits) == before == 2


if __name__ == "__main__":
    globals()[sys.argv[2]](Path(sys.argv[1]))
