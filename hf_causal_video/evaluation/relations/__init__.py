"""Metrics of video relation detection, equal to the published evaluation."""

from hf_causal_video.evaluation.relations.metrics import vidvrd_metrics

__all__ = ["vidvrd_metrics"]
