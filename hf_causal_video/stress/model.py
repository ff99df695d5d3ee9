"""A checkpoint of this package as something that can be stress-tested: questions in, scores and evidence out."""

from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from hf_causal_video.models.outputs import VideoQAOutput, asking_for_evidence
from hf_causal_video.stress.ablation import evidence_masks
from hf_causal_video.stress.clips import Clip
from hf_causal_video.utils.errors import require


class VideoQAAnswerer:
    """A model with its processor as an `Answerer`; its evidence are the frames that it keeps or calls causal.

    Args:
        model: a VideoQA model; it is put into evaluation mode.
        processor: its `VideoQAProcessor`.

    Raises:
        CausalVideoError: features without names, or `evidence` of a model that singles out no frames.
    """

    def __init__(self, model: PreTrainedModel, processor: Any):
        self.model, self.processor = model.eval(), processor

    @property
    def least_frames(self) -> int:
        """Frames that the model cannot do without: as many as it keeps."""
        return int(getattr(self.model.config, "num_frames_kept", 1) or 1)

    def __call__(self, frames: Clip, question: str, choices: list[str] | None) -> np.ndarray:
        """Probabilities of the choices, or of the answer vocabulary."""
        return self.batch([(frames, question, choices)])[0]

    def batch(self, asked: list[tuple[Clip, str, list[str] | None]]) -> list[np.ndarray]:
        """The same for many questions."""
        logits = self._output(asked)[0].logits
        assert logits is not None
        rows = logits.float().softmax(-1).cpu().numpy()
        return [
            row if choices is None else row[: len(choices)] for row, (_, _, choices) in zip(rows, asked, strict=True)
        ]

    def evidence(self, asked: list[tuple[Clip, str, list[str] | None]]) -> list[np.ndarray]:
        """Indices of the frames that each answer rests on."""
        output, frame_mask = self._output(asked, **asking_for_evidence(self.model))
        only, _ = evidence_masks(output, frame_mask)
        return [np.flatnonzero(row) for row in only.cpu().numpy()]

    @torch.inference_mode()
    def _output(
        self, asked: list[tuple[Clip, str, list[str] | None]], **options: Any
    ) -> tuple[VideoQAOutput, torch.Tensor]:
        clips = [clip for clip, _, _ in asked]
        require(
            all(isinstance(clip, dict) and "frame_features" in clip for clip in clips),
            "a checkpoint looks at features",
            found=type(clips[0]).__name__,
            expected="items with frame_features by name",
            fix="extract them first: hf-causal-video extract",
        )
        # questions that share a clip share its tensors: each is encoded once
        keys = [tuple(map(id, clip.values())) for clip in clips]
        distinct = dict(zip(keys, clips, strict=True))
        rows = {key: row for row, key in enumerate(distinct)}
        features: dict[str, Any] = {
            name: [torch.as_tensor(clip[name]) for clip in distinct.values()] for name in clips[0]
        }
        if len(distinct) < len(clips):
            features["video_index"] = [rows[key] for key in keys]
        choices = None if asked[0][2] is None else [list(one or ()) for _, _, one in asked]
        inputs = self.processor([question for _, question, _ in asked], choices, **features)
        inputs = {name: value.to(self.model.device) for name, value in inputs.items()}
        frame_mask = inputs["frame_mask"][torch.tensor([rows[key] for key in keys], device=self.model.device)]
        return self.model(**inputs, **options), frame_mask
