"""A checkpoint takes its local vision networks to the Hub, and answers a video from there with an empty cache."""

import json
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if __name__ != "__main__":
    from hf_causal_video.hub import push_checkpoint
    from tests.features.conftest import make_clip, save_network
    from tests.features.test_travelling import CHOICES, QUESTION, run, score
    from tests.hub.test_push import hub
    from tests.loopback_hub import run_client

    __all__ = ["hub", "make_clip", "run", "save_network"]  # fixtures

NAME = "org/transtr-own"
NETWORKS = {
    f"networks/{network}/{file}"
    for network in ("frames", "objects")
    for file in ("config.json", "model.safetensors", "preprocessor_config.json")
}


def answer(folder: Path) -> None:
    """Ask the pushed model about a clip; run by another process, see below."""
    from hf_causal_video.pipelines.question_answering import load_pipeline

    question = json.loads((folder / "question.json").read_text())
    print(f"score {load_pipeline(NAME)(str(folder / 'clip.mp4'), **question)['score']:.6f}")


def test_a_pushed_model_answers_a_video_from_an_empty_cache(hub, run, tmp_path, make_clip, monkeypatch):
    clip = make_clip(tmp_path / "clip.mp4")
    here = score(run / "model", clip)
    pushed = push_checkpoint(run / "model", NAME)
    files = hub.repositories["model", NAME].files
    assert set(files) & set(pushed.files) >= NETWORKS and not pushed.local
    for network in ("frames", "objects"):
        weights = f"networks/{network}/model.safetensors"
        assert files[weights] == (run / weights).read_bytes()
    card = json.loads(files["config.json"])["feature_provenance"]
    assert (card["frame_model"], card["object_model"]) == ("networks/frames", "networks/objects")
    shutil.rmtree(run)  # only the Hub has them now
    (tmp_path / "question.json").write_text(json.dumps({"question": QUESTION, "choices": CHOICES}))
    printed = run_client(hub, __file__, tmp_path, "answer")
    assert f"score {here:.6f}" in printed


def test_networks_elsewhere_stay_at_home_and_are_named(run, tmp_path, monkeypatch):
    away = tmp_path / "elsewhere"
    shutil.move(run / "networks", away)
    (run / "networks").symlink_to(away)
    pushed = push_checkpoint(run / "model", NAME, dry_run=True)
    assert not any(name.startswith("networks/") for name in pushed.files)
    assert pushed.local["frame_model in config.json"] == "run/networks/frames"


def test_a_later_push_without_networks_takes_them_away(hub, run):
    push_checkpoint(run / "model", NAME)
    (run / "networks" / "frames" / "pytorch_model.bin").write_bytes(b"pickled")  # another network by its fingerprint
    shutil.rmtree(run / "networks" / "objects")
    push_checkpoint(run / "model", NAME)
    assert not any(name.startswith("networks/") for name in hub.repositories["model", NAME].files)


if __name__ == "__main__":
    for step in sys.argv[2:]:
        globals()[step](Path(sys.argv[1]))
