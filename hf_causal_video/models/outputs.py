"""Output of every VideoQA method: the answer, the loss term by term, and the evidence as tensors and as plain
values."""

import inspect
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor, nn
from transformers.utils import ModelOutput


@dataclass
class VideoQAOutput(ModelOutput):
    """Output of a VideoQA model; B samples, A answers, T frames, N objects, K kept frames, M kept objects.

    Args:
        loss: () weighted sum of `losses`, where labels were given.
        losses: each loss term by name, unweighted. The names are the same in every training step: a term that a step
            leaves out (in a warm-up, or where a ramp is over) is 0 without gradient. In evaluation: "answer" alone.
        logits: (B, A) answer scores.
        frame_scores: (B, T) how much the method wants each frame for this question; -inf at padding.
        kept_frames: (B, K) frame index of every kept slot; slots may repeat a frame.
        object_scores: (B, K, N) the same for the objects of each kept frame.
        kept_objects: (B, K, M) object index of every kept slot.
        kept_boxes: (B, K, M, 4) their boxes, where boxes were given.
        causal_mask: (B, T) bool, the frames that a grounding model calls causal.
        hidden_states: asked for by `output_hidden_states`: TranSTR's, the frames before they meet the question and the
            results of its decoders and encoder in the order of computation (frames, objects, kept frames with their
            objects, kept frames with the question, answers); else the embedded and the encoded frames.
        attentions: asked for by `output_attentions`: the attention maps (rows, heads, queries, keys) of TranSTR's
            layers in the order of computation.
    """

    loss: Tensor | None = None
    losses: dict[str, Tensor] | None = None
    logits: Tensor | None = None
    frame_scores: Tensor | None = None
    kept_frames: Tensor | None = None
    object_scores: Tensor | None = None
    kept_objects: Tensor | None = None
    kept_boxes: Tensor | None = None
    causal_mask: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


def asking_for_evidence(model: nn.Module) -> dict[str, bool]:
    """Arguments of `forward` with which a model says what its answer rests on, where it does so only when asked.

    Args:
        model: a model that returns `VideoQAOutput`, not wrapped by the trainer.

    Example:
        >>> asking_for_evidence(nn.Linear(2, 2))
        {}
    """
    return {"output_evidence": True} if "output_evidence" in inspect.signature(model.forward).parameters else {}


class Record(dict):
    """Base of dataclasses that are dictionaries of their fields as well.

    Why: a result is read by attribute in Python, and `json.dumps` takes it as it is.

    Example:
        >>> import json
        >>> json.dumps(EvidenceFrame(0, 1.5, 0.9))
        '{"index": 0, "time_s": 1.5, "score": 0.9}'
    """

    def __setattr__(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)
        dict.__setitem__(self, name, value)

    def __setitem__(self, name: str, value: object) -> None:
        setattr(self, name, value)


@dataclass
class EvidenceFrame(Record):
    """One kept frame: its zero-based index among the frames given, its time in seconds, and its score."""

    index: int
    time_s: float
    score: float


@dataclass
class EvidenceObject(Record):
    """One kept object: frame and object index, time in seconds, box xyxy in [0, 1] (None if no boxes were given),
    score."""

    frame_index: int
    time_s: float
    object_index: int
    box: tuple[float, float, float, float] | None
    score: float


@dataclass
class Evidence(Record):
    """An answer with what it rests on.

    Args:
        answer: the answer in words.
        answer_index: its index among the choices or in the answer vocabulary.
        score: its probability.
        scores: the probability of each choice, or of the best five words of a vocabulary.
        choices: the words that `scores` belong to.
        spans: [start_s, end_s] in seconds, in order of time.
        frames: kept frames in temporal order.
        objects: kept objects in temporal order.
        best_span: the span of the highest score, None without spans.
    """

    answer: str
    answer_index: int
    score: float
    scores: list[float]
    choices: list[str]
    spans: list[tuple[float, float]] = field(default_factory=list)
    frames: list[EvidenceFrame] = field(default_factory=list)
    objects: list[EvidenceObject] = field(default_factory=list)
    best_span: tuple[float, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, ready for JSON."""
        return asdict(self)
