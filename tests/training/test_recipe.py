"""A recipe sets defaults, the command line overrides them, and nothing is misread in silence."""

import json
from dataclasses import asdict, fields
from importlib.resources import files
from pathlib import Path

import pytest
import torch
import yaml

from hf_causal_video.models import METHODS, RELATION_METHODS
from hf_causal_video.training import ConfigParser, read_recipe
from hf_causal_video.training.arguments import CausalVideoTrainingArguments, DataArguments, ModelArguments
from hf_causal_video.training.questions.splits import load_split
from hf_causal_video.training.recipe import resolved_recipe
from hf_causal_video.utils.errors import CausalVideoError
from tests.training.conftest import write_recipe

PACKAGED = sorted(
    entry.name.removesuffix(".yaml")
    for entry in (files("hf_causal_video.training") / "recipes").iterdir()
    if entry.name.endswith(".yaml")
)


def parse(*argv: str) -> tuple[ModelArguments, DataArguments, CausalVideoTrainingArguments]:
    return ConfigParser().parse([*argv, "--output_dir", "out"])


def test_flags_override_the_recipe_and_the_recipe_the_defaults(tiny_recipe: Path):
    _, _, training = parse("--config", str(tiny_recipe), "--learning_rate", "1e-4", "--seed=7")
    assert (training.learning_rate, training.seed, training.num_train_epochs) == (1e-4, 7, 2)


@pytest.mark.parametrize("text", ["1e-3", "0.001", "1.0e-3"])
def test_numbers_in_scientific_notation_are_numbers(tmp_path: Path, text: str):
    path = tmp_path / "r.yaml"
    path.write_text(f"dataset: world\nlearning_rate: {text}\nwarmup_steps: 0\n")
    assert parse("--config", str(path))[2].learning_rate == 1e-3


def test_mappings_come_from_yaml_and_from_json(tiny_recipe: Path):
    from_yaml = parse("--config", str(tiny_recipe))[0].config_overrides
    from_json = parse("--dataset", "world", "--config_overrides", '{"hidden_size": 16}')[0].config_overrides
    assert from_yaml["hidden_size"] == from_json["hidden_size"] == 16


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ("learnign_rate: 1.0", "learning_rate"),  # unknown key, with the likely one
        ("learning_rate: true", "learning_rate"),
        ("learning_rate: [1, 2]", "learning_rate"),
        ("fp16: 1", "fp16"),
        ("fp16: 'yes'", "fp16"),
        ("seed:", "seed"),
        ("test_splits: iid", "test_splits"),
        ("seed: 1\nseed: 2", "seed"),
        ("- a list", "list"),
        ("seed: {a: 1}", "seed"),
        ("config_overrides: 3", "config_overrides"),
        ("lr_scheduler_type: sawtooth", None),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, lines: str, named: str | None):
    path = tmp_path / "r.yaml"
    path.write_text(lines if lines.startswith("-") else f"dataset: world\n{lines}\n")
    with pytest.raises((CausalVideoError, SystemExit)) as caught:
        parse("--config", str(path))
    assert named is None or named in str(caught.value)


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--dataset", "world", "--learning-rat", "1"], "learning_rate"),
        (["--config", "transtr_nxtqa"], "transtr_nextqa"),
        (["--config", "transtr_world", "--config", "transtr_world"], "one --config"),
        ([], "--dataset"),
        (["--dataset", "folder"], "--features"),
        (["--dataset", "world", "--features", "folder"], "world"),
        (["--dataset", "world", "--test_splits", "validation"], "two roles"),
        (["--dataset", "world", "--train_split", "validation"], "two roles"),
        (["--dataset", "world", "--world", "{'a': 1}"], "key: value"),
        (["--dataset", "world", "--lora_rank", "4", "--freeze_text_encoder"], "LoRA"),
        (["--dataset", "world", "--text_model", "a", "--model_name_or_path", "b"], "one of them"),
        (["--dataset", "world", "--remove_unused_columns"], "remove_unused_columns"),
        (["--dataset", "world", "--logging_nan_inf_filter"], "logging_nan_inf_filter"),
        (["--dataset", "world", "--push_to_hub"], "hf-causal-video push"),
        (["--dataset", "world", "--no_load_best_model_at_end"], "load_best_model_at_end"),
        (["--dataset", "world", "--auto_find_batch_size"], "auto_find_batch_size"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(argv: list[str], named: str):
    with pytest.raises(CausalVideoError, match="Fix:") as caught:
        parse(*argv)
    assert named in str(caught.value)


def test_precision_is_said_by_the_recipe(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with pytest.raises(CausalVideoError, match="--bf16"):
        parse("--dataset", "world")
    assert parse("--dataset", "world", "--bf16")[2].bf16


def test_output_dir_is_asked_for():
    with pytest.raises(CausalVideoError, match="output_dir"):
        ConfigParser().parse(["--dataset", "world"])


def test_help_explains_every_argument_of_ours(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        ConfigParser().parse(["--help"])
    shown = capsys.readouterr().out
    assert caught.value.code == 0 and "examples:" in shown and "--config RECIPE" in shown
    for argument in [*fields(ModelArguments), *fields(DataArguments)]:
        assert f"--{argument.name}" in shown and argument.metadata["help"]


@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_recipes_name_a_preset_and_parse(name: str):
    given = [] if read_recipe(name).get("dataset") == "world" else ["--features", "features"]
    if "dataset" not in read_recipe(name):
        given += ["--dataset", "questions"]
    model, _, training = parse("--config", name, *given, "--fp16", "false")
    config_class = {**METHODS, **RELATION_METHODS}[model.method].config
    overrides = {key: value for key, value in model.overrides.items() if key != "text_config"}
    assert config_class.preset(model.preset, **overrides)
    assert training.learning_rate < 1e-2


@pytest.mark.parametrize(
    ("name", "kept", "rates", "schedule", "batch", "epochs"),
    [
        ("transtr_nextqa", (12, 5), (1e-5, 5e-6), "reduce_lr_on_plateau", 32, 15),
        ("transtr_causalvidqa", (12, 5), (1e-5, 5e-6), "reduce_lr_on_plateau", 32, 15),
        ("transtr_msvdqa", (2, 3), (1e-4, 1e-5), "constant", 256, 12),
        ("transtr_msrvttqa", (5, 1), (1e-4, 1e-5), "multistep", 128, 12),
    ],
)
def test_published_settings(name, kept, rates, schedule, batch, epochs):
    model, _, training = parse("--config", name, "--dataset", "q", "--features", "f", "--fp16", "false")
    config = METHODS["transtr"].config.preset(model.preset)
    assert (config.num_frames_kept, config.num_objects_kept) == kept
    assert (training.learning_rate, training.text_encoder_learning_rate) == rates
    assert (training.lr_scheduler_type, training.per_device_train_batch_size) == (schedule, batch)
    assert training.num_train_epochs == epochs
    assert (training.weight_decay, training.max_grad_norm, training.seed) == (1e-3, 0.0, 999)


@pytest.mark.parametrize(
    ("name", "rate", "decay", "batch", "epochs"),
    [
        ("igv_msvdqa_hga", 1e-4, 0.0, 256, 60),
        ("igv_msrvttqa_hga", 1e-4, 0.0, 256, 40),
        ("eigv_nextqa_hga", 5e-5, 0.0, 128, 35),
        ("eigv_nextqa_comem", 5e-5, 0.0, 128, 35),
        ("eigv_nextqa_mspan", 5e-5, 0.0, 128, 35),
        ("eigv_msvdqa_hga", 1e-4, 0.0, 256, 100),
        ("eigv_msvdqa_comem", 1e-4, 0.0, 256, 100),
        ("eigv_msvdqa_mspan", 1e-4, 5e-6, 128, 45),
        ("eigv_msrvttqa_hga", 1e-4, 0.0, 256, 70),
        ("eigv_msrvttqa_comem", 1e-4, 0.0, 256, 100),
        ("eigv_msrvttqa_mspan", 1e-4, 5e-6, 128, 40),
    ],
)
def test_published_settings_of_grounding(name, rate, decay, batch, epochs):
    """As the tables of the released scripts state them; the preset is the recipe's own combination."""
    model, data, training = parse("--config", name, "--features", "f", "--annotations", "a")
    method, dataset, backbone = name.split("_")
    assert (model.method, model.preset, data.dataset) == (method, f"official-{dataset}-{backbone}", dataset)
    assert METHODS[method].config.preset(model.preset).backbone == backbone
    assert (training.learning_rate, training.weight_decay) == (rate, decay)
    assert (training.per_device_train_batch_size, training.num_train_epochs) == (batch, epochs)
    assert (training.lr_scheduler_type, training.lr_scheduler_kwargs) == (
        "reduce_lr_on_plateau", {"factor": 0.5, "patience": 5},
    )  # fmt: skip
    assert (training.max_grad_norm, training.seed) == (0.0, 999)


def test_a_resolved_recipe_repeats_the_run(tmp_path: Path):
    path = write_recipe(
        tmp_path / "r.yaml", lr_scheduler_type="multistep", lr_scheduler_kwargs={"milestones": [1], "gamma": 0.5},
        text_encoder_learning_rate=1e-5, early_stopping_patience=2, bf16=True, max_grad_norm=0.0,
    )  # fmt: skip
    first = parse("--config", str(path), "--gradient_accumulation_steps", "2")
    resolved = resolved_recipe(*first)
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(resolved))
    second = parse("--config", str(tmp_path / "again.yaml"))
    assert resolved_recipe(*second) == resolved
    assert asdict(first[0]) == asdict(second[0]) and asdict(first[1]) == asdict(second[1])
    for name in ("learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "bf16", "gradient_accumulation_steps"):
        assert getattr(first[2], name) == getattr(second[2], name)
    assert "output_dir" not in resolved and "use_cpu" not in resolved


@pytest.mark.parametrize("name", ["transtr_world", "igv_world"])
def test_another_seed_is_another_world(name: str) -> None:
    """Seeds of a packaged recipe are independent repetitions: other clips, and other vectors for the same words."""

    def world(*flags: str) -> tuple[str, torch.Tensor]:
        _, data, _ = parse("--config", name, *flags)
        data.world = {**data.world_options, "train_clips": 4}
        split = load_split(data, "train")
        frames = torch.stack([split[index]["frame_features"].float().mean(0) for index in range(4)])
        return split[0]["video_id"], frames

    (first, frames), (_, again), (other, others) = world(), world("--seed", "0"), world("--seed", "1")
    assert torch.equal(frames, again) and not torch.allclose(frames, others, atol=0.05)
    assert first != other
    studied = json.dumps({"study": "grounding", "seed": 5})
    _, data, _ = parse("--config", name, "--world", studied, "--seed", "1")
    assert data.world_options["seed"] == 5
    assert load_split(data, "iid").store.provenance.frame_revision == "seed-5"
