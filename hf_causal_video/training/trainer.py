"""The Trainer for causal video models: parameter groups, every loss term in the log, validation that only chooses.

What differs from `transformers.Trainer`: the text encoder may learn at its own rate; a loss that is not finite stops
the run and names the questions; checkpoints whose weights do not fit are an error; evaluation gathers answers only.
"""

import math
from collections.abc import Mapping, Sequence, Sized
from typing import Any, cast

import torch
from accelerate import FullyShardedDataParallelPlugin
from torch import Tensor, nn
from torch.nn.modules.module import _IncompatibleKeys
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import (
    EarlyStoppingCallback,
    EvalPrediction,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from hf_causal_video.models.transtr import TranSTRForVideoQuestionAnswering
from hf_causal_video.training.arguments import CausalVideoTrainingArguments
from hf_causal_video.training.callbacks import (
    BestCheckpoint,
    Collator,
    FillBank,
    IndependentNoise,
    SigmaAnnealing,
    TrainingProgress,
    bare_model,
    drop_lone_sample,
    with_video_ids,
)
from hf_causal_video.training.schedules import build_schedule
from hf_causal_video.training.step_log import StepLog
from hf_causal_video.utils.checks import check_choice
from hf_causal_video.utils.errors import CausalVideoError, require


class NamedBatches:
    """A collator that keeps the question ids of its batch under `question_ids`, and names them in its errors."""

    def __init__(self, collator: Collator):
        self.collator = collator

    def __call__(self, items: Sequence[dict]) -> dict:
        ids = [item["question_id"] for item in items]
        try:
            return {**self.collator(items), "question_ids": ids}
        except CausalVideoError as error:
            raise named(error, ids) from error


def named(error: CausalVideoError, ids: Sequence[str]) -> CausalVideoError:
    """The error, with the questions of the batch that it is about."""
    what = f"{error.what}, in the batch of questions {list(ids)}"
    return CausalVideoError(what, found=error.found, expected=error.expected, fix=error.fix)


def answer_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Accuracy in percent and mean cross-entropy of answers.

    An answer that cannot be given (outside an open-ended vocabulary) counts as wrong, and has no cross-entropy.

    Args:
        prediction: logits (n, A) and labels (n,).

    Example:
        >>> scores = torch.tensor([[2.0, 0.0], [0.0, 2.0], [0.0, 2.0], [2.0, 0.0]]).numpy()
        >>> answer_metrics(EvalPrediction(scores, torch.tensor([0, 1, 0, -100]).numpy()))["accuracy"]
        50.0
    """
    logits = torch.as_tensor(prediction.predictions).float()
    labels = torch.as_tensor(prediction.label_ids)
    known = (labels >= 0) & (labels < logits.shape[-1])
    accuracy = 100.0 * (logits.argmax(-1) == labels).double().mean().item()
    if not known.any():
        return {"accuracy": accuracy}
    return {"accuracy": accuracy, "loss": nn.functional.cross_entropy(logits[known], labels[known].long()).item()}


def check_metric(name: str | None, known: Sequence[str]) -> None:
    """Refuse a metric that validation does not compute, before the first epoch."""
    metric = str(name).removeprefix("eval_")
    check_choice("metric_for_best_model", metric, known, fix=f"add --metric_for_best_model {known[0]}")


class KeepLog(TrainerCallback):
    """Begin the step log where the run begins or resumes, and write it with each checkpoint."""

    def __init__(self, log: StepLog):
        self.log = log

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Drop the lines behind the step that the run resumes from."""
        self.log.start(state.global_step)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Write what a run resumed from this checkpoint will not compute again."""
        self.log.save(args.parallel_mode)


class CausalVideoTrainer(Trainer):
    """Train a method of this package; `accuracy` on the validation split chooses the checkpoint.

    Args:
        model: a model that returns `VideoQAOutput`, or its peft wrapper.
        args: the run's arguments.
        data_collator: `VideoQACollator`, or anything that makes model inputs and labels of dataset items.
        train_dataset: items with `question_id`.
        eval_dataset: the validation split.
        kwargs: passed on to `Trainer`.

    Raises:
        CausalVideoError: one process for several devices, an unknown metric; in training, a loss that is not finite;
            on loading, weights that do not fit the model.
    """

    args: CausalVideoTrainingArguments

    def __init__(self, *, args: CausalVideoTrainingArguments, data_collator: Collator, **kwargs: Any):
        require(
            args.n_gpu <= 1,
            "one process for several devices",
            found=f"{args.n_gpu} devices",
            expected="a process for each",
            fix="start with `accelerate launch` (or hide devices): else the batch would grow by their number",
        )
        if "compute_metrics" not in kwargs:
            check_metric(args.metric_for_best_model, ("accuracy", "loss"))
        model = kwargs.get("model")
        dataset = kwargs.get("train_dataset")
        if model is not None:
            data_collator = with_video_ids(data_collator, model)
            if dataset is not None:
                drop_lone_sample(model, args, len(dataset))
        always = (SigmaAnnealing(), TrainingProgress(), FillBank(dataset), IndependentNoise(), BestCheckpoint())
        callbacks = [*kwargs.pop("callbacks", ()), *always]
        if args.early_stopping_patience is not None:
            callbacks.append(EarlyStoppingCallback(args.early_stopping_patience))
        kwargs = {"compute_metrics": answer_metrics, "callbacks": callbacks, **kwargs}
        super().__init__(args=args, data_collator=NamedBatches(data_collator), **kwargs)
        if self.is_fsdp_enabled and self.model is not None:
            _choose_sharded_blocks(self.accelerator.state.fsdp_plugin, self.model)
        self.step_log = StepLog(str(args.output_dir), self.is_world_process_zero())
        self.add_callback(KeepLog(self.step_log))
        self._last_ids: list[str] = []

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Build the optimizer over four groups: text encoder or rest, with or without weight decay."""
        if self.optimizer is None:
            network = cast(PreTrainedModel, self.model if model is None else model)
            decaying = set(self.get_decay_parameter_names(network))
            groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
            for name, parameter in network.named_parameters():
                if parameter.requires_grad:
                    decays = self.args.decay_biases_and_norms or name in decaying
                    groups.setdefault(("text_encoder" in name.split("."), not decays), []).append(parameter)
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, network)
            rate = self.args.learning_rate
            text_rate = rate if self.args.text_encoder_learning_rate is None else self.args.text_encoder_learning_rate
            # sorted: the rest comes first, so the rate that the Trainer logs is `learning_rate`
            self.optimizer = optimizer_class(
                [
                    {
                        "params": groups[text, free],
                        "lr": text_rate if text else rate,
                        "weight_decay": 0.0 if free else self.args.weight_decay,
                    }
                    for text, free in sorted(groups)
                ],
                **options,
            )
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LRScheduler:
        """Build the schedule that the arguments name."""
        if self.lr_scheduler is None:
            batches = math.ceil(
                len(cast(Sized, self.train_dataset)) / (self.args.train_batch_size * self.args.world_size)
            )
            steps_per_epoch = max(1, math.ceil(batches / self.args.gradient_accumulation_steps))
            over = self.optimizer if optimizer is None else optimizer
            assert over is not None
            schedule = build_schedule(self.args, over, num_training_steps, steps_per_epoch)
            self.lr_scheduler = cast(LambdaLR, schedule)  # as the parent class declares it
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Mapping]:
        """Return the model's loss, after noting its terms and refusing one that is not finite."""
        ids = inputs.pop("question_ids", [])
        try:
            loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        except CausalVideoError as error:
            raise named(error, ids) from error
        if not torch.isfinite(loss).all():
            terms = {name: term.detach().mean().item() for name, term in (outputs.get("losses") or {}).items()}
            raise CausalVideoError(
                f"the loss is not finite at step {self.state.global_step}",
                found=f"loss {loss.detach().mean().item()}, terms {terms}, in the batch of questions {ids}",
                expected="a finite loss",
                fix="check features and labels of these questions; if they are sound, the step before (questions "
                f"{self._last_ids}) broke the weights: lower learning_rate, or set max_grad_norm",
            )
        self._last_ids = ids
        # a term without gradient has no part in this step
        terms = {f"loss_{name}": term for name, term in (outputs.get("losses") or {}).items() if term.requires_grad}
        self.step_log.add(self.state.global_step + 1, {"loss": loss, **terms})
        return (loss, outputs) if return_outputs else loss

    def prediction_step(
        self, model: nn.Module, inputs: dict, prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[None, Tensor | None, Tensor | None]:
        """Answer a batch: logits (B, A) and labels (B,); the loss follows from them in `answer_metrics`."""
        inputs = self._prepare_inputs(inputs)
        labels = inputs.pop("labels")
        _ = inputs.pop("question_ids", None)
        with torch.no_grad(), self.compute_loss_context_manager():
            logits = model(**inputs).logits
        return None, logits.detach(), labels

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the loss terms, averaged over processes and over the batches since the last log; write the step log."""
        steps = self.step_log.take(self.args.parallel_mode)
        if "loss" in logs:
            averaged = self.step_log.saved + steps
            self.step_log.saved = []
            for name in sorted({name for line in averaged for name in line} - {"step", "loss"}):
                values = [line[name] for line in averaged if name in line]
                logs[name] = sum(values) / len(values)
            sigma = getattr(bare_model(self.model), "topk_sigma", None)
            if sigma is not None:
                logs["topk_sigma"] = sigma
        super().log(logs, start_time)
        entry = self.state.log_history[-1]
        if steps and steps[-1]["step"] == entry["step"] and "loss" in logs:
            steps[-1] = {**entry, **steps[-1]}
        elif "loss" not in logs:
            steps.append(entry)
        self.step_log.write(steps)

    def _issue_warnings_after_load(self, load_result: _IncompatibleKeys) -> None:
        """A checkpoint that lacks weights, or has too many, is an error here and not a warning."""
        missing = set(load_result.missing_keys) - set(getattr(self.model, "all_tied_weights_keys", None) or ())
        require(
            not missing and not load_result.unexpected_keys,
            "the checkpoint does not fit the model",
            found=lambda: f"missing {sorted(missing)}, unexpected {sorted(load_result.unexpected_keys)}",
            expected="the same weights",
            fix="resume with the recipe that the run was started with",
        )


def _choose_sharded_blocks(plugin: FullyShardedDataParallelPlugin, model: PreTrainedModel | nn.Module) -> None:
    """Name the blocks that FSDP shards, where the user named none.

    Why: accelerate shards the input embedding by itself, and fails where a block that holds it was sharded before.

    Raises:
        CausalVideoError: adapters, which are merged after training; a method other than TranSTR: where batches
            differ, the processes of a graph backbone exchange weights in another order, and stop or wait for ever.
    """
    fix = "start without the sharding of the accelerate config"
    adapted = model is not bare_model(model)
    require(not adapted, "adapters cannot be merged into sharded weights", found="LoRA", expected="none", fix=fix)
    kind = type(model).__name__
    if not isinstance(model, TranSTRForVideoQuestionAnswering):
        raise CausalVideoError("this model cannot be sharded", found=kind, expected="TranSTR", fix=fix)
    if plugin.transformer_cls_names_to_wrap is None:
        embedding = model.get_input_embeddings()
        blocks = [module for module in model.modules() if type(module).__name__ in (model._no_split_modules or ())]
        names = {type(block).__name__ for block in blocks if embedding not in set(block.modules())}
        plugin.transformer_cls_names_to_wrap = sorted(names)
