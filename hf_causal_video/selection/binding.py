"""Bind a selector to a loaded video processor for the length of a `with` block.

Why in front of `preprocess`: the library's hook for choosing frames, `sample_frames`, sees how many frames a clip has
but neither the frames nor the question, and takes the chosen ones for evenly spaced ticks of one clock. So the call as
a whole is intercepted: the clip is decoded, frames are chosen, and the processor's own `preprocess` receives these
frames, as already sampled, with metadata whose `timestamps` are the true seconds.

For the block the instance changes its class to a subclass of its own, and changes back; no attribute of it is touched
(an attribute would be written into its JSON), no other instance sees it, and no package is edited.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from torch import Tensor
from transformers import BatchFeature, ProcessorMixin
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import (
    VideoInput,
    VideoMetadata,
    get_video_size,
    make_batched_metadata,
    make_batched_videos,
)

from hf_causal_video.features.decode import pictures
from hf_causal_video.selection.budget import TokenBudget
from hf_causal_video.selection.clip import Clip, candidate_positions, check_times
from hf_causal_video.selection.rules import Selection
from hf_causal_video.selection.selectors import FrameSelector
from hf_causal_video.utils.errors import CausalVideoError, require

CLOCK = 1000.0  # ticks per second of metadata whose frames fit no clock of their own
TRIED = "Qwen2.5-VL, Qwen3-VL, LLaVA-OneVision, SmolVLM, InternVL"


@dataclass
class Binding:
    """State of one binding: `selections` gets one entry for each clip that the processor is given."""

    selector: FrameSelector
    question: str | Sequence[str] | None
    budget: int | TokenBudget
    choices: Sequence[str] | None
    timestamps_s: Sequence[float] | None
    selections: list[Selection] = field(default_factory=list)
    is_active: bool = True

    def choose(
        self, videos: VideoInput, metadata: VideoMetadata | dict | list | None, least: int = 1
    ) -> tuple[list[np.ndarray | Tensor], list[VideoMetadata]]:
        """Choose the frames of each clip and their metadata; fewer than `least` repeat the last."""
        listed = list(videos) if isinstance(videos, list | tuple) else [videos]
        clips = make_batched_videos([os.fspath(v) if isinstance(v, os.PathLike) else v for v in listed])
        is_video = clips and not isinstance(clips[0], list)
        require(is_video, "clip", found="pictures given by path", expected="a video's path, or its decoded frames")
        known: Sequence[VideoMetadata | None] = [None] * len(clips)
        if metadata is not None:
            known = make_batched_metadata(cast(VideoInput, clips), metadata)
        is_one = self.question is None or isinstance(self.question, str)
        one_for_all = [cast(str | None, self.question)] * len(clips)
        questions = one_for_all if is_one else list(self.question or ())
        counts = f"{len(questions)} for {len(clips)} clips"
        require(len(questions) == len(clips), "questions", found=counts, expected="one per clip, or one for all")
        chosen = [
            self._one(clip, facts, question, least)
            for clip, facts, question in zip(clips, known, questions, strict=True)
        ]
        return [frames for frames, _ in chosen], [times for _, times in chosen]

    def _one(
        self, video: str | np.ndarray | Tensor, metadata: VideoMetadata | None, question: str | None, least: int
    ) -> tuple[np.ndarray | Tensor, VideoMetadata]:
        ticks = None
        if isinstance(video, str):
            clip = Clip.read(video, sampling=self.selector.sampling)
            video = np.stack(clip.frames or [])
            end = clip.duration_s
        else:
            times, ticks = self._times(metadata, len(video))
            wanted = candidate_positions(times, self.selector.sampling)
            clip = Clip(times[wanted], wanted, pictures(video[wanted]))
            end = _length(times)
        selection = self.selector.select(clip, question, self.budget, self.choices)
        self.selections.append(selection)
        order = np.arange(max(len(selection.frame_indices), least)).clip(max=len(selection.frame_indices) - 1)
        indices = np.array(selection.frame_indices)[order]
        if ticks is None or metadata is None:
            return video[indices], metadata_in_ms(np.array(selection.timestamps_s)[order], end, video)
        shown = type(metadata)(**metadata)
        shown.frames_indices = ticks[indices]
        return video[indices], shown

    def _times(self, metadata: VideoMetadata | None, count: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the seconds of decoded frames, and their ticks if they come from the metadata's clock."""
        if self.timestamps_s is not None:
            return check_times(self.timestamps_s, count), None
        if metadata is None or not metadata.fps:
            raise CausalVideoError(
                "the times of the frames",
                found="decoded frames without times",
                expected="the seconds of each frame, which decide its timestamp in the prompt",
                fix="give the processor video_metadata with fps, or bind_selector timestamps_s, or pass a path",
            )
        every = metadata.frames_indices
        ticks = np.arange(metadata.total_num_frames) if every is None else np.asarray(every)
        return check_times(ticks / float(metadata.fps), count), ticks


@contextmanager
def bind_selector(
    processor: ProcessorMixin | BaseVideoProcessor,
    selector: FrameSelector,
    question: str | Sequence[str] | None = None,
    budget: int | TokenBudget = 8,
    choices: Sequence[str] | None = None,
    timestamps_s: Sequence[float] | Tensor | None = None,
) -> Iterator[Binding]:
    """Make a processor of transformers take the frames that a selector chooses, inside the block and nowhere else.

    Inside, every clip given to this processor (a path, read by PyAV, or decoded frames) is reduced to the chosen
    frames; its own `num_frames`, `fps` and `do_sample_frames` are ignored. On leaving, also by an error, the processor
    is what it was. If several bindings are active on one processor, the last one made chooses; when it ends, the one
    before is active again, in whatever order they end. A bound processor serves one thread.

    The true seconds are `video_metadata[i].timestamps`. Models use them differently: Qwen3-VL and SmolVLM write them
    into the prompt (Qwen3-VL the mean of each pair of frames, which it merges), Qwen2.5-VL knows one mean spacing per
    clip, LLaVA-OneVision and InternVL know only the order.

    Args:
        processor: `AutoProcessor` of a video language model, or its video processor.
        selector: chooses; `selector.sampling` says which moments of a clip it looks at.
        question: one for all clips of a call, or one per clip.
        budget: frames, or a `TokenBudget`.
        choices: given to the selector.
        timestamps_s: (T,) seconds of decoded frames, without `video_metadata` that has a rate.

    Returns:
        A `Binding`; its `selections` say what was chosen for each clip, in the order of the calls.

    Raises:
        CausalVideoError: an object that cannot be bound; inside the block, as the selector.
    """
    video_processor = getattr(processor, "video_processor", processor)
    can_be_bound = callable(getattr(type(video_processor), "sample_frames", None))
    expected = f"a processor with a video processor, which needs torchvision (tried: {TRIED})"
    require(can_be_bound, "this processor cannot be bound", found=type(processor).__name__, expected=expected)
    require(isinstance(selector, FrameSelector), "selector", found=type(selector).__name__, expected="a FrameSelector")
    times = None if timestamps_s is None else [float(second) for second in timestamps_s]
    binding = Binding(selector, question, budget, choices, times)
    video_processor = cast(BaseVideoProcessor, video_processor)
    video_processor.__class__ = _bound_class(video_processor, binding)
    try:
        yield binding
    finally:
        binding.is_active = False
        above = type(video_processor)
        while (entry := getattr(above, "_binding", None)) is not None and not entry[0].is_active:
            above = entry[1]
        video_processor.__class__ = above


def _bound_class(video_processor: BaseVideoProcessor, binding: Binding) -> type:
    before = type(video_processor)
    free = getattr(before, "_free", before)

    def preprocess(
        self: BaseVideoProcessor,
        videos: VideoInput,
        *,
        video_metadata: VideoMetadata | dict | list | None = None,
        **kwargs: object,
    ) -> BatchFeature:
        self.__class__ = free  # a token budget asks this very processor
        try:
            patch = getattr(self, "temporal_patch_size", None) or 1
            frames, metadata = binding.choose(videos, video_metadata, patch)
            return self.preprocess(frames, **{**kwargs, "video_metadata": metadata, "do_sample_frames": False})
        finally:
            self.__class__ = bound

    known = {"_free": free, "_binding": (binding, before), "__module__": free.__module__, "__doc__": free.__doc__}
    bound = type(free.__name__, (free,), {"preprocess": preprocess, **known})
    bound.__qualname__ = free.__qualname__
    return bound


def _length(times: np.ndarray) -> float:
    return float(times[-1] + (np.median(np.diff(times)) if len(times) > 1 else 1.0))


def metadata_in_ms(times_s: np.ndarray, duration_s: float | None, frames: np.ndarray | Tensor) -> VideoMetadata:
    """Make metadata on a clock of milliseconds, which uneven frames fit."""
    duration = max(duration_s or 0.0, float(times_s[-1]))
    height, width = get_video_size(frames)  # type: ignore[arg-type]
    ticks = np.round(times_s * CLOCK).astype(int)  # an array: Qwen3-VL appends to a list
    total = max(round(duration * CLOCK), 1)
    return VideoMetadata(total, CLOCK, width, height, duration, "pyav", ticks)  # type: ignore[arg-type]
