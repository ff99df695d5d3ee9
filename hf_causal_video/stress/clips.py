"""Change a clip for the stress test: show some of its frames, blank it, mix it with another.

Why frames are taken out and not blanked where only a part is shown: a model that never saw a black frame would be
judged on black frames. A clip that is left with fewer frames than the model needs shows them several times; one that
is left with none is blank.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from hf_causal_video.utils.errors import require

Clip = Any  # a tensor or array (T, ...), a list of T of them, or a mapping of such with one T
CLIP_KEYS = ("frame_features", "object_features", "object_boxes", "object_mask")


def clip_of(item: Mapping[str, Any]) -> Clip:
    """The clip of a dataset item: its `frames`, or its features by name."""
    clip = item["frames"] if "frames" in item else {name: item[name] for name in CLIP_KEYS if name in item}
    length(clip)
    return clip


def length(clip: Clip) -> int:
    """Number of frames T.

    Raises:
        CausalVideoError: no frames, or features of different lengths.
    """
    parts = list(clip.values()) if isinstance(clip, Mapping) else [clip]
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
        return {name: take(part, indices) for name, part in clip.items()}
    chosen = [int(index) for index in indices]
    return clip[chosen] if isinstance(clip, Tensor | np.ndarray) else [clip[index] for index in chosen]


def blanked(clip: Clip) -> Clip:
    """The clip with nothing on it: every number 0 (black frames, zero features), masks as they are.

    Example:
        >>> blanked(np.ones((2, 3))).tolist()
        [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    if isinstance(clip, Mapping):
        return {name: part if name.endswith("_mask") else blanked(part) for name, part in clip.items()}
    if isinstance(clip, Tensor):
        return clip.new_zeros(clip.shape)
    return np.zeros_like(clip) if isinstance(clip, np.ndarray) else [blanked(np.asarray(part)) for part in clip]


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
    if isinstance(clip, Mapping):
        return {name: swapped(clip[name], outside, donor[name], donor_outside) for name in clip}
    source = donor_outside[spread(len(donor_outside), len(outside))]
    if isinstance(clip, Tensor | np.ndarray):
        mixed: Any = clip.clone() if isinstance(clip, Tensor) else clip.copy()
        mixed[outside.tolist()] = donor[source.tolist()]
        return mixed
    origin = dict(zip(outside.tolist(), source.tolist(), strict=True))
    return [donor[origin[index]] if index in origin else frame for index, frame in enumerate(clip)]


def same_kind(clip: Clip, other: Clip) -> bool:
    """Return whether frames of one clip fit into the other: the same features of the same sizes."""
    if isinstance(clip, Mapping):
        return set(clip) == set(other) and all(same_kind(clip[name], other[name]) for name in clip)
    return np.shape(clip[0]) == np.shape(other[0])


def spread(total: int, count: int) -> np.ndarray:
    """`count` indices into `total` things, even and in order; some repeat where there are fewer."""
    return (np.arange(count) * total) // max(count, 1)


def random_window(draw: np.random.Generator, total: int, size: int) -> np.ndarray:
    """`size` neighbouring frames out of `total`, wherever they fall."""
    return np.arange(size) + int(draw.integers(0, total - size + 1))
