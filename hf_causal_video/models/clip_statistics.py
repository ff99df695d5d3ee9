"""How far a clip lies from the clips that a model was trained on.

Why: a model answers questions about anything that has features. A clip from another world (drawings for films, another
camera) deserves a note next to the answer. The distance is cheap: the clip's mean feature against mean and spread of
the training clips' mean features, channel by channel.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

FAR = 1.5  # times the distance that 99 of 100 training clips stay within
DIGITS = 4  # significant digits that are stored


@dataclass
class ClipStatistics:
    """Mean and spread of clips, and the distance that is far.

    Args:
        mean: (C,) mean over clips of their mean frame feature.
        spread: (C,) standard deviation of the same.
        limit: distance from which on a clip is unlike them.

    Example:
        >>> clips = [torch.full((4, 2), float(index)) for index in range(10)]
        >>> statistics = ClipStatistics.of_clips(clips)
        >>> [statistics.compare(torch.full((4, 2), value))["unlike"] for value in (5.0, 99.0)]
        [False, True]
    """

    mean: Sequence[float]
    spread: Sequence[float]
    limit: float

    @classmethod
    def of_clips(cls, clips: Iterable[Tensor]) -> "ClipStatistics":
        """Measure training clips, each (T, C)."""
        means = torch.stack([clip.double().mean(0) for clip in clips])  # (V, C)
        spread = means.std(0, correction=0)
        # a channel that is constant in training (a dead unit) must not turn a rounding error into a distance
        spread = spread.clamp(min=max(1e-2 * float(spread.mean()), 1e-6))
        statistics = cls(means.mean(0).tolist(), spread.tolist(), 0.0)
        distances = torch.tensor([statistics.distance(mean[None]) for mean in means])
        limit = FAR * float(distances.quantile(0.99))
        return cls(_rounded(statistics.mean), _rounded(statistics.spread), _rounded([max(limit, FAR)])[0])

    def distance(self, frame_features: Tensor) -> float:
        """Root mean square over channels of the clip's deviation in spreads; training clips have about 1."""
        mean = frame_features.double().mean(0)  # (C,)
        deviation = (mean - mean.new_tensor(self.mean)) / mean.new_tensor(self.spread)
        return float(deviation.square().mean().sqrt())

    def compare(self, frame_features: Tensor) -> dict[str, Any]:
        """Return the distance of a clip (T, C), the limit, and whether the clip is unlike the training clips."""
        distance = self.distance(frame_features)
        return {"distance": distance, "limit": self.limit, "unlike": distance > self.limit}

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, as the processor saves them."""
        return asdict(self)


def _rounded(values: Iterable[float]) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") for value in values]
