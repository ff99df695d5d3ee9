"""The protocol of a task: what a run needs to know about a kind of problem (questions, relations).

A run (`run.py`) is the same for every task. Records and numbers are what `json.dumps` takes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from torch.utils.data import Dataset
from transformers import PreTrainedModel, ProcessorMixin

from hf_causal_video.training.arguments import CausalVideoTrainingArguments, DataArguments, ModelArguments
from hf_causal_video.training.trainer import CausalVideoTrainer

Record = dict[str, object]  # answer to one question, or judgement of one pair or video
Numbers = Mapping[str, object]  # metrics of a split in percent, and counts
Collator = Callable[[Sequence[dict[str, object]]], Mapping[str, object]]
Split = TypeVar("Split", bound=Dataset)


class Task(Protocol[Split]):
    """A kind of problem, with the type of its splits."""

    def load_splits(self, data: DataArguments, names: Sequence[str]) -> dict[str, Split]:
        """Load the splits of a run; the first one is for training, the second for validation."""

    def build_model(
        self, model: ModelArguments, data: DataArguments, train: Split
    ) -> tuple[PreTrainedModel, ProcessorMixin]:
        """Build what is trained, fitted to the training split."""

    def collator(self, processor: ProcessorMixin) -> Collator:
        """Make batches of a split's items."""

    def trainer(
        self,
        model: PreTrainedModel,
        arguments: CausalVideoTrainingArguments,
        collator: Collator,
        train: Split,
        validation: Split,
    ) -> CausalVideoTrainer:
        """Make the trainer."""

    def predict(
        self, model: PreTrainedModel, split: Split, collator: Collator, arguments: CausalVideoTrainingArguments
    ) -> list[Record]:
        """Answer a split, each process its share, and return the records in the order of the split."""

    def measure(self, records: Sequence[Record], split: Split, train: Split) -> Numbers:
        """Score the records of a split."""

    def headline(self, numbers: Numbers) -> str:
        """Summarize the numbers of a split in a few words."""
