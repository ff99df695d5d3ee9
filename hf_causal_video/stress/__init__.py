"""Stress test: does an answer depend on the clip, and on the evidence that the model points at?"""

from hf_causal_video.utils.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__, {"draw_stress": "picture", "save_stress": "picture", "stress_table": "report", "stress_test": "runner"}
)
