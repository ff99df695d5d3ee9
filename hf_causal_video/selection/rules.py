"""From a score for each frame to the frames themselves, and the record of what was chosen.

Why more than one rule: even spacing is what a choice must beat; the best scores alone may lie on stray frames, so they
may be judged with their scene; or lie side by side and show one moment eight times, so difference may be paid for.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hf_causal_video.utils.errors import CausalVideoError


@dataclass
class Selection:
    """The frames a selector chose, and why.

    Args:
        frame_indices: the chosen frames in order of time, zero-based among the frames that were given (for a file:
            among the moments looked at).
        timestamps_s: their seconds.
        ranked: the same frames, best first: the first k are the choice for a budget of k (not for even spacing).
        candidates: every frame that was scored, numbered alike.
        scores: the score of each candidate, higher is better.
        reason: one sentence on how they were chosen, and from what.
    """

    frame_indices: list[int]
    timestamps_s: list[float]
    ranked: list[int]
    candidates: list[int]
    scores: list[float]
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, ready for JSON; a frame that may never be chosen has the score null."""
        plain = asdict(self)
        plain["scores"] = [score if math.isfinite(score) else None for score in self.scores]
        return plain


def evenly(total: int, count: int) -> np.ndarray:
    """The frames at the centres of `count` equal stretches of `total` frames.

    Example:
        >>> evenly(16, 4).tolist()
        [2, 6, 10, 14]
    """
    return ((2 * np.arange(count) + 1) * total) // (2 * count)


def best(scores: np.ndarray, count: int) -> np.ndarray:
    """The `count` highest scores, best first; of equals the earlier.

    Example:
        >>> best(np.array([0.1, 0.9, 0.9, 0.3]), 3).tolist()
        [1, 2, 3]
    """
    return np.argsort(-scores, kind="stable")[:count]


def over_scenes(scores: np.ndarray, times_s: np.ndarray, scene_s: float) -> np.ndarray:
    """Each frame judged with those around it: the mean score within `scene_s / 2` seconds on either side.

    An event lasts longer than a frame, so a frame beside several good ones is better evidence than a lone peak.

    Args:
        scores: (T,), -inf where a frame may not be chosen; it is left out of the means and stays so.
        times_s: (T,) increasing.
        scene_s: width in seconds.

    Example:
        >>> over_scenes(np.array([9.0, 0.0, 0.0, 6.0, 6.0, 6.0]), np.arange(6.0), 2.0).tolist()
        [4.5, 3.0, 2.0, 4.0, 6.0, 6.0]
    """
    near = np.abs(times_s[:, None] - times_s) <= scene_s / 2  # (T, T)
    near &= np.isfinite(scores)
    total = near @ np.where(np.isfinite(scores), scores, 0.0)
    return np.where(np.isfinite(scores), total / np.maximum(near.sum(1), 1), -np.inf)


def best_and_different(scores: np.ndarray, vectors: np.ndarray, count: int, diversity: float = 0.5) -> np.ndarray:
    """Maximal marginal relevance: the next frame is good, and unlike those already taken.

    With r the scores scaled to [0, 1] and S the frames taken so far, the next frame is
    argmax_i (1 - diversity) r_i - diversity * max_{j in S} cos(v_i, v_j).

    Args:
        scores: (T,).
        vectors: (T, C) unit vectors of the frames.
        count: frames to take.
        diversity: 0 is `best`; 1 looks at difference alone after the first.

    Reference: Carbonell and Goldstein, "The use of MMR", SIGIR 1998.

    Example:
        >>> alike = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> best_and_different(np.array([1.0, 0.9, 0.5]), alike, 2).tolist()
        [0, 2]
    """
    low, high = float(scores.min()), float(scores.max())
    worth = (scores - low) / (high - low) if high > low else np.zeros_like(scores)
    taken = [int(worth.argmax())]
    nearest = np.full(len(scores), -np.inf)
    while len(taken) < count:
        nearest = np.maximum(nearest, vectors @ vectors[taken[-1]])  # (T,)
        gain = (1 - diversity) * worth - diversity * nearest
        gain[taken] = -np.inf
        taken.append(int(gain.argmax()))
    return np.array(taken)


def check_count(count: object, available: int) -> int:
    """The number of frames asked for, refused unless it is 1 to what there is.

    Example:
        >>> check_count(0, 16)
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: budget: found 0 frames; expected 1 to 16. Fix: ...
    """
    if isinstance(count, bool) or not isinstance(count, int | np.integer) or not 1 <= count <= available:
        raise CausalVideoError(
            "budget",
            found=f"{count} frames",
            expected=f"1 to {available}, the frames that can be chosen",
            fix="ask for one frame or more"
            if isinstance(count, int | np.integer) and count < 1
            else "ask for fewer frames, or look at more moments of the clip (sampling='uniform-128')",
        )
    return int(count)
