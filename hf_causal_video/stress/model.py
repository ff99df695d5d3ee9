"""A checkpoint of this package as something that can be stress-tested: questions in, scores and evidence out."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_causal_video.models.base import VideoQAPreTrainedModel
from hf_causal_video.models.outputs import VideoQAOutput, asking_for_evidence
from hf_causal_video.models.processing_video_qa import VideoQAProcessor
from hf_causal_video.stress.ablation import evidence_masks
from hf_causal_video.stress.clips import Asked, Clip
from hf_causal_video.utils.errors import require


@dataclass
class Memory:
    """Results of the last calls: the encoded texts, and the answers that came with the evidence."""

    texts: list[tuple[str, list[str] | None]] = field(default_factory=list)
    inputs: dict[str, Tensor] = field(default_factory=dict)
    explained: list[Asked] = field(default_factory=list)
    logits: Tensor | None = None


class VideoQAAnswerer:
    """A model with its processor as an `Answerer`; its evidence are the frames that it keeps or calls causal.

    Args:
        model: a VideoQA model; it is put into evaluation mode.
        processor: its `VideoQAProcessor`.

    Raises:
        CausalVideoError: features without names, or `evidence` of a model that singles out no frames.
    """

    def __init__(self, model: VideoQAPreTrainedModel, processor: VideoQAProcessor):
        self.model = model.eval()
        self.processor = processor
        self._memory: Memory | None = None

    @contextmanager
    def reuse(self) -> Iterator[None]:
        """Encode texts that are asked about several clips in a row once, inside the block.

        Why a block: outside of it the weights may change from one call to the next.
        """
        self._memory = Memory()
        try:
            yield
        finally:
            self._memory = None

    def __call__(self, frames: Clip, question: str, choices: list[str] | None) -> np.ndarray:
        """Probabilities of the choices, or of the answer vocabulary."""
        return self.batch([(frames, question, choices)])[0]

    def batch(self, asked: Sequence[Asked]) -> list[np.ndarray]:
        """The same for many questions."""
        memory = self._memory
        logits = memory.logits if memory and _same(asked, memory.explained) else self._output(asked)[0].logits
        assert logits is not None
        rows = logits.float().softmax(-1).cpu().numpy()
        return [
            row if choices is None else row[: len(choices)] for row, (_, _, choices) in zip(rows, asked, strict=True)
        ]

    def evidence(self, asked: Sequence[Asked]) -> list[np.ndarray]:
        """Indices of the frames that each answer rests on."""
        output, frame_mask = self._output(asked, explain=True)
        if self._memory is not None:
            self._memory.explained = list(asked)
            self._memory.logits = output.logits
        only, _ = evidence_masks(output, frame_mask)
        return [np.flatnonzero(row) for row in only.cpu().numpy()]

    @torch.inference_mode()
    def _output(self, asked: Sequence[Asked], explain: bool = False) -> tuple[VideoQAOutput, Tensor]:
        """Return the output of the model, and the frame mask (B, T) of each question's clip."""
        # questions that share a clip share its tensors: each is encoded once
        distinct: dict[tuple[int, ...], Mapping[str, object]] = {}
        keys = []
        for clip, _, _ in asked:
            require(
                isinstance(clip, Mapping) and "frame_features" in clip,
                "a checkpoint looks at features",
                found=type(clip).__name__,
                expected="items with frame_features by name",
                fix="extract them first: hf-causal-video extract",
            )
            assert isinstance(clip, Mapping)
            keys.append(tuple(map(id, clip.values())))
            distinct.setdefault(keys[-1], clip)
        clips = list(distinct.values())
        row_of = {key: row for row, key in enumerate(distinct)}
        rows = torch.tensor([row_of[key] for key in keys])
        features: dict[str, Any] = {name: [torch.as_tensor(clip[name]) for clip in clips] for name in clips[0]}
        texts = [(question, choices) for _, question, choices in asked]
        choices = None if texts[0][1] is None else [list(one or ()) for _, one in texts]
        shared = rows if len(clips) < len(asked) else None
        made = self.processor([question for question, _ in texts], choices, **features, video_index=shared)
        inputs = {name: value.to(self.model.device) for name, value in made.items()}
        seen = {name: inputs[name] for name in inputs if name.startswith(("frame_", "object_", "video_"))}
        memory = self._memory or Memory()
        if texts != memory.texts:
            encoded = self.model.encode_texts(inputs)
            memory.texts = texts
            memory.inputs = {name: encoded[name] for name in encoded if name not in seen}
        options = asking_for_evidence(self.model) if explain else {}
        output = self.model(**seen, **memory.inputs, **options)
        return output, inputs["frame_mask"][rows.to(self.model.device)]


def _same(asked: Sequence[Asked], before: Sequence[Asked]) -> bool:
    """Return whether the same questions are asked about the very same clips."""
    pairs = zip(asked, before, strict=False)
    return len(asked) == len(before) and all(one[0] is two[0] and one[1:] == two[1:] for one, two in pairs)
