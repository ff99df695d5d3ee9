"""Processor of every VideoQA method: text and features to model inputs, and a model's output to evidence."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Unpack, get_args

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.processing_utils import ProcessingKwargs, ProcessorMixin, TextKwargs

from hf_causal_video.models.configuration import check_auto_class
from hf_causal_video.models.outputs import Evidence, EvidenceFrame, EvidenceObject, VideoQAOutput
from hf_causal_video.models.spans import Span, best_first, fit_gaussian, grow_window, kept_frames_to_spans
from hf_causal_video.models.unknown_words import find_unknown_words, warn_of_unknown_words
from hf_causal_video.models.user_inputs import (
    INPUT_NAMES,
    VideoQAInputs,
    as_list,
    check_evidence,
    either,
    read_choices,
    read_durations,
    read_labels,
    read_objects,
    read_texts,
    read_times,
    read_video_index,
    seconds_of,
    stack,
)
from hf_causal_video.utils.checks import check_choice, check_whole
from hf_causal_video.utils.errors import require

OPEN_ENDED_SHOWN = 5  # answers of a vocabulary that an Evidence lists
SpanRule = Literal["kept", "window", "gaussian"]
ChoiceTemplate = Literal["pair", "choice", "official"]


class VideoQAProcessorKwargs(ProcessingKwargs, total=False):
    """Options of the tokenizer that `VideoQAProcessor` passes on, flat or as `text_kwargs`."""

    _defaults = {"text_kwargs": {"padding": True}}  # type: ignore[misc]


class VideoQAProcessor(ProcessorMixin):
    """Turn questions, choices and features into model inputs, padded to the longest of the batch and no further.

    Args:
        tokenizer: tokenizer of the model's text encoder.
        answer_vocabulary: the words of an open-ended model, by answer index.
        choice_template: "pair" encodes question and choice as the tokenizer's sentence pair, "choice" the choice
            alone, "official" the literal string of the released TranSTR, whose special tokens the tokenizer then
            doubles.
        max_length: longest string in tokens; a longer one is an error, unless `truncation` is passed.
        clip_statistics: mean and spread of the training clips' features, see `ClipStatistics`.
        example_questions: some training questions, `{"question": ..., "choices": [...]}`, for an app to offer.

    Example:
        >>> from hf_causal_video.worlds import world_tokenizer
        >>> processor = VideoQAProcessor(world_tokenizer())
        >>> inputs = processor("who is doing jump", ["star", "ring"], frame_features=torch.zeros(16, 64))
        >>> inputs["choice_input_ids"].shape[:2], inputs["frame_features"].shape
        (torch.Size([1, 2]), torch.Size([1, 16, 64]))
    """

    valid_processor_kwargs = VideoQAProcessorKwargs

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        answer_vocabulary: list[str] | None = None,
        choice_template: ChoiceTemplate = "pair",
        max_length: int = 512,
        clip_statistics: dict[str, Any] | None = None,
        example_questions: list[dict[str, object]] | None = None,
    ):
        check_choice("choice_template", choice_template, get_args(ChoiceTemplate))
        check_whole("max_length", max_length)
        if answer_vocabulary is not None:
            words = read_texts("answer_vocabulary", answer_vocabulary, "pass the list of answers")
            fits = not isinstance(answer_vocabulary, str) and len(set(words)) == len(words)
            problem = "one text, or an answer twice"
            require(fits, "answer_vocabulary", found=problem, expected="a list of different answers")
        self.answer_vocabulary = answer_vocabulary
        self.choice_template = choice_template
        self.max_length = max_length
        self.clip_statistics = clip_statistics
        self.example_questions = example_questions
        super().__init__(tokenizer)

    @property
    def model_input_names(self) -> list[str]:
        """Names of all tensors that `__call__` may return, but for `labels`."""
        return list(INPUT_NAMES)

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoProcessor") -> None:
        """Refuse where the saved code would need this package; see `check_auto_class`."""
        check_auto_class(cls)
        super().register_for_auto_class(auto_class)

    def __call__(
        self,
        question: str | Sequence[str] | None = None,
        choices: Sequence[str] | Sequence[Sequence[str]] | None = None,
        frame_features: Tensor | Sequence | None = None,
        object_features: Tensor | Sequence | None = None,
        object_boxes: Tensor | Sequence | None = None,
        object_mask: Tensor | Sequence | None = None,
        labels: Tensor | Sequence[int] | int | None = None,
        timestamps: object = None,
        video: object = None,
        feature_extractor: Callable[[Any], tuple[Any, Any]] | None = None,
        return_tensors: str = "pt",
        *,
        text: str | Sequence[str] | None = None,
        videos: object = None,
        video_index: Sequence[int] | Tensor | None = None,
        **kwargs: Unpack[VideoQAProcessorKwargs],
    ) -> VideoQAInputs:
        """Make one batch.

        Args:
            question: one question, or B of them.
            choices: A strings, or B lists of them; lists may differ in length. None for an open-ended model.
            frame_features: (T, C), (B, T, C), or B tensors (T_i, C); nested lists of numbers count as tensors.
            object_features: (T, N, C), (B, T, N, C), or B tensors.
            object_boxes: the same with 4 numbers, xyxy in [0, 1].
            object_mask: the same without the last axis, True where an object is.
            labels: index of the right answer of each question.
            timestamps: seconds of the frames, (T,), (B, T), or B tensors, or `VideoMetadata`; kept as
                `inputs.timestamps_s`.
            video: instead of features, one clip for `feature_extractor` (a path or decoded frames).
            feature_extractor: what turns a clip into `(VideoFeatures, frames)`, e.g. `VideoFeatureExtractor`.
            return_tensors: "pt".
            text, videos: other names of `question` and `video`.
            video_index: row of each question's video (B,), where several questions share one; features and
                timestamps are then those of V <= B videos.
            kwargs: options of the tokenizer, flat or as `text_kwargs`: `padding="max_length"`, `truncation=True`,
                `max_length` (for this call in place of the processor's), ...

        Raises:
            CausalVideoError: an empty question or choice list, NaN, a count that differs from the questions', objects
                or times of other frames, labels that are not integers, a string beyond `max_length`, an unknown
                option, or a video without an extractor.
        """
        check_choice("return_tensors", return_tensors, ("pt",), fix="convert them")
        options = self._text_options(dict(kwargs))
        questions = read_texts("question", either("question", question, "text", text), "drop empty rows")
        video = either("video", video, "videos", videos)
        if video is not None:
            clip = _extract(video, feature_extractor, frame_features)
            frame_features = clip.frame_features
            timestamps = clip.timestamps_s
            object_features = clip.object_features
            object_boxes = clip.object_boxes
            object_mask = clip.object_mask
        count = len(questions)
        data, unknown = self._tokenize(questions, None, options)
        if choices is not None:
            tensors, more = self._tokenize_choices(questions, choices, options)
            data |= tensors
            unknown = [list(dict.fromkeys(first + second)) for first, second in zip(unknown, more, strict=True)]
        expected = "frame_features, or a video with a feature_extractor"
        fix = "extract features first: hf-causal-video extract"
        require(frame_features is not None, "features", found="none", expected=expected, fix=fix)
        num_videos = count
        if video_index is not None:
            data["video_index"], num_videos = read_video_index(video_index, count)
        data["frame_features"], data["frame_mask"] = stack("frame_features", frame_features, 2, num_videos)
        data |= read_objects(
            {"object_features": object_features, "object_boxes": object_boxes, "object_mask": object_mask},
            data["frame_mask"],
        )
        if labels is not None:
            data["labels"] = read_labels(labels, count)
        inputs = VideoQAInputs(data)
        inputs.unknown_words = unknown
        warn_of_unknown_words(unknown)
        if timestamps is not None:
            inputs.timestamps_s = read_times(timestamps, data["frame_mask"].sum(1).tolist())
        return inputs

    def post_process_evidence(
        self,
        output: VideoQAOutput,
        timestamps: Tensor | Sequence[Tensor] | None = None,
        choices: Sequence[str] | Sequence[Sequence[str]] | None = None,
        duration_s: float | Sequence[float] | None = None,
        span_rule: SpanRule = "kept",
    ) -> list[Evidence]:
        """Say in plain values what a model answered and what it looked at.

        Args:
            output: what the model returned for a batch.
            timestamps: seconds of the frames, as passed to the processor (`inputs.timestamps_s`), or
                `VideoMetadata`; without them there are no spans and times are NaN.
            choices: the choices in words, as passed to the processor; without them a choice is called by its index.
            duration_s: length of the clip, to end the last span there.
            span_rule: "kept" joins the slices of neighbouring kept frames; "window" grows around the best frame and
                "gaussian" fits mean and deviation, both over the softmax of the frame scores.

        Returns:
            One `Evidence` per question, spans in order of time.
        """
        check_evidence(output)
        assert output.logits is not None and output.frame_scores is not None and output.kept_frames is not None
        check_choice("span_rule", span_rule, get_args(SpanRule))
        count = len(output.logits)
        probabilities = output.logits.float().softmax(-1).cpu()  # (B, A)
        scores = output.frame_scores.float().cpu()  # (B, T)
        kept = output.kept_frames.cpu()  # (B, K)
        times = None if timestamps is None else as_list("timestamps", seconds_of(timestamps), 1, count)
        ends = read_durations(duration_s, count)
        spans = [[] for _ in range(count)] if times is None else _spans(scores, kept, times, ends, span_rule)
        named = None if choices is None else read_choices(choices, count)
        results = []
        for row in range(count):
            words = self._words(probabilities[row], None if named is None else named[row])
            moments = [float("nan")] * scores.shape[1] if times is None else times[row].tolist()
            answer = int(probabilities[row, : len(words)].argmax())
            shown = list(range(len(words)))
            if self.answer_vocabulary is not None and named is None:
                shown = probabilities[row].topk(min(OPEN_ENDED_SHOWN, len(words))).indices.tolist()
            frames = sorted(set(kept[row].tolist()))
            ordered = best_first(spans[row])
            results.append(
                Evidence(
                    answer=words[answer],
                    answer_index=answer,
                    score=float(probabilities[row, answer]),
                    scores=[float(probabilities[row, index]) for index in shown],
                    choices=[words[index] for index in shown],
                    spans=sorted((start, end) for start, end, _ in ordered),
                    frames=[EvidenceFrame(index, moments[index], float(scores[row, index])) for index in frames],
                    objects=_objects(output, row, moments),
                    best_span=ordered[0][:2] if ordered else None,
                )
            )
        return results

    def _text_options(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the tokenizer's options of one call; the processor's own where nothing else was passed."""
        options: dict[str, Any] = {"padding": True}
        if kwargs:
            known = {*TextKwargs.__annotations__, "text_kwargs", "common_kwargs"}
            unknown = sorted(set(kwargs) - known)
            expected = "arguments of VideoQAProcessor, or options of the tokenizer"
            require(not unknown, "unknown option", found=", ".join(unknown), expected=expected, fix="remove it")
            options = self._merge_kwargs(VideoQAProcessorKwargs, **kwargs)["text_kwargs"]  # type: ignore[arg-type]
        options |= {"return_tensors": "pt", "return_token_type_ids": False, "return_attention_mask": True}
        limit = options.pop("max_length", None) or self.max_length
        return {**options, "max_length": limit}

    def _tokenize(
        self, texts: list[str], pairs: list[str] | None, options: dict[str, Any]
    ) -> tuple[dict[str, Any], list[list[str]]]:
        """Return ids and mask, and the unknown words of each string."""
        options = dict(options)
        limit = options["max_length"]
        if options["padding"] != "max_length" and not options.get("truncation"):
            del options["max_length"]  # the tokenizer has no use for it, and says so
        encoded = self.tokenizer(texts, pairs, **options)
        lengths = encoded["attention_mask"].sum(1)  # (rows,)
        longest = int(lengths.argmax())
        problem = f"{int(lengths[longest])} tokens in {texts[longest][:60]!r}"
        fix = "shorten it, or cut it by truncation=True (in the shell answer --truncate)"
        require(int(lengths.max()) <= limit, "text", found=problem, expected=f"at most max_length={limit}", fix=fix)
        unknown = find_unknown_words(self.tokenizer, encoded, texts, pairs)
        return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}, unknown

    def _tokenize_choices(
        self, questions: list[str], choices: Sequence, options: dict[str, Any]
    ) -> tuple[dict[str, Any], list[list[str]]]:
        """Return ids and mask (B, A, L) of question and choice, and the unknown words of each question's choices."""
        lists = read_choices(choices, len(questions))
        widest = max(map(len, lists))
        first = []
        second = []
        present = []
        for text, words in zip(questions, lists, strict=True):
            first += [text] * widest
            second += [*words, *[""] * (widest - len(words))]
            present += [True] * len(words) + [False] * (widest - len(words))
        if self.choice_template == "pair":
            encoded, unknown = self._tokenize(first, second, options)
        elif self.choice_template == "choice":
            encoded, unknown = self._tokenize(second, None, options)
        else:
            joined = [f"[CLS] {question} [SEP] {choice}" for question, choice in zip(first, second, strict=True)]
            encoded, unknown = self._tokenize(joined, None, options)
        mask = encoded["attention_mask"] * torch.tensor(present).unsqueeze(1)
        shape = (len(questions), widest)
        tensors = {
            "choice_input_ids": encoded["input_ids"].unflatten(0, shape),
            "choice_attention_mask": mask.unflatten(0, shape),
        }
        merged = [
            list(dict.fromkeys(word for words in unknown[start : start + widest] for word in words))
            for start in range(0, len(unknown), widest)
        ]
        return tensors, merged

    def _words(self, probabilities: Tensor, choices: list[str] | None) -> list[str]:
        if choices is not None:  # an absent choice has the lowest logit possible
            fits = len(choices) <= len(probabilities) and not probabilities[len(choices) :].any()
            problem = f"{len(choices)} for {len(probabilities)} scores"
            require(fits, "choices", found=problem, expected="those that were passed to the processor")
            return choices
        if self.answer_vocabulary is None:
            return [f"choice {i}" for i in range(len(probabilities))]
        extra = len(probabilities) - len(self.answer_vocabulary)
        problem = f"{len(self.answer_vocabulary)} answers for {len(probabilities)} scores"
        fix = "pass choices, or load the processor of this model"
        require(0 <= extra <= 1, "answer_vocabulary", found=problem, expected="as many, or one less", fix=fix)
        # A released head has one class more than its vocabulary: every answer outside it.
        return [*self.answer_vocabulary, *["<other>"] * (len(probabilities) - len(self.answer_vocabulary))]


def _extract(video: object, extractor: Callable[[Any], tuple[Any, Any]] | None, features: object) -> Any:
    problem = "a video " + ("and features" if extractor else "without a feature_extractor")
    fix = "pass feature_extractor=VideoFeatureExtractor.from_provenance(model.config.feature_provenance)"
    fits = extractor is not None and features is None
    require(fits, "video", found=problem, expected="a video with an extractor, and no features next to it", fix=fix)
    assert extractor is not None
    return extractor(video)[0]


def _spans(scores: Tensor, kept: Tensor, times: list[Tensor], end: Tensor | None, rule: SpanRule) -> list[list[Span]]:
    padded = torch.nn.utils.rnn.pad_sequence([item.double() for item in times], batch_first=True)  # (B, T)
    lengths = torch.tensor([len(item) for item in times]).unsqueeze(1)  # (B, 1)
    fits = padded.shape[1] <= scores.shape[1] and not (kept >= lengths).any()
    expected = f"at most {scores.shape[1]}, and one for every kept frame"
    require(fits, "timestamps", found=f"{lengths.flatten().tolist()} times", expected=expected)
    padded = torch.nn.functional.pad(padded, (0, scores.shape[1] - padded.shape[1]))
    mask = torch.arange(padded.shape[1]) < lengths
    if rule == "kept":
        return kept_frames_to_spans(kept, padded, scores, mask, end)
    fit = grow_window if rule == "window" else fit_gaussian
    weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    return [[span] for span in fit(weights, padded, frame_mask=mask, duration_s=end)]


def _objects(output: VideoQAOutput, row: int, moments: list[float]) -> list[EvidenceObject]:
    """Return the kept objects of one question, each once, in order of time; padding (-inf) is left out."""
    if output.kept_objects is None or output.object_scores is None or output.kept_frames is None:
        return []
    objects: dict[tuple[int, int], EvidenceObject] = {}
    for slot, frame in enumerate(output.kept_frames[row].tolist()):
        for place, index in enumerate(output.kept_objects[row, slot].tolist()):
            score = float(output.object_scores[row, slot, index])
            box = None if output.kept_boxes is None else tuple(output.kept_boxes[row, slot, place].tolist())
            if score > -torch.inf:
                objects[frame, index] = EvidenceObject(frame, moments[frame], index, box, score)
    return [objects[key] for key in sorted(objects)]
