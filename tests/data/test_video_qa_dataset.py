"""Joining questions with features, and gathering items into a batch."""

import pytest
import torch

from hf_causal_video.data import VideoQACollator, VideoQADataset, questions_dataset
from hf_causal_video.data.dataset import uniform_frames
from hf_causal_video.features.store.reader import FeatureStore, Provenance, VideoFeatures
from hf_causal_video.utils.errors import CausalVideoError

CARD = Provenance("org/vit", "main", "pooled", 8, "org/detr", "main", "query", 6, num_objects=3, sampling="fps-1")


def features(video_id, frames=16):
    return VideoFeatures(
        video_id,
        timestamps_s=torch.arange(frames) + 0.5,
        frame_features=torch.arange(frames)[:, None].expand(-1, 8).half(),
        object_features=torch.ones(frames, 3, 6).half(),
        object_boxes=torch.full((frames, 3, 4), 0.5),
        object_scores=torch.tensor([0.9, 0.4, 0.0]).expand(frames, 3),
        object_labels=torch.tensor([1, 2, -1]).expand(frames, 3).int(),
    )


def question(video_id, number=0, **more):
    row = {"question_id": f"{video_id}_{number}", "video_id": video_id, "question": "who runs"}
    return row | {"choices": ["a boy", "a dog"], "answer": number % 2} | more


@pytest.fixture
def store():
    return FeatureStore.from_rows(CARD, [features("v1"), features("v2", frames=5)])


def test_an_item_is_a_question_row_with_the_tensors_of_its_video(store):
    item = VideoQADataset(questions_dataset([question("v2"), question("v1", 1)]), store)[1]
    assert item["question_id"] == "v1_1" and item["answer"] == 1
    shapes = {name: tuple(value.shape) for name, value in item.items() if isinstance(value, torch.Tensor)}
    assert shapes == {
        "timestamps_s": (16,),
        "frame_features": (16, 8),
        "object_features": (16, 3, 6),
        "object_boxes": (16, 3, 4),
        "object_mask": (16, 3),
    }
    assert item["object_mask"][0].tolist() == [True, True, False]


def test_subsampling_is_uniform_keeps_the_times_and_never_repeats_a_frame(store):
    data = VideoQADataset(questions_dataset([question("v1"), question("v2")]), store, num_frames=8)
    assert data[0]["timestamps_s"].tolist() == [1.5, 3.5, 5.5, 7.5, 9.5, 11.5, 13.5, 15.5]
    assert data[0]["frame_features"][:, 0].tolist() == [1, 3, 5, 7, 9, 11, 13, 15]
    assert len(data[1]["frame_features"]) == len(data[1]["object_features"]) == 5


@pytest.mark.parametrize(("total", "count"), [(16, 4), (17, 5), (64, 8), (1024, 1024), (9, 1)])
def test_sampled_frames_lie_at_the_centres_of_equal_stretches(total, count):
    frames = uniform_frames(total, count)
    assert len(frames) == count and frames.unique().numel() == count
    assert torch.equal(frames, ((torch.arange(count) + 0.5) * total / count).long())
    assert 0 <= frames.min() and frames.max() < total


def test_videos_without_features_are_named_at_construction(store):
    questions = questions_dataset([question("v1"), question("v7"), question("v8"), question("v7", 1)])
    with pytest.raises(CausalVideoError, match="2 of 3 videos missing: 'v7', 'v8'"):
        VideoQADataset(questions, store)
    with pytest.raises(CausalVideoError, match="invalid num_frames"):
        VideoQADataset(questions_dataset([question("v1")]), store, num_frames=0)


def test_a_video_of_zero_frames_is_an_error():
    class Empty(dict):
        def get_many(self, names):
            return [self[name] for name in names]

    empty = Empty(v1=VideoFeatures("v1", torch.zeros(0), torch.zeros(0, 8)))
    with pytest.raises(CausalVideoError, match="'v1' has no frames"):
        VideoQADataset(questions_dataset([question("v1")]), empty)[0]


def test_the_collator_hands_the_processor_what_the_items_hold(store):
    rows = [question("v1"), question("v2", 1), question("v2", 2, answer=-1)]
    data = VideoQADataset(questions_dataset(rows), store)
    inputs = VideoQACollator(dict)([data[i] for i in range(3)])
    assert inputs["question"] == ["who runs"] * 3 and inputs["choices"] == [["a boy", "a dog"]] * 3
    assert [len(frames) for frames in inputs["frame_features"]] == [16, 5, 5]
    assert {"object_features", "object_boxes", "object_mask"} < set(inputs)
    assert inputs["labels"].tolist() == [0, 1, -100] and inputs["return_tensors"] == "pt"
    assert "labels" not in VideoQACollator(dict, with_labels=False)([data[0]])


def test_open_questions_and_videos_without_objects_leave_those_inputs_out():
    frames_only = FeatureStore.from_rows(
        Provenance("org/vit", "main", "pooled", 8, sampling="fps-1"),
        [VideoFeatures("v1", torch.tensor([0.5]), torch.ones(1, 8))],
    )
    item = VideoQADataset(questions_dataset([question("v1", choices=[], answer=5)]), frames_only)[0]
    inputs = VideoQACollator(dict)([item])
    assert set(inputs) == {"question", "frame_features", "labels", "return_tensors"}
    with pytest.raises(CausalVideoError, match="1 of 2 are multiple-choice"):
        VideoQACollator(dict)([item, {**item, "choices": ["a", "b"], "answer": 1}])
    with pytest.raises(CausalVideoError, match="empty batch"):
        VideoQACollator(dict)([])


def test_a_loader_with_workers_gives_the_items_of_the_dataset(store):
    data = VideoQADataset(questions_dataset([question("v1"), question("v2")]), store)
    loader = torch.utils.data.DataLoader(data, batch_size=1, num_workers=1, collate_fn=VideoQACollator(dict))
    batches = list(loader)
    assert [len(batch["frame_features"][0]) for batch in batches] == [16, 5]
