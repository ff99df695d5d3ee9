"""Laws of mixing: coefficients of one give the sample itself, of zero its partner's; environments take no answer."""

import torch
import torch.nn.functional as F

from hf_causal_video.causal import divergence, draw_lambda, mix_scenes, mixed_answer_loss, two_hot, uniformity

ONE, ZERO = torch.tensor(1.0), torch.tensor(0.0)


def scene() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    causal = (torch.rand(4, 5) < 0.5).float()
    return torch.randn(4, 5, 3), causal, 1 - causal, torch.tensor([2, 3, 0, 1])


def test_full_coefficients_change_nothing_and_none_gives_the_partner():
    frames, causal, environment, partner = scene()
    assert torch.equal(mix_scenes(frames, causal, environment, partner, ONE, ONE), frames)
    assert torch.equal(mix_scenes(frames, causal, environment, partner, ZERO, ZERO), frames[partner])


def test_the_two_coefficients_reach_only_their_side():
    frames, causal, environment, partner = scene()
    mixed = mix_scenes(frames, causal, environment, partner, ONE, ZERO)
    wanted = causal.unsqueeze(-1) * frames + environment[partner].unsqueeze(-1) * frames[partner]
    torch.testing.assert_close(mixed, wanted)


def test_a_coefficient_a_sample_is_that_of_its_own_row():
    frames, causal, environment, partner = scene()
    one, two = torch.rand(4), torch.rand(4)
    mixed = mix_scenes(frames, causal, environment, partner, one, two)
    for row in range(4):
        alone = mix_scenes(frames, causal, environment, partner, one[row], two[row])
        torch.testing.assert_close(mixed[row], alone[row])


def test_mixing_commutes_with_a_linear_map():
    """What lets a backbone embed frames once for all edited copies of a clip."""
    frames, causal, environment, partner = scene()
    weight, (one, two) = torch.randn(7, 3), torch.rand(2)
    before = F.linear(mix_scenes(frames, causal, environment, partner, one, two), weight)
    after = mix_scenes(F.linear(frames, weight), causal, environment, partner, one, two)
    torch.testing.assert_close(before, after)


def test_the_mixed_answer_is_the_plain_one_at_one_and_the_partners_at_zero():
    _, _, _, partner = scene()
    logits, labels = torch.randn(4, 6), torch.tensor([0, 5, 2, 2])
    torch.testing.assert_close(mixed_answer_loss(logits, labels, partner, ONE), F.cross_entropy(logits, labels))
    torch.testing.assert_close(
        mixed_answer_loss(logits, labels, partner, ZERO), F.cross_entropy(logits, labels[partner])
    )
    target = two_hot(labels, partner, torch.tensor(0.3), 6)
    torch.testing.assert_close(target.sum(1), torch.ones(4))
    assert (target > 0).sum(1).eq(2).all() and target[1, 5] == 0.3 and target[1, 6 + 2] == 0.7


def test_coefficients_lie_between_zero_and_one():
    torch.manual_seed(0)
    drawn = draw_lambda(0.1, 2000)
    assert drawn.shape == (2000,) and draw_lambda(1.0, None).shape == ()
    assert 0 <= drawn.min() and drawn.max() <= 1 and 0.45 < drawn.mean() < 0.55
    assert ((drawn < 0.1) | (drawn > 0.9)).float().mean() > 0.7  # a small parameter mixes little


def test_uniformity_is_zero_for_equal_logits_alone():
    present = torch.tensor([[True, True, False], [True, True, True]])
    equal = torch.zeros(2, 3).masked_fill(~present, torch.finfo(torch.float32).min)
    assert uniformity(equal, present).abs() < 1e-6
    assert uniformity(equal + torch.tensor([[0.5, 0.0, 0.0], [0.0, 0.0, 0.0]]), present) > 0.01
    only = uniformity(torch.tensor([[3.0, 0.0], [0.0, 0.0]]), rows=torch.tensor([False, True]))
    assert only.abs() < 1e-6 and uniformity(torch.randn(2, 3), rows=torch.tensor([False, False])) == 0


def test_divergence_is_zero_between_equals_and_absent_answers_reach_no_gradient():
    logits = torch.randn(3, 4).masked_fill(torch.tensor([False, False, False, True]), torch.finfo(torch.float32).min)
    target, other = logits.clone().requires_grad_(), (logits + 1).requires_grad_()
    loss = divergence(target, other)
    assert loss.abs() < 1e-6
    divergence(target, other * torch.tensor([1.0, 2.0, 1.0, 1.0])).backward()
    assert target.grad.isfinite().all() and other.grad.isfinite().all() and target.grad.any()
    p, q = torch.randn(5, 4), torch.randn(5, 4)
    torch.testing.assert_close(
        divergence(p, q), F.kl_div(q.log_softmax(1), p.softmax(1), reduction="batchmean"), atol=1e-6, rtol=1e-5
    )
