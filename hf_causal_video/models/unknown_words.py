"""Words that a tokenizer does not know: found in a batch, and named once in a warning.

Why: a model answers a question that it cannot read with the same confidence as any other.
"""

import unicodedata
from collections.abc import Sequence

from transformers import BatchEncoding, PreTrainedTokenizerBase
from transformers.utils import logging

logger = logging.get_logger(__name__)
MOST_NAMED = 50  # words that warnings name per process; data with many unknown words would fill the terminal
_named: set[str] = set()


def find_unknown_words(
    tokenizer: PreTrainedTokenizerBase,
    encoded: BatchEncoding,
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
) -> list[list[str]]:
    """Return for each string the words that became the tokenizer's unknown token.

    Args:
        tokenizer: the tokenizer.
        encoded: what it returned for these strings, with `input_ids` (rows, L) as a tensor.
        texts: the strings.
        pairs: their second parts, where strings are pairs.

    Example:
        >>> from hf_causal_video.worlds import world_tokenizer
        >>> tokenizer, texts = world_tokenizer(), ["who is yodelling", "who is jumping"]
        >>> find_unknown_words(tokenizer, tokenizer(texts, padding=True, return_tensors="pt"), texts)
        [['yodelling'], []]
    """
    words: list[list[str]] = [[] for _ in texts]
    if tokenizer.unk_token_id is None:
        return words
    encodings = getattr(encoded, "encodings", None)
    unknown = encoded["input_ids"] == tokenizer.unk_token_id  # (rows, L)
    for row in unknown.any(1).nonzero()[:, 0].tolist():
        parts = [texts[row]] if pairs is None else [texts[row], pairs[row]]
        if encodings:
            encoding = encodings[row]
            for place in unknown[row].nonzero()[:, 0].tolist():
                part = parts[encoding.sequence_ids[place] or 0]
                words[row].append(_word_at(part, *encoding.offsets[place]))
        else:  # a tokenizer in Python: word by word
            for word in " ".join(parts).split():
                if tokenizer.unk_token_id in tokenizer(word, add_special_tokens=False)["input_ids"]:
                    words[row].append(word)
        words[row] = [word for word in dict.fromkeys(words[row]) if not _is_punctuation(word)]
    return words


def warn_of_unknown_words(words: Sequence[Sequence[str]]) -> None:
    """Name unknown words in one warning, each once per process."""
    new = list(dict.fromkeys(word for row in words for word in row if word not in _named))
    new = new[: max(MOST_NAMED - len(_named), 0)]
    if new:
        _named.update(new)
        logger.warning(f"the tokenizer does not know: {', '.join(new)}; the model cannot tell such words apart")


def _word_at(text: str, start: int, end: int) -> str:
    """Return the word around a place in a text: an unknown token may be one letter of it."""
    if not text[start:end].isalnum():
        return text[start:end]
    while start > 0 and text[start - 1].isalnum():
        start -= 1
    while end < len(text) and text[end].isalnum():
        end += 1
    return text[start:end]


def _is_punctuation(word: str) -> bool:
    return all(unicodedata.category(letter).startswith("P") for letter in word)
