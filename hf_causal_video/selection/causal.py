"""The causal selector: the frames a trained VideoQA model needs for this question.

Why: similarity finds frames that look like the question; the answer may be in others. A model trained to answer from
the frames it keeps, and from those alone, ranks frames by how much it needs them (TranSTR's temporal rationale, the
causal scene of IGV and EIGV). Any model of this package whose output has `frame_scores` can be used. A budget above
the K frames that it keeps is filled in the order of its scores; `Selection.kept` says which are which.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from transformers import PreTrainedModel

from hf_causal_video.features.store.reader import VideoFeatures
from hf_causal_video.models import VideoQAProcessor  # importing models teaches the Auto classes
from hf_causal_video.models.loading import open_pretrained
from hf_causal_video.models.outputs import asking_for_evidence
from hf_causal_video.selection.clip import Clip
from hf_causal_video.selection.selectors import FrameSelector, Ranking
from hf_causal_video.utils.errors import CausalVideoError, require

NO_EVIDENCE = "no evidence to select by"
EXPECTED = "a VideoQA model of this package (TranSTR, IGV, EIGV)"
LOAD = "load such a checkpoint, or use SimilaritySelector or UniformSelector"


class Extractor(Protocol):
    """Interface of a function from frames and their seconds to features."""

    def __call__(
        self, video: Sequence[np.ndarray], /, *, timestamps_s: Sequence[float]
    ) -> tuple[VideoFeatures, Sequence[np.ndarray]]:
        """Return the features and the frames."""


class CausalSelector(FrameSelector):
    """Frames by the `frame_scores` of a trained VideoQA model.

    Without `choices` the question alone is read. A multiple-choice model is then asked twice, the question standing in
    for every choice, once and doubled, and refused if its scores differ: they would depend on choices nobody gave.

    Args:
        model: TranSTR, IGV, EIGV or another model that returns `VideoQAOutput` with `frame_scores`.
        processor: its `VideoQAProcessor`.
        extractor: turns frames and their seconds into features, see `VideoFeatureExtractor`; by default the one that
            the checkpoint's `feature_provenance` names, loaded with the first clip.
        sampling: which moments are candidates; by default those the model was trained on.
        scene_s: as in `FrameSelector`.
        networks: `frame_model` and `object_model`, if they are not in or next to the checkpoint.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: VideoQAProcessor,
        extractor: Extractor | None = None,
        sampling: str | None = None,
        scene_s: float = 0.0,
        networks: dict[str, str | None] | None = None,
    ):
        provenance = getattr(model.config, "feature_provenance", None) or {}
        sampling = sampling or getattr(extractor, "sampling", None) or provenance.get("sampling", "uniform-64")
        super().__init__(sampling, scene_s)
        self.model = model
        self.processor = processor
        self._extractor = extractor
        self._networks = networks or {}

    @classmethod
    def from_pretrained(
        cls,
        checkpoint: str | Path,
        device: str = "cpu",
        sampling: str | None = None,
        scene_s: float = 0.0,
        **networks: str | None,
    ) -> "CausalSelector":
        """Load a checkpoint folder or Hub id with its processor; `frame_model` and `object_model` as in `networks`.

        Raises:
            CausalVideoError: nothing to load, or a model other than a VideoQA model of this package.
        """
        from transformers import AutoModel, AutoProcessor

        model = open_pretrained(AutoModel.from_pretrained, checkpoint)
        processor = open_pretrained(AutoProcessor.from_pretrained, checkpoint)
        is_ours = isinstance(processor, VideoQAProcessor)
        require(is_ours, NO_EVIDENCE, found=f"{type(model).__name__} in {checkpoint}", expected=EXPECTED, fix=LOAD)
        return cls(model.to(device).eval(), processor, sampling=sampling, scene_s=scene_s, networks=networks)

    @torch.inference_mode()
    def rank(self, clip: Clip, question: str, choices: Sequence[str] | None) -> Ranking:
        """The model's frame scores."""
        features = clip.features if clip.features is not None else self._extract(clip)
        config = self.model.config
        offered: list[list[str]] | None = None
        reads = "the question"
        if choices is not None:
            offered, reads = [list(choices)], "the question and its choices"
        elif getattr(config, "num_answers", None) is None:
            width = getattr(config, "num_choices", None) or 1
            offered, reads = [[question] * width, [f"{question} {question}"] * width], "the question alone"
        count = len(offered) if offered else 1
        inputs = self.processor(
            [question] * count,
            offered,
            frame_features=features.frame_features,
            object_features=features.object_features,
            object_boxes=features.object_boxes,
            object_mask=features.object_mask,
        )
        was_training = self.model.training
        self.model.eval()
        try:
            moved = {name: value.to(self.model.device) for name, value in inputs.items()}
            output = self.model(**moved, **asking_for_evidence(self.model))
        finally:
            self.model.train(was_training)
        scores = frame_scores(output, type(self.model).__name__)
        real = np.isfinite(scores).all(0)  # (T,)
        tells_apart = real.sum() <= 1 or np.ptp(scores[0, real]) > 0
        problem = f"{type(self.model).__name__}, which scores all frames alike"
        require(tells_apart, NO_EVIDENCE, found=problem, expected=EXPECTED, fix=LOAD)
        is_alone = count == 1 or np.allclose(scores[0, real], scores[1, real], rtol=1e-3, atol=1e-4)
        problem = "none, and a model whose frame scores depend on them"
        require(is_alone, "choices", found=problem, expected="those of the question", fix="pass choices=[...]")
        kept = _kept(output, len(clip))
        keeps = "" if kept is None else f"; it keeps {int(kept.sum())} itself"
        return Ranking(scores[0], f"that {_name(self.model)} needs, reading {reads}{keeps}", kept=kept)

    def _extract(self, clip: Clip) -> VideoFeatures:
        if self._extractor is None:
            from hf_causal_video.features.extractor import VideoFeatureExtractor  # needs the `video` extra

            self._extractor = VideoFeatureExtractor.of_model(self.model, **self._networks)
        return self._extractor(clip.frames or [], timestamps_s=clip.times_s.tolist())[0]


def frame_scores(output: object, model_name: str = "the model") -> np.ndarray:
    """Read the scores of a model's output as (B, T) float64 on the CPU, from any device and precision.

    Raises:
        CausalVideoError: an output without frame scores.

    Example:
        >>> from hf_causal_video.models.outputs import VideoQAOutput
        >>> frame_scores(VideoQAOutput(frame_scores=torch.tensor([[1.0, 2.0]], dtype=torch.bfloat16))).tolist()
        [[1.0, 2.0]]
    """
    scores = getattr(output, "frame_scores", None)
    if scores is None:
        problem = f"an output of {model_name} without frame_scores"
        raise CausalVideoError(NO_EVIDENCE, found=problem, expected=f"{EXPECTED}, with frame_scores (B, T)", fix=LOAD)
    return scores.detach().to("cpu", torch.float64).numpy()


def _kept(output: object, num_frames: int) -> np.ndarray | None:
    """The frames (T,) bool that the model answers the first question from, if its output says so."""
    causal_mask = getattr(output, "causal_mask", None)
    kept_frames = getattr(output, "kept_frames", None)
    if causal_mask is not None:
        return causal_mask[0, :num_frames].bool().cpu().numpy()
    if kept_frames is None:
        return None
    kept = np.zeros(num_frames, dtype=bool)
    kept[kept_frames[0].cpu().numpy()] = True
    return kept


def _name(model: object) -> str:
    return type(model).__name__.removesuffix("ForVideoQuestionAnswering")
