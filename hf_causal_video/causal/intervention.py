"""Scene intervention: replace a clip's environment, or its causal scene, by frames of other videos.

Why: an answer that rests on causes must not change when the surroundings are another video's. That is the operation
do(environment), made of what a training step has available: the other clips of the batch, or a bank of training
videos. Kullback-Leibler divergences between answer distributions state the constraint; an absent candidate has the
lowest logit there is, its probability is 0, and log 0 must reach no gradient.

Source: IGV (arXiv 2206.02349) section 3.3; its authors state that frames of the batch serve as well as their bank.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_causal_video.utils.errors import require, require_values


@dataclass
class FrameBank:
    """Frames to draw replacements from.

    It is training state, no parameter: it is not part of a checkpoint unless asked for.

    Args:
        frames: (S, T, C) frames of S videos.
        video_ids: (S,) int, which video each row is of; rows of one video share an id.
        mask: (S, T) bool, true at real frames; None where all are.
    """

    frames: Tensor
    video_ids: Tensor
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.frames.shape)
        fits = len(shape) == 3 and len(self.video_ids) == shape[0]
        problem = f"frames {shape}, {len(self.video_ids)} video ids"
        require(fits, "frame bank", found=problem, expected="frames (S, T, C) and S ids")
        if self.mask is not None:
            fits = self.mask.shape == shape[:2]
            require(fits, "mask of a frame bank", found=tuple(self.mask.shape), expected=shape[:2])

    def draw(self, own_ids: Tensor, positions: int) -> Tensor:
        """Draw for each row and position, uniformly and with replacement, a frame of none of the row's own videos.

        Args:
            own_ids: (R,) or (R, E) int, ids of the videos that a row must not draw from.
            positions: how many frames a row needs.

        Returns:
            (R, positions) int: flat index `row * T + frame` into the bank.

        Raises:
            CausalVideoError: a row without any frame of another video.

        Example:
            >>> bank = FrameBank(torch.zeros(3, 2, 4), torch.tensor([7, 8, 7]))
            >>> bank.draw(torch.tensor([7, 7]), 5).unique()
            tensor([2, 3])
        """
        index, possible = self.try_draw(own_ids, positions)
        require_values(
            possible.all(),
            "nothing to swap frames with",
            found=lambda: f"{self.video_ids.unique().numel()} video(s) to draw from, and rows that may use none",
            expected="frames of a video that is not the row's own (nor its partner's)",
            fix="use larger batches of different videos (drop the last short one), or a larger bank",
        )
        return index

    def try_draw(self, own_ids: Tensor, positions: int) -> tuple[Tensor, Tensor]:
        """Draw as `draw` does, and return which rows (R,) had another video; the others get any frame."""
        ids = self.video_ids.to(own_ids.device).repeat_interleave(self.frames.shape[1])  # (S*T,)
        count = own_ids.new_tensor(len(ids)) if self.mask is None else self.mask.to(own_ids.device).sum()
        if self.mask is not None:  # padding is sorted to the end
            ids = ids.masked_fill(~self.mask.to(own_ids.device).flatten(), torch.iinfo(ids.dtype).max)
        ids, order = ids.sort(stable=True)  # the frames of a video are now contiguous
        own_ids = own_ids.view(len(own_ids), -1).sort(1).values.contiguous()  # (R, E)
        first = torch.searchsorted(ids, own_ids)  # (R, E) where the block of each video starts
        sizes = torch.searchsorted(ids, own_ids, right=True) - first
        repeated = F.pad(own_ids[:, 1:] == own_ids[:, :-1], (1, 0))
        sizes = sizes.masked_fill(repeated, 0)  # the same video named twice is one block
        free = count - sizes.sum(1)  # (R,)
        drawn = (torch.rand(len(own_ids), positions, device=own_ids.device) * free[:, None]).long()
        drawn = torch.minimum(drawn, free[:, None] - 1)  # a float may round up to `free`
        for block in range(own_ids.shape[1]):  # step over the row's own blocks, in their order
            drawn = drawn + sizes[:, block, None] * (drawn >= first[:, block, None])
        return order[drawn.clamp(min=0).minimum(count - 1)], free > 0

    def take(self, index: Tensor) -> Tensor:
        """Return the frames (..., C) at flat indices, on the device of the index."""
        flat = self.frames.flatten(0, 1)
        return flat[index.to(flat.device)].to(index.device)


def swap_frames(frames: Tensor, swap: Tensor, foreign: Tensor) -> Tensor:
    """Replace frames; those that stay are bit-identical.

    Args:
        frames: (R, T, C).
        swap: (R, T) true where a frame is replaced: bool, then no gradient reaches the choice; or exactly 0 and 1
            with a straight-through gradient, which then does.
        foreign: (R, T, C) the replacements.

    Example:
        >>> swap_frames(torch.zeros(1, 2, 1), torch.tensor([[False, True]]), torch.ones(1, 2, 1)).flatten()
        tensor([0., 1.])
    """
    if swap.dtype == torch.bool:
        return torch.where(swap.unsqueeze(-1), foreign, frames)
    weight = swap.unsqueeze(-1).to(frames.dtype)
    return frames * (1 - weight) + foreign * weight


def divergence(target: Tensor, logits: Tensor, rows: Tensor | None = None) -> Tensor:
    """KL(softmax(target) || softmax(logits)), mean over rows; the target learns too, unless it is detached.

    Args:
        target, logits: (B, A).
        rows: (B,) bool, rows that count; the mean is over those, and 0 without any.

    Example:
        >>> divergence(torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0, 3.0]]))
        tensor(0.)
    """
    target = target.float().log_softmax(-1)
    logits = logits.float().log_softmax(-1)
    # sum_a p(a) (log p(a) - log q(a))
    return _mean((target.exp() * (target - logits)).sum(-1), rows)


def uniformity(logits: Tensor, present: Tensor | None = None, rows: Tensor | None = None) -> Tensor:
    """KL(uniform || softmax(logits)): 0 where the answers are equally likely.

    Args:
        logits: (B, A).
        present: (B, A) bool, answers that the uniform distribution covers; None: all.
        rows: (B,) bool, rows that count; the mean is over those, and 0 without any.

    Example:
        >>> uniformity(torch.ones(2, 4)).abs() < 1e-6
        tensor(True)
    """
    logs = logits.float().log_softmax(-1)
    if present is None:
        # KL(u || p) = -mean log p - log A
        gap = -logs.mean(-1) - logs.new_tensor(logs.shape[-1]).log()
    else:
        count = present.sum(-1)
        gap = -logs.masked_fill(~present, 0.0).sum(-1) / count - count.log()
    return _mean(gap, rows)


def soft_target_loss(target: Tensor, logits: Tensor) -> Tensor:
    """KL(target || softmax(logits)), mean over rows; target (B, A) is a distribution and learns nothing."""
    return F.kl_div(logits.float().log_softmax(-1), target.float(), reduction="batchmean")


def _mean(values: Tensor, rows: Tensor | None) -> Tensor:
    if rows is None:
        return values.mean()
    return (values * rows).sum() / rows.sum().clamp(min=1)
