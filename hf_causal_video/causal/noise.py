"""Gaussian noise that is forgotten and drawn again: chunks of samples from a seed, cheap enough to draw twice.

Why: a score-function gradient needs the noise of the forward pass once more, and keeping it costs more memory than
anything else in a step. Drawing normals is also most of the time of a perturbed top-K, so each vector drawn serves
`USES` samples, rolled along its positions by a random offset. A rolled normal vector is a normal vector: every sample
keeps its distribution and every estimate its mean; two uses of one vector correlate like one part in its length.
"""

import random
from collections.abc import Iterator

import torch
from torch import Tensor

USES, LONG = 4, 64  # samples a drawn vector serves, where vectors are at least so long


def normal_chunks(
    seed: int, shape: tuple[int, int, int], chunk: int, device: torch.device, dtype: torch.dtype
) -> Iterator[Tensor]:
    """Standard normal samples (batch, n, length) in chunks of n = `chunk`, the last one smaller; the same for a seed.

    Args:
        seed: decides every number.
        shape: (batch, samples, length) of all samples together.
        chunk: samples alive at once.
        device, dtype: of the samples.

    Example:
        >>> chunks = normal_chunks(0, (2, 5, 3), 2, torch.device("cpu"), torch.float32)
        >>> [tuple(chunk.shape) for chunk in chunks]
        [(2, 2, 3), (2, 2, 3), (2, 1, 3)]
    """
    (batch, samples, length), offsets = shape, random.Random(seed)
    source = torch.Generator(device).manual_seed(seed)
    drawn, uses = torch.empty(0), 0
    for start in range(0, samples, chunk):
        if not uses:
            drawn = torch.randn(batch, chunk, length, generator=source, device=device, dtype=dtype)
            uses, part = USES if length >= LONG else 1, drawn
        else:
            part = drawn.roll(offsets.randrange(1, length), -1)
        uses -= 1
        yield part[:, : samples - start]
