"""Callbacks of a run: annealed exploration, independent noise, the best checkpoint, progress, and the frame bank.

Why a bank: IGV and EIGV draw replacement frames from other videos. By default these are the other clips of the batch,
which needs two videos. With `bank="dataset"` the pool is every training video; the bank is filled from the training
split, so a resumed run has the same one, and it is never part of a checkpoint.

With several processes, each one sees only the samples of its own batch wherever samples meet: the frames that a swap
and surroundings that a swap draws from, the partners and negatives of EIGV, the clips that a question is matched with,
those over which the two sides of a split must not vary together. Two processes of four samples each therefore swap and
contrast less widely than one of eight; only a bank of the dataset is the same for all.
Gradients and the size of the causal scene are those of all samples together. Batch norms have statistics of their own,
and the end of an epoch is filled up with its first samples.
"""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, cast

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from hf_causal_video.data import VideoQACollator, VideoQADataset, video_number
from hf_causal_video.data.dataset import uniform_frames
from hf_causal_video.models.igv.modeling_igv import FrameBank
from hf_causal_video.training.arguments import CausalVideoTrainingArguments
from hf_causal_video.utils.checks import check_whole
from hf_causal_video.utils.errors import CausalVideoError, require

Item = dict[str, object]  # of a dataset: a question or a segment with its tensors
Collator = Callable[[Sequence[dict]], Mapping]


class Paced(Protocol):
    """Attributes that callbacks set on a model, each where the method has it."""

    topk_sigma: float
    training_progress: float | None
    bank: FrameBank | None
    warming_up: bool


def bare_model(model: nn.Module | None) -> PreTrainedModel:
    """Return the method's own model, without the wrapper of peft."""
    base = getattr(model, "get_base_model", None)
    return cast(PreTrainedModel, model if base is None else base())


def paced(model: nn.Module | None) -> Paced:
    """Return the method's own model as what callbacks set on it."""
    return cast(Paced, bare_model(model))


class SigmaAnnealing(TrainerCallback):
    """Lower the noise of the differentiable top-K from `topk_sigma` to `topk_sigma_final`, linearly over all steps.

    Why: noise that is wide against the scores makes a selector explore, narrow noise makes training resemble the hard
    choice at test time. The value is a function of the step alone, so a resumed run sees the same one. Models whose
    config has no `topk_sigma_final`, or None there, are left alone.
    """

    def on_step_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: object,
    ) -> None:
        """Set the noise of the step that begins."""
        config = bare_model(model).config
        final = getattr(config, "topk_sigma_final", None)
        if final is not None:
            first = float(config.topk_sigma)
            share = state.global_step / max(state.max_steps - 1, 1)
            paced(model).topk_sigma = first + (float(final) - first) * min(share, 1.0)


class IndependentNoise(TrainerCallback):
    """Give every process its own dropout and selection noise.

    Why: all processes are seeded alike so that they start from the same weights and draw the same order of samples;
    left so, sample i would meet the same noise on every process. The first process keeps its generator, so a run of
    one process is not touched. A resumed run restores each process's own state afterwards.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Give every process but the first its own seed."""
        if args.process_index:
            torch.manual_seed(args.seed + args.process_index)


class BestCheckpoint(TrainerCallback):
    """Find the best checkpoint of a resumed run again, wherever the folder stands now.

    Why: the Trainer stores its path; after a move it would go on without it and save the last weights as the best.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Point the state to the folder of the best step."""
        if state.best_global_step and state.global_step:
            path = os.path.join(str(args.output_dir), f"{PREFIX_CHECKPOINT_DIR}-{state.best_global_step}")
            require(
                os.path.isdir(path),
                "the best checkpoint of the run is gone",
                found=f"no folder {path}",
                expected="every checkpoint that the run kept",
                fix="restore it, or start again in an empty folder",
            )
            state.best_model_checkpoint = path


def with_video_ids(collator: Collator, model: nn.Module) -> Collator:
    """Return the collator, with `video_ids` in its batches if the model takes them."""
    asks = "video_ids" in inspect.signature(bare_model(model).forward).parameters
    return replace(collator, with_video_ids=True) if asks and isinstance(collator, VideoQACollator) else collator


def swaps_in_batch(model: nn.Module) -> bool:
    """Tell whether a training step of this model takes frames from other clips of its batch."""
    return getattr(bare_model(model).config, "bank", None) == "batch"


def drop_lone_sample(model: nn.Module, arguments: CausalVideoTrainingArguments, questions: int) -> None:
    """Leave out the last batch of an epoch where it would hold too few samples to swap frames with.

    A swap needs frames of another video, the contrast of EIGV those of two more. Other samples are left out every
    epoch. Of several processes none gets such a batch: their sampler fills it up.
    """
    size = arguments.per_device_train_batch_size
    config = bare_model(model).config
    needed = 3 if getattr(config, "contrast_weight", 0) else 2
    swaps = getattr(config, "contrast_weight", 0) or getattr(config, "intervened_weight", 0)
    require(
        not swaps or not swaps_in_batch(model) or min(size, questions) >= needed,
        "nothing to swap frames with",
        found=f"batches of {min(size, questions)}",
        expected=f"at least {needed} questions per batch of a process",
        fix="raise per_device_train_batch_size, or set bank='dataset' in config_overrides",
    )
    if swaps_in_batch(model) and arguments.world_size == 1 and size >= needed and 0 < questions % size < needed:
        arguments.dataloader_drop_last = True


class TrainingProgress(TrainerCallback):
    """Set the share of training that is over, for models that warm up or ramp their losses.

    It is a function of the step alone, so a resumed run sees the same one.
    """

    def on_step_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: object,
    ) -> None:
        """Set the progress of the step that begins."""
        if hasattr(bare_model(model), "training_progress"):
            paced(model).training_progress = state.global_step / max(state.max_steps, 1)


class FillBank(TrainerCallback):
    """Fill the frame bank of a model that swaps with the whole training split (`bank="dataset"`).

    Args:
        dataset: the training split; every video of it is stored once, with the frames that training reads.
    """

    def __init__(self, dataset: Dataset | None):
        self.dataset = dataset

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: object,
    ) -> None:
        """Read the frames of all training videos."""
        config = bare_model(model).config
        if getattr(config, "bank", None) == "dataset" and paced(model).bank is None:
            bank = read_bank(self.dataset)
            paced(model).bank = bank
            needed = 3 if getattr(config, "contrast_weight", 0) else 2
            videos = int(bank.video_ids.unique().numel())
            check_whole("number of training videos to swap frames with", videos, needed, fix="train on more videos")


def read_bank(dataset: Dataset | None) -> FrameBank:
    """Read all frames of the videos of a split, in float16 as stored, on the CPU.

    Args:
        dataset: a split; of each video the frames that its items hold.

    Raises:
        CausalVideoError: the dataset is not a `VideoQADataset`.
    """
    if not isinstance(dataset, VideoQADataset):
        raise CausalVideoError(
            "no videos to fill the frame bank with",
            found=type(dataset).__name__,
            expected="a VideoQADataset",
            fix="set model.bank yourself, or swap inside the batch with bank='batch'",
        )
    names = list(dict.fromkeys(dataset.questions["video_id"]))
    clips = []
    for name in names:
        frames = dataset.store[name].frame_features  # (T, C)
        kept = dataset.num_frames
        clips.append(frames if kept is None or kept >= len(frames) else frames[uniform_frames(len(frames), kept)])
    lengths = torch.tensor([len(frames) for frames in clips])
    frames = pad_sequence(clips, batch_first=True)  # (S, T, C)
    mask = torch.arange(frames.shape[1]) < lengths[:, None]
    ids = torch.tensor([video_number(name) for name in names])
    return FrameBank(frames, ids, None if bool(mask.all()) else mask)
