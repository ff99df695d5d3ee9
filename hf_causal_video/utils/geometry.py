"""Boxes: one check of their order, and one overlap for everything that compares them.

Boxes are xyxy (..., 4): left, top, right, bottom; in pixels or in fractions of the frame.
"""

import numpy as np

from hf_causal_video.utils.errors import require


def check_boxes(boxes: np.ndarray, name: str, frames: np.ndarray | None = None) -> None:
    """Refuse boxes that are not finite or not in order.

    Args:
        boxes: (n, 4).
        name: what holds the boxes, for the message.
        frames: (n,) frame of each box, for the message.

    Raises:
        CausalVideoError: a box with NaN or infinity, or with its right before its left or its bottom above its top.

    Example:
        >>> check_boxes(np.array([[0.5, 0.1, 0.2, 0.3]]), "detections")
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: detections, frame 0: found ...; expected finite ...
    """
    # float32 is what boxes become: a larger number would be infinite there
    bad = ~(np.abs(boxes) <= np.finfo(np.float32).max).all(-1) | (boxes[:, 2:] < boxes[:, :2]).any(-1)
    if not bad.any():
        return
    first = int(bad.argmax())
    require(
        False,
        f"{name}, frame {first if frames is None else frames[first]}",
        found=boxes[first].tolist(),
        expected="finite left, top, right, bottom with x1 <= x2 and y1 <= y2",
        fix="convert x, y, width, height boxes to x1, y1, x2, y2; drop boxes without an object",
    )


def area(boxes: np.ndarray, inclusive: bool = False) -> np.ndarray:
    """Areas (...) of boxes (..., 4); inclusive pixels count the last one too (+1)."""
    return np.prod(boxes[..., 2:] - boxes[..., :2] + inclusive, axis=-1)


def shared_area(one: np.ndarray, two: np.ndarray, inclusive: bool = False) -> np.ndarray:
    """Areas (...) of the intersections of boxes (..., 4), which broadcast."""
    low, high = np.maximum(one[..., :2], two[..., :2]), np.minimum(one[..., 2:], two[..., 2:])
    return np.prod((high - low + inclusive).clip(min=0), axis=-1)


def over_union(shared: np.ndarray, one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Shared size over that of the union, of areas or of areas summed over frames (vIoU); 0 for empty ones."""
    union = one + two - shared
    return np.divide(shared, union, out=np.zeros(np.shape(union)), where=union > 0)


def iou(one: np.ndarray, two: np.ndarray, inclusive: bool = False) -> np.ndarray:
    """Intersection over union (...) of boxes (..., 4), which broadcast.

    Example:
        >>> float(iou(np.array([0.0, 0.0, 2.0, 1.0]), np.array([1.0, 0.0, 2.0, 1.0])))
        0.5
    """
    return over_union(shared_area(one, two, inclusive), area(one, inclusive), area(two, inclusive))
