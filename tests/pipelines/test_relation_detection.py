"""The relation pipeline and its verb: a clip, decoded frames, or tracks in; relations in the public layout out."""

import json

import datasets
import numpy as np
import pytest
import torch
from transformers import pipeline

import hf_causal_video.cli.relations as command
from hf_causal_video.cli.main import main
from hf_causal_video.cli.options import parse_options
from hf_causal_video.evaluation.relations.metrics import vidvrd_metrics
from hf_causal_video.models.ivrd import IVRDConfig, IVRDForVideoRelationDetection
from hf_causal_video.models.ivrd.processing_video_relation import VideoRelationProcessor
from hf_causal_video.pipelines.relation_detection import VideoRelationDetectionPipeline
from hf_causal_video.tracks.track import Track
from hf_causal_video.utils.errors import CausalVideoError
from tests.features.conftest import make_clip, save_network

__all__ = ["make_clip", "save_network"]  # fixtures

CLASSES, PREDICATES = ["dog", "cat", "LABEL_0"], ["chase", "near"]
SIZE = (200, 100)
DOG = Track(0, [[0.1 + 0.01 * t, 0.1, 0.3 + 0.01 * t, 0.5] for t in range(50)], label="dog")
CAT = Track(10, [[0.5, 0.4, 0.8, 0.9]] * 40, label="cat")
EVERYTHING = {"object_threshold": 0.0, "predicate_threshold": 0.0, "max_per_segment": 999, "max_per_video": 999}


def make(feature_dim: int = 0, **options) -> VideoRelationDetectionPipeline:
    torch.manual_seed(0)
    config = IVRDConfig.preset("plain", num_object_classes=3, num_predicates=2, hidden_size=8, feature_dim=feature_dim)
    processor = VideoRelationProcessor(CLASSES, PREDICATES)
    return VideoRelationDetectionPipeline(
        model=IVRDForVideoRelationDetection(config), processor=processor, device="cpu", **options
    )


def by_triplet(relations: list[dict]) -> dict:
    """Best score of each triplet; the order of an untrained model's near-equal scores means nothing."""
    return {tuple(one["triplet"]): pytest.approx(one["score"], abs=1e-4) for one in reversed(relations)}


@pytest.fixture(scope="module")
def detect() -> VideoRelationDetectionPipeline:
    return make()


def test_given_tracks_with_their_classes_relate_over_the_frames_they_share(detect):
    relations = detect(tracks=[DOG, CAT], frame_size=SIZE, classes="tracks", predicate_threshold=0.0)
    assert {tuple(one["triplet"]) for one in relations} == {
        (a, predicate, b) for a, b in (("dog", "cat"), ("cat", "dog")) for predicate in PREDICATES
    }
    for one in relations:
        assert one["duration"] == [10, 50] and "start_s" not in one
        dog, cat = (one["sub_traj"], one["obj_traj"])[:: 1 if one["triplet"][0] == "dog" else -1]
        np.testing.assert_allclose(dog, DOG.boxes[10:] * [*SIZE, *SIZE], atol=1e-4)
        np.testing.assert_allclose(cat, CAT.boxes * [*SIZE, *SIZE], atol=1e-4)
    assert vidvrd_metrics({"v": relations}, {"v": relations[:1]})["R@50"] == 1.0
    json.dumps(relations)


def test_third_party_tracks_in_pixels_say_the_same_as_tracks(detect):
    rows = [{"start": t.start_frame, "boxes": t.boxes * [*SIZE, *SIZE], "label": t.label} for t in (DOG, CAT)]
    one, two = (detect(tracks=t, frame_size=SIZE, **EVERYTHING) for t in (rows, [DOG, CAT]))
    assert by_triplet(one) == by_triplet(two) and len(one) > 8


def test_how_many_segments_are_judged_at_once_changes_nothing(detect, monkeypatch):
    together = detect(tracks=[DOG, CAT], **EVERYTHING)
    monkeypatch.setattr("hf_causal_video.pipelines.relation_detection.SEGMENTS_PER_PASS", 1)
    one_by_one = detect(tracks=[DOG, CAT], **EVERYTHING)
    assert by_triplet(together) == by_triplet(one_by_one)
    assert max(max(map(max, r["sub_traj"])) for r in together) <= 1, "without a frame size boxes stay fractions"


@pytest.mark.parametrize("tracks", [[], [DOG], [DOG, Track(60, CAT.boxes)], [Track(3, [[0, 0, 1, 1]])]])
def test_fewer_than_two_tracks_that_meet_have_no_relations(detect, tracks):
    assert detect(tracks=tracks, **EVERYTHING) == []


def test_tracks_of_one_frame_and_a_video_shorter_than_a_segment_are_judged(detect):
    relations = detect(tracks=[DOG.part(3, 4), Track(3, [[0.5, 0.5, 0.9, 0.9]], label="cat")], **EVERYTHING)
    assert relations and all(one["duration"] == [3, 4] for one in relations)
    assert {tuple(one["duration"]) for one in detect(tracks=[DOG.part(0, 9), DOG.part(2, 12)], **EVERYTHING)} == {
        (2, 9)
    }


def test_times_name_the_seconds_of_a_relation(detect):
    times = 0.05 + 0.1 * np.arange(50)
    for one in detect(tracks=[DOG, CAT], timestamps_s=times, **EVERYTHING):
        assert one["start_s"] == pytest.approx(1.0) and one["end_s"] == pytest.approx(5.0)
    with pytest.raises(CausalVideoError, match="50"):
        detect(tracks=[DOG, CAT], timestamps_s=times[:9])


def test_a_class_the_model_does_not_know_is_background(detect):
    bird = Track(10, CAT.boxes, label="bird")
    assert detect(tracks=[DOG, bird], classes="tracks", predicate_threshold=0.0) == []


CLIP = {"tracks": [DOG.to_dict(SIZE), CAT.to_dict(SIZE)], "frame_size": SIZE}


def test_one_clip_a_list_a_dataset_and_a_generator_have_the_same_relations(detect):
    wanted = detect(**CLIP, **EVERYTHING)
    assert wanted and detect(CLIP, **EVERYTHING) == wanted
    assert detect([CLIP, CLIP], **EVERYTHING) == [wanted, wanted]
    rows = [{"tracks": [one | {"boxes": one["boxes"].tolist()} for one in CLIP["tracks"]], "frame_size": list(SIZE)}]
    table = datasets.Dataset.from_list([row | {"video_id": "v"} for row in rows * 2])
    assert [by_triplet(one) for one in detect(table, **EVERYTHING)] == [by_triplet(wanted)] * 2
    found = detect((CLIP for _ in range(3)), **EVERYTHING)
    assert not isinstance(found, list) and list(found) == [wanted] * 3
    assert json.loads(json.dumps(wanted)) == wanted


@pytest.mark.parametrize("options", [{}, {"classes": "tracks"}])
def test_a_batch_of_clips_is_judged_in_fewer_passes_as_they_are_alone(options):
    detect, calls = make(), []
    detect.model.register_forward_pre_hook(
        lambda _, args, inputs: calls.append(len(inputs["track_boxes"])), with_kwargs=True
    )
    short = [Track(0, DOG.boxes[:20], label="dog"), Track(0, CAT.boxes[:20], label="cat")]
    third = [*short, Track(2, CAT.boxes[5:20], label="cat")]
    clips = [{"tracks": tracks} for tracks in (short, third, [DOG], [DOG, CAT], [])]
    wanted = detect(clips, **EVERYTHING, **options)
    alone, segments = len(calls), sum(calls)
    assert wanted[2] == wanted[4] == [] and all(wanted[index] for index in (0, 1, 3))
    calls.clear()
    found = detect(clips, batch_size=5, **EVERYTHING, **options)
    assert len(calls) == -(-segments // 8) < alone and sum(calls) == segments
    assert [by_triplet(one) for one in found] == [by_triplet(one) for one in wanted]


def test_a_clip_that_cannot_be_used_leaves_its_error_in_its_place(detect):
    bad = CLIP | {"tracks": [{"start": 0, "boxes": [[9, 0, 0, 9]]}]}
    with pytest.raises(CausalVideoError, match="x1 <= x2"):
        detect([CLIP, bad], **EVERYTHING)
    first, second, third = detect([CLIP, bad, CLIP], on_error="return", **EVERYTHING)
    assert first == third == detect(CLIP, **EVERYTHING)
    assert "x1 <= x2" in second["error"] and json.dumps(second)
    [missing] = detect(["no/such.mp4"], on_error="return")
    assert missing["video"] == "no/such.mp4" and "trajectory_provenance" in missing["error"]


def test_a_model_fresh_from_training_is_asked_without_dropout(detect):
    fresh = make()
    fresh.model.train()
    again = VideoRelationDetectionPipeline(model=fresh.model, processor=fresh.processor, device="cpu")
    assert again(CLIP, **EVERYTHING) == again(CLIP, **EVERYTHING)
    assert by_triplet(again(CLIP, **EVERYTHING)) == by_triplet(detect(CLIP, **EVERYTHING))


def test_a_saved_pipeline_opens_again_without_trust(detect, tmp_path):
    detect.save_pretrained(tmp_path)
    again = pipeline("video-relation-detection", model=str(tmp_path), trust_remote_code=False)
    assert again.processor.predicates == PREDICATES and not list(tmp_path.glob("*.py"))
    assert by_triplet(again(CLIP, **EVERYTHING)) == by_triplet(detect(CLIP, **EVERYTHING))


def test_classes_of_tracks_reach_the_prior_per_pair_of_classes():
    torch.manual_seed(0)
    sizes = {"num_object_classes": 3, "num_predicates": 2, "hidden_size": 8}
    model = IVRDForVideoRelationDetection(IVRDConfig(**sizes, class_pair_prior=True, prior_eval_strength=1.0))
    counts = torch.zeros(3, 3, 2)
    counts[0, 1, 1] = counts[1, 0, 0] = 90.0
    model.set_predicate_counts(torch.tensor([90.0, 90.0]), 200, counts, torch.full((3, 3), 100.0))
    detect = VideoRelationDetectionPipeline(
        model=model, processor=VideoRelationProcessor(CLASSES, PREDICATES), device="cpu"
    )
    model.intervention.scale = 0.0  # the prior alone
    relations = detect(CLIP, classes="tracks", predicate_threshold=0.5)
    assert {tuple(one["triplet"]) for one in relations} == {("dog", "near", "cat"), ("cat", "chase", "dog")}


def test_wrong_calls_are_refused(detect):
    for call, message in (
        ({}, "neither a video nor tracks"),
        ({"video": "x.mp4", "tracks": [DOG]}, "both"),
        ({"tracks": [DOG], "threshold": 1}, "threshold"),
        ({"tracks": [DOG], "classes": "mine"}, "mine"),
        ({"video": "x.mp4"}, "trajectory_provenance"),
    ):
        with pytest.raises(CausalVideoError, match=message):
            detect(**call)
    with pytest.raises(CausalVideoError, match="feature_dim=4"):
        make(feature_dim=4)(tracks=[DOG, CAT])


def test_from_pixels_with_the_detector_of_the_checkpoint(save_network, make_clip, tmp_path):
    pytest.importorskip("trackers")
    from hf_causal_video.features.encoders import ObjectEncoder
    from hf_causal_video.tracks.tracker import ClipTracker

    clip = make_clip(tmp_path / "clip.mp4", frames=40)
    tracker = ClipTracker(ObjectEncoder(save_network("detector", "rtdetr"), 4), "fps-8", min_score=0.1)
    detect = make(feature_dim=tracker.detector.dim)
    detect.model.config.trajectory_provenance = tracker.provenance
    [result] = detect([{"video": str(clip)}], return_clip=True, **EVERYTHING)
    assert len(result["frames"]) == len(result["frame_indices"]) >= 20 and result["frame_size"] == (64, 48)
    best = sum(result["relations"][0]["duration"]) // 2
    assert best in result["frame_indices"], "the best relation can be looked at"
    assert len(result["times_s"]) == 40 and len(result["tracks"]) >= 2 and result["relations"]
    assert result["relations"][0]["end_s"] <= 5.0
    frames = [np.full((48, 64, 3), 9, np.uint8)] * 12
    assert isinstance(detect(frames, timestamps_s=np.arange(12) / 8, **EVERYTHING), list)


@pytest.mark.parametrize(
    ("card", "flags", "words"),
    [
        (None, [], "--detector: found none"),
        ({"tracker": "annotation"}, ["--detector", "some/detector"], "add --tracks"),
        ({"tracker": "annotation"}, [], "add --tracks"),
    ],
)
def test_the_verb_says_by_its_flags_what_it_lacks(card, flags, words, make_clip, tmp_path, monkeypatch):
    clip, mute = make_clip(tmp_path / "clip.mp4", frames=4), make()
    mute.model.config.trajectory_provenance = card
    monkeypatch.setattr(command, "load_relation_pipeline", lambda *a, **k: mute)
    with pytest.raises(CausalVideoError, match=words) as caught:
        command.run(parse_options(command.Options, ["model", str(clip), *flags]))
    assert "clip_tracker" not in str(caught.value)


def test_the_verb_prints_draws_and_reads_annotated_tracks(detect, make_clip, tmp_path, capsys, monkeypatch):
    clip = make_clip(tmp_path / "clip.mp4", frames=40)
    objects = [{"tid": place, "category": t.label} for place, t in enumerate((DOG, CAT))]
    frames = [
        [
            {
                "tid": place,
                "bbox": dict(
                    zip(("xmin", "ymin", "xmax", "ymax"), (t.boxes[f - t.start_frame] * 40).tolist(), strict=True)
                ),
            }
            for place, t in enumerate((DOG, CAT))
            if t.start_frame <= f
        ]
        for f in range(40)
    ]
    annotation = {
        "video_id": "clip",
        "frame_count": 40,
        "fps": 8,
        "width": 64,
        "height": 48,
        "subject/objects": objects,
        "trajectories": frames,
        "relation_instances": [],
    }
    (tmp_path / "tracks.json").write_text(json.dumps(annotation))
    monkeypatch.setattr(command, "load_relation_pipeline", lambda *a, **k: detect)
    given = ["model", str(clip), "--tracks", str(tmp_path / "tracks.json"), "--classes", "tracks", "--threshold", "0"]
    command.run(
        parse_options(command.Options, [*given, "--html", str(tmp_path / "o.html"), "--png", str(tmp_path / "o.png")])
    )
    printed = capsys.readouterr().out
    assert (
        printed.startswith("4 relations between 2 tracks") and "dog chase cat" in printed and "1.2 to 5.0 s" in printed
    )
    assert (tmp_path / "o.html").stat().st_size > 5000 and (tmp_path / "o.png").read_bytes()[:4] == b"\x89PNG"
    command.run(parse_options(command.Options, [*given, "--json"]))
    assert len(json.loads(capsys.readouterr().out)["relations"]) == 4
    assert main(["relations", "model", str(tmp_path / "no.mp4")]) == 2 and "missing clip" in capsys.readouterr().err
    with pytest.raises(CausalVideoError, match="--detector"):
        command.run(parse_options(command.Options, ["model", str(clip), "--sampling", "fps-4"]))
