"""A track set gives back what was written, remembers what made it, and a second run goes on."""

import numpy as np
import pytest

from hf_causal_video.features.store.writer import claim_folder
from hf_causal_video.tracks.track import Track
from hf_causal_video.tracks.track_set import TrackSet, track_folder, write_tracks
from hf_causal_video.tracks.tracker import TrackedClip
from hf_causal_video.utils.errors import CausalVideoError


def track(start: int, length: int, label: str) -> Track:
    boxes = np.linspace([0.1, 0.1, 0.3, 0.4], [0.5, 0.1, 0.7, 0.4], length)
    features = np.arange(3.0 * length).reshape(length, 3)
    return Track(start, boxes, np.full(length, 0.5), label, features)


class FakeTracker:
    """Counts what it is asked to track; one file cannot be read."""

    provenance = {"tracker": "bytetrack", "detector": "d", "sampling": "fps-8"}

    class detector:
        dim = 3

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, file) -> TrackedClip:
        self.asked.append(file.stem)
        if file.stem == "bad":
            raise CausalVideoError("clip", found="noise", expected="a video", fix="drop it")
        return TrackedClip([track(2, 4, "dog"), track(0, 1, "cat")], np.arange(9) / 8, (200, 100))


def test_what_was_written_comes_back_in_pixels(tmp_path) -> None:
    (tmp_path / "videos").mkdir()
    for name in ("a", "b", "bad"):
        (tmp_path / "videos" / f"{name}.mp4").write_bytes(b"x")
    tracker = FakeTracker()
    failed = track_folder(tmp_path / "videos", tmp_path / "set", tracker, progress=False)
    assert set(failed) == {"bad"} and "noise" in failed["bad"]
    tracks = TrackSet.open(tmp_path / "set")
    assert list(tracks) == ["a", "b"] and tracks.provenance == FakeTracker.provenance and "bad" not in tracks
    dog, cat = tracks["a"]
    assert (dog["start"], dog["label"], len(dog["boxes"]), cat["start"]) == (2, "dog", 4, 0)
    np.testing.assert_allclose(dog["boxes"], track(2, 4, "dog").boxes * [200, 100, 200, 100], rtol=1e-6)
    np.testing.assert_allclose(dog["features"], track(2, 4, "dog").features)
    assert "features" not in TrackSet.open(tmp_path / "set", appearance=False)["a"][0]
    again = FakeTracker()
    track_folder(tmp_path / "videos", tmp_path / "set", again, progress=False)
    assert again.asked == ["bad"], "what was tracked is not tracked again"


def test_a_clip_without_tracks_is_an_entry(tmp_path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"x")
    tracker = FakeTracker()
    track_folder([tmp_path / "v.mp4"], tmp_path / "set", tracker, progress=False)
    write_tracks(tmp_path / "set", "empty", TrackedClip([], np.arange(3) / 8, (20, 10)))
    assert TrackSet.open(tmp_path / "set")["empty"] == []


def test_other_tracks_and_absent_videos_are_refused(tmp_path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"x")
    track_folder([tmp_path / "v.mp4"], tmp_path / "set", FakeTracker(), progress=False)
    other = FakeTracker()
    other.provenance = {**other.provenance, "sampling": "fps-4"}
    with pytest.raises(CausalVideoError, match="another way"):
        track_folder([tmp_path / "v.mp4"], tmp_path / "set", other, progress=False)
    with pytest.raises(CausalVideoError, match="not among"):
        TrackSet.open(tmp_path / "set")["w"]
    with pytest.raises(CausalVideoError, match="no track set"):
        TrackSet.open(tmp_path)


def test_the_verb_tracks_a_folder(save_network, make_clip, tmp_path, capsys) -> None:
    pytest.importorskip("trackers")
    from hf_causal_video.cli import track
    from hf_causal_video.cli.options import parse_options

    (tmp_path / "videos").mkdir()
    make_clip(tmp_path / "videos" / "clip.mp4", frames=24)
    (tmp_path / "videos" / "bad.mp4").write_bytes(b"")
    detector = save_network("detector", "rtdetr")
    given = [
        str(tmp_path / "videos"),
        "--detector",
        str(detector),
        "--output",
        str(tmp_path / "set"),
        "--min-score",
        "0.1",
    ]
    given += ["--sampling", "fps-8", "--num-objects", "4", "--no-progress"]
    assert track.run(parse_options(track.Options, given)) == 1, "a film failed"
    said = capsys.readouterr().out
    assert "1 videos tracked" in said and "1 failed" in said and "failed: bad: bad.mp4 is not a video" in said
    (tmp_path / "videos" / "bad.mp4").unlink()
    assert track.run(parse_options(track.Options, given)) == 0
    tracks = TrackSet.open(tmp_path / "set")
    assert tracks["clip"] and tracks["clip"][0]["features"].shape[1] == tracks.feature_dim


def test_a_second_run_into_one_set_is_refused(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"x")
    with claim_folder(tmp_path / "set"), pytest.raises(CausalVideoError, match="another run writes to"):
        track_folder(tmp_path, tmp_path / "set", FakeTracker(), progress=False)
    track_folder(tmp_path, tmp_path / "set", FakeTracker(), progress=False)
    assert len(TrackSet.open(tmp_path / "set")) == 1 and not (tmp_path / "set" / ".claim").exists()
