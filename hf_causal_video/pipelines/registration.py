"""Names of the pipelines, and their registration with transformers."""

QUESTION_TASK = "video-question-answering"
RELATION_TASK = "video-relation-detection"


def register_pipelines() -> None:
    """Register both pipelines by name, so that `transformers.pipeline(name, model=...)` finds them."""
    from transformers import AutoModel
    from transformers.pipelines import PIPELINE_REGISTRY

    from hf_causal_video.pipelines.question_answering import VideoQuestionAnsweringPipeline
    from hf_causal_video.pipelines.relation_detection import VideoRelationDetectionPipeline

    for name, pipeline in (
        (QUESTION_TASK, VideoQuestionAnsweringPipeline),
        (RELATION_TASK, VideoRelationDetectionPipeline),
    ):
        PIPELINE_REGISTRY.register_pipeline(name, pipeline_class=pipeline, pt_model=AutoModel, type="multimodal")
