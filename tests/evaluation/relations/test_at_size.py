"""The relation evaluator on as much as VidOR has: 835 videos, 200 predicted relations each, under a minute of CPU."""

import time

import numpy as np
import pytest

from hf_causal_video.evaluation.relations.metrics import METRICS, vidvrd_metrics

VIDEOS, PREDICTED, ANNOTATED, TRACKS, FRAMES = 835, 200, 36, 8, 900  # VidOR: about 30 s a video, 30 relations
CLASSES, PREDICATES = 80, 50


def video(rng: np.random.Generator, count: int, tracks: list, score: bool) -> list[dict]:
    """Relations of 30 to 400 frames between tracks of one video."""
    rows = []
    for _ in range(count):
        first, length = int(rng.integers(0, FRAMES - 400)), int(rng.integers(30, 400))
        subject, other = rng.choice(TRACKS, 2, replace=False)
        span = slice(first, first + length)
        row = {
            "triplet": [f"c{subject % CLASSES}", f"p{int(rng.zipf(1.5)) % PREDICATES}", f"c{other % CLASSES}"],
            "duration": [first, first + length],
            "sub_traj": tracks[subject][span],
            "obj_traj": tracks[other][span],
        }
        rows.append(row | ({"score": float(rng.random())} if score else {}))
    return rows


@pytest.mark.slow
def test_a_split_of_the_size_of_vidor_takes_less_than_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    predicted, annotated = {}, {}
    for number in range(VIDEOS):
        corner = rng.uniform(0, 500, (TRACKS, 1, 2)) + rng.normal(0, 2, (TRACKS, FRAMES, 2)).cumsum(1)
        tracks = np.concatenate([corner, corner + 90], -1).round(1).tolist()
        annotated[f"v{number}"] = video(rng, ANNOTATED, tracks, score=False)
        predicted[f"v{number}"] = video(rng, PREDICTED - 20, tracks, score=True)
        predicted[f"v{number}"] += [row | {"score": 0.5} for row in annotated[f"v{number}"][:20]]
    began = time.process_time()
    table = vidvrd_metrics({"results": predicted}, annotated, training_counts={f"p{i}": 50 - i for i in range(50)},
                           training_triplets=[["c0", "p0", "c1"]])  # fmt: skip
    spent = time.process_time() - began
    with capsys.disabled():
        print(f"\n{VIDEOS} videos x {PREDICTED} relations: {spent:.1f} CPU seconds")
    assert table["counts"]["predictions"] == VIDEOS * PREDICTED and all(table[name] > 0 for name in METRICS)
    assert spent < 60
