"""One row of a feature set: the features of one video, checked before they are written."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hf_causal_video.features.store.provenance import Provenance
from hf_causal_video.features.store.shards import COLUMNS, is_finite, row_shapes
from hf_causal_video.utils.errors import CausalVideoError


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
        if not isinstance(self.video_id, str) or not self.video_id or self.video_id != _stored(self.video_id):
            raise self._wrong("bad video id", type(self.video_id).__name__, "a name", "use str(id)")
        for name in COLUMNS:
            if not isinstance(getattr(self, name), Tensor | None):
                raise self._wrong(f"invalid {name}", repr(getattr(self, name))[:80], "a tensor", "pass a tensor")
        if self.timestamps_s is None or self.timestamps_s.dim() != 1 or len(self.timestamps_s) == 0:
            raise self._wrong("has no frames", "T = 0", "at least one frame", "leave the video out")
        shapes = row_shapes(provenance, len(self.timestamps_s))
        arrays = {}
        for name, (dtype, _) in COLUMNS.items():
            tensor = getattr(self, name)
            if (tensor is None) == (name in shapes):
                raise self._wrong(
                    f"{name} and provenance disagree",
                    "nothing" if tensor is None else "a tensor",
                    "object tensors exactly if the provenance names an object model",
                    "pass all four object tensors, or none and a provenance without objects",
                )
            if tensor is None:
                continue
            if tuple(tensor.shape) != shapes[name]:
                fix = "extract with the models that the provenance names"
                raise self._wrong(f"{name} has the wrong shape", tuple(tensor.shape), shapes[name], fix)
            whole = not tensor.dtype.is_floating_point and tensor.dtype != torch.bool
            if tensor.dtype.is_complex or tensor.dtype == torch.bool or dtype.startswith("int") and not whole:
                raise self._wrong(f"{name} is of another kind", tensor.dtype, dtype, f"convert it to {dtype}")
            arrays[name] = tensor.detach().cpu().to(getattr(torch, dtype)).numpy()
            if not is_finite(arrays[name]):
                cause = "NaN or infinity" if not torch.isfinite(tensor).all() else f"values too large for {dtype}"
                fix = "check the backbone and its arithmetic (try float32)"
                raise self._wrong(f"{name} is not finite", cause, "finite numbers", fix)
        if (np.diff(arrays["timestamps_s"]) <= 0).any():
            raise self._wrong(
                "timestamps_s do not increase",
                arrays["timestamps_s"].tolist(),
                "strictly increasing seconds",
                "sort the frames and drop repeated ones",
            )
        boxes = arrays.get("object_boxes")
        if boxes is not None and (boxes.min() < 0 or boxes.max() > 1):
            raise self._wrong(
                "object_boxes leave the picture",
                f"values {boxes.min()} to {boxes.max()}",
                "xyxy in [0, 1]",
                "divide pixel boxes by width and height",
            )
        return arrays

    def _wrong(self, what: str, found: object, expected: object, fix: str) -> CausalVideoError:
        return CausalVideoError(f"video {self.video_id!r}: {what}", found=found, expected=expected, fix=fix)


def _stored(name: str) -> str:
    return name.encode(errors="replace").decode()
