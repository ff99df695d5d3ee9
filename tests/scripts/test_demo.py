"""The demo: its networks learn from the truth, its questions have their answers, and it can be stopped."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from datasets import load_dataset

from hf_causal_video.worlds import draw_clips, world_questions
from scripts.demo import run as demo
from scripts.demo.networks import box_iou, draw_frames, frame_targets, on_objects, on_queries

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture(scope="module")
def frames():
    return draw_frames(2, size=96, seed=1)


def test_a_place_on_the_map_lies_on_the_object_it_is_given_to(frames):
    owner, there = on_objects(torch.zeros(len(frames), 1, 6, 6), frames)
    assert 0 < there.float().mean() < 1
    for frame, place in there.nonzero()[::97].tolist():
        x, y = (place % 6 + 0.5) / 6, (place // 6 + 0.5) / 6
        left, top, right, bottom = frames.boxes[frame, owner[frame, place]].tolist()
        assert left < x < right and top < y < bottom


def test_a_query_at_a_true_box_belongs_to_it_and_one_in_the_corner_to_nobody(frames):
    low, high = frames.boxes.split(2, dim=-1)
    queries = torch.cat([(low + high) / 2, high - low], -1)
    corner = torch.tensor([0.01, 0.01, 0.02, 0.02]).expand(len(frames), 1, 4)
    owner, there = on_queries(torch.cat([queries, corner], 1), frames)
    assert (owner[:, :4] == torch.arange(4)).all() and there[:, :4].all() and not there[:, 4].any()


def test_frame_targets_tell_what_is_shown_and_nothing_that_is_hidden(frames):
    action, shape, backdrop = frame_targets(frames).split(8, dim=1)
    acting = frames.actions.amax(1) >= 0
    assert 0 < acting.float().mean() < 1
    assert torch.equal(action.sum(1) > 0, acting) and torch.equal(shape.sum(1) > 0, acting)
    assert torch.equal(backdrop.sum(1) > 0, ~acting)


def test_iou_is_one_with_itself_and_zero_when_apart():
    boxes = torch.tensor([[0.1, 0.1, 0.3, 0.4], [0.5, 0.5, 0.9, 0.6]])
    assert torch.allclose(box_iou(boxes[:, None], boxes[None]), torch.eye(2))


def test_questions_of_another_demo_are_never_read_from_a_cache(tmp_path):
    """Two folders of one name, whose cards would be alike but for what is asked."""
    found = []
    for home, count in (("first", 2), ("second", 3)):
        folder = tmp_path / home / "questions"
        folder.mkdir(parents=True)
        for split in demo.SPLITS:
            world_questions(draw_clips(demo.WORLD, split, count)).to_parquet(folder / f"{split}.parquet")
        (folder / "README.md").write_text(demo.questions_card(folder))
        found.append(len(set(load_dataset(str(folder), "questions", split="iid")["video_id"])))
    assert found == [2, 3]


def test_a_demo_of_other_sizes_is_not_mixed_in(tmp_path, capsys):
    stages = tmp_path / "stages"
    stages.mkdir()
    (stages / "1-render.json").write_text(json.dumps({"settings": {"sizes": {}, "seed": 0}, "seconds": 1}))
    assert demo.main(["--quick", "--output", str(tmp_path)]) == 2
    assert "--fresh" in capsys.readouterr().err


def test_fresh_deletes_only_what_the_demo_wrote(tmp_path):
    for name in ("model", "world", "mine"):
        (tmp_path / name).mkdir()
    for name in ("report.html", "evidence-1.png", "notes.txt"):
        (tmp_path / name).touch()
    demo._clear(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "notes.txt"]


def test_a_stop_keeps_what_is_finished_and_the_next_run_goes_on(tmp_path, monkeypatch, capsys):
    ran = []

    def stage(name):
        def run(self):
            ran.append(name)
            if name == "extract" and ran.count("extract") == 1:
                raise KeyboardInterrupt
            return {}

        return run

    for name in ("render", "train_networks", "extract", "train", "evaluate", "ask", "_print_summary"):
        monkeypatch.setattr(demo.Demo, name, stage(name))
    assert demo.main(["--output", str(tmp_path)]) == 130
    assert "goes on" in capsys.readouterr().err
    assert demo.main(["--output", str(tmp_path)]) == 0
    assert ran == ["render", "train_networks", "extract", "extract", "train", "evaluate", "ask", "_print_summary"]
    assert capsys.readouterr().out.count("finished before") == 2


@pytest.mark.slow
def test_the_quick_demo_goes_the_whole_road_and_a_second_run_finds_it_done(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(SCRIPTS.parent))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "a demo"
    assert demo.main(["--quick", "--output", str(folder)]) == 0
    assert "report.html" in capsys.readouterr().out
    assert (folder / "report.html").stat().st_size > 10_000
    assert len(list(folder.glob("evidence-*.png"))) == 6
    results = json.loads((folder / "summary.json").read_text())
    assert 0 <= results["ood"]["Acc"] <= 100 and "kept frames in the window" in results["iid"]
    before = (folder / "report.html").stat().st_mtime_ns
    assert demo.main(["--quick", "--output", str(folder)]) == 0
    assert capsys.readouterr().out.count("finished before") == 6
    assert (folder / "report.html").stat().st_mtime_ns == before


def test_a_complete_environment_is_reused_from_anywhere_and_in_paths_with_spaces(tmp_path):
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    project = tmp_path / "a project"
    (project / "scripts").mkdir(parents=True)
    (project / ".venv" / "bin").mkdir(parents=True)
    (project / "pyproject.toml").write_text("[project]\n")
    shutil.copy(SCRIPTS / "environment.sh", project / "scripts")
    python = project / ".venv" / "bin" / "python"
    python.write_text("#!/bin/sh\nexit 0\n")
    python.chmod(0o755)
    expected = 'printf "%s\\n" "$project" "torch $torch_version" && cat "$project/pyproject.toml"'
    source = f'set -euo pipefail; . "{project}/scripts/environment.sh"; '
    stamp = subprocess.run([bash, "-c", source + expected], capture_output=True, text=True, check=True).stdout
    (project / ".venv" / "complete-video").write_text(stamp)
    run = f'set -euo pipefail; . "{project}/scripts/environment.sh"; make_environment video; printf "%s" "$python"'
    said = subprocess.run(
        [bash, "-c", run],
        capture_output=True,
        text=True,
        check=True,
        cwd=os.path.sep,
        env={"PATH": os.environ["PATH"]},
    ).stdout
    assert "reused" in said and said.endswith(str(python))
