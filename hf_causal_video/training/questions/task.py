"""What a run does for questions: its splits, its model, its trainer, its answers and their score.

A run is the same for every task (`run.py`); `relation_task.py` has the same names for relations.
"""

from typing import Any

from accelerate.utils import gather_object
from transformers import PreTrainedModel

from hf_causal_video.data import VideoQACollator, VideoQADataset
from hf_causal_video.training.arguments import CausalVideoTrainingArguments
from hf_causal_video.training.questions.measure import measure as score
from hf_causal_video.training.questions.model import build_model
from hf_causal_video.training.questions.predict import predict
from hf_causal_video.training.questions.splits import load_splits
from hf_causal_video.training.text_features import QuestionCollator
from hf_causal_video.training.token_cache import with_token_cache
from hf_causal_video.training.trainer import CausalVideoTrainer as Trainer

__all__ = ["Trainer", "answer", "build_model", "collator", "headline", "load_splits", "measure"]


def collator(processor: Any) -> QuestionCollator:
    """Make batches of the questions, each string tokenized once."""
    return QuestionCollator(with_token_cache(processor))


def answer(
    model: PreTrainedModel,
    dataset: VideoQADataset,
    collator: VideoQACollator,
    arguments: CausalVideoTrainingArguments,
) -> list[dict[str, Any]]:
    """Answer a split, each process its share, and bring the records back into the order of the questions."""
    show = arguments.process_index == 0 and not arguments.disable_tqdm
    share = (arguments.process_index, arguments.world_size)
    size = arguments.per_device_eval_batch_size
    records = gather_object(predict(model, dataset, collator, size, progress=show, share=share))
    by_id = {record["question_id"]: record for record in records}
    return [by_id[question_id] for question_id in dataset.questions["question_id"]]


def measure(records: list[dict[str, Any]], dataset: VideoQADataset, train: VideoQADataset) -> dict[str, Any]:
    """Score the answers of a split."""
    return score(records, dataset.questions)


def headline(numbers: dict[str, Any]) -> str:
    """What the last lines of a run say about a split."""
    return f"accuracy {numbers['Acc']:6.2f} %" if numbers else "answers unknown"
