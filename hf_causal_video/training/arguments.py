"""Arguments of a training run: three dataclasses whose fields are the flags and the keys of a recipe.

Why: a published number is only as good as its recipe, so each setting that can change a number is here, once.
"""

import json
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.integrations import get_available_reporting_integrations
from transformers.trainer_utils import SchedulerType

from hf_causal_video.models import METHODS, RELATION_METHODS
from hf_causal_video.training.overrides import check_overrides
from hf_causal_video.utils.checks import check_choice, check_number, check_whole
from hf_causal_video.utils.errors import CausalVideoError, require
from hf_causal_video.utils.precision import PRECISIONS

KNOWN_METHODS = METHODS | RELATION_METHODS

OWN_SCHEDULES = ("multistep", "one_cycle")
SCHEDULES = (*OWN_SCHEDULES, *(schedule.value for schedule in SchedulerType if schedule.value != "greedy"))
# What must hold for a run to be what it says it is: `name: (value, why)`.
FIXED = {
    "remove_unused_columns": (False, "the collator needs every column"),
    "logging_nan_inf_filter": (False, "a loss that is not finite stops the run"),
    "restore_callback_states_from_checkpoint": (True, "early stopping counts on after --resume"),
    "label_smoothing_factor": (0.0, "the model computes its own loss"),
    "save_only_model": (False, "a run could not be resumed"),
    "ignore_data_skip": (False, "a resumed run would see other batches"),
    "auto_find_batch_size": (False, "the batch size is part of the recipe"),
    "prediction_loss_only": (False, "the checkpoint is chosen by its answers"),
    "load_best_model_at_end": (True, "what is saved is what validated best"),
    "push_to_hub": (False, "publish the finished run with `hf-causal-video push`"),
    "hub_token": (None, "a run needs none, and would store it with its checkpoints; log in with `hf auth login`"),
}


def _field(default: object, help: str, **metadata: object) -> Any:
    return field(default=default, metadata={"help": help, **metadata})


@dataclass
class ModelArguments:
    """Which network is trained, and from where it starts."""

    _argument_group_name = "model"

    method: str = _field("transtr", f"Method to train: {', '.join(KNOWN_METHODS)}.")
    preset: str = _field(
        "clean", "Named settings of the method: 'clean' (ours) or 'official-<dataset>' (as published)."
    )
    model_name_or_path: str | None = _field(
        None, "Continue from this checkpoint (folder or Hub id); the preset and text_model are then not used."
    )
    text_model: str | None = _field(
        None,
        "Text encoder to start from (folder or Hub id, such as microsoft/deberta-base). None: a new small one with a "
        "word vocabulary made of the training questions; its sizes go to config_overrides.text_config.",
    )
    choice_template: str | None = _field(
        None,
        "How question and choice become one text: 'pair', 'choice' or 'official' (see VideoQAProcessor). None: "
        "'official' in the official presets, else 'pair'.",
    )
    config_overrides: dict[str, object] | str | None = _field(
        None,
        "Fields of the method's config that replace the preset's: a mapping in YAML, JSON text as a flag, which "
        "replaces the recipe's whole mapping.",
    )
    freeze_text_encoder: bool = _field(False, "Do not train the text encoder.")
    lora_rank: int = _field(
        0, "Rank of LoRA adapters on the text encoder's query and value; 0 trains the encoder itself. Needs peft."
    )
    lora_alpha: float = _field(16.0, "Scale of LoRA: the update is multiplied by lora_alpha / lora_rank.")

    def __post_init__(self):
        self.config_overrides = _mapping("config_overrides", self.config_overrides)
        check_choice("method", self.method, KNOWN_METHODS)
        presets = KNOWN_METHODS[self.method].config.presets()
        if self.model_name_or_path is None:
            check_choice(f"preset of {self.method}", self.preset, presets)
        preset = self.preset if self.model_name_or_path is None else None
        check_overrides(KNOWN_METHODS[self.method].config, preset, self.overrides, self.text_model)
        check_whole("lora_rank", self.lora_rank, 0, fix="use 0 to turn LoRA off")
        require(
            not self.lora_rank or not self.freeze_text_encoder,
            "the text encoder cannot be both frozen and adapted",
            found=f"freeze_text_encoder=True and lora_rank={self.lora_rank}",
            expected="one of them",
            fix="drop freeze_text_encoder: LoRA already freezes the encoder's own weights",
        )
        require(
            not self.model_name_or_path or not self.text_model,
            "two places to start from",
            found=f"model_name_or_path={self.model_name_or_path!r} and text_model={self.text_model!r}",
            expected="one of them",
            fix="a checkpoint brings its own text encoder: drop text_model",
        )

    @property
    def overrides(self) -> dict[str, object]:
        """`config_overrides` as the mapping that it is after parsing."""
        assert isinstance(self.config_overrides, dict)
        return self.config_overrides


@dataclass
class DataArguments:
    """Which questions, which features, and how much of them."""

    _argument_group_name = "data"

    dataset: dict[str, str] | str | None = _field(
        None,
        "'world' (the confounded world, made on the spot), a folder or Hub id with a 'questions' config, or a "
        'mapping from split to NExT-QA csv file: \'{"train": "train.csv", "validation": "val.csv"}\'.',
    )
    annotations: str | None = _field(
        None,
        "Folder of the official files of the benchmark that dataset names: nextqa, nextqa-oe, nextgqa, msvdqa, "
        "msrvttqa, causalvidqa, tgifqa-frameqa, ... (data.BENCHMARKS).",
    )
    answer_vocabulary: str | None = _field(
        None,
        "Answers of an open-ended benchmark: a JSON list, or how many of the most frequent training answers. "
        "None: the published list in the folder of annotations.",
    )
    features: dict[str, str] | str | None = _field(
        None, "Feature set (folder or Hub id) of all splits, or a mapping from split to feature set."
    )
    text_features: dict[str, str] | str | None = _field(
        None,
        "Token features in place of a text encoder, for igv, eigv and video_qa_backbone: a safetensors file of all "
        "splits, or a mapping from split to file, with the tensors QUESTION_ID/question (L, D) and "
        "QUESTION_ID/choices/0, /1, ... (L, D).",
    )
    train_split: str = _field("train", "Split to learn from.")
    validation_split: str = _field("validation", "Split that chooses the checkpoint and stops early.")
    test_splits: list[str] = field(
        default_factory=list, metadata={"help": "Splits measured once, at the end, with the chosen checkpoint."}
    )
    num_frames: int | None = _field(None, "Frames of each clip to take, evenly spaced. None: all stored frames.")
    max_length: int | None = _field(
        None, "Longest text in tokens, question and choice together; a longer one is an error. None: the processor's."
    )
    world: dict[str, object] | str | None = _field(
        None,
        "Options of the confounded world: study (selection, grounding or rendered), train_clips, eval_clips, seed "
        "(default: that of the run), and any field of data.WorldConfig. For a relation method: train_pairs, "
        "eval_pairs, seed, and any field of data.relation_world.RelationWorldConfig. A flag replaces the recipe's "
        "whole mapping.",
    )
    relations: dict[str, object] | str | None = _field(
        None,
        "Options of a relation method, whose `dataset` maps splits to annotations (a folder of VidVRD or VidOR json, "
        "PATH[10%%:] for a part of its videos) and whose `features` to tracks (none: the annotated tracks): reader "
        "(annotations or jaad), segment_frames, segment_stride, appearance, positive, negative, min_overlap, "
        "max_pairs, inclusive.",
    )

    def __post_init__(self):
        for name in ("dataset", "features", "text_features"):
            if str(getattr(self, name)).startswith("{"):
                setattr(self, name, _mapping(name, getattr(self, name)))
        self.world = _mapping("world", self.world)
        self.relations = _mapping("relations", self.relations)
        expected = "'world', a folder, a Hub id, or csv files by split"
        require(self.dataset, "no dataset", found=self.dataset, expected=expected, fix="add --dataset NAME")
        has_features = self.dataset == "world" or self.features or self.relations
        fix = "add --features FOLDER_OR_HUB_ID"
        require(has_features, "no features", found=self.features, expected="a feature set", fix=fix)
        require(
            (not self.features or self.dataset != "world") and (not self.world or self.dataset == "world"),
            "options that contradict each other",
            found=f"dataset={self.dataset!r}, features={self.features!r}, world={self.world!r}",
            expected="features with a dataset of videos, world with dataset 'world'",
            fix="remove the one that does not belong",
        )
        splits = [self.train_split, self.validation_split, *self.test_splits]
        require(
            len(set(splits)) == len(splits),
            "a split has two roles",
            found=lambda: f"train {splits[0]!r}, validation {splits[1]!r}, test {splits[2:]}",
            expected="different splits: what chooses a checkpoint is never reported as its test",
            fix="name every split once",
        )

    @property
    def world_options(self) -> dict[str, object]:
        """`world` as the mapping that it is after parsing."""
        assert isinstance(self.world, dict)
        return self.world

    @property
    def relation_options(self) -> dict[str, object]:
        """`relations` as the mapping that it is after parsing."""
        assert isinstance(self.relations, dict)
        return self.relations


@dataclass
class CausalVideoTrainingArguments(TrainingArguments):
    """The Trainer's arguments with our defaults: every epoch ends in validation, the best checkpoint is kept."""

    _argument_group_name = "training"

    eval_strategy: str = _field("epoch", "When to validate.", choices=["epoch", "steps"])
    save_strategy: str = _field("epoch", "When to save a checkpoint.", choices=["epoch", "steps", "best"])
    save_total_limit: int | None = _field(2, "Checkpoints to keep: the best and the newest.")
    logging_steps: float = _field(50, "Log every so many steps (below 1: this share of all steps).")
    load_best_model_at_end: bool = _field(True, f"Fixed: {FIXED['load_best_model_at_end'][1]}.")
    metric_for_best_model: str | None = _field("accuracy", "Validation metric that chooses the checkpoint.")
    remove_unused_columns: bool = _field(False, f"Fixed: {FIXED['remove_unused_columns'][1]}.")
    logging_nan_inf_filter: bool = _field(False, f"Fixed: {FIXED['logging_nan_inf_filter'][1]}.")
    restore_callback_states_from_checkpoint: bool = _field(
        True, f"Fixed: {FIXED['restore_callback_states_from_checkpoint'][1]}."
    )
    lr_scheduler_type: str = _field(
        "linear",
        "Schedule of all learning rates; options in lr_scheduler_kwargs: reduce_lr_on_plateau {factor, patience} of "
        "the validation metric, multistep {milestones in epochs, gamma}, one_cycle {pct_start, div_factor, ...}.",
        choices=list(SCHEDULES),
    )
    text_encoder_learning_rate: float | None = _field(None, "Learning rate of the text encoder. None: learning_rate.")
    decay_biases_and_norms: bool = _field(
        False, "Apply weight_decay to biases and normalisation too (as published), not to matrices only."
    )
    matmul_precision: str = _field(
        "highest",
        "Precision of float32 matrix products: 'highest' is float32, 'high' TF32 on a GPU, 'medium' bfloat16 on a CPU "
        "with AMX. Weights, gradients and everything else stay float32.",
        choices=list(PRECISIONS),
    )
    early_stopping_patience: int | None = _field(
        None, "Stop after this many validations without a better one. None: never."
    )
    dataloader_pin_memory: bool = _field(torch.accelerator.is_available(), "Copy batches through pinned memory.")
    resume: bool = _field(False, "Go on from the newest complete checkpoint in output_dir.")

    def __post_init__(self):
        for name, (value, why) in FIXED.items():
            current = getattr(self, name)
            shown = "a token" if name == "hub_token" else current
            require(current == value, f"{name} cannot be changed", found=shown, expected=value, fix=f"leave it: {why}")
        for name in ("learning_rate", "text_encoder_learning_rate", "weight_decay", "num_train_epochs"):
            if (value := getattr(self, name)) is not None:
                check_number(name, float(value), 0, fix=f"correct --{name}")
        require(
            self.max_steps != 0 and self.per_device_train_batch_size >= 1,
            "nothing to train",
            found=f"max_steps={self.max_steps}, per_device_train_batch_size={self.per_device_train_batch_size}",
            expected="max_steps of -1 (all epochs) or 1 and more, batches of 1 and more",
            fix="change them",
        )
        fix = "add --output_dir outputs/NAME"
        require(self.output_dir is not None, "no output_dir", found=None, expected="a folder", fix=fix)
        schedule = str(getattr(self.lr_scheduler_type, "value", self.lr_scheduler_type))
        check_choice("schedule", schedule, SCHEDULES)
        self.lr_scheduler_type = "constant" if schedule in OWN_SCHEDULES else schedule
        if self.bf16 and not torch.accelerator.is_available():
            self.use_cpu = True  # the parent refuses bf16 on a CPU that was not asked for by name
        super().__post_init__()
        self.lr_scheduler_type = schedule
        trackers = [self.report_to] if isinstance(self.report_to, str) else self.report_to or []
        for name in trackers:
            require(
                name in get_available_reporting_integrations(),
                f"--report_to {name}",
                found=f"{name} is unknown or not installed",
                expected="none, or a tracker that is installed",
                fix="pip install 'hf-causal-video[tensorboard]'" if name == "tensorboard" else f"pip install {name}",
            )
        self.label_names = ["labels"]
        precision = "fp16" if self.fp16 else "bf16" if self.bf16 else "no"
        require(
            self.mixed_precision == precision,
            "the launcher and the recipe disagree about precision",
            found=f"{self.mixed_precision} from accelerate, {precision} from the arguments",
            expected="the recipe to say it, so that the run can be repeated",
            fix=f"add --{self.mixed_precision}, or set mixed_precision to no in accelerate's configuration",
        )


def _mapping(name: str, value: Any) -> dict[str, object]:
    """A mapping as a recipe (dict) or the command line (JSON text) states it; None is an empty one."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            pass
    if value is None or isinstance(value, dict):
        return value or {}
    fix = f"write {name}: {{key: value}} in the recipe, or --{name} '{{\"key\": value}}'"
    raise CausalVideoError(f"{name} is not a mapping", found=repr(value), expected="key: value pairs", fix=fix)
