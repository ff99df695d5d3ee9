"""A run from the command line to its artefacts, on the confounded world in miniature."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor, BertModel

from hf_causal_video.data import VideoQACollator
from hf_causal_video.features.store.reader import FeatureWriter, Provenance, VideoFeatures
from hf_causal_video.models.loading import weights_digest
from hf_causal_video.models.transtr import TranSTRForVideoQuestionAnswering
from hf_causal_video.training import main, predict
from hf_causal_video.training.checkpoints import checkpoints, exclusive
from hf_causal_video.training.evaluate import evaluate_checkpoint
from hf_causal_video.training.questions.splits import load_split
from hf_causal_video.training.recipe import ConfigParser
from hf_causal_video.utils.errors import CausalVideoError
from hf_causal_video.utils.precision import matmul_precision
from hf_causal_video.worlds import WorldConfig, generate_world, tiny_text_config, world_tokenizer
from tests.training.conftest import TINY, write_recipe

EVERY_3 = ["--save_strategy", "steps", "--eval_strategy", "steps", "--save_steps", "3", "--eval_steps", "3"]
EVERY_3 += ["--save_total_limit", "9"]


def run(recipe: Path, folder: Path, *more: str) -> dict:
    return main(["--config", str(recipe), "--output_dir", str(folder), *more])


def cut_back(finished: Path, folder: Path, last_step: int) -> Path:
    """Copy a finished run as a kill after `last_step` would have left it."""
    keep = [f"checkpoint-{step}" for step in range(3, last_step + 1, 3)]
    folder.mkdir()
    for name in keep:
        shutil.copytree(finished / name, folder / name)
    shutil.copy(finished / "recipe.yaml", folder)
    return folder


def test_a_run_leaves_everything_that_repeats_and_describes_it(finished_run: Path):
    names = {path.name for path in finished_run.iterdir()}
    assert names >= {
        "model.safetensors", "config.json", "processor_config.json", "tokenizer.json", "metrics.json", "recipe.yaml",
        "card_data.json", "predictions", "training_log.jsonl",
    }  # fmt: skip
    assert not [path for path in finished_run.rglob("*.part")]
    metrics = json.loads((finished_run / "metrics.json").read_text())
    assert set(metrics["test"]) == {"iid", "long"} and 0 <= metrics["validation"]["Acc"] <= 100
    card = json.loads((finished_run / "card_data.json").read_text())
    assert {entry["mark"] for entry in card["metrics"]} == {"measured here"}
    assert card["weights"] == weights_digest(finished_run) and card["weights"]
    assert card["seed"] == 1 and card["versions"]["torch"] and card["features"]["frame_dim"] == 8
    log = [json.loads(line) for line in (finished_run / "training_log.jsonl").read_text().splitlines()]
    assert any("loss_answer" in entry for entry in log) and any("eval_accuracy" in entry for entry in log)


def test_matmul_precision_reaches_the_products_and_is_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Products of training and of answering are those of the precision asked for, whatever it is on this machine."""
    x, y = torch.randn(2, 256, 256, generator=torch.Generator().manual_seed(0))
    wanted = {}
    for name in ("highest", "medium"):
        with matmul_precision(name):
            wanted[name] = x @ y
    seen: list[torch.Tensor] = []
    forward = TranSTRForVideoQuestionAnswering.forward
    monkeypatch.setattr(
        TranSTRForVideoQuestionAnswering,
        "forward",
        lambda *args, **inputs: seen.append(x @ y) or forward(*args, **inputs),
    )
    folder = tmp_path / "run"
    main(["--config", str(write_recipe(tmp_path / "a.yaml", num_train_epochs=1)), "--output_dir", str(folder),
          "--matmul_precision", "medium"])  # fmt: skip
    assert len(seen) > 6 and all(torch.equal(product, wanted["medium"]) for product in seen)
    assert torch.equal(x @ y, wanted["highest"])
    seen.clear()
    world = yaml.safe_load((folder / "recipe.yaml").read_text())["world"]
    for name in ("medium", "highest"):
        report = evaluate_checkpoint(folder, "world", "iid", world=world, precision=name, progress=False)
        assert report["matmul_precision"] == name and torch.equal(seen[-1], wanted[name])
    assert torch.equal(x @ y, wanted["highest"])
    with pytest.raises(CausalVideoError, match="unknown matmul_precision.*'low'.*highest, high, medium"):
        evaluate_checkpoint(folder, "world", "iid", world=world, precision="low", progress=False)  # type: ignore[arg-type]


def test_predictions_are_of_the_saved_model_and_give_the_metrics(finished_run: Path):
    recipe = ConfigParser().parse(["--config", str(finished_run / "recipe.yaml"), "--output_dir", "x"])
    questions = load_split(recipe[1], "long")
    model = AutoModel.from_pretrained(finished_run)
    again = predict(model, questions, VideoQACollator(AutoProcessor.from_pretrained(finished_run)), 3, progress=False)
    stored = [json.loads(line) for line in (finished_run / "predictions" / "long.jsonl").read_text().splitlines()]
    assert [row["question_id"] for row in stored] == questions.questions["question_id"]
    for mine, theirs in zip(again, stored, strict=True):
        assert mine["prediction"] == theirs["prediction"] and mine["kept_frames"] == theirs["kept_frames"]
        assert mine["scores"] == pytest.approx(theirs["scores"], abs=1e-5)
    right = [row["prediction"] == answer for row, answer in zip(stored, questions.questions["answer"], strict=True)]
    accuracy = json.loads((finished_run / "metrics.json").read_text())["test"]["long"]["Acc"]
    assert accuracy == pytest.approx(100 * sum(right) / len(right))


def test_the_best_checkpoint_on_validation_is_what_is_saved(finished_run: Path):
    metrics = json.loads((finished_run / "metrics.json").read_text())
    log = [json.loads(line) for line in (finished_run / "training_log.jsonl").read_text().splitlines()]
    validated = {entry["step"]: entry["eval_accuracy"] for entry in log if "eval_accuracy" in entry}
    assert metrics["best"]["value"] == max(validated.values()) == validated[metrics["best"]["step"]]
    assert metrics["validation"]["Acc"] == pytest.approx(metrics["best"]["value"])
    best = load_file(finished_run / f"checkpoint-{metrics['best']['step']}" / "model.safetensors")
    saved = load_file(finished_run / "model.safetensors")
    assert all(torch.equal(saved[name], best[name]) for name in best)


@pytest.mark.parametrize("last_step", [3, 6])  # within an epoch of six steps, and at its end
def test_a_resumed_run_is_bit_identical(finished_run: Path, tiny_recipe: Path, tmp_path: Path, last_step: int):
    folder = cut_back(finished_run, tmp_path / "cut", last_step)
    run(tiny_recipe, folder, "--resume", *EVERY_3)
    for step in range(3, 13, 3):
        name = f"checkpoint-{step}/model.safetensors"
        assert (folder / name).read_bytes() == (finished_run / name).read_bytes()
    assert (folder / "model.safetensors").read_bytes() == (finished_run / "model.safetensors").read_bytes()
    for name in ("iid", "long", "validation"):
        path = f"predictions/{name}.jsonl"
        assert (folder / path).read_bytes() == (finished_run / path).read_bytes()


def test_a_half_written_checkpoint_is_passed_over(finished_run: Path, tiny_recipe: Path, tmp_path: Path):
    folder = cut_back(finished_run, tmp_path / "cut", 9)
    (folder / "checkpoint-9" / "trainer_state.json").write_text('{"epoch": 1.')
    (folder / "checkpoint-6" / "optimizer.pt").unlink()
    metrics = run(tiny_recipe, folder, "--resume", *EVERY_3)
    assert metrics["training"]["resumed_from"] == "checkpoint-3"
    assert (folder / "model.safetensors").read_bytes() == (finished_run / "model.safetensors").read_bytes()


def test_the_same_recipe_gives_the_same_model(finished_run: Path, tmp_path: Path):
    main(["--config", str(finished_run / "recipe.yaml"), "--output_dir", str(tmp_path / "b"), "--use_cpu"])
    assert (tmp_path / "b" / "model.safetensors").read_bytes() == (finished_run / "model.safetensors").read_bytes()


def test_a_folder_that_is_not_empty_is_left_alone(finished_run: Path, tiny_recipe: Path, tmp_path: Path):
    before = (finished_run / "metrics.json").read_bytes()
    with pytest.raises(CausalVideoError, match="not empty.*--resume"):
        run(tiny_recipe, finished_run)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CausalVideoError, match="no run to resume"):
        run(tiny_recipe, tmp_path, "--resume")
    assert (finished_run / "metrics.json").read_bytes() == before and (tmp_path / "notes.txt").read_text() == "mine"


def test_a_finished_run_is_not_trained_again(finished_run: Path, tiny_recipe: Path):
    weights = (finished_run / "model.safetensors").stat().st_mtime_ns
    metrics = run(tiny_recipe, finished_run, "--resume", *EVERY_3)
    assert metrics == json.loads((finished_run / "metrics.json").read_text())
    assert (finished_run / "model.safetensors").stat().st_mtime_ns == weights


def test_a_run_does_not_go_on_under_another_recipe(finished_run: Path, tiny_recipe: Path, tmp_path: Path):
    folder = cut_back(finished_run, tmp_path / "cut", 6)
    with pytest.raises(CausalVideoError, match=r"learning_rate 0\.1.*learning_rate 0\.005"):
        run(tiny_recipe, folder, "--resume", *EVERY_3, "--learning_rate", "0.1")
    assert len(checkpoints(folder)) == 2


@pytest.mark.parametrize("schedule", ["one_cycle", "linear"])
def test_a_finished_run_trains_longer(tiny_recipe: Path, tmp_path: Path, capsys, schedule: str):
    """Half of the run is not repeated, the numbers are those of the longer run, and its recipe repeats its length."""
    folder = tmp_path / "run"
    flags = ["--lr_scheduler_type", schedule]
    run(tiny_recipe, folder, "--num_train_epochs", "1", *flags)
    before = load_file(folder / "checkpoint-6" / "model.safetensors")
    metrics = run(tiny_recipe, folder, "--num_train_epochs", "3", *flags, "--resume")
    assert "training on to 3 epochs instead of 1 epochs" in capsys.readouterr().out
    assert metrics["training"]["steps"] == 18 and metrics["training"]["resumed_from"] == "checkpoint-6"
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    assert yaml.safe_load((folder / "recipe.yaml").read_text())["num_train_epochs"] == 3
    log = [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log if "loss_answer" in line] == list(range(1, 19))
    after = load_file(folder / "checkpoint-18" / "model.safetensors")
    assert any(not torch.equal(before[name], after[name]) for name in before)
    again = run(tiny_recipe, folder, "--num_train_epochs", "3", *flags, "--resume")
    assert again == metrics
    with pytest.raises(CausalVideoError, match="end earlier.*2 epochs.*3 epochs or more"):
        run(tiny_recipe, folder, "--num_train_epochs", "2", *flags, "--resume")
    assert run(tiny_recipe, folder, "--max_steps", "20", *flags, "--resume")["training"]["steps"] == 20


def test_a_second_run_in_the_same_folder_is_refused(tiny_recipe: Path, tmp_path: Path):
    with exclusive(tmp_path / "run"), pytest.raises(CausalVideoError, match="another run writes into"):
        run(tiny_recipe, tmp_path / "run")
    run(tiny_recipe, tmp_path / "run", "--num_train_epochs", "1")
    assert not (tmp_path / "run" / "run.lock").exists()


def test_tensorboard_gets_every_loss_term(tiny_recipe: Path, tmp_path: Path):
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tiny_recipe, tmp_path / "run", "--num_train_epochs", "1", "--report_to", "tensorboard")
    [folder] = (tmp_path / "run" / "runs").iterdir()
    events = EventAccumulator(str(folder))
    events.Reload()
    assert {"train/loss", "train/loss_answer", "eval/accuracy"} <= set(events.Tags()["scalars"])


def test_a_tracker_that_is_not_installed_is_named_before_anything_runs(tiny_recipe: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("hf_causal_video.training.arguments.get_available_reporting_integrations", list)
    with pytest.raises(
        CausalVideoError, match=r"--report_to tensorboard.*pip install 'hf-causal-video\[tensorboard\]'"
    ):
        run(tiny_recipe, tmp_path / "run", "--report_to", "tensorboard")
    assert not (tmp_path / "run").exists()


def test_the_number_of_processes_stays(finished_run: Path, tiny_recipe: Path, tmp_path: Path):
    folder = cut_back(finished_run, tmp_path / "cut", 3)
    for rank in range(2):
        shutil.copy(folder / "checkpoint-3" / "rng_state.pth", folder / "checkpoint-3" / f"rng_state_{rank}.pth")
    (folder / "checkpoint-3" / "rng_state.pth").unlink()
    with pytest.raises(CausalVideoError, match="number of processes"):
        run(tiny_recipe, folder, "--resume", *EVERY_3)
    assert checkpoints(folder)


def test_a_run_killed_after_its_last_epoch_is_only_measured(tiny_recipe: Path, tmp_path: Path):
    """Early stopping ended it; without a look at the stored patience, resuming would train on."""
    flags = ["--learning_rate", "0", "--early_stopping_patience", "1", "--num_train_epochs", "5"]
    run(tiny_recipe, tmp_path / "a", *flags)
    (tmp_path / "b").mkdir()
    for path in [*(tmp_path / "a").glob("checkpoint-*"), tmp_path / "a" / "recipe.yaml"]:
        (shutil.copytree if path.is_dir() else shutil.copy)(path, tmp_path / "b" / path.name)
    metrics = run(tiny_recipe, tmp_path / "b", *flags, "--resume")
    assert metrics["training"]["steps"] == 12 and metrics["best"]["step"] == 6
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()


def test_bf16_trains_on_a_cpu_and_saves_full_precision(tiny_recipe: Path, tmp_path: Path):
    metrics = run(tiny_recipe, tmp_path / "a", "--bf16", "--num_train_epochs", "1")
    assert metrics["training"]["steps"] == 6
    saved = load_file(tmp_path / "a" / "model.safetensors")
    assert all(tensor.isfinite().all() and tensor.dtype == torch.float32 for tensor in saved.values())
    assert json.loads((tmp_path / "a" / "card_data.json").read_text())["precision"] == "bf16"


def text_model(folder: Path) -> Path:
    """A tiny pretrained text encoder with its tokenizer."""
    torch.manual_seed(0)
    BertModel(tiny_text_config(len(world_tokenizer()), hidden_size=16, num_layers=1)).save_pretrained(folder)
    world_tokenizer().save_pretrained(folder)
    return folder


def without_text_config() -> dict:
    return {key: value for key, value in TINY["config_overrides"].items() if key != "text_config"}


def test_lora_adapts_the_text_encoder_and_trains_the_rest(tmp_path: Path):
    folder = text_model(tmp_path / "text")
    recipe = write_recipe(
        tmp_path / "r.yaml", text_model=str(folder), config_overrides=without_text_config(), lora_rank=2,
        test_splits=[],
    )  # fmt: skip
    run(recipe, tmp_path / "a", *EVERY_3)
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "a" / "model.safetensors")
    assert not [name for name in after if "lora" in name or "original_module" in name]
    changed = {name for name in before if name in _text(after) and not torch.equal(before[name], _text(after)[name])}
    assert changed and all(".query." in name or ".value." in name for name in changed)
    difference = _text(after)["encoder.layer.0.attention.self.query.weight"]
    difference = difference - before["encoder.layer.0.attention.self.query.weight"]
    assert torch.linalg.matrix_rank(difference, rtol=1e-4) <= 2
    assert {"adapter_model.safetensors", "adapter_config.json"} <= {p.name for p in (tmp_path / "a/adapter").iterdir()}

    # killed and resumed: the same weights
    resumed = cut_back(tmp_path / "a", tmp_path / "b", 6)
    run(recipe, resumed, "--resume", *EVERY_3)
    assert (resumed / "model.safetensors").read_bytes() == (tmp_path / "a" / "model.safetensors").read_bytes()


def _text(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix("text_encoder."): value for name, value in weights.items() if "text_encoder." in name}


def test_a_frozen_text_encoder_does_not_move(tmp_path: Path):
    folder = text_model(tmp_path / "text")
    changes = {"text_model": str(folder), "config_overrides": without_text_config(), "freeze_text_encoder": True}
    run(write_recipe(tmp_path / "r.yaml", **changes, test_splits=[]), tmp_path / "a", "--num_train_epochs", "1")
    before, after = load_file(folder / "model.safetensors"), _text(load_file(tmp_path / "a" / "model.safetensors"))
    assert after and all(torch.equal(before[name], after[name]) for name in after)


def test_training_goes_on_from_a_checkpoint(finished_run: Path, tmp_path: Path):
    recipe = write_recipe(tmp_path / "r.yaml", config_overrides=None, model_name_or_path=str(finished_run))
    run(recipe, tmp_path / "a", "--num_train_epochs", "1", "--learning_rate", "0", "--weight_decay", "0")
    assert all(
        torch.equal(value, load_file(finished_run / "model.safetensors")[name])
        for name, value in load_file(tmp_path / "a" / "model.safetensors").items()
    )
    wider = write_recipe(
        tmp_path / "w.yaml", config_overrides={"intermediate_size": 24}, model_name_or_path=str(finished_run)
    )
    with pytest.raises(CausalVideoError, match="does not fit the config"):
        run(wider, tmp_path / "w")


def write_dataset(folder: Path, num_choices: int | None = 4, world_seed: int = 0) -> tuple[Path, Path]:
    """The tiny world as a user would have it: a dataset of question rows and a feature set, in folders."""
    config = WorldConfig.selection(
        num_choices=num_choices, num_frames=8, num_objects=3, feature_dim=8, world_seed=world_seed
    )
    (folder / "rows").mkdir(parents=True)
    readme = {"configs": [{"config_name": "questions", "data_files": []}]}
    for split, clips in (("train", 24), ("validation", 10), ("iid", 10)):
        world = generate_world(config, split, clips)
        world.write(folder / "features" / split)
        world.questions.to_parquet(folder / "rows" / f"{split}.parquet")
        readme["configs"][0]["data_files"].append({"split": split, "path": f"rows/{split}.parquet"})
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(readme)}---\n")
    return folder, folder / "features"


@pytest.mark.parametrize("num_choices", [None, 4])
def test_a_dataset_and_feature_sets_in_folders(tmp_path: Path, num_choices: int | None):
    questions, features = write_dataset(tmp_path / "data", num_choices)
    sets = {split: str(features / split) for split in ("train", "validation", "iid")}
    recipe = write_recipe(
        tmp_path / "r.yaml", dataset=str(questions), features=sets, world=None, test_splits=["iid"], num_frames=4
    )  # fmt: skip
    metrics = run(recipe, tmp_path / "a", "--num_train_epochs", "1")
    assert set(metrics["test"]) == {"iid"}
    processor = AutoProcessor.from_pretrained(tmp_path / "a")
    assert processor.tokenizer.unk_token_id not in processor.tokenizer("what colour is the one that is").input_ids
    assert (processor.answer_vocabulary or [None])[-1] in ("white", None)
    lines = (tmp_path / "a" / "predictions" / "iid.jsonl").read_text().splitlines()
    assert {len(json.loads(line)["frame_scores"]) for line in lines} == {4}
    with pytest.raises(CausalVideoError, match="'test'"):
        run(write_recipe(tmp_path / "s.yaml", dataset=str(questions), features=sets, world=None, test_splits=["test"]),
            tmp_path / "s")  # fmt: skip
    del sets["iid"]
    with pytest.raises(CausalVideoError, match="no features for split 'iid'"):
        run(write_recipe(tmp_path / "t.yaml", dataset=str(questions), features=sets, world=None, test_splits=["iid"]),
            tmp_path / "t")  # fmt: skip


@pytest.mark.slow
def test_a_published_recipe_runs_on_files_of_its_benchmark(tmp_path: Path):
    """The sizes are NExT-QA's own; only the text encoder is a small one."""
    card = Provenance("blip", "1", "pooled", 768, "rcnn", "1", "roi", 2048, num_objects=20, sampling="uniform-16")
    header = "video,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4"
    with FeatureWriter(tmp_path / "features", card) as writer:
        for name in ("train", "val", "test"):
            shapes = {"frame_features": (16, 768), "object_features": (16, 20, 2048)}
            tensors = {key: torch.randn(shape) for key, shape in shapes.items()}
            boxes, ones = torch.rand(16, 20, 2).repeat(1, 1, 2), torch.ones(16, 20)
            objects = {"object_boxes": boxes, "object_scores": ones, "object_labels": ones.int()}
            writer.add(VideoFeatures(name, torch.arange(16.0), **tensors, **objects))
            choices = "to eat,to run,to look,to hide,to sit"
            rows = [f"{name},99,64,48,why did it jump,{i},{i},CW,{choices}" for i in range(4)]
            (tmp_path / f"{name}.csv").write_text("\n".join([header, *rows]))
    files = {split: str(tmp_path / f"{name}.csv") for split, name in
             (("train", "train"), ("validation", "val"), ("test", "test"))}  # fmt: skip
    flags = ["--fp16", "false", "--use_cpu", "--disable_tqdm", "true", "--num_train_epochs", "1"]
    flags += ["--per_device_train_batch_size", "2", "--text_model", str(text_model(tmp_path / "text"))]
    flags += ["--dataset", json.dumps(files), "--features", str(tmp_path / "features")]
    metrics = main(["--config", "transtr_nextqa", "--output_dir", str(tmp_path / "a"), *flags])
    assert metrics["test"]["test"]["counts"]["C"]["total"] == 4
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert (config["num_frames_kept"], config["num_objects_kept"], config["rank_by"]) == (12, 5, "prob")
    assert json.loads((tmp_path / "a" / "processor_config.json").read_text())["choice_template"] == "official"


def test_features_of_two_backbones_do_not_mix(tmp_path: Path):
    questions, features = write_dataset(tmp_path / "data")
    other = write_dataset(tmp_path / "other", world_seed=9)[1]  # the same videos, seen by another backbone
    sets = {"train": str(features / "train"), "validation": str(other / "validation")}
    recipe = write_recipe(tmp_path / "r.yaml", dataset=str(questions), features=sets, world=None, test_splits=[])
    with pytest.raises(CausalVideoError, match="seed-9"):
        run(recipe, tmp_path / "a")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"world": {"study": "selection", "clips": 3}}, "clips"),
        ({"world": {"study": "seleciton"}}, "seleciton"),
        ({"test_splits": ["holdout"]}, "holdout"),
        ({"metric_for_best_model": "acuracy"}, "acuracy"),
        ({"config_overrides": {**TINY["config_overrides"], "num_answers": 7}}, "num_answers=7"),
    ],
)
def test_what_a_run_cannot_work_with_is_named(tmp_path: Path, changes: dict, named: str):
    with pytest.raises(CausalVideoError, match="Fix:") as caught:
        run(write_recipe(tmp_path / "r.yaml", **changes), tmp_path / "a")
    assert named in str(caught.value)
    assert not (tmp_path / "a").exists() or not list((tmp_path / "a").iterdir())  # the next try may have the folder
