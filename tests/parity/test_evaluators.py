"""Every evaluator equals the published one on every fixture of its kind, and an altered fixture is noticed."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hf_causal_video.evaluation import (
    causalvidqa_accuracy,
    intersect_predictions,
    nextgqa_metrics,
    nextqa_accuracy,
    span_overlap,
)
from tests.parity.fixtures import all_fixtures, evaluator_kind, read_fixture

pytestmark = pytest.mark.parity

RELATIVE = 1e-9


def compare_nextqa(spec: dict[str, Any]) -> None:
    """The printed table and the counts of NExT-QA."""
    result = nextqa_accuracy(spec["predictions"], spec["rows"])
    printed = {name: f"{value:.2f}" for name, value in result.items() if isinstance(value, float)}
    assert printed == spec["expected_printed_two_decimals"]
    if spec.get("counts"):
        assert result["counts"] == spec["counts"]


def compare_causalvidqa(spec: dict[str, Any]) -> None:
    """The printed table of Causal-VidQA."""
    result = causalvidqa_accuracy(spec["predictions"], spec["rows"])
    printed = {name: f"{value:.2f}" for name, value in result.items() if isinstance(value, float)}
    assert printed == spec["expected_printed_two_decimals"]
    if spec.get("counts"):
        assert result["counts"] == spec["counts"]


def compare_nextgqa(spec: dict[str, Any]) -> None:
    """Single overlaps, and the metrics in every setting that the fixture has."""
    cases = spec.get("tiou_cases", [])
    if cases:
        iou, iop = span_overlap([case["location"] for case in cases], [case["span"] for case in cases])
        assert iou.tolist() == pytest.approx([case["IoU"] for case in cases], rel=RELATIVE, abs=1e-12)
        assert iop.tolist() == pytest.approx([case["IoP"] for case in cases], rel=RELATIVE, abs=1e-12)
    for setting, stored in spec.get("expected", {}).items():
        result = nextgqa_setting(spec, setting)
        stored = dict(stored)
        printed = stored.pop("printed_one_decimal", {})
        assert {name: result[name] for name in stored} == pytest.approx(stored, rel=RELATIVE, abs=1e-12), setting
        assert {name: f"{result[name]:.1f}" for name in printed} == printed, setting


def nextgqa_setting(spec: dict[str, Any], setting: str) -> dict[str, Any]:
    """Our metrics in one of the fixture's settings; a setting that nobody knows is a failure, not a skip."""
    seconds, gold, qa = spec["predictions_seconds"], spec["groundtruth"], spec["qa"]
    match setting:
        case "seconds":
            return nextgqa_metrics(seconds, gold, answers=qa)
        case "seconds_no_qa":
            return nextgqa_metrics(seconds, gold)
        case "seconds_subset":
            return nextgqa_metrics(seconds, gold, answers=qa, subset=spec["subset"])
        case "fraction":
            return nextgqa_metrics(spec["predictions_fraction"], gold, answers=qa, unit="fraction")
        case "combined":
            merged = intersect_predictions(spec["predictions_fraction"], seconds, gold)
            return nextgqa_metrics(merged, gold, answers=qa)
    pytest.fail(f"the fixture has a setting that this test does not know: {setting}")


COMPARISONS: dict[str, Callable[[dict[str, Any]], None]] = {
    "nextqa": compare_nextqa,
    "nextgqa": compare_nextgqa,
    "causalvidqa": compare_causalvidqa,
}
FIXTURES = [path for path in all_fixtures() if evaluator_kind(read_fixture(path)[1]) in COMPARISONS]


def compare(spec: dict[str, Any]) -> None:
    """Compare a fixture with the evaluator that its own fields name."""
    COMPARISONS[str(evaluator_kind(spec))](spec)


def test_fixtures_are_there() -> None:
    if not all_fixtures():
        pytest.skip("no parity fixtures: set HF_CAUSAL_VIDEO_PARITY to their folder")
    assert FIXTURES or not any(evaluator_kind(read_fixture(path)[1]) for path in all_fixtures())


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_evaluator_equals_the_published_one(path: Path) -> None:
    compare(read_fixture(path)[1])


def stored_numbers(spec: dict[str, Any]) -> list[tuple[tuple[Any, ...], Any]]:
    """Every stored output of an evaluator fixture: the way to it, and its value."""
    found: list[tuple[tuple[Any, ...], Any]] = []

    def walk(value: Any, way: tuple[Any, ...]) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, (*way, key))
        else:
            found.append((way, value))

    for name in ("expected", "expected_printed_two_decimals", "counts"):
        walk(spec.get(name) or {}, (name,))
    for index, case in enumerate(spec.get("tiou_cases", [])[:8]):
        found += [(("tiou_cases", index, name), case[name]) for name in ("IoU", "IoP")]
    return found


def altered(value: Any) -> Any:
    """A value moved in its third digit (a count by one, a zero to a thousandth); texts stay texts."""
    if isinstance(value, str):
        return f"{float(value) + 0.1:.{len(value.split('.')[1])}f}"
    if isinstance(value, int):
        return value + 1
    return value * 1.005 if value else 1e-3


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_an_altered_output_is_noticed(path: Path) -> None:
    spec = read_fixture(path)[1]
    for way, value in stored_numbers(spec):
        broken = spec | {way[0]: copy.deepcopy(spec[way[0]])}
        if way[0] == "expected":  # one setting is enough, and quick
            broken["expected"] = {way[1]: broken["expected"][way[1]]}
        place = broken
        for step in way[:-1]:
            place = place[step]
        place[way[-1]] = altered(value)
        with pytest.raises(AssertionError):
            compare(broken)
