"""One answered question with all that a picture of it needs; the strip and the report draw the same case.

Why: evidence convinces only when it is checked against the frames it claims, so frames, times, scores and
spans are put together, and checked against each other, in one place before anything is drawn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch

from hf_causal_video.models.frame_times import frame_slices
from hf_causal_video.models.outputs import Evidence, EvidenceFrame
from hf_causal_video.models.verdict import Verdict, unique_labels
from hf_causal_video.utils.errors import require
from hf_causal_video.viewer.frames import read_frames
from hf_causal_video.viewer.words import pace_in_words, reason_in_words, verdict_in_words

__all__ = ["EvidenceCase", "EvidenceFrame"]

Box = tuple[float, float, float, float]
TOLERANCE_S = 1.0  # an evidence time may lie this far outside the frames shown: annotated lengths are rounded


@dataclass
class EvidenceCase:
    """A question, its evidence, and the frames of the clip.

    Args:
        question: the question in words.
        evidence: what `processor.post_process_evidence` returns for it.
        frames: T pictures, (H, W, 3) uint8 RGB arrays (or PIL images), the frames of the clip in order.
        times_s: T times in seconds, increasing.
        true_answer: the right choice by index (-1: unknown), or the right answer in words, where known.
        true_spans: [start_s, end_s] where the answer is to be seen, where known.
        duration_s: length of the clip; read off the frames where unknown.
        title: a line above the question, such as the question's id.
        scores_without: the scores of the same choices when the event of the evidence is taken away.
        scores_only: the scores of the same choices from the evidence frames alone.
        verdict: what these scores show; read off them where it is None.
        notes: sentences for the reader, such as that the clip is unlike the training clips.

    Raises:
        CausalVideoError: frames, times, choices or scores that do not belong together; scores that are NaN.

    Example:
        >>> evidence = Evidence("run", 0, 0.9, [0.9, 0.1], ["run", "sit"], frames=[EvidenceFrame(1, 3.0, 0.8)])
        >>> case = EvidenceCase("what does he do", evidence, [np.zeros((4, 6, 3), np.uint8)] * 2, [1.0, 3.0])
        >>> case.kept, case.end_s
        ([1], 4.0)
    """

    question: str
    evidence: Evidence
    frames: Sequence[np.ndarray]
    times_s: Sequence[float]
    true_answer: int | str | None = None
    true_spans: Sequence[tuple[float, float]] = ()
    duration_s: float | None = None
    title: str = ""
    scores_without: Sequence[float] | None = None
    scores_only: Sequence[float] | None = None
    verdict: Verdict | None = None
    notes: Sequence[str] = ()
    slices: list[tuple[float, float]] = field(init=False, repr=False)

    @classmethod
    def of_result(cls, question: str, result: Mapping[str, Any], title: str = "", **truth: Any) -> "EvidenceCase":
        """Make the case of what `pipeline("video-question-answering")` returned with `return_frames=True`.

        Args:
            question: the question.
            result: the result.
            title: a line above the question.
            truth: `true_answer`, `true_spans`, `duration_s`, where known.
        """
        evidence: Evidence = result["evidence"]
        verdict: Verdict | None = result["verdict"]

        def shown(scores: Mapping[str, float] | None) -> list[float] | None:
            return None if scores is None else list(scores.values())[: len(evidence.choices)]

        return cls(
            question,
            evidence,
            result["frames"],
            [float(time) for time in result["times_s"]],
            title=title,
            verdict=verdict,
            notes=notes_of(result),
            scores_without=shown(verdict and verdict.scores_without),
            scores_only=shown(verdict and verdict.scores_only),
            **truth,
        )

    def __post_init__(self) -> None:
        self.frames = read_frames(self.frames)
        self.times_s = [float(time) for time in self.times_s]
        size = len(self.evidence.choices)
        counts = (len(self.frames), len(self.times_s))
        _check_fit("frames and times", counts[0] == counts[1], counts, "one time for each frame")
        all_scores = {
            "scores": self.evidence.scores,
            "scores_without": self.scores_without,
            "scores_only": self.scores_only,
        }
        for name, scores in all_scores.items():
            if scores is not None:
                _check_fit(
                    name, 0 < size == len(scores), len(scores), "one score for each of evidence.choices, at least one"
                )
                finite = np.isfinite(np.asarray(scores, dtype=np.float64)).all()
                fix = "look for NaN in the features, or an overflow in half precision"
                require(finite, name, found=list(scores)[:6], expected="finite numbers", fix=fix)
        if isinstance(self.true_answer, int):
            _check_fit(
                "true_answer",
                self.true_answer < size,
                self.true_answer,
                "an index into choices, or the answer in words",
            )
            self.true_answer = None if self.true_answer < 0 else self.true_answer
        times = torch.tensor([self.times_s], dtype=torch.float64)
        self.slices = [(start, end) for start, end in frame_slices(times, None, self.duration_s)[0].tolist()]
        for span in (*self.evidence.spans, *self.true_spans):
            _check_fit("start and end of a span", 0 <= span[0] <= span[1], span, "0 <= start_s <= end_s")
        self.kept  # noqa: B018  (the frames of the evidence must be among the frames shown)
        if self.verdict is None and (self.scores_only is not None or self.scores_without is not None):
            self.verdict = self._read_verdict()

    def _read_verdict(self) -> Verdict:
        verdict = Verdict()
        choices = self.evidence.choices
        views: tuple[tuple[Literal["only", "without"], Sequence[float] | None], ...]
        views = (("only", self.scores_only), ("without", self.scores_without))
        for name, scores in views:
            if scores is not None:
                best = int(np.argmax(np.asarray(scores)))
                values = dict(zip(unique_labels(choices), map(float, scores), strict=True))
                verdict.record(name, values, choices[best], best == self.predicted_row)
        return verdict

    @property
    def reason(self) -> str:
        """Seconds of the evidence, with "because of" only where the answer falls without it."""
        return reason_in_words(self.verdict, self.evidence.spans)

    @property
    def findings(self) -> list[str]:
        """Sentences about the answer from the evidence alone, and without it."""
        if self.verdict is None or self.predicted_row < 0:
            return []
        return verdict_in_words(self.verdict, self.predicted_row, self.evidence.score)

    @cached_property
    def removed(self) -> set[int]:
        """Positions of the frames that are taken away with the evidence: all that lie in the event."""
        spans = [] if self.verdict is None else self.verdict.removed_s
        times = enumerate(self.times_s)
        return {*self.kept, *(place for place, time in times if any(start <= time < end for start, end in spans))}

    @property
    def looked_at(self) -> str:
        """Count of the kept frames, and how often a long clip was looked at."""
        text = f"Looked at {len(self.kept)} of {len(self.frames)} frames"
        if not self.kept:
            text = f"No frame was singled out of {len(self.frames)}"
        pace = pace_in_words(self.times_s)
        return f"{text}; {pace}" if pace else text

    @cached_property
    def kept(self) -> list[int]:
        """Positions of the evidence frames among the frames shown, in order of time, each once."""
        return sorted({self.position(frame.time_s) for frame in self.evidence.frames})

    @cached_property
    def kept_scores(self) -> dict[int, float]:
        """The score of each kept position, the best where several evidence frames fall on it."""
        scores: dict[int, float] = {}
        for frame in self.evidence.frames:
            where = self.position(frame.time_s)
            scores[where] = max(frame.score, scores.get(where, frame.score))
        return scores

    @cached_property
    def end_s(self) -> float:
        """End of the time axis: the clip's end, or the end of the last thing to draw."""
        ends = [self.duration_s or 0.0, self.slices[-1][1], self.times_s[-1]]
        return max(ends + [span[1] for span in (*self.evidence.spans, *self.true_spans)]) or 1.0

    @property
    def predicted_row(self) -> int:
        """Index of the answer in `evidence.choices`; -1 if it is not among them."""
        choices = self.evidence.choices
        index = self.evidence.answer_index
        if 0 <= index < len(choices) and choices[index] == self.evidence.answer:
            return index
        return choices.index(self.evidence.answer) if self.evidence.answer in choices else -1

    @property
    def true_row(self) -> int:
        """Index of the right answer in `evidence.choices`; -1 where it is unknown or not among them."""
        if isinstance(self.true_answer, str):
            choices = self.evidence.choices
            return choices.index(self.true_answer) if self.true_answer in choices else -1
        return -1 if self.true_answer is None else self.true_answer

    @property
    def right(self) -> bool | None:
        """True if the answer is the right one; None where that is unknown."""
        if isinstance(self.true_answer, str):
            return self.evidence.answer == self.true_answer
        return self.predicted_row == self.true_row if self.true_row >= 0 else None

    def boxes(self, position: int) -> list[Box]:
        """Boxes xyxy, within [0, 1], of the evidence objects on the frame at a position, best first, each once."""
        objects = [one for one in self.evidence.objects if one.box and self.position(one.time_s) == position]
        best_first = sorted(objects, key=lambda one: -one.score)
        boxes = [tuple(min(max(float(edge), 0.0), 1.0) for edge in one.box or ()) for one in best_first]
        return [(x0, y0, x1, y1) for x0, y0, x1, y1 in dict.fromkeys(boxes)]

    def position(self, time_s: float) -> int:
        """The frame shown whose time is nearest; an error where the time lies outside the frames."""
        require(
            self.slices[0][0] - TOLERANCE_S <= time_s <= self.slices[-1][1] + TOLERANCE_S,
            "evidence outside the frames shown",
            found=f"{time_s:g} s",
            expected=f"{self.slices[0][0]:g} to {self.slices[-1][1]:g} s",
            fix="pass the frames of the same clip, with their times in seconds",
        )
        return min(range(len(self.times_s)), key=lambda index: abs(self.times_s[index] - time_s))


def notes_of(result: Mapping[str, Any]) -> list[str]:
    """Sentences that a reader of an answer should know, from a result of the pipeline."""
    notes = []
    if distance := result.get("unlike_training"):
        if distance["unlike"]:
            notes.append(
                f"Unlike the training clips: {distance['distance']:.3g} spreads from their mean, where training clips "
                f"stay below {distance['limit']:.3g}. The answer may mean nothing."
            )
    if words := result.get("unknown_words"):
        notes.append(f"Words that the model does not know: {', '.join(words)}.")
    if missing := result.get("frames_missing"):
        count = len(result["times_s"])
        notes.append(f"The clip has {count} of the {count + missing} frames that are looked at; the rest is left out.")
    return notes


def _check_fit(what: str, fits: bool, found: object, expected: str) -> None:
    require(fits, f"{what} do not fit", found=found, expected=expected, fix="take both from the same answer")
