"""The road from pixels to relations, in short: films, detector, tracks, training, the verb and its pictures."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hf_causal_video.data.relations.vidvrd import read_relations
from hf_causal_video.features.decode import decode_video
from hf_causal_video.utils.errors import CausalVideoError
from hf_causal_video.worlds.render_relations import MOTIONS, PAIRS, SIZE, draw_relations, render_relations

ROOT = Path(__file__).resolve().parents[2]


def test_films_and_their_annotation_are_one(tmp_path) -> None:
    [video_id] = render_relations(tmp_path, "test", 1, progress=False)
    [row] = read_relations(tmp_path / "annotations" / "test")
    film = decode_video(tmp_path / "videos" / "test" / f"{video_id}.mp4", f"fps-{int(row['fps'])}")
    assert len(film.frames) == row["num_frames"] == 40, "tracked at their own rate, films count frames as annotated"
    assert film.frames[0].shape[:2] == (SIZE, SIZE) and len(row["tracks"]) == 2 * PAIRS
    assert {relation["predicate"] for relation in row["relations"]} <= set(MOTIONS)
    assert draw_relations(video_id)[1] == draw_relations(video_id)[1] != draw_relations("test-s0-0001")[1]
    with pytest.raises(CausalVideoError, match="films"):
        render_relations(tmp_path, "none", 0)


@pytest.mark.slow
def test_the_road_is_open(tmp_path) -> None:
    pytest.importorskip("trackers")
    script = ROOT / "scripts" / "benchmarks" / "relations_pixels.py"
    run = [
        sys.executable,
        str(script),
        "--quick",
        "--folder",
        str(tmp_path / "run"),
        "--output",
        str(tmp_path / "o.csv"),
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(run, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "relations between" in done.stdout and "detected tracks, asked under frequency" in done.stdout
    assert (tmp_path / "run" / "relations.png").read_bytes()[:4] == b"\x89PNG"
    assert "<html" in (tmp_path / "run" / "relations.html").read_text()[:200].lower()
    assert (tmp_path / "o.csv").read_text().count("\n") == 5
