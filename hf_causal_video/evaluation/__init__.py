"""Metrics over plain lists and dicts, equal to the published evaluations; no model is imported here."""

from hf_causal_video.evaluation.causalvidqa import causalvidqa_accuracy
from hf_causal_video.evaluation.inputs import multiple_choice_accuracy
from hf_causal_video.evaluation.nextgqa import intersect_predictions, nextgqa_metrics
from hf_causal_video.evaluation.nextqa import nextqa_accuracy
from hf_causal_video.evaluation.open_ended import open_ended_accuracy
from hf_causal_video.evaluation.relations.metrics import vidvrd_metrics
from hf_causal_video.evaluation.spans import span_overlap

__all__ = [
    "causalvidqa_accuracy",
    "intersect_predictions",
    "multiple_choice_accuracy",
    "nextgqa_metrics",
    "nextqa_accuracy",
    "open_ended_accuracy",
    "span_overlap",
    "vidvrd_metrics",
]
