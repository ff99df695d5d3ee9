"""A confounded world so small that a whole run takes seconds, and ways to start one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.training.warm import Warm

TINY = {
    "method": "transtr",
    "config_overrides": {
        "text_config": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16},
        "hidden_size": 16,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "num_frames_kept": 2,
        "num_objects_kept": 2,
        "topk_samples": 8,
    },
    "dataset": "world",
    "world": {
        "study": "selection", "train_clips": 48, "eval_clips": 20, "num_choices": 4, "num_frames": 8, "num_objects": 3,
        "feature_dim": 8,
    },
    "test_splits": ["iid", "long"],
    "num_train_epochs": 2,
    "per_device_train_batch_size": 8,
    "per_device_eval_batch_size": 8,
    "learning_rate": 5e-3,
    "lr_scheduler_type": "one_cycle",
    "logging_steps": 2,
    "seed": 1,
    "disable_tqdm": True,
    "use_cpu": True,
}  # fmt: skip


def write_recipe(path: Path, **changes: object) -> Path:
    """Write the tiny recipe with some keys changed; None removes a key."""
    values = {key: value for key, value in {**TINY, **changes}.items() if value is not None}
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny recipe as a file."""
    return write_recipe(tmp_path_factory.mktemp("recipes") / "tiny.yaml")


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Path) -> Path:
    """The folder of one finished run, with a checkpoint every three of its twelve steps. Read it, never write it."""
    from hf_causal_video.training import main

    folder = tmp_path_factory.mktemp("runs") / "finished"
    every = ["--save_strategy", "steps", "--eval_strategy", "steps", "--save_steps", "3", "--eval_steps", "3"]
    main(["--config", str(tiny_recipe), "--output_dir", str(folder), "--save_total_limit", "9", *every])
    return folder


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """A process that has imported everything, for runs in processes of their own."""
    process = Warm(tmp_path_factory.mktemp("warm") / "log.txt")
    yield process
    process.close()
