"""Laws of exchanged surroundings: what stays, what moves, and how much of an environment is said to show."""

import pytest
import torch

from hf_causal_video.causal import draw_donors, exchange_surroundings, separation_loss, visible_share


def clips(share: float, count: int = 400, noise: float = 0.3):
    """Clips of 4 causal frames (a scene) and 8 of an environment, a share of which is also in the causal frames."""
    torch.manual_seed(0)
    scene, environment = torch.randn(count, 1, 16, dtype=torch.float64), torch.randn(count, 1, 16, dtype=torch.float64)
    causal = torch.zeros(count, 12, dtype=torch.bool)
    causal[:, 3:7] = True
    frames = torch.where(causal.unsqueeze(-1), scene + share * environment, environment)
    return frames + noise * torch.randn_like(frames), causal, scene.squeeze(1), environment.squeeze(1)


def test_a_donor_is_of_another_video_and_every_other_video_can_be_one():
    own = torch.tensor([4, 4, 7, 9])
    drawn = torch.stack([draw_donors(own)[0] for _ in range(200)])
    assert (own[drawn] != own).all()
    assert set(drawn[:, 2].tolist()) == {0, 1, 3}
    donors, possible = draw_donors(torch.tensor([5, 5]))
    assert not possible.any() and donors.max() < 2
    assert draw_donors(torch.tensor([5, 5, 6]))[1].all()


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_the_visible_share_is_found_whatever_the_noise(share: float):
    for noise in (0.0, 1.0):
        frames, causal, _, _ = clips(share, noise=noise)
        assert visible_share(frames, causal, ~causal).item() == pytest.approx(share, abs=0.08)


def test_the_share_is_zero_where_nothing_can_be_said():
    frames, causal, _, _ = clips(1.0, count=1)
    assert visible_share(frames, causal, ~causal) == 0  # one clip has nothing to vary with
    frames, causal, _, _ = clips(1.0, count=4)
    single = torch.zeros_like(causal)
    single[:, 0] = True
    assert visible_share(frames, causal, single) == 0  # an environment seen once is not measured twice


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_causal_frames_keep_their_scene_and_show_the_new_environment(share: float):
    frames, causal, scene, environment = clips(share, noise=0.0)
    donors = torch.roll(torch.arange(len(frames)), 1)
    moved = exchange_surroundings(frames, causal, ~causal, donors)
    wanted = scene + share * environment[donors]
    assert (moved[:, 3:7].mean(1) - wanted).norm(dim=-1).mean() < 0.4  # the share is an estimate
    if share:
        assert (moved[:, 3:7].mean(1) - (scene + environment)).norm(dim=-1).mean() > 4  # as it was
    assert torch.equal(moved[:, 0], environment[donors])


def test_frames_come_from_the_environment_of_one_donor_and_a_clip_without_environment_stays():
    frames, causal, _, _ = clips(1.0, count=6)
    causal[2] = True
    environment = ~causal
    environment[2] = True  # as a clip that is causal throughout lends its frames
    donors = torch.tensor([1, 0, 4, 2, 5, 3])
    moved = exchange_surroundings(frames, causal, environment, donors)
    assert torch.equal(moved[2], frames[2])
    for row in (0, 1, 4, 5):
        for frame in moved[row][~causal[row]]:
            assert (frame == frames[donors[row]][environment[donors[row]]]).all(1).any()


def test_gradients_reach_frames_but_no_choice_of_frames():
    frames, causal, _, _ = clips(1.0, count=8)
    frames.requires_grad_()
    exchange_surroundings(frames, causal, ~causal, torch.roll(torch.arange(8), 1)).sum().backward()
    assert (frames.grad[causal].abs().sum(-1) > 0).all()


def test_separation_is_low_for_a_true_split_and_tells_scenery_from_its_cause():
    """The scenery is constant in a clip: a split that calls a part of it causal leaves the rest in the environment."""
    frames, causal, _, _ = clips(0.0)
    scenery = torch.zeros_like(causal)
    scenery[:, 8:12] = True
    values = [separation_loss(frames, side.double(), (~side).double()) for side in (causal, scenery)]
    assert values[0] < 0.1 and values[1] > 0.5
    chosen = scenery.double().requires_grad_()
    separation_loss(frames.requires_grad_(), chosen, 1 - chosen).backward()
    assert frames.grad is None  # frames cannot hide what they show
    assert chosen.grad.abs().sum() > 0


def test_separation_has_nothing_to_say_of_one_clip():
    frames, causal, _, _ = clips(1.0, count=1)
    assert separation_loss(frames, causal.double(), (~causal).double()) == 0
