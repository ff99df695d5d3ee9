"""Relation metrics equal the published evaluation on every fixture, vIoU by itself included."""

import copy
from pathlib import Path
from typing import Any

import pytest

from hf_causal_video.evaluation.relations.metrics import vidvrd_metrics
from hf_causal_video.evaluation.relations.tracks import trajectory_viou
from tests.parity.fixtures import all_fixtures, evaluator_kind, read_fixture

pytestmark = pytest.mark.parity

TOLERANCE = 1e-6  # the published evaluation accumulates in float32
FIXTURES = [path for path in all_fixtures() if evaluator_kind(read_fixture(path)[1]) == "vidvrd"]


def compare(spec: dict[str, Any]) -> None:
    """Every stored number of a fixture; a setting that nobody knows is a failure, not a skip."""
    given, gold = spec["prediction"], spec["groundtruth"]
    result = vidvrd_metrics(given, gold, training_triplets=spec["train_triplets"])
    for setting, stored in spec["expected"].items():
        if setting == "printed":
            continue
        elif setting == "per_video":
            results = given.get("results", given)
            ours = {
                key: row | {"num_predictions": len(results.get(key, []))} for key, row in result["per_video"].items()
            }
            assert set(ours) == set(stored)
            for key, row in stored.items():
                assert {name: ours[key][name] for name in row} == pytest.approx(row, abs=TOLERANCE), key
            continue
        elif setting == "all":
            ours = result
        elif setting in ("zero_shot", "generalized_zero_shot"):
            ours = result[setting]
        elif setting.startswith("viou_"):
            ours = vidvrd_metrics(given, gold, float(setting.removeprefix("viou_")))
        else:
            pytest.fail(f"the fixture has a setting that this test does not know: {setting}")
        assert {name: ours[name] for name in stored} == pytest.approx(stored, abs=TOLERANCE), setting
    for case in spec.get("viou_cases", []):
        ours = trajectory_viou(case["traj_1"], case["duration_1"], case["traj_2"], case["duration_2"])
        assert ours == pytest.approx(case["viou"], abs=TOLERANCE)


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_evaluator_equals_the_published_one(path: Path) -> None:
    compare(read_fixture(path)[1])


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_an_altered_output_is_noticed(path: Path) -> None:
    spec = read_fixture(path)[1]
    ways = [
        (setting, name) for setting, stored in spec["expected"].items() if isinstance(stored, dict) for name in stored
    ]
    for setting, name in ways:
        broken = copy.deepcopy(spec) | {
            "viou_cases": [],
            "expected": {setting: copy.deepcopy(spec["expected"][setting])},
        }
        place, key = (broken["expected"][setting], name) if setting != "per_video" else (
            broken["expected"][setting][name], "AP")  # fmt: skip
        place[key] += 1e-3
        with pytest.raises(AssertionError):
            compare(broken)
    broken = copy.deepcopy(spec)
    broken["viou_cases"][0]["viou"] += 1e-3
    with pytest.raises(AssertionError):
        compare(broken)
