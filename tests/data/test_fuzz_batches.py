"""From rows to batches: items of any kind become a batch that holds them, in their order, or are refused."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_causal_video.data import VideoQACollator, VideoQADataset, questions_dataset, video_folds
from hf_causal_video.data.dataset import uniform_frames
from hf_causal_video.data.relations.collator import RelationCollator
from hf_causal_video.data.relations.labels import PairRule, segment_targets
from hf_causal_video.data.relations.rows import relations_dataset
from hf_causal_video.data.relations.segments import RelationSegments
from hf_causal_video.features.store import FeatureStore, Provenance, VideoFeatures
from hf_causal_video.models import VideoQAProcessor, VideoRelationProcessor
from hf_causal_video.worlds import world_tokenizer
from tests.fuzzing import JUNK, mutated, refused

ITEM = {
    "question_id": "v_0", "video_id": "v", "question": "who is doing jump", "choices": ["star", "ring"], "answer": 1,
    "frame_features": torch.ones(3, 4), "timestamps_s": torch.arange(3.0),
    "object_features": torch.ones(3, 2, 5), "object_boxes": torch.rand(3, 2, 4),
    "object_mask": torch.ones(3, 2, dtype=torch.bool),
}  # fmt: skip
ITEMS = [ITEM, ITEM | {"answer": -1, "choices": ["a", "b", "c"], "frame_features": torch.zeros(3, 4), "video_id": "w"}]


@pytest.fixture(scope="module")
def processor() -> VideoQAProcessor:
    return VideoQAProcessor(world_tokenizer())


@given(mutated(ITEMS), st.booleans(), st.booleans())
def test_any_items_make_a_batch_of_them_or_are_refused(processor, items, with_labels, with_video_ids):
    no, batch = refused(VideoQACollator(processor, with_labels, with_video_ids), items)
    if no:
        return
    assert all(len(value) == len(items) for value in batch.values())
    if with_labels:
        said = [int(item["answer"]) for item in items]
        assert batch["labels"].tolist() == [answer if answer >= 0 else -100 for answer in said]
    if with_video_ids:
        ids = batch["video_ids"].tolist()
        names = [item["video_id"] for item in items]
        assert len(set(ids)) == len(set(names)) and all(isinstance(name, str) for name in names)
    for item, frames in zip(items, batch["frame_features"], strict=True):
        assert torch.equal(frames[: len(item["frame_features"])], torch.as_tensor(item["frame_features"]).float())


@given(st.integers(1, 60), st.integers(1, 60))
def test_evenly_spaced_frames_are_different_and_in_order(total, count):
    count = min(count, total)
    frames = uniform_frames(total, count)
    assert len(frames) == count and (frames.diff() > 0).all() and 0 <= frames[0] and frames[-1] < total
    assert count < total or frames.tolist() == list(range(total))
    gaps = torch.cat([frames[:1] + 1, frames.diff(), total - frames[-1:]])
    assert gaps.max() <= -(-total // count)


CARD = Provenance("org/vit", "abc", "pooled", 2, sampling="uniform-4")
STORE = FeatureStore.from_rows(
    CARD, [VideoFeatures(name, torch.arange(n) + 0.5, torch.full((n, 2), n)) for n, name in enumerate("abc", 1)]
)


@given(st.lists(st.sampled_from("abcd"), max_size=4), st.none() | st.integers(-1, 5) | JUNK)
def test_any_questions_are_joined_with_the_frames_of_their_video_or_refused(videos, num_frames):
    rows = [{"question_id": str(n), "video_id": video, "question": "who"} for n, video in enumerate(videos)]
    no, data = refused(VideoQADataset, questions_dataset(rows), STORE, num_frames)
    if no:
        return
    for video, item in zip(videos, (data[n] for n in range(len(data))), strict=True):
        length = "abc".index(video) + 1
        assert len(item["frame_features"]) == len(item["timestamps_s"]) == min(length, num_frames or length)
        assert (item["frame_features"] == length).all() and item["video_id"] == video


@given(st.lists(JUNK, max_size=3), st.integers(-1, 9) | JUNK)
def test_folds_of_any_ids_are_the_same_each_time_or_refused(ids, k):
    no, folds = refused(video_folds, ids, k)
    if not no:
        assert folds == video_folds(ids, k) and all(0 <= fold < k for fold in folds) and len(folds) == len(ids)


boxes = st.tuples(*[st.integers(0, 9)] * 4).map(
    lambda b: [min(b[0], b[2]), min(b[1], b[3]), max(b[::2]), max(b[1::2])]
)


@st.composite
def videos(draw):
    tracks = []
    for _ in range(draw(st.integers(0, 3))):
        frames = sorted(draw(st.sets(st.integers(0, 9), min_size=1, max_size=6)))
        tracks.append({"category": draw(st.sampled_from(["dog", "cat"])), "score": 1.0, "frames": frames,
                       "boxes": [draw(boxes)] * len(frames)})  # fmt: skip
    relations = []
    for subject in range(len(tracks)):
        for other in range(len(tracks)):
            shared = sorted(set(tracks[subject]["frames"]) & set(tracks[other]["frames"]))
            if subject != other and shared and draw(st.booleans()):
                relations.append({"subject": subject, "predicate": draw(st.sampled_from(["chase", "watch"])),
                                  "object": other, "start": shared[0], "end": shared[0] + 1})  # fmt: skip
    return {"video_id": "v", "width": 20, "height": 20, "fps": 5.0, "num_frames": 10, "tracks": tracks,
            "relations": relations}  # fmt: skip


@given(videos(), st.integers(1, 5), st.integers(1, 5), st.integers(1, 20), st.integers(0, 3))
def test_segments_of_any_video_become_batches_whose_labels_are_annotated(row, frames, stride, overlap, seed):
    asked = VideoRelationProcessor(["cat", "dog"], ["chase", "watch"], max(frames, stride), stride)
    rows = relations_dataset([row])
    data = RelationSegments(
        rows, asked.object_classes, asked.predicates, asked.segment_begins, asked.segment_frames,
        rule=PairRule(min_overlap=overlap), seed=seed,
    )  # fmt: skip
    if not len(data):
        return
    items = [data[n] for n in range(len(data))]
    batch = RelationCollator(asked)(items)
    assert len(batch["track_boxes"]) == len(items) and len(batch["pair_index"]) == len(batch["predicate_labels"])
    said = {(one["predicate"], rows[0]["tracks"][one["subject"]]["category"]) for one in row["relations"]}
    for item in items:
        for (subject, other), labels in zip(
            item["pair_index"].tolist(), item["predicate_labels"].tolist(), strict=True
        ):
            assert subject != other
            for place in np.flatnonzero(labels):
                tracks = [part["category"] for part in item["tracks"]]
                assert any(predicate == asked.predicates[place] for predicate, _ in said) and tracks
    counts, pairs = data.training_counts()
    assert counts.sum() == sum(float(item["predicate_labels"].sum()) for item in items)
    assert pairs == sum(len(item["pair_index"]) for item in items)


@given(st.data(), videos())
def test_targets_in_unknown_vocabularies_are_refused(data, row):
    classes = data.draw(st.lists(st.sampled_from(["dog", "cat", "cow"]), unique=True, max_size=3))
    predicates = data.draw(st.lists(st.sampled_from(["chase", "watch"]), unique=True, max_size=2))
    tracks = [(track["frames"][0], np.array(track["boxes"], float)) for track in row["tracks"]]
    no, found = refused(segment_targets, tracks, row, (0, 10), classes, predicates)
    if no:
        known = {track["category"] for track in row["tracks"]} <= set(classes)
        assert not known or not {one["predicate"] for one in row["relations"]} <= set(predicates)
    else:
        assert all(-100 <= label <= len(classes) for label in found["track_labels"].tolist())
        assert found["track_labels"].shape == (len(tracks),)
        assert found["predicate_labels"].shape == (len(found["pair_index"]), len(predicates))


PART = {"start": 0, "boxes": [[0, 0, 9, 9]] * 3}
SEGMENT = {
    "tracks": [PART, PART], "frame_size": (20, 20), "track_labels": [0, 1], "pair_index": [[0, 1], [1, 0]],
    "predicate_labels": [[1.0, 0.0], [0.0, 0.0]],
}  # fmt: skip


@given(mutated([SEGMENT, SEGMENT]))
def test_any_segments_make_a_batch_of_them_or_are_refused(items):
    no, batch = refused(RelationCollator(VideoRelationProcessor(["cat", "dog"], ["chase", "watch"], 4, 2)), items)
    if no:
        return
    assert len(batch["track_boxes"]) == len(items)
    assert batch["pair_index"].shape[:2] == batch["predicate_labels"].shape[:2]
    tracks = batch["track_mask"].any(-1).sum(1)
    for row, pairs in enumerate(batch["pair_index"].tolist()):
        assert all(0 <= min(pair) <= max(pair) < tracks[row] for pair in pairs if pair != [-100, -100])
    real = batch["predicate_labels"][batch["pair_index"][..., 0] >= 0]
    assert ((real == 0) | (real == 1) | (real == -100)).all()
    for row, item in enumerate(items):
        assert batch["track_labels"][row, : len(item["tracks"])].tolist() == [int(n) for n in item["track_labels"]]
