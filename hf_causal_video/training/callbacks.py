"""What happens between the steps of a run: annealed exploration, independent noise, the best checkpoint in sight."""

import os
from typing import Any

import torch
from transformers import PreTrainedModel, TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from hf_causal_video.utils.errors import require


def bare_model(model: Any) -> PreTrainedModel:
    """Return the method's own model, without the wrapper of peft."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


class SigmaAnnealing(TrainerCallback):
    """Lower the noise of the differentiable top-K from `topk_sigma` to `topk_sigma_final`, linearly over all steps.

    Why: noise that is wide against the scores makes a selector explore, narrow noise makes training resemble the hard
    choice at test time. The value is a function of the step alone, so a resumed run sees the same one. Models whose
    config has no `topk_sigma_final`, or None there, are left alone.
    """

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Set the noise of the step that begins."""
        model = bare_model(model)
        final = getattr(model.config, "topk_sigma_final", None)
        if final is not None:
            first, share = float(model.config.topk_sigma), state.global_step / max(state.max_steps - 1, 1)
            model.topk_sigma = first + (float(final) - first) * min(share, 1.0)


class IndependentNoise(TrainerCallback):
    """Give every process its own dropout and selection noise.

    Why: all processes are seeded alike so that they start from the same weights and draw the same order of samples;
    left so, sample i would meet the same noise on every process. The first process keeps its generator, so a run of
    one process is not touched. A resumed run restores each process's own state afterwards.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Seed every process but the first anew."""
        if args.process_index:
            torch.manual_seed(args.seed + args.process_index)


class BestCheckpoint(TrainerCallback):
    """Find the best checkpoint of a resumed run again, wherever the folder stands now.

    Why: the Trainer stores its path; after a move it would go on without it and save the last weights as the best.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Point the state to the folder of the best step."""
        if state.best_global_step and state.global_step:
            path = os.path.join(args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{state.best_global_step}")
            require(
                os.path.isdir(path),
                "the best checkpoint of the run is gone",
                found=f"no folder {path}",
                expected="every checkpoint that the run kept",
                fix="restore it, or start again in an empty folder",
            )
            state.best_model_checkpoint = path
