"""Laws of given similarities in TranSTR: they rank, and they answer, but only with what was kept."""

import pytest
import torch

from hf_causal_video import TranSTRConfig, TranSTRForVideoQuestionAnswering
from hf_causal_video.utils.errors import CausalVideoError

TEXT = {"model_type": "bert", "vocab_size": 9, "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1,
        "intermediate_size": 8}  # fmt: skip


def build(**fields):
    torch.manual_seed(0)
    fields = {"num_similarities": 2, "rank_by": "scorer", **fields}
    config = TranSTRConfig(text_config=TEXT, hidden_size=8, num_attention_heads=2, intermediate_size=8,
                           frame_feature_dim=6, num_frames_kept=2, num_objects_kept=0, **fields)  # fmt: skip
    return TranSTRForVideoQuestionAnswering(config).eval()


def inputs(frames=5, choices=3):
    source = torch.Generator().manual_seed(1)
    shapes = {"frame_features": (2, frames, 6), "question_features": (2, 1, 8), "choice_features": (2, choices, 8),
              "similarities": (2, choices, frames, 2)}  # fmt: skip
    return {name: torch.randn(shape, generator=source) for name, shape in shapes.items()}


@pytest.mark.parametrize("rank_by", ["scorer", "energy"])
def test_padded_frames_change_nothing(rank_by):
    model, given = build(rank_by=rank_by), inputs()
    padded = dict(given, frame_mask=torch.arange(8).expand(2, 8) < 5)
    padded["frame_features"] = torch.nn.functional.pad(given["frame_features"], (0, 0, 0, 3), value=7.0)
    padded["similarities"] = torch.nn.functional.pad(given["similarities"], (0, 0, 0, 3), value=9.0)
    one, two = model(**given), model(**padded)
    torch.testing.assert_close(one.logits, two.logits, atol=1e-5, rtol=1e-5)
    assert one.kept_frames.equal(two.kept_frames)


def test_the_answer_rests_on_kept_frames_only():
    model, given = build(), inputs()
    with torch.no_grad():
        model.similarity.ranking.zero_()  # so that similarities cannot change what is kept
    before = model(**given)
    changed = given["similarities"].clone()
    dropped = torch.ones(2, 5, dtype=torch.bool).scatter(1, before.kept_frames, False)
    changed.transpose(1, 2)[dropped] += 5.0
    assert model(**dict(given, similarities=changed)).logits.equal(before.logits)
    changed.transpose(1, 2)[~dropped] += torch.randn(3, 2)
    assert not model(**dict(given, similarities=changed)).logits.allclose(before.logits)


def test_the_frame_that_fits_a_choice_is_kept_and_decides():
    model, given = build(), inputs()
    given["similarities"].zero_()
    given["similarities"][0, 2, 3], given["similarities"][1, 0, 4] = 9.0, 9.0
    output = model(**given)
    assert 3 in output.kept_frames[0] and 4 in output.kept_frames[1]
    assert output.logits.argmax(-1).tolist() == [2, 0]


def test_an_absent_choice_ranks_no_frame():
    model, given = build(), inputs()
    ids = torch.ones(2, 3, 4, dtype=torch.long)
    mask = ids * torch.tensor([1, 1, 0])[None, :, None]
    given = dict(given, choice_input_ids=ids, choice_attention_mask=mask)
    del given["choice_features"]
    before = model(**given)
    given["similarities"] = given["similarities"].clone()
    given["similarities"][:, 2] += 100 * torch.rand(2, 5, 2)
    after = model(**given)
    assert after.frame_scores.equal(before.frame_scores) and after.logits.equal(before.logits)


def test_the_ranking_learns_through_the_selection():
    model = build().train()
    model(**inputs(), labels=torch.tensor([0, 1])).loss.backward()
    weights = dict(model.similarity.named_parameters())
    assert all(weight.grad.isfinite().all() and weight.grad.abs().sum() > 0 for weight in weights.values())


@pytest.mark.parametrize(
    "bad", [None, torch.zeros(2, 3, 5, 1), torch.zeros(2, 3, 4, 2), torch.full((2, 3, 5, 2), torch.nan)]
)
def test_wrong_similarities_are_refused(bad):
    with pytest.raises(CausalVideoError, match="similarities"):
        build()(**dict(inputs(), similarities=bad))


def test_settings_that_mean_nothing_are_refused():
    for fields in ({"num_answers": 4}, {"rank_by": "prob"}):
        with pytest.raises(Exception, match="num_similarities"):
            build(**fields)
