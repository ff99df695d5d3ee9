"""Does the answer depend on the video, and on the very frames that the model points at?

Why: a model can be right for reasons that have nothing to do with the clip. Each question is asked again on clips that
lack something, and what should have mattered is compared with what did. One figure sums it up, the *evidence effect*:
accuracy on the evidence alone (sufficiency) minus accuracy with the evidence removed (necessity), beside the same for
a random window of as many frames. Sufficiency and necessity: thesis, section 1.2.

Works for any callable `(frames or features, question, choices) -> scores`.
"""

import hashlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from tqdm.auto import tqdm

from hf_causal_video.causal.spans import frames_in_spans
from hf_causal_video.errors import CausalVideoError
from hf_causal_video.evidence.stress_clips import (
    Clip,
    blanked,
    clip_of,
    length,
    random_window,
    same_kind,
    shown,
    swapped,
    take,
)
from hf_causal_video.evidence.stress_report import summarize
from hf_causal_video.evidence.stress_store import Records

Asked = tuple[Clip, str, list[str] | None]
TESTS = {  # name: what is asked
    "whole": "the clip as it is",
    "blind": "every frame blank",
    "shuffled": "the frames in random order",
    "first_frame": "the first frame alone",
    "environment_swapped": "the environment of another video",
    "evidence_only": "the evidence alone",
    "evidence_removed": "all but the evidence",
    "window_only": "a random window of as many frames",
    "window_removed": "all but that window",
    "options_permuted": "the choices in another order",
    "question_replaced": "a question about another video",
}
OF_EVIDENCE = ("evidence_only", "evidence_removed", "window_only", "window_removed")
DONORS_TRIED = 50


class Answerer(Protocol):
    """What is tested: any callable with these three arguments. Two methods are used where it has them.

    `batch([(frames, question, choices), ...])` returns the scores of many questions at once, and
    `evidence(asked)`, on the same list, the frames that each answer rests on.
    """

    def __call__(self, frames: Clip, question: str, choices: list[str] | None, /) -> Any:
        """Scores, one a choice (one a word of the vocabulary where choices is None); the best is the answer."""


def stress_test(
    answer: Answerer,
    items: Any,
    *,
    evidence: Callable[[list[Asked]], Sequence[Any]] | Literal["own", "truth", "none"] | None = None,
    environment: Literal["evidence", "truth"] | None = None,
    tests: Sequence[str] | None = None,
    least_frames: int = 1,
    seed: int = 0,
    path: str | Path | None = None,
    batch_size: int = 32,
    resamples: int = 2000,
    name: str = "model",
    identity: str = "",
    progress: bool = True,
) -> dict[str, Any]:
    """Put a model, or any callable, through the stress test.

    Args:
        answer: (frames, question, choices) to scores, see `Answerer`.
        items: questions with their clips, such as a `VideoQADataset`: `question_id`, `video_id`, `question`,
            `choices` ([] for an open answer), `answer`, and `frames` (T, ...) or features by name; for
            `evidence="truth"` also `timestamps_s` (T,) and `spans` in seconds.
        evidence: where the evidence comes from: "own", `answer.evidence`; "truth", the annotated spans; "none"; or a
            callable from a list of (frames, question, choices) to frame indices or bool masks (T,). By default "own"
            where `answer` has it, else "none".
        environment: what is exchanged is outside the annotated spans ("truth", the default where all items have
            them), or outside the evidence.
        tests: names in `TESTS` besides "whole"; by default all that can be made, and the report says which not, why.
        least_frames: frames that `answer` needs; where fewer are left they are shown several times.
        seed: with the id of a question it fixes every draw.
        path: one line of JSON a question; a run that was cut off goes on from it.
        batch_size: questions at once.
        resamples: of the bootstrap by video.
        name: what is tested, for the report.
        identity: what else the answers depend on, such as a hash of the weights; a run goes on only from its own.
        progress: show a bar.

    Returns:
        The report of `stress_report.summarize`: `rows` (a test each), `effects`, `questions`, `videos`, `settings`,
        `not_applicable`, `notes`.

    Raises:
        CausalVideoError: nothing to ask, unknown answers, a test that cannot be made, scores or evidence that do not
            fit, or a path with another run.

    Example:
        >>> rows = [{"question_id": f"v{i}_0", "video_id": f"v{i}", "question": f"is {i} there", "choices": ["yes",
        ...          "no"], "answer": i % 2, "frames": torch.tensor([[0.0], [i % 2], [0.0]])} for i in range(8)]
        >>> def oracle(frames, question, choices):
        ...     return [1 - frames.max(), frames.max()]
        >>> report = stress_test(oracle, rows, evidence=lambda asked: [[1]] * len(asked), progress=False)
        >>> {row["test"]: row["accuracy"] for row in report["rows"][:2]}
        {'whole': 100.0, 'blind': 50.0}
    """
    table = _Table(items)
    made = evidence if evidence is not None else "own" if hasattr(answer, "evidence") else "none"
    if made == "own" and not hasattr(answer, "evidence"):
        raise CausalVideoError(
            "no evidence of its own",
            found=f"{type(answer).__name__} without a method `evidence`",
            expected="evidence(asked) -> frame indices of each answer",
            fix="pass evidence=a callable, evidence='truth' (annotated spans), or evidence='none'",
        )
    if "truth" in (made, environment) and not table.truth:
        raise CausalVideoError(
            "no true evidence", found="questions without spans", expected="spans in seconds for every question",
            fix="choose a data set with annotated spans, or evidence='own' or 'none'",
        )  # fmt: skip
    around = environment or ("truth" if table.truth else "evidence")
    reasons = _not_applicable(table, made, around)
    wanted = _wanted(tests, reasons)
    settings = {
        "name": name, "identity": identity, "tests": wanted, "seed": seed, "least_frames": least_frames,
        "environment": around, "evidence": made if isinstance(made, str) else "given", "questions": table.fingerprint,
    }  # fmt: skip
    run = _Run(answer, items, table, made, around, wanted, least_frames, seed)
    with Records(path, settings) as records:
        todo = [index for index, key in enumerate(table.keys) if key not in records]
        bar = tqdm(total=len(table), initial=len(table) - len(todo), desc=name, unit="question", disable=not progress)
        with bar:
            for start in range(0, len(todo), batch_size):
                rows = todo[start : start + batch_size]
                records.add(run.ask(rows))
                bar.update(len(rows))
        found = [records[key] for key in table.keys]
    return summarize(found, settings, {test: reasons[test] for test in TESTS if test in reasons}, TESTS, resamples)


class _Table:
    """The questions without their clips: what donors are drawn from."""

    def __init__(self, items: Any):
        rows = getattr(items, "questions", items)
        self.keys, self.videos, self.questions, self.choices, self.answers, spans = (
            [row.get(name, default) for row in rows] if isinstance(rows, Sequence) else list(rows[name])
            for name, default in (("question_id", None), ("video_id", None), ("question", None), ("choices", []),
                                  ("answer", -1), ("spans", []))
        )  # fmt: skip
        self.truth = all(len(one) for one in spans)
        unknown = [key for key, answer in zip(self.keys, self.answers, strict=True) if answer < 0]
        if not self.keys or unknown or len(set(self.keys)) != len(self.keys):
            raise CausalVideoError(
                "no questions to test with",
                found=f"{len(self.keys)} questions, {len(unknown)} without an answer"
                + ("" if len(set(self.keys)) == len(self.keys) else ", some ids twice"),
                expected="at least 1, every answer known, every question_id once",
                fix="use a split whose answers are public, and drop repeated rows",
            )
        stated = "\n".join(f"{key} {answer}" for key, answer in zip(self.keys, self.answers, strict=True))
        self.fingerprint = hashlib.sha256(stated.encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.keys)


def _not_applicable(table: _Table, evidence: Any, environment: str) -> dict[str, str]:
    """Tests that cannot be made on these questions, with the reason."""
    reasons: dict[str, str] = {}
    if evidence == "none":
        reasons |= dict.fromkeys(OF_EVIDENCE, "no evidence was given, and the model has none of its own")
    if environment == "evidence" and evidence == "none":
        reasons["environment_swapped"] = "neither annotated spans nor evidence say what is environment"
    if len(set(table.videos)) < 2:
        reasons["environment_swapped"] = "only one video"
    if any(len(one) < 2 for one in table.choices):
        reasons["options_permuted"] = "open-ended questions, or a single choice"
    if len(set(table.questions)) < 2 or len(set(table.videos)) < 2:
        reasons["question_replaced"] = "only one question or one video"
    return reasons


def _wanted(tests: Sequence[str] | None, reasons: Mapping[str, str]) -> list[str]:
    if tests is None:
        return [test for test in TESTS if test not in reasons]
    wrong = {test: reasons.get(test, "no such test") for test in tests if test not in TESTS or test in reasons}
    if wrong:
        raise CausalVideoError(
            "a test cannot be made", found="; ".join(f"{test}: {why}" for test, why in wrong.items()),
            expected=f"tests among {', '.join(test for test in TESTS if test not in reasons)}", fix="leave it out",
        )  # fmt: skip
    return [test for test in TESTS if test in tests or test == "whole"]


class _Run:
    """Asks the questions of a batch in every way."""

    def __init__(
        self, answer: Any, items: Any, table: _Table, evidence: Any, environment: str, tests: list[str], least: int,
        seed: int,
    ):  # fmt: skip
        self.answer, self.items, self.table, self.tests = answer, items, table, tests
        self.evidence, self.environment, self.least, self.seed = evidence, environment, least, seed

    def ask(self, rows: list[int]) -> list[dict[str, Any]]:
        """One record a question: the prediction of every test, and the frames of the evidence."""
        items = [self.items[row] for row in rows]
        asked = [self._asked(item) for item in items]
        evidence = self._evidence(items, asked, self.evidence)
        records: list[dict[str, Any]] = [
            {
                "question_id": self.table.keys[row], "video_id": str(self.table.videos[row]),
                "answer": int(self.table.answers[row]), "choices": len(self.table.choices[row]),
                "frames": length(clip), "evidence": None if kept is None else kept.tolist(), "predictions": {},
                "notes": [],
            }
            for row, (clip, _, _), kept in zip(rows, asked, evidence, strict=True)
        ]  # fmt: skip
        around = self._around(items, asked, evidence)
        for test in self.tests:
            changed, orders = [], []
            for place, row in enumerate(rows):
                draw = self._draw(row, test)
                one, order = self._change(
                    test, row, asked[place], evidence[place], around[place], draw, records[place]["notes"]
                )
                changed.append(one)
                orders.append(order)
            for record, one, order, scores in zip(records, changed, orders, self._scores(changed), strict=True):
                best = _best(scores, one[2], record["question_id"], test)
                record["predictions"][test] = best if order is None else int(order[best])
        return records

    def _change(
        self, test: str, row: int, asked: Asked, evidence: np.ndarray | None, around: np.ndarray | None,
        draw: np.random.Generator, notes: list[str],
    ) -> tuple[Asked, np.ndarray | None]:  # fmt: skip
        """The question as a test asks it and, where choices change places, which choice stands where."""
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
            assert evidence is not None
            chosen = evidence
            if test.startswith("window"):  # the same window for both of its tests
                chosen = random_window(self._draw(row, "window"), total, len(evidence))
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
        """Another video of the same kind, and its frames outside the evidence (all where the evidence is all)."""
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
            found=f"{DONORS_TRIED} others of other sizes", expected="videos whose frames have the same shape",
            fix="resize the frames alike, or leave out environment_swapped",
        )  # fmt: skip

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
        """The frames whose complement is the environment."""
        if "environment_swapped" not in self.tests:
            return [None] * len(items)
        if self.environment == "evidence" and evidence is not None:
            return evidence
        return self._evidence(items, asked, "truth" if self.environment == "truth" else self.evidence)

    def _evidence(self, items: list, asked: list[Asked], source: Any) -> list[np.ndarray | None]:
        """Sorted frame indices of each question's evidence."""
        if source == "none":
            return [None] * len(items)
        if source == "truth":
            found: Sequence[Any] = [_true_frames(item) for item in items]
        else:
            found = self.answer.evidence(asked) if source == "own" else source(asked)
        return [
            _frame_indices(one, length(clip), item["question_id"])
            for one, (clip, _, _), item in zip(found, asked, items, strict=True)
        ]

    def _scores(self, asked: list[Asked]) -> Sequence[Any]:
        batch = getattr(self.answer, "batch", None)
        scores = batch(asked) if batch is not None else [self.answer(*one) for one in asked]
        if len(scores) != len(asked):
            raise CausalVideoError(
                "answers and questions do not fit", found=f"{len(scores)} answers", expected=len(asked),
                fix="let batch() return the scores of every question",
            )  # fmt: skip
        return scores


def _true_frames(item: Mapping[str, Any]) -> torch.Tensor:
    if item.get("timestamps_s") is None:
        raise CausalVideoError(
            f"no times for the frames of {item['question_id']}", found="no timestamps_s", expected="seconds, (T,)",
            fix="give the frames their times, or do not ask for the true evidence",
        )  # fmt: skip
    return frames_in_spans(torch.as_tensor(item["timestamps_s"]), item["spans"])


def _frame_indices(found: Any, total: int, key: str) -> np.ndarray:
    """Evidence as sorted indices, each once."""
    given = found.detach().cpu().numpy() if isinstance(found, torch.Tensor) else np.asarray(found)
    if given.dtype == bool and given.shape == (total,):
        return np.flatnonzero(given)
    indices = np.unique(given) if given.size else np.zeros(0, dtype=np.int64)
    if given.ndim != 1 or not np.issubdtype(indices.dtype, np.integer) or ((indices < 0) | (indices >= total)).any():
        raise CausalVideoError(
            f"the evidence of {key} is no choice of frames", found=f"{given.dtype} {given.shape}: {given[:8]}",
            expected=f"frame indices from 0 to {total - 1}, or a bool mask ({total},)",
            fix="return zero-based indices into the frames that were given",
        )  # fmt: skip
    return indices


def _best(scores: Any, choices: list[str] | None, key: str, test: str) -> int:
    given = scores.detach().float().cpu().numpy() if isinstance(scores, torch.Tensor) else np.asarray(scores, float)
    fits = given.ndim == 1 and len(given) and (choices is None or len(given) == len(choices))
    if not fits or not np.isfinite(given).all():
        raise CausalVideoError(
            f"no answer to {key} ({test})", found=f"scores {given.shape} {given.reshape(-1)[:5]}",
            expected="finite scores, one a choice" if choices is None else f"{len(choices)} finite scores",
            fix="return one number a choice; NaN comes from NaN features or an overflow in half precision",
        )  # fmt: skip
    return int(given.argmax())
