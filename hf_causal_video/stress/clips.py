"""Change a clip for the stress test: show some of its frames, blank it, mix it with another.

Why frames are taken out and not blanked where only a part is shown: a model that never saw a black frame would be
judged on black frames. A clip that is left with fewer frames than the model needs shows them several times; one that
is left with none is blank.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from hf_causal_video.utils.errors import require

Frames: TypeAlias = Tensor | np.ndarray | list  # (T, ...), or a list of T frames
Clip: TypeAlias = Frames | Mapping[str, Frames]  # frames, or features by name with one T
Asked: TypeAlias = tuple[Clip, str, list[str] | None]
Item: TypeAlias = Mapping[str, Any]  # a question with its clip, as a dataset gives it
CLIP_KEYS = ("frame_features", "object_features", "object_boxes", "object_mask")


def clip_of(item: Item) -> Clip:
    """The clip of a dataset item: its `frames`, or its features by name."""
    clip: Clip = item["frames"] if "frames" in item else {name: item[name] for name in CLIP_KEYS if name in item}
    length(clip)
    return clip


def length(clip: Clip) -> int:
    """Number of frames T.

    Raises:
        CausalVideoError: no frames, or features of different lengths.
    """
    parts = clip.values() if isinstance(clip, Mapping) else [clip]
    lengths = {len(part) for part in parts}
    require(
        len(lengths) == 1 and 0 not in lengths,
        "no clip",
        found=f"{sorted(lengths)} frames" if lengths else "neither frames nor features",
        expected="one number of frames, at least 1",
        fix=f"add `frames` to each item, or features: {', '.join(CLIP_KEYS)}",
    )
    return lengths.pop()


def take(clip: Clip, indices: Sequence[int] | np.ndarray) -> Clip:
    """The frames at some indices, in that order.

    Example:
        >>> take(np.arange(5), [3, 1]).tolist()
        [3, 1]
    """
    if isinstance(clip, Mapping):
        return {name: _take(part, indices) for name, part in clip.items()}
    return _take(clip, indices)


def _take(frames: Frames, indices: Sequence[int] | np.ndarray) -> Frames:
    chosen = [int(index) for index in indices]
    return frames[chosen] if isinstance(frames, Tensor | np.ndarray) else [frames[index] for index in chosen]


def blanked(clip: Clip) -> Clip:
    """The clip with nothing on it: every number 0 (black frames, zero features), masks as they are.

    Example:
        >>> blanked(np.ones((2, 3))).tolist()
        [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    if isinstance(clip, Mapping):
        return {name: part if name.endswith("_mask") else _blanked(part) for name, part in clip.items()}
    return _blanked(clip)


def _blanked(frames: Frames) -> Frames:
    if isinstance(frames, Tensor):
        return frames.new_zeros(frames.shape)
    return np.zeros_like(frames) if isinstance(frames, np.ndarray) else [_blanked(np.asarray(one)) for one in frames]


def shown(clip: Clip, indices: Sequence[int] | np.ndarray, least: int) -> Clip:
    """Some frames of a clip and no others; each several times where fewer than `least` are given, blank without any.

    Example:
        >>> shown(np.arange(1, 6), [1, 4], least=4).tolist(), shown(np.arange(1, 6), [], least=4).tolist()
        ([2, 2, 5, 5], [0, 0, 0, 0, 0])
    """
    if not len(indices):
        return blanked(clip if length(clip) >= least else take(clip, spread(length(clip), least)))
    chosen = np.asarray(indices)
    return take(clip, chosen if len(chosen) >= least else chosen[spread(len(chosen), least)])


def swapped(clip: Clip, outside: np.ndarray, donor: Clip, donor_outside: np.ndarray) -> Clip:
    """The clip with the frames at `outside` taken from a donor's frames at `donor_outside`, spread evenly.

    Example:
        >>> swapped(np.arange(4), np.array([0, 3]), np.arange(10, 16), np.array([1, 2, 4])).tolist()
        [11, 1, 2, 12]
    """
    source = donor_outside[spread(len(donor_outside), len(outside))]
    origin = dict(zip(outside.tolist(), source.tolist(), strict=True))
    if isinstance(clip, Mapping):
        assert isinstance(donor, Mapping)
        return {name: _swapped(part, donor[name], origin) for name, part in clip.items()}
    assert not isinstance(donor, Mapping)
    return _swapped(clip, donor, origin)


def _swapped(frames: Frames, donor: Frames, origin: Mapping[int, int]) -> Frames:
    """Take the frames at the keys of `origin` from those of the donor at its values."""
    if not isinstance(frames, Tensor | np.ndarray):
        return [donor[origin[index]] if index in origin else frame for index, frame in enumerate(frames)]
    mixed = frames.clone() if isinstance(frames, Tensor) else frames.copy()
    mixed[list(origin)] = _take(donor, list(origin.values()))  # type: ignore[assignment]
    return mixed


def same_kind(clip: Clip, other: Clip) -> bool:
    """Return whether frames of one clip fit into the other: the same features of the same sizes."""
    if isinstance(clip, Mapping) and isinstance(other, Mapping):
        return set(clip) == set(other) and all(same_kind(part, other[name]) for name, part in clip.items())
    if isinstance(clip, Mapping) or isinstance(other, Mapping):
        return False
    return np.shape(clip[0]) == np.shape(other[0])


def spread(total: int, count: int) -> np.ndarray:
    """`count` indices into `total` things, even and in order; some repeat where there are fewer."""
    return (np.arange(count) * total) // max(count, 1)


def random_window(draw: np.random.Generator, total: int, size: int) -> np.ndarray:
    """`size` neighbouring frames out of `total`, wherever they fall."""
    return np.arange(size) + int(draw.integers(0, total - size + 1))
