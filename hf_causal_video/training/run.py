"""One training run from the command line to its artefacts: train, choose on validation, measure once, write it down.

    python -m hf_causal_video.training --config transtr_world --output_dir outputs/world

The saved model is what is measured: it is read back from `output_dir` before it answers. With several processes each
one answers its share, and the first one writes.
"""

import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from pickle import UnpicklingError
from typing import TypedDict, cast

import torch
from accelerate import PartialState
from transformers import PreTrainedModel, ProcessorMixin, set_seed
from transformers.trainer_callback import TrainerState
from transformers.utils.logging import disable_progress_bar

from hf_causal_video.models import RELATION_METHODS
from hf_causal_video.models.loading import weights_digest
from hf_causal_video.training.arguments import CausalVideoTrainingArguments, DataArguments, ModelArguments
from hf_causal_video.training.callbacks import bare_model
from hf_causal_video.training.checkpoints import (
    METRICS_FILE,
    RECIPE_FILE,
    STATE_FILE,
    begin,
    claim_output_dir,
    exclusive,
    stopped_early,
)
from hf_causal_video.training.lora import add_lora
from hf_causal_video.training.questions.task import QuestionTask
from hf_causal_video.training.recipe import ConfigParser, resolved_recipe
from hf_causal_video.training.relations.task import RelationTask
from hf_causal_video.training.tasks import Numbers, Split, Task
from hf_causal_video.training.trainer import CausalVideoTrainer
from hf_causal_video.utils.errors import STOPPED, CausalVideoError, as_message
from hf_causal_video.utils.files import write_whole
from hf_causal_video.utils.precision import Precision, matmul_precision
from hf_causal_video.utils.version import __version__

PACKAGES = ("torch", "transformers", "accelerate", "datasets", "peft", "numpy")


class RunMetrics(TypedDict, total=False):
    """Content of `metrics.json`."""

    validation: Numbers
    test: dict[str, Numbers]  # by split
    best: dict[str, object]  # step, metric and value of the checkpoint
    training: dict[str, object]  # steps, epochs, processes, seconds


def main(argv: Sequence[str] | None = None) -> RunMetrics:
    """Run a recipe.

    Args:
        argv: arguments without the program's name; None takes the command line. `--help` explains them.

    Returns:
        Content of `metrics.json`.

    Raises:
        CausalVideoError: arguments, data or a folder that the run cannot work with.
    """
    model_arguments, data_arguments, arguments = ConfigParser().parse(argv)
    with exclusive(str(arguments.output_dir)), matmul_precision(cast(Precision, arguments.matmul_precision)):
        if model_arguments.method in RELATION_METHODS:
            return _run(RelationTask(), model_arguments, data_arguments, arguments)
        return _run(QuestionTask(), model_arguments, data_arguments, arguments)


def command() -> None:
    """Run the command line of `python -m hf_causal_video.training` and `scripts/train.py`; errors take one line."""
    disable_progress_bar()  # of reading and writing weights; training and answering keep theirs
    try:
        main()
    except (CausalVideoError, OSError) as error:
        sys.exit(f"error: {as_message(error)}")
    except KeyboardInterrupt:
        print(
            "\nstopped by Ctrl-C; the same command with --resume goes on from the newest checkpoint", file=sys.stderr
        )
        sys.exit(STOPPED)
    finally:
        PartialState().destroy_process_group()


def _run(
    task: Task[Split],
    model_arguments: ModelArguments,
    data_arguments: DataArguments,
    arguments: CausalVideoTrainingArguments,
) -> RunMetrics:
    folder = Path(str(arguments.output_dir))
    recipe = resolved_recipe(model_arguments, data_arguments, arguments)
    start = claim_output_dir(folder, recipe, arguments.resume)
    if start.finished:
        print(f"the run in {folder} is finished; its numbers are in {folder / METRICS_FILE}")
        return json.loads((folder / METRICS_FILE).read_text(encoding="utf-8"))
    if start.note and PartialState().is_main_process:
        print(f"note: {start.note}")

    started = time.perf_counter()
    set_seed(arguments.seed)
    train_split = data_arguments.train_split
    validation_split = data_arguments.validation_split
    splits = task.load_splits(data_arguments, [train_split, validation_split, *data_arguments.test_splits])
    train = splits[train_split]
    model, processor = task.build_model(model_arguments, data_arguments, train)
    if model_arguments.lora_rank:
        wrapped = add_lora(model, model_arguments.lora_rank, model_arguments.lora_alpha)
        model = cast(PreTrainedModel, wrapped)  # the wrapper takes its place in all that follows
    collator = task.collator(processor)
    trainer = task.trainer(model, arguments, collator, train, splits[validation_split])
    begin(folder, recipe)
    checkpoint = start.checkpoint
    if checkpoint is not None and stopped_early(checkpoint):  # killed after training, before its numbers were written
        _take_best(trainer, checkpoint)
    else:
        _train(trainer, checkpoint)

    saved = _save(trainer, processor, folder)
    numbers: dict[str, Numbers] = {}
    for name in [validation_split, *data_arguments.test_splits]:
        records = task.predict(saved, splits[name], collator, arguments)
        if trainer.is_world_process_zero():
            lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
            write_whole(folder / "predictions" / f"{name}.jsonl", lines)
            numbers[name] = task.measure(records, splits[name], train)
    state = trainer.state
    metrics: RunMetrics = {"test": {name: numbers[name] for name in data_arguments.test_splits if name in numbers}}
    if validation_split in numbers:
        metrics["validation"] = numbers[validation_split]
    metrics["best"] = {
        "step": state.best_global_step,
        "metric": arguments.metric_for_best_model,
        "value": state.best_metric,
    }
    metrics["training"] = {
        "steps": state.global_step,
        "epochs": state.epoch,
        "processes": arguments.world_size,
        "wall_time_s": round(time.perf_counter() - started, 1),
        "resumed_from": None if checkpoint is None else checkpoint.name,
    }
    if trainer.is_world_process_zero():
        card = _card_data(metrics, model_arguments, data_arguments, arguments, saved)
        write_whole(folder / "card_data.json", json.dumps(card, indent=2, ensure_ascii=False) + "\n")
        write_whole(folder / METRICS_FILE, json.dumps(metrics, indent=2) + "\n")  # last: the run is finished
        _print_summary(metrics, data_arguments, folder, task)
    PartialState().wait_for_everyone()
    return metrics


def _train(trainer: CausalVideoTrainer, checkpoint: Path | None) -> None:
    """Train, from a checkpoint if there is one; torch reads its states without running code in them."""
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except UnpicklingError as error:
        raise CausalVideoError(
            f"checkpoint {checkpoint}",
            found="states that hold more than tensors; nothing of them was run",
            expected="what the run itself wrote",
            fix="do not trust this folder; if the rest of it is yours, delete this checkpoint and resume again",
        ) from error


def _take_best(trainer: CausalVideoTrainer, checkpoint: Path) -> None:
    trainer.state = TrainerState.load_from_json(str(checkpoint / STATE_FILE))
    trainer.state.best_model_checkpoint = str(checkpoint.parent / f"checkpoint-{trainer.state.best_global_step}")
    trainer._load_best_model()


def _save(trainer: CausalVideoTrainer, processor: ProcessorMixin, folder: Path) -> PreTrainedModel:
    """Save the chosen model with its processor, adapters merged into it, and read it back as a user would."""
    model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
    wrapped = model is not bare_model(model)
    if wrapped and trainer.is_world_process_zero():
        model.save_pretrained(folder / "adapter")
    model_class = type(bare_model(model))
    weights = trainer.accelerator.get_state_dict(trainer.model)  # sharded weights are gathered by all processes
    if trainer.is_world_process_zero():
        if wrapped:
            model.merge_and_unload().save_pretrained(folder)
        else:
            model.save_pretrained(folder, state_dict=weights)
        processor.save_pretrained(folder)
        (folder / "predictions").mkdir(exist_ok=True)
    PartialState().wait_for_everyone()
    saved = model_class.from_pretrained(folder)
    saved.to(trainer.args.device)  # type: ignore[arg-type]
    return saved


def _card_data(
    metrics: RunMetrics,
    model_arguments: ModelArguments,
    data_arguments: DataArguments,
    arguments: CausalVideoTrainingArguments,
    model: PreTrainedModel,
) -> dict[str, object]:
    """Collect what a model card says about this run; every number carries its mark."""
    measured = [(data_arguments.validation_split, "validation", metrics["validation"])]
    measured += [(name, "test", numbers) for name, numbers in metrics["test"].items()]
    text = getattr(model.config, "text_config", None)
    return {
        "method": model_arguments.method,
        "preset": model_arguments.preset,
        "text_encoder": model_arguments.text_model or (f"new {text.model_type}" if text is not None else None),
        "dataset": data_arguments.dataset,
        "features": getattr(model.config, "feature_provenance", None),
        "tracks": getattr(model.config, "trajectory_provenance", None),
        "parameters": model.num_parameters(),
        "metrics": [
            {"split": split, "role": role, "name": name, "value": value, "unit": "percent", "mark": "measured here"}
            for split, role, numbers in measured
            for name, value in numbers.items()
            if isinstance(value, float)
        ],
        "chosen_by": f"{arguments.metric_for_best_model} on {data_arguments.validation_split}",
        "seed": arguments.seed,
        "training": metrics["training"],
        "precision": arguments.mixed_precision,
        "matmul_precision": arguments.matmul_precision,
        "hardware": torch.cuda.get_device_name() if arguments.device.type == "cuda" else f"{os.cpu_count()} CPU cores",
        "versions": {
            "hf_causal_video": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
        "recipe": RECIPE_FILE,
        "weights": weights_digest(str(arguments.output_dir)),
    }


def _print_summary(metrics: RunMetrics, data: DataArguments, folder: Path, task: Task[Split]) -> None:
    print(f"\nbest checkpoint: step {metrics['best']['step']}, chosen on {data.validation_split}")
    for name, numbers in {data.validation_split: metrics["validation"], **metrics["test"]}.items():
        print(f"  {name:<14} {task.headline(numbers)}   (measured here)")
    print(f"model, processor, predictions, {METRICS_FILE}, card_data.json and {RECIPE_FILE} are in {folder}")
