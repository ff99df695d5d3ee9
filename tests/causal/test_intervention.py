"""Laws of the scene intervention: never a frame of the own video, all others equally often, the rest untouched."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_causal_video.causal import FrameBank, swap_frames
from hf_causal_video.utils.errors import CausalVideoError


def bank(ids: list[int], frames: int = 3, mask: torch.Tensor | None = None) -> FrameBank:
    """Every frame says which row it is of, and its place."""
    rows = torch.arange(len(ids)).view(-1, 1, 1).expand(-1, frames, 1)
    places = torch.arange(frames).view(1, -1, 1).expand(len(ids), -1, 1)
    return FrameBank(torch.cat([rows, places], 2).float(), torch.tensor(ids), mask)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=9).filter(lambda ids: len(set(ids)) > 1), st.integers(0, 999))
def test_own_frames_and_padding_are_never_drawn(ids: list[int], seed: int):
    torch.manual_seed(seed)
    mask = torch.arange(3) < torch.randint(1, 4, (len(ids), 1))
    pool = bank(ids, mask=mask)
    index = pool.draw(torch.tensor(ids), 12)
    assert index.shape == (len(ids), 12)
    assert mask.flatten()[index].all()
    assert (pool.video_ids[index // 3] != pool.video_ids[:, None]).all()


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 5), min_size=3, max_size=9).filter(lambda ids: len(set(ids)) > 2), st.integers(0, 999))
def test_neither_source_of_a_mixture_is_drawn(ids: list[int], seed: int):
    torch.manual_seed(seed)
    own = torch.tensor(ids)
    both = torch.stack([own, own[torch.randperm(len(ids))]], 1)  # a sample may be its own partner
    drawn = bank(ids).video_ids[bank(ids).draw(both, 12) // 3]
    assert (drawn.unsqueeze(1) != both.unsqueeze(2)).all()


def test_every_other_frame_is_drawn_equally_often():
    torch.manual_seed(0)
    ids = [5, 2, 5, 9, 1]  # out of order, one video twice
    drawn = bank(ids).draw(torch.tensor([5]), 60_000).flatten().bincount(minlength=15).view(5, 3)
    assert not drawn[[0, 2]].any()
    torch.testing.assert_close(drawn[[1, 3, 4]].float(), torch.full((3, 3), 60_000 / 9), rtol=0.06, atol=0)


@pytest.mark.parametrize(("ids", "own"), [([3], [[3]]), ([3, 3], [[3], [3]]), ([3, 4], [[3, 4], [4, 3]])])
def test_nothing_to_draw_from_is_an_error(ids: list[int], own: list[list[int]]):
    with pytest.raises(CausalVideoError, match="nothing to swap frames with.*larger batches"):
        bank(ids).draw(torch.tensor(own), 3)


def test_a_pair_of_videos_lends_each_other_frames():
    index = bank([3, 4]).draw(torch.tensor([3, 4]), 50)
    assert (index[0] >= 3).all() and (index[1] < 3).all()


@pytest.mark.parametrize("kind", [torch.bool, torch.float32])
def test_kept_frames_are_bit_identical_and_the_others_foreign(kind: torch.dtype):
    torch.manual_seed(0)
    frames, foreign, swap = torch.randn(4, 6, 5), torch.randn(4, 6, 5), torch.rand(4, 6) < 0.5
    swapped = swap_frames(frames, swap.to(kind), foreign)
    assert torch.equal(swapped[~swap], frames[~swap]) and torch.equal(swapped[swap], foreign[swap])
    assert torch.equal(swap_frames(frames, (swap & False).to(kind), foreign), frames)  # nothing to replace: v* = v


def test_the_choice_hears_of_a_swap_only_through_a_mask_of_numbers():
    frames, foreign = torch.zeros(1, 2, 3), torch.ones(1, 2, 3)
    swap = torch.tensor([[1.0, 0.0]], requires_grad=True)
    assert not swap_frames(frames, swap.bool(), foreign).requires_grad
    swap_frames(frames, swap, foreign).sum().backward()
    assert swap.grad.tolist() == [[3.0, 3.0]]


def test_a_bank_whose_parts_do_not_fit_is_refused():
    with pytest.raises(CausalVideoError, match="2 video ids"):
        FrameBank(torch.zeros(3, 4, 5), torch.tensor([1, 2]))
    with pytest.raises(CausalVideoError, match="mask"):
        FrameBank(torch.zeros(3, 4, 5), torch.arange(3), torch.ones(3, 5, dtype=torch.bool))


def test_what_is_drawn_is_what_is_taken():
    pool = bank([7, 8, 9])
    index = pool.draw(torch.tensor([8]), 4)
    assert torch.equal(pool.take(index), pool.frames.flatten(0, 1)[index])
