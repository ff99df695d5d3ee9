"""NExT-GQA: does the model answer rightly *because* it looked at the right moment?

Why: a right answer from the wrong seconds is a guess. Acc@GQA counts an answer only when the predicted span
lies, for at least half of its length, inside an annotated one; IoP and IoU say how well the span alone fits.

Source: Xiao et al. 2024, NExT-GQA (arXiv 2309.01327), temporal grounding metrics. As in the published
evaluation, a question takes the best IoP and the best IoU over its annotated spans independently, and a
question without a predicted span leaves the denominator; the result says how many did.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np

from hf_causal_video.evaluation.inputs import Metrics, Row, Rows, by_key, check_keys, whole_number
from hf_causal_video.evaluation.spans import Annotated, read_grounding, read_span, span_overlap
from hf_causal_video.utils.checks import check_choice
from hf_causal_video.utils.errors import require

THRESHOLDS = (0.3, 0.5)


def nextgqa_metrics(
    predictions: Rows,
    annotations: Rows,
    *,
    answers: Rows | None = None,
    unit: Literal["seconds", "fraction"] = "seconds",
    subset: Iterable[str] | None = None,
    missing: Literal["skip", "error"] = "skip",
) -> Metrics:
    """Grounded accuracy and temporal grounding metrics of NExT-GQA, in percent.

    Args:
        predictions: one span a question: `{key: [start, end]}`, `{key: {"span": [start, end]}}`, or rows with
            `question_id` and `span` (or `start_s` and `end_s`); the predicted answer may be in the same row as
            `prediction`, the true one as `answer`. A key is `<video>_<qid>`.
        annotations: the published file, `{video: {"duration", "location": {qid: [[start_s, end_s], ...]}}}`,
            or question rows (`question_id`, `spans`, `duration_s`, `answer`); rows without spans are not
            scored.
        answers: `{key: {"prediction": int, "answer": int}}`, `{key: int}` or rows, where the predicted
            answers are not in the rows of the spans. Questions that are not scored may be in it.
        unit: "seconds", or "fraction" of the video's duration, which is rounded to 0.1 s before scoring, as
            published.
        subset: keys to score; all by default.
        missing: "skip" leaves questions without a predicted span out, as the published evaluation does;
            "error" refuses.

    Returns:
        `Acc@GQA` (0.0 without answers), `mIoP`, `IoP@0.3`, `IoP@0.5`, `mIoU`, `IoU@0.3`, `IoU@0.5`, `Acc@QA`
        (only with answers), and `counts`: questions `scored`, and `missing` a predicted span.

    Raises:
        CausalVideoError: unknown or repeated keys, spans that are not intervals, fractions outside [0, 1], an
            answer that is missing or disagrees with the annotation, or nothing to score.

    Source: Xiao et al. 2024, NExT-GQA.

    Example:
        >>> gold = {"v": {"duration": 20, "location": {"0": [[2.0, 6.0]], "1": [[8.0, 9.0], [12.0, 16.0]]}}}
        >>> spans = {"v_0": {"span": [4.0, 6.0], "prediction": 1, "answer": 1}, "v_1": {"span": [15, 19],
        ...          "prediction": 2, "answer": 2}}
        >>> result = nextgqa_metrics(spans, gold)
        >>> result["Acc@GQA"], result["mIoP"], result["IoU@0.5"], result["Acc@QA"]
        (50.0, 62.5, 50.0, 100.0)
    """
    check_choice("unit", unit, ("seconds", "fraction"))
    check_choice("missing", missing, ("skip", "error"))
    gold = read_grounding(annotations)
    predicted = by_key(predictions, "span")
    check_keys(predicted, gold, "predicted spans", allow_missing=missing == "skip")
    chosen = _chosen(gold, subset)
    scored = [key for key in gold if key in predicted and key in chosen]
    problem = f"{len(predicted)} spans, {len(chosen)} keys in the subset"
    require(scored, "no question to score", found=problem, expected="at least one key in both", fix="pass one split")

    spans = np.array([read_span(key, predicted[key]) for key in scored], dtype=np.float64)  # (questions, 2)
    if unit == "fraction":
        spans = _seconds(spans, scored, gold)
    iou, iop = _best_overlap(spans, [gold[key].spans for key in scored])
    right = _right(scored, predicted if answers is None else by_key(answers, "prediction"), gold, answers is not None)

    result: Metrics = {"Acc@GQA": 0.0 if right is None else float(100 * np.mean(right & (iop >= 0.5)))}
    for name, values in (("IoP", iop), ("IoU", iou)):
        result[f"m{name}"] = float(100 * values.mean())
        result.update({f"{name}@{bound}": float(100 * np.mean(values >= bound)) for bound in THRESHOLDS})
    if right is not None:
        result["Acc@QA"] = float(100 * right.mean())
    return result | {"counts": {"scored": len(scored), "missing": len(chosen) - len(scored)}}


def intersect_predictions(
    fractions: Mapping[str, object], seconds: Mapping[str, object], annotations: Rows
) -> dict[str, list[float]]:
    """Two predicted spans a question as one: their intersection, or the span in seconds if they are disjoint.

    Args:
        fractions: `{key: [start, end]}` as fractions of the duration (a span that the model regresses).
        seconds: `{key: [start_s, end_s]}` (a span read from its attention); the same keys.
        annotations: as in `nextgqa_metrics`; gives the durations.

    Returns:
        `{key: [start_s, end_s]}`, ready for `nextgqa_metrics`.

    Source: the combined setting of Xiao et al. 2024.

    Example:
        >>> gold = {"v": {"duration": 10, "location": {"0": [[2, 6]]}}}
        >>> intersect_predictions({"v_0": [0.1, 0.5]}, {"v_0": [3.0, 9.0]}, gold)
        {'v_0': [3.0, 5.0]}
    """
    gold = read_grounding(annotations)
    one = by_key(fractions, "span")
    two = by_key(seconds, "span")
    check_keys(one, gold, "predicted spans", allow_missing=True)
    check_keys(two, one, "spans in seconds")
    keys = list(one)
    first = _seconds(np.array([read_span(key, one[key]) for key in keys], dtype=np.float64), keys, gold)
    second = np.array([read_span(key, two[key]) for key in keys], dtype=np.float64)
    start = np.maximum(first[:, 0], second[:, 0])
    end = np.minimum(first[:, 1], second[:, 1])
    merged = np.where((start <= end)[:, None], np.stack([start, end], axis=1), second)  # (questions, 2)
    return dict(zip(keys, merged.tolist(), strict=True))


def _chosen(gold: Mapping[str, Annotated], subset: Iterable[str] | None) -> set[str]:
    if subset is None:
        return set(gold)
    are_keys = isinstance(subset, Iterable) and not isinstance(subset, str)
    require(are_keys, "subset", found=lambda: repr(subset)[:80], expected="a list of keys <video>_<qid>")
    chosen = {str(key) for key in subset}
    check_keys(sorted(chosen), gold, "keys of the subset", allow_missing=True)
    return chosen


def _seconds(fractions: np.ndarray, keys: list[str], gold: Mapping[str, Annotated]) -> np.ndarray:
    outside = (fractions < 0).any(axis=1) | (fractions > 1).any(axis=1)
    worst = int(outside.argmax()) if outside.any() else 0
    problem = f"{fractions[worst].tolist()} for {keys[worst]}" if keys else ""
    fix = "pass unit='seconds', or divide by the duration and clip"
    require(not outside.any(), "a span is not a fraction of its video", found=problem, expected="[0, 1]", fix=fix)
    durations = np.array([gold[key].duration_s for key in keys], dtype=np.float64)
    unknown = [key for key, duration in zip(keys, durations, strict=True) if not duration > 0]
    problem = f"no duration for {unknown[:1]}"
    fix = "give duration_s in the annotations, or spans in seconds"
    require(not unknown, "fractions of a video of unknown length", found=problem, expected="seconds for each", fix=fix)
    return np.round(fractions * durations[:, None], 1)


def _best_overlap(spans: np.ndarray, annotated: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Best IoU and best IoP of each span over its own annotated spans, never below 0; both (questions,)."""
    sizes = np.array([len(each) for each in annotated])
    owner = np.repeat(np.arange(len(spans)), sizes)  # (all annotated spans,)
    iou, iop = span_overlap(np.concatenate(annotated), spans[owner])
    best = np.zeros((2, len(spans)))
    np.maximum.at(best[0], owner, iou)
    np.maximum.at(best[1], owner, iop)
    return best[0], best[1]


def _right(
    keys: list[str], rows: Mapping[str, Row], gold: Mapping[str, Annotated], required: bool
) -> np.ndarray | None:
    """Tell whether each question is answered rightly, (questions,); None where no answers were predicted at all."""
    if not required and not any(rows[key].get("prediction") is not None for key in keys):
        return None
    lacking = [key for key in keys if rows.get(key, {}).get("prediction") is None]
    problem = f"{len(lacking)} without, first {lacking[:3]}"
    fix = "predict them, or pass no answers at all"
    require(not lacking, "missing answers to grounded questions", found=problem, expected=f"all {len(keys)}", fix=fix)
    right = np.zeros(len(keys), dtype=bool)
    for position, key in enumerate(keys):
        stored = rows[key].get("answer")
        annotated = gold[key].answer
        truth = annotated if stored is None else whole_number(stored, key, "answer")
        is_known = truth is not None and annotated in (None, truth)
        what = f"the true answer of {key} is unknown or contradicted"
        problem = f"{stored} with the prediction, {annotated} in the annotations"
        fix = "give `answer` in the annotations or with each prediction"
        require(is_known, what, found=problem, expected="one true answer", fix=fix)
        right[position] = whole_number(rows[key]["prediction"], key, "prediction") == truth
    return right
