"""Test whether answers depend on the video, and on the very frames that the model points at.

Why: a model can be right for reasons that have nothing to do with the clip. Each question is asked again on clips that
lack something, and what should have mattered is compared with what did. One figure sums it up, the *evidence effect*:
accuracy on the evidence alone (sufficiency) minus accuracy with the evidence removed (necessity), next to the same for
a random window of as many frames. What is removed is the event that the evidence shows, by the rule of `ablation.py`.
Sufficiency and necessity: thesis, section 1.2.

Works for any callable `(frames or features, question, choices) -> scores`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from tqdm.auto import tqdm

from hf_causal_video.stress.conditions import (
    OF_EVIDENCE,
    TESTS,
    Answerer,
    EvidenceSource,
    Items,
    QuestionTable,
    StressRunner,
)
from hf_causal_video.stress.records import Records, Settings
from hf_causal_video.stress.report import Report, summarize
from hf_causal_video.utils.checks import check_whole
from hf_causal_video.utils.errors import require


def stress_test(
    answer: Answerer,
    items: Items,
    *,
    evidence: EvidenceSource | None = None,
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
) -> Report:
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
        path: file with one line of JSON per question; a run that was cut off goes on from it.
        batch_size: questions at once.
        resamples: of the bootstrap by video.
        name: what is tested, for the report.
        identity: what else the answers depend on, such as a hash of the weights; a run goes on only from its own.
        progress: show a bar.

    Returns:
        The report of `summarize`: `rows` (one per test), `effects`, `questions`, `videos`, `settings`,
        `not_applicable`, `notes`.

    Raises:
        CausalVideoError: no questions, unknown answers, an impossible test, scores or evidence that do not fit, counts
            below 1, or a path with another run.

    Example:
        >>> import torch
        >>> rows = [{"question_id": f"v{i}_0", "video_id": f"v{i}", "question": f"is {i} there", "choices": ["yes",
        ...          "no"], "answer": i % 2, "frames": torch.tensor([[0.0], [i % 2], [0.0]])} for i in range(8)]
        >>> def oracle(frames, question, choices):
        ...     return [1 - frames.max(), frames.max()]
        >>> report = stress_test(oracle, rows, evidence=lambda asked: [[1]] * len(asked), progress=False)
        >>> {row["test"]: row["accuracy"] for row in report["rows"][:2]}
        {'whole': 100.0, 'blind': 50.0}
    """
    check_whole("--batch-size (batch_size)", batch_size)
    check_whole("--least-frames (least_frames)", least_frames)
    check_whole("--resamples (resamples)", resamples)
    check_whole("--seed (seed)", seed, 0)
    table = QuestionTable(items)
    by_default: EvidenceSource = "own" if hasattr(answer, "evidence") else "none"
    source = by_default if evidence is None else evidence
    require(
        source != "own" or hasattr(answer, "evidence"),
        "no evidence of its own",
        found=f"{type(answer).__name__} without a method `evidence`",
        expected="evidence(asked) -> frame indices of each answer",
        fix="pass evidence=a callable, evidence='truth' (--evidence truth: annotated spans), or evidence='none'",
    )
    require(
        "truth" not in (source, environment) or table.truth,
        "no true evidence",
        found="questions without spans",
        expected="spans in seconds for every question",
        fix="choose a data set with annotated spans, or --evidence own or none (evidence='own', 'none')",
    )
    around = environment or ("truth" if table.truth else "evidence")
    reasons = _not_applicable(table, source, around)
    chosen = _chosen_tests(tests, reasons)
    settings: Settings = {
        "name": name,
        "identity": identity,
        "tests": chosen,
        "seed": seed,
        "least_frames": least_frames,
        "environment": around,
        "evidence": source if isinstance(source, str) else "callable",
        "removed": "event",
        "questions": table.fingerprint,
    }
    run = StressRunner(answer, items, table, source, around, chosen, least_frames, seed)
    with Records(path, settings) as records:
        order: dict[str, int] = {}  # of the videos: their questions are asked together, and each is encoded once
        for video in table.videos:
            order.setdefault(str(video), len(order))
        todo = [index for index, key in enumerate(table.keys) if key not in records]
        todo.sort(key=lambda index: order[str(table.videos[index])])
        bar = tqdm(total=len(table), initial=len(table) - len(todo), desc=name, unit="question", disable=not progress)
        with bar:
            for start in range(0, len(todo), batch_size):
                rows = todo[start : start + batch_size]
                records.add(run.ask(rows))
                bar.update(len(rows))
        complete = [records[key] for key in table.keys]
    return summarize(complete, settings, {test: reasons[test] for test in TESTS if test in reasons}, TESTS, resamples)


def _not_applicable(table: QuestionTable, evidence: EvidenceSource, environment: str) -> dict[str, str]:
    """Return the tests that are impossible on these questions, with the reason."""
    reasons: dict[str, str] = {}
    if evidence == "none":
        reasons |= dict.fromkeys(OF_EVIDENCE, "no evidence was passed, and the model has none of its own")
    if environment == "evidence" and evidence == "none":
        reasons["environment_swapped"] = "neither annotated spans nor evidence say what is environment"
    if len(set(table.videos)) < 2:
        reasons["environment_swapped"] = "only one video"
    if any(len(one) < 2 for one in table.choices):
        reasons["options_permuted"] = "open-ended questions, or a single choice"
    if len(set(table.questions)) < 2 or len(set(table.videos)) < 2:
        reasons["question_replaced"] = "only one question or one video"
    return reasons


def _chosen_tests(tests: Sequence[str] | None, reasons: Mapping[str, str]) -> list[str]:
    if tests is None:
        return [test for test in TESTS if test not in reasons]
    wrong = {test: reasons.get(test, "no such test") for test in tests if test not in TESTS or test in reasons}
    require(
        not wrong,
        "impossible test",
        found="; ".join(f"{test}: {why}" for test, why in wrong.items()),
        expected=f"tests among {', '.join(test for test in TESTS if test not in reasons)}",
        fix="leave it out",
    )
    return [test for test in TESTS if test in tests or test == "whole"]
