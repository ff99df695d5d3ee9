"""Similarities measured outside the model, as evidence in addition to what the transformer learns.

Why: frames and choices often come from encoders that share a space (CLIP; a sentence encoder over captions), and their
cosine says more about a few thousand questions than layers that start from nothing can learn. So the selector may rank
frames by it, and an answer may rest on it, but only on frames that were kept: what is shown is what was used.

Not part of the published TranSTR; off unless `num_similarities` is set.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from hf_causal_video.models.transtr.configuration_transtr import TranSTRConfig
from hf_causal_video.utils.errors import require, require_values


class SimilarityHead(nn.Module):
    """Rank frames, and score choices on the kept frames, by S given similarities.

    Args:
        channels: S.

    Example:
        >>> head = SimilarityHead(1)
        >>> similarities = torch.tensor([[[[0.0], [0.9], [0.1]], [[0.2], [0.0], [0.1]]]])  # (B, A, T, S)
        >>> mask = torch.ones(1, 3, dtype=torch.bool)
        >>> head(similarities, mask).argmax(-1), head(similarities, mask.float(), part="answer").argmax(-1)
        (tensor([1]), tensor([0]))
    """

    def __init__(self, channels: int):
        super().__init__()
        self.ranking = nn.Parameter(torch.empty(channels))
        self.peak = nn.Parameter(torch.empty(channels))
        self.mean = nn.Parameter(torch.empty(channels))
        self.sharpness = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start as the mean of the similarities, and half their peak."""
        nn.init.constant_(self.ranking, 1.0 / len(self.ranking))
        nn.init.constant_(self.peak, 0.5)
        nn.init.zeros_(self.mean)
        nn.init.constant_(self.sharpness, 2.0)

    def forward(
        self,
        similarities: Tensor,
        frames: Tensor,
        present: Tensor | None = None,
        part: Literal["rank", "answer"] = "rank",
    ) -> Tensor:
        """Rank frames, given their mask, or score choices, given how surely each frame was kept."""
        return self._rank(similarities, frames, present) if part == "rank" else self._answer(similarities, frames)

    def _rank(self, similarities: Tensor, mask: Tensor, present: Tensor | None = None) -> Tensor:
        """Score frames by their best choice, in deviations from the clip's mean.

        Args:
            similarities: (B, A, T, S).
            mask: (B, T) bool, True where real.
            present: (B, A) bool, False at absent choices.

        Returns:
            (B, T).
        """
        if present is not None:
            similarities = similarities.masked_fill(~present[:, :, None, None], -torch.inf)
        best = similarities.amax(1)  # (B, T, S)
        weight = mask.unsqueeze(-1).to(best.dtype)
        count = weight.sum(1, keepdim=True)
        best = best - (best * weight).sum(1, keepdim=True) / count
        spread = ((best.square() * weight).sum(1, keepdim=True) / count + 1e-4).sqrt()
        return (best / spread) @ self.ranking

    def _answer(self, similarities: Tensor, share: Tensor) -> Tensor:
        """Score choices by the peak and the mean of their similarities over kept frames.

        Args:
            similarities: (B, A, T, S).
            share: (B, T) how surely each frame was kept, in [0, 1]; a frame counts by it.

        Returns:
            (B, A).
        """
        share = share.to(similarities.dtype)[:, None, :, None]  # (B, 1, T, 1)
        mean = (similarities * share).sum(2) / share.sum(2)  # (B, A, S)
        sharp = (similarities * self.sharpness).masked_fill(share == 0, -torch.inf)
        weight = share * (sharp - sharp.amax(2, keepdim=True).detach()).exp()  # (B, A, T, S)
        peak = (similarities * weight).sum(2) / weight.sum(2)  # (B, A, S): a soft maximum
        return peak @ self.peak + mean @ self.mean


def check_similarities(config: TranSTRConfig, similarities: Tensor | None, choices: int, mask: Tensor) -> Tensor:
    """The similarities (B, A, T, S) for A choices and the frames of mask (B, T); an error where they do not fit."""
    expected = (len(mask), choices, mask.shape[1], config.num_similarities)
    fix = "measure each choice against each frame, or train with num_similarities=0"
    shape = None if similarities is None else tuple(similarities.shape)
    require(shape == expected, "similarities (B, A, T, S)", found=shape, expected=expected, fix=fix)
    assert similarities is not None
    finite = similarities.isfinite().all()
    require_values(finite, "similarities", found=lambda: "NaN or infinity", expected="finite numbers", fix=fix)
    return similarities
