"""Evaluators against plain loops on random input, and on damaged input: no wrong number, no bare error."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hf_causal_video.evaluation import (
    causalvidqa_accuracy,
    intersect_predictions,
    multiple_choice_accuracy,
    nextgqa_metrics,
    nextqa_accuracy,
    open_ended_accuracy,
    span_overlap,
    vidvrd_metrics,
)
from hf_causal_video.evaluation.causalvidqa import TYPES
from hf_causal_video.evaluation.nextqa import FINE_TYPES
from hf_causal_video.evaluation.relations.metrics import METRICS
from hf_causal_video.evaluation.relations.pairs import pair_metrics
from tests.fuzzing import mutated, refused

WORDS = ["dog", "cat", "to run"]
KINDS = st.sampled_from([*FINE_TYPES, "TP"])
rows_of_choices = st.lists(st.tuples(KINDS, st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=8)


def numbers(table, bound: float = 100.0) -> None:
    """Every number of a table is a share, and every count adds up."""
    for name, value in table.items():
        if name == "counts":
            continue
        assert value is None or 0 <= value <= bound * (1 + 1e-12), (name, value)


def scored(rows):
    """Share of right rows in percent."""
    return 100 * sum(int(row["answer"]) == int(row["prediction"]) for row in rows) / len(rows)


def split_rows(drawn):
    rows = [
        {"question_id": f"v{n}_0", "question_type": kind, "answer": answer, "prediction": given}
        for n, (kind, answer, given) in enumerate(drawn)
    ]
    gold = [{name: value for name, value in row.items() if name != "prediction"} for row in rows]
    return rows, gold, [{name: row[name] for name in ("question_id", "prediction")} for row in rows]


@given(rows_of_choices, st.randoms(use_true_random=False))
def test_multiple_choice_is_a_count_whatever_the_order_and_layout(drawn, random):
    rows, gold, given_rows = split_rows(drawn)
    table = nextqa_accuracy(given_rows, gold)
    assert math.isclose(table["Acc"], scored(rows))
    for group, name in (("C", "Acc_C"), ("T", "Acc_T"), ("D", "Acc_D")):
        mine = [row for row in rows if row["question_type"][0] == group]
        assert table[name] is None if not mine else math.isclose(table[name], scored(mine))
    general = multiple_choice_accuracy(given_rows, gold)
    assert math.isclose(general["Acc"], table["Acc"])
    shuffled = random.sample(given_rows, len(given_rows)), random.sample(gold, len(gold))
    assert nextqa_accuracy(*shuffled) == table
    assert nextqa_accuracy({row["question_id"]: row["prediction"] for row in given_rows}, gold) == table
    truth = {row["question_id"]: row["answer"] for row in gold}
    perfect = nextqa_accuracy(truth, gold)
    assert {value for name, value in perfect.items() if name != "counts"} <= {100.0, None}
    assert multiple_choice_accuracy(truth, gold)["Acc"] == 100.0


@given(st.data())
def test_multiple_choice_of_anything_is_the_same_count_or_refused(data):
    _, gold, given_rows = split_rows([("CW", 1, 1), ("TP", 0, 4), ("DO", 3, 2)])
    if data.draw(st.booleans()):
        given_rows = {row["question_id"]: row["prediction"] for row in given_rows}
    gold, given_rows = data.draw(mutated(gold)), data.draw(mutated(given_rows))
    for measure in (nextqa_accuracy, multiple_choice_accuracy):
        no, table = refused(measure, given_rows, gold)
        if no:
            continue
        numbers(table)
        by_key = {str(row["question_id"]): row for row in gold}
        if isinstance(given_rows, dict):
            said = {key: one["prediction"] if isinstance(one, dict) else one for key, one in given_rows.items()}
        else:
            said = {str(row["question_id"]): row["prediction"] for row in given_rows}
        rows = [{"answer": row["answer"], "prediction": said[key]} for key, row in by_key.items()]
        assert math.isclose(table["Acc"], scored(rows))
        assert table["counts"]["all"]["total"] == len(gold)


@given(st.data(), st.lists(st.lists(st.integers(0, 4), min_size=12, max_size=12), min_size=1, max_size=3))
def test_causal_vidqa_counts_a_guess_only_with_its_reason(data, drawn):
    gold, given_rows, right = [], {}, []
    for number, answers in enumerate(drawn):
        right.append({})
        for place, kind in enumerate(TYPES):
            gold.append({"video_id": f"v{number}", "type": kind, "answer": answers[place]})
            given_rows[f"v{number}_{kind}"] = answers[6 + place]
            right[-1][kind] = answers[place] == answers[6 + place]
    table = causalvidqa_accuracy(given_rows, gold)
    pairs = [(one["p"] and one["pr"]) + (one["c"] and one["cr"]) for one in right]
    hits = sum(one["d"] + one["e"] for one in right) + sum(pairs)
    assert math.isclose(table["All"], 100 * hits / (4 * len(right)))
    assert table["par"] <= min(table["p"], table["pr"]) and table["car"] <= min(table["c"], table["cr"])
    no, table = refused(causalvidqa_accuracy, data.draw(mutated(given_rows)), data.draw(mutated(gold)))
    if not no:
        numbers(table)


worded = st.tuples(st.sampled_from(["what", "who", "is"]), st.integers(0, 3), st.integers(0, 3))


@given(st.data(), st.lists(worded, min_size=1))
def test_open_ended_answers_are_counted_and_what_the_vocabulary_lacks_is_wrong(data, drawn):
    texts = [*WORDS, "aardvark"]
    gold = [{"question_id": str(n), "question": f"{first} x", "answer": texts[a]}
            for n, (first, a, _) in enumerate(drawn)]  # fmt: skip
    given_rows = [{"question_id": str(n), "prediction": p} for n, (_, _, p) in enumerate(drawn)]
    table = open_ended_accuracy(given_rows, gold, vocabulary=WORDS)
    assert math.isclose(table["Acc"], 100 * sum(a == p and a < 3 for _, a, p in drawn) / len(drawn))
    no, table = refused(
        open_ended_accuracy, data.draw(mutated(given_rows)), data.draw(mutated(gold)),
        vocabulary=data.draw(st.none() | mutated(WORDS)),
    )  # fmt: skip
    if not no:
        numbers(table)


seconds = st.integers(0, 20).map(lambda n: n / 2)
spans = st.tuples(seconds, seconds).map(sorted)
questions = st.lists(st.tuples(st.lists(spans, min_size=1, max_size=3), spans, st.booleans()), min_size=1, max_size=5)


def naive_overlap(true, said):
    inner = min(true[1], said[1]) - max(true[0], said[0])
    union, length = max(true[1], said[1]) - min(true[0], said[0]), said[1] - said[0]
    if length == 0:
        return 0.0, float(inner >= 0)
    return max(0.0, inner / union), max(0.0, inner / length)


@given(questions)
def test_grounding_metrics_are_those_of_a_loop(drawn):
    gold = {"v": {"duration": 10, "location": {str(n): list(true) for n, (true, _, _) in enumerate(drawn)}}}
    given_rows = {
        f"v_{n}": {"span": said, "prediction": 1, "answer": int(right)} for n, (_, said, right) in enumerate(drawn)
    }
    best = [[max(naive_overlap(true, said)[which] for true in every) for every, said, _ in drawn] for which in (0, 1)]
    table = nextgqa_metrics(given_rows, gold)
    assert math.isclose(table["mIoU"], 100 * np.mean(best[0]), abs_tol=1e-9)
    assert math.isclose(table["mIoP"], 100 * np.mean(best[1]), abs_tol=1e-9)
    assert math.isclose(
        table["Acc@GQA"], 100 * np.mean([right and p >= 0.5 for (*_, right), p in zip(drawn, best[1], strict=True)])
    )
    assert table["Acc@GQA"] <= table["Acc@QA"] and table["Acc@GQA"] <= table["IoP@0.5"] <= table["IoP@0.3"]
    assert nextgqa_metrics(dict(reversed(given_rows.items())), gold) == table
    whole = nextgqa_metrics({f"v_{n}": true[0] for n, (true, _, _) in enumerate(drawn) if true[0][0] < true[0][1]} or
                            {"v_0": drawn[0][0][0]}, gold)  # fmt: skip
    assert whole["mIoP"] == 100.0
    fractions = {f"v_{n}": [t / 10 for t in said] for n, (_, said, _) in enumerate(drawn)}
    assert math.isclose(nextgqa_metrics(fractions, gold, unit="fraction")["mIoU"], table["mIoU"], abs_tol=1e-9)
    both = intersect_predictions(fractions, {key: row["span"] for key, row in given_rows.items()}, gold)
    assert np.allclose([both[key] for key in given_rows], [row["span"] for row in given_rows.values()])


@given(st.data())
def test_grounding_of_anything_is_a_share_or_refused(data):
    gold = {"v": {"duration": 10, "location": {"0": [[1.0, 3.0]], "1": [[2, 4], [5, 6]]}}}
    rows = [{"question_id": "v_0", "spans": [[1.0, 3.0]], "duration_s": 9.0, "answer": 1},
            {"question_id": "v_1", "spans": [[2, 4], [5, 6]], "duration_s": 9.0, "answer": 0}]  # fmt: skip
    said = {"v_0": {"span": [0.1, 0.4], "prediction": 1, "answer": 1}, "v_1": {"span": [0.2, 0.3], "prediction": 0}}
    plain = {"v_0": [0.1, 0.4], "v_1": {"start_s": 0.5, "end_s": 0.75}}
    answers = {"v_0": {"prediction": 1, "answer": 1}, "v_1": 2}
    annotations = data.draw(mutated(gold) | mutated(rows))
    options = {"unit": data.draw(st.sampled_from(["seconds", "fraction", "x"])),
               "missing": data.draw(st.sampled_from(["skip", "error"])),
               "subset": data.draw(st.none() | mutated(["v_0", "v_1"])),
               "answers": data.draw(st.none() | mutated(answers))}  # fmt: skip
    no, table = refused(nextgqa_metrics, data.draw(mutated(said) | mutated(plain)), annotations, **options)
    if not no:
        numbers(table)
    no, spans = refused(intersect_predictions, data.draw(mutated(plain)), data.draw(mutated(plain)), annotations)
    if not no:
        assert all(math.isfinite(s) and s <= e for s, e in spans.values())


@given(st.lists(st.tuples(spans, spans), min_size=1))
def test_overlap_of_intervals_pair_by_pair(drawn):
    iou, iop = span_overlap([true for true, _ in drawn], [said for _, said in drawn])
    naive = np.array([naive_overlap(true, said) for true, said in drawn])
    assert np.allclose(iou.clip(min=0), naive[:, 0]) and np.allclose(iop.clip(min=0), naive[:, 1])


boxes = st.tuples(st.integers(0, 8), st.integers(0, 8), st.integers(0, 8), st.integers(0, 8)).map(
    lambda b: [min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3])]
)


@st.composite
def relations(draw, scored: bool):
    start = draw(st.integers(0, 3))
    length = draw(st.integers(1, 3))
    row = {
        "triplet": [draw(st.sampled_from("ab")), draw(st.sampled_from(["on", "by"])), "c"],
        "duration": [start, start + length],
        "sub_traj": [draw(boxes)] * length,
        "obj_traj": [draw(boxes)] * length,
    }
    return row | {"score": draw(st.integers(0, 3)) / 4} if scored else row


sides = st.tuples(st.lists(relations(False), max_size=4), st.lists(relations(True), max_size=5))
videos = st.lists(sides, min_size=1, max_size=2).filter(lambda drawn: any(gold for gold, _ in drawn))


def naive_viou(one, two, side):
    def area(box):
        return (box[2] - box[0] + 1) * (box[3] - box[1] + 1)

    frames = [dict(zip(range(*row["duration"]), row[side], strict=True)) for row in (one, two)]
    shared = 0
    for frame in frames[0].keys() & frames[1].keys():
        a, b = frames[0][frame], frames[1][frame]
        wide, high = min(a[2], b[2]) - max(a[0], b[0]) + 1, min(a[3], b[3]) - max(a[1], b[1]) + 1
        shared += max(wide, 0) * max(high, 0)
    return shared / (sum(area(box) for each in frames for box in each.values()) - shared)


def naive_detection(drawn):
    """mean AP, and the recall among the best n of each video, over all annotated relations."""
    precisions, found, total = [], {1: 0, 50: 0}, 0
    for gold, said in drawn:
        if not gold:
            continue
        free, hits = set(range(len(gold))), []
        for row in sorted(said, key=lambda row: -row["score"]):
            overlaps = {
                n: min(naive_viou(row, gold[n], side) for side in ("sub_traj", "obj_traj"))
                for n in sorted(free) if gold[n]["triplet"] == row["triplet"]
            }  # fmt: skip
            best = max(overlaps, key=overlaps.get, default=None)
            hit = best is not None and overlaps[best] >= 0.5
            hits.append(hit)
            free -= {best} if hit else set()
        total += len(gold)
        found[50] += sum(hits[:50])
        curve = [sum(hits[: n + 1]) / (n + 1) for n in range(len(hits))]
        precisions.append(sum(max(curve[n:]) for n in range(len(hits)) if hits[n]) / len(gold))
    return sum(precisions) / len(precisions), found[50] / total


@given(videos)
def test_relation_metrics_are_those_of_a_loop(drawn):
    gold = {str(n): rows for n, (rows, _) in enumerate(drawn)}
    said = {str(n): rows for n, (_, rows) in enumerate(drawn)}
    table = vidvrd_metrics(said, gold)
    expected = naive_detection(drawn)
    assert math.isclose(table["mAP"], expected[0], abs_tol=1e-12)
    assert math.isclose(table["R@50"], expected[1], abs_tol=1e-12)
    assert all(0 <= table[name] <= 1 for name in METRICS)
    perfect = vidvrd_metrics({key: [row | {"score": 1.0} for row in rows] for key, rows in gold.items()}, gold)
    # of two annotations of one relation the first prediction may take the other's place, so recall alone is sure
    assert perfect["R@50"] == 1.0 and perfect["mAP"] == 1.0
    worse = {key: [*rows, relation_of_nothing(rows)] for key, rows in said.items()}
    assert {name: vidvrd_metrics(worse, gold)[name] for name in ("mAP", "R@50", "R@100", "mR@50")} == {
        name: table[name] for name in ("mAP", "R@50", "R@100", "mR@50")
    }


def relation_of_nothing(rows):
    """A wrong prediction that scores lowest: it may lower precision, and can raise nothing."""
    low = min((row["score"] for row in rows), default=0.0) - 1.0
    return {"triplet": ["x", "y", "z"], "duration": [0, 1], "sub_traj": [[0, 0, 1, 1]], "obj_traj": [[0, 0, 1, 1]],
            "score": low}  # fmt: skip


@given(st.data())
def test_relations_of_anything_are_shares_or_refused(data):
    row = {"triplet": ["a", "on", "c"], "duration": [1, 3]}
    row |= {"sub_traj": [[0, 0, 1, 1]] * 2, "obj_traj": [[2, 0, 4, 1]] * 2}
    gold, said = {"v": [row, row | {"duration": [4, 6]}], "w": []}, {"v": [row | {"score": 0.5}], "w": []}
    no, table = refused(
        vidvrd_metrics,
        data.draw(mutated(said) | mutated({"results": said})),
        data.draw(mutated(gold)),
        data.draw(st.sampled_from([0.5, 1.0, 0.0, math.nan, 2])),
        inclusive=data.draw(st.booleans()),
        training_triplets=data.draw(st.none() | mutated([["a", "on", "c"], ["b", "on", "c"]])),
        training_counts=data.draw(st.none() | mutated({"on": 3, "by": 1})),
        unknown_videos=data.draw(st.sampled_from(["ignore", "error", "x"])),
    )
    if not no:
        for part in (table, table.get("zero_shot", {}), table.get("generalized_zero_shot", {})):
            assert all(part[name] is None or 0 <= part[name] <= 1 for name in METRICS if name in part)


def naive_average_precision(scores, truth):
    total, before = 0.0, 0.0
    for bound in sorted(set(scores), reverse=True):
        taken = [t for s, t in zip(scores, truth, strict=True) if s >= bound]
        recall = sum(taken) / sum(truth)
        total, before = total + (recall - before) * sum(taken) / len(taken), recall
    return total


@given(st.integers(1, 5).flatmap(lambda width: st.lists(
    st.tuples(st.lists(st.integers(-2, 2), min_size=width, max_size=width),
              st.lists(st.integers(0, 1), min_size=width, max_size=width)), min_size=1, max_size=6)
).filter(lambda rows: any(any(truth) for _, truth in rows)))  # fmt: skip
def test_pair_metrics_are_those_of_a_loop(rows):
    scores, truth = (np.array([row[side] for row in rows]) for side in (0, 1))
    table = pair_metrics(scores, truth, {"first": [0], "none": slice(0, 0)})
    present = [p for p in range(truth.shape[1]) if truth[:, p].any()]
    naive = [naive_average_precision(scores[:, p].tolist(), truth[:, p].tolist()) for p in present]
    assert math.isclose(table["mAP"], 100 * np.mean(naive))
    numbers({name: value for name, value in table.items() if name != "pairs"})
    order = np.random.default_rng(len(rows)).permutation(len(rows))
    assert math.isclose(pair_metrics(scores[order], truth[order])["mAP"], table["mAP"])
    assert math.isclose(pair_metrics(3.0 * scores + 7, truth)["mAP"], table["mAP"])
    perfect = pair_metrics(truth + 0.0, truth, best=truth.shape[1])
    assert perfect["mAP"] == 100.0 and perfect[f"mR@{truth.shape[1]}"] == 100.0
    single = truth.argmax(1)
    assert pair_metrics(np.eye(truth.shape[1])[single], single)["accuracy"] == 100.0


@given(st.data())
def test_pair_metrics_of_anything_are_shares_or_refused(data):
    scores = data.draw(mutated([[0.5, 0.25], [0.0, 1.0], [2.0, -1.0]]))
    labels = data.draw(mutated([0, 1, 1]) | mutated([[0, 1], [1, 1], [0, 0]]))
    parts = data.draw(st.sampled_from([None, {"tail": slice(1, 9)}, {"tail": [0, 7]}, {"tail": [-1]}]))
    no, table = refused(pair_metrics, scores, labels, parts, data.draw(st.sampled_from([4, 1, 0, -1, 2.5])))
    if not no:
        numbers({name: value for name, value in table.items() if name != "pairs"})
