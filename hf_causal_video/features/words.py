"""Word eyes: a frame as the words an image classifier finds for it, in the space of a text encoder.

Why: a classifier with label names and a text encoder, each trained alone, are together an encoder of images and text.
A frame's vector is the mean of the vectors of its likeliest labels, weighted by their probability,

    v = normalize(sum over the k likeliest labels of p(label | frame) * text(label)),

so that the cosine of a question to a frame says how well the question's words fit what is in the picture. It names
things among the labels it knows; it sees neither actions nor order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from hf_causal_video.features.captions import TextEncoder
from hf_causal_video.features.encoders import PictureEncoder, in_batches, load_image_processor, load_network
from hf_causal_video.features.store.provenance import Provenance
from hf_causal_video.utils.checks import check_whole
from hf_causal_video.utils.errors import require

TOP = 10
LAYER = re.compile(r"words of the (\d+) likeliest labels, text (\S+)")  # in the provenance; \2 is a revision


class WordEncoder(PictureEncoder):
    """Encode frames and text as unit vectors of one space: that of the text encoder.

    Args:
        model: Hub id or local folder of an image classifier with label names.
        label_words: Hub id or local folder of a text encoder; its vectors are means over tokens.
        top: k, how many labels describe a frame; all of a classifier that has fewer.
        revision, text_revision: branch, tag or commit on the Hub, of each.
        device: where to compute.
        dtype: "float32" or "bfloat16".
        batch_size: frames per forward pass.

    Raises:
        CausalVideoError: a network that is absent or incomplete, or a classifier whose labels have no names.
    """

    def __init__(
        self,
        model: str,
        label_words: str,
        top: int = TOP,
        revision: str | None = None,
        text_revision: str | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        batch_size: int = 32,
    ):
        from transformers import AutoModelForImageClassification

        self.model_name = model
        self.device = device
        self.dtype = dtype
        self.batch_size = check_whole("batch_size", batch_size)
        self.model, self.revision = load_network(
            AutoModelForImageClassification, model, revision, device, dtype, lambda weight: False
        )
        names = label_names(self.model.config.id2label, model)
        self.top = min(check_whole("labels per frame", top), len(names))
        self.processor = load_image_processor(model, self.revision)
        self.text = TextEncoder(label_words, revision=text_revision, device=device, dtype=dtype)
        self.labels = self.text(names)  # (labels, C)
        self.dim = self.labels.shape[1]

    @classmethod
    def from_provenance(
        cls, card: Provenance, frame_model: str | None = None, device: str = "cpu", label_words: str | None = None
    ) -> WordEncoder:
        """Build the encoder that a feature set was made with.

        Args:
            card: its provenance; `is_word_layer(card.frame_layer)` holds.
            frame_model, label_words: where the same networks are now, if local folders have moved.
            device: where to compute.

        Raises:
            CausalVideoError: a network is absent or not the same.
        """
        layer = LAYER.fullmatch(card.frame_layer)
        assert layer is not None
        made = card.created_with
        text_model = label_words or made.get("label_words") or ""
        return cls(
            frame_model or card.frame_model,
            text_model,
            int(layer[1]),
            card.frame_revision,
            layer[2],
            device,
            made.get("dtype", "float32"),
        )

    @property
    def layer(self) -> str:
        """Name of the vectors, with the text encoder's revision, so that features of another one are refused."""
        return f"words of the {self.top} likeliest labels, text {self.text.revision}"

    def __call__(self, frames: Sequence[np.ndarray]) -> Tensor:
        """Encode T arrays (height, width, 3) RGB uint8 as unit vectors (T, C) float32 on the CPU."""
        return self.encode(self.prepare(frames))

    @torch.inference_mode()
    def encode(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Encode prepared frames, a batch at a time; gives (T, C) float32 on the CPU."""
        batches = in_batches(inputs, self.batch_size, self.device, self.model.dtype)
        logits = torch.cat([self.model(**batch).logits.float().cpu() for batch in batches])  # (T, labels)
        return word_vectors(logits, self.labels, self.top)

    def encode_frames(self, frames: Sequence[np.ndarray]) -> Tensor:
        """The same, as a selector by similarity asks for it."""
        return self(frames)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Encode texts as unit vectors (n, C)."""
        return self.text(list(texts))

    def similarities(self, frame_features: Tensor, texts: Sequence[str]) -> Tensor:
        """Cosine of each text to each frame, in the layout of TranSTR's `similarities` (num_similarities=1).

        Args:
            frame_features: (T, C) of this encoder.
            texts: A choices, or questions with one choice each.

        Returns:
            (A, T, 1).

        Raises:
            CausalVideoError: features of another width.
        """
        width = frame_features.shape[-1]
        expected = f"{self.dim}, the width of {self.text.model_name}"
        fix = "use features that this encoder made"
        require(width == self.dim, "similarity", found=f"frames of width {width}", expected=expected, fix=fix)
        frames = torch.nn.functional.normalize(frame_features.float(), dim=-1)
        return (self.encode_text(texts) @ frames.T).unsqueeze(-1)


def word_vectors(logits: Tensor, labels: Tensor, top: int = TOP) -> Tensor:
    """Unit vectors (T, C) of frames from logits (T, labels) and the vectors of the labels (labels, C).

    Example:
        >>> word_vectors(torch.tensor([[9.0, 0.0]]), torch.eye(2), top=1)
        tensor([[1., 0.]])
    """
    likely = logits.softmax(-1).topk(top, dim=-1)  # (T, k)
    vectors = (likely.values.unsqueeze(-1) * labels[likely.indices]).sum(1)
    return torch.nn.functional.normalize(vectors, dim=-1)


def is_word_layer(layer: str) -> bool:
    """Tell features of a `WordEncoder` by the `frame_layer` of their provenance.

    Example:
        >>> is_word_layer("words of the 10 likeliest labels, text main"), is_word_layer("pooled")
        (True, False)
    """
    return LAYER.fullmatch(layer) is not None


def label_names(id2label: dict[int, str] | None, model: str) -> list[str]:
    """The first name of each class: "tench" of "tench, Tinca tinca".

    Raises:
        CausalVideoError: classes without names.

    Example:
        >>> label_names({0: "LABEL_0", 1: "LABEL_1"}, "my-net")
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: my-net has no label names: ...
    """
    names = [str((id2label or {})[number]) for number in sorted(id2label or {})]
    are_words = names and not any(re.fullmatch(r"LABEL_\d+|\d+|\s*", name) for name in names)
    expected = "a word for each class in id2label of its config.json"
    fix = "write the names of its classes into config.json, or choose a classifier that has them"
    require(are_words, f"{model} has no label names", found=names[:3] or "no id2label", expected=expected, fix=fix)
    return [name.split(",")[0].strip() or name for name in names]
