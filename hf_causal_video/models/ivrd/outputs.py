"""What a relation model returns: object classes of the tracks and predicates of the pairs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.utils import ModelOutput


@dataclass
class VideoRelationOutput(ModelOutput):
    """Output of a relation model; B segments, N tracks, C object classes, R pairs of the whole batch, P predicates.

    Args:
        loss: () weighted sum of `losses`, where labels were given.
        losses: each loss term by name, unweighted.
        predicate_logits: (R, P) under the prior of the current mode.
        object_logits: (B, N, C + 1), the last class is background; 0 for a track that is padding.
        pair_index: (R, 2) subject and object track of each pair.
        pair_video: (R,) row of the batch that each pair belongs to.
        references: (R, D) relation references, what prototypes summarise.
        responsibilities: (R, P) share of each prototype in the judgement, where prototypes are used.
    """

    loss: Tensor | None = None
    losses: dict[str, Tensor] | None = None
    predicate_logits: Tensor | None = None
    object_logits: Tensor | None = None
    pair_index: Tensor | None = None
    pair_video: Tensor | None = None
    references: Tensor | None = None
    responsibilities: Tensor | None = None


def judge_segments(model: Any, inputs: Mapping[str, Tensor], at_once: int = 8) -> VideoRelationOutput | None:
    """Judge the segments of `VideoRelationProcessor` a few at a time, for their pairs decide how much memory it takes.

    Args:
        model: a relation model, in evaluation mode.
        inputs: what the processor returned.
        at_once: segments a pass.

    Returns:
        What the passes say together, without losses and references; None without segments.
    """
    names = ("predicate_logits", "object_logits", "pair_index", "pair_video")
    columns: dict[str, Any] = {name: [] for name in names}
    for start in range(0, len(inputs["track_boxes"]), at_once):
        part = model(**{name: value[start : start + at_once].to(model.device) for name, value in inputs.items()})
        for name in names:
            columns[name].append(part[name] + start if name == "pair_video" else part[name])
    if not columns[names[0]]:
        return None
    joined: dict[str, Any] = {name: torch.cat(values) for name, values in columns.items()}
    return VideoRelationOutput(**joined)
