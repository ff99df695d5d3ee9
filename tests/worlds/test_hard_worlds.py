"""Laws of the harder worlds: a noisy cause, an environment that follows the question, or is in every frame."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from hf_causal_video.worlds import WorldConfig, bayes_accuracy, draw_clips, generate_world, world_questions
from hf_causal_video.worlds.config import KINDS
from hf_causal_video.worlds.features import world_vocabulary

NOISY = WorldConfig.grounding(rho=0.9, cause_noise=0.2)


def named_values(clips):
    """The class or action that each question names."""
    rows = np.arange(len(clips))
    classes, actions = (values[rows, clips.causal_object] for values in (clips.classes, clips.actions))
    return np.where(clips.kinds == KINDS.index("action"), classes, actions)


def strengths(world, frames):
    """How much of each environment word the mean of the chosen frames (n, T) holds, (n, 8)."""
    features = torch.stack([world.features[name].frame_features for name in world.features.video_ids]).double()
    weight = torch.from_numpy(frames).double()
    mean = (features * weight[..., None]).sum(1) / weight.sum(1, keepdim=True)
    words = torch.from_numpy(world_vocabulary(world.clips.config)["environments"]).double()
    return torch.linalg.lstsq(words.T, mean.T).solution.T


@pytest.mark.parametrize(
    ("settings", "iid", "ood"),
    [
        ({"cause_noise": 0.2, "rho": 0.8}, 82.5, 0.0),
        ({"cause_noise": 0.2, "rho": 0.9}, 91.25, 0.0),
        ({"cause_noise": 0.3, "rho": 0.9}, 91.25, 0.0),
        ({"cause_noise": 0.2, "rho": 0.7}, 80.0, 80.0),
        ({"cause_noise": 0.1, "rho": 0.8}, 90.0, 90.0),
        ({"cause_noise": 0.0, "rho": 0.9}, 100.0, 100.0),
        ({"cause_noise": 0.2, "rho": 0.9, "environment_follows": "both"}, 91.25, 0.0),
        ({"cause_noise": 0.2, "rho": 0.9, "environment_follows": "question"}, 80.0, 80.0),
        ({"cause_noise": 0.2, "rho": 0.9, "background_everywhere": True}, 91.25, 0.0),
    ],
)
@pytest.mark.filterwarnings("ignore:the environment cannot win")
def test_ideal_accuracy_is_the_value_worked_out_by_hand(settings, iid, ood):
    config = WorldConfig(**settings)
    exact = bayes_accuracy(config)
    assert exact.iid == pytest.approx(iid) and exact.ood == pytest.approx(ood)
    assert exact.cause == pytest.approx(100 * (1 - config.cause_noise))
    assert config.environment_wins == (exact.ood < exact.cause)


@pytest.mark.parametrize("num_choices", [None, 5])
@pytest.mark.parametrize("follows", ["answer", "question", "both"])
def test_ideal_accuracy_is_what_an_ideal_predictor_reaches_on_drawn_clips(follows, num_choices):
    """A predictor that counts (shown value, environment, answer) in training clips, and answers iid and ood clips."""
    config = replace(NOISY, environment_follows=follows, num_choices=num_choices, num_actors=3)
    exact = bayes_accuracy(config)
    counts = np.full((8, 8, 8), 1e-9)  # relative to the answer, since all values are alike
    train = draw_clips(config, "train", 40000)
    relative = (train.shown_answer - train.answer) % 8, (train.environment - train.answer) % 8
    for s, e in zip(*relative, strict=True):
        counts[np.arange(8), (s + np.arange(8)) % 8, (e + np.arange(8)) % 8] += 1  # (answer, shown, environment)
    for split in ("iid", "ood"):
        clips = draw_clips(config, split, 20000)
        scores = counts[:, clips.shown_answer, clips.environment].T  # (n, 8)
        if clips.choices is not None:
            offered = np.zeros_like(scores, dtype=bool)
            np.put_along_axis(offered, clips.choices, True, axis=1)
            scores = np.where(offered, scores, 0.0)
        reached = 100 * (scores.argmax(1) == clips.answer).mean()
        assert reached == pytest.approx(getattr(exact, split), abs=1.5)
        if num_choices is None:
            assert 100 * (clips.shown_answer == clips.answer).mean() == pytest.approx(exact.cause, abs=1.5)


def test_a_noisy_cause_is_wrong_as_often_as_asked_and_its_frames_show_the_wrong_value():
    for split in ("train", "validation", "iid", "ood", "long"):
        rows = world_questions(draw_clips(NOISY, split, 3000))
        wrong = np.array(rows["cause_answer"]) != np.array(rows["answer"])
        assert abs(wrong.mean() - 0.2) < 0.03
        others = (np.array(rows["cause_answer"]) - np.array(rows["answer"]))[wrong] % 8
        assert np.bincount(others, minlength=8)[1:].min() > 40, "the wrong values are not equally likely"
    config = replace(NOISY, sigma=0.0, context_scale=0.0, question_kinds=("colour",))
    world = generate_world(config, "iid", 200)
    colours = torch.from_numpy(world_vocabulary(config)["colours"])
    features = torch.stack([world.features[name].frame_features for name in world.features.video_ids]).float()
    first = features[torch.arange(200), torch.from_numpy(world.clips.causal_frames.argmax(1))]
    assert ((first @ colours.T).argmax(1).numpy() == world.clips.shown_answer).mean() > 0.9


def test_an_environment_that_follows_the_question_tells_nothing_of_the_answer():
    config = WorldConfig.grounding(rho=0.9, environment_follows="question")
    for split in ("train", "iid"):
        clips = draw_clips(config, split, 4000)
        assert abs((clips.environment == named_values(clips)).mean() - config.environment_reliability) < 0.02
        assert abs((clips.environment == clips.answer).mean() - 1 / 8) < 0.02
    ood = draw_clips(config, "ood", 4000)
    assert not (ood.environment == named_values(ood)).any()
    rows = world_questions(ood)
    assert set(rows["environment_answer"]) == {-1} and not any(rows["environment_agrees"])


def test_both_is_an_environment_that_follows_the_answer_and_a_tint_that_follows_the_question():
    config = replace(NOISY, environment_follows="both")
    clips, ood = (draw_clips(config, split, 4000) for split in ("train", "ood"))
    assert abs((clips.environment == clips.answer).mean() - config.environment_reliability) < 0.02
    assert abs((clips.tint == named_values(clips)).mean() - config.environment_reliability) < 0.02
    assert not (ood.environment == ood.answer).any() and not (ood.tint == named_values(ood)).any()
    assert world_questions(clips)["tint"][:] == clips.tint.tolist()
    alone = draw_clips(replace(config, environment_follows="answer"), "train", 4000)
    assert (alone.environment == clips.environment).all() and (alone.answer == clips.answer).all()


@pytest.mark.parametrize("everywhere", [False, True])
def test_the_environment_is_where_it_is_said_to_be(everywhere):
    config = replace(NOISY, background_everywhere=everywhere, sigma=0.0, context_scale=0.0)
    world = generate_world(config, "iid", 100)
    rows, acting = np.arange(100), world.clips.acting.any(2)
    idle, busy = (strengths(world, frames)[rows, world.clips.environment] for frames in (~acting, acting))
    assert abs(idle.mean() - 0.6) < 0.05
    others = replace(config, background_scale=0.0)
    added = busy - strengths(generate_world(others, "iid", 100), acting)[rows, world.clips.environment]
    assert abs(added.mean() - 0.6 * everywhere) < 0.05


def test_every_question_of_a_clip_keeps_the_laws_of_the_environment():
    for follows in ("question", "both"):
        config = WorldConfig.rendered(ask_all=True, environment_follows=follows)
        clips = draw_clips(config, "ood", 60)
        numbers = {name: i for i, name in enumerate(clips.video_ids)}
        for row in world_questions(clips):
            i, target = numbers[row["video_id"]], row["causal_object"]
            named = clips.classes[i, target] if row["question_type"] == "action" else clips.actions[i, target]
            assert not row["environment_agrees"] and named != (
                row["tint"] if follows == "both" else row["environment"]
            )


def test_worlds_without_the_new_fields_are_the_worlds_as_they_were():
    """Numbers of the generator before causes could be noisy."""
    clips = draw_clips(WorldConfig.grounding(num_choices=5, num_actors=3), "ood", 40, seed=3)
    kept = [clips.classes, clips.colours, clips.actions, clips.windows, clips.kinds, clips.answer, clips.environment]
    assert [int((value * np.arange(1, 41).reshape(40, *[1] * (value.ndim - 1))).sum()) for value in kept] == [
        17864,
        16359,
        6780,
        39590,
        776,
        3062,
        3005,
    ]
    frames = next(iter(generate_world(WorldConfig.grounding(), "train", 2, seed=3).features)).frame_features
    assert frames.float().sum().item() == pytest.approx(5.83, abs=0.05)


def test_a_noisy_world_in_which_the_environment_cannot_win_warns_with_the_rule():
    with pytest.warns(UserWarning, match="Rule: r > 1 - cause_noise"):
        WorldConfig(cause_noise=0.1, rho=0.8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for settings in (
            {},
            {"cause_noise": 0.2, "rho": 0.9},
            {"cause_noise": 0.2, "environment_follows": "question"},
        ):
            WorldConfig(**settings)
