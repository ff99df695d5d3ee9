"""One processor for every VideoQA method: text and features in, model inputs out, and back again from output to
evidence."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from hf_causal_video.models.outputs import Evidence, EvidenceFrame, EvidenceObject, VideoQAOutput
from hf_causal_video.models.spans import Span, best_first, fit_gaussian, grow_window, kept_frames_to_spans
from hf_causal_video.models.user_inputs import (
    as_list,
    check_evidence,
    read_choices,
    read_durations,
    read_labels,
    read_objects,
    read_texts,
    read_times,
    stack,
)
from hf_causal_video.utils.errors import CausalVideoError

OPEN_ENDED_SHOWN = 5  # answers of a vocabulary that an Evidence lists
SpanRule = Literal["kept", "window", "gaussian"]
ChoiceTemplate = Literal["pair", "choice", "official"]


class VideoQAInputs(BatchFeature):
    """Model inputs; the seconds of their frames ride along outside the mapping, so `model(**inputs)` stays plain."""

    timestamps_s: list[Tensor] | None = None


class VideoQAProcessor(ProcessorMixin):
    """Turn questions, choices and features into model inputs, padded to the longest of the batch and no further.

    Args:
        tokenizer: tokenizer of the model's text encoder.
        answer_vocabulary: the words of an open-ended model, by answer index.
        choice_template: "pair" encodes question and choice as the tokenizer's sentence pair, "choice" the choice
            alone, "official" the literal string of the released TranSTR, whose special tokens the tokenizer then
            doubles.
        max_length: longest string in tokens; a longer one is an error, never cut in silence.

    Example:
        >>> from hf_causal_video.data import world_tokenizer
        >>> processor = VideoQAProcessor(world_tokenizer())
        >>> inputs = processor("who is doing jump", ["star", "ring"], frame_features=torch.zeros(16, 64))
        >>> inputs["choice_input_ids"].shape[:2], inputs["frame_features"].shape
        (torch.Size([1, 2]), torch.Size([1, 16, 64]))
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        answer_vocabulary: list[str] | None = None,
        choice_template: ChoiceTemplate = "pair",
        max_length: int = 512,
    ):
        if choice_template not in get_args(ChoiceTemplate) or not isinstance(max_length, int) or max_length < 1:
            raise CausalVideoError(
                "a processor", found=f"{choice_template=}, {max_length=}",
                expected=f"{', '.join(get_args(ChoiceTemplate))}; 1 token or more", fix="mend these settings",
            )  # fmt: skip
        if answer_vocabulary is not None:
            words = read_texts("answer_vocabulary", answer_vocabulary, "pass the list of answers")
            if isinstance(answer_vocabulary, str) or len(set(words)) < len(words):
                raise CausalVideoError(
                    "answer_vocabulary", found="one text, or an answer twice", expected="a list of different answers",
                    fix="pass the list that the model was trained with",
                )  # fmt: skip
        self.answer_vocabulary = answer_vocabulary
        self.choice_template = choice_template
        self.max_length = max_length
        super().__init__(tokenizer)

    def __call__(
        self,
        question: str | Sequence[str],
        choices: Sequence[str] | Sequence[Sequence[str]] | None = None,
        frame_features: Tensor | Sequence[Tensor] | None = None,
        object_features: Tensor | Sequence[Tensor] | None = None,
        object_boxes: Tensor | Sequence[Tensor] | None = None,
        object_mask: Tensor | Sequence[Tensor] | None = None,
        labels: Tensor | Sequence[int] | int | None = None,
        timestamps: Tensor | Sequence[Tensor] | None = None,
        video: Any = None,
        feature_extractor: Callable[[Any], tuple[Any, Any]] | None = None,
        return_tensors: str = "pt",
    ) -> VideoQAInputs:
        """Make one batch.

        Args:
            question: one question, or B of them.
            choices: A strings, or B lists of them; lists may differ in length. None for an open-ended model.
            frame_features: (T, C), (B, T, C), or B tensors (T_i, C).
            object_features: (T, N, C), (B, T, N, C), or B tensors.
            object_boxes: the same with 4 numbers, xyxy in [0, 1].
            object_mask: the same without the last axis, True where an object is.
            labels: index of the right answer of each question.
            timestamps: seconds of the frames, (T,), (B, T), or B tensors; kept as `inputs.timestamps_s`.
            video: instead of features, one clip for `feature_extractor` (a path or decoded frames).
            feature_extractor: what turns a clip into `(VideoFeatures, frames)`, e.g. `VideoFeatureExtractor`.
            return_tensors: "pt".

        Raises:
            CausalVideoError: an empty question or choice list, NaN, a count that differs from the questions', objects
                or times of other frames, labels that are no whole numbers, a string beyond `max_length`, or a video
                without an extractor.
        """
        if return_tensors != "pt":
            raise CausalVideoError(
                "return_tensors", found=return_tensors, expected="'pt'", fix="convert the tensors afterwards"
            )
        questions = read_texts("question", question, "drop empty rows")
        if video is not None:
            clip = _extract(video, feature_extractor, frame_features)
            frame_features, object_features, object_boxes = (
                clip.frame_features,
                clip.object_features,
                clip.object_boxes,
            )
            object_mask, timestamps = clip.object_mask, clip.timestamps_s
        data: dict[str, Any] = dict(self._tokenize(questions))
        if choices is not None:
            data.update(self._tokenize_choices(questions, choices))
        count = len(questions)
        if frame_features is None:
            raise CausalVideoError(
                "features",
                found="none",
                expected="frame_features, or a video with a feature_extractor",
                fix="extract features first: hf-causal-video extract",
            )
        data["frame_features"], data["frame_mask"] = stack("frame_features", frame_features, 2, count)
        data |= read_objects(
            {"object_features": object_features, "object_boxes": object_boxes, "object_mask": object_mask},
            data["frame_mask"],
        )
        if labels is not None:
            data["labels"] = read_labels(labels, count)
        inputs = VideoQAInputs(data)
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
            timestamps: seconds of the frames, as given to the processor (`inputs.timestamps_s`); without them there
                are no spans and times are NaN.
            choices: the choices in words, as given to the processor; without them a choice is called by its index.
            duration_s: length of the clip, to end the last span there.
            span_rule: "kept" joins the slices of neighbouring kept frames; "window" grows around the best frame and
                "gaussian" fits mean and deviation, both over the softmax of the frame scores.

        Returns:
            One `Evidence` a question, spans best first.
        """
        check_evidence(output)
        assert output.logits is not None and output.frame_scores is not None and output.kept_frames is not None
        if span_rule not in get_args(SpanRule):
            raise CausalVideoError(
                "span_rule", found=span_rule, expected=", ".join(get_args(SpanRule)), fix="name one of them"
            )
        count = len(output.logits)
        probabilities = output.logits.float().softmax(-1).cpu()  # (B, A)
        scores, kept = output.frame_scores.float().cpu(), output.kept_frames.cpu()  # (B, T), (B, K)
        times = None if timestamps is None else as_list("timestamps", timestamps, 1, count)
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
            results.append(
                Evidence(
                    answer=words[answer],
                    answer_index=answer,
                    score=float(probabilities[row, answer]),
                    scores=[float(probabilities[row, i]) for i in shown],
                    choices=[words[i] for i in shown],
                    spans=[(start, end) for start, end, _ in best_first(spans[row])],
                    frames=[
                        EvidenceFrame(i, moments[i], float(scores[row, i])) for i in sorted(set(kept[row].tolist()))
                    ],
                    objects=_objects(output, row, moments),
                )
            )
        return results

    def _tokenize(self, texts: list[str], pairs: list[str] | None = None) -> dict[str, Tensor]:
        encoded = self.tokenizer(texts, pairs, padding=True, return_tensors="pt", return_token_type_ids=False)
        if encoded["input_ids"].shape[1] > self.max_length:
            raise CausalVideoError(
                "text",
                found=f"a string of {encoded['input_ids'].shape[1]} tokens",
                expected=f"at most max_length={self.max_length}",
                fix="shorten it, or raise max_length",
            )
        return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}

    def _tokenize_choices(self, questions: list[str], choices: Sequence) -> dict[str, Tensor]:
        lists = read_choices(choices, len(questions))
        widest = max(map(len, lists))
        first, second, present = [], [], []
        for text, given in zip(questions, lists, strict=True):
            for choice in [*given, *[""] * (widest - len(given))]:
                first.append(text)
                second.append(choice)
            present += [True] * len(given) + [False] * (widest - len(given))
        if self.choice_template == "pair":
            encoded = self._tokenize(first, second)
        elif self.choice_template == "choice":
            encoded = self._tokenize(second)
        else:
            encoded = self._tokenize([f"[CLS] {q} [SEP] {c}" for q, c in zip(first, second, strict=True)])
        mask = encoded["attention_mask"] * torch.tensor(present).unsqueeze(1)
        shape = (len(questions), widest)
        return {
            "choice_input_ids": encoded["input_ids"].unflatten(0, shape),
            "choice_attention_mask": mask.unflatten(0, shape),
        }

    def _words(self, probabilities: Tensor, choices: list[str] | None) -> list[str]:
        if choices is not None:  # an absent choice has the lowest logit there is
            if len(choices) > len(probabilities) or probabilities[len(choices) :].any():
                raise CausalVideoError(
                    "choices", found=f"{len(choices)} for {len(probabilities)} scores", expected="those of the batch",
                    fix="pass the choices that were given to the processor",
                )  # fmt: skip
            return choices
        if self.answer_vocabulary is None:
            return [f"choice {i}" for i in range(len(probabilities))]
        if not 0 <= len(probabilities) - len(self.answer_vocabulary) <= 1:
            raise CausalVideoError(
                "answer_vocabulary", found=f"{len(self.answer_vocabulary)} answers for {len(probabilities)} scores",
                expected="as many, or one less", fix="pass choices, or load the processor of this model",
            )  # fmt: skip
        # A released head has one class more than its vocabulary: every answer that is not in it.
        return [*self.answer_vocabulary, *["<other>"] * (len(probabilities) - len(self.answer_vocabulary))]


def _extract(video: Any, extractor: Callable[[Any], tuple[Any, Any]] | None, features: object) -> Any:
    if extractor is None or features is not None:
        raise CausalVideoError(
            "video",
            found="a video " + ("and features" if extractor else "without a feature_extractor"),
            expected="a video with the extractor of the model's features, and no features beside it",
            fix="pass feature_extractor=VideoFeatureExtractor.from_provenance(model.config.feature_provenance)",
        )
    return extractor(video)[0]


def _spans(scores: Tensor, kept: Tensor, times: list[Tensor], end: Tensor | None, rule: SpanRule) -> list[list[Span]]:
    padded = torch.nn.utils.rnn.pad_sequence([item.double() for item in times], batch_first=True)
    if padded.shape[1] > scores.shape[1]:
        raise CausalVideoError(
            "timestamps",
            found=f"{padded.shape[1]} times",
            expected=f"at most {scores.shape[1]} frames",
            fix="pass the times of the frames that the model saw",
        )
    if (kept >= torch.tensor([len(item) for item in times]).unsqueeze(1)).any():
        raise CausalVideoError(
            "timestamps",
            found=f"{[len(item) for item in times]} times",
            expected="one for every kept frame",
            fix="pass the times of the frames that the model saw",
        )
    padded = torch.nn.functional.pad(padded, (0, scores.shape[1] - padded.shape[1]))
    mask = torch.arange(padded.shape[1]) < torch.tensor([len(item) for item in times]).unsqueeze(1)
    if rule == "kept":
        return kept_frames_to_spans(kept, padded, scores, mask, end)
    fit = grow_window if rule == "window" else fit_gaussian
    weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    return [[span] for span in fit(weights, padded, frame_mask=mask, duration_s=end)]


def _objects(output: VideoQAOutput, row: int, moments: list[float]) -> list[EvidenceObject]:
    """The kept objects of one question, each once, in temporal order; padding (-inf) is no object."""
    if output.kept_objects is None or output.object_scores is None or output.kept_frames is None:
        return []
    found: dict[tuple[int, int], EvidenceObject] = {}
    for slot, frame in enumerate(output.kept_frames[row].tolist()):
        for place, index in enumerate(output.kept_objects[row, slot].tolist()):
            score = float(output.object_scores[row, slot, index])
            box = None if output.kept_boxes is None else tuple(output.kept_boxes[row, slot, place].tolist())
            if score > -torch.inf:
                found[frame, index] = EvidenceObject(frame, moments[frame], index, box, score)
    return [found[key] for key in sorted(found)]
