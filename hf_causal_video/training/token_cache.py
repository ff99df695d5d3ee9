"""A tokenizer that remembers the strings it has seen: an epoch asks the same questions and choices again.

Why here and not in the processor: only training repeats its strings, and a user may change a tokenizer between calls.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from tokenizers import Encoding
from torch import Tensor
from transformers import BatchEncoding, PreTrainedTokenizerBase, ProcessorMixin

MOST_STRINGS = 2**17  # remembered per process; later ones are tokenized each time
PLAIN = {"padding", "return_tensors", "return_token_type_ids", "return_attention_mask"}


@dataclass
class Tokens:
    """One tokenized string.

    Args:
        ids: (L,) int32.
        encoding: of the fast tokenizer, kept only where the string has unknown words.
    """

    ids: np.ndarray
    encoding: Encoding | None


@dataclass
class PaddedTokens:
    """Padded strings, with the parts of `BatchEncoding` that the processor reads."""

    input_ids: Tensor  # (R, L)
    attention_mask: Tensor  # (R, L)
    encodings: list[Encoding | None]

    def __getitem__(self, name: str) -> Tensor:
        return getattr(self, name)


@dataclass
class CachingTokenizer:
    """Tokenizer that tokenizes each string once and pads from memory; everything else is that of the tokenizer.

    Calls with other options than padding to the longest, and tokenizers that pad on the left or are written in Python,
    are passed on unchanged.

    Args:
        tokenizer: the tokenizer; it must not change from here on.
    """

    tokenizer: PreTrainedTokenizerBase
    memory: dict[tuple[str, str | None], Tokens] = field(default_factory=dict)

    def __getattr__(self, name: str) -> object:
        if name.startswith("__") or name == "tokenizer":  # not there yet while an object is unpickled
            raise AttributeError(name)
        return getattr(self.tokenizer, name)

    def __len__(self) -> int:
        return len(self.tokenizer)

    def __call__(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, **options: object
    ) -> PaddedTokens | BatchEncoding:
        tokenizer = self.tokenizer
        plain = set(options) <= PLAIN and options.get("padding") is True
        if not (plain and tokenizer.is_fast and tokenizer.padding_side == "right"):
            return tokenizer(texts, pairs, **options)
        seconds: Sequence[str | None] = [None] * len(texts) if pairs is None else pairs
        keys = list(zip(texts, seconds, strict=True))
        tokens = self._tokenized(keys)
        longest = max(len(tokens[key].ids) for key in keys)
        ids = torch.full((len(keys), longest), tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for row, key in enumerate(keys):
            string = torch.from_numpy(tokens[key].ids)
            ids[row, : len(string)] = string
            mask[row, : len(string)] = 1
        return PaddedTokens(ids, mask, [tokens[key].encoding for key in keys])

    def _tokenized(self, keys: Sequence[tuple[str, str | None]]) -> dict[tuple[str, str | None], Tokens]:
        new = list(dict.fromkeys(key for key in keys if key not in self.memory))
        if not new:
            return self.memory
        seconds = [second for _, second in new]
        encoded = self.tokenizer([first for first, _ in new], None if None in seconds else seconds)
        unknown = self.tokenizer.unk_token_id
        fresh = {
            key: Tokens(np.array(ids, dtype=np.int32), encoding if unknown in ids else None)
            for key, ids, encoding in zip(new, encoded["input_ids"], encoded.encodings, strict=True)
        }
        if len(self.memory) + len(fresh) <= MOST_STRINGS:
            self.memory.update(fresh)
            return self.memory
        return {**{key: self.memory[key] for key in keys if key in self.memory}, **fresh}


def with_token_cache(processor: ProcessorMixin) -> ProcessorMixin:
    """Return a shallow copy of a processor that tokenizes each string once; save the original, not the copy."""
    cached = copy.copy(processor)
    cached.tokenizer = CachingTokenizer(processor.tokenizer)
    return cached
