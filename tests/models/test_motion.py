"""Laws of relative geometry: it knows no place and no scale, turns its sign with the roles, and ignores padding."""

import torch

from hf_causal_video.models.ivrd.motion import common_steps, motion_inputs, relative_geometry, relative_motion


def tracks(seed: int = 0, count: int = 2, steps: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, steps, 2, generator=generator) * 0.4
    return torch.cat([corner, corner + 0.1 + 0.4 * torch.rand(count, steps, 2, generator=generator)], -1)


def test_relative_motion_knows_neither_place_nor_scale() -> None:
    one, two = tracks()
    shift = torch.tensor([0.1, 0.2, 0.1, 0.2])
    assert torch.allclose(relative_motion(one, two), relative_motion(0.5 * one + shift, 0.5 * two + shift), atol=1e-5)


def test_size_ratios_turn_their_sign_with_the_roles() -> None:
    one, two = tracks()
    assert torch.allclose(relative_motion(one, two)[..., 2:], -relative_motion(two, one)[..., 2:], atol=1e-6)


def test_a_track_relative_to_itself_is_nothing() -> None:
    boxes, mask, start = tracks(), torch.ones(2, 6, dtype=torch.bool), torch.tensor([3, 3])
    assert not relative_geometry(boxes, mask, start, torch.tensor([0]), torch.tensor([0])).any()


def test_geometry_is_read_at_start_and_end_with_the_time_between() -> None:
    boxes, mask, start = tracks(), torch.ones(2, 6, dtype=torch.bool), torch.tensor([0, 30])
    mask[1, 4:] = False
    found = relative_geometry(boxes, mask, start, torch.tensor([0]), torch.tensor([1]))[0]
    first, last = relative_motion(boxes[0, 0], boxes[1, 0]), relative_motion(boxes[0, 5], boxes[1, 3])
    assert torch.allclose(found[:4], first) and torch.allclose(found[6:10], last)
    assert (
        torch.allclose(found[4], first[2] + first[3])
        and found[[5, 11]].tolist() == torch.tensor([-1.0, -28 / 30]).tolist()
    )


def test_padding_changes_nothing() -> None:
    boxes, mask, start = tracks(), torch.ones(2, 6, dtype=torch.bool), torch.tensor([0, 2])
    wider = torch.cat([boxes, torch.full((2, 3, 4), 0.7)], 1)
    longer = torch.cat([mask, torch.zeros(2, 3, dtype=torch.bool)], 1)
    pair = torch.tensor([0]), torch.tensor([1])
    assert torch.equal(relative_geometry(boxes, mask, start, *pair), relative_geometry(wider, longer, start, *pair))
    short, long = common_steps(boxes, mask, start, *pair), common_steps(wider, longer, start, *pair)
    for one, two in zip(short[:2], long[:2], strict=True):
        assert torch.equal(one[short[2]], two[long[2]])
    assert torch.equal(motion_inputs(boxes, mask), motion_inputs(wider, longer)[:, :6])


def test_common_steps_line_up_in_time_whoever_starts_first() -> None:
    boxes = torch.arange(20.0).reshape(2, 10, 1).expand(2, 10, 4)
    mask = torch.ones(2, 10, dtype=torch.bool)
    mask[1, 5:] = False
    start = torch.tensor([2, 4])  # frames 2..11 and 4..8
    one, two, shared = common_steps(boxes, mask, start, torch.tensor([0, 1]), torch.tensor([1, 0]))
    assert shared.sum(1).tolist() == [5, 5]
    assert one[0, :5, 0].tolist() == [2, 3, 4, 5, 6] and two[0, :5, 0].tolist() == [10, 11, 12, 13, 14]
    assert torch.equal(one[0], two[1]) and torch.equal(two[0], one[1])


def test_tracks_that_never_meet_share_nothing() -> None:
    boxes, mask = tracks(), torch.ones(2, 6, dtype=torch.bool)
    assert not common_steps(boxes, mask, torch.tensor([0, 6]), torch.tensor([0]), torch.tensor([1]))[2].any()


def test_a_box_without_width_stays_finite() -> None:
    thin = torch.tensor([0.1, 0.1, 0.1, 0.5])
    assert (
        relative_motion(thin, thin + 0.1).isfinite().all() and relative_motion(tracks()[0, 0], thin).isfinite().all()
    )
