"""Laws of EIGV: what is mixed and what is contrasted, and that nothing of it is left at test time."""

from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F

from hf_causal_video.causal import split_frames
from hf_causal_video.models.backbone import BackboneConfig, BackboneForVideoQuestionAnswering
from hf_causal_video.models.base import RandomInputs
from hf_causal_video.models.eigv import EIGVConfig, EIGVForVideoQuestionAnswering, modeling_eigv
from hf_causal_video.models.igv import IGVForVideoQuestionAnswering
from hf_causal_video.models.processing_video_qa import VideoQAProcessor
from hf_causal_video.utils.errors import CausalVideoError
from tests.models.cases import CASES, Case, run

pytestmark = pytest.mark.rounding

CHOICES, OPEN = (next(case for case in CASES if case.name == f"eigv-{name}") for name in ("choices", "open-ended"))
every_kind = pytest.mark.parametrize("case", [CHOICES, OPEN], ids=lambda case: case.name)
ONE, SELF = torch.tensor(1.0), torch.arange(3)


def train(case: Case, **fields: Any) -> EIGVForVideoQuestionAnswering:
    """A model in training without any dropout, so that a step is a function of its draws."""
    model = case.build(**case.still, **fields).train()
    model.text_encoder.eval()
    return model


def plain(model: EIGVForVideoQuestionAnswering, case: Case) -> BackboneForVideoQuestionAnswering:
    shared = {name: case.fields[name] for name in ("text_config", "frame_feature_dim")}
    config = BackboneConfig(
        **shared, num_answers=case.fields.get("num_answers"), backbone_config=model.config.backbone_config
    )
    backbone = BackboneForVideoQuestionAnswering(config).eval()
    own = ("indicator.", "project_head.")
    backbone.load_state_dict({name: t for name, t in model.state_dict().items() if not name.startswith(own)})
    return backbone


def test_it_is_igv_with_another_step():
    assert issubclass(EIGVForVideoQuestionAnswering, IGVForVideoQuestionAnswering)


@every_kind
def test_it_answers_as_the_backbone_on_the_whole_clip(case: Case):
    model, inputs = case.build(answer_from="clip"), case.inputs()
    assert torch.equal(model(**inputs).logits, plain(model, case)(**inputs).logits)


@every_kind
def test_it_answers_from_the_frames_that_it_shows(case: Case):
    """The answer is that of the backbone on the causal frames, and no other frame reaches it."""
    model, inputs = case.build(answer_from="causal"), case.inputs()
    output = model(**inputs)
    rows = torch.arange(len(output.logits))
    best = output.logits.argmax(1)
    shown = inputs["frame_features"] * output.causal_mask.unsqueeze(-1)
    again = plain(model, case)(**inputs | {"frame_features": shown}).logits
    torch.testing.assert_close(output.logits[rows, best], again[rows, best])
    features = inputs["frame_features"].clone().requires_grad_()
    with patch.object(modeling_eigv.EIGVForVideoQuestionAnswering, "_split", lambda *_: fixed):
        fixed = split_frames(
            torch.randn(12 if case is CHOICES else 3, 2, 9),
            inputs["frame_mask"].repeat_interleave(4 if case is CHOICES else 1, 0),
        )
        logits = model(**inputs | {"frame_features": features}).logits
    index = rows * 4 + logits.argmax(1) if case is CHOICES else rows
    logits[rows, logits.argmax(1)].sum().backward()
    reached = features.grad.abs().sum(-1) > 0
    assert torch.equal(reached, fixed.chosen_causal[index])


@every_kind
def test_evidence_comes_on_request_and_changes_no_answer(case: Case):
    model, inputs = case.build(answer_from="clip", output_evidence=False), case.inputs()
    with patch.object(model.indicator, "forward", side_effect=AssertionError("the indicator was run")):
        silent = model(**inputs)
    spoken = model(**inputs, output_evidence=True)
    assert silent.causal_mask is None and torch.equal(silent.logits, spoken.logits)
    assert spoken.causal_mask.any(1).all() and (spoken.causal_mask <= inputs["frame_mask"]).all()
    assert torch.equal(case.build(answer_from="clip", output_evidence=True)(**inputs).causal_mask, spoken.causal_mask)
    for row, kept in enumerate(spoken.kept_frames):
        assert sorted(set(kept.tolist())) == spoken.causal_mask[row].nonzero().flatten().tolist()


def test_evidence_of_choices_is_that_of_the_answer_given():
    model, inputs = CHOICES.build(), CHOICES.inputs()
    whole = model(**inputs)
    best = whole.logits.argmax(1)
    mask = torch.zeros_like(inputs["choice_attention_mask"])
    rows = torch.arange(3)
    mask[rows, best] = inputs["choice_attention_mask"][rows, best]
    only = model(**inputs | {"choice_attention_mask": mask, "labels": None})
    torch.testing.assert_close(only.frame_scores, whole.frame_scores)


def test_a_processor_makes_words_of_its_evidence(tmp_path):
    from hf_causal_video.worlds import world_tokenizer

    processor = VideoQAProcessor(world_tokenizer(), answer_vocabulary=[f"word {i}" for i in range(7)])
    with torch.no_grad():
        output = OPEN.build()(**OPEN.inputs(), output_evidence=True)
    found = processor.post_process_evidence(output, timestamps=torch.arange(9.0))
    assert [sorted(f.index for f in one.frames) for one in found] == [
        sorted(set(k.tolist())) for k in output.kept_frames
    ]
    assert all(one.spans for one in found)


@every_kind
def test_full_coefficients_with_oneself_give_the_plain_answer_loss(case: Case):
    """Methods 9.4: lambda 1 = lambda 2 = 1 gives the clip, the question and the loss of the backbone."""
    model, inputs = train(case), case.inputs()
    draws = RandomInputs(lambda1=ONE, lambda2=ONE, partner=SELF)
    found = run(model, draws, **inputs)
    logits = plain(model, case)(**inputs).logits
    torch.testing.assert_close(found.logits, logits, atol=1e-5, rtol=1e-4)
    wanted = F.cross_entropy(logits, inputs["labels"])
    if case is CHOICES:  # the candidates stand there twice, the partner's beside the own
        wanted = wanted + torch.log(torch.tensor(2.0))
    torch.testing.assert_close(found.losses["answer"], wanted, atol=1e-5, rtol=1e-4)


@every_kind
def test_the_loss_is_the_weighted_sum_of_its_terms(case: Case):
    weights = {"answer": 2.0, "contrast": 0.5, "size": 4.0, "match": 0.7}
    model = train(case, **{f"{name}_weight": weight for name, weight in weights.items()})
    out = model(**case.inputs())
    assert out.losses.keys() == weights.keys() and out.logits.shape == (3, 7 if case is OPEN else 4)
    torch.testing.assert_close(out.loss, sum(weights[name] * term for name, term in out.losses.items()))


@every_kind
def test_no_contrast_runs_no_disruption(case: Case):
    model, inputs = train(case, contrast_weight=0.0), case.inputs()
    assert model(**inputs).losses.keys() == {"answer", "size", "match"}
    two = {name: tensor[:2] for name, tensor in inputs.items()}
    assert model(**two).loss.isfinite()  # nothing is swapped, so two clips are enough


def test_every_parameter_is_in_the_graph_of_every_step():
    """DDP needs a gradient for each, in the warm-up and where a term is switched off too."""
    for fields, progress in (({}, 0.1), ({"contrast_weight": 0.0}, 1.0), ({}, 1.0)):
        model = train(OPEN, **fields)
        model.training_progress = progress
        out = model(**OPEN.inputs())
        out.loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        idle = progress < 0.4 or "contrast_weight" in fields
        assert idle != any(parameter.grad.any() for parameter in model.project_head.parameters())
        if progress < 0.4:
            torch.testing.assert_close(out.loss, out.losses["answer"] + out.losses["match"])
            assert out.causal_mask is None


def watched(model: EIGVForVideoQuestionAnswering, inputs: dict[str, Any], draws: RandomInputs) -> dict[str, list[Any]]:
    """Arguments of what the step edits and contrasts."""
    seen: dict[str, list[Any]] = {}

    def spy(name: str):
        function = getattr(modeling_eigv, name)
        return patch.object(
            modeling_eigv, name, lambda *args: seen.setdefault(name, []).append(args) or function(*args)
        )

    with spy("swap_frames"), spy("info_nce"), spy("mix_scenes"):
        run(model, draws, **inputs)
    return seen


@every_kind
def test_disruptions_break_one_part_and_no_frame_is_a_sources(case: Case):
    model, inputs, partner = train(case), case.inputs(batch=5), torch.tensor([1, 2, 0, 4, 3])
    inputs["video_ids"] = torch.tensor([7, 8, 9, 8, 6])
    seen = watched(model, inputs, RandomInputs(partner=partner))
    (mixed, environment, foreign), (copies, causal, others) = seen["swap_frames"]
    n, ids = model.config.num_negatives, inputs["video_ids"]
    assert torch.equal(copies, mixed.repeat(n, 1, 1)) and len(others) == n * 5
    union = inputs["frame_mask"] | inputs["frame_mask"][partner]
    assert torch.equal(environment + causal[:5], union.float())  # one part or the other, and never padding
    clips = seen["mix_scenes"][0][0]
    for row in range(5):
        allowed = [i for i in range(5) if ids[i] not in (ids[row], ids[partner[row]])]
        pool = torch.cat([clips[i][inputs["frame_mask"][i]] for i in allowed])
        for frame in torch.cat([foreign[row], *others.view(n, 5, 9, -1)[:, row]]):
            assert (frame == pool).all(1).any()
    anchor, positive, negatives, *_ = seen["info_nce"][0]
    assert negatives.shape == (5, 2 * n, model.config.projection_dim) and anchor.shape == positive.shape


@every_kind
@pytest.mark.parametrize("batch", [1, 2])
def test_too_few_videos_leave_the_contrast_out(batch: int, case: Case):
    model, inputs = train(case), {name: tensor[:batch] for name, tensor in case.inputs().items()}
    output = run(model, RandomInputs(partner=torch.arange(batch).flip(0)), **inputs)
    assert output.losses["contrast"] == 0 and output.losses["answer"] > 0
    output.loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert model.eval()(**inputs).loss.isfinite()


def test_the_released_layout_leaves_the_contrast_out_of_a_whole_step():
    """There an anchor's negatives are those of other samples, so one sample without a third video spoils all."""
    inputs = OPEN.inputs() | {"video_ids": torch.tensor([1, 2, 1])}
    partner = RandomInputs(partner=torch.tensor([1, 0, 2]))  # the third sample is mixed with itself
    paired = run(train(OPEN), partner, **inputs).losses["contrast"]
    legacy = run(train(OPEN, negatives_layout="legacy"), partner, **inputs).losses["contrast"]
    assert paired > 0 and legacy == 0


@pytest.mark.parametrize("label", [-100, -1, 7])
def test_every_answer_must_be_known_to_be_mixed(label: int):
    inputs = OPEN.inputs() | {"labels": torch.tensor([0, label, 1])}
    with pytest.raises(CausalVideoError, match="labels"):
        train(OPEN)(**inputs)


def test_coefficients_may_be_drawn_for_each_sample():
    model = train(OPEN, lambda_per="sample")
    seen = []
    function = modeling_eigv.mix_scenes
    with patch.object(modeling_eigv, "mix_scenes", lambda *args: seen.append(args[-2:]) or function(*args)):
        assert model(**OPEN.inputs()).loss.isfinite()
    assert all(weight.shape == (3,) for weight in seen[0])
    assert train(CHOICES, lambda_per="sample")(**CHOICES.inputs()).loss.isfinite()


def test_a_question_mixed_as_tokens_keeps_the_partners_last_words_unless_it_is_cut():
    """With lambda 0 the question is the partner's: whole by default, cut to the own length as released."""
    inputs = OPEN.inputs()
    inputs["attention_mask"] = (torch.arange(8) < torch.tensor([[3], [8], [8]])).long()
    draws = RandomInputs(lambda1=torch.tensor(0.0), lambda2=torch.tensor(0.0), partner=torch.tensor([1, 0, 2]))
    found = {}
    for length in ("longest", "own"):
        model, asked = train(OPEN, mixed_length=length, contrast_weight=0.0), []
        encode = model.backbone.encode_question
        model.backbone.encode_question = lambda *given, e=encode, a=asked: a.append(given[1]) or e(*given)
        run(model, draws, **inputs)
        found[length] = asked[-1].sum(1).tolist()
    assert found == {"longest": [8, 8, 8], "own": [3, 8, 8]}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"mc_grounding": "question"}, "belong to IGV"),
        ({"intervened_weight": 1.0}, "intervened_weight.*1.0.*belong to IGV"),
        ({"num_negatives": 0}, "num_negatives: found 0"),
        ({"lambda1_alpha": 0.0}, "lambda1_alpha: found 0.0"),
        ({"warmup_share": 2.0}, "warmup_share: found 2.0"),
    ],
)
def test_settings_that_cannot_run_are_refused(fields: dict[str, Any], words: str):
    with pytest.raises(Exception, match=words):  # huggingface_hub wraps what a config refuses in an error of its own
        EIGVConfig(**OPEN.fields | fields)


def test_every_published_combination_has_a_preset():
    names = {
        f"official-{data}-{net}" for data in ("nextqa", "msvdqa", "msrvttqa") for net in ("hga", "comem", "mspan")
    }
    assert set(EIGVConfig.presets()) == {"clean", *names}
    for name in names:
        config = EIGVConfig.preset(name)
        assert (config.grounding_logits, config.negatives_layout, config.size_weight) == ("prob", "legacy", 0.0)
        assert (config.num_choices == 5) == (config.num_answers is None) == ("nextqa" in name)
