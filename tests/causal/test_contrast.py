"""Laws of the contrastive disruptor: an anchor meets its own negatives, and is never asked its own question."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_causal_video.causal import arrange_negatives, deranged_rows, info_nce
from hf_causal_video.utils.errors import CausalVideoError


def marked(copies: int, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Negatives that say whose they are, and of which kind."""
    own = torch.arange(rows).float().view(1, -1, 1).expand(copies, -1, 1)
    return torch.cat([own, torch.zeros_like(own)], 2), torch.cat([own, torch.ones_like(own)], 2)


def test_paired_negatives_belong_to_their_anchor():
    negatives = arrange_negatives(*marked(3, 4))
    assert negatives.shape == (4, 6, 2)
    assert (negatives[:, :, 0] == torch.arange(4)[:, None]).all()
    assert negatives[:, :, 1].sum(1).tolist() == [3.0] * 4  # as many of either kind


def test_legacy_negatives_are_mostly_those_of_others():
    """Methods 3.7: 99 % at batch 128 and 5 copies, and an anchor gets one kind only."""
    negatives = arrange_negatives(*marked(5, 128), layout="legacy")
    others = (negatives[:, :, 0] != torch.arange(128)[:, None]).float().mean()
    assert others > 0.99
    assert set(negatives[:, :, 1].mean(1).tolist()) == {0.0, 1.0}


def test_the_term_is_cross_entropy_over_scaled_cosines():
    anchor, positive, negatives = torch.randn(3, 8), torch.randn(3, 8), torch.randn(3, 4, 8)
    logits = F.cosine_similarity(anchor.unsqueeze(1), torch.cat([positive.unsqueeze(1), negatives], 1), dim=-1) / 0.1
    wanted = F.cross_entropy(logits, torch.zeros(3, dtype=torch.long))
    torch.testing.assert_close(info_nce(anchor, positive, negatives), wanted)
    torch.testing.assert_close(info_nce(5 * anchor, positive, 3 * negatives), wanted)
    assert (
        info_nce(5 * anchor, positive, negatives, cosine=False) - info_nce(anchor, positive, negatives)
    ).abs() > 0.1


def test_equal_vectors_leave_a_guess():
    same = torch.ones(2, 3)
    torch.testing.assert_close(info_nce(same, same, torch.ones(2, 9, 3)), torch.tensor(math.log(10.0)))


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 9), st.integers(1, 4), st.integers(0, 999))
def test_a_rearranged_question_is_never_the_own(rows: int, copies: int, seed: int):
    torch.manual_seed(seed)
    order = deranged_rows(rows, copies)
    assert (order != torch.arange(rows)).all()
    assert (order.sort(1).values == torch.arange(rows)).all()


def test_every_other_question_is_asked():
    torch.manual_seed(0)
    order = deranged_rows(4, 4000)
    for row in range(4):
        shares = order[:, row].bincount(minlength=4) / 4000
        assert shares[row] == 0 and all(0.28 < share < 0.39 for place, share in enumerate(shares) if place != row)


def test_a_lone_question_cannot_be_rearranged():
    with pytest.raises(CausalVideoError, match="at least 2"):
        deranged_rows(1, 2)
