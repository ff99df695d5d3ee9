"""transformers' ProcessorTesterMixin over our processors."""

from typing import Any
from unittest import TestCase

from tests.peer.sources import make_importable

make_importable()

from transformers_tests.test_processing_common import ProcessorTesterMixin  # noqa: E402

from hf_causal_video.models import VideoQAProcessor, VideoRelationProcessor  # noqa: E402
from hf_causal_video.worlds import world_tokenizer  # noqa: E402


class TestQuestionProcessor(ProcessorTesterMixin, TestCase):
    processor_class = VideoQAProcessor

    @classmethod
    def _setup_tokenizer(cls) -> Any:
        return world_tokenizer()

    @staticmethod
    def prepare_processor_dict() -> dict[str, Any]:
        return {}


class TestRelationProcessor(ProcessorTesterMixin, TestCase):
    processor_class = VideoRelationProcessor

    @staticmethod
    def prepare_processor_dict() -> dict[str, Any]:
        return {"object_classes": ["dog", "cat"], "predicates": ["chase", "watch"]}
