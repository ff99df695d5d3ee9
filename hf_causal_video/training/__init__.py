"""Training: arguments and recipes, the Trainer, and one run from the command line to its artefacts."""

from hf_causal_video.training.arguments import CausalVideoTrainingArguments, DataArguments, ModelArguments
from hf_causal_video.training.questions.task import measure, predict
from hf_causal_video.training.recipe import ConfigParser, read_recipe
from hf_causal_video.training.run import main
from hf_causal_video.training.trainer import CausalVideoTrainer

__all__ = [
    "CausalVideoTrainer",
    "CausalVideoTrainingArguments",
    "ConfigParser",
    "DataArguments",
    "ModelArguments",
    "main",
    "measure",
    "predict",
    "read_recipe",
]
