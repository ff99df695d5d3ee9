"""Tracks as numbers: how one track moves, how two tracks of the same frames move relative to each other.

Why: a predicate such as *chase* is in the relative motion of two boxes, whatever their place in the frame or their
class.

Source: IVRD (Li et al., ACM MM 2021) encodes object trajectories by a BiLSTM (*confirmed*). The box numbers, and
the 12 of relative geometry at the start and the end of two tracks, are a *reconstruction* after VidVRD-II (Shang
et al., ACM MM 2021). Relative motion at every common step is *ours*: start and end alone miss what happens between.
"""

import torch
from torch import Tensor

from hf_causal_video.models.base import IGNORED_LABEL

MIN_SIDE = 1e-3  # of the frame; a thinner box is read as this thin, so that ratios stay finite
FRAMES_A_UNIT = 30.0  # time differences are counted in units of a second of VidVRD


def motion_inputs(boxes: Tensor, mask: Tensor) -> Tensor:
    """Centre, size, and their change since the last frame: (S, T, 8) for boxes (S, T, 4) xyxy in [0, 1], mask (S, T).

    Example:
        >>> boxes = torch.tensor([[[0.0, 0.0, 0.2, 0.4], [0.1, 0.0, 0.3, 0.4]]])
        >>> [round(x, 3) for x in motion_inputs(boxes, torch.ones(1, 2, dtype=torch.bool))[0, 1].tolist()]
        [0.2, 0.2, 0.2, 0.4, 0.1, 0.0, 0.0, 0.0]
    """
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    size = boxes[..., 2:] - boxes[..., :2]
    place = torch.cat([centre, size], -1)  # (S, T, 4)
    change = torch.diff(place, dim=-2, prepend=place[..., :1, :])
    return torch.cat([place, change], -1).masked_fill(~mask.unsqueeze(-1), 0.0)


def relative_motion(subject: Tensor, other: Tensor) -> Tensor:
    """Offset in units of the object's size and log-ratio of the sizes, (..., 4), for boxes (..., 4) of the same
    frames.

    Example:
        >>> one, two = torch.tensor([0.2, 0.0, 0.4, 0.4]), torch.tensor([0.0, 0.0, 0.2, 0.4])
        >>> relative_motion(one, two).round(decimals=3).tolist()
        [1.0, 0.0, 0.0, 0.0]
    """
    size_s, size_o = ((box[..., 2:] - box[..., :2]).clamp(min=MIN_SIDE) for box in (subject, other))
    offset = (subject[..., :2] + subject[..., 2:] - other[..., :2] - other[..., 2:]) / 2
    return torch.cat([offset / size_o, (size_s / size_o).log()], -1)


def relative_geometry(boxes: Tensor, mask: Tensor, start: Tensor, subject: Tensor, other: Tensor) -> Tensor:
    """The 12 numbers of VidVRD-II for R pairs of tracks: 6 where the two tracks start, 6 where they end.

    Args:
        boxes: (S, T, 4) xyxy in [0, 1], one row a track, its steps first and padding after.
        mask: (S, T) bool, True where a step is.
        start: (S,) frame of the first step.
        subject, other: (R,) rows of the tracks.

    Returns:
        (R, 12): offset x and y over the object's size, log-ratios of width, height and area, time difference.
    """
    rows = torch.arange(len(boxes), device=boxes.device)
    length = mask.sum(1)
    parts = []
    for step in (torch.zeros_like(length), (length - 1).clamp(min=0)):
        edge = boxes[rows, step]  # (S, 4)
        time = start + step  # (S,)
        relative = relative_motion(edge[subject], edge[other])  # (R, 4)
        delay = (time[subject] - time[other]).to(boxes.dtype) / FRAMES_A_UNIT
        parts += [relative, relative[:, 2:].sum(1, keepdim=True), delay.unsqueeze(1)]
    return torch.cat(parts, 1)


def tracks_that_meet(mask: Tensor, start: Tensor) -> Tensor:
    """(B, N, N) bool: two different tracks that share a frame, for masks (B, N, T) and first frames (B, N).

    Example:
        >>> mask, start = torch.ones(1, 3, 4, dtype=torch.bool), torch.tensor([[0, 3, 4]])
        >>> tracks_that_meet(mask, start)[0].nonzero().tolist()
        [[0, 1], [1, 0], [1, 2], [2, 1]]
    """
    length = mask.sum(-1)  # (B, N)
    end = start + length
    first = torch.maximum(start.unsqueeze(2), start.unsqueeze(1))
    # two stretches overlap where the earlier end lies behind the later start
    meet = torch.minimum(end.unsqueeze(2), end.unsqueeze(1)) > first
    meet = meet & (length > 0).unsqueeze(2) & (length > 0).unsqueeze(1)
    return meet & ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)


def list_pairs(meet: Tensor) -> tuple[Tensor, Tensor]:
    """List pairs of tracks that meet, (B, N, N), as indices (B, R, 2) of subject and object, and their mask (B, R).

    R is the number of pairs of the sample with most; in a compiled or exported graph, where shapes cannot depend on
    values, all N (N - 1) ordered pairs have a place. Padding comes last and is -100.

    Example:
        >>> index, mask = list_pairs(torch.tensor([[[False, True], [True, False]], [[False, True], [False, False]]]))
        >>> index.tolist(), mask.tolist()
        ([[[0, 1], [1, 0]], [[0, 1], [-100, -100]]], [[True, True], [True, False]])
    """
    rows, tracks = meet.shape[:2]
    count = meet.sum((1, 2))  # (B,)
    order = (~meet.flatten(1)).int().sort(dim=1, stable=True).indices  # (B, N * N), pairs that meet first
    widest = tracks * (tracks - 1)
    if not torch.compiler.is_compiling():
        widest = int(count.max()) if rows else 0
    order = order[:, :widest]
    mask = torch.arange(widest, device=meet.device) < count.unsqueeze(1)
    index = torch.stack([order // max(tracks, 1), order % max(tracks, 1)], -1)
    return index.masked_fill(~mask.unsqueeze(-1), IGNORED_LABEL), mask


def common_steps(
    boxes: Tensor, mask: Tensor, start: Tensor, subject: Tensor, other: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes of both tracks in the frames they share; arguments as in `relative_geometry`.

    Returns:
        subject and object boxes (R, T, 4), and the mask (R, T) of shared frames, which come first; without a shared
        frame the mask is empty.

    Example:
        >>> boxes = torch.arange(8.0).reshape(2, 4, 1).expand(2, 4, 4)
        >>> mask, start = torch.ones(2, 4, dtype=torch.bool), torch.tensor([0, 2])
        >>> one, two, shared = common_steps(boxes, mask, start, torch.tensor([0]), torch.tensor([1]))
        >>> one[0, :2, 0].tolist(), two[0, :2, 0].tolist(), shared[0].tolist()
        ([2.0, 3.0], [4.0, 5.0], [True, True, False, False])
    """
    end = start + mask.sum(1)
    first = torch.maximum(start[subject], start[other])  # (R,)
    length = torch.minimum(end[subject], end[other]) - first
    step = torch.arange(boxes.shape[1], device=boxes.device)
    shared = step < length.unsqueeze(1)  # (R, T)
    picked = []
    for rows in (subject, other):
        # step of the track at the common frame, clamped behind its end, where `shared` is False
        index = ((first - start[rows]).unsqueeze(1) + step).clamp(max=boxes.shape[1] - 1)
        picked.append(boxes[rows].gather(1, index.unsqueeze(-1).expand(-1, -1, 4)))
    return picked[0], picked[1], shared
