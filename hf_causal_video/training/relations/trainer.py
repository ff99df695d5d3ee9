"""The trainer of relations: the trainer of questions, with pairs in place of answers and prototypes that start late.

Source: IVRD (Li et al., ACM MM 2021); the warm-up without intervention, after which the prototypes are the class means
of the relation references, is a *reconstruction*.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from transformers import EvalPrediction, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_causal_video.evaluation.relations.pairs import pair_metrics
from hf_causal_video.models.base import IGNORED_LABEL
from hf_causal_video.models.ivrd.modeling_ivrd import IVRDForVideoRelationDetection
from hf_causal_video.training.arguments import CausalVideoTrainingArguments
from hf_causal_video.training.callbacks import Collator, bare_model, paced
from hf_causal_video.training.relations.predict import INPUTS
from hf_causal_video.training.relations.splits import Split
from hf_causal_video.training.trainer import CausalVideoTrainer, NamedBatches, check_metric, named
from hf_causal_video.utils.errors import CausalVideoError


class RelationTrainer(CausalVideoTrainer):
    """Train a relation model; a metric over the pairs of the validation split chooses the checkpoint.

    Args:
        args: the run's arguments.
        data_collator: `RelationCollator`.
        train_dataset: `RelationSegments` or `RelationPairs`.
        kwargs: passed on.

    Raises:
        CausalVideoError: a checkpoint chosen by what is not measured, such as accuracy of several predicates a pair.
    """

    def __init__(
        self, *, args: CausalVideoTrainingArguments, data_collator: Collator, train_dataset: Split, **kwargs: Any
    ):
        if "compute_metrics" not in kwargs:  # a pair that may have several predicates has no one that is right
            known = ("mAP", "mR@4") if train_dataset.multi_label else ("accuracy", "mean_recall", "mAP")
            check_metric(args.metric_for_best_model, known)
        callbacks = [
            *kwargs.pop("callbacks", ()),
            OtherPairs(train_dataset),
            PrototypeStart(train_dataset, data_collator),
        ]
        super().__init__(
            args=args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            callbacks=callbacks,
            **{"compute_metrics": validation_metrics, **kwargs},
        )

    def prediction_step(
        self, model: nn.Module, inputs: dict, prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[None, Tensor | None, Tensor | None]:
        """Judge a batch: logits (B, R, P) and labels (B, R) or (B, R, P)."""
        inputs = self._prepare_inputs(inputs)
        labels, _, _ = (inputs.pop(name, None) for name in ("predicate_labels", "track_labels", "question_ids"))
        with torch.no_grad(), self.compute_loss_context_manager():
            logits = model(**inputs).predicate_logits.detach()
        return None, logits.float(), labels


def validation_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """`pair_metrics` of all pairs of a split; padding and pairs with an unknown predicate are left out."""
    scores = torch.as_tensor(prediction.predictions)
    labels = torch.as_tensor(prediction.label_ids)
    known = labels != IGNORED_LABEL if labels.dim() == 2 else (labels != IGNORED_LABEL).all(-1)
    scores = scores.log_softmax(-1) if labels.dim() == 2 else scores
    return {k: v for k, v in pair_metrics(scores[known].numpy(), labels[known].numpy()).items() if v is not None}


class OtherPairs(TrainerCallback):
    """Draw other pairs without a relation in every epoch; which ones follows from the epoch alone."""

    def __init__(self, dataset: Split):
        self.dataset = dataset

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Tell the dataset the epoch."""
        self.dataset.set_epoch(int((state.epoch or 0) + 1e-6))


class PrototypeStart(TrainerCallback):
    """Train without intervention for `prototype_warmup` of all steps, then start the prototypes from class means.

    Both are a function of the step alone, so a resumed run does the same. Every process sums its share of the items.
    """

    def __init__(self, dataset: Split, collator: Collator):
        self.dataset, self.collator = dataset, collator

    def on_step_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: object,
    ) -> None:
        """Warm up, or end the warm-up."""
        relation_model = cast(IVRDForVideoRelationDetection, bare_model(model))
        config = relation_model.config
        steps = round(float(config.prototype_warmup) * state.max_steps) if config.uses_prototypes else 0
        paced(relation_model).warming_up = state.global_step < steps
        if steps and state.global_step == steps:
            share = Subset(self.dataset, range(args.process_index, len(self.dataset), args.world_size))
            start_prototypes(
                relation_model,
                DataLoader(
                    share,
                    args.per_device_eval_batch_size,
                    generator=torch.Generator(),
                    collate_fn=NamedBatches(self.collator),
                ),
            )


@torch.no_grad()
def start_prototypes(model: IVRDForVideoRelationDetection, batches: DataLoader) -> None:
    """Set the prototypes to the class means of the references of all batches, of every process.

    Raises:
        CausalVideoError: what the model refuses, with the questions of the batch.
    """
    was_training = model.training
    config = model.config
    sums = torch.zeros(config.num_predicates, config.hidden_size, device=model.device)
    counts = torch.zeros(config.num_predicates, device=model.device)
    model.eval()
    for batch in batches:
        inputs = {name: batch[name].to(model.device) for name in INPUTS if name in batch}
        try:
            output = model(**inputs)
        except CausalVideoError as error:
            raise named(error, batch["question_ids"]) from error
        labels = batch["predicate_labels"].to(model.device)[output.pair_mask]  # (R, P) or (R,)
        if labels.dim() == 1:
            known = labels != IGNORED_LABEL
            labels = nn.functional.one_hot(labels.clamp(min=0), config.num_predicates) * known.unsqueeze(1)
        present = (labels == 1).float()
        sums += present.T @ output.references[output.pair_mask].float()
        counts += present.sum(0)
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(sums)
        torch.distributed.all_reduce(counts)
    model.train(was_training)
    model.set_prototypes(sums / counts.clamp(min=1).unsqueeze(1), torch.diag((counts > 0).float()))
