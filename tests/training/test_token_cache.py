"""Strings are tokenized once, and the batches are those of the tokenizer itself, bit for bit."""

import copy
import pickle

import pytest
import torch

from hf_causal_video.models import VideoQAProcessor
from hf_causal_video.training import token_cache
from hf_causal_video.training.token_cache import CachingTokenizer, with_token_cache
from hf_causal_video.worlds import world_tokenizer

QUESTIONS = ["what does the ball do", "who jumps", "what does the ball do", "is the zebra yodelling"]
CHOICES = [["ball", "a red box"], ["jumps"], ["ball", "a red box"], ["unheard word", "ball"]]


@pytest.fixture
def processor() -> VideoQAProcessor:
    return VideoQAProcessor(world_tokenizer())


def batch(processor, questions=QUESTIONS, choices=CHOICES, **options):
    return processor(questions, choices, torch.ones(len(questions), 3, 8), **options)


@pytest.mark.parametrize("template", ["pair", "choice", "official"])
def test_batches_are_equal_bit_for_bit(processor: VideoQAProcessor, template: str):
    processor.choice_template = template
    cached = with_token_cache(processor)
    for _ in range(2):
        expected, found = batch(processor), batch(cached)
        assert expected.keys() == found.keys()
        for name in expected:
            assert torch.equal(expected[name], found[name]) and expected[name].dtype == found[name].dtype, name
        assert expected.unknown_words == found.unknown_words and found.unknown_words[3]
    assert type(processor.tokenizer) is not CachingTokenizer


def test_a_string_is_tokenized_once(processor: VideoQAProcessor, monkeypatch):
    cached = with_token_cache(processor)
    seen: list[tuple[str, str | None]] = []
    real = type(processor.tokenizer).__call__

    def spy(self, texts, pairs=None, **options):
        seen.extend(zip(texts, pairs or [None] * len(texts), strict=True))
        return real(self, texts, pairs, **options)

    monkeypatch.setattr(type(processor.tokenizer), "__call__", spy)
    batch(cached)
    batch(cached, QUESTIONS[::-1], CHOICES[::-1])
    assert len(seen) == len(set(seen)) > 0


def test_other_options_and_sides_reach_the_tokenizer(processor: VideoQAProcessor):
    cached = with_token_cache(processor)
    options = {"padding": "max_length", "max_length": 40}
    assert torch.equal(batch(cached, **options)["input_ids"], batch(processor, **options)["input_ids"])
    processor.tokenizer.padding_side = "left"
    assert torch.equal(batch(cached)["input_ids"], batch(processor)["input_ids"])


def test_memory_is_bounded_and_travels_to_workers(processor: VideoQAProcessor, monkeypatch):
    monkeypatch.setattr(token_cache, "MOST_STRINGS", 2)
    cached = with_token_cache(processor)
    for _ in range(2):
        assert torch.equal(batch(cached)["choice_input_ids"], batch(processor)["choice_input_ids"])
    assert len(cached.tokenizer.memory) <= 2
    for other in (copy.deepcopy(cached), pickle.loads(pickle.dumps(cached))):
        assert torch.equal(batch(other)["choice_input_ids"], batch(processor)["choice_input_ids"])
