"""Confounded worlds with known causes: clips, features, pictures and relations drawn by a seed."""

from hf_causal_video.utils.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "ANSWERS": "config",
        "BayesAccuracy": "config",
        "SPLITS": "config",
        "WorldClips": "clips",
        "WorldConfig": "config",
        "WorldSplit": "features",
        "bayes_accuracy": "config",
        "draw_clips": "clips",
        "generate_world": "features",
        "tiny_text_config": "text",
        "world_questions": "clips",
        "world_tokenizer": "text",
    },
)
