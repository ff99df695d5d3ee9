"""`pipeline("video-question-answering")`: a clip and a question in, an answer with its evidence out."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import Pipeline

from hf_causal_video.features.store.reader import VideoFeatures
from hf_causal_video.models import VideoQAOutput
from hf_causal_video.models.loading import open_pretrained
from hf_causal_video.models.outputs import asking_for_evidence
from hf_causal_video.pipelines.registration import QUESTION_TASK
from hf_causal_video.stress.ablation import scores_of_evidence
from hf_causal_video.utils.errors import CausalVideoError


class VideoQuestionAnsweringPipeline(Pipeline):
    """Answer questions about a clip given as a path, as decoded frames, or as features.

    The networks that turn pixels into features are those the model was trained on, named by its `feature_provenance`;
    they are loaded when the first clip comes.

    Example:
        >>> from transformers import pipeline
        >>> qa = pipeline("video-question-answering", model="org/transtr-nextqa")  # doctest: +SKIP
        >>> qa("clip.mp4", question="why did the boy run", choices=["to play", "to hide"])["answer"]  # doctest: +SKIP
        'to play'
    """

    _load_processor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_feature_extractor = False

    def __init__(self, *args: Any, clip_extractor: Callable | None = None, **kwargs: Any):
        self._clip_extractor = clip_extractor
        super().__init__(*args, **kwargs)

    def __call__(
        self,
        video: Any = None,
        question: str | Sequence[str] | None = None,
        choices: Sequence | None = None,
        features: VideoFeatures | dict | None = None,
        timestamps_s: Sequence[float] | None = None,
        return_frames: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Answer one question, or several about the same clip (the clip is then looked at once).

        Args:
            video: a path, or decoded frames (T, H, W, 3) uint8 with `timestamps_s`; or a list of dictionaries with the
                arguments of this call, one a clip.
            question: one question or a list of them.
            choices: the choices, or one list a question; none for an open-ended model.
            features: instead of a video, its precomputed features.
            timestamps_s: seconds of the decoded frames.
            return_frames: also return the frames that were looked at and their `times_s`, for drawing.
            span_rule: how kept frames become spans, see `VideoQAProcessor.post_process_evidence`.
            prove: ask again with the evidence alone and with all but the evidence, and return the scores of the same
                choices as `scores_only` and `scores_without` (None where too few frames are left to choose from).

        Returns:
            A dictionary, or one a question, with `answer`, `score` and `evidence`, and what was asked for beside.

        Raises:
            CausalVideoError: neither video nor features, both, or no question; and whatever decoding and the model
                refuse.
        """
        if isinstance(video, list) and video and isinstance(video[0], dict):
            return [self(**{"return_frames": return_frames, **item}, **kwargs) for item in video]
        if (video is None) == (features is None):
            raise CausalVideoError(
                "clip",
                found="both a video and features" if features is not None else "nothing to look at",
                expected="a video or features",
                fix="pass a path, frames, or features=...",
            )
        asked = [question] if isinstance(question, str) else list(question or [])
        if not asked or not all(text.strip() for text in asked):
            raise CausalVideoError(
                "question", found=repr(question), expected="a question in words, or a list of them",
                fix="write what you want to know about the clip",
            )  # fmt: skip
        inputs = {
            "video": video,
            "features": features,
            "question": question,
            "choices": choices,
            "timestamps_s": timestamps_s,
        }
        results = super().__call__(inputs, **kwargs)
        if not return_frames:
            results = [{k: v for k, v in result.items() if k not in ("frames", "times_s")} for result in results]
        return results[0] if isinstance(question, str) else results

    def _sanitize_parameters(
        self, span_rule: str = "kept", prove: bool = False, **unknown: Any
    ) -> tuple[dict, dict, dict]:
        if unknown:
            raise CausalVideoError(
                "pipeline argument",
                found=sorted(unknown),
                expected="arguments of the call",
                fix="see help(VideoQuestionAnsweringPipeline.__call__)",
            )
        return {}, {"prove": prove}, {"span_rule": span_rule}

    def preprocess(self, clip: dict[str, Any]) -> dict[str, Any]:
        """Look at the clip once and tokenize every question."""
        self._check_choices(clip["choices"])
        features, frames = clip["features"], None
        if clip["video"] is not None:
            features, frames = self._extractor()(clip["video"], timestamps_s=clip["timestamps_s"])
        elif isinstance(features, dict):
            features = VideoFeatures(**{"video_id": "clip", **features})
        questions = [clip["question"]] if isinstance(clip["question"], str) else list(clip["question"])
        choices = clip["choices"]
        if choices and isinstance(choices[0], str):
            choices = [list(choices)] * len(questions)
        inputs = self.processor(
            questions,
            choices,
            frame_features=features.frame_features,
            object_features=features.object_features,
            object_boxes=features.object_boxes,
            object_mask=features.object_mask,
            timestamps=features.timestamps_s,
        )
        for name in ("frame_features", "frame_mask", "object_features", "object_boxes", "object_mask"):
            if name in inputs:
                inputs[name] = inputs[name][:1]  # one clip for all its questions
        inputs["video_index"] = torch.zeros(len(questions), dtype=torch.long)
        return {"inputs": inputs, "choices": choices, "times_s": features.timestamps_s, "frames": frames}

    def _check_choices(self, choices: Sequence | None) -> None:
        """Refuse before the clip is looked at: a model has either choices or a vocabulary to answer from."""
        open_ended = self.model.config.num_answers is not None
        if bool(choices) == open_ended:
            raise CausalVideoError(
                "choices",
                found="some, and a model that answers from its own vocabulary" if open_ended else "none",
                expected="none" if open_ended else "the choices of this multiple-choice model",
                fix="leave the choices out" if open_ended else "pass choices=[...], in the shell --choices A B ...",
            )

    def _forward(self, model_inputs: dict[str, Any], prove: bool = False) -> dict[str, Any]:
        inputs = model_inputs["inputs"]
        output = self.model(**inputs, **asking_for_evidence(self.model))
        proof = scores_of_evidence(self.model, inputs, output) if prove else None
        return {
            **{key: model_inputs[key] for key in ("choices", "times_s", "frames")},
            "output": output,
            "proof": proof,
        }

    def postprocess(self, model_outputs: dict[str, Any], span_rule: str = "kept") -> list[dict[str, Any]]:
        """One result a question."""
        output = VideoQAOutput(**model_outputs["output"])  # the base class hands over a ModelOutput of no class
        evidence = self.processor.post_process_evidence(
            output, model_outputs["times_s"], model_outputs["choices"], span_rule=span_rule
        )
        rest = {"frames": model_outputs["frames"], "times_s": model_outputs["times_s"]}
        results = [{"answer": e.answer, "score": e.score, "evidence": e, **rest} for e in evidence]
        if model_outputs["proof"] is not None:
            for name, scores in zip(("scores_only", "scores_without"), model_outputs["proof"], strict=True):
                for row, result in enumerate(results):
                    shown = self._answer_indices(result["evidence"].choices, model_outputs["choices"], row)
                    result[name] = None if scores is None else [float(scores[row, index]) for index in shown]
        return results

    def _answer_indices(self, words: list[str], choices: list | None, row: int) -> list[int]:
        """Where the words that an Evidence shows stand among the model's answers."""
        known = choices[row] if choices is not None else self.processor.answer_vocabulary
        if known is None or list(known) == words:
            return list(range(len(words)))
        return [known.index(word) if word in known else len(known) for word in words]

    def _extractor(self) -> Callable:
        if self._clip_extractor is None:
            from hf_causal_video.features.extractor import VideoFeatureExtractor  # needs the `video` extra

            self._clip_extractor = VideoFeatureExtractor.of_model(self.model)
        return self._clip_extractor


def load_pipeline(checkpoint: str | Path, **kwargs: Any) -> VideoQuestionAnsweringPipeline:
    """Open the question answering pipeline of a checkpoint folder or Hub id; errors become CausalVideoError."""
    from transformers import pipeline

    return open_pretrained(partial(pipeline, QUESTION_TASK), checkpoint, **kwargs)
