"""`pipeline("video-question-answering")`: a clip and a question in, an answer with its evidence and a verdict out."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, cast

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from hf_causal_video.features.store.reader import VideoFeatures
from hf_causal_video.models import VideoQAOutput, VideoQAProcessor
from hf_causal_video.models.base import VideoQAPreTrainedModel
from hf_causal_video.models.clip_statistics import ClipStatistics
from hf_causal_video.models.loading import open_pretrained
from hf_causal_video.models.outputs import asking_for_evidence
from hf_causal_video.models.processing_video_qa import SpanRule
from hf_causal_video.models.text_limits import most_tokens
from hf_causal_video.models.user_inputs import seconds_of
from hf_causal_video.pipelines.base import ClipPipeline, OnError, Opaque, Prepared, check_options, check_source
from hf_causal_video.pipelines.registration import QUESTION_TASK
from hf_causal_video.stress.ablation import Proof, judge, scores_of_evidence
from hf_causal_video.utils.checks import check_whole
from hf_causal_video.utils.errors import require

FEATURES = ("frame_features", "object_features", "object_boxes", "object_mask")
OF_CLIPS = ("frame_mask", *FEATURES)  # inputs with a row per clip; the others have one per question
OPTIONS = (("truncation",), ("prove",), ("span_rule", "top_k"))  # of `preprocess`, `_forward` and `postprocess`
Result = dict[str, object]


class Clip(TypedDict):
    """One clip as a user passed it, its arguments checked."""

    video: object
    features: VideoFeatures | dict | None
    questions: list[str]
    choices: list | None
    timestamps_s: object


class VideoQuestionAnsweringPipeline(ClipPipeline):
    """Answer questions about a clip: a path, decoded frames, or features.

    The networks that turn pixels into features are those the model was trained on, named by its `feature_provenance`;
    they are loaded when the first clip comes. Local networks are found in and next to the checkpoint, or where
    `frame_model` and `object_model` say.

    Example:
        >>> from transformers import pipeline
        >>> qa = pipeline("video-question-answering", model="org/transtr-nextqa")  # doctest: +SKIP
        >>> qa("clip.mp4", question="why did the boy run", choices=["to play", "to hide"])["answer"]  # doctest: +SKIP
        'to play'
    """

    model: VideoQAPreTrainedModel
    processor: VideoQAProcessor
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
        video: object = None,
        question: str | Sequence[str] | None = None,
        choices: Sequence | None = None,
        features: VideoFeatures | dict | None = None,
        timestamps_s: object = None,
        return_frames: bool = False,
        on_error: OnError = "raise",
        batch_size: int | None = None,
        **options: object,
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
            batch_size: clips that go through the model together, padded to the longest; decoded one by one. A model
                whose answers depend on padding takes clips of one shape together. 1 by default.
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
        common = {
            "question": question,
            "choices": choices,
            "features": features,
            "timestamps_s": timestamps_s,
            "return_frames": return_frames,
        }
        return self.run_each(video, common, options, on_error, batch_size)

    def prepare(self, clip: dict[str, Any], options: Mapping[str, object]) -> Prepared:
        """Check the arguments of one clip, decode it, and tokenize every question."""
        columns = {name: clip.pop(name) for name in FEATURES if clip.get(name) is not None}
        if columns and clip.get("features") is None:
            clip["features"] = {**columns, "timestamps_s": clip.pop("timestamps_s")}
        video = clip.pop("video", None)
        question = clip.pop("question", None)
        choices = clip.pop("choices", None)
        features = clip.pop("features", None)
        times = clip.pop("timestamps_s", None)
        return_frames = clip.pop("return_frames")
        preprocess, forward, postprocess = self._all_options({**options, **clip})
        check_source(video, "features", features)
        texts = [question] if isinstance(question, str) else list(question or [])
        filled = texts and all(isinstance(text, str) and text.strip() for text in texts)
        fix = "write what you want to know about the clip"
        require(filled, "question", found=repr(question), expected="a question in words, or a list of them", fix=fix)
        details = self.preprocess(
            Clip(
                video=video,
                features=features,
                questions=texts,
                choices=None if choices is None or not len(choices) else list(choices),
                timestamps_s=seconds_of(times),
            ),
            **preprocess,
        )
        inputs = details.pop("inputs")
        details |= {"video": video, "return_frames": return_frames}
        return Prepared(inputs, details, forward, postprocess, as_one=isinstance(question, str))

    @property
    def padding(self) -> Mapping[str, int]:
        """Ids are padded as the tokenizer pads: some text encoders count positions by its padding id."""
        pad = self.processor.tokenizer.pad_token_id or 0
        return {"input_ids": pad, "choice_input_ids": pad}

    def fits(self, one: Prepared, other: Prepared) -> bool:
        """Return whether two clips may go through the model together: where padding counts, those of one shape."""
        shapes = ([value.shape[1:] for value in clip.inputs.values()] for clip in (one, other))
        return super().fits(one, other) and (not _padding_counts(self.model) or next(shapes) == next(shapes))

    def _sanitize_parameters(self, **options: Any) -> tuple[dict[str, object], ...]:
        known = [name for names in OPTIONS for name in names]
        check_options(options, known, type(self))
        if options.get("top_k") is not None:
            check_whole("top_k", options["top_k"], fix="pass the number of answers to return")
        return tuple({name: options[name] for name in names if name in options} for names in OPTIONS)

    def preprocess(self, clip: Clip, truncation: bool = False) -> dict[str, Any]:
        """Decode the clip once and tokenize every question."""
        questions = clip["questions"]
        choices = clip["choices"]
        self._check_choices(choices)
        if choices and isinstance(choices[0], str):
            choices = [choices] * len(questions)
        text = self._tokenized_alone(questions, choices, truncation)
        features = clip["features"]
        frames = None
        if clip["video"] is not None:
            features, frames = self._extractor()(clip["video"], timestamps_s=clip["timestamps_s"])
        elif isinstance(features, dict):
            features = VideoFeatures(**{"video_id": "clip", **features})
        assert isinstance(features, VideoFeatures)
        times = torch.as_tensor(seconds_of(features.timestamps_s))
        values = {name: getattr(features, name) for name in FEATURES}
        inputs = self.processor(questions, choices, **values, timestamps=times, **text)
        tensors = {name: value[:1] if name in OF_CLIPS else value for name, value in inputs.items()}
        tensors["video_index"] = torch.zeros(len(questions), dtype=torch.long)  # one clip for all its questions
        return {
            "inputs": tensors,
            "choices": choices,
            "times_s": times,
            "frames": frames,
            "unknown_words": inputs.unknown_words,
            "unlike_training": self._distance(tensors["frame_features"][0]),
            "frames_missing": self._missing(len(times)) if clip["video"] is not None else 0,
        }

    def _tokenized_alone(self, questions: list[str], choices: list | None, truncation: bool) -> dict[str, Any]:
        """Return the tokenizer's options, after a text that is too long was refused: before the clip is decoded."""
        limit = min(self.processor.max_length, most_tokens(self.model.text_encoder) or self.processor.max_length)
        options = {"max_length": limit, "truncation": truncation}
        if not truncation:
            nothing = torch.zeros(1, 1)
            self.processor(questions, choices, frame_features=nothing, **options)
        return options

    def _missing(self, count: int) -> int:
        """How many frames the clip lacks of those that the model's features look at."""
        rule, _, number = str((self.model.config.feature_provenance or {}).get("sampling", "")).partition("-")
        return max(int(number) - count, 0) if rule == "uniform" and number.isdigit() else 0

    def _distance(self, frame_features: Tensor) -> dict[str, object] | None:
        statistics = self.processor.clip_statistics
        return None if statistics is None else ClipStatistics(**statistics).compare(frame_features)

    def _check_choices(self, choices: Sequence | None) -> None:
        """Refuse before the clip is decoded: a model has either choices or a vocabulary to answer from."""
        open_ended = self.model.config.num_answers is not None
        if open_ended:
            fix = "leave the choices out: the model answers from its own vocabulary"
            require(not choices, "choices", found=f"{len(choices or [])}", expected="none", fix=fix)
        else:
            fix = "pass choices=[...], in the shell --choices A B ..."
            require(choices, "choices", found="none", expected="the choices of this multiple-choice model", fix=fix)

    def _forward(self, model_inputs: dict[str, Any], prove: bool = True) -> dict[str, Any]:
        """Answer the questions of several clips in one pass, and ask again for the proof of all answers."""
        inputs = model_inputs["inputs"]
        counts = model_inputs["counts"]
        details = model_inputs["details"].value
        inputs["video_index"] = torch.repeat_interleave(torch.tensor(counts)).to(self.device)  # (Q,)
        if prove:  # three answers about the same texts
            inputs = cast(VideoQAPreTrainedModel, self.model).encode_texts(inputs)
        output = self.model(**inputs, **asking_for_evidence(self.model))
        proofs = self._prove(inputs, output, details) if prove else [None] * len(counts)
        clips = []
        for number, (clip, proof) in enumerate(zip(details, proofs, strict=True)):
            choices = None if clip["choices"] is None else max(map(len, clip["choices"]))
            part = _rows(output, inputs["video_index"] == number, len(clip["times_s"]), choices)
            clips.append({"output": part, "proof": None if proof is None else Opaque(proof)})
        return {"clips": clips}

    def _prove(self, inputs: dict[str, Tensor], output: VideoQAOutput, details: list[dict[str, Any]]) -> list[Proof]:
        """Return the proof of each clip."""
        rows = inputs["video_index"]
        seconds = pad_sequence([clip["times_s"].double() for clip in details], batch_first=True)  # (V, T)
        proof = scores_of_evidence(self.model, inputs, output, seconds.to(rows.device)[rows])
        clips = [rows == number for number in range(len(details))]
        return [Proof(proof.only[clip], proof.without[clip], proof.removed[clip]) for clip in clips]

    def postprocess(
        self, model_outputs: dict[str, Any], span_rule: SpanRule = "kept", top_k: int | None = None
    ) -> list[Result]:
        """Return one result per question."""
        output = VideoQAOutput(**model_outputs["output"])  # the base class passes a plain ModelOutput on
        times = model_outputs["times_s"]
        choices = model_outputs["choices"]
        proof = model_outputs["proof"]
        answers = self.processor.post_process_evidence(output, times, choices, span_rule=span_rule)
        results = []
        for row, evidence in enumerate(answers):
            words = self._answers(evidence.choices, None if choices is None else choices[row])
            order = list(range(len(evidence.choices)))
            if top_k is not None:
                order = sorted(order, key=lambda place: -evidence.scores[place])[:top_k]
            result: Result = {
                "answer": evidence.answer,
                "score": evidence.score,
                "choices": [evidence.choices[place] for place in order],
                "scores": [evidence.scores[place] for place in order],
                "evidence": evidence,
                "verdict": None if proof is None else judge(evidence, words, proof.value, row, times),
                "unknown_words": model_outputs["unknown_words"][row],
                "unlike_training": model_outputs["unlike_training"],
                "frames_missing": model_outputs["frames_missing"],
            }
            if model_outputs["return_frames"]:
                result |= {"frames": model_outputs["frames"], "times_s": times}
            results.append(result)
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


def _padding_counts(model: PreTrainedModel) -> bool:
    """Return whether answers depend on padding, as those of some published networks do."""
    backbone = getattr(model, "backbone", None)
    return getattr(backbone, "depends_on_batch", False) or getattr(model.config, "rank_by", None) == "prob"


def _rows(output: VideoQAOutput, rows: Tensor, frames: int | None = None, choices: int | None = None) -> VideoQAOutput:
    """Return the part of an output that belongs to some questions (Q,), cut to their frames and choices."""
    part = {name: value[rows] for name, value in output.items() if isinstance(value, Tensor) and value.dim()}
    for name, count in (("frame_scores", frames), ("causal_mask", frames), ("logits", choices)):
        if name in part:
            part[name] = part[name][:, :count]
    return VideoQAOutput(**part)


def load_pipeline(checkpoint: str | Path, **kwargs: Any) -> VideoQuestionAnsweringPipeline:
    """Open the question answering pipeline of a checkpoint folder or Hub id; errors become CausalVideoError."""
    from transformers import pipeline

    return open_pretrained(partial(pipeline, QUESTION_TASK), checkpoint, **kwargs)
