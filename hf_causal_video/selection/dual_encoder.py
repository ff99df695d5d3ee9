"""Encoders of questions and frames as unit vectors of one space: a dual encoder of transformers, or word eyes.

Two kinds: one network trained on pairs of image and text (CLIP, SigLIP, ...), or an image classifier whose label names
a text encoder reads (`features/words.py`), for where no such network is to be had.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hf_causal_video.features.encoders import FrameEncoder
from hf_causal_video.features.words import WordEncoder
from hf_causal_video.utils.checks import check_whole
from hf_causal_video.utils.errors import require


def open_encoder(model: str, label_words: str | None = None, device: str = "cpu") -> "DualEncoder | WordEncoder":
    """Load a dual encoder, or with `label_words` an image classifier and the text encoder that reads its labels.

    Args:
        model: Hub id or local folder of the network that sees the frames.
        label_words: Hub id or local folder of a text encoder.
        device: where to compute.

    Raises:
        CausalVideoError: as `DualEncoder` and `WordEncoder`.
    """
    return DualEncoder(model, device=device) if label_words is None else WordEncoder(model, label_words, device=device)


class DualEncoder:
    """Encode text and frames with one network.

    Args:
        model: Hub id or local folder, with its tokenizer and image processor.
        revision: branch, tag or commit on the Hub.
        device: where to compute.
        batch_size: frames per forward pass.

    Raises:
        CausalVideoError: the network is not there, is incomplete, or has only one side.

    Example:
        >>> encoder = DualEncoder("google/siglip2-base-patch16-224")  # doctest: +SKIP
        >>> encoder.encode_text(["a dog"]).shape  # doctest: +SKIP
        torch.Size([1, 768])
    """

    def __init__(self, model: str, revision: str | None = None, device: str = "cpu", batch_size: int = 32):
        from transformers import AutoTokenizer

        self.frames = FrameEncoder(model, "projected", revision, device, batch_size=batch_size)
        self.model = self.frames.model
        reads = hasattr(self.model, "get_text_features")
        expected = "a dual encoder of text and pictures, such as google/siglip2-base-patch16-224"
        fix = "name one; an image classifier needs --label-words"
        require(reads, f"{model} cannot read a question", found=type(self.model).__name__, expected=expected, fix=fix)
        is_on_hub = revision is not None and not revision.startswith("sha256-")
        self.tokenizer = AutoTokenizer.from_pretrained(
            model, revision=self.frames.revision if is_on_hub else "main", trust_remote_code=False
        )

    @property
    def max_tokens(self) -> int:
        """The longest text in tokens."""
        return int(self.model.config.text_config.max_position_embeddings)

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Encode texts as unit vectors (n, C) on the CPU; a text that is too long is an error, never cut."""
        # SigLIP was trained on texts padded to full length, and pools at the last position
        is_padded = self.model.config.model_type.startswith("siglip")
        inputs = self.tokenizer(
            list(texts),
            padding="max_length" if is_padded else True,
            max_length=self.max_tokens if is_padded else None,
            return_tensors="pt",
        )
        length = inputs["input_ids"].shape[1]
        check_whole("number of tokens in a text", length, 1, self.max_tokens, fix="shorten the question")
        output = self.model.get_text_features(**inputs.to(self.model.device))
        features = output if isinstance(output, Tensor) else output.pooler_output
        return torch.nn.functional.normalize(features.float().cpu(), dim=-1)

    def encode_frames(self, frames: Sequence[np.ndarray]) -> Tensor:
        """Encode T arrays (height, width, 3) uint8 RGB as unit vectors (T, C) on the CPU."""
        return torch.nn.functional.normalize(self.frames(frames), dim=-1)
