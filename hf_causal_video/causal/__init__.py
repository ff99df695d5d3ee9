"""The mechanisms of the thesis, one small file each: tensors in, tensors out, no knowledge of models."""

from hf_causal_video.causal.topk import hard_topk, perturbed_topk, topk_indices

__all__ = ["hard_topk", "perturbed_topk", "topk_indices"]
