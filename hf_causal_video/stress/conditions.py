"""Run every condition of a stress test on a batch of questions.

Every draw depends on the seed, the question's id and the test alone, so that neither the order of the questions nor
the size of a batch changes it.
"""

import hashlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from hf_causal_video.models.spans import frames_in_spans
from hf_causal_video.stress.ablation import event_frames
from hf_causal_video.stress.clips import (
    Asked,
    Clip,
    Item,
    blanked,
    clip_of,
    length,
    random_window,
    same_kind,
    shown,
    spread,
    swapped,
    take,
)
from hf_causal_video.stress.records import Record
from hf_causal_video.utils.errors import CausalVideoError, require

Numbers = Sequence[float] | np.ndarray | Tensor


class Answerer(Protocol):
    """Any callable with these three arguments. Three methods are used where it has them.

    `batch([(frames, question, choices), ...])` returns the scores of many questions at once; `evidence(asked)`, on the
    same list, the frames that each answer rests on; `reuse()` is a block in which the same questions are asked about
    changed clips, so that what does not depend on the clip can be kept.
    """

    def __call__(self, frames: Clip, question: str, choices: list[str] | None, /) -> Numbers:
        """Return scores, one per choice (per word of the vocabulary where choices is None); the best is the answer."""


class Items(Protocol):
    """Questions with their clips by index: a list, a table or any dataset."""

    def __len__(self) -> int:
        """Number of questions."""

    def __getitem__(self, index: int, /) -> Item:
        """One question."""


EvidenceSource = Literal["own", "truth", "none"] | Callable[[list[Asked]], Sequence[Numbers]]
TESTS = {  # name: what is asked
    "whole": "the clip as it is",
    "blind": "every frame blank",
    "shuffled": "the frames in random order",
    "first_frame": "the first frame alone",
    "environment_swapped": "the environment of another video",
    "evidence_only": "the evidence alone",
    "evidence_removed": "all but the evidence",
    "window_only": "as many frames of a random window",
    "window_removed": "all but that window",
    "options_permuted": "the choices in another order",
    "question_replaced": "a question about another video",
}
OF_EVIDENCE = ("evidence_only", "evidence_removed", "window_only", "window_removed")
OF_CLIP = ("blind", "first_frame")
DONORS_TRIED = 50


class QuestionTable:
    """The questions without their clips: what donors are drawn from."""

    def __init__(self, items: Items):
        rows: Any = getattr(items, "questions", items)
        default = {"choices": [], "answer": -1, "answer_text": "", "spans": []}
        names = ("question_id", "video_id", "question", *default)
        if hasattr(rows, "column_names"):  # a table: its clips, if it has any, are not read
            columns = {name: list(rows[name]) for name in names if name in rows.column_names}
        else:
            read = [
                {name: row.get(name, default.get(name)) for name in names}
                for row in map(rows.__getitem__, range(len(rows)))
            ]
            columns = {name: [row[name] for row in read] for name in names}
        columns = {name: columns.get(name, [default.get(name)] * len(rows)) for name in names}
        self.keys: list[str] = columns["question_id"]
        self.videos: list[str] = columns["video_id"]
        self.questions: list[str] = columns["question"]
        self.choices: list[Sequence[str]] = columns["choices"]
        self.answers: list[int] = columns["answer"]
        self.truth = all(len(one) for one in columns["spans"])
        known = zip(self.answers, self.choices, columns["answer_text"], strict=True)
        # an open answer outside the vocabulary is known, and never predicted
        unknown = sum(answer < 0 and (bool(choices) or not text) for answer, choices, text in known)
        repeated = len(set(self.keys)) < len(self.keys)
        require(
            self.keys and not unknown and not repeated,
            "questions of the stress test",
            found=f"{len(self.keys)} questions, {unknown} without an answer{', some ids twice' if repeated else ''}",
            expected="at least 1, every answer known, every question_id once",
            fix="use a split whose answers are public, and drop repeated rows",
        )
        stated = "\n".join(f"{key} {answer}" for key, answer in zip(self.keys, self.answers, strict=True))
        self.fingerprint = hashlib.sha256(stated.encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.keys)


@dataclass
class Case:
    """One question of a batch, and the frames that the tests treat apart, as sorted indices.

    Args:
        row: its place in the table.
        asked: its clip, text and choices.
        evidence: frames that the answer rests on.
        event: frames that removal takes away.
        inside: frames that are not environment.
        notes: what a test could not do as it should.
    """

    row: int
    asked: Asked
    evidence: np.ndarray | None = None
    event: np.ndarray | None = None
    inside: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)


@dataclass
class StressRunner:
    """Run every stress condition on a batch of questions; arguments as of `stress_test`."""

    answer: Answerer
    items: Items
    table: QuestionTable
    evidence: EvidenceSource
    environment: str
    tests: list[str]
    least: int
    seed: int

    def ask(self, rows: list[int]) -> list[Record]:
        """Return one record per question: the prediction of every test, and the frames of the evidence."""
        with getattr(self.answer, "reuse", nullcontext)():
            cases = self._cases(rows)
            predictions = [self._predictions(test, cases) for test in self.tests]
        return [
            {
                "question_id": self.table.keys[case.row],
                "video_id": str(self.table.videos[case.row]),
                "answer": int(self.table.answers[case.row]),
                "choices": len(self.table.choices[case.row]),
                "frames": length(case.asked[0]),
                "evidence": None if case.evidence is None else case.evidence.tolist(),
                "removed": None if case.event is None else case.event.tolist(),
                "predictions": {test: answers[place] for test, answers in zip(self.tests, predictions, strict=True)},
                "notes": case.notes,
            }
            for place, case in enumerate(cases)
        ]

    def _cases(self, rows: list[int]) -> list[Case]:
        many = getattr(self.items, "__getitems__", None)
        items: list[Item] = [self.items[row] for row in rows] if many is None else many(rows)
        clips: dict[tuple[int, ...], Clip] = {}  # questions about one video share its clip
        cases = []
        for row, item in zip(rows, items, strict=True):
            clip = clip_of(item)
            parts = tuple(map(id, clip.values())) if isinstance(clip, Mapping) else (id(clip),)
            choices = list(item["choices"]) or None
            cases.append(Case(row, (clips.setdefault(parts, clip), item["question"], choices)))
        evidence = self._evidence(items, cases, self.evidence)
        for case, item, kept in zip(cases, items, evidence, strict=True):
            case.evidence = kept
            case.event = None if kept is None else self._event(item, case, kept)
            case.inside = case.event
        if self.environment == "truth" and "environment_swapped" in self.tests:
            for case, inside in zip(cases, self._evidence(items, cases, "truth"), strict=True):
                case.inside = inside
        return cases

    def _predictions(self, test: str, cases: list[Case]) -> list[int]:
        """Ask all questions as a test does; return the answers by their index in the table."""
        queries: list[Asked] = []
        orders = []
        same: dict[int, Clip] = {}  # what a test shows of a clip, where it does not depend on the question
        for case in cases:
            (clip, question, choices), order = self._change(test, case, self._draw(case.row, test))
            if test in OF_CLIP:
                clip = same.setdefault(id(case.asked[0]), clip)
            queries.append((clip, question, choices))
            orders.append(order)
        answers = []
        for case, one, order, scores in zip(cases, queries, orders, self._scores(queries), strict=True):
            best = _best(scores, one[2], self.table.keys[case.row], test)
            answers.append(best if order is None else int(order[best]))
        return answers

    def _change(self, test: str, case: Case, draw: np.random.Generator) -> tuple[Asked, np.ndarray | None]:
        """Return the question as a test asks it, and the order of its choices where that changes."""
        clip, question, choices = case.asked
        if test == "whole":
            return case.asked, None
        if test == "question_replaced":
            return (clip, self._other_question(case.row, draw), choices), None
        if test == "options_permuted":
            assert choices is not None
            order = draw.permutation(len(choices))
            while len(order) > 1 and (order == np.arange(len(order))).all():
                order = draw.permutation(len(choices))
            return (clip, question, [choices[index] for index in order]), order
        return (self._changed_clip(test, case, draw), question, choices), None

    def _changed_clip(self, test: str, case: Case, draw: np.random.Generator) -> Clip:
        clip = case.asked[0]
        total = length(clip)
        if test == "blind":
            return blanked(clip)
        if test == "shuffled":
            return take(clip, draw.permutation(total))
        if test == "first_frame":
            return shown(clip, [0], self.least)
        if test == "environment_swapped":
            assert case.inside is not None
            outside = np.setdiff1d(np.arange(total), case.inside)
            if not len(outside):
                case.notes.append(f"{test}: no environment to exchange")
                return clip
            donor, donor_outside = self._donor(case, draw)
            return swapped(clip, outside, donor, donor_outside)
        assert test in OF_EVIDENCE and case.evidence is not None and case.event is not None
        chosen = case.evidence if test.endswith("only") else case.event
        if test.startswith("window"):  # the same window for both of its tests
            window = random_window(self._draw(case.row, "window"), total, len(case.event))
            chosen = window[spread(len(window), len(case.evidence))] if test.endswith("only") else window
        if test.endswith("removed"):
            chosen = np.setdiff1d(np.arange(total), chosen)
        if len(chosen) < self.least:
            case.notes.append(f"{test}: {'no frames left, blank' if not len(chosen) else 'few frames left, repeated'}")
        return shown(clip, chosen, self.least)

    def _donor(self, case: Case, draw: np.random.Generator) -> tuple[Clip, np.ndarray]:
        """Return another video of the same kind, and its frames outside the evidence (all if the evidence is all)."""
        for _ in range(DONORS_TRIED):
            other = int(draw.integers(len(self.table)))
            if self.table.videos[other] == self.table.videos[case.row]:
                continue
            item = self.items[other]
            donor = Case(other, (clip_of(item), item["question"], list(item["choices"]) or None))
            if not same_kind(case.asked[0], donor.asked[0]):
                continue
            [inside] = self._evidence([item], [donor], "truth" if self.environment == "truth" else self.evidence)
            assert inside is not None
            if self.environment != "truth":
                inside = self._event(item, donor, inside)
            frames = np.arange(length(donor.asked[0]))
            outside = np.setdiff1d(frames, inside)
            if not len(outside):
                case.notes.append("environment_swapped: the other video is all evidence, all of it was used")
            return donor.asked[0], outside if len(outside) else frames
        raise CausalVideoError(
            f"no other video to take an environment from, for {self.table.keys[case.row]}",
            found=f"{DONORS_TRIED} others of other sizes",
            expected="videos whose frames have the same shape",
            fix="resize the frames alike, or leave out environment_swapped",
        )

    def _other_question(self, row: int, draw: np.random.Generator) -> str:
        for _ in range(DONORS_TRIED):
            other = int(draw.integers(len(self.table)))
            same = self.table.videos[other] == self.table.videos[row]
            if not same and self.table.questions[other] != self.table.questions[row]:
                return self.table.questions[other]
        others = sorted(set(self.table.questions) - {self.table.questions[row]})  # rare: most ask the same
        return others[int(draw.integers(len(others)))]

    def _draw(self, row: int, test: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(f"{self.table.keys[row]} {test}".encode())])

    def _event(self, item: Item, case: Case, kept: np.ndarray) -> np.ndarray:
        """Return the frames that removal takes away: annotated spans, or else kept frames with short gaps."""
        if self.evidence == "truth":
            return kept
        total = length(case.asked[0])
        times = item.get("timestamps_s")
        mask = torch.zeros(1, total, dtype=torch.bool)
        mask[0, kept.tolist()] = True
        seconds = None if times is None or len(times) != total else torch.as_tensor(times, dtype=torch.float64)[None]
        return np.flatnonzero(event_frames(mask, torch.ones_like(mask), seconds)[0].numpy())

    def _evidence(self, items: list[Item], cases: list[Case], source: EvidenceSource) -> Sequence[np.ndarray | None]:
        """Return the sorted frame indices of each question's evidence."""
        if source == "none":
            return [None] * len(items)
        queries = [case.asked for case in cases]
        if source == "truth":
            frames: Sequence[Numbers] = [_true_frames(item) for item in items]
        else:
            frames = source(queries) if callable(source) else self.answer.evidence(queries)  # type: ignore[attr-defined]
        return [
            _frame_indices(one, length(case.asked[0]), self.table.keys[case.row])
            for one, case in zip(frames, cases, strict=True)
        ]

    def _scores(self, asked: list[Asked]) -> Sequence[Numbers]:
        batch = getattr(self.answer, "batch", None)
        scores = batch(asked) if batch is not None else [self.answer(*one) for one in asked]
        require(
            len(scores) == len(asked),
            "answers and questions do not fit",
            found=f"{len(scores)} answers",
            expected=len(asked),
            fix="let batch() return the scores of every question",
        )
        return scores


def _true_frames(item: Item) -> torch.Tensor:
    times = item.get("timestamps_s")
    require(
        times is not None,
        f"no times for the frames of {item['question_id']}",
        found="no timestamps_s",
        expected="seconds, (T,)",
        fix="add the times of the frames, or do not ask for the true evidence",
    )
    return frames_in_spans(torch.as_tensor(times), item["spans"])


def _frame_indices(frames: Numbers, total: int, key: str) -> np.ndarray:
    """Return evidence as sorted indices, each once."""
    values = frames.detach().cpu().numpy() if isinstance(frames, torch.Tensor) else np.asarray(frames)
    if values.dtype == bool and values.shape == (total,):
        return np.flatnonzero(values)
    indices = np.unique(values) if values.size else np.zeros(0, dtype=np.int64)
    integers = values.ndim == 1 and np.issubdtype(indices.dtype, np.integer)
    require(
        integers and not ((indices < 0) | (indices >= total)).any(),
        f"invalid evidence of {key}",
        found=f"{values.dtype} {values.shape}: {values[:8]}",
        expected=f"frame indices from 0 to {total - 1}, or a bool mask ({total},)",
        fix="return zero-based indices into the frames that were passed",
    )
    return indices


def _best(scores: Numbers, choices: list[str] | None, key: str, test: str) -> int:
    """Return the index of the best score."""
    values = scores.detach().float().cpu().numpy() if isinstance(scores, torch.Tensor) else np.asarray(scores, float)
    fits = values.ndim == 1 and len(values) and (choices is None or len(values) == len(choices))
    require(
        fits and np.isfinite(values).all(),
        f"no answer to {key} ({test})",
        found=f"scores {values.shape} {values.reshape(-1)[:5]}",
        expected="finite scores, one per choice" if choices is None else f"{len(choices)} finite scores",
        fix="return one number per choice; NaN comes from NaN features or an overflow in half precision",
    )
    return int(values.argmax())
