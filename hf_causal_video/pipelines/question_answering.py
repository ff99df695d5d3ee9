"""`pipeline("video-question-answering")`: a clip and a question in, an answer with its evidence and a verdict out."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from hf_causal_video.features.store.reader import VideoFeatures
from hf_causal_video.models import VideoQAOutput
from hf_causal_video.models.base import VideoQAPreTrainedModel
from hf_causal_video.models.clip_statistics import ClipStatistics
from hf_causal_video.models.loading import open_pretrained
from hf_causal_video.models.outputs import asking_for_evidence
from hf_causal_video.models.text_limits import most_tokens
from hf_causal_video.models.user_inputs import seconds_of
from hf_causal_video.pipelines.base import ClipPipeline, OnError
from hf_causal_video.pipelines.registration import QUESTION_TASK
from hf_causal_video.stress.ablation import judge, scores_of_evidence
from hf_causal_video.utils.errors import require

FEATURES = ("frame_features", "object_features", "object_boxes", "object_mask")


class VideoQuestionAnsweringPipeline(ClipPipeline):
    """Answer questions about a clip: a path, decoded frames, or features.

    The networks that turn pixels into features are those the model was trained on, named by its `feature_provenance`;
    they are loaded when the first clip comes. Local networks are found in and next to the checkpoint, or where
    `frame_model` and `object_model` say. Clips are answered one by one: `batch_size` has no effect.

    Example:
        >>> from transformers import pipeline
        >>> qa = pipeline("video-question-answering", model="org/transtr-nextqa")  # doctest: +SKIP
        >>> qa("clip.mp4", question="why did the boy run", choices=["to play", "to hide"])["answer"]  # doctest: +SKIP
        'to play'
    """

    inputs = ("video", "question", "choices", "features", "timestamps_s", *FEATURES)

    def __init__(
        self,
        *args: Any,
        clip_extractor: Callable | None = None,
        frame_model: str | None = None,
        object_model: str | None = None,
        **kwargs: Any,
    ):
        self._clip_extractor = clip_extractor
        self._networks = {"frame_model": frame_model, "object_model": object_model}
        super().__init__(*args, **kwargs)

    def __call__(
        self,
        video: Any = None,
        question: str | Sequence[str] | None = None,
        choices: Sequence | None = None,
        features: VideoFeatures | dict | None = None,
        timestamps_s: Any = None,
        return_frames: bool = False,
        on_error: OnError = "raise",
        **kwargs: Any,
    ) -> Any:
        """Answer one question, or several about the same clip (the clip is then decoded once).

        Args:
            video: a path, or decoded frames (T, H, W, 3) uint8 with `timestamps_s`. Also a dictionary with the
                arguments of this call; a list of paths or dictionaries; a table or dataset of such rows (features may
                stand in columns of their own); or a generator, which is answered by a generator.
            question: one question or a list of them.
            choices: the choices, or one list per question; none for an open-ended model.
            features: instead of a video, its precomputed features.
            timestamps_s: seconds of the decoded frames, or `VideoMetadata`.
            return_frames: also return the decoded frames and their `times_s`, for drawing.
            on_error: "return" puts `{"error": message}` in the place of a clip that cannot be used.
            span_rule: how kept frames become spans, see `VideoQAProcessor.post_process_evidence`.
            prove: ask again with the evidence alone and without the event that it shows.
            top_k: `choices` and their scores are cut to the k best, best first.
            truncation: cut a text that is longer than the text encoder can read; otherwise it is an error.

        Returns:
            A dictionary, or one per question: `answer`, `score`, `choices` (words, with `scores` in the same order),
            `evidence` (an `Evidence`), `verdict` (a `Verdict`; None without `prove`), `unknown_words` that the
            tokenizer does not know, `unlike_training` (see `ClipStatistics`; None where the checkpoint holds no
            statistics), and `frames_missing` of a clip with fewer frames than are looked at. `json.dumps` takes it.

        Raises:
            CausalVideoError: neither video nor features, both, or no question; and whatever decoding and the model
                refuse.
        """
        common = {"question": question, "choices": choices, "features": features, "timestamps_s": timestamps_s}
        return self.run_each(partial(self._answer, return_frames, kwargs), video, common, on_error)

    def _answer(self, return_frames: bool, options: dict[str, Any], **clip: Any) -> Any:
        """Answer the questions about one clip."""
        columns = {name: clip.pop(name) for name in FEATURES if clip.get(name) is not None}
        if columns and clip.get("features") is None:
            clip["features"] = {**columns, "timestamps_s": clip.pop("timestamps_s")}
        video, question = clip.pop("video", None), clip.pop("question", None)
        return_frames = clip.pop("return_frames", return_frames)
        features, times = clip.pop("features", None), clip.pop("timestamps_s", None)
        choices = clip.pop("choices", None)
        require(
            (video is None) != (features is None),
            "clip",
            found="both a video and features" if features is not None else "neither a video nor features",
            expected="a video or features",
            fix="pass a path, frames, or features=...",
        )
        texts = [question] if isinstance(question, str) else list(question or [])
        require(
            texts and all(isinstance(text, str) and text.strip() for text in texts),
            "question",
            found=repr(question),
            expected="a question in words, or a list of them",
            fix="write what you want to know about the clip",
        )
        inputs = {
            "video": video,
            "features": features,
            "questions": texts,
            "choices": None if choices is None or not len(choices) else list(choices),
            "timestamps_s": seconds_of(times),
        }
        results = super().__call__(inputs, **options, **clip)
        if not return_frames:
            results = [{k: v for k, v in result.items() if k not in ("frames", "times_s")} for result in results]
        return results[0] if isinstance(question, str) else results

    def _sanitize_parameters(
        self,
        span_rule: str = "kept",
        prove: bool = True,
        top_k: int | None = None,
        truncation: bool = False,
        **unknown: Any,
    ) -> tuple[dict, dict, dict]:
        require(
            not unknown,
            "pipeline argument",
            found=sorted(unknown),
            expected="arguments of the call",
            fix="see help(VideoQuestionAnsweringPipeline.__call__)",
        )
        require(
            top_k is None or (type(top_k) is int and top_k >= 1),
            "top_k",
            found=repr(top_k),
            expected="None, or an integer from 1 on",
            fix="pass the number of answers to return",
        )
        return {"truncation": truncation}, {"prove": prove}, {"span_rule": span_rule, "top_k": top_k}

    def preprocess(self, clip: dict[str, Any], truncation: bool = False) -> dict[str, Any]:
        """Decode the clip once and tokenize every question."""
        questions, choices = clip["questions"], clip["choices"]
        self._check_choices(choices)
        if choices and isinstance(choices[0], str):
            choices = [choices] * len(questions)
        text = self._tokenized_alone(questions, choices, truncation)
        features, frames = clip["features"], None
        if clip["video"] is not None:
            features, frames = self._extractor()(clip["video"], timestamps_s=clip["timestamps_s"])
        elif isinstance(features, dict):
            features = VideoFeatures(**{"video_id": "clip", **features})
        times = torch.as_tensor(seconds_of(features.timestamps_s))
        values = {name: getattr(features, name) for name in FEATURES}
        inputs = self.processor(questions, choices, **values, timestamps=times, **text)
        for name in ("frame_mask", *FEATURES):
            if name in inputs:
                inputs[name] = inputs[name][:1]  # one clip for all its questions
        inputs["video_index"] = torch.zeros(len(questions), dtype=torch.long)
        return {
            "inputs": inputs,
            "choices": choices,
            "times_s": times,
            "frames": frames,
            "unknown_words": inputs.unknown_words,
            "unlike_training": self._distance(inputs["frame_features"][0]),
            "frames_missing": self._missing(len(times)) if clip["video"] is not None else 0,
        }

    def _tokenized_alone(self, questions: list[str], choices: Any, truncation: bool) -> dict[str, Any]:
        """Return the tokenizer's options, after a text that is too long was refused: before the clip is decoded."""
        encoder: Any = self.model.text_encoder
        limit = min(self.processor.max_length, most_tokens(encoder) or self.processor.max_length)
        options = {"max_length": limit, "truncation": truncation}
        if not truncation:
            nothing = torch.zeros(1, 1)
            self.processor(questions, choices, frame_features=nothing, **options)
        return options

    def _missing(self, count: int) -> int:
        """How many frames the clip lacks of those that the model's features look at."""
        rule, _, number = str((self.model.config.feature_provenance or {}).get("sampling", "")).partition("-")
        return max(int(number) - count, 0) if rule == "uniform" and number.isdigit() else 0

    def _distance(self, frame_features: torch.Tensor) -> dict[str, Any] | None:
        statistics = self.processor.clip_statistics
        return None if statistics is None else ClipStatistics(**statistics).compare(frame_features)

    def _check_choices(self, choices: Sequence | None) -> None:
        """Refuse before the clip is decoded: a model has either choices or a vocabulary to answer from."""
        open_ended = self.model.config.num_answers is not None
        require(
            bool(choices) != open_ended,
            "choices",
            found="some, and a model that answers from its own vocabulary" if open_ended else "none",
            expected="none" if open_ended else "the choices of this multiple-choice model",
            fix="leave the choices out" if open_ended else "pass choices=[...], in the shell --choices A B ...",
        )

    def _forward(self, model_inputs: dict[str, Any], prove: bool = True) -> dict[str, Any]:
        inputs = model_inputs.pop("inputs")
        if prove:  # three answers about the same texts
            inputs = cast(VideoQAPreTrainedModel, self.model).encode_texts(inputs)
        output = self.model(**inputs, **asking_for_evidence(self.model))
        proof = scores_of_evidence(self.model, inputs, output, model_inputs["times_s"]) if prove else None
        if proof is not None:
            proof = Opaque(proof)
        return {**model_inputs, "output": output, "proof": proof}

    def postprocess(
        self, model_outputs: dict[str, Any], span_rule: str = "kept", top_k: int | None = None
    ) -> list[dict[str, Any]]:
        """Return one result per question."""
        output = VideoQAOutput(**model_outputs["output"])  # the base class passes a plain ModelOutput on
        times, choices, proof = model_outputs["times_s"], model_outputs["choices"], model_outputs["proof"]
        answers = self.processor.post_process_evidence(output, times, choices, span_rule=span_rule)
        results = []
        for row, evidence in enumerate(answers):
            words = self._answers(evidence.choices, None if choices is None else choices[row])
            verdict = None if proof is None else judge(evidence, words, proof.value, row, times)
            order = list(range(len(evidence.choices)))
            if top_k is not None:
                order = sorted(order, key=lambda place: -evidence.scores[place])[:top_k]
            results.append(
                {
                    "answer": evidence.answer,
                    "score": evidence.score,
                    "choices": [evidence.choices[place] for place in order],
                    "scores": [evidence.scores[place] for place in order],
                    "evidence": evidence,
                    "verdict": verdict,
                    "unknown_words": model_outputs["unknown_words"][row],
                    "unlike_training": model_outputs["unlike_training"],
                    "frames_missing": model_outputs["frames_missing"],
                    "frames": model_outputs["frames"],
                    "times_s": times,
                }
            )
        return results

    def _answers(self, shown: list[str], choices: list[str] | None) -> list[str]:
        """Every answer in words, by index, of which an Evidence may list the likeliest alone."""
        words = list(choices) if choices is not None else self.processor.answer_vocabulary
        if words is None:
            return shown
        return [*words, *([] if set(shown) <= set(words) else ["<other>"])]

    def _extractor(self) -> Callable:
        if self._clip_extractor is None:
            from hf_causal_video.features.extractor import VideoFeatureExtractor  # needs the `video` extra

            self._clip_extractor = VideoFeatureExtractor.of_model(self.model, **self._networks)
        return self._clip_extractor


class Opaque:
    """Wrapper that keeps the base class from copying a value that is not a tensor."""

    def __init__(self, value: Any):
        self.value = value


def load_pipeline(checkpoint: str | Path, **kwargs: Any) -> VideoQuestionAnsweringPipeline:
    """Open the question answering pipeline of a checkpoint folder or Hub id; errors become CausalVideoError."""
    from transformers import pipeline

    return open_pretrained(partial(pipeline, QUESTION_TASK), checkpoint, **kwargs)
