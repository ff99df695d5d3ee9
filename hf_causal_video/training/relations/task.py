"""Relations as a task: what a run needs around the splits, models and records of this folder."""

from collections.abc import Sequence

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from transformers import PreTrainedModel, ProcessorMixin

from hf_causal_video.data.relations.collator import RelationCollator
from hf_causal_video.data.relations.rows import training_counts
from hf_causal_video.data.relations.segments import RelationSegments
from hf_causal_video.models import RELATION_METHODS, VideoRelationProcessor
from hf_causal_video.training.arguments import CausalVideoTrainingArguments, DataArguments, ModelArguments
from hf_causal_video.training.options import RelationOptions
from hf_causal_video.training.relations.predict import measure_pairs, measure_videos, predict_pairs, predict_videos
from hf_causal_video.training.relations.splits import Split, load_splits
from hf_causal_video.training.relations.trainer import RelationTrainer
from hf_causal_video.training.tasks import Collator, Numbers, Record
from hf_causal_video.utils.errors import require


class RelationTask:
    """Relations between tracked objects, see `Task`."""

    def load_splits(self, data: DataArguments, names: Sequence[str]) -> dict[str, Split]:
        """Load annotated videos with their tracks, or pairs."""
        return load_splits(data, list(names))

    def build_model(
        self, model: ModelArguments, data: DataArguments, train: Split
    ) -> tuple[PreTrainedModel, ProcessorMixin]:
        """Build a model with the vocabularies, appearance and predicate frequencies of the training split."""
        return build_model(model, data, train)

    def collator(self, processor: ProcessorMixin) -> RelationCollator:
        """Make batches of segments or pairs."""
        return RelationCollator(processor)

    def trainer(
        self,
        model: PreTrainedModel,
        arguments: CausalVideoTrainingArguments,
        collator: Collator,
        train: Split,
        validation: Split,
    ) -> RelationTrainer:
        """Make the trainer of relations."""
        return RelationTrainer(
            model=model, args=arguments, data_collator=collator, train_dataset=train, eval_dataset=validation
        )

    def predict(
        self, model: PreTrainedModel, split: Split, collator: Collator, arguments: CausalVideoTrainingArguments
    ) -> list[Record]:
        """Detect the relations of every video, or judge every pair; each process takes its share."""
        assert isinstance(collator, RelationCollator)
        return answer(model, split, collator, arguments)

    def measure(self, records: Sequence[Record], split: Split, train: Split) -> Numbers:
        """Score the records of a split, in percent."""
        return measure(records, split, train)

    def headline(self, numbers: Numbers) -> str:
        """The main metrics of a split."""
        return headline(numbers)


def build_model(
    arguments: ModelArguments, data: DataArguments, train: Split
) -> tuple[PreTrainedModel, VideoRelationProcessor]:
    """Build what is trained, with the vocabularies, appearance and predicate frequencies of the training split.

    Args:
        arguments: method, preset, and where to start from.
        data: length and stride of a segment.
        train: the training split.

    Raises:
        CausalVideoError: LoRA or a text encoder, which a relation model has not; a checkpoint of other vocabularies.
    """
    require(
        not arguments.lora_rank and not arguments.text_model,
        "a relation model reads no text",
        found=f"lora_rank={arguments.lora_rank}, text_model={arguments.text_model}",
        expected="neither",
        fix="remove them from the recipe",
    )
    method = RELATION_METHODS[arguments.method]
    config_class = method.config
    model_class = method.model
    processor_class = method.processor
    options = RelationOptions.read(data.relation_options)
    single = not isinstance(train, RelationSegments)
    frames = train.segment_frames if single else options.segment_frames
    stride = frames if single else options.segment_stride
    processor: VideoRelationProcessor
    if arguments.model_name_or_path:
        model = model_class.from_pretrained(arguments.model_name_or_path, **arguments.overrides)
        processor = processor_class.from_pretrained(arguments.model_name_or_path)
        known = (processor.object_classes, processor.predicates, model.config.feature_dim)
        needed = (train.object_classes, train.predicates, train.feature_dim)
        require(
            known == needed,
            f"the checkpoint {arguments.model_name_or_path} does not fit the annotations",
            found=f"{[len(one) for one in known[:2]]} classes and predicates, appearance of width {known[2]}",
            expected=f"the {[len(one) for one in needed[:2]]} of the data by the same names, width {needed[2]}",
            fix="train on the same vocabularies and tracks, or start from a preset",
        )
    else:
        fields = {
            "num_object_classes": len(train.object_classes),
            "num_predicates": len(train.predicates),
            "id2label": dict(enumerate(train.predicates)),
            "feature_dim": train.feature_dim,
            "multi_label": train.multi_label,
            "trajectory_provenance": train.provenance,
        }
        config = config_class.preset(arguments.preset, **{**fields, **arguments.overrides})
        model = model_class(config)
        processor = processor_class(train.object_classes, train.predicates, frames, stride)
    model.set_predicate_counts(*_counts(train, model.config.class_pair_prior))
    return model, processor


def answer(
    model: PreTrainedModel, dataset: Split, collator: RelationCollator, arguments: CausalVideoTrainingArguments
) -> list[Record]:
    """Detect the relations of every video, or judge every pair; each process its share, then in their order."""
    show = arguments.process_index == 0 and not arguments.disable_tqdm
    share = (arguments.process_index, arguments.world_size)
    if isinstance(dataset, RelationSegments):
        processor = collator.processor
        records = predict_videos(model, processor, dataset, show, share)
        names = [str(video_id) for video_id in dataset.video_ids]
    else:
        records = predict_pairs(model, dataset, collator, arguments.per_device_eval_batch_size, show, share)
        names = dataset.ids
    by_id = {record["id"]: record for record in gather_object(records)}
    return [by_id[name] for name in names]


def measure(records: Sequence[Record], dataset: Split, train: Split) -> dict[str, object]:
    """Score the records of a split, in percent."""
    if isinstance(dataset, RelationSegments):
        return measure_videos(records, dataset.rows, *training_counts(train.rows))  # type: ignore[union-attr]
    return measure_pairs(records, dataset)


def headline(numbers: Numbers) -> str:
    """Main numbers of a split in one line."""
    names = ("mAP", "R@50", "mR@50", "accuracy", "mean_recall", "mR@4")
    return ", ".join(f"{name} {numbers[name]:.2f} %" for name in names if numbers.get(name) is not None) or "unknown"


def _counts(train: Split, per_class_pair: bool) -> tuple[torch.Tensor | int, ...]:
    """How often each predicate is annotated among the training pairs, counted by all processes together.

    Returns:
        Arguments of `set_predicate_counts`, with those per pair of classes if wanted.
    """
    state = PartialState()
    items = range(state.process_index, len(train), state.num_processes)
    counts, pairs = zip(*gather_object([train.training_counts(items)]), strict=True)
    total = torch.tensor(np.sum(counts, axis=0)), int(sum(pairs))
    if not per_class_pair:
        return total
    parts = gather_object([class_pair_counts(train, items)])
    return *total, *(torch.tensor(np.sum(values, axis=0)) for values in zip(*parts, strict=True))


def class_pair_counts(train: Split, items: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Annotations per subject class, object class and predicate (C, C, P), and pairs (C, C), of training items."""
    classes = len(train.object_classes)
    predicates = len(train.predicates)
    counts = np.zeros((classes, classes, predicates))
    pairs = np.zeros((classes, classes))
    for item in (train[index] for index in items):
        labels = item["predicate_labels"]
        if labels.dim() == 1:
            labels = torch.nn.functional.one_hot(labels, predicates)
        of_pair = item["track_labels"][item["pair_index"]]  # (R, 2)
        known = ((of_pair >= 0) & (of_pair < classes)).all(-1)
        subject, other = of_pair[known].numpy().T
        np.add.at(pairs, (subject, other), 1)
        np.add.at(counts, (subject, other), (labels[known] == 1).numpy())
    return counts, pairs
