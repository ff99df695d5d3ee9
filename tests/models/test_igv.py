"""Laws of IGV: the answer rests on the causal frames, each term does what its equation says, nothing more is run."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from transformers.utils import logging

from hf_causal_video.causal import FrameBank
from hf_causal_video.models.backbone import BackboneConfig, BackboneForVideoQuestionAnswering
from hf_causal_video.models.base import RandomInputs
from hf_causal_video.models.igv import IGVConfig, IGVForVideoQuestionAnswering, modeling_igv
from hf_causal_video.utils.errors import CausalVideoError
from tests.models.cases import CASES, Case, run

pytestmark = pytest.mark.rounding

CHOICES, CANDIDATES, OPEN = (
    next(c for c in CASES if c.name == f"igv-{n}") for n in ("choices", "candidates", "open-ended")
)
FRAMES = {"intervention": "frames", "intervened_target": "causal"}  # the intervention as the thesis has it
BANK = {**FRAMES, "bank": "dataset"}
every_kind = pytest.mark.parametrize("case", [CHOICES, CANDIDATES, OPEN], ids=lambda case: case.name)


def train(case: Case, **fields: Any) -> IGVForVideoQuestionAnswering:
    """A model in training without any dropout, so that a step is a function of its draws."""
    model = case.build(**case.still, **fields).train()
    model.text_encoder.eval()
    return model


def loss_terms(model: torch.nn.Module, seed: int = 0, **inputs: Any) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return model(**inputs).losses


@pytest.mark.parametrize("mask_mode", ["zero", "drop"])
@every_kind
def test_the_answer_is_the_backbones_on_the_causal_frames_alone(case: Case, mask_mode: str):
    model, inputs = case.build(mask_mode=mask_mode), case.inputs()
    shared = {name: case.fields[name] for name in ("text_config", "backbone_config", "frame_feature_dim")}
    config = BackboneConfig(**shared, num_answers=case.fields.get("num_answers"))
    plain = BackboneForVideoQuestionAnswering(config).eval()
    kept = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("indicator.")}
    plain.load_state_dict(kept)
    with torch.no_grad():
        out = model(**inputs)
        zeroed = inputs["frame_features"] * out.causal_mask.unsqueeze(-1)
        again = plain(
            **inputs | ({"frame_mask": out.causal_mask} if mask_mode == "drop" else {"frame_features": zeroed})
        )
    if case is CANDIDATES:  # the other candidates rest on frames of their own
        best = out.logits.argmax(1, keepdim=True)
        torch.testing.assert_close(out.logits.gather(1, best), again.logits.gather(1, best))
    else:
        torch.testing.assert_close(out.logits, again.logits)
    frames = inputs["frame_features"].masked_fill(out.causal_mask.unsqueeze(-1), 0.0)
    assert (out.causal_mask <= inputs["frame_mask"]).all()
    assert frames.any()  # something was left out


@every_kind
def test_prediction_runs_one_branch(case: Case):
    model, calls = case.build(), []
    encode = model.backbone.encode_video
    model.backbone.encode_video = lambda *given: calls.append(given[1]) or encode(*given)  # type: ignore[method-assign]
    with torch.no_grad():
        model(**case.inputs())
    assert len(calls) == 2  # the clip, to ground in, and its causal frames


def terms_run(losses: dict[str, torch.Tensor]) -> set[str]:
    """Terms that a step computed; the others are 0 without gradient."""
    return {name for name, term in losses.items() if term.requires_grad}


def test_a_branch_of_no_weight_is_not_run():
    model = train(OPEN, environment_weight=0.0, intervened_weight=0.0, match_weight=0.0)
    assert terms_run(loss_terms(model, **OPEN.inputs())) == {"answer", "size"}
    model = train(OPEN, intervened_weight=0.0)
    assert terms_run(loss_terms(model, **OPEN.inputs())) == {"answer", "size", "match", "environment"}


@every_kind
def test_the_loss_is_the_weighted_sum_of_its_terms(case: Case):
    weights = {"answer": 2.0, "intervened": 0.5, "environment": 0.3, "size": 4.0, "match": 0.7}
    model = train(case, **{f"{name}_weight": weight for name, weight in weights.items()})
    out = model(**case.inputs())
    assert terms_run(out.losses) == weights.keys()
    torch.testing.assert_close(out.loss, sum(weights[name] * out.losses[name] for name in weights))
    assert all(term.isfinite() for term in out.losses.values())


def gradient_of_indicator(term: str, **fields: Any) -> float:
    model = train(OPEN, **fields)
    loss_terms(model, **OPEN.inputs())[term].backward()
    return sum(float(p.grad.abs().sum()) for p in model.indicator.parameters() if p.grad is not None)


def test_a_detached_target_leaves_the_indicator_out_of_the_intervened_term():
    assert gradient_of_indicator("intervened", **FRAMES, detach_target=False) > 0
    assert gradient_of_indicator("intervened", **FRAMES, detach_target=True) == 0
    assert gradient_of_indicator("answer") > 0 and gradient_of_indicator("environment") > 0


def test_the_size_term_is_the_squared_distance_of_the_mean_from_its_target():
    inputs = OPEN.inputs()
    first = loss_terms(train(OPEN, size_target=0.3), **inputs)["size"].sqrt()
    second = loss_terms(train(OPEN, size_target=0.9), **inputs)["size"].sqrt()
    torch.testing.assert_close(first + second, torch.tensor(0.6))  # the mean of an untrained model lies between


def test_the_same_draws_give_the_same_step_and_the_intervention_keeps_causal_frames():
    model, inputs = train(OPEN, **FRAMES), OPEN.inputs()
    noise, foreign = torch.zeros(3, 2, 9), torch.randint(0, 7, (3, 9))
    drawn = RandomInputs(gumbel=noise, foreign=foreign)
    assert torch.equal(run(model, drawn, **inputs).loss, run(model, drawn, **inputs).loss)
    seen = []
    encode = model.backbone.encode_video
    model.backbone.encode_video = lambda *given: seen.append(given) or encode(*given)  # type: ignore[method-assign]
    causal = run(model, drawn, **inputs).causal_mask
    (whole, mask), (branches, _) = seen[0], seen[1]
    intervened = branches[6:]  # behind the causal and the environment branch
    assert torch.equal(intervened[causal], whole[causal])
    away = ~causal & mask
    assert torch.equal(intervened[away], whole.flatten(0, 1)[foreign][away])


def test_frames_of_the_same_video_are_never_swapped_in():
    """With one other video in the batch every swapped frame is one of its frames."""
    model, inputs = train(OPEN), OPEN.inputs()
    seen = []
    encode = model.backbone.encode_video
    model.backbone.encode_video = lambda *given: seen.append(given) or encode(*given)  # type: ignore[method-assign]
    causal = model(**inputs, video_ids=torch.tensor([4, 4, 7])).causal_mask
    whole, intervened, mask = seen[0][0], seen[1][0][6:], inputs["frame_mask"]
    others = whole[2][mask[2]]
    for row in (0, 1):
        for frame in intervened[row][~causal[row] & mask[row]]:
            assert (frame == others).all(1).any()


@every_kind
def test_a_batch_without_another_video_leaves_the_intervention_out(case: Case):
    model, inputs = train(case), case.inputs()
    without = {name: term for name, term in loss_terms(train(case, intervened_weight=0.0), **inputs).items()}
    terms = loss_terms(model, **inputs, video_ids=torch.tensor([4, 4, 4]))
    assert terms["intervened"] == 0 and loss_terms(model, **inputs)["intervened"] != 0
    torch.testing.assert_close(terms["answer"], without["answer"])
    alone = {name: tensor[:1] for name, tensor in inputs.items()}
    loss = model(**alone).loss
    loss.backward()  # every parameter stays in the graph, for DDP
    assert loss.isfinite() and all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("case", [CHOICES, OPEN], ids=lambda case: case.name)
def test_the_answer_takes_part_in_matching_and_in_nothing_else(case: Case):
    model, inputs = train(case), case.inputs()
    term = loss_terms(model, **inputs)["match"]
    term.backward()
    assert model.indicator.answers.vector.weight.grad.any()
    other = inputs | {"labels": (inputs["labels"] + 1) % 3}
    assert loss_terms(model, **other)["match"] != term
    unknown = inputs | {"labels": torch.full((3,), -100)}
    with patch.object(model.indicator, "answers", None):
        without = loss_terms(model, **inputs)["match"]
    torch.testing.assert_close(loss_terms(model, **unknown)["match"], without)
    model.eval()
    before = model(**inputs).logits
    with torch.no_grad():
        model.indicator.answers.vector.weight.add_(1.0)
    assert torch.equal(model(**inputs).logits, before)  # what grounds at test time has seen no answer
    assert train(CANDIDATES).indicator.answers is None  # each candidate grounds for itself


@every_kind
def test_the_intervened_branch_shows_the_surroundings_of_one_other_clip_and_keeps_the_label(case: Case):
    model, inputs = train(case), case.inputs()
    seen = []
    exchange = modeling_igv.exchange_surroundings

    def record(*given):
        seen.append((given, exchange(*given)))
        return seen[-1][1]

    with patch.object(modeling_igv, "exchange_surroundings", record):
        out = model(**inputs)
    (frames, causal, environment, donors), moved = seen[0]
    clip = torch.arange(3).repeat_interleave(len(frames) // 3)
    assert (clip[donors] != clip).all()
    for row in range(len(frames)):
        for frame in moved[row][~causal[row] & environment[row]]:
            assert (frame == frames[donors[row]][environment[donors[row]]]).all(1).any()
    known = loss_terms(model, **inputs | {"labels": torch.full((3,), -100)})
    assert known["intervened"] == 0 and out.losses["intervened"] > 0  # it is trained on the label


def test_only_questions_with_another_video_count_in_the_intervention():
    """Two questions about one video, one about another: the first two swap with the third, whose own pool is both."""
    model, inputs = train(OPEN), OPEN.inputs()
    both = loss_terms(model, **inputs, video_ids=torch.tensor([4, 4, 5]))["intervened"]
    assert both > 0  # nobody is left out
    model = with_bank(train(OPEN, **BANK), videos=1)  # a bank of video 10 alone
    torch.manual_seed(0)
    some = model(**inputs, video_ids=torch.tensor([10, 10, 3])).losses["intervened"]
    torch.manual_seed(0)
    none = model(**inputs, video_ids=torch.tensor([10, 10, 10])).losses["intervened"]
    assert some > 0 and none == 0


def test_clips_of_one_frame_have_no_environment_to_be_silent_about():
    model, inputs = train(OPEN), OPEN.inputs()
    inputs["frame_mask"] = torch.arange(9) < torch.tensor([[1], [1], [1]])
    terms = loss_terms(model, **inputs)
    assert terms["environment"] == 0 and terms["intervened"].abs() < 1e-6
    assert model.eval()(**inputs).causal_mask.sum(1).tolist() == [1, 1, 1]


def test_warm_up_is_the_backbones_step_and_the_ramp_grows_from_it():
    inputs = OPEN.inputs()
    model = train(OPEN, warmup_share=0.4, ramp_share=0.2)
    for progress, share in ((0.0, 0.0), (0.39, 0.0), (0.5, 0.5), (0.6, 1.0), (1.0, 1.0)):
        model.training_progress = progress
        assert model._grounding_share() == pytest.approx(share)
    model.training_progress = 0.1
    out = model(**inputs)
    assert terms_run(out.losses) == {"answer", "size", "match", "separation"}
    torch.testing.assert_close(out.loss, sum(out.losses[name] for name in ("answer", "match", "separation")))
    assert out.causal_mask is None and out.kept_frames.shape == (3, 9)  # the whole clip answers
    out.loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())  # DDP needs all of them
    assert all(scorer.linear_q.weight.grad.any() for scorer in (model.indicator.fg_att, model.indicator.bg_att))
    model.training_progress = 0.5
    out = model(**inputs)
    weights = {"answer": 1.0, "match": 1.0, "separation": 0.5, "size": 2.5, "environment": 0.1, "intervened": 0.5}
    torch.testing.assert_close(out.loss, sum(weights[name] * term for name, term in out.losses.items()))


def test_every_step_names_the_same_terms_and_the_loss_is_that_of_those_it_ran():
    """Gathering and compiling rely on as many leaves in every step; a term that was left out adds no rounding."""
    model, inputs, names = train(OPEN, warmup_share=0.4, ramp_share=0.2), OPEN.inputs(), []
    for progress in (0.1, 0.5, 1.0):
        model.training_progress = progress
        out = model(**inputs)
        names.append(list(out.losses))
        ran = {name: term for name, term in out.losses.items() if term.requires_grad}
        assert not any(out.losses[name] for name in out.losses.keys() - ran.keys())  # 0, and not NaN
        weights = model._weights(ran, model._grounding_share())
        assert torch.equal(out.loss, torch.stack([weights[name] * term for name, term in ran.items()]).sum())
        assert len(ran) == {0.1: 4, 0.5: 6, 1.0: 5}[progress]
    assert names[0] == names[1] == names[2] == ["answer", "size", "match", "separation", "environment", "intervened"]


def test_without_a_schedule_every_term_has_its_full_weight_and_one_warning_says_so(caplog: pytest.LogCaptureFixture):
    logging.get_logger("hf_causal_video").propagate = True
    modeling_igv.logger.warning_once.cache_clear()
    model, inputs = train(OPEN), OPEN.inputs()
    model.training_progress = None
    for _ in range(2):
        torch.manual_seed(0)
        free = model(**inputs)
    model.training_progress = 1.0
    torch.manual_seed(0)
    torch.testing.assert_close(free.loss, model(**inputs).loss, atol=0, rtol=0)
    assert sum("training_progress is not set" in record.message for record in caplog.records) == 1


def with_bank(model: IGVForVideoQuestionAnswering, videos: int = 6) -> IGVForVideoQuestionAnswering:
    source = torch.Generator().manual_seed(1)
    model.bank = FrameBank(torch.randn(videos, 4, 12, generator=source), torch.arange(10, 10 + videos))
    return model


def test_a_bank_lends_frames_is_no_weight_and_comes_back_bit_by_bit(tmp_path: Path):
    model, inputs = with_bank(train(OPEN, **BANK)), OPEN.inputs() | {"video_ids": torch.tensor([10, 11, 15])}
    assert not any("bank" in name for name in model.state_dict())
    torch.manual_seed(5)
    before = model(**inputs).loss
    model.save_pretrained(tmp_path / "plain")
    assert not (tmp_path / "plain" / "frame_bank.safetensors").exists()
    model.save_pretrained(tmp_path / "whole", save_bank=True)
    resumed = IGVForVideoQuestionAnswering.from_pretrained(tmp_path / "whole").train()
    resumed.training_progress = 1.0
    assert resumed.bank is None
    resumed.load_bank(tmp_path / "whole")
    torch.testing.assert_close(resumed.bank.frames, model.bank.frames, atol=0, rtol=0)
    resumed.text_encoder.eval(), model.text_encoder.eval()
    torch.manual_seed(5)
    model_loss = model(**inputs).loss
    torch.manual_seed(5)
    assert torch.equal(resumed(**inputs).loss, model_loss) and before.isfinite()
    with pytest.raises(CausalVideoError, match="found no .*frame_bank.safetensors"):
        resumed.load_bank(tmp_path / "plain")


def test_a_bank_that_is_missing_is_refused():
    inputs = OPEN.inputs() | {"video_ids": torch.tensor([10, 10, 10])}
    with pytest.raises(CausalVideoError, match="frame bank: found none"):
        train(OPEN, **BANK)(**inputs)
    with pytest.raises(CausalVideoError, match="no video_ids"):
        with_bank(train(OPEN, **BANK))(**OPEN.inputs())
    assert with_bank(train(OPEN, **BANK), videos=2)(**inputs).loss.isfinite()


@every_kind
def test_questions_of_one_clip_encode_it_once_and_answer_alike(case: Case):
    model, inputs = case.build(), case.inputs()
    clips = ("frame_features", "frame_mask")
    repeated = inputs | {name: inputs[name][[0, 0, 2]] for name in clips}
    shared = inputs | {name: inputs[name][[0, 2]] for name in clips} | {"video_index": torch.tensor([0, 0, 1])}
    one, other = model(**repeated), model(**shared)
    torch.testing.assert_close(one.logits, other.logits, atol=1e-5, rtol=1e-4)
    assert torch.equal(one.causal_mask, other.causal_mask)
    assert model.train()(**shared).loss.isfinite()


@pytest.mark.parametrize("features", [True, False])
def test_features_take_the_place_of_ids(features: bool):
    model, inputs = CHOICES.build(), CHOICES.inputs()
    given = dict(inputs)
    choices, mask = given.pop("choice_input_ids"), given["choice_attention_mask"]
    question = given.pop("input_ids")
    states = model.encode_text([(question, inputs["attention_mask"]), (choices.flatten(0, 1), mask.flatten(0, 1))])
    given |= {"question_features": states[0], "choice_features": states[1].unflatten(0, mask.shape[:2])}
    torch.testing.assert_close(model(**given).logits, model(**inputs).logits, atol=1e-5, rtol=1e-4)
    if features:
        bare = IGVForVideoQuestionAnswering(
            IGVConfig(**CHOICES.fields | {"text_config": None, "text_feature_dim": 16})
        )
        assert bare.eval()(**given).loss.isfinite() and bare.text_encoder is None
        with pytest.raises(CausalVideoError, match="no text encoder"):
            bare(**inputs)
        with pytest.raises(CausalVideoError, match="width 16"):
            bare(**given | {"question_features": states[0][..., 1:]})


def test_a_pretrained_text_encoder_is_taken_as_it_is(tmp_path: Path):
    source = OPEN.build()
    source.text_encoder.save_pretrained(tmp_path)
    fields = {name: value for name, value in OPEN.fields.items() if name != "text_config"}
    model = IGVForVideoQuestionAnswering.from_text_pretrained(str(tmp_path), **fields)
    for name, tensor in source.text_encoder.state_dict().items():
        assert torch.equal(model.text_encoder.state_dict()[name], tensor)


def test_objects_are_not_read():
    model, inputs = OPEN.build(), OPEN.inputs()
    with_objects = inputs | {"object_features": torch.full((3, 9, 4, 8), torch.nan), "object_boxes": torch.zeros(1)}
    assert torch.equal(model(**inputs).logits, model(**with_objects).logits)


def test_zeroed_frames_may_stand_in_for_dropped_ones():
    dropped, zeroed = OPEN.build(mask_mode="drop"), OPEN.build()
    inputs = OPEN.inputs()
    one, other = dropped(**inputs), zeroed(**inputs)
    assert torch.equal(one.causal_mask, other.causal_mask) and not torch.equal(one.logits, other.logits)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"mc_grounding": "answer"}, "mc_grounding of IGV: found 'answer'"),
        ({"gumbel_tau": 0.0}, "gumbel_tau: found 0.0"),
        ({"warmup_share": 0.8, "ramp_share": 0.4}, "at most 1"),
        ({"backbone": "telepathy"}, "telepathy"),
        ({"backbone_config": {"wheels": 3}}, "wheels"),
        ({"frame_feature_dim": 0}, "frame_feature_dim: found 0"),
    ],
)
def test_settings_that_cannot_run_are_refused(fields: dict[str, Any], words: str):
    with pytest.raises(Exception, match=words):  # huggingface_hub wraps what a config refuses in an error of its own
        IGVForVideoQuestionAnswering(IGVConfig(**OPEN.fields | fields))


def test_presets_are_named_and_merge_the_backbones_fields():
    config = IGVConfig.preset("official-msrvttqa-hga", backbone_config={"dropout": 0.0})
    assert config.backbone_config["dropout"] == 0.0 and config.backbone_config["cell"] == "gru"
    assert (config.num_answers, config.gumbel_tau, config.grounding_logits) == (5001, 0.9, "prob")
    other = IGVConfig.preset("official-msvdqa-hga", backbone="pooling", backbone_config={"hidden_size": 8})
    assert other.backbone_config == {"hidden_size": 8} and other.grounding_logits == "prob"
    assert IGVConfig.preset("official-msvdqa-hga", backbone="pooling").backbone_config == {}
    assert IGVConfig.preset("clean").to_diff_dict() == IGVConfig().to_diff_dict()
    with pytest.raises(CausalVideoError, match="official-msvdqa-hga"):
        IGVConfig.preset("official")
    with pytest.raises(CausalVideoError, match="warm_up"):
        IGVConfig.preset("clean", warm_up=1)
