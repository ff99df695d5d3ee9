"""Answers of a model over a dataset, one plain record a question: what the evaluation and the command line read."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from hf_causal_video.data import VideoQACollator
from hf_causal_video.models import VideoQAOutput
from hf_causal_video.models.outputs import asking_for_evidence
from hf_causal_video.training.callbacks import bare_model


def predict(
    model: PreTrainedModel,
    dataset: Dataset,
    collator: VideoQACollator,
    batch_size: int = 32,
    progress: bool = True,
    span_rule: str = "kept",
) -> list[dict[str, Any]]:
    """Answer every question of a dataset, and say what the model looked at.

    A model that says so only when asked, as EIGV, is asked. The model runs in evaluation mode on the device where it
    is, and comes back in the mode it was in.

    Args:
        model: a model that returns `VideoQAOutput`.
        dataset: items as of `VideoQADataset`; their answers are not read.
        collator: carries the model's processor.
        batch_size: questions a batch.
        progress: show a bar.
        span_rule: how frames become spans, see `VideoQAProcessor.post_process_evidence`.

    Returns:
        A dictionary a question, in the order of the dataset: `question_id`, `prediction` (index of the answer),
        `answer` (its words), `choices` and `scores` (words and probabilities; the five best of a vocabulary),
        `frame_scores` (one a frame), `kept_frames` (zero-based among the frames given, in time order), `spans`
        ([start_s, end_s] in order of time) and `best_span`.
    """
    gather = _KeepItems(replace(collator, with_labels=False))
    loader: DataLoader = DataLoader(dataset, batch_size, collate_fn=gather)
    asked = asking_for_evidence(bare_model(model))
    was_training, records = model.training, []
    model.eval()
    try:
        for items, inputs in tqdm(loader, desc="answering", unit="batch", disable=not progress):
            with torch.inference_mode():
                output = model(**{name: value.to(model.device) for name, value in inputs.items()}, **asked)
            records += _records(items, output, collator.processor, span_rule)
    finally:
        model.train(was_training)
    return records


class _KeepItems:
    """A collator that hands its items on beside the batch."""

    def __init__(self, collator: VideoQACollator):
        self.collator = collator

    def __call__(self, items: Sequence[dict[str, Any]]) -> tuple[Sequence[dict[str, Any]], Any]:
        return items, self.collator(items)


def _records(
    items: Sequence[dict[str, Any]], output: VideoQAOutput, processor: Any, span_rule: str
) -> list[dict[str, Any]]:
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
            "prediction": found.answer_index,
            "answer": found.answer,
            "choices": found.choices,
            "scores": found.scores,
            "frame_scores": scores[: len(item["timestamps_s"])],
            "kept_frames": [frame.index for frame in found.frames],
            "spans": [list(span) for span in found.spans],
            "best_span": None if found.best_span is None else list(found.best_span),
        }
        for item, found, scores in zip(items, evidence, output.frame_scores.float().tolist(), strict=True)
    ]
