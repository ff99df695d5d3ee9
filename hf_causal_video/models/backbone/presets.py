"""The published settings of the three backbones on the three datasets, as fields of a config.

Source: the released scripts of EIGV (nine combinations) and IGV. In the released scripts over HGA and Co-Mem for open
answers the flags for sizes, dropout and temperature are parsed and never used; the numbers here are those in effect.
"""

from typing import Any

# Answers of a head: the vocabulary and one class for every other answer; None scores candidates.
DATASETS: dict[str, dict[str, Any]] = {
    "msvdqa": {"num_answers": 1853},
    "msrvttqa": {"num_answers": 5001},
    "nextqa": {"num_answers": None, "num_choices": 5},
}
FEATURES: dict[str, Any] = {"text_feature_dim": 768, "frame_feature_dim": 4096}
HGA_RELEASED: dict[str, Any] = {
    "pool_mask": "post",
    "bilinear_epsilon": None,
    "cell": "lstm",
    "hidden_dim": 512,
    "gcn_layers": 2,
    "bilinear_dim": 1600,
    "bilinear_chunks": 20,
    "bilinear_rank": 15,
}


def hga(dataset: str) -> dict[str, Any]:
    """HGA as EIGV's code builds it."""
    choices = dataset == "nextqa"
    return {**HGA_RELEASED, "word_dim": 768 if choices else 512, "dropout": 0.3 if choices else 0.5}


def comem(dataset: str) -> dict[str, Any]:
    """Co-Mem as EIGV's code builds it."""
    shared = {"appearance_dim": 2048, "detach_memory": True}
    if dataset == "nextqa":
        return {**shared, "hidden_size": 512, "word_dim": 768, "question_layers": 1, "dropout": 0.3}
    return {**shared, "hidden_size": 1024, "word_dim": 512, "question_layers": 2, "dropout": 0.5}


def mspan(dataset: str) -> dict[str, Any]:
    """MSPAN as EIGV's code builds it."""
    activation = "elu" if dataset == "nextqa" else "relu"
    released = {"question_state": "first", "meeting": "start", "activation": activation}
    return {**released, "hidden_size": 512, "num_scales": 2, "rounds": 2, "gcn_layers": 2, "dropout": 0.3}


RELEASED = {"hga": hga, "comem": comem, "mspan": mspan}


def released(dataset: str, backbone: str) -> dict[str, Any]:
    """Fields of a released combination of dataset and backbone."""
    return {**FEATURES, **DATASETS[dataset], "backbone": backbone, "backbone_config": RELEASED[backbone](dataset)}


BACKBONE_PRESETS: dict[str, dict[str, Any]] = {
    "clean": {},
    **{f"official-{dataset}-{name}": released(dataset, name) for dataset in DATASETS for name in RELEASED},
}
