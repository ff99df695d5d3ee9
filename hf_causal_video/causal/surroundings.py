"""Surroundings: give a clip the environment of one other clip, also where it shows through the causal frames.

Why: swapping environment frames for frames of many videos leaves two gaps. A clip has one environment, and a mixture
of many does not occur; and an environment that is also visible behind the actors stays there, where no mask of frames
can remove it. So the environment frames come from one other clip, and the causal frames are moved by the
difference of the two environments, scaled by how much of an environment is visible in causal frames at all:

    causal frame  <-  frame + s * (mean environment of the other clip - mean environment of the own clip)

The answer of the clip must hold in its new surroundings, so the result can be trained on its label. Limits: the move
is linear, in the space of embedded frames; occlusion and light are not sums.

`separation_loss` uses the same idea to choose the split. Scenery that fits question and answer alike cannot be told
from the cause by matching, but a clip shows scenery in many frames: a split that calls some of them causal leaves the
others in the environment, and then the two sides vary together from clip to clip. It serves the start of a training,
where a side is chosen. Limits: a cause that is visible throughout its clip is penalized too; scenery that shows in the
causal frames varies along whatever the split; and a weight of 5 (matching has 1) made the split worse than none.

Source: ours. IGV (arXiv 2206.02349, section 3.3) swaps frames only.
"""

import torch
from torch import Tensor


def draw_donors(video_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Draw for each row, uniformly, another row that is of another video.

    Args:
        video_ids: (R,) int, the video of each row.

    Returns:
        (R,) int, and (R,) bool, which rows had one to draw; the others get any row.

    Example:
        >>> draw_donors(torch.tensor([7, 8, 7]))[0][0]
        tensor(1)
    """
    foreign = video_ids.unsqueeze(0) != video_ids.unsqueeze(1)  # (R, R)
    possible = foreign.any(1)
    chances = (foreign | ~possible.unsqueeze(1)).float()
    return torch.multinomial(chances, 1).squeeze(1), possible


def exchange_surroundings(frames: Tensor, causal: Tensor, environment: Tensor, donors: Tensor) -> Tensor:
    """Put every clip into the environment of its donor.

    Args:
        frames: (R, T, E) embedded frames.
        causal: (R, T) bool, frames that stay in place.
        environment: (R, T) bool, frames of the environment, at least one per row that is a donor. A clip that is
            causal throughout has none of its own; its frames are not moved.
        donors: (R,) row of each clip's donor.

    Returns:
        (R, T, E): moved causal frames, and frames of the donor's environment everywhere else, drawn with replacement.

    Example:
        >>> frames = torch.tensor([[[5.0], [1.0], [1.0]], [[7.0], [2.0], [2.0]]])  # both show it in causal frames too
        >>> causal = torch.tensor([[True, False, False]] * 2)
        >>> exchange_surroundings(frames, causal, ~causal, torch.tensor([1, 0])).flatten()
        tensor([6., 2., 2., 6., 1., 1.])
    """
    # one environment frame of the donor for every place, with replacement
    drawn = torch.multinomial(environment[donors].float(), frames.shape[1], replacement=True)  # (R, T)
    foreign = frames[donors].gather(1, drawn.unsqueeze(-1).expand_as(frames))
    replaced = environment & ~causal
    before = _mean(frames, replaced)  # (R, E)
    after = _mean(frames, environment)[donors]
    move = visible_share(frames, causal, replaced) * (after - before) * replaced.any(1, keepdim=True)
    return torch.where(causal.unsqueeze(-1), frames + move.unsqueeze(1), foreign)


@torch.no_grad()
def visible_share(frames: Tensor, causal: Tensor, environment: Tensor) -> Tensor:
    """Estimate how much of a clip's environment is also visible in its causal frames, over the clips of a batch.

    It is the slope of mean causal frames against mean environment frames, both relative to the batch. Noise in a
    regressor flattens a slope, so environments are measured twice, on every other frame, and the covariance of the two
    halves stands in for the variance (instrumental variables).

    Args:
        frames: (R, T, E).
        causal, environment: (R, T) bool.

    Returns:
        () in [0, 1]: 0 where causal frames do not depend on the environment, or where there are too few clips to say.
    """
    second = environment & (environment.cumsum(1) % 2 == 0)
    first = environment & ~second
    known = (second.any(1) & causal.any(1)).unsqueeze(1)  # (R, 1); the first half is never smaller
    parts = [_mean(frames.float(), part) for part in (causal, first, second)]
    count = known.sum().clamp(min=1)
    # deviations from the mean over clips; 0 for clips that cannot be measured
    scene, one, two = ((part - (part * known).sum(0) / count) * known for part in parts)
    variance = (one * two).sum()  # of the environment without the noise of a half
    slope = (scene * (one + two)).sum() / (2 * variance.clamp(min=torch.finfo(variance.dtype).tiny))
    return torch.where(variance > 0, slope.clamp(0, 1), 0.0).to(frames.dtype)


def separation_loss(frames: Tensor, causal: Tensor, environment: Tensor) -> Tensor:
    """Covariance over the batch of mean causal and mean environment frames, relative to the variance of the latter.

    Only the choice of frames learns from it, not the frames.

    Args:
        frames: (R, T, E).
        causal, environment: (R, T) exactly 0 or 1, with straight-through gradients; 0 at padding.

    Returns:
        () 0 where the two sides vary independently, about 1 where they show the same.

    Example:
        >>> frames, side = torch.randn(50, 1, 1).expand(50, 4, 8), torch.tensor([[1.0, 1.0, 0.0, 0.0]]).expand(50, 4)
        >>> separation_loss(frames, side, 1 - side).round(decimals=3)  # every frame of a clip is the same
        tensor(1.)
    """
    frames = frames.detach().float()
    scene, scenery = (_mean(frames, side) for side in (causal, environment))  # (R, E)
    scene = scene - scene.mean(0)
    scenery = scenery - scenery.mean(0)
    # the variance is a unit of measure: no gradient makes it larger
    variance = scenery.detach().square().sum().clamp(min=torch.finfo(torch.float32).tiny)
    return ((scene * scenery).sum() / variance).clamp(min=0)


def _mean(frames: Tensor, chosen: Tensor) -> Tensor:
    """Mean over chosen frames, (R, T, E) and (R, T) to (R, E); 0 where none is chosen."""
    weight = chosen.unsqueeze(-1).to(frames.dtype)
    return (frames * weight).sum(1) / weight.sum(1).clamp(min=1)
