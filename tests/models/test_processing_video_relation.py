"""Laws of the relation processor: no frame is lost, what is cut into segments comes back whole, duplicates go."""

import copy
import pickle

import numpy as np
import pytest
import torch

from hf_causal_video.models.ivrd.association import Relation, associate, overlap, suppress
from hf_causal_video.models.ivrd.motion import list_pairs, tracks_that_meet
from hf_causal_video.models.ivrd.outputs import VideoRelationOutput
from hf_causal_video.models.ivrd.processing_video_relation import VideoRelationProcessor
from hf_causal_video.utils.errors import CausalVideoError

SIZE = (100, 50)


def processor(frames: int = 10, stride: int = 5) -> VideoRelationProcessor:
    return VideoRelationProcessor(["dog", "cat"], ["chase", "watch"], frames, stride)


def track(start: int, length: int, left: float = 10.0, **more) -> dict:
    moving = left + np.arange(start, start + length)[:, None] * [1, 0, 1, 0]
    return {"start": start, "boxes": moving + [0, 5, 20, 30], **more}


def judged(inputs, predicate: int = 0) -> VideoRelationOutput:
    """What a perfect model of "dog (track 0) chases cat (any other)" would return."""
    mask = inputs["track_mask"].any(-1)
    objects = torch.full((*mask.shape, 3), -9.0)
    for row, segment in enumerate(inputs.segments):
        for place, name in enumerate(segment.tracks):
            objects[row, place, 0 if name == 0 else 1] = 9.0
    index, pair_mask = list_pairs(tracks_that_meet(inputs["track_mask"], inputs["track_start"]))
    logits = torch.full((*pair_mask.shape, 2), -9.0)
    for row, segment in enumerate(inputs.segments):
        for place, (subject, _) in enumerate(index[row][pair_mask[row]].tolist()):
            if segment.tracks[subject] == 0:
                logits[row, place, predicate] = 9.0
    return VideoRelationOutput(predicate_logits=logits, object_logits=objects, pair_index=index, pair_mask=pair_mask)


@pytest.mark.parametrize("length", [1, 2, 9, 10, 11, 23, 30])
def test_segments_cover_every_frame_of_every_track(length: int) -> None:
    tracks = [track(3, length), track(5, max(1, length - 3))]
    inputs = processor()(tracks, SIZE)
    for number, one in enumerate(tracks):
        seen = set()
        for row, segment in enumerate(inputs.segments):
            if number in segment.tracks:
                place = segment.tracks.index(number)
                begin = segment.start + int(inputs["track_start"][row, place])
                steps = int(inputs["track_mask"][row, place].sum())
                seen |= set(range(begin, begin + steps))
                wanted = torch.tensor(one["boxes"][begin - one["start"] :][:steps] / [100, 50, 100, 50]).float()
                assert torch.allclose(inputs["track_boxes"][row, place, :steps], wanted)
        assert seen == set(range(one["start"], one["start"] + len(one["boxes"])))


@pytest.mark.parametrize("length", [4, 10, 23, 47])
def test_a_relation_cut_into_segments_comes_back_whole(length: int) -> None:
    inputs = processor()([track(2, length), track(0, length + 5, left=40)], SIZE)
    [[relation]] = processor().post_process_relations(judged(inputs), inputs)
    assert relation["triplet"] == ["dog", "chase", "cat"] and relation["duration"] == [2, 2 + length]
    assert np.allclose(relation["sub_traj"], track(2, length)["boxes"])
    assert np.allclose(relation["obj_traj"], track(0, length + 5, left=40)["boxes"][2:][:length])


def test_scores_of_segments_are_summed_or_averaged() -> None:
    inputs = processor()([track(0, 20), track(0, 20, left=40)], SIZE)
    scores = [processor().post_process_relations(judged(inputs), inputs, association_score=rule)[0][0]["score"]
              for rule in ("sum", "mean")]  # fmt: skip
    assert scores[0] == pytest.approx(3 * scores[1]) and 0.99 < scores[1] <= 1


def test_videos_of_a_batch_do_not_mix() -> None:
    videos = [[track(0, 20), track(0, 20, left=40)], [], [track(0, 5)], [track(7, 12), track(0, 12, left=60)]]
    inputs = processor()(videos, [SIZE] * 4)
    results = processor().post_process_relations(judged(inputs), inputs)
    assert [len(found) for found in results] == [1, 0, 0, 1]
    for video in (0, 3):
        alone = processor()(videos[video], SIZE)
        assert processor().post_process_relations(judged(alone), alone)[0] == results[video]


def test_overlapping_duplicates_of_a_track_give_one_relation() -> None:
    inputs = processor()([track(0, 20), track(0, 20, left=40), track(0, 20, left=40)], SIZE)
    assert len(processor().post_process_relations(judged(inputs), inputs)[0]) == 1


def test_two_relations_of_one_triplet_far_apart_stay_two() -> None:
    inputs = processor()([track(0, 20), track(0, 20, left=40), track(0, 20, left=400)], (1000, 50))
    assert len(processor().post_process_relations(judged(inputs), inputs)[0]) == 2


def test_confidence_bounds_and_counts_are_kept() -> None:
    inputs = processor()([track(0, 20), track(0, 20, left=40), track(0, 20, left=400)], (1000, 50))
    output = judged(inputs)
    assert len(processor().post_process_relations(output, inputs, max_per_video=1)[0]) == 1
    assert processor().post_process_relations(output, inputs, predicate_threshold=0.9999) == [[]]
    everything = processor().post_process_relations(output, inputs, object_threshold=0.0, predicate_threshold=0.0)
    assert len(everything[0]) > 2


def test_a_gap_is_bridged_by_interpolation_up_to_a_limit() -> None:
    def part(start: int) -> Relation:
        boxes = np.stack([track(start, 5)["boxes"], track(start, 5, left=40)["boxes"]])
        return Relation(("dog", "chase", "cat"), [1.0], start, boxes)

    [joined] = associate([[part(0)], [part(9)]], max_gap=4)
    assert (joined.start, joined.end) == (0, 14)
    assert np.allclose(joined.trajectories()[0], track(0, 14)["boxes"])
    assert len(associate([[part(0)], [part(9)]], max_gap=3)) == 2
    assert len(suppress([part(0), part(0)], 0.9)) == 1 and overlap(part(0), part(0)) == 1


def test_a_box_over_the_edge_is_cut_for_the_model_and_returned_whole() -> None:
    outside = [track(0, 4, left=-10), track(0, 4, left=90)]
    inputs = processor()(outside, SIZE)
    assert inputs["track_boxes"].min() >= 0 and inputs["track_boxes"].max() <= 1
    [[relation]] = processor().post_process_relations(judged(inputs), inputs)
    assert relation["sub_traj"][0][0] == -10


def test_features_follow_their_track() -> None:
    steps = np.arange(12, dtype=np.float32)[:, None] * [1, 1, 1]
    given = [track(0, 12, features=steps), track(4, 3, features=[7, 7, 7])]
    inputs = processor()(given, SIZE)
    assert inputs["track_features"].shape == (2, 2, 10, 3)
    assert set(inputs) == set(processor().model_input_names)
    assert inputs["track_features"][1, 0, :, 0].tolist() == list(range(2, 12))
    assert inputs["track_features"][0, 1, :4, 0].tolist() == [7, 7, 7, 0]


def test_a_video_without_tracks_may_come_first() -> None:
    inputs = processor()([[], [track(0, 5, features=[0.5, 1.0])]], SIZE)
    assert inputs["track_features"].shape[-1] == 2 and [segment.video for segment in inputs.segments] == [1]


def test_saved_and_read_again(tmp_path) -> None:
    processor(8, 3).save_pretrained(tmp_path)
    again = VideoRelationProcessor.from_pretrained(tmp_path)
    assert (again.predicates, again.segment_frames, again.segment_stride) == (["chase", "watch"], 8, 3)


@pytest.mark.parametrize(
    ("tracks", "size", "message"),
    [
        ([{"boxes": [[9, 0, 0, 9]]}], SIZE, "track 0 of video 0"),
        ([{"boxes": [[0, 0, np.nan, 9]]}], SIZE, "finite"),
        ([{"boxes": []}], SIZE, "empty tracks"),
        ([track(0, 3)], None, "frame size"),
        ([track(-1, 3)], SIZE, "0 or later"),
        ([track(0, 3), track(0, 3, features=[1.0])], SIZE, "all or none"),
        ([track(0, 3, features=np.ones((2, 4)))], SIZE, "other lengths"),
        ([track(0, 3)], (0, 50), "frame_size"),
        ([[track(0, 3)], []], [SIZE], "frame_size"),
    ],
)
def test_bad_tracks_are_named(tracks, size, message: str) -> None:
    with pytest.raises(CausalVideoError, match=message):
        processor()(tracks, size)


def test_an_output_of_other_inputs_is_refused() -> None:
    one, two = processor()([track(0, 20), track(0, 20)], SIZE), processor()([track(0, 5), track(0, 5)], SIZE)
    with pytest.raises(CausalVideoError, match="of this very output"):
        processor().post_process_relations(judged(one), two)
    with pytest.raises(CausalVideoError, match="stride"):
        processor(5, 6)


@pytest.mark.parametrize("how", ["pickle", "deepcopy", "worker"])
def test_segments_boxes_and_starts_go_where_the_batch_goes(how: str) -> None:
    inputs = processor()([track(0, 20), track(3, 20, left=40)], SIZE)
    if how == "worker":
        [carried] = torch.utils.data.DataLoader([inputs], batch_size=None, num_workers=1)
    else:
        carried = copy.deepcopy(inputs) if how == "deepcopy" else pickle.loads(pickle.dumps(inputs))
    assert carried.segments == inputs.segments and carried.starts == inputs.starts
    output = judged(inputs)
    wanted = processor().post_process_relations(output, inputs)
    assert wanted[0] and processor().post_process_relations(output, carried) == wanted
