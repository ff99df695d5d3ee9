"""Laws of tracks: what is one object, what a gap becomes, what is refused; a clip's tracks can be made again."""

import numpy as np
import pytest
import torch

from hf_causal_video.features.encoders import ObjectEncoder
from hf_causal_video.tracks.track import Track, check_track, link_detections
from hf_causal_video.utils.errors import CausalVideoError

FRAMES = 40
STEP = np.arange(FRAMES)[:, None]
RIGHT = np.array([0.1, 0.2, 0.3, 0.6]) + STEP * [0.01, 0, 0.01, 0]  # a person walks to the right
LEFT = np.array([0.8, 0.3, 0.95, 0.5]) - STEP * [0.01, 0, 0.01, 0]  # a car goes to the left


def detections(*columns: tuple[np.ndarray, float, int]) -> dict[str, np.ndarray]:
    boxes, scores, labels = zip(*columns, strict=True)
    rows = len(boxes[0])
    return {
        "object_boxes": np.stack(boxes, 1).astype(np.float32),
        "object_scores": np.tile(np.array(scores, dtype=np.float32), (rows, 1)),
        "object_labels": np.tile(np.array(labels, dtype=np.int32), (rows, 1)),
    }


@pytest.fixture
def crossing() -> dict[str, np.ndarray]:
    pytest.importorskip("trackers")
    return detections((RIGHT, 0.9, 0), (LEFT, 0.8, 1), (RIGHT + 0.004, 0.6, 0))


def test_each_object_is_one_track_from_its_first_frame_to_its_last(crossing):
    tracks = link_detections(crossing, {0: "person", 1: "car"})
    assert sorted((track.label, track.start_frame, track.end_frame) for track in tracks) == [
        ("car", 0, FRAMES),
        ("person", 0, FRAMES),
    ]
    for track in tracks:
        np.testing.assert_allclose(track.boxes, RIGHT if track.label == "person" else LEFT, atol=1e-6)


def test_a_gap_is_interpolated_in_boxes_scores_and_features(crossing):
    crossing["object_scores"][10:14, [0, 2]] = 0
    crossing["object_features"] = np.broadcast_to(STEP[:, :, None], (FRAMES, 3, 5)).astype(np.float32)
    [person] = [track for track in link_detections(crossing) if track.label == "0"]
    np.testing.assert_allclose(person.boxes, RIGHT, atol=1e-6)
    np.testing.assert_allclose(person.features, np.repeat(STEP, 5, 1))


def test_a_gap_longer_than_the_memory_makes_two_tracks(crossing):
    crossing["object_scores"][10:20, [0, 2]] = 0
    spans = [(t.start_frame, t.end_frame) for t in link_detections(crossing, max_gap=3) if t.label == "0"]
    assert spans == [(0, 10), (20, FRAMES)]


def test_objects_of_two_classes_are_never_one(crossing):
    crossing["object_labels"][20:, 0] = 2
    crossing["object_scores"][:, 2] = 0
    assert sorted(t.label for t in link_detections(crossing)) == ["0", "1", "2"]


def test_a_faint_object_starts_no_track_but_continues_one(crossing):
    crossing["object_scores"][:, 2] = 0
    crossing["object_scores"][:, 1] = 0.3  # the car, always faint
    crossing["object_scores"][5:, 0] = 0.3  # the person, faint after a while
    [person] = link_detections(crossing, min_score=0.5)
    assert (person.label, person.start_frame, person.end_frame) == ("0", 0, FRAMES)


def test_nothing_and_a_single_sighting_give_no_track():
    pytest.importorskip("trackers")
    assert link_detections(detections((RIGHT[:5], 0.0, -1))) == []
    assert link_detections(detections((RIGHT[:1], 0.9, 0))) == []
    sparse = detections((RIGHT, 0.9, 0))
    sparse["object_scores"][:] = 0
    sparse["object_scores"][[0, 30]] = 0.9
    assert link_detections(sparse) == []


def test_detections_that_do_not_fit_each_other_are_refused():
    one = detections((RIGHT, 0.9, 0))
    with pytest.raises(CausalVideoError, match="ObjectEncoder"):
        link_detections(one | {"object_scores": np.ones((3, 1))})
    with pytest.raises(CausalVideoError, match="min_frames"):
        link_detections(one, min_frames=1)


def test_without_the_library_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "trackers", None)
    with pytest.raises(CausalVideoError, match=r"hf-causal-video\[track\]"):
        link_detections(detections((RIGHT, 0.9, 0)))


def test_a_track_of_one_frame_is_a_track_and_a_box_over_the_edge_is_cut():
    track = Track(7, [[-0.1, 0.5, 0.4, 1.3]])
    assert (len(track), track.start_frame, track.end_frame) == (1, 7, 8)
    np.testing.assert_allclose(track.boxes, [[0, 0.5, 0.4, 1]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": np.zeros((0, 4))}, "no boxes"),
        ({"boxes": [[0.5, 0, 0.1, 1]]}, "inverted .* in frame 3;"),
        ({"boxes": [[0, 0, 0.1, np.nan]]}, "infinite"),
        ({"boxes": [[10, 10, 40, 40]]}, "in pixels"),
        ({"boxes": [[1.1, 0, 1.2, 1]]}, "outside the frame"),
        ({"scores": [1, 1]}, "scores"),
        ({"features": np.zeros((2, 4))}, "features"),
        ({"start_frame": -1}, "invalid start: found -1; expected a frame, counted from 0"),
    ],
)
def test_a_bad_track_is_refused_by_name(change: dict, message: str):
    with pytest.raises(CausalVideoError, match=message):
        Track(**{"start_frame": 3, "boxes": [[0, 0, 1, 1]], "label": "dog", **change})


def test_sightings_in_pixels_become_fractions_without_gaps():
    track = Track.from_sightings([2, 3, 6], [[0, 0, 10, 10], [10, 0, 20, 10], [40, 0, 50, 10]], (100, 50), label="dog")
    assert (track.start_frame, track.end_frame) == (2, 7)
    np.testing.assert_allclose(track.boxes[:, 0], [0, 0.1, 0.2, 0.3, 0.4], atol=1e-6)
    np.testing.assert_allclose(track.to_dict((100, 50))["boxes"][1], [10, 0, 20, 10], atol=1e-4)
    with pytest.raises(CausalVideoError, match="ascending"):
        Track.from_sightings([3, 2], [[0, 0, 1, 1]] * 2)
    with pytest.raises(CausalVideoError, match="x1 <= x2"):
        Track.from_sightings([1, 3], [[0.5, 0, 0.1, 1], [0.1, 0, 0.5, 1]])


def test_a_part_keeps_what_belongs_to_its_frames():
    track = Track(2, [[0, 0, 0.1 * (i + 1), 1] for i in range(5)], features=np.arange(5)[:, None])
    part = track.part(4, 99)
    assert part is not None and part.start_frame == 4
    np.testing.assert_allclose(part.features[:, 0], [2, 3, 4])
    assert track.part(0, 2) is None and Track(0, [[0, 0, 1, 1]] * 3, features=np.ones(4)).part(
        0, 1
    ).features.shape == (4,)


def test_the_tracks_of_a_clip_are_made_again_from_their_provenance(save_network, make_clip, tmp_path):
    pytest.importorskip("trackers")
    from hf_causal_video.tracks.tracker import ClipTracker

    clip = make_clip(tmp_path / "clip.mp4", frames=80)  # 10 s, more than one chunk of frames at 8 a second
    tracker = ClipTracker(ObjectEncoder(save_network("detector", "rtdetr"), 6), "fps-8", min_score=0.1, max_gap=4)
    tracked = tracker(clip)
    assert len(tracked.times_s) == 80 and tracked.frame_size == (64, 48)
    assert tracked.tracks and {track.label.partition("_")[0] for track in tracked.tracks} == {"LABEL"}
    again = ClipTracker.from_provenance(tracker.provenance)(clip)
    assert [t.boxes.tolist() for t in again.tracks] == [t.boxes.tolist() for t in tracked.tracks]
    with pytest.raises(CausalVideoError, match="even pace"):
        ClipTracker(tracker.detector, "uniform-8")
    with pytest.raises(CausalVideoError, match="timestamps_s"):
        tracker([np.zeros((48, 64, 3), np.uint8)] * 2)


def test_a_clip_slower_than_the_sampling_is_tracked_on_its_own_frames(save_network, make_clip, tmp_path, caplog):
    """A clip of 5 frames per second at fps-10, longer than a chunk: every frame once, at the middle of its display."""
    pytest.importorskip("trackers")
    from hf_causal_video.tracks.tracker import ClipTracker

    clip = make_clip(tmp_path / "slow.mp4", frames=70, fps=5)
    encoder = ObjectEncoder(save_network("detector", "rtdetr"), 6)
    tracked = ClipTracker(encoder, "fps-10", min_score=0.1)(clip)
    assert "slow.mp4 has 70 of the 140 frames" in caplog.text and tracked.missing == 70
    np.testing.assert_allclose(tracked.times_s, (np.arange(70) + 0.5) / 5, atol=1e-6)
    caplog.clear()
    at_its_rate = ClipTracker(encoder, "fps-5", min_score=0.1)(clip)
    assert not caplog.text and at_its_rate.missing == 0
    assert [t.boxes.tolist() for t in tracked.tracks] == [t.boxes.tolist() for t in at_its_rate.tracks] != []


def test_a_clip_that_is_cut_off_is_not_taken_for_a_slow_one(save_network, make_clip, tmp_path):
    from hf_causal_video.tracks.tracker import ClipTracker

    whole = make_clip(tmp_path / "whole.mkv", frames=80, noise=True)
    (tmp_path / "cut.mkv").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    tracker = ClipTracker(ObjectEncoder(save_network("detector", "rtdetr"), 6), "fps-8")
    with pytest.raises(CausalVideoError, match="does not hold the frames"):
        tracker(tmp_path / "cut.mkv")


@pytest.mark.parametrize(
    ("name", "spoil", "more", "message"),
    [
        ("NaN", lambda d: d["object_boxes"].__setitem__((3, 0), np.nan), {}, "frame 3"),
        (
            "x, y, w, h",
            lambda d: d["object_boxes"].__setitem__((slice(None), 0), [0.5, 0.1, 0.2, 0.3]),
            {},
            "x1 <= x2",
        ),
        ("a score of NaN", lambda d: d["object_scores"].__setitem__((3, 0), np.nan), {}, "scores"),
        ("no rate", lambda d: None, {"frame_rate": 0.0}, "frame_rate"),
        ("no rate", lambda d: None, {"frame_rate": float("nan")}, "frame_rate"),
    ],
)
def test_odd_detections_are_named(name, spoil, more, message):
    odd = detections((RIGHT, 0.9, 0))
    spoil(odd)
    with pytest.raises(CausalVideoError, match=message):
        link_detections(odd, **more)


def test_what_stands_in_padding_is_not_read_and_tensors_of_half_precision_are(crossing):
    crossing["object_boxes"][5, 1], crossing["object_scores"][5, 1] = np.nan, 0
    half = {name: torch.from_numpy(value) for name, value in crossing.items()}
    half = {name: value.bfloat16() if value.is_floating_point() else value for name, value in half.items()}
    wanted = {(track.label, track.start_frame, track.end_frame) for track in link_detections(crossing)}
    assert {(track.label, track.start_frame, track.end_frame) for track in link_detections(half)} == wanted


@pytest.mark.parametrize(
    ("frames", "boxes", "message"),
    [
        ([2, 1], [[0, 0, 9, 9]] * 2, "ascending"),
        ([1, 1], [[0, 0, 9, 9]] * 2, "ascending"),
        ([-1, 1], [[0, 0, 9, 9]] * 2, "ascending"),
        ([1, 10], [[0, 0, 9, 9]] * 2, "0..9"),
        ([1, 2], [[0, 0, 9, 9], [9, 0, 0, 9]], "frame 2"),
        ([1, 2], [[0, 0, 9, 9], [0, 0, np.inf, 9]], "frame 2"),
        ([1, 2], [[0, 0, 9, 9], [0, 0, 60, 9]], "inside the picture"),
        ([], np.zeros((0, 4)), "empty"),
    ],
)
def test_annotated_tracks_are_forward_in_time_in_order_and_inside_the_picture(frames, boxes, message):
    with pytest.raises(CausalVideoError, match=message):
        check_track(frames, np.asarray(boxes, dtype=np.float64), "track 0", num_frames=10, frame_size=(50, 50))
    check_track([1, 2], np.array([[0, 0, 9, 9], [0, 0, 50.5, 9]]), "track 0", num_frames=10, frame_size=(50, 50))
