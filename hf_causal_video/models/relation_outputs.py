"""What a relation model returns: object classes of the tracks and predicates of the pairs."""

from dataclasses import dataclass

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
