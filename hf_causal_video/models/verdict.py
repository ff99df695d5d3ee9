"""Verdict on the evidence of an answer: was it sufficient, and was it necessary?"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from hf_causal_video.models.outputs import Record


@dataclass
class Verdict(Record):
    """Verdict on the evidence of one answer: was it sufficient, was it necessary, and the scores that show it.

    Args:
        sufficient: the evidence alone gives the same answer; None where that could not be asked.
        necessary: without the event the answer is another one; None where that could not be asked.
        scores_only: probability of each answer from the evidence alone, or None.
        scores_without: probability of each answer without the event, or None.
        answer_only, answer_without: the answer then, in words.
        removed_s: [start_s, end_s] that were taken away, in order of time.
    """

    sufficient: bool | None = None
    necessary: bool | None = None
    scores_only: dict[str, float] | None = None
    scores_without: dict[str, float] | None = None
    answer_only: str | None = None
    answer_without: str | None = None
    removed_s: list[tuple[float, float]] = field(default_factory=list)

    def record(self, asked: Literal["only", "without"], scores: dict[str, float], answer: str, stays: bool) -> None:
        """Record what was answered from the evidence alone, or without it, and whether the answer stays.

        Example:
            >>> verdict = Verdict()
            >>> verdict.record("without", {"run": 0.2, "sit": 0.8}, "sit", stays=False)
            >>> verdict.necessary, verdict.answer_without
            (True, 'sit')
        """
        if asked == "only":
            self.scores_only = scores
            self.answer_only = answer
            self.sufficient = stays
        else:
            self.scores_without = scores
            self.answer_without = answer
            self.necessary = not stays


def unique_labels(words: Sequence[str]) -> list[str]:
    """Name equal answers apart, so that a dictionary by answer keeps every one of them.

    Example:
        >>> unique_labels(["yes", "no", "yes"])
        ['yes', 'no', 'yes (2)']
    """
    labels: list[str] = []
    for word in words:
        label = word
        number = 1
        while label in labels:
            number += 1
            label = f"{word} ({number})"
        labels.append(label)
    return labels
