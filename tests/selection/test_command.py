"""`hf-causal-video select` from a checkpoint and a clip to seconds, JSON and a picture."""

import json

import pytest
from PIL import Image

from hf_causal_video.cli.main import main
from hf_causal_video.cli.select import SELECTORS
from tests.features.conftest import write_clip

QUESTION = "who is jumping"


def test_it_prints_the_seconds_and_why(checkpoint, clip_file, capsys):
    assert main(["select", str(checkpoint), str(clip_file), QUESTION, "--frames", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("3 of 8 frames that TranSTR needs, reading the question alone")
    seconds = [float(line.split()[0]) for line in lines[1:]]
    assert sum("   kept" in line for line in lines[1:]) in (1, 2, 3)
    assert len(seconds) == 3 and seconds == sorted(seconds) and set(seconds) <= {0.25 + i / 2 for i in range(8)}


def test_a_short_clip_is_not_refused_by_a_default_that_nobody_typed(checkpoint, tmp_path, capsys):
    short = write_clip(tmp_path / "short.mp4", frames=5, fps=5)
    assert main(["select", str(checkpoint), str(short), QUESTION, "--selector", "uniform"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("5 of 5 frames") and len(lines) == 6
    fifty = write_clip(tmp_path / "fifty.mp4", frames=50, fps=25)
    assert main(["select", str(checkpoint), str(fifty), QUESTION, "--frames", "4", "--selector", "uniform"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("4 of 50 frames") and len(lines) == 5
    typed = ["--frames", "6", "--selector", "uniform"]
    assert main(["select", str(checkpoint), str(short), QUESTION, *typed]) == 2
    assert "found 6 frames; expected 1 to 5" in capsys.readouterr().err


@pytest.mark.parametrize("selector", SELECTORS)
def test_every_selector_gives_json_and_a_picture(checkpoint, dual_encoder, clip_file, tmp_path, capsys, selector):
    model = checkpoint if selector == "causal" else dual_encoder
    picture = tmp_path / "chosen.png"
    given = [str(model), str(clip_file), QUESTION, "--selector", selector, "--candidates", "uniform-10"]
    assert main(["select", *given, "--frames", "4", "--json", "--png", str(picture)]) == 0
    chosen = json.loads(capsys.readouterr().out)
    assert len(chosen["frame_indices"]) == len(chosen["timestamps_s"]) == 4 and len(chosen["scores"]) == 10
    assert Image.open(picture).width == 1600


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--frames", "0"], "invalid --frames: found 0; expected a whole number of at least 1. Fix: try --frames 8"),
        (["--tokens", "0"], "--tokens: found 0; expected a whole number of at least 1"),
        (["--vlm", "some/vlm"], "add --tokens"),
        (["--frames", "9"], "expected 1 to 8"),
        (["--tokens", "100"], "add --vlm"),
        (["--candidates", "uniform-99"], "does not hold the frames"),
        (["--candidates", "some"], "unknown sampling"),
        (["--png", "chosen.png", "--font", "no.ttf"], "found no.ttf; expected a font file"),
        (["--png", "chosen.jpg"], "name it chosen.png"),
    ],
)
def test_bad_flags_end_with_a_message(checkpoint, clip_file, capsys, flags, message):
    assert main(["select", str(checkpoint), str(clip_file), QUESTION, *flags]) == 2
    assert message in capsys.readouterr().err


def test_a_checkpoint_that_is_absent_or_has_no_evidence_ends_with_a_message(dual_encoder, clip_file, tmp_path, capsys):
    assert main(["select", str(tmp_path), str(clip_file), QUESTION]) == 2
    assert "expected a folder or Hub id with a model" in capsys.readouterr().err
    assert main(["select", str(dual_encoder), str(clip_file), QUESTION]) == 2
    assert "found CLIPModel" in capsys.readouterr().err


def test_a_clip_that_is_absent_and_an_empty_question_end_with_a_message(checkpoint, clip_file, capsys):
    assert main(["select", str(checkpoint), "absent.mp4", QUESTION]) == 2
    assert "found no absent.mp4" in capsys.readouterr().err
    assert main(["select", str(checkpoint), str(clip_file), " "]) == 2
    assert "pass the question" in capsys.readouterr().err


def test_a_classifier_and_a_text_encoder_choose_together(word_networks, clip_file, capsys):
    eyes, text = word_networks
    flags = ["--label-words", str(text), "--frames", "2"]
    assert (
        main(
            [
                "select",
                str(eyes),
                str(clip_file),
                QUESTION,
                *flags,
                "--selector",
                "split_judge",
                "--candidates",
                "uniform-8",
            ]
        )
        == 0
    )
    assert "2 of 8 frames most similar to the question, stretches halved" in capsys.readouterr().out
    assert main(["select", str(eyes), str(clip_file), QUESTION, *flags, "--selector", "uniform"]) == 2
    assert "add --selector similarity" in capsys.readouterr().err
