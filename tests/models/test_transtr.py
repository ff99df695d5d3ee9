"""Laws of TranSTR: its presets, its selection, its text encoders, and what the questions of a video share."""

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel, BertConfig, BertModel

from hf_causal_video.causal import topk_indices
from hf_causal_video.models.transtr import TranSTRConfig, TranSTRForVideoQuestionAnswering
from hf_causal_video.utils.errors import CausalVideoError
from tests.backbones.test_text import KINDS, text_config
from tests.models.cases import CASES as ALL_CASES
from tests.models.cases import FRAME_DIM, TEXT, TRANSTR, Case, transtr

pytestmark = pytest.mark.rounding

CASES = [case for case in ALL_CASES if case.model_class is TranSTRForVideoQuestionAnswering]
CHOICES, OPEN_ENDED, FRAMES_ALONE, ENERGY, OFFICIAL, EARLY = CASES
EFFECTIVE = {
    "official-nextqa": (12, 5, None),
    "official-causalvidqa": (12, 5, None),
    "official-msvdqa": (2, 3, 1853),
    "official-msrvttqa": (5, 1, 5001),
}


@pytest.mark.parametrize("preset", TranSTRConfig.presets())
def test_every_preset_builds_and_answers(preset: str, no_network: None) -> None:
    names = ("text_config", "hidden_size", "num_attention_heads", "intermediate_size", "object_feature_dim")
    tiny = {name: TRANSTR[name] for name in names} | {"frame_feature_dim": 16, "topk_samples": 8, "num_choices": None}
    config = TranSTRConfig.preset(preset, **tiny)
    model = TranSTRForVideoQuestionAnswering(config).eval()
    inputs = Case("", type(model), {"num_answers": config.num_answers}).inputs(frames=16, objects=20)
    inputs["frame_features"] = torch.randn(3, 16, 16)
    inputs.pop("frame_mask")
    output = model(**inputs)
    assert output.kept_frames.shape == (3, config.num_frames_kept)
    assert output.kept_objects.shape == (3, config.num_frames_kept, config.num_objects_kept)
    assert output.logits.shape == (3, config.num_answers or 4)
    model.train()(**inputs).loss.backward()


@pytest.mark.parametrize(("preset", "sizes"), EFFECTIVE.items())
def test_official_presets_state_the_effective_sizes(preset: str, sizes: tuple) -> None:
    config = TranSTRConfig.preset(preset)
    assert (config.num_frames_kept, config.num_objects_kept, config.num_answers) == sizes
    assert config.bbox_mode == ("norm5" if "causalvid" in preset else "raw4")
    assert config.project_frames is False and config.frame_feature_dim == config.hidden_size == 768
    assert (config.rank_by, config.topk_gradient, config.topk_order) == ("prob", "diagonal", "unsorted")
    assert (config.topk_samples, config.topk_sigma, config.topk_sigma_final) == (500, 0.05, None)
    assert config.rank_after_dropout and config.text_config.model_type == "deberta"
    assert config.select_after == "feedforward"


@pytest.mark.parametrize("kind", KINDS)
def test_any_text_encoder_will_do(kind: str, no_network: None, tmp_path: Path) -> None:
    case = transtr(kind, text_config=text_config(kind).to_dict())
    model, inputs = case.build(), case.inputs()
    for name in ("input_ids", "choice_input_ids"):
        mask = inputs["attention_mask" if name == "input_ids" else "choice_attention_mask"]
        inputs[name] = (inputs[name] % 30 + 5).masked_fill(mask == 0, text_config(kind).pad_token_id)
    model.train()(**inputs).loss.backward()
    assert next(model.text_encoder.parameters()).grad is not None
    model.eval().save_pretrained(tmp_path)
    with torch.no_grad():
        logits = AutoModel.from_pretrained(tmp_path).eval()(**inputs).logits
        torch.testing.assert_close(logits, model(**inputs).logits)


def test_pretrained_text_weights_are_taken_over(tmp_path: Path) -> None:
    fields = {name: value for name, value in TEXT.items() if name != "model_type"}
    encoder = BertModel(BertConfig(**fields))
    encoder.save_pretrained(tmp_path)
    fields = {name: value for name, value in TRANSTR.items() if name != "text_config"}
    model = TranSTRForVideoQuestionAnswering.from_text_pretrained(str(tmp_path), **fields)
    wanted = encoder.state_dict()
    for name, tensor in model.text_encoder.state_dict().items():
        assert torch.equal(tensor, wanted[name]), name
    assert model.config.text_config.hidden_size == 16


def test_text_of_another_width_is_projected() -> None:
    case = transtr("wide", hidden_size=24)
    assert case.build().text_resize.out_features == 24
    case.build()(**case.inputs())


def test_without_objects_nothing_of_them_is_built() -> None:
    model = FRAMES_ALONE.build()
    assert not [name for name in model.state_dict() if name.startswith(("obj", "fo_decoder"))]
    output = model(**FRAMES_ALONE.inputs())
    assert output.kept_objects is None and output.object_scores is None


def test_objects_of_dropped_frames_are_never_read() -> None:
    model, inputs = CHOICES.build(), CHOICES.inputs()
    with torch.no_grad():
        output = model(**inputs)
        dropped = torch.ones(3, 9).scatter(1, output.kept_frames, 0).bool()
        blind = model(
            **inputs | {"object_features": inputs["object_features"].masked_fill(dropped[..., None, None], 5.0)}
        )
    assert torch.equal(output.logits, blind.logits)


def test_scorer_keeps_distinct_frames_and_the_best_ones() -> None:
    with torch.no_grad():
        output = CHOICES.build()(**CHOICES.inputs())
    assert (output.kept_frames.diff(dim=1) > 0).all()
    assert torch.equal(output.kept_frames, topk_indices(output.frame_scores, 4))
    objects = output.object_scores.isfinite().sum(-1).clamp(max=2)  # real objects among the two kept
    best = output.object_scores.topk(2).values
    assert torch.equal(output.object_scores.gather(2, output.kept_objects).sort(-1).values, best.sort(-1).values)
    assert (objects > 0).all()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("videos", [1, 2, 3])
def test_questions_share_their_video(case: Case, videos: int) -> None:
    """Both ways: few videos are encoded whole and gathered, many are gathered and then encoded."""
    model, inputs = case.build(), case.inputs(batch=6)
    rows = torch.arange(6) % videos
    of_video = ("frame_features", "frame_mask", "object_features", "object_boxes", "object_mask")
    shared = {name: tensor[:videos] if name in of_video else tensor for name, tensor in inputs.items()}
    repeated = {name: tensor[rows] if name in of_video else tensor for name, tensor in inputs.items()}
    with torch.no_grad():
        once, again = model(**shared, video_index=rows), model(**repeated)
    torch.testing.assert_close(once.logits, again.logits, atol=2e-5, rtol=1e-4)
    assert torch.equal(once.kept_frames, again.kept_frames)
    if case.objects:
        assert torch.equal(once.kept_objects, again.kept_objects)
        assert torch.equal(once.kept_boxes, again.kept_boxes)
    model.train()
    torch.manual_seed(0)
    model(**shared, video_index=rows).loss.backward()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("objects", [True, False])
def test_an_encoded_video_answers_as_its_features_do(case: Case, objects: bool) -> None:
    model, inputs = case.build(), case.inputs()
    of_video = ("frame_features", "frame_mask", "object_features", "object_boxes", "object_mask")
    given = {name: tensor for name, tensor in inputs.items() if name in of_video}
    asked = {name: tensor for name, tensor in inputs.items() if name not in of_video}
    with torch.no_grad():
        wanted, video = model(**inputs), model.encode_video(**given, objects=objects)
        for _ in range(2):
            found = model(**asked, video=video)
            torch.testing.assert_close(found.logits, wanted.logits, atol=2e-5, rtol=1e-4)
            assert torch.equal(found.kept_frames, wanted.kept_frames)
            assert not case.objects or torch.equal(found.kept_boxes, wanted.kept_boxes)
    with pytest.raises(CausalVideoError, match="frame_features: found none"):
        model(**asked)


def test_both_object_paths_were_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    model, inputs = CHOICES.build(), CHOICES.inputs(batch=6)
    model.obj_resize.register_forward_hook(lambda module, args, out: seen.append(out.flatten(0, -3).shape[0]))
    of_video = ("frame_features", "frame_mask", "object_features", "object_boxes", "object_mask")
    shared = {name: tensor[:1] if name in of_video else tensor for name, tensor in inputs.items()}
    with torch.no_grad():
        model(**inputs)
        model(**shared, video_index=torch.zeros(6, dtype=torch.long))
    assert seen == [6 * 4, 9]  # kept slots, or the frames of the one video


@pytest.mark.parametrize("case", [CHOICES, OPEN_ENDED], ids=lambda case: case.name)
def test_cached_text_gives_the_same_answers(case: Case) -> None:
    model, inputs = case.build(), case.inputs()
    with torch.no_grad():
        states = model.encode_text([(inputs["input_ids"], inputs["attention_mask"])])[0]
        cached = {
            name: tensor
            for name, tensor in inputs.items()
            if "input_ids" not in name and name != "choice_attention_mask"
        }
        cached["question_features"] = states
        if not case.open_ended:
            strings = inputs["choice_input_ids"].flatten(0, 1), inputs["choice_attention_mask"].flatten(0, 1)
            cached["choice_features"] = model.encode_text([strings])[0][:, 0].unflatten(0, (3, 4))
        torch.testing.assert_close(model(**cached).logits, model(**inputs).logits, atol=2e-5, rtol=1e-4)


def test_choices_may_be_pooled_by_their_mean() -> None:
    case = transtr("mean", choice_pooling="mean")
    model, inputs = case.build(), case.inputs()
    longer = dict(inputs)
    for name, value in (("choice_input_ids", 3), ("choice_attention_mask", 0)):
        longer[name] = torch.cat([inputs[name], torch.full((3, 4, 2), value)], 2)
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits, model(**longer).logits, atol=2e-5, rtol=1e-4)
        assert not torch.allclose(model(**inputs).logits, CHOICES.build()(**inputs).logits, atol=1e-3)


def test_noise_is_gone_in_evaluation_unless_asked_for() -> None:
    inputs = CHOICES.inputs()
    soft = CHOICES.build(topk_eval="perturbed")
    torch.manual_seed(0)
    with torch.no_grad():
        once, again = soft(**inputs).logits, soft(**inputs).logits
        assert not torch.equal(once, again)
        soft.topk_sigma = 1e-6  # an annealed choice ends where the hard one is
        torch.testing.assert_close(soft(**inputs).logits, CHOICES.build()(**inputs).logits, atol=1e-4, rtol=1e-4)


def test_the_box_mode_decides_what_is_appended() -> None:
    inputs = CHOICES.inputs()
    boxes = inputs["object_boxes"]
    area = ((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])).unsqueeze(-1)
    for mode, parts in (("raw4", [boxes]), ("norm5", [boxes, area])):
        model = transtr(mode, bbox_mode=mode).build()
        joined = inputs | {"object_features": torch.cat([inputs["object_features"], *parts], -1), "object_boxes": None}
        with torch.no_grad():
            torch.testing.assert_close(model(**joined).logits, model(**inputs).logits)


def test_the_gradient_reaches_what_was_ranked() -> None:
    """The choice itself is learnt: with what is kept held fixed, the scorer still hears from the loss."""
    model = CHOICES.build(hidden_dropout_prob=0.0).train()
    model(**CHOICES.inputs()).loss.backward()
    for scorer in (model.frame_scorer, model.object_scorer):
        assert scorer.weight.grad.abs().max() > 0


@pytest.mark.parametrize("case", [CHOICES, EARLY, OFFICIAL], ids=lambda case: case.name)
def test_the_feed_forward_of_a_hard_choice_runs_on_what_is_kept(case: Case) -> None:
    """Of 9 frames and 5 objects 4 and 2 are kept; a soft choice, and a scorer of the finished layer, need all."""
    model, inputs = case.build(), case.inputs()
    seen: list[int] = []
    for decoder in (model.frame_decoder, model.obj_decoder):
        decoder.layers[0].linear1.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[1]))
    model(**inputs)
    assert seen == ([9, 5] if case is CHOICES else [4, 2])
    seen.clear()
    model.train()(**inputs)
    assert seen == [9, 5]


def test_both_orders_answer_alike_where_all_is_kept_and_rank_apart() -> None:
    """With the same weights: a choice before or after the feed-forward changes the ranking, and nothing else."""
    everything = {"num_frames_kept": 9, "num_objects_kept": 5}
    early, late = EARLY.build(**everything), CHOICES.build(**everything)
    inputs = CHOICES.inputs()
    with torch.no_grad():
        one, other = early(**inputs), late(**inputs)
    torch.testing.assert_close(one.logits, other.logits, atol=2e-5, rtol=1e-4)
    assert not torch.allclose(one.frame_scores, other.frame_scores, atol=1e-3)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"hidden_size": 17}, "hidden_size=17"),
        ({"hidden_size": 18, "num_attention_heads": 4}, "heads=4"),
        ({"project_frames": False, "frame_feature_dim": 8}, "without projection"),
        ({"num_frames_kept": 0}, "num_frames_kept: found 0"),
        ({"num_objects_kept": -1}, "num_objects_kept: found -1"),
        ({"topk_gradient": "diagonal", "topk_baseline": True}, "baseline"),
    ],
)
def test_configs_that_mean_nothing_are_refused(fields: dict, words: str) -> None:
    with pytest.raises(Exception, match=words) as caught:
        TranSTRConfig(**(TRANSTR | fields))
    assert isinstance(caught.value, CausalVideoError) or isinstance(caught.value.__cause__, CausalVideoError)


def test_unknown_presets_and_fields_are_refused() -> None:
    with pytest.raises(CausalVideoError, match="official-nextqa"):
        TranSTRConfig.preset("official-everything")
    with pytest.raises(CausalVideoError, match="num_frame_kept"):
        TranSTRConfig.preset("clean", num_frame_kept=3)


def test_the_config_survives_a_round_trip(tmp_path: Path) -> None:
    config = TranSTRConfig.preset("official-causalvidqa", feature_provenance={"frame_model": "clip", "frame_dim": 768})
    config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert type(again) is TranSTRConfig
    assert again.to_diff_dict() == config.to_diff_dict()


def test_the_error_names_the_backbone_the_features_should_come_from() -> None:
    model = CHOICES.build(feature_provenance={"frame_model": "google/siglip2-base-patch16-224"})
    inputs = CHOICES.inputs()
    with pytest.raises(CausalVideoError, match="siglip2-base"):
        model(**inputs | {"frame_features": torch.zeros(3, 9, FRAME_DIM + 1)})
