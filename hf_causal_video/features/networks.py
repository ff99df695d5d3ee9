"""Load a network and its image processor for extraction, whole or not at all, and say exactly which one it was."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError

from hf_causal_video.utils.errors import CausalVideoError

ARITHMETIC = {"float32": torch.float32, "bfloat16": torch.bfloat16}
FAULTS = (OSError, ValueError, LookupError, TypeError, RuntimeError, UnpicklingError, SafetensorError)
WEIGHTS = ("*.safetensors", "*.bin", "*.json", "*.txt", "*.model")


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
    if dtype not in ARITHMETIC:
        raise CausalVideoError(
            "unknown arithmetic", found=dtype, expected=" or ".join(ARITHMETIC), fix="use one of them"
        )
    is_local = Path(name).is_dir()
    fingerprint = fingerprint_folder(name) if is_local else None
    if is_local and revision not in (None, fingerprint):
        raise CausalVideoError(
            f"the network in {name} is not the one asked for",
            found=fingerprint,
            expected=revision,
            fix="use the folder that the features were made with",
        )
    try:
        with _unreported():
            model, info = auto_class.from_pretrained(
                name, revision=None if is_local else revision, dtype=ARITHMETIC[dtype], output_loading_info=True,
                trust_remote_code=False,
            )  # fmt: skip
    except FAULTS as error:
        told = "pickled weights that hold more than tensors" if isinstance(error, UnpicklingError) else str(error)
        raise CausalVideoError(
            f"cannot load the network {name!r}",
            found=told.splitlines()[0] if told else type(error).__name__,
            expected="a folder or Hub id with config.json and weights, tensors and nothing else",
            fix="check the name; save local networks with save_pretrained",
        ) from error
    missing = sorted(key for key in info["missing_keys"] if not is_unused(key))
    if missing:
        raise CausalVideoError(
            f"the checkpoint {name!r} lacks weights that the features would come from",
            found=f"no {', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}",
            expected="every weight",
            fix="choose another checkpoint or another layer",
        )
    return model.to(device).eval(), fingerprint or getattr(model.config, "_commit_hash", None) or revision or "main"


def load_image_processor(name: str, revision: str | None):
    """Load the image processor in its PIL form, so that features do not depend on whether torchvision is there."""
    from transformers import AutoImageProcessor

    try:
        return AutoImageProcessor.from_pretrained(
            name, revision=None if Path(name).is_dir() else revision, backend="pil", trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise CausalVideoError(
            f"cannot load the image processor of {name!r}",
            found=str(error).splitlines()[0],
            expected="preprocessor_config.json beside the weights",
            fix="save the image processor into the same folder",
        ) from error


@contextmanager
def _unreported() -> Iterator[None]:
    """Without transformers' report of weights: those left over are no news, and those missing are refused by us."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def fingerprint_folder(folder: str | Path) -> str:
    """Give a name to the content of a local model folder: weights, configuration and vocabulary.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "config.json").write_text("{}")
        ...     fingerprint_folder(folder).partition("-")[0]
        'sha256'
    """
    digest = hashlib.sha256()
    for file in sorted({file for pattern in WEIGHTS for file in Path(folder).glob(pattern)}):
        with open(file, "rb") as content:
            digest.update(f"{file.name} {hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
    return f"sha256-{digest.hexdigest()[:16]}"
