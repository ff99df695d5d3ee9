"""One row of a feature set: the features of one video, checked before they are written."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hf_causal_video.features.store.provenance import Provenance
from hf_causal_video.features.store.shards import COLUMNS, is_finite, row_shapes
from hf_causal_video.utils.checks import check_text
from hf_causal_video.utils.errors import require


@dataclass
class VideoFeatures:
    """Hold the features of one video.

    Args:
        video_id: unique name.
        timestamps_s: (T,) seconds, increasing; frame and object row t both show this instant.
        frame_features: (T, C) float16.
        object_features: (T, N, C) float16, zero without an object; None without a detector.
        object_boxes: (T, N, 4) xyxy in [0, 1].
        object_scores: (T, N); 0 is padding.
        object_labels: (T, N); -1 is padding.

    Example:
        >>> clip = VideoFeatures("v1", torch.tensor([0.5, 1.5]), torch.zeros(2, 8))
        >>> clip.object_mask is None
        True
    """

    video_id: str
    timestamps_s: Tensor
    frame_features: Tensor
    object_features: Tensor | None = None
    object_boxes: Tensor | None = None
    object_scores: Tensor | None = None
    object_labels: Tensor | None = None

    @property
    def object_mask(self) -> Tensor | None:
        """(T, N) True where there is an object; None without objects."""
        return None if self.object_scores is None else self.object_scores > 0

    def to_arrays(self, provenance: Provenance) -> dict[str, np.ndarray]:
        """Give the arrays as they are stored, after checking every shape and value against the provenance.

        Raises:
            CausalVideoError: T is zero, a width differs, a value is not finite or overflows float16, times do not
                increase, a box leaves [0, 1], labels are not whole numbers, or object tensors are missing.
        """
        check_text("video id", self.video_id)
        for name in COLUMNS:
            values = getattr(self, name)
            self._expect(isinstance(values, Tensor | None), f"invalid {name}", type(values).__name__, "a tensor")
        frames = self.timestamps_s
        has_frames = frames is not None and frames.dim() == 1 and len(frames) > 0
        self._expect(has_frames, "has no frames", "T = 0", "at least one frame", "leave the video out")
        shapes = row_shapes(provenance, len(frames))
        arrays = {}
        for name, (dtype, _) in COLUMNS.items():
            tensor = getattr(self, name)
            if tensor is not None and name in shapes:
                arrays[name] = self._to_array(name, tensor, dtype, shapes[name])
                continue
            problem = "nothing" if tensor is None else "a tensor"
            expected = "object tensors exactly if the provenance names an object model"
            self._expect(tensor is None and name not in shapes, f"{name} and provenance disagree", problem, expected)
        times = arrays["timestamps_s"]
        increase = (np.diff(times) > 0).all()
        self._expect(increase, "timestamps_s do not increase", times.tolist(), "strictly increasing seconds")
        boxes = arrays.get("object_boxes")
        are_inside = boxes is None or boxes.min() >= 0 and boxes.max() <= 1
        fix = "divide pixel boxes by width and height"
        self._expect(are_inside, "object_boxes leave the picture", "values beyond [0, 1]", "xyxy in [0, 1]", fix)
        return arrays

    def _to_array(self, name: str, tensor: Tensor, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        actual = tuple(tensor.shape)
        fix = "extract with the models that the provenance names"
        self._expect(actual == shape, f"{name} has the wrong shape", actual, shape, fix)
        kind = tensor.dtype
        is_number = kind != torch.bool and not kind.is_complex and not (dtype == "int32" and kind.is_floating_point)
        self._expect(is_number, f"{name} is of another kind", kind, dtype, f"convert it to {dtype}")
        array = tensor.detach().cpu().to(getattr(torch, dtype)).numpy()
        if not is_finite(array):  # half precision overflows above 65,504
            cause = f"values too large for {dtype}" if torch.isfinite(tensor).all() else "NaN or infinity"
            self._expect(False, f"{name} is not finite", cause, "finite numbers", "check the backbone (try float32)")
        return array

    def _expect(self, condition: object, what: str, found: object, expected: object, fix: str = "correct it") -> None:
        require(condition, f"video {self.video_id!r}: {what}", found=found, expected=expected, fix=fix)
