"""From a score for each frame to the frames themselves, and the record of what was chosen.

Why more than one rule: even spacing is what a choice must beat; the best scores alone may lie on stray frames, so they
may be judged with their scene; or lie side by side and show one moment eight times, so difference may be paid for.
`RULES` has one function per name, all with the arguments scores (T,), count and vectors (T, C) of the frames; a score
of -inf marks a frame that may not be chosen, and callers leave at least `count` others.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from hf_causal_video.utils.checks import is_whole
from hf_causal_video.utils.errors import CausalVideoError, require


@dataclass
class Selection:
    """The frames a selector chose, and why.

    Args:
        frame_indices: the chosen frames in order of time, zero-based among the frames that were given (for a file:
            among the moments looked at).
        timestamps_s: their seconds.
        ranked: the same frames, best first: the first k are the choice for a budget of k (except where the budget
            decides the spacing: `uniform`, `inverse_transform`, `split_judge`).
        candidates: every frame that was scored, numbered alike.
        scores: the score of each candidate, higher is better.
        reason: one sentence on how they were chosen, and from what.
        kept: those of the chosen frames that the selecting model itself keeps to answer from; the others only come
            next in its ranking. None for selectors without such a model.
    """

    frame_indices: list[int]
    timestamps_s: list[float]
    ranked: list[int]
    candidates: list[int]
    scores: list[float]
    reason: str
    kept: list[int] | None = None

    def to_dict(self) -> dict[str, object]:
        """Plain lists and numbers, ready for JSON; a frame that may never be chosen has the score null."""
        plain = asdict(self)
        plain["scores"] = [score if math.isfinite(score) else None for score in self.scores]
        return plain


def evenly(total: int, count: int) -> np.ndarray:
    """Frames at the centres of `count` equal stretches of `total` frames.

    Example:
        >>> evenly(16, 4).tolist()
        [2, 6, 10, 14]
    """
    return ((2 * np.arange(count) + 1) * total) // (2 * count)


def best(scores: np.ndarray, count: int) -> np.ndarray:
    """Positions of the `count` highest scores, best first; among equals the earlier.

    Example:
        >>> best(np.array([0.1, 0.9, 0.9, 0.3]), 3).tolist()
        [1, 2, 3]
    """
    return np.argsort(-scores, kind="stable")[:count]


def over_scenes(scores: np.ndarray, times_s: np.ndarray, scene_s: float) -> np.ndarray:
    """Average each score with those within `scene_s / 2` seconds on either side.

    An event lasts longer than a frame, so a frame among several good ones is better evidence than a single peak.

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

    Source: Carbonell and Goldstein, "The use of MMR", SIGIR 1998.

    Example:
        >>> alike = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> best_and_different(np.array([1.0, 0.9, 0.5]), alike, 2).tolist()
        [0, 2]
    """
    worth = np.where(np.isfinite(scores), _scaled(scores), -np.inf)
    taken = [int(worth.argmax())]
    nearest = np.full(len(scores), -np.inf)
    while len(taken) < count:
        nearest = np.maximum(nearest, vectors @ vectors[taken[-1]])  # (T,)
        gain = (1 - diversity) * worth - diversity * nearest
        gain[taken] = -np.inf
        taken.append(int(gain.argmax()))
    return np.array(taken)


def inverse_transform(scores: np.ndarray, count: int, power: float = 3.0) -> np.ndarray:
    """Inverse-transform sampling: frames at equal steps of the cumulative score, so more where scores are high.

    With r the scores scaled to [0, 1], p = r^power / sum(r^power) and F its cumulative sum, the j-th frame, j from 0
    on, is the first with F >= (j + 0.5) / count. The paper's steps are (j + 1) / count, whose last frame is always the
    last one with a score above the lowest; ours are the centres of these steps. A frame that would come twice is
    replaced by the best one not taken (ours too).

    Args:
        scores: (T,).
        count: frames to take.
        power: sharpens (the paper's alpha: 3 on Video-MME and MLVU, 2.5 on shorter videos); 0 is even spacing.

    Source: Liu et al., "BOLT", CVPR 2025 (arXiv 2503.21483). Formula and values of alpha after published summaries of
    the paper; the paper itself could not be opened.

    Example:
        >>> inverse_transform(np.array([0.0, 0.0, 0.0, 1.0, 0.9, 0.0, 0.0, 0.5]), 3).tolist()
        [3, 4, 7]
    """
    worth = _scaled(scores)
    weight = np.where(np.isfinite(scores), worth**power, 0.0)
    if not weight.any():
        weight = np.isfinite(scores).astype(float)
    cumulative = weight.cumsum() / weight.sum()
    taken = np.unique(np.searchsorted(cumulative, (np.arange(count) + 0.5) / count))
    others = best(scores, len(scores))
    fill = others[~np.isin(others, taken)][: count - len(taken)]
    chosen = np.concatenate([taken, fill])
    return chosen[np.argsort(-scores[chosen], kind="stable")]


def split_judge(scores: np.ndarray, count: int, threshold: float = 0.8, depth: int = 5) -> np.ndarray:
    """Adaptive keyframes: take the best of a stretch if they stand out, else halve stretch and budget and judge again.

    With r the scores scaled to [0, 1], the best k of a stretch stand out if mean(best k of r) - mean(r) >= threshold.
    The paper judges matching probabilities as they are; scaling makes its threshold fit scores of any range. An odd
    budget gives one frame more to the half with the better frame, and a stretch with fewer than twice the frames
    wanted is not halved; what the paper does there is not known to us.

    Args:
        scores: (T,).
        count: frames to take.
        threshold: the paper's 0.8; 0 is `best`, above 1 always halves.
        depth: how often at most a stretch is halved, the paper's 5.

    Source: Tang et al., "Adaptive Keyframe Sampling for Long Video Understanding", CVPR 2025 (arXiv 2502.21271). Rule
    and constants after published summaries of the paper; the paper itself could not be opened.

    Example:
        >>> split_judge(np.array([0.9, 0.8, 0.1, 0.1, 0.3, 0.2, 0.1, 0.0]), 2).tolist()
        [0, 4]
    """
    real = np.flatnonzero(np.isfinite(scores))
    worth = _scaled(scores)

    def judge(stretch: np.ndarray, wanted: int, level: int) -> list[int]:
        if wanted == 0:
            return []
        top = stretch[best(worth[stretch], wanted)]
        stands_out = worth[top].mean() - worth[stretch].mean() >= threshold
        if wanted == 1 or level == depth or stands_out or len(stretch) < 2 * wanted:
            return top.tolist()
        left, right = np.array_split(stretch, 2)
        more = wanted - wanted // 2
        first = more if worth[left].max() >= worth[right].max() else wanted - more
        return judge(left, first, level + 1) + judge(right, wanted - first, level + 1)

    chosen = np.array(judge(real, count, 0))
    return chosen[np.argsort(-scores[chosen], kind="stable")]


def determinantal(scores: np.ndarray, vectors: np.ndarray, count: int, sharpness: float = 3.0) -> np.ndarray:
    """Greedy mode of a determinantal point process: good frames that span as much as they can.

    With r the scores scaled to [0, 1] and L_ij = e^(s r_i) cos(v_i, v_j) e^(s r_j), the next frame raises

        log det L_S = 2 s sum_{i in S} r_i + log det [cos(v_i, v_j)]_S

    of the frames taken most. MDP3 has the same trade, (1 / lambda) sum log g_i^2 + log det K_S with lambda = 0.2; its
    g (frame and question) and K (frames) are means of Gaussian kernels of five widths. Ours are an exponential of any
    score and the cosine, so that the rule works on scores of any kind; s is not 1 / lambda. Its dynamic program
    over segments of 32 frames, which divides the budget among them, is left out.

    Args:
        scores: (T,).
        vectors: (T, C) unit vectors of the frames.
        count: frames to take.
        sharpness: s, how much a score weighs against difference; ours.

    Source: Sun et al., "MDP3", ICCV 2025 (arXiv 2501.02885), kernel and constants after published summaries of the
    paper, which could not be opened; greedy: Chen et al., "Fast greedy MAP inference for DPP", NeurIPS 2018.

    Example:
        >>> alike = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> determinantal(np.array([1.0, 0.9, 0.5]), alike, 2).tolist()
        [0, 2]
    """
    quality = np.exp(sharpness * _scaled(scores))
    kernel = quality[:, None] * (vectors @ vectors.T + 1e-6 * np.eye(len(scores))) * quality  # (T, T)
    gain = np.where(np.isfinite(scores), np.diag(kernel), -np.inf)  # squared height over the span of those taken
    rows = np.zeros((0, len(scores)))
    taken: list[int] = []
    while len(taken) < count:
        at = int(gain.argmax())
        row = (kernel[at] - rows[:, at] @ rows) / math.sqrt(max(float(gain[at]), 1e-12))
        rows = np.vstack([rows, row])
        gain = gain - row**2
        taken.append(at)
        gain[taken] = -np.inf
    return np.array(taken)


def _scaled(scores: np.ndarray) -> np.ndarray:
    """Scores scaled to [0, 1]; 0 where a frame may not be chosen, or where all are alike."""
    real = np.isfinite(scores)
    low, high = scores[real].min(), scores[real].max()
    return np.where(real, (scores - low) / (high - low), 0.0) if high > low else np.zeros(len(scores))


Rule = Callable[[np.ndarray, int, np.ndarray | None], np.ndarray]
RULES: dict[str, tuple[Rule, str]] = {
    "best": (lambda scores, count, vectors: best(scores, count), ""),
    "inverse_transform": (
        lambda scores, count, vectors: inverse_transform(scores, count),
        "at equal steps of the cumulative score",
    ),
    "split_judge": (
        lambda scores, count, vectors: split_judge(scores, count),
        "stretches halved until the best stand out",
    ),
    "determinantal": (
        lambda scores, count, vectors: determinantal(scores, _needed(vectors), count),
        "spanning as much as they can",
    ),
}


def _needed(vectors: np.ndarray | None) -> np.ndarray:
    if vectors is None:
        raise CausalVideoError(
            "the rule determinantal",
            found="a selector without vectors of the frames",
            expected="a selector by similarity",
            fix="use SimilaritySelector, or another rule",
        )
    return vectors


def check_count(count: object, available: int) -> int:
    """Read a number of frames: 1 to the number available.

    Example:
        >>> check_count(0, 16)
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: budget: found 0 frames; expected 1 to 16. Fix: ...
    """
    fix = "ask for fewer frames, or look at more moments of the clip (sampling='uniform-128')"
    if is_whole(count, -(10**9), 0):
        fix = "ask for one frame or more"
    require(
        is_whole(count, 1, available),
        "budget",
        found=f"{count} frames",
        expected=f"1 to {available}, the frames that can be chosen",
        fix=fix,
    )
    return int(count)  # type: ignore[call-overload]
