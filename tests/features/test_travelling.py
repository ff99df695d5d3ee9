"""A checkpoint that travels: its local vision networks are found by their fingerprint, wherever the folder goes."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_causal_video import TranSTRConfig, TranSTRForVideoQuestionAnswering, VideoQAProcessor
from hf_causal_video.cli.main import main
from hf_causal_video.features import FrameEncoder, ObjectEncoder, VideoFeatureExtractor
from hf_causal_video.pipelines.question_answering import load_pipeline
from hf_causal_video.selection import CausalSelector
from hf_causal_video.utils.errors import CausalVideoError
from hf_causal_video.worlds import tiny_text_config, world_tokenizer

QUESTION, CHOICES = "who is doing jump", ["star", "ring"]


@pytest.fixture
def run(tmp_path, save_network, monkeypatch) -> Path:
    """A folder as a training leaves it: networks/frames, networks/objects and model, trained by relative paths."""
    folder = tmp_path / "work" / "run"
    shutil.copytree(save_network("backbone", "vit"), folder / "networks" / "frames")
    shutil.copytree(save_network("detector", "yolos"), folder / "networks" / "objects")
    monkeypatch.chdir(tmp_path / "work")
    extractor = VideoFeatureExtractor(
        FrameEncoder("run/networks/frames"), ObjectEncoder("run/networks/objects", 3), "uniform-4"
    )
    tokenizer = world_tokenizer()
    torch.manual_seed(0)
    config = TranSTRConfig(
        text_config=tiny_text_config(len(tokenizer), 16, 1).to_dict(), hidden_size=16, num_attention_heads=2,
        intermediate_size=16, frame_feature_dim=32, object_feature_dim=32, num_frames_kept=2, num_objects_kept=2,
        feature_provenance=extractor.provenance.to_dict(),
    )  # fmt: skip
    TranSTRForVideoQuestionAnswering(config).save_pretrained(folder / "model")
    VideoQAProcessor(tokenizer).save_pretrained(folder / "model")
    return folder


def score(checkpoint: Path, clip: Path, **networks: str) -> float:
    return load_pipeline(checkpoint, **networks)(str(clip), question=QUESTION, choices=CHOICES)["score"]


def test_a_checkpoint_answers_after_its_folder_was_moved_and_renamed(run, tmp_path, make_clip, monkeypatch, capsys):
    clip = make_clip(tmp_path / "clip.mp4")
    here = score(run / "model", clip)
    elsewhere = tmp_path / "far" / "renamed"
    elsewhere.parent.mkdir()
    shutil.move(run, elsewhere)
    monkeypatch.chdir("/")
    assert score(elsewhere / "model", clip) == here, "next to the checkpoint"
    shutil.move(elsewhere / "networks", elsewhere / "model" / "networks")
    assert score(elsewhere / "model", clip) == here, "in the checkpoint"
    shutil.move(elsewhere / "model", tmp_path / "alone")
    assert score(tmp_path / "alone", clip) == here
    (tmp_path / "linked").symlink_to(tmp_path / "alone")
    assert score(tmp_path / "linked", clip) == here, "where the files lie"
    monkeypatch.chdir(tmp_path)
    assert score(Path("alone"), clip) == here, "by a relative path"
    assert main(["answer", str(tmp_path / "alone"), str(clip), QUESTION, "--choices", *CHOICES]) == 0
    assert main(["select", str(tmp_path / "alone"), str(clip), QUESTION, "--choices", *CHOICES, "--frames", "2"]) == 0


def test_networks_that_lie_elsewhere_are_named_and_checked(run, tmp_path, make_clip, monkeypatch, capsys):
    clip = make_clip(tmp_path / "clip.mp4")
    here = score(run / "model", clip)
    frames, objects = str(tmp_path / "f"), str(tmp_path / "o")
    shutil.move(run / "networks" / "frames", frames)
    shutil.move(run / "networks" / "objects", objects)
    with pytest.raises(CausalVideoError, match=r"network 'run/networks/frames'.* missing.*--frame-model"):
        score(run / "model", clip)
    with pytest.raises(CausalVideoError, match=r"network 'run/networks/objects'.* missing.*--object-model"):
        score(run / "model", clip, frame_model=frames)
    assert score(run / "model", clip, frame_model=frames, object_model=objects) == here
    given = ["--frame-model", frames, "--object-model", objects]
    capsys.readouterr()
    command = ["answer", str(run / "model"), str(clip), QUESTION, "--choices", *CHOICES]
    assert main([*command, *given]) == 0
    selected = ["select", str(run / "model"), str(clip), QUESTION, "--choices", *CHOICES, "--frames", "2"]
    assert main([*selected, *given]) == 0
    assert main(command) == 2 and "--frame-model" in capsys.readouterr().err
    selector = CausalSelector.from_pretrained(run / "model", frame_model=frames, object_model=objects)
    assert len(selector.select(str(clip), QUESTION, 2, CHOICES).frame_indices) == 2
    with pytest.raises(CausalVideoError, match="not the one asked for"):
        score(run / "model", clip, frame_model=objects, object_model=objects)


def test_another_network_of_the_same_name_is_never_taken(run, tmp_path, make_clip):
    clip = make_clip(tmp_path / "clip.mp4")
    here = score(run / "model", clip)
    shutil.copytree(run / "networks", run / "model" / "networks")
    other = run / "networks" / "frames" / "model.safetensors"
    weights = load_file(other)
    save_file({name: tensor + 1 for name, tensor in weights.items()}, other, metadata={"format": "pt"})
    assert score(run / "model", clip) == here, "the copy that fits is found behind the one that does not"
    shutil.rmtree(run / "model" / "networks")
    with pytest.raises(CausalVideoError, match="other networks in .*frames.*expected the folder with the fingerprint"):
        score(run / "model", clip)
    config = json.loads((run / "model" / "config.json").read_text())
    assert config["feature_provenance"]["frame_model"] == "run/networks/frames", "nothing was rewritten"


def test_the_detector_of_a_tracker_travels_too(run, tmp_path, monkeypatch):
    from hf_causal_video.tracks.tracker import ClipTracker

    tracker = ClipTracker(ObjectEncoder("run/networks/objects", 3), "fps-4")
    shutil.move(run, tmp_path / "moved")
    with pytest.raises(CausalVideoError, match="missing.*--detector"):
        ClipTracker.from_provenance(tracker.provenance)
    again = ClipTracker.from_provenance(tracker.provenance, checkpoint=tmp_path / "moved" / "model")
    assert again.detector.revision == tracker.detector.revision
