"""An intervention on the environment that costs no picture: swap visual tokens that are already there.

Why: if a language model answers from the causal frames, its answer must not change when the other frames are taken
from another video. Decoding and encoding those videos again for every intervention is what makes it too dear for a
large model; their tokens stand beside each other in the batch, at the input of the language model.

Source: the intervention of IGV (arXiv 2206.02349, section 3.3) on a video language model's tokens, the second open
question of the thesis (arXiv 2503.12447). No claim is made that it lessens hallucination: that was not measured.
"""

import torch
from torch import Tensor

from hf_causal_video.utils.errors import CausalVideoError


def frames_of_tokens(is_visual: Tensor, num_frames: int) -> Tensor:
    """Which frame each token shows: visual tokens come frame by frame, equally many each.

    Args:
        is_visual: (B, L) bool.
        num_frames: T; for a model that merges frames in pairs, the pairs.

    Returns:
        (B, L) int64, -1 for text and for visual tokens left over at the end (a closing newline).

    Raises:
        CausalVideoError: a clip with fewer visual tokens than frames.

    Example:
        >>> frames_of_tokens(torch.tensor([[False, True, True, True, True, True, False]]), 2).tolist()
        [[-1, 0, 0, 1, 1, -1, -1]]
    """
    each = is_visual.sum(1, keepdim=True) // max(num_frames, 1)  # (B, 1) tokens a frame
    if num_frames < 1 or (each == 0).any():
        raise CausalVideoError(
            "visual tokens",
            found=f"{is_visual.sum(1).tolist()} tokens",
            expected=f"at least one for each of {num_frames} frames",
            fix="mark the placeholders of the video, and count merged frames once",
        )
    place = is_visual.cumsum(1) - 1  # (B, L) number among the visual tokens
    frame = place // each
    return frame.where(is_visual & (frame < num_frames), -1)


def swap_sources(frame_of: Tensor, causal: Tensor, partner: Tensor | None = None) -> Tensor:
    """Where each token comes from when environment frames are exchanged between clips.

    The e-th environment frame of a clip gets the tokens of its partner's, counted in a circle where the partner has
    fewer. Text, causal frames and tokens of no frame stay where they are.

    Args:
        frame_of: (B, L) from `frames_of_tokens`.
        causal: (B, T) bool, the frames that hold the answer.
        partner: (B,) another clip for each; the next one of the batch by default.

    Returns:
        (B, L) int64 indices into the B*L tokens of the batch.

    Raises:
        CausalVideoError: one clip alone, a clip that is its own partner, a partner without environment, or frames of
            different sizes.

    Example:
        >>> frame_of = torch.tensor([[-1, 0, 1], [-1, 0, 1]])
        >>> swap_sources(frame_of, torch.tensor([[True, False], [False, True]])).tolist()
        [[0, 1, 4], [3, 2, 5]]
    """
    batch, length = frame_of.shape
    own = torch.arange(batch, device=frame_of.device)
    partner = own.roll(-1) if partner is None else partner
    lonely = (~causal).sum(1)[partner] == 0  # nothing to take from
    if batch < 2 or (partner == own).any() or (lonely & (~causal).any(1)).any():
        raise CausalVideoError(
            "environment swap",
            found=f"{batch} clips, partners {partner.tolist()}, environment frames {(~causal).sum(1).tolist()}",
            expected="another clip with environment frames for each",
            fix="use a batch of two clips or more, and call fewer frames causal than there are",
        )
    sources = torch.arange(batch * length, device=frame_of.device).view(batch, length)
    result = sources.clone()
    for row, other in enumerate(partner.tolist()):
        mine = (~causal[row]).nonzero().flatten()
        theirs = (~causal[other]).nonzero().flatten()
        for number, frame in enumerate(mine.tolist()):
            to = frame_of[row] == frame
            taken = sources[other][frame_of[other] == theirs[number % len(theirs)]]
            if len(taken) != int(to.sum()):
                raise CausalVideoError(
                    "environment swap",
                    found=f"frames of {int(to.sum())} and {len(taken)} tokens",
                    expected="equally many tokens in every frame of the batch",
                    fix="resize the clips of a batch to one size",
                )
            result[row, to] = taken
    return result


def swap_tokens(tokens: Tensor, sources: Tensor) -> Tensor:
    """Tokens (B, L, D) in their new places; a token that stays is the same to the bit."""
    return tokens.flatten(0, 1)[sources.flatten()].view_as(tokens)
