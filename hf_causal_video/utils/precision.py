"""Precision of float32 matrix products as a setting of a block of code, restored at its end."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch

from hf_causal_video.utils.checks import check_choice

Precision = Literal["highest", "high", "medium"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """Compute float32 matrix products in a given precision; tensors and all other operations stay float32.

    Why: products are most of the work, and hardware for bfloat16 or TF32 multiplies faster. Where the hardware has
    none (a CPU without AMX), products stay float32.

    Args:
        name: "highest" is float32; "high" is TF32 on a GPU; "medium" is bfloat16 on a CPU with AMX, TF32 on a GPU.

    Example:
        >>> with matmul_precision("medium"):
        ...     product = torch.ones(2, 2) @ torch.ones(2, 2)
        >>> torch.get_float32_matmul_precision()
        'highest'
    """
    check_choice("matmul_precision", name, PRECISIONS)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
