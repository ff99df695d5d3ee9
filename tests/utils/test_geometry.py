"""Laws of the one IoU: symmetric, 1 of itself, 0 apart, what pixels of a grid say."""

import numpy as np
import pytest

from hf_causal_video.utils.errors import CausalVideoError
from hf_causal_video.utils.geometry import check_boxes, iou, over_union


def boxes(count: int) -> np.ndarray:
    corners = np.random.default_rng(count).integers(0, 12, (count, 2, 2))
    return np.concatenate([corners.min(1), corners.max(1)], -1).astype(float)


@pytest.mark.parametrize("inclusive", [True, False])
def test_iou_is_that_of_the_pixels(inclusive: bool) -> None:
    pixels = np.zeros((40, 13, 13), dtype=bool)
    for number, (x1, y1, x2, y2) in enumerate(boxes(40).astype(int)):
        pixels[number, y1 : y2 + inclusive, x1 : x2 + inclusive] = True
    shared = (pixels[:, None] & pixels[None]).sum((2, 3))
    union = (pixels[:, None] | pixels[None]).sum((2, 3))
    wanted = np.divide(shared, union, out=np.zeros(union.shape), where=union > 0)
    np.testing.assert_allclose(iou(boxes(40)[:, None], boxes(40)[None], inclusive), wanted)


def test_nothing_over_nothing_is_zero() -> None:
    assert over_union(np.zeros(2), np.zeros(2), np.array([0.0, 1.0])).tolist() == [0, 0]


@pytest.mark.parametrize("bad", [[3, 0, 1, 9], [0, 3, 9, 1], [0, 0, np.nan, 1], [0, 0, 1e39, 1]])
def test_the_first_bad_box_is_named(bad: list[float]) -> None:
    with pytest.raises(CausalVideoError, match="track, frame 7"):
        check_boxes(np.array([[0, 0, 1, 1], bad, bad]), "track", np.array([5, 7, 8]))
    check_boxes(np.array([[1.0, 1.0, 1.0, 1.0]]), "track")
    check_boxes(np.zeros((0, 4)), "track")
