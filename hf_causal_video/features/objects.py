"""Object regions: the best N boxes a frame with a feature vector each, from any detector of transformers.

A transformer detector (DETR, RT-DETR, YOLOS, D-FINE, ...) decodes one hidden state for each box it proposes. That
state is the region feature: it holds what the network knows of the thing in the box, and needs no region pooling.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hf_causal_video.features.networks import load_image_processor, load_network
from hf_causal_video.utils.errors import CausalVideoError

LAYER = "decoder last hidden state"


class ObjectEncoder:
    """Turn frames into object regions.

    Args:
        model: Hub id or local folder of a detector that `AutoModelForObjectDetection` loads.
        num_objects: regions N a frame, best score first.
        threshold: regions that score less are left out; the rest of the N rows is zero.
        revision: branch, tag or commit on the Hub.
        device: where to compute.
        dtype: "float32" or "bfloat16".
        batch_size: frames a forward pass.

    Raises:
        CausalVideoError: the detector is not there, is incomplete, or proposes fewer than N boxes a frame.
    """

    def __init__(
        self,
        model: str,
        num_objects: int = 20,
        threshold: float = 0.0,
        revision: str | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        batch_size: int = 8,
    ):
        from transformers import AutoModelForObjectDetection

        self.model_name, self.layer, self.device, self.dtype = model, LAYER, device, dtype
        self.num_objects, self.threshold, self.batch_size = num_objects, threshold, batch_size
        self.model, self.revision = load_network(
            AutoModelForObjectDetection, model, revision, device, dtype, lambda weight: False
        )
        self.processor = load_image_processor(model, self.revision)
        self.dim = self([np.zeros((64, 64, 3), np.uint8)])["object_features"].shape[2]

    @torch.inference_mode()
    def __call__(self, frames: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Detect objects.

        Args:
            frames: T arrays (height, width, 3), RGB uint8, all of one size.

        Returns:
            `object_features` (T, N, C), `object_boxes` (T, N, 4) xyxy in [0, 1], `object_scores` (T, N),
            `object_labels` (T, N), on the CPU; rows without an object are 0, their label -1.
        """
        batches = [frames[i : i + self.batch_size] for i in range(0, len(frames), self.batch_size)]
        parts = [self._detect(batch) for batch in batches]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _detect(self, frames: Sequence[np.ndarray]) -> dict[str, Tensor]:
        inputs = self.processor(images=list(frames), return_tensors="pt", input_data_format="channels_last")
        output = self.model(**inputs.to(self.device, dtype=self.model.dtype))
        logits = output.logits.float().cpu()  # (T, proposals, classes)
        if logits.shape[1] < self.num_objects:
            raise CausalVideoError(
                f"{self.model_name} proposes too few boxes",
                found=f"{logits.shape[1]} a frame",
                expected=f"at least num_objects = {self.num_objects}",
                fix="lower num_objects (--num-objects)",
            )
        # with one class more than labels the last is "no object" (DETR, YOLOS); else each class stands alone
        has_void = logits.shape[2] == self.model.config.num_labels + 1
        scores, labels = (logits.softmax(-1)[..., :-1] if has_void else logits.sigmoid()).max(-1)
        scores, best = scores.topk(self.num_objects, dim=1)  # (T, N)
        states = output.last_hidden_state.float().cpu()[:, -logits.shape[1] :]  # YOLOS: its queries come last
        row = torch.arange(len(best))[:, None]
        is_object = (scores >= self.threshold) & (scores > 0)
        return {
            "object_features": states[row, best] * is_object[..., None],
            "object_boxes": _corners(output.pred_boxes.float().cpu()[row, best]) * is_object[..., None],
            "object_scores": scores * is_object,
            "object_labels": torch.where(is_object, labels.gather(1, best), -1).int(),
        }


def _corners(boxes: Tensor) -> Tensor:
    """Centre and size to xyxy, cut at the edge of the picture."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], -1).clamp(0, 1)
