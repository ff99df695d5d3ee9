"""Questions as a task: answers of a model over a split, their score, and what a run needs around them."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from accelerate.utils import gather_object
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import PreTrainedModel, ProcessorMixin

from hf_causal_video.data import VideoQACollator, VideoQADataset
from hf_causal_video.evaluation import (
    causalvidqa_accuracy,
    multiple_choice_accuracy,
    nextqa_accuracy,
    open_ended_accuracy,
)
from hf_causal_video.evaluation.causalvidqa import TYPES as CAUSALVIDQA_TYPES
from hf_causal_video.evaluation.nextqa import FINE_TYPES
from hf_causal_video.models import VideoQAOutput, VideoQAProcessor
from hf_causal_video.models.outputs import asking_for_evidence
from hf_causal_video.models.processing_video_qa import SpanRule
from hf_causal_video.training.arguments import CausalVideoTrainingArguments, DataArguments, ModelArguments
from hf_causal_video.training.callbacks import bare_model
from hf_causal_video.training.questions.model import build_model
from hf_causal_video.training.questions.splits import load_splits
from hf_causal_video.training.tasks import Collator, Numbers, Record
from hf_causal_video.training.text_features import QuestionCollator
from hf_causal_video.training.token_cache import with_token_cache
from hf_causal_video.training.trainer import CausalVideoTrainer
from hf_causal_video.utils.errors import require

ANNOTATION = ("question_id", "video_id", "question", "choices", "answer", "question_type", "spans", "duration_s")

Share = tuple[int, int]  # rank of this process, number of processes
ALONE: Share = (0, 1)


class QuestionTask:
    """Questions about videos, see `Task`."""

    def load_splits(self, data: DataArguments, names: Sequence[str]) -> dict[str, VideoQADataset]:
        """Load questions with their features."""
        return load_splits(data, names)

    def build_model(
        self, model: ModelArguments, data: DataArguments, train: VideoQADataset
    ) -> tuple[PreTrainedModel, ProcessorMixin]:
        """Build a model fitted to the widths of the features and to the answers of the training split."""
        return build_model(model, data, train)

    def collator(self, processor: ProcessorMixin) -> QuestionCollator:
        """Make batches of the questions, each string tokenized once."""
        return QuestionCollator(with_token_cache(processor))

    def trainer(
        self,
        model: PreTrainedModel,
        arguments: CausalVideoTrainingArguments,
        collator: Collator,
        train: VideoQADataset,
        validation: VideoQADataset,
    ) -> CausalVideoTrainer:
        """Make the trainer of questions."""
        return CausalVideoTrainer(
            model=model, args=arguments, data_collator=collator, train_dataset=train, eval_dataset=validation
        )

    def predict(
        self,
        model: PreTrainedModel,
        split: VideoQADataset,
        collator: Collator,
        arguments: CausalVideoTrainingArguments,
    ) -> list[Record]:
        """Answer a split; each process takes its share of the videos."""
        assert isinstance(collator, VideoQACollator)
        records = predict(
            model,
            split,
            collator,
            arguments.per_device_eval_batch_size,
            progress=arguments.process_index == 0 and not arguments.disable_tqdm,
            share=(arguments.process_index, arguments.world_size),
        )
        by_id = {record["question_id"]: record for record in gather_object(records)}
        return [by_id[question_id] for question_id in split.questions["question_id"]]

    def measure(self, records: Sequence[Record], split: VideoQADataset, train: VideoQADataset) -> Numbers:
        """Score the answers of a split."""
        return measure(records, split.questions)

    def headline(self, numbers: Numbers) -> str:
        """Accuracy of a split."""
        return f"accuracy {numbers['Acc']:6.2f} %" if numbers else "answers unknown"


def predict(
    model: PreTrainedModel,
    dataset: VideoQADataset,
    collator: VideoQACollator,
    batch_size: int = 32,
    progress: bool = True,
    span_rule: SpanRule = "kept",
    share: Share = ALONE,
) -> list[Record]:
    """Answer every question of a dataset, and say what the model looked at.

    The questions of one video are answered together, so that each video is read and encoded once. A model that
    returns its evidence only on request, as EIGV, is asked for it. The model runs in evaluation mode on its device,
    and returns to the mode it was in.

    Args:
        model: a model that returns `VideoQAOutput`.
        dataset: the questions; their answers are not read, only copied.
        collator: holds the model's processor.
        batch_size: questions per batch, at most.
        progress: show a bar.
        span_rule: how frames become spans, see `VideoQAProcessor.post_process_evidence`.
        share: of several processes, each answers the questions about its share of the videos.

    Returns:
        One dictionary per question, in the order of the dataset: `question_id`, `video_id`, `label` (index of the true
        answer, -1 if unknown) and `label_text`, `prediction` (index of the answer), `answer` (its words), `choices`
        and `scores` (words and probabilities; the five best of a vocabulary), `frame_scores` (one per frame),
        `kept_frames` (zero-based among the frames of the item, in time order), `spans` ([start_s, end_s] in order of
        time) and `best_span`.
    """
    parameters = inspect.signature(bare_model(model).forward).parameters.values()
    shares = any(one.name == "video_index" or one.kind is one.VAR_KEYWORD for one in parameters)
    gather = _KeepItems(replace(collator, with_labels=False, share_videos=shares))
    batches = batches_by_video(dataset.questions["video_id"], batch_size, share)
    loader: DataLoader = DataLoader(dataset, batch_sampler=batches, collate_fn=gather)
    options = asking_for_evidence(bare_model(model))
    was_training = model.training
    records: dict[int, Record] = {}
    model.eval()
    try:
        bar = tqdm(loader, desc="answering", unit="batch", disable=not progress)
        for rows, (items, inputs) in zip(batches, bar, strict=True):
            with torch.inference_mode():
                output = model(**{name: value.to(model.device) for name, value in inputs.items()}, **options)
            records.update(zip(rows, _records(items, output, collator.processor, span_rule), strict=True))
    finally:
        model.train(was_training)
    return [records[row] for row in sorted(records)]


def batches_by_video(video_ids: Sequence[str], batch_size: int, share: Share = ALONE) -> list[list[int]]:
    """Group the rows of a table into batches that hold all questions of a video, as far as they fit.

    Args:
        video_ids: of each row.
        batch_size: rows per batch, at most; a video with more questions is split.
        share: (rank, processes); each process gets every so many-th video.

    Example:
        >>> batches_by_video(["a", "b", "a", "c", "b"], 3)
        [[0, 2], [1, 4, 3]]
    """
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(video_ids):
        rows.setdefault(name, []).append(row)
    batches: list[list[int]] = []
    for of_video in list(rows.values())[share[0] :: share[1]]:
        if not batches or len(batches[-1]) + len(of_video) > batch_size:
            batches.append([])
        for row in of_video:
            if len(batches[-1]) == batch_size:
                batches.append([])
            batches[-1].append(row)
    return [batch for batch in batches if batch]


class _KeepItems:
    """Collator that returns its items next to the batch."""

    def __init__(self, collator: VideoQACollator):
        self.collator = collator

    def __call__(self, items: Sequence[dict]) -> tuple[Sequence[dict], Mapping]:
        return items, self.collator(items)


def _records(
    items: Sequence[dict], output: VideoQAOutput, processor: VideoQAProcessor, span_rule: SpanRule
) -> list[Record]:
    choices = [item["choices"] for item in items] if items[0]["choices"] else None
    assert output.frame_scores is not None  # the processor has looked
    times = [item["timestamps_s"] for item in items]
    evidence = processor.post_process_evidence(output, timestamps=times, choices=choices, span_rule=span_rule)
    return [
        {
            "question_id": item["question_id"],
            "video_id": item["video_id"],
            "label": int(item.get("answer", -1)),
            "label_text": item.get("answer_text", ""),
            "prediction": one.answer_index,
            "answer": one.answer,
            "choices": one.choices,
            "scores": one.scores,
            "frame_scores": scores[: len(item["timestamps_s"])],
            "kept_frames": [frame.index for frame in one.frames],
            "spans": [list(span) for span in one.spans],
            "best_span": None if one.best_span is None else list(one.best_span),
        }
        for item, one, scores in zip(items, evidence, output.frame_scores.float().tolist(), strict=True)
    ]


def measure(predictions: Sequence[Mapping[str, object]], questions: Iterable[Mapping]) -> dict[str, object]:
    """Score predictions against question rows.

    Args:
        predictions: records of `predict`, one for every question.
        questions: question rows with answers.

    Returns:
        `Acc` in percent and, by the kind of the questions, accuracies by type (see `evaluation`), and `counts`. Empty
        where the split knows no answer.

    Raises:
        CausalVideoError: only some answers are known, or predictions and questions do not match.

    Example:
        >>> row = {"question_id": "v_0", "question": "who", "choices": ["a", "b"], "answer": 1, "question_type": "CW"}
        >>> measure([{"question_id": "v_0", "prediction": 1}], [row])["Acc_C"]
        100.0
    """
    rows = [{name: row[name] for name in ANNOTATION if name in row} for row in questions]
    answers = [{"question_id": record["question_id"], "prediction": record["prediction"]} for record in predictions]
    unknown = sum(row["answer"] < 0 for row in rows)
    if unknown == len(rows):
        return {}
    if not rows[0]["choices"]:  # an answer outside the vocabulary is wrong, whatever is said
        return open_ended_accuracy(answers, rows)
    problem = f"{unknown} of {len(rows)} questions without an answer"
    fix = "split the questions into two datasets"
    require(not unknown, "some answers are unknown", found=problem, expected="all known, or none", fix=fix)
    types = {row["question_type"] for row in rows}
    if types == set(CAUSALVIDQA_TYPES):  # an answer counts together with its reason
        return {"Acc": multiple_choice_accuracy(answers, rows)["Acc"], **causalvidqa_accuracy(answers, rows)}
    return (nextqa_accuracy if types <= {*FINE_TYPES, "TP"} else multiple_choice_accuracy)(answers, rows)
