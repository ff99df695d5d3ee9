"""A tokenizer and a text encoder for the few words of the confounded world; nothing is downloaded."""

from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import BertConfig, PreTrainedTokenizerFast

from hf_causal_video.worlds.config import ANSWERS, CLASSES

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
QUESTION_WORDS = ("what", "is", "the", "doing", "who", "colour", "one", "that")


def world_tokenizer() -> PreTrainedTokenizerFast:
    """Return a word-level tokenizer over the words of the world, with special tokens like BERT's.

    Example:
        >>> tokenizer = world_tokenizer()
        >>> tokenizer.decode(tokenizer("who is jumping", "star").input_ids)
        '[CLS] who is jumping [SEP] star [SEP]'
    """
    words = dict.fromkeys((*SPECIAL_TOKENS, *QUESTION_WORDS, *CLASSES, *ANSWERS))
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
    )


def tiny_text_config(vocab_size: int, hidden_size: int = 64, num_layers: int = 2) -> BertConfig:
    """Return the config of a small BERT for `world_tokenizer`: `tiny_text_config(len(tokenizer))`.

    Args:
        vocab_size: words of the tokenizer.
        hidden_size: width, a multiple of 4 (four heads).
        num_layers: transformer layers.

    Example:
        >>> tiny_text_config(len(world_tokenizer())).hidden_size
        64
    """
    return BertConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        intermediate_size=2 * hidden_size,
        max_position_embeddings=64,
        pad_token_id=0,
    )
