"""Every random draw of a training step, so that a test can hand in stored ones."""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Draws:
    """What is None is drawn anew. G groundings, n negative copies, T frames.

    Args:
        gumbel: (G, 2, T) noise of the grounding, causal first.
        gumbel_mixed: (B, 2, T) noise of the second grounding (EIGV).
        foreign: (G, T) flat index `row * T + frame` of the frames that replace an environment.
        foreign_negative: (n, B, T) the same for causal scenes (EIGV).
        lambda1, lambda2: () or (B,) mixing coefficients (EIGV).
        partner: (B,) row that each sample is mixed with (EIGV).
        question_swap: (n, B) flat index `copy * B + row` of the question that each copy is asked instead (EIGV).
    """

    gumbel: Tensor | None = None
    gumbel_mixed: Tensor | None = None
    foreign: Tensor | None = None
    foreign_negative: Tensor | None = None
    lambda1: Tensor | None = None
    lambda2: Tensor | None = None
    partner: Tensor | None = None
    question_swap: Tensor | None = None
