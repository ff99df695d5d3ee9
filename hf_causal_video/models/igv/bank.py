"""A bank of training frames on disk: beside a checkpoint where asked for, and restored exactly."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from hf_causal_video.causal import FrameBank
from hf_causal_video.utils.errors import CausalVideoError

BANK_FILE = "frame_bank.safetensors"


def save_bank(bank: FrameBank, folder: str | Path) -> None:
    """Write a bank into a folder."""
    tensors = {"frames": bank.frames, "video_ids": bank.video_ids}
    if bank.mask is not None:
        tensors["mask"] = bank.mask
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, Path(folder) / BANK_FILE)


def load_bank(folder: str | Path) -> FrameBank:
    """Read the bank of a folder, bit by bit what was written.

    Raises:
        CausalVideoError: a folder without one.
    """
    path = Path(folder) / BANK_FILE
    if not path.is_file():
        raise CausalVideoError(
            "frame bank",
            found=f"no {BANK_FILE} in {folder}",
            expected="a checkpoint saved with save_bank=True",
            fix="fill model.bank from the training split again",
        )
    tensors: dict[str, torch.Tensor] = load_file(path)
    return FrameBank(**tensors)
