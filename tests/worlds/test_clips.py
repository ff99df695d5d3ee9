"""Laws of the confounded world: what is true in every clip, and where the answer can be read."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hf_causal_video.data import VideoQADataset
from hf_causal_video.features.store.reader import FeatureStore
from hf_causal_video.utils.errors import CausalVideoError
from hf_causal_video.worlds import (
    ANSWERS,
    SPLITS,
    WorldConfig,
    draw_clips,
    generate_world,
    tiny_text_config,
    world_questions,
    world_tokenizer,
)

GROUNDING = WorldConfig.grounding()
CHOICES = WorldConfig.grounding(num_choices=5, num_actors=3)


def stacked(world, name="frame_features"):
    return torch.stack([getattr(world.features[video_id], name) for video_id in world.features.video_ids]).float()


def probe(train_x, train_y, test_x, test_y):
    """Fit ridge regression on one-hot answers and give the accuracy on the test clips."""
    targets = torch.eye(8)[train_y]
    weights = torch.linalg.solve(train_x.T @ train_x + torch.eye(train_x.shape[1]), train_x.T @ targets)
    return float(((test_x @ weights).argmax(1) == test_y).float().mean())


@pytest.mark.parametrize("split", [split for split in SPLITS if split != "unseen"])
@pytest.mark.parametrize("config", [GROUNDING, CHOICES, WorldConfig.selection(), WorldConfig.rendered()])
def test_truth_of_every_clip(config, split):
    clips = draw_clips(config, split, 200)
    num_frames, num_objects = config.sizes(split)
    assert clips.acting.shape == (200, num_frames, num_objects)
    assert clips.acting.sum(axis=2).max() == 1, "windows overlap"
    lengths = clips.acting.sum(axis=1)
    actors = clips.actions >= 0
    assert (actors.sum(axis=1) == config.num_actors).all() and ((lengths > 0) == actors).all()
    assert config.min_window <= lengths[actors].min() and lengths[actors].max() <= config.max_window
    for values in clips.values:
        among_actors = values[actors].reshape(200, config.num_actors)
        assert all(len(set(row)) == config.num_actors for row in among_actors.tolist())
    assert actors[np.arange(200), clips.causal_object].all()
    assert (clips.causal_frames == clips.acting[np.arange(200), :, clips.causal_object]).all()


def test_exactly_one_actor_answers_the_question_and_its_window_is_the_span():
    clips = draw_clips(CHOICES, "train", 300)
    for i, row in enumerate(world_questions(clips)):
        words = row["question"].split()
        actors = np.flatnonzero(clips.actions[i] >= 0).tolist()
        looks = {a: {ANSWERS[clips.actions[i, a]], ANSWERS[8 + clips.classes[i, a]]} for a in actors}
        assert [a for a in actors if looks[a] & set(words)] == [row["causal_object"]]
        start, end = row["spans"][0]
        inside = [start <= second + 0.5 < end for second in range(16)]
        assert inside == row["causal_frames"]
        assert len(set(row["choices"])) == 5 and row["choices"][row["answer"]] == row["answer_text"]


def test_splits_have_their_sizes():
    assert GROUNDING.sizes("train") == (16, 6)
    assert GROUNDING.sizes("long") == (64, 6)
    assert GROUNDING.sizes("crowded") == (16, 18)
    assert GROUNDING.sizes("both") == (64, 18)
    video = next(iter(generate_world(GROUNDING, "both", 2).features))
    assert video.frame_features.shape == (64, 64) and video.object_features.shape == (64, 18, 64)


@pytest.mark.parametrize("rho", [0.0, 0.7, 1.0])
def test_the_environment_agrees_as_often_as_rho_says_and_never_in_ood(rho):
    config = replace(GROUNDING, rho=rho)
    for split in ("train", "validation", "iid", "long"):
        rate = np.mean(world_questions(draw_clips(config, split, 2000))["environment_agrees"])
        assert abs(rate - (rho + (1 - rho) / 8)) < 0.035
    ood = world_questions(draw_clips(config, "ood", 2000))
    assert not any(ood["environment_agrees"])
    assert all(row["environment_answer"] != row["answer"] for row in ood)
    wrong = (np.array(ood["environment"]) - np.array(ood["answer"])) % 8
    assert np.bincount(wrong, minlength=8)[1:].min() > 200, "the wrong environments are not equally likely"


def test_the_environment_suggests_an_answer_of_the_asked_kind():
    for row in world_questions(draw_clips(GROUNDING, "iid", 100)):
        assert row["environment_answer"] == row["answer"] // 8 * 8 + row["environment"]
    for row in world_questions(draw_clips(CHOICES, "iid", 200)):
        agrees = row["environment_answer"] == row["answer"]
        assert agrees == row["environment_agrees"] and row["environment_answer"] < 5


def test_kinds_of_questions_and_answers_come_in_equal_shares():
    table = world_questions(draw_clips(GROUNDING, "train", 3000))
    kinds = np.unique(table["question_type"], return_counts=True)
    assert kinds[1].tolist() == [1000, 1000, 1000]
    assert np.bincount(table["answer"], minlength=24).min() > 80
    positions = np.bincount(world_questions(draw_clips(CHOICES, "train", 3000))["answer"], minlength=5)
    assert positions.min() > 500, "the place of the answer among the choices tells the answer"
    assert set(world_questions(draw_clips(WorldConfig.selection(), "train", 30))["question_type"]) == {"colour"}


def test_asking_everything_keeps_every_law():
    config = WorldConfig.rendered(ask_all=True)
    train, ood = (world_questions(draw_clips(config, split, 50)) for split in ("train", "ood"))
    assert train.num_rows == 50 * 2 * 3 and len(set(train["question_id"])) == train.num_rows
    assert not any(ood["environment_agrees"]) and 200 < ood.num_rows < 300


def test_equal_arguments_give_equal_worlds_and_other_seeds_other_worlds():
    first, again = (generate_world(CHOICES, "train", 300, seed=3) for _ in range(2))
    assert first.questions.to_list() == again.questions.to_list()
    for name in ("frame_features", "object_features", "object_boxes"):
        assert torch.equal(stacked(first, name), stacked(again, name))
    other_seed, other_split = generate_world(CHOICES, "train", 300, 4), generate_world(CHOICES, "iid", 300, 3)
    for other in (other_seed, other_split):
        assert not set(other.features.video_ids) & set(first.features.video_ids)
        assert not torch.equal(stacked(other), stacked(first))
        assert other.questions["answer"][:] != first.questions["answer"][:]
    other_words = generate_world(replace(CHOICES, world_seed=1), "train", 300, seed=3)
    assert other_words.questions.to_list() == first.questions.to_list()
    assert not torch.equal(stacked(other_words), stacked(first))


def test_the_answer_is_in_the_causal_frames_and_the_confounder_only_in_idle_ones():
    config = WorldConfig.grounding(question_kinds=("action",))
    train, iid, ood = (generate_world(config, split, 1200) for split in ("train", "iid", "ood"))

    def read(frames_of):
        x, y = {}, {}
        for name, world in (("train", train), ("iid", iid), ("ood", ood)):
            weight = torch.from_numpy(frames_of(world.clips)).float()
            x[name] = (stacked(world) * weight[..., None]).sum(1) / weight.sum(1, keepdim=True)
            y[name] = torch.from_numpy(world.clips.answer)
        return [probe(x["train"], y["train"], x[name], y[name]) for name in ("iid", "ood")]

    causal = read(lambda clips: clips.causal_frames)
    idle = read(lambda clips: ~clips.acting.any(axis=2))
    assert min(causal) > 0.8 and abs(causal[0] - causal[1]) < 0.06
    assert idle[0] > 0.5 and idle[1] < 0.05


def test_without_confounding_the_other_frames_do_not_tell_the_answer():
    config = WorldConfig.grounding(question_kinds=("action",), rho=0.0)
    worlds = [generate_world(config, split, 1200) for split in ("train", "iid")]
    weights = [torch.from_numpy(~world.clips.causal_frames).float() for world in worlds]
    means = [(stacked(w) * m[..., None]).sum(1) / m.sum(1, keepdim=True) for w, m in zip(worlds, weights, strict=True)]
    answers = [torch.from_numpy(world.clips.answer) for world in worlds]
    assert probe(means[0], answers[0], means[1], answers[1]) < 0.25


def test_the_selection_world_shows_colours_in_objects_only():
    config = WorldConfig.selection(sigma=0.0, object_sigma=0.0)
    world = generate_world(config, "train", 400)
    i = np.arange(400)
    frame = world.clips.causal_frames.argmax(axis=1)
    colour = torch.from_numpy(world.clips.answer)
    frames = stacked(world)[i, frame]
    objects = stacked(world, "object_features")[i, frame, world.clips.causal_object]
    assert probe(frames[:300], colour[:300], frames[300:], colour[300:]) < 0.3
    assert probe(objects[:300], colour[:300], objects[300:], colour[300:]) == 1.0


def test_boxes_stay_in_the_picture_and_move_in_small_steps():
    boxes = stacked(generate_world(GROUNDING, "long", 50), "object_boxes")
    assert boxes.min() >= 0 and boxes.max() <= 1 and (boxes[..., 2:] > boxes[..., :2]).all()
    assert boxes.diff(dim=1).abs().max() < 0.15


def test_a_written_world_reads_back_the_same_and_serves_the_dataset(tmp_path):
    world = generate_world(CHOICES, "crowded", 20)
    store = FeatureStore.open(world.write(tmp_path / "crowded"))
    for video_id in world.features.video_ids:
        kept, made = store[video_id], world.features[video_id]
        assert torch.equal(kept.frame_features, made.frame_features)
        assert torch.equal(kept.object_boxes, made.object_boxes)
    assert type(world.questions).from_parquet(str(tmp_path / "crowded" / "questions.parquet")).to_list() == (
        world.questions.to_list()
    )
    store.check(world.features.provenance)
    with pytest.raises(CausalVideoError, match="seed-9"):
        store.check(generate_world(replace(CHOICES, world_seed=9), "train", 1).features.provenance)
    item = VideoQADataset(world.questions, store, num_frames=8)[7]
    assert item["object_features"].shape == (8, 18, 64) and item["object_mask"].all()


@pytest.mark.parametrize(
    "settings",
    [
        {"num_actors": 4},
        {"num_actors": 0},
        {"min_window": 6},
        {"rho": 1.2},
        {"num_choices": 9},
        {"question_kinds": ("where",)},
        {"question_kinds": ()},
        {"num_objects": 1},
        {"cause_noise": -0.1},
        {"cause_noise": 1.2},
        {"cause_noise": 0.2, "ask_all": True},
        {"environment_follows": "weather"},
    ],
)
def test_impossible_worlds_are_refused(settings):
    with pytest.raises(CausalVideoError, match="of a world"):
        WorldConfig(**settings)


def test_unknown_splits_and_empty_splits_are_refused():
    with pytest.raises(CausalVideoError, match="unknown split"):
        draw_clips(GROUNDING, "test", 3)
    with pytest.raises(CausalVideoError, match="number of clips"):
        draw_clips(GROUNDING, "train", 0)


def test_the_tokenizer_knows_every_word_and_survives_saving(tmp_path):
    tokenizer = world_tokenizer()
    for config in (GROUNDING, CHOICES):
        for row in world_questions(draw_clips(config, "train", 100)):
            for text in (row["question"], row["answer_text"], *row["choices"]):
                assert tokenizer.unk_token_id not in tokenizer(text).input_ids
    pair = tokenizer("who is jumping", "star", return_token_type_ids=True)
    assert pair.input_ids[0] == tokenizer.cls_token_id and pair.input_ids.count(tokenizer.sep_token_id) == 2
    assert pair.token_type_ids == [0] * 5 + [1] * 2
    tokenizer.save_pretrained(tmp_path)
    again = type(tokenizer).from_pretrained(tmp_path)
    assert again("who is jumping", "star").input_ids == pair.input_ids
    assert again.pad_token_id == tokenizer.pad_token_id == tiny_text_config(len(tokenizer)).pad_token_id == 0


def test_withheld_pairs_are_never_seen_but_where_they_are_asked_for():
    config = WorldConfig.grounding(unseen_pairs=2)

    def withheld(split: str):
        clips = draw_clips(config, split, 400, seed=3)
        unseen = ((clips.classes + clips.actions) % 8 < 2) & (clips.actions >= 0)
        asked = np.arange(clips.config.num_objects) == clips.causal_object[:, None]
        actors = clips.actions[clips.actions >= 0].reshape(400, 2)
        assert (actors[:, 0] != actors[:, 1]).all()  # redrawn actions are distinct as before
        return unseen, asked

    for split in ("train", "ood", "crowded"):
        assert not withheld(split)[0].any()
    unseen, asked = withheld("unseen")
    assert (unseen == asked).all()
    with pytest.raises(CausalVideoError, match="unseen_pairs=0"):
        draw_clips(WorldConfig.grounding(), "unseen", 4)
    with pytest.raises(CausalVideoError, match="unseen_pairs"):
        WorldConfig.grounding(unseen_pairs=7)


def test_a_world_that_withholds_nothing_is_the_world_as_it_was():
    """The first draws of the stream stay; the numbers are those of the generator before pairs could be withheld."""
    clips = draw_clips(WorldConfig.grounding(), "train", 50, seed=1)
    assert (int(clips.actions.sum()), int(clips.answer.sum()), int(clips.environment.sum())) == (125, 158, 181)
