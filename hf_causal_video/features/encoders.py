"""Frame and object encoders: one vector per frame, and the best N regions of a frame, from networks of transformers.

A frame vector is a stated output of a vision backbone (SigLIP, DINOv2, ViT, ResNet, ...), named in the provenance:

    pooled     the backbone's own pooled output (`pooler_output`)
    cls        the first token of the last layer
    mean       the mean over all tokens, or places, of the last layer
    projected  the joint image-text space of a dual encoder (`get_image_features`)

A transformer detector (DETR, RT-DETR, YOLOS, D-FINE, ...) decodes one hidden state for each box it proposes. That
state is the region feature: it holds what the network knows of the thing in the box, and needs no region pooling.

Each encoder works in two steps: `prepare` needs no network, so it can run in another thread, and `encode`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from hf_causal_video.features.networks import fingerprint_folder
from hf_causal_video.utils.checks import check_choice, check_whole
from hf_causal_video.utils.errors import CausalVideoError, first_line, require, reworded

if TYPE_CHECKING:
    from transformers import BaseImageProcessor

LAYERS = ("pooled", "cls", "mean", "projected")
OBJECT_LAYER = "decoder last hidden state"
ARITHMETIC = {"float32": torch.float32, "bfloat16": torch.bfloat16}
FAULTS = (OSError, ValueError, LookupError, TypeError, RuntimeError, UnpicklingError, SafetensorError)


class PictureEncoder:
    """Base of what turns frames into tensors: pictures become inputs by the network's own image processor."""

    processor: BaseImageProcessor

    def prepare(self, frames: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Turn frames into inputs of the network, each (T, ...)."""
        return dict(self.processor(images=list(frames), return_tensors="pt", input_data_format="channels_last"))


class FrameEncoder(PictureEncoder):
    """Turn frames into feature vectors.

    Args:
        model: Hub id or local folder of a vision backbone or dual encoder.
        layer: "pooled", "cls", "mean" or "projected".
        revision: branch, tag or commit on the Hub.
        device: where to compute.
        dtype: "float32" or "bfloat16".
        batch_size: frames per forward pass.

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

        self.model_name = model
        self.layer = check_choice("layer", layer, LAYERS)
        self.device = device
        self.dtype = dtype
        self.batch_size = check_whole("batch_size", batch_size)
        self.model, self.revision = load_network(AutoModel, model, revision, device, dtype, self._is_unused)
        self.processor = load_image_processor(model, self.revision)
        fix = "name one; a detector goes to --object-model"
        with reworded(RuntimeError, f"frame model {model}", expected="a vision backbone", fix=fix):
            self.dim = self([np.zeros((32, 32, 3), np.uint8)]).shape[1]

    def __call__(self, frames: Sequence[np.ndarray]) -> Tensor:
        """Encode frames, a batch at a time.

        Args:
            frames: T arrays (height, width, 3), RGB uint8.

        Returns:
            (T, C) float32 on the CPU.
        """
        batches = [frames[i : i + self.batch_size] for i in range(0, len(frames), self.batch_size)]
        return torch.cat([self.encode(self.prepare(batch)) for batch in batches])

    @torch.inference_mode()
    def encode(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Encode prepared frames, a batch at a time; gives (T, C) float32 on the CPU."""
        batches = in_batches(inputs, self.batch_size, self.device, self.model.dtype)
        return torch.cat([self._encode(batch).float().cpu() for batch in batches])

    def _encode(self, inputs: dict[str, Tensor]) -> Tensor:
        if self.layer == "projected":
            self._expect_layer(hasattr(self.model, "get_image_features"), "no get_image_features")
            output = self.model.get_image_features(**inputs)  # a tensor before transformers 5
            return output if isinstance(output, Tensor) else output.pooler_output
        output = getattr(self.model, "vision_model", self.model)(**inputs)
        if self.layer == "pooled":
            self._expect_layer(getattr(output, "pooler_output", None) is not None, "no pooled output")
            return output.pooler_output.flatten(1)
        last = output.last_hidden_state  # (T, tokens, C) or (T, C, height, width)
        if last.ndim == 4:
            last = last.flatten(2).transpose(1, 2)
            self._expect_layer(self.layer != "cls", "a map of places without a first token")
        return last[:, 0] if self.layer == "cls" else last.mean(1)

    def _is_unused(self, weight: str) -> bool:
        return self.layer in ("cls", "mean") and ("pooler" in weight or ".head." in weight)

    def _expect_layer(self, has_layer: bool, found: str) -> None:
        what = f"{self.model_name} has no layer {self.layer!r}"
        require(has_layer, what, found=found, expected="such an output", fix="choose another of " + ", ".join(LAYERS))


class ObjectEncoder(PictureEncoder):
    """Turn frames into object regions.

    Args:
        model: Hub id or local folder of a detector that `AutoModelForObjectDetection` loads.
        num_objects: regions N a frame, best score first.
        threshold: regions that score less are left out; the rest of the N rows is zero.
        revision: branch, tag or commit on the Hub.
        device: where to compute.
        dtype: "float32" or "bfloat16".
        batch_size: frames per forward pass.

    Raises:
        CausalVideoError: the detector is not there, is incomplete, or proposes fewer than N boxes per frame.
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

        self.model_name = model
        self.layer = OBJECT_LAYER
        self.device = device
        self.dtype = dtype
        self.num_objects = num_objects
        self.threshold = threshold
        self.batch_size = batch_size
        self.model, self.revision = load_network(
            AutoModelForObjectDetection, model, revision, device, dtype, lambda weight: False
        )
        self.processor = load_image_processor(model, self.revision)
        self.dim = self([np.zeros((64, 64, 3), np.uint8)])["object_features"].shape[2]

    def __call__(self, frames: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Detect objects, a batch of frames at a time.

        Args:
            frames: T arrays (height, width, 3), RGB uint8, all of one size.

        Returns:
            `object_features` (T, N, C), `object_boxes` (T, N, 4) xyxy in [0, 1], `object_scores` (T, N),
            `object_labels` (T, N), on the CPU; rows without an object are 0, their label -1.
        """
        batches = [frames[i : i + self.batch_size] for i in range(0, len(frames), self.batch_size)]
        parts = [self.encode(self.prepare(batch)) for batch in batches]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    @torch.inference_mode()
    def encode(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Detect objects in prepared frames, a batch at a time; gives what the call gives."""
        parts = [self._detect(batch) for batch in in_batches(inputs, self.batch_size, self.device, self.model.dtype)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _detect(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        output = self.model(**inputs)
        logits = output.logits.float().cpu()  # (T, proposals, classes)
        what = f"{self.model_name} proposes too few boxes"
        expected = f"at least num_objects = {self.num_objects}"
        is_enough = logits.shape[1] >= self.num_objects
        require(is_enough, what, found=f"{logits.shape[1]} per frame", expected=expected, fix="lower --num-objects")
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


def in_batches(
    inputs: Mapping[str, Tensor], size: int, device: str, dtype: torch.dtype
) -> Iterator[dict[str, Tensor]]:
    """Give the inputs of a network batch by batch, on its device and in its arithmetic."""
    count = len(next(iter(inputs.values())))
    for start in range(0, count, size):
        parts = {name: values[start : start + size] for name, values in inputs.items()}
        yield {n: part.to(device, dtype if part.is_floating_point() else None) for n, part in parts.items()}


def _corners(boxes: Tensor) -> Tensor:
    """Centre and size to xyxy, cut at the edge of the picture."""
    centre = boxes[..., :2]
    half = boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], -1).clamp(0, 1)


def load_network(
    auto_class: Any, name: str, revision: str | None, device: str, dtype: str, is_unused: Callable[[str], bool]
) -> tuple[Any, str]:
    """Load a pretrained network in evaluation mode, and its revision.

    Args:
        auto_class: `AutoModel` or `AutoModelForObjectDetection`.
        name: local folder or Hub id.
        revision: branch, tag or commit on the Hub; the `sha256-...` of an earlier load for a local folder.
        device: "cpu", "cuda", ...
        dtype: "float32" or "bfloat16".
        is_unused: tells weights that may be missing from the checkpoint, because their output is not read.

    Raises:
        CausalVideoError: no such network, an unknown arithmetic, a folder whose content changed, or weights that the
            checkpoint does not hold (they would be random numbers).
    """
    check_choice("arithmetic", dtype, ARITHMETIC)
    is_local = Path(name).is_dir()
    fingerprint = fingerprint_folder(name) if is_local else None
    is_same = not is_local or revision in (None, fingerprint)
    fix = "use the folder that the features were made with"
    what = f"the network in {name} is not the one asked for"
    require(is_same, what, found=fingerprint, expected=revision, fix=fix)
    try:
        with _unreported():
            model, info = auto_class.from_pretrained(
                name,
                revision=None if is_local else revision,
                dtype=ARITHMETIC[dtype],
                output_loading_info=True,
                trust_remote_code=False,
            )
    except FAULTS as error:
        is_pickled = isinstance(error, UnpicklingError)
        reason = "pickled weights that hold more than tensors" if is_pickled else first_line(error)
        expected = "a folder or Hub id with config.json and weights, tensors and nothing else"
        fix = "check the name; save local networks with save_pretrained"
        what = f"cannot load the network {name!r}"
        raise CausalVideoError(what, found=reason, expected=expected, fix=fix) from error
    missing = sorted(key for key in info["missing_keys"] if not is_unused(key))
    what = f"the checkpoint {name!r} lacks weights that the features would come from"
    fix = "choose another checkpoint or another layer"
    require(not missing, what, found=f"no {', '.join(missing[:5])}", expected="every weight", fix=fix)
    return model.to(device).eval(), fingerprint or getattr(model.config, "_commit_hash", None) or revision or "main"


def load_image_processor(name: str, revision: str | None):
    """Load the image processor in its PIL form, so that features do not depend on whether torchvision is there."""
    from transformers import AutoImageProcessor

    what = f"cannot load the image processor of {name!r}"
    expected = "preprocessor_config.json next to the weights"
    fix = "save the image processor into the same folder"
    with reworded((OSError, ValueError), what, expected=expected, fix=fix):
        return AutoImageProcessor.from_pretrained(
            name, revision=None if Path(name).is_dir() else revision, backend="pil", trust_remote_code=False
        )


@contextmanager
def _unreported() -> Iterator[None]:
    """Silence transformers' report of weights: unused ones do not matter, and missing ones are refused here."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
