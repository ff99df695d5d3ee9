"""Scene intervention: put frames of other videos in the place of a clip's environment, or of its causal scene.

Why: an answer that rests on causes must not move when the surroundings are another video's. That is the operation
do(environment), made of what a training step has at hand: the other clips of the batch, or a bank of training videos.

Source: IGV (arXiv 2206.02349) section 3.3; its authors state that frames of the batch serve as well as their bank.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_causal_video.utils.errors import CausalVideoError, require_values


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
        wanted = self.frames.shape[:2]
        if self.frames.dim() != 3 or len(self.video_ids) != len(self.frames):
            raise CausalVideoError(
                "frame bank",
                found=f"frames {tuple(self.frames.shape)}, {len(self.video_ids)} video ids",
                expected="frames (S, T, C) and S ids",
                fix="give one id a row",
            )
        if self.mask is not None and self.mask.shape != wanted:
            raise CausalVideoError(
                "frame bank", found=f"a mask {tuple(self.mask.shape)}", expected=tuple(wanted), fix="one entry a frame"
            )

    def draw(self, own: Tensor, positions: int) -> Tensor:
        """Draw for each row and position, uniformly and with replacement, a frame of none of the row's own videos.

        Args:
            own: (R,) or (R, E) int, ids of the videos that a row must not draw from.
            positions: how many frames a row needs.

        Returns:
            (R, positions) int: flat index `row * T + frame` into the bank.

        Raises:
            CausalVideoError: a row for which no frame of another video is there.

        Example:
            >>> bank = FrameBank(torch.zeros(3, 2, 4), torch.tensor([7, 8, 7]))
            >>> bank.draw(torch.tensor([7, 7]), 5).unique()
            tensor([2, 3])
        """
        index, possible = self.try_draw(own, positions)
        require_values(
            possible.all(),
            "nothing to swap frames with",
            found=lambda: f"{self.video_ids.unique().numel()} video(s) to draw from, and rows that may use none",
            expected="frames of a video that is not the row's own (nor its partner's)",
            fix="use larger batches of different videos (drop the last short one), or a larger bank",
        )
        return index

    def try_draw(self, own: Tensor, positions: int) -> tuple[Tensor, Tensor]:
        """Draw as `draw` does, and return which rows (R,) had another video; the others get any frame."""
        ids = self.video_ids.to(own.device).repeat_interleave(self.frames.shape[1])  # (S*T,)
        count = own.new_tensor(len(ids)) if self.mask is None else self.mask.to(own.device).sum()
        if self.mask is not None:  # padding is sorted to the end
            ids = ids.masked_fill(~self.mask.to(own.device).flatten(), torch.iinfo(ids.dtype).max)
        ids, order = ids.sort(stable=True)  # the frames of a video are now contiguous
        own = own.view(len(own), -1).sort(1).values.contiguous()  # (R, E)
        first, last = torch.searchsorted(ids, own), torch.searchsorted(ids, own, right=True)  # the block of each
        sizes = last - first  # (R, E)
        repeated = torch.nn.functional.pad(own[:, 1:] == own[:, :-1], (1, 0))
        sizes = sizes.masked_fill(repeated, 0)  # the same video named twice is one block
        free = count - sizes.sum(1)  # (R,)
        drawn = (torch.rand(len(own), positions, device=own.device) * free[:, None]).long()
        drawn = torch.minimum(drawn, free[:, None] - 1)  # a float may round up to `free`
        for block in range(own.shape[1]):  # step over the row's own blocks, in their order
            drawn = drawn + sizes[:, block, None] * (drawn >= first[:, block, None])
        return order[drawn.clamp(min=0).minimum(count - 1)], free > 0

    def take(self, index: Tensor) -> Tensor:
        """The frames (..., C) at flat indices, on the device of the index."""
        flat = self.frames.flatten(0, 1)
        return flat[index.to(flat.device)].to(index.device)


def swap_frames(frames: Tensor, swap: Tensor, foreign: Tensor) -> Tensor:
    """Replace frames; those that stay are bit-identical.

    Args:
        frames: (R, T, C).
        swap: (R, T) true where a frame is replaced: bool, then no gradient reaches the choice; or exactly 0 and 1
            with a straight-through gradient, which then does.
        foreign: (R, T, C) what stands there instead.

    Example:
        >>> swap_frames(torch.zeros(1, 2, 1), torch.tensor([[False, True]]), torch.ones(1, 2, 1)).flatten()
        tensor([0., 1.])
    """
    if swap.dtype == torch.bool:
        return torch.where(swap.unsqueeze(-1), foreign, frames)
    weight = swap.unsqueeze(-1).to(frames.dtype)
    return frames * (1 - weight) + foreign * weight
