"""Pipelines of transformers: a clip in, an answer or relations with their evidence out."""

import transformers.pipelines  # noqa: F401  registers the pipelines before a module here needs it

from hf_causal_video.utils.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {"VideoQuestionAnsweringPipeline": "question_answering", "VideoRelationDetectionPipeline": "relation_detection"},
)
