"""Output of a relation model: object classes of the tracks and predicates of the pairs, per sample."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from hf_causal_video.models.base import IGNORED_LABEL


@dataclass
class VideoRelationOutput(ModelOutput):
    """Output of a relation model; B segments, N tracks, C object classes, R pairs of a segment, P predicates.

    Why per sample: a trainer gathers, cuts and joins batches along the first axis.

    Args:
        loss: () weighted sum of `losses`, where labels were passed.
        losses: each loss term by name, unweighted: "object" and "predicate", where their labels were passed.
        predicate_logits: (B, R, P) under the prior of the current mode; 0 where no pair is.
        object_logits: (B, N, C + 1), the last class is background; 0 for a track that is padding.
        pair_index: (B, R, 2) subject and object track of each pair, -100 where no pair is.
        pair_mask: (B, R) bool, True where a pair is.
        references: (B, R, D) relation references, what prototypes summarise.
        responsibilities: (B, R, P) share of each prototype in the judgement, where prototypes are used.
        hidden_states: tracks (B, N, D) and pairs (B, R, D), if asked for by `output_hidden_states`.
    """

    loss: Tensor | None = None
    losses: dict[str, Tensor] | None = None
    predicate_logits: Tensor | None = None
    object_logits: Tensor | None = None
    pair_index: Tensor | None = None
    pair_mask: Tensor | None = None
    references: Tensor | None = None
    responsibilities: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


def judge_segments(
    model: PreTrainedModel, inputs: Mapping[str, Tensor], segments_per_pass: int = 8
) -> VideoRelationOutput | None:
    """Judge the segments of `VideoRelationProcessor` a few at a time; their pairs decide how much memory it takes.

    Args:
        model: a relation model, in evaluation mode.
        inputs: batch of the processor.
        segments_per_pass: segments per forward pass.

    Returns:
        Logits and pairs of all segments, without losses and references; None without segments.
    """
    padding = {"predicate_logits": 0, "object_logits": 0, "pair_index": IGNORED_LABEL, "pair_mask": False}
    parts = []
    for start in range(0, len(inputs["track_boxes"]), segments_per_pass):
        stop = start + segments_per_pass
        parts.append(model(**{name: value[start:stop].to(model.device) for name, value in inputs.items()}))
    if not parts:
        return None
    joined: dict[str, Tensor] = {}
    for name, fill in padding.items():
        values = [part[name] for part in parts]
        widest = max(value.shape[1] for value in values)
        after = [0, 0] * (values[0].dim() - 2)  # axes behind the second stay as they are
        joined[name] = torch.cat([F.pad(one, [*after, 0, widest - one.shape[1]], value=fill) for one in values])
    return VideoRelationOutput(**joined)  # type: ignore[arg-type]
