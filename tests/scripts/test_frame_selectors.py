"""The benchmark of selectors: a perfect encoder finds the frames, shares are counted as said, a table is written."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hf_causal_video.selection import Clip, RandomSelector, SimilaritySelector, UniformSelector
from hf_causal_video.worlds import WorldConfig, generate_world

BENCHMARKS = Path(__file__).resolve().parents[2] / "scripts" / "benchmarks"


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import frame_selectors
    finally:
        sys.path.remove(str(BENCHMARKS))
    return frame_selectors


def test_the_words_of_the_world_find_its_causal_frames_and_even_spacing_does_not(script):
    config = WorldConfig.selection()
    world = generate_world(config, "long", num_clips=40)
    found = {}
    for name, selector in {"words": SimilaritySelector(script.WorldWords(config)), "even": UniformSelector()}.items():
        shares = []
        for row in world.questions:
            true = set(np.flatnonzero(row["causal_frames"]))
            chosen = script.choose(selector, world.features[row["video_id"]], row["question"], None, (8,))[8]
            shares.append(len(true & set(chosen)) / len(true))
        found[name] = np.mean(shares)
    assert found["words"] > 0.95 and found["even"] < 0.3


def test_a_smaller_budget_is_the_head_of_the_larger_but_for_even_spacing(script):
    clip = Clip.read(torch.randn(10, 4), range(10))
    chance = script.choose(RandomSelector(), clip, "why", None, (4, 8, 16))
    assert chance[8][:4] == chance[4] and len(chance[16]) == 10  # a short clip gives all it has
    even = script.choose(UniformSelector(), clip, "why", None, (2, 5))
    assert even == {2: [2, 7], 5: [1, 3, 5, 7, 9]}


def test_the_interval_is_that_of_videos_and_of_paired_differences(script):
    import frame_selectors_nextqa as captions

    one = {f"v{i}": [0.5, 0.5] for i in range(9)}
    assert captions._interval(one, None, 0) == (50.0, 50.0)
    assert captions._interval(one, {video: [0.25, 0.25] for video in one}, 0) == (25.0, 25.0)
    low, high = captions._interval({f"v{i}": [float(i % 2)] for i in range(40)}, None, 0)
    assert 20 < low < 50 < high < 80


def test_the_table_is_written_whole_and_its_summary_names_every_selector(script, tmp_path):
    rows = [
        {"data": "d", "seed": seed, "selector": name, "budget": 8, "share of true frames found %": 10.0 * seed}
        for seed in (1, 2)
        for name in ("uniform", "causal")
    ]
    script.write(rows, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open() as file:
        assert [row["share of true frames found %"] for row in csv.DictReader(file)] == [
            "10.00",
            "10.00",
            "20.00",
            "20.00",
        ]
    later = [{**rows[0], "share of true frames found %": 50.0, "questions": 7}]
    script.write(later, tmp_path / "table.csv")  # replaces its own row, and no other
    with (tmp_path / "table.csv").open() as file:
        shares = [row["share of true frames found %"] for row in csv.DictReader(file)]
    assert sorted(shares) == ["10.00", "20.00", "20.00", "50.00"]
    text = "\n".join(script.summary(rows))
    assert "15.0 (10.0-20.0)" in text and "uniform" in text and "causal" in text
