"""Frames that are decoded already, as everything here takes them: a list of (height, width, 3) uint8 arrays."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from torch import Tensor

from hf_causal_video.utils.errors import CausalVideoError


def pictures(frames: Iterable[Any]) -> list[np.ndarray]:
    """Frames (T, H, W, 3) uint8 RGB as a list; channels may come first, pictures may be tensors or PIL images.

    Args:
        frames: T pictures of one size.

    Raises:
        CausalVideoError: no frames, or of another shape, kind of number, or several sizes.

    Example:
        >>> pictures(np.zeros((2, 3, 48, 64), np.uint8))[0].shape
        (48, 64, 3)
    """
    read = [np.asarray(frame.cpu() if isinstance(frame, Tensor) else frame) for frame in frames]
    if read and read[0].ndim == 3 and read[0].shape[2] != 3 and read[0].shape[0] == 3:
        read = [frame.transpose(1, 2, 0) for frame in read]
    wrong = [f for f in read if f.ndim != 3 or f.shape[2] != 3 or f.dtype != np.uint8 or f.shape != read[0].shape]
    if wrong or not read:
        raise CausalVideoError(
            "frames of a clip",
            found=f"{wrong[0].dtype} {wrong[0].shape}" if wrong else "none",
            expected="(height, width, 3) RGB uint8, all of one size",
            fix="decode the clip to such frames, or pass its path",
        )
    return read
