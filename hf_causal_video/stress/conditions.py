"""Run every condition of a stress test on a batch of questions.

Every draw depends on the seed, the question's id and the test alone, so that neither the order of the questions nor
the size of a batch changes it.
"""

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from hf_causal_video.models.spans import frames_in_spans
from hf_causal_video.stress.ablation import event_frames
from hf_causal_video.stress.clips import (
    Clip,
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
from hf_causal_video.utils.errors import CausalVideoError, require

Asked = tuple[Clip, str, list[str] | None]
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

    def __init__(self, items: Any):
        rows = getattr(items, "questions", items)
        wanted: dict[str, Any] = {
            "question_id": None,
            "video_id": None,
            "question": None,
            "choices": [],
            "answer": -1,
            "answer_text": "",
            "spans": [],
        }
        if hasattr(rows, "column_names"):  # a table: its clips, if it has any, are not read
            columns = {name: list(rows[name]) for name in wanted if name in rows.column_names}
        else:
            columns = {name: [] for name in wanted}
            for row in (rows[index] for index in range(len(rows))):
                for name, column in columns.items():
                    column.append(row.get(name, wanted[name]))
        columns = {name: columns.get(name, [wanted[name]] * len(rows)) for name in wanted}
        self.keys = columns["question_id"]
        self.videos = columns["video_id"]
        self.questions = columns["question"]
        self.choices = columns["choices"]
        self.answers = columns["answer"]
        self.truth = all(len(one) for one in columns["spans"])
        rows = zip(self.answers, self.choices, columns["answer_text"], strict=True)
        # an open answer outside the vocabulary is known, and never predicted
        unknown = sum(answer < 0 and (bool(choices) or not text) for answer, choices, text in rows)
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


class StressRunner:
    """Run every stress condition on a batch of questions; arguments as of `stress_test`."""

    def __init__(
        self,
        answer: Any,
        items: Any,
        table: QuestionTable,
        evidence: Any,
        environment: str,
        tests: list[str],
        least: int,
        seed: int,
    ):
        self.answer = answer
        self.items = items
        self.table = table
        self.evidence = evidence
        self.environment = environment
        self.tests = tests
        self.least = least
        self.seed = seed

    def ask(self, rows: list[int]) -> list[dict[str, Any]]:
        """Return one record per question: the prediction of every test, and the frames of the evidence."""
        many = getattr(self.items, "__getitems__", None)
        items = [self.items[row] for row in rows] if many is None else many(rows)
        clips: dict[tuple[int, ...], Clip] = {}  # questions about one video share its clip
        asked = []
        for item in items:
            clip, question, choices = self._asked(item)
            parts = tuple(map(id, clip.values())) if isinstance(clip, Mapping) else (id(clip),)
            asked.append((clips.setdefault(parts, clip), question, choices))
        evidence = self._evidence(items, asked, self.evidence)
        events = [self._event(*one) for one in zip(items, asked, evidence, strict=True)]
        records: list[dict[str, Any]] = [
            {
                "question_id": self.table.keys[row],
                "video_id": str(self.table.videos[row]),
                "answer": int(self.table.answers[row]),
                "choices": len(self.table.choices[row]),
                "frames": length(clip),
                "evidence": None if kept is None else kept.tolist(),
                "removed": None if event is None else event.tolist(),
                "predictions": {},
                "notes": [],
            }
            for row, (clip, _, _), kept, event in zip(rows, asked, evidence, events, strict=True)
        ]
        around = self._around(items, asked, events)
        for test in self.tests:
            changed, orders = [], []
            same: dict[int, Clip] = {}  # what a test shows of a clip, where it does not depend on the question
            for place, row in enumerate(rows):
                draw = self._draw(row, test)
                one, order = self._change(
                    test,
                    row,
                    asked[place],
                    evidence[place],
                    events[place],
                    around[place],
                    draw,
                    records[place]["notes"],
                )
                if test in OF_CLIP:
                    one = (same.setdefault(id(asked[place][0]), one[0]), one[1], one[2])
                changed.append(one)
                orders.append(order)
            for record, one, order, scores in zip(records, changed, orders, self._scores(changed), strict=True):
                best = _best(scores, one[2], record["question_id"], test)
                record["predictions"][test] = best if order is None else int(order[best])
        return records

    def _change(
        self,
        test: str,
        row: int,
        asked: Asked,
        evidence: np.ndarray | None,
        event: np.ndarray | None,
        around: np.ndarray | None,
        draw: np.random.Generator,
        notes: list[str],
    ) -> tuple[Asked, np.ndarray | None]:
        """Return the question as a test asks it, and the order of its choices where that changes."""
        clip, question, choices = asked
        total = length(clip)
        if test == "blind":
            return (blanked(clip), question, choices), None
        if test == "shuffled":
            return (take(clip, draw.permutation(total)), question, choices), None
        if test == "first_frame":
            return (shown(clip, [0], self.least), question, choices), None
        if test == "environment_swapped":
            assert around is not None
            outside = np.setdiff1d(np.arange(total), around)
            if not len(outside):
                notes.append(f"{test}: no environment to exchange")
                return asked, None
            donor, donor_outside = self._donor(row, clip, draw, notes)
            return (swapped(clip, outside, donor, donor_outside), question, choices), None
        if test in OF_EVIDENCE:
            assert evidence is not None and event is not None
            chosen = evidence if test.endswith("only") else event
            if test.startswith("window"):  # the same window for both of its tests
                window = random_window(self._draw(row, "window"), total, len(event))
                chosen = window[spread(len(window), len(evidence))] if test.endswith("only") else window
            if test.endswith("removed"):
                chosen = np.setdiff1d(np.arange(total), chosen)
            if len(chosen) < self.least:
                notes.append(f"{test}: {'no frames left, blank' if not len(chosen) else 'few frames left, repeated'}")
            return (shown(clip, chosen, self.least), question, choices), None
        if test == "options_permuted":
            assert choices is not None
            order = draw.permutation(len(choices))
            while len(order) > 1 and (order == np.arange(len(order))).all():
                order = draw.permutation(len(choices))
            return (clip, question, [choices[index] for index in order]), order
        if test == "question_replaced":
            return (clip, self._other_question(row, draw), choices), None
        return asked, None

    def _donor(self, row: int, clip: Clip, draw: np.random.Generator, notes: list[str]) -> tuple[Clip, np.ndarray]:
        """Return another video of the same kind, and its frames outside the evidence (all if the evidence is all)."""
        for _ in range(DONORS_TRIED):
            other = int(draw.integers(len(self.table)))
            if self.table.videos[other] == self.table.videos[row]:
                continue
            item = self.items[other]
            asked = self._asked(item)
            if same_kind(clip, asked[0]):
                [inside] = self._around([item], [asked], None)
                assert inside is not None
                outside = np.setdiff1d(np.arange(length(asked[0])), inside)
                if not len(outside):
                    notes.append("environment_swapped: the other video is all evidence, all of it was used")
                return asked[0], outside if len(outside) else np.arange(length(asked[0]))
        raise CausalVideoError(
            f"no other video to take an environment from, for {self.table.keys[row]}",
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

    def _asked(self, item: Mapping[str, Any]) -> Asked:
        return clip_of(item), item["question"], list(item["choices"]) or None

    def _draw(self, row: int, test: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(f"{self.table.keys[row]} {test}".encode())])

    def _around(self, items: list, asked: list[Asked], evidence: list | None) -> list[np.ndarray | None]:
        """Return the frames whose complement is the environment."""
        if "environment_swapped" not in self.tests:
            return [None] * len(items)
        if self.environment == "evidence" and evidence is not None:
            return evidence
        if self.environment == "truth":
            return self._evidence(items, asked, "truth")
        kept = self._evidence(items, asked, self.evidence)
        return [self._event(*one) for one in zip(items, asked, kept, strict=True)]

    def _event(self, item: Mapping[str, Any], asked: Asked, kept: np.ndarray | None) -> np.ndarray | None:
        """Return the frames that removal takes away: annotated spans, or else kept frames with short gaps."""
        if kept is None or self.evidence == "truth":
            return kept
        total, times = length(asked[0]), item.get("timestamps_s")
        mask = torch.zeros(1, total, dtype=torch.bool)
        mask[0, kept.tolist()] = True
        seconds = None if times is None or len(times) != total else torch.as_tensor(times, dtype=torch.float64)[None]
        return np.flatnonzero(event_frames(mask, torch.ones_like(mask), seconds)[0].numpy())

    def _evidence(self, items: list, asked: list[Asked], source: Any) -> list[np.ndarray | None]:
        """Return the sorted frame indices of each question's evidence."""
        if source == "none":
            return [None] * len(items)
        if source == "truth":
            frames: Sequence[Any] = [_true_frames(item) for item in items]
        else:
            frames = self.answer.evidence(asked) if source == "own" else source(asked)
        return [
            _frame_indices(one, length(clip), item["question_id"])
            for one, (clip, _, _), item in zip(frames, asked, items, strict=True)
        ]

    def _scores(self, asked: list[Asked]) -> Sequence[Any]:
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


def _true_frames(item: Mapping[str, Any]) -> torch.Tensor:
    require(
        item.get("timestamps_s") is not None,
        f"no times for the frames of {item['question_id']}",
        found="no timestamps_s",
        expected="seconds, (T,)",
        fix="add the times of the frames, or do not ask for the true evidence",
    )
    return frames_in_spans(torch.as_tensor(item["timestamps_s"]), item["spans"])


def _frame_indices(frames: Any, total: int, key: str) -> np.ndarray:
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


def _best(scores: Any, choices: list[str] | None, key: str, test: str) -> int:
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
