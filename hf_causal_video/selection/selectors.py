"""Selectors behind one interface: a clip, a question and a budget in; frames, scores and a reason out.

Why one interface: a choice of frames can only be called better than even spacing if both are asked in the same way, of
the same candidates, for the same budget. `causal.py` holds the selector this package is about.

    select(video or features, question, budget) -> Selection(frame_indices, scores, reason, ...)
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from hf_causal_video.selection.budget import TokenBudget
from hf_causal_video.selection.clip import Clip, Source
from hf_causal_video.selection.rules import RULES, Selection, best_and_different, check_count, evenly, over_scenes
from hf_causal_video.utils.checks import check_choice, check_number, check_text
from hf_causal_video.utils.errors import require


class Ranking(NamedTuple):
    """Scores of a clip's candidates.

    Args:
        scores: (T,), higher is better, -inf for a frame that may not be chosen.
        reason: the sentence behind them.
        vectors: (T, C) unit vectors of the frames, for rules that compare frames.
        kept: (T,) bool, the frames that a model keeps to answer from.
    """

    scores: np.ndarray
    reason: str
    vectors: np.ndarray | None = None
    kept: np.ndarray | None = None


class FrameSelector:
    """Base of the selectors: reads the clip, resolves the budget, checks the scores, writes the record.

    A new selector defines `rank`, which scores every candidate; the highest scores are chosen.

    Args:
        sampling: which moments of a file, or of more frames than that, are candidates, see `decode_video`.
        scene_s: judge each frame with the seconds around it, see `over_scenes`; 0 judges it alone.
        rule: from scores to frames, a name of `choice.RULES`.
    """

    needs_question = True

    def __init__(self, sampling: str = "uniform-64", scene_s: float = 0.0, rule: str = "best"):
        check_number("scene", scene_s, 0, fix="try 5")
        check_choice("rule", rule, RULES)
        self.sampling = sampling
        self.scene_s = scene_s
        self.rule = rule

    def rank(self, clip: Clip, question: str, choices: Sequence[str] | None) -> Ranking:
        """Score the T candidates of a clip."""
        raise NotImplementedError

    def order(self, ranking: Ranking, count: int) -> np.ndarray:
        """The chosen candidates, best first."""
        return RULES[self.rule][0](ranking.scores, count, ranking.vectors)

    def select(
        self,
        video: Source | Clip,
        question: str | None,
        budget: "int | TokenBudget",
        choices: Sequence[str] | None = None,
        timestamps_s: Sequence[float] | Tensor | None = None,
    ) -> Selection:
        """Choose frames of a clip.

        Args:
            video: a path, frames or features, see `Clip.read`; or a `Clip`.
            question: in words; even spacing and chance do without.
            budget: how many frames, or a `TokenBudget`.
            choices: the answers a multiple-choice question offers. Only a selector that says so reads them.
            timestamps_s: seconds of frames or features that do not bring their own.

        Raises:
            CausalVideoError: no question, a budget of zero or beyond the clip, times that are missing or do not
                increase, scores that are NaN or infinite.
        """
        if self.needs_question:
            check_text("question", question, fix="pass the question")
        clip = video if isinstance(video, Clip) else Clip.read(video, timestamps_s, self.sampling)
        fits = budget.in_frames(clip) if isinstance(budget, TokenBudget) else check_count(budget, len(clip))
        ranking = self.rank(clip, question or "", choices)
        scores = ranking.scores
        require(
            scores.shape == (len(clip),) and not np.isnan(scores).any() and not (scores == np.inf).any(),
            "invalid frame scores",
            found=f"shape {scores.shape}, {int(np.isnan(scores).sum())} NaN",
            expected=f"({len(clip)},) numbers, -inf for a frame that may not be chosen",
            fix="check the features of this clip for NaN, and that the model was trained",
        )
        count = check_count(fits, int(np.isfinite(scores).sum()))
        if self.scene_s:
            scores = over_scenes(scores, clip.times_s, self.scene_s)
            ranking = ranking._replace(
                scores=scores, reason=f"{ranking.reason}, with the {self.scene_s:g} s around each"
            )
        ranked = self.order(ranking, count)
        chosen = np.sort(ranked)
        reason = f"{count} of {len(clip)} frames {ranking.reason}"
        kept = None if ranking.kept is None else clip.positions[chosen[ranking.kept[chosen]]].tolist()
        if kept is not None and len(kept) < count:
            reason += f", the other {count - len(kept)} merely come next in its ranking"
        if RULES[self.rule][1]:
            reason += f", {RULES[self.rule][1]} ({self.rule})"
        return Selection(
            frame_indices=clip.positions[chosen].tolist(),
            timestamps_s=clip.times_s[chosen].tolist(),
            ranked=clip.positions[ranked].tolist(),
            candidates=clip.positions.tolist(),
            scores=scores.astype(float).tolist(),
            reason=reason,
            kept=kept,
        )


class UniformSelector(FrameSelector):
    """Frames at equal distances: the default of video processors, and the baseline of every selector.

    Example:
        >>> UniformSelector().select(torch.zeros(8, 4), None, 2, timestamps_s=range(8)).frame_indices
        [2, 6]
    """

    needs_question = False

    def rank(self, clip: Clip, question: str, choices: Sequence[str] | None) -> Ranking:
        """All alike."""
        return Ranking(np.zeros(len(clip)), "at equal distances, whatever the question")

    def order(self, ranking: Ranking, count: int) -> np.ndarray:
        """The centres of equal stretches."""
        return evenly(len(ranking.scores), count)


class RandomSelector(FrameSelector):
    """Random frames; the same for the same seed, question and number of candidates.

    Example:
        >>> clip = torch.zeros(8, 4)
        >>> a, b = (RandomSelector(seed=3).select(clip, "why", 2, timestamps_s=range(8)) for _ in range(2))
        >>> a.frame_indices == b.frame_indices
        True
    """

    needs_question = False

    def __init__(self, seed: int = 0, sampling: str = "uniform-64"):
        super().__init__(sampling)
        self.seed = seed

    def rank(self, clip: Clip, question: str, choices: Sequence[str] | None) -> Ranking:
        """Draws between 0 and 1."""
        digest = hashlib.sha256(question.encode()).digest()[:4]
        draw = np.random.default_rng([self.seed, int.from_bytes(digest, "little")])
        return Ranking(draw.random(len(clip)), f"by chance (seed {self.seed})")


class TextSide(Protocol):
    """Interface of an encoder for similarity to features: text as unit vectors of their space."""

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """(n, C)."""


class TwoSided(TextSide, Protocol):
    """Interface of an encoder for similarity to frames: text and frames as unit vectors of one space."""

    def encode_frames(self, frames: Sequence[np.ndarray]) -> Tensor:
        """(T, C)."""


class SimilaritySelector(FrameSelector):
    """Frames whose picture is most similar to the question, by the cosine of any dual encoder.

    With `diversity` the choice is spread by maximal marginal relevance, see `best_and_different`: similar to the
    question and unlike each other.

    Args:
        encoder: a `DualEncoder`, or anything with its two methods; for clips given as features `encode_text` is
            enough. Of features only the width can be checked: they must be vectors of the encoder's joint space.
        diversity: 0 takes the most similar frames, more spreads them, at most 1.
        sampling, scene_s, rule: as in `FrameSelector`.

    Example:
        >>> class Encoder:
        ...     def encode_text(self, texts):
        ...         return torch.tensor([[1.0, 0.0]] * len(texts))
        >>> frames = torch.tensor([[0.0, 1.0], [1.0, 0.1], [0.5, 0.5]])
        >>> SimilaritySelector(Encoder()).select(frames, "a dog", 1, timestamps_s=[0, 1, 2]).frame_indices
        [1]
    """

    def __init__(
        self,
        encoder: TextSide,
        diversity: float = 0.0,
        sampling: str = "uniform-64",
        scene_s: float = 0.0,
        rule: str = "best",
    ):
        super().__init__(sampling, scene_s, rule)
        check_number("diversity", diversity, 0, 1, fix="try 0.5")
        one_way = not diversity or rule == "best"
        problem = f"{diversity} with the rule {rule}"
        require(one_way, "diversity", found=problem, expected="one way to spread frames", fix="set diversity to 0")
        self.encoder = encoder
        self.diversity = float(diversity)

    def rank(self, clip: Clip, question: str, choices: Sequence[str] | None) -> Ranking:
        """Cosine of the question to each frame."""
        if clip.features is not None:
            frames = clip.features.frame_features
        else:
            frames = cast(TwoSided, self.encoder).encode_frames(clip.frames or [])
        text = self.encoder.encode_text([question])
        require(
            text.shape[1] == frames.shape[1],
            "similarity",
            found=f"text vectors of width {text.shape[1]}, frames of width {frames.shape[1]}",
            expected="both from one encoder",
            fix="pass the clip itself, or features that the same encoder made (layer 'projected', or its words)",
        )
        frames = torch.nn.functional.normalize(frames.detach().float().cpu(), dim=-1)  # (T, C)
        text = torch.nn.functional.normalize(text.detach().float().cpu(), dim=-1)
        reason = "most similar to the question"
        if self.diversity:
            reason += f" and unlike each other (diversity {self.diversity:g})"
        return Ranking((frames @ text[0]).double().numpy(), reason, frames.double().numpy())

    def order(self, ranking: Ranking, count: int) -> np.ndarray:
        """The best, or the best and different."""
        if not self.diversity:
            return super().order(ranking, count)
        assert ranking.vectors is not None
        return best_and_different(ranking.scores, ranking.vectors, count, self.diversity)
