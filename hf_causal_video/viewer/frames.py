"""Read the pictures that a case is drawn with."""

from collections.abc import Iterable

import numpy as np

from hf_causal_video.utils.errors import require


def read_frames(frames: Iterable[object]) -> list[np.ndarray]:
    """Read decoded frames, arrays or PIL images, as (H, W, 3) uint8 RGB.

    Raises:
        CausalVideoError: another type or shape.

    Example:
        >>> [frame.shape for frame in read_frames([np.zeros((4, 6, 3), np.uint8)])]
        [(4, 6, 3)]
    """
    arrays = [np.asarray(frame) for frame in frames]
    for index, frame in enumerate(arrays):
        require(
            frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3 and frame.size,
            f"frame {index}",
            found=f"{frame.dtype} {frame.shape}",
            expected="uint8 (height, width, 3)",
            fix="pass decoded RGB frames, channels last, 0 to 255",
        )
    return arrays
