"""Frame features: one vector a frame from any vision backbone of transformers (SigLIP, DINOv2, ViT, ResNet, ...).

The vector is a stated output of the network, named in the provenance:

    pooled     the backbone's own pooled output (`pooler_output`)
    cls        the first token of the last layer
    mean       the mean over all tokens, or places, of the last layer
    projected  the joint image-text space of a dual encoder (`get_image_features`)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hf_causal_video.features.networks import load_image_processor, load_network
from hf_causal_video.utils.errors import CausalVideoError

LAYERS = ("pooled", "cls", "mean", "projected")


class FrameEncoder:
    """Turn frames into feature vectors.

    Args:
        model: Hub id or local folder of a vision backbone or dual encoder.
        layer: "pooled", "cls", "mean" or "projected".
        revision: branch, tag or commit on the Hub.
        device: where to compute.
        dtype: "float32" or "bfloat16".
        batch_size: frames a forward pass.

    Raises:
        CausalVideoError: the network is not there, is incomplete, or does not have this layer.
    """

    def __init__(
        self,
        model: str,
        layer: str = "pooled",
        revision: str | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        batch_size: int = 32,
    ):
        from transformers import AutoModel

        if layer not in LAYERS:
            raise CausalVideoError("unknown layer", found=layer, expected=" or ".join(LAYERS), fix="use one of them")
        if batch_size < 1:
            raise CausalVideoError("batch size", found=batch_size, expected="1 or more", fix="raise --batch-size")
        self.model_name, self.layer, self.device, self.dtype, self.batch_size = model, layer, device, dtype, batch_size
        self.model, self.revision = load_network(AutoModel, model, revision, device, dtype, self._is_unused)
        self.processor = load_image_processor(model, self.revision)
        try:
            self.dim = self([np.zeros((32, 32, 3), np.uint8)]).shape[1]
        except RuntimeError as error:
            raise CausalVideoError(
                f"frame model {model}",
                found=f"no feature of a picture: {str(error).splitlines()[0]}",
                expected="a vision backbone",
                fix="name one; a detector goes to --object-model",
            ) from error

    @torch.inference_mode()
    def __call__(self, frames: Sequence[np.ndarray]) -> Tensor:
        """Encode frames.

        Args:
            frames: T arrays (height, width, 3), RGB uint8.

        Returns:
            (T, C) float32 on the CPU.
        """
        batches = [frames[i : i + self.batch_size] for i in range(0, len(frames), self.batch_size)]
        return torch.cat([self._encode(batch).float().cpu() for batch in batches])

    def _encode(self, frames: Sequence[np.ndarray]) -> Tensor:
        inputs = self.processor(images=list(frames), return_tensors="pt", input_data_format="channels_last")
        inputs = inputs.to(self.device, dtype=self.model.dtype)
        if self.layer == "projected":
            if not hasattr(self.model, "get_image_features"):
                raise self._no_layer("no get_image_features")
            output = self.model.get_image_features(**inputs)  # a tensor before transformers 5
            return output if isinstance(output, Tensor) else output.pooler_output
        output = getattr(self.model, "vision_model", self.model)(**inputs)
        if self.layer == "pooled":
            if getattr(output, "pooler_output", None) is None:
                raise self._no_layer("no pooled output")
            return output.pooler_output.flatten(1)
        last = output.last_hidden_state  # (T, tokens, C) or (T, C, height, width)
        if last.ndim == 4:
            last = last.flatten(2).transpose(1, 2)
            if self.layer == "cls":
                raise self._no_layer("a map of places without a first token")
        return last[:, 0] if self.layer == "cls" else last.mean(1)

    def _is_unused(self, weight: str) -> bool:
        return self.layer in ("cls", "mean") and ("pooler" in weight or ".head." in weight)

    def _no_layer(self, found: str) -> CausalVideoError:
        return CausalVideoError(
            f"{self.model_name} has no layer {self.layer!r}",
            found=found,
            expected=f"an output for {self.layer!r}",
            fix="choose another of " + ", ".join(LAYERS),
        )
