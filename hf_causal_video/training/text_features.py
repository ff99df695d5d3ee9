"""Token features that were made once, in place of a text encoder: read by question id, padded into a batch.

Why: the released code of IGV and EIGV reads token features of a frozen encoder from a file. A model without a text
encoder trains on them; at inference it has to be given token features again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import BatchFeature

from hf_causal_video.data import VideoQACollator, VideoQADataset
from hf_causal_video.features.store import FeatureStore
from hf_causal_video.utils.errors import CausalVideoError, require

FORMAT = "QUESTION_ID/question (L, D), and QUESTION_ID/choices/0, /1, ... (L, D) of question and choice together"


class TextFeatures:
    """A safetensors file of token features, any float type; a tensor is read when it is asked for.

    Args:
        path: file with the tensors `QUESTION_ID/question` (L, D) and, for multiple choice, `QUESTION_ID/choices/0`,
            `/1` and so on (L, D): the tokens of question and choice as one text.

    Raises:
        CausalVideoError: no such file, or none of safetensors.

    Example:
        >>> import tempfile; from safetensors.torch import save_file
        >>> path = f"{tempfile.mkdtemp()}/text.safetensors"
        >>> save_file({"q1/question": torch.ones(5, 8)}, path)
        >>> TextFeatures(path).width
        8
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            self._file = safe_open(self.path, "pt")
            self._names = set(self._file.keys())
            self.width = int(self._file.get_slice(min(self._names)).get_shape()[-1])
        except (OSError, SafetensorError, ValueError, IndexError) as error:
            raise CausalVideoError(
                f"token features {path}",
                found=str(error),
                expected=f"a safetensors file with {FORMAT}",
                fix="check text_features",
            ) from error

    def names(self, question_id: str, choices: int) -> list[str]:
        """Return the names of a question's tensors: its own, then those of its choices."""
        return [f"{question_id}/question", *(f"{question_id}/choices/{number}" for number in range(choices))]

    def check(self, questions: Dataset) -> None:
        """Refuse question rows some of which have no token features, before any of them is read."""
        rows = zip(questions["question_id"], questions["choices"], strict=True)
        missing = [name for row, choices in rows for name in self.names(row, len(choices)) if name not in self._names]
        require(
            not missing,
            f"token features {self.path}",
            found=lambda: f"{len(missing)} tensors missing, such as {missing[:3]}",
            expected=FORMAT,
            fix="make them for every question of the split",
        )

    def read(self, question_id: str, choices: int) -> list[Tensor]:
        """Read the token features of a question, then of its choices, each (L, D).

        Raises:
            CausalVideoError: a tensor of another shape.
        """
        tensors = [self._file.get_tensor(name) for name in self.names(question_id, choices)]
        shapes = [tuple(tensor.shape) for tensor in tensors]
        require(
            not any(len(shape) != 2 or not shape[0] or shape[1] != self.width for shape in shapes),
            f"token features of question {question_id}",
            found=shapes,
            expected=f"(L, {self.width}) each, at least one token",
            fix="make them again",
        )
        return tensors


class QuestionsWithTextFeatures(VideoQADataset):
    """Questions joined with the features of their videos and with token features.

    Args:
        questions, store, num_frames: as in `VideoQADataset`.
        text: the token features, of every question.
    """

    def __init__(self, questions: Dataset, store: FeatureStore, num_frames: int | None, text: TextFeatures):
        super().__init__(questions, store, num_frames)
        text.check(questions)
        self.text = text

    def __getitems__(self, indices: Sequence[int]) -> list[dict]:
        items = super().__getitems__(indices)
        return [item | {"text_features": self.text.read(item["question_id"], len(item["choices"]))} for item in items]


@dataclass
class QuestionCollator(VideoQACollator):
    """`VideoQACollator` that also hands over token features, where its items have them."""

    def __call__(self, items: Sequence[dict]) -> BatchFeature:
        batch = super().__call__(items)
        if "text_features" in items[0]:
            for name in ("input_ids", "attention_mask", "choice_input_ids", "choice_attention_mask"):
                batch.pop(name, None)
            questions = [item["text_features"][0] for item in items]
            choices = [item["text_features"][1:] for item in items]
            batch["question_features"], batch["attention_mask"] = _padded(questions)  # (B, L, D), (B, L)
            if most := max(map(len, choices)):
                absent = questions[0][:0]  # no token: a choice that is not there
                flat = [part for parts in choices for part in (*parts, *[absent] * (most - len(parts)))]
                features, mask = (part.unflatten(0, (len(items), most)) for part in _padded(flat))
                batch["choice_features"] = features
                batch["choice_attention_mask"] = mask  # (B, A, L, D), (B, A, L)
        return batch


def _padded(features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(one) for one in features])
    padded = pad_sequence([one.float() for one in features], batch_first=True)
    return padded, (torch.arange(padded.shape[1]) < lengths[:, None]).long()
