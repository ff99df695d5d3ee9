"""Own data from a folder of clips to a compared table, on a few clips."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from hf_causal_video.utils.errors import CausalVideoError
from scripts import own_data

pytest.importorskip("av", reason="needs the extra video")


def test_clips_and_questions_become_a_compared_table(tmp_path: Path, capsys):
    report = own_data.main(["--output", str(tmp_path), "--num-clips", "18", "--epochs", "2", "--frames", "8"])
    text = capsys.readouterr().out
    commands = [line.split()[2] for line in text.splitlines() if line.startswith("$ hf-causal-video")]
    assert commands == ["questions", "import", "questions", "evaluate", "evaluate", "compare", "compare"]
    assert "for every video" in text and "12 questions of 6 videos" in text
    assert report["questions"] == 12 and len(report["runs"]) == 2
    assert json.loads((tmp_path / "table.json").read_text()) == report
    assert Image.open(tmp_path / "curves.png").size[0] == 900
    for name, row in zip(own_data.MODELS, report["runs"], strict=True):
        numbers = json.loads((tmp_path / name / "evaluation" / "metrics.json").read_text())["metrics"]
        assert numbers["Acc"] == pytest.approx(row["accuracy"]["value"])
        trained = json.loads((tmp_path / name / "metrics.json").read_text())["test"]["test"]
        assert numbers["Acc"] == pytest.approx(trained["Acc"])

    # the same with files of one's own: a folder of clips and a csv that names them
    shutil.copytree(tmp_path / "clips", tmp_path / "mine")
    argv = ["--clips", str(tmp_path / "mine"), "--questions", str(tmp_path / "questions.csv"), "--epochs", "1"]
    again = own_data.main([*argv, "--output", str(tmp_path / "second"), "--frames", "4"])
    assert again["questions"] == 12 and not (tmp_path / "second" / "clips").exists()


def test_clips_without_questions_are_refused(tmp_path: Path):
    with pytest.raises(CausalVideoError, match="belong together"):
        own_data.main(["--clips", str(tmp_path), "--output", str(tmp_path / "out")])
