"""Laws of IVRD: batches, padding and order change nothing, the intervention is one switch, bad input is named."""

import logging

import pytest
import torch
from transformers import AutoConfig, AutoModel

from hf_causal_video.models.ivrd import IVRDConfig, IVRDForVideoRelationDetection, modeling_ivrd
from hf_causal_video.models.ivrd.configuration_ivrd import PRESETS
from hf_causal_video.utils.errors import CausalVideoError

pytestmark = pytest.mark.rounding

AutoConfig.register("ivrd", IVRDConfig, exist_ok=True)
AutoModel.register(IVRDConfig, IVRDForVideoRelationDetection, exist_ok=True)

TINY = {"num_object_classes": 3, "num_predicates": 4, "hidden_size": 8, "feature_dim": 5}
COUNTS = torch.tensor([60.0, 30.0, 9.0, 1.0])


def build(preset: str = "clean", **fields) -> IVRDForVideoRelationDetection:
    torch.manual_seed(0)
    model = IVRDForVideoRelationDetection(IVRDConfig.preset(preset, **{**TINY, **fields})).eval()
    model.set_predicate_counts(COUNTS, 100)
    return model


def segment(tracks: int = 3, steps: int = 6, seed: int = 0) -> dict[str, torch.Tensor]:
    """One segment whose tracks start at different frames, have different lengths, and all meet in frame 2."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(1, tracks, steps, 2, generator=generator) * 0.5
    length, start = steps - torch.arange(tracks) % 2, torch.arange(tracks) % 3
    return {
        "track_boxes": torch.cat([corner, corner + 0.1 + 0.3 * torch.rand(corner.shape, generator=generator)], -1),
        "track_mask": (torch.arange(steps) < length.unsqueeze(1)).unsqueeze(0),
        "track_features": torch.randn(1, tracks, steps, 5, generator=generator),
        "track_start": start.unsqueeze(0),
    }


def batch(*parts: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Segments padded to one batch, with rubbish in the padding."""
    tracks, steps = (max(part["track_boxes"].shape[axis] for part in parts) for axis in (1, 2))
    joined = {}
    for name in parts[0]:
        fill = False if name == "track_mask" else 7 if name == "track_start" else 0.9
        rows = []
        for part in parts:
            value = part[name]
            shape = (1, tracks, *((steps,) if value.dim() > 2 else ()), *value.shape[3:])
            padded = torch.full(shape, fill, dtype=value.dtype)
            padded[:, : value.shape[1], *((slice(0, value.shape[2]),) if value.dim() > 2 else ())] = value
            rows.append(padded)
        joined[name] = torch.cat(rows)
    return joined


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_a_batch_is_its_segments_one_by_one(preset: str) -> None:
    model, parts = build(preset), [segment(3), segment(2, 4, seed=1), segment(1, 5, seed=2), segment(4, 3, seed=3)]
    together, alone = model(**batch(*parts)), [model(**part) for part in parts]
    counts = [one.pair_index.shape[1] for one in alone]
    assert together.predicate_logits.shape == (4, max(counts), 4) and together.pair_mask.sum(1).tolist() == counts
    assert not together.predicate_logits[~together.pair_mask].any()
    assert (together.pair_index[~together.pair_mask] == -100).all()
    for row, one in enumerate(alone):
        count = one.pair_index.shape[1]
        torch.testing.assert_close(together.pair_index[row, :count], one.pair_index[0])
        torch.testing.assert_close(
            together.predicate_logits[row, :count], one.predicate_logits[0], atol=1e-5, rtol=1e-5
        )
        found = together.object_logits[row, : one.object_logits.shape[1]]
        assert torch.allclose(found, one.object_logits[0], atol=1e-5)
    assert not together.object_logits[2, 1:].any()  # padding


def test_all_ordered_pairs_of_tracks_that_meet() -> None:
    inputs = segment(3)
    inputs["track_start"] = torch.tensor([[0, 0, 100]])
    assert build()(**inputs).pair_index.tolist() == [[[0, 1], [1, 0]]]


@pytest.mark.parametrize("preset", ["clean", "paper", "paper-exact"])
def test_naming_the_pairs_gives_the_same_judgement(preset: str) -> None:
    model, inputs = build(preset), segment(3)
    every = model(**inputs)
    padding = torch.full((1, 1, 2), -100)
    some = model(**inputs, pair_index=torch.cat([every.pair_index[:, [4]], padding, every.pair_index[:, [1]]], 1))
    assert torch.allclose(some.predicate_logits[:, [0, 2]], every.predicate_logits[:, [4, 1]], atol=1e-6)
    assert some.pair_mask.tolist() == [[True, False, True]] and not some.predicate_logits[:, 1].any()


def test_the_order_of_tracks_is_no_evidence() -> None:
    model, inputs, order = build(), segment(3), torch.tensor([2, 0, 1])
    one, two = model(**inputs), model(**{name: value[:, order] for name, value in inputs.items()})
    where = {tuple(pair): row for row, pair in enumerate(two.pair_index[0].tolist())}
    place = order.argsort().tolist()
    rows = [where[place[s], place[o]] for s, o in one.pair_index[0].tolist()]
    assert torch.allclose(one.predicate_logits, two.predicate_logits[:, rows], atol=1e-5)


def test_subject_and_object_are_not_exchangeable() -> None:
    output = build()(**segment(2))
    assert not torch.allclose(output.predicate_logits[:, 0], output.predicate_logits[:, 1], atol=1e-4)


@pytest.mark.parametrize("multi_label", [True, False])
def test_the_intervention_is_the_step_between_two_priors(multi_label: bool) -> None:
    model, inputs = build(multi_label=multi_label), segment(3)
    asked = model(**inputs).predicate_logits
    model.config.prior_eval = "frequency"
    observed = model(**inputs).predicate_logits
    step = model.prior(1.0) - model.prior(0.0)
    assert torch.allclose(observed - asked, step.expand_as(asked), atol=1e-5)
    model.train()
    model.config.hidden_dropout_prob = 0.0
    model.reference[2].p = model.object_classifier[2].p = 0.0
    assert torch.allclose(model(**inputs).predicate_logits, observed, atol=1e-5)


@pytest.mark.parametrize("preset", ["paper", "paper-exact", "plain", "cosine"])
def test_literal_forms_and_classifiers_do_not_read_the_counts(preset: str) -> None:
    model, inputs = build(preset), segment(3)
    one = model(**inputs).predicate_logits
    model.set_predicate_counts(COUNTS.flip(0), 100)
    logits = model(**inputs).predicate_logits
    assert torch.allclose((one - logits).diff(dim=2), torch.zeros(1, 6, 3), atol=1e-6)


def test_each_term_is_visible_and_weighted() -> None:
    inputs = segment(3)
    labels = {"track_labels": torch.tensor([[0, 3, -100]]), "predicate_labels": torch.eye(4)[[0, 1, 2, 3, 0, 1]][None]}
    output = build(object_loss_weight=2.0, predicate_loss_weight=0.5)(**inputs, **labels)
    assert set(output.losses) == {"object", "predicate"}
    assert torch.allclose(output.loss, 2 * output.losses["object"] + 0.5 * output.losses["predicate"])
    off = build(object_loss_weight=0.0)(**inputs, **labels)
    assert torch.equal(off.loss, off.losses["predicate"]) and off.losses["object"] > 0
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(
        off.predicate_logits, labels["predicate_labels"], reduction="none"
    )
    assert torch.allclose(off.losses["predicate"], wanted.sum(2).mean(), atol=1e-5)


def test_focal_loss_is_cross_entropy_without_focus_and_less_with_it() -> None:
    inputs, labels = segment(2), {"predicate_labels": torch.tensor([[1, -100]])}
    losses = [build(multi_label=False, focal_gamma=gamma)(**inputs, **labels).loss for gamma in (0.0, 2.0)]
    logits = build(multi_label=False)(**inputs).predicate_logits
    assert torch.allclose(losses[0], torch.nn.functional.cross_entropy(logits[:, 0], torch.tensor([1])), atol=1e-6)
    share = logits[0, 0].softmax(-1)[1]
    assert torch.allclose(losses[1], losses[0] * (1 - share) ** 2, atol=1e-6)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_parameter_learns(preset: str) -> None:
    model = build(preset).train()
    labels = {"track_labels": torch.tensor([[0, 1, 2]]), "predicate_labels": torch.eye(4)[[0, 1, 2, 3, 0, 1]][None]}
    model(**segment(3), **labels).loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("preset", ["clean", "paper"])
def test_moving_prototypes_move_in_training_alone(preset: str) -> None:
    model = build(preset, prototype_update="ema", prototype_momentum=0.5)
    before, labels = model.prototypes.vectors.clone(), torch.eye(4)[[0, 0, 0, 0, 0, 1]][None]
    model(**segment(3), predicate_labels=labels)
    assert torch.equal(model.prototypes.vectors, before)
    model.train()(**segment(3), predicate_labels=labels)
    moved = (model.prototypes.vectors != before).any(1)
    assert moved.tolist() == [True, True, False, False]


@pytest.mark.parametrize("preset", ["clean", "paper"])
def test_prototypes_start_from_class_means(preset: str) -> None:
    model = build(preset)
    references = model(**segment(3)).references[0]
    model.set_prototypes(references, torch.tensor([2, 2, 2, 1, 1, -100]))
    projected = model.intervention.project(references) if preset == "clean" else references
    assert torch.allclose(model.prototypes.vectors[2], projected[:3].mean(0), atol=1e-6)


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("update", ["learned", "ema"])
def test_a_saved_model_answers_alike(preset: str, update: str, tmp_path) -> None:
    model, inputs = build(preset, prototype_update=update), segment(3)
    model.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path)
    assert type(again) is IVRDForVideoRelationDetection
    assert torch.allclose(again(**inputs).predicate_logits, model(**inputs).predicate_logits, atol=1e-6)
    again.train()
    assert torch.allclose(again.prior.probabilities(1.0), COUNTS / 100)


def test_no_track_one_track_one_frame() -> None:
    model = build()
    for tracks in (0, 1):
        output = model(**segment(tracks), track_labels=torch.zeros(1, tracks, dtype=torch.long))
        assert output.predicate_logits.shape == (1, 0, 4) and output.object_logits.shape == (1, tracks, 4)
        assert output.loss.isfinite()
    assert build()(**segment(2, steps=3)).predicate_logits.isfinite().all()
    short = {name: value[:, :, :1] if value.dim() > 2 else value * 0 for name, value in segment(2).items()}
    assert model(**short).predicate_logits.shape == (1, 2, 4)


def test_a_predicate_never_seen_has_a_finite_score() -> None:
    model = build()
    model.set_predicate_counts(torch.tensor([5.0, 3.0, 0.0, 0.0]), 10)
    model.train()
    labels = torch.eye(4)[[0, 0, 1, 1, 0, 2]][None]
    assert model(**segment(3), predicate_labels=labels).loss.isfinite()


def test_unknown_predicates_of_a_pair_teach_nothing_and_cost_nothing() -> None:
    model, inputs = build(), segment(2)
    whole = model(**inputs, predicate_labels=torch.tensor([[[1.0, 0, 0, 0], [0, 0, 1, 0]]]))
    part = model(**inputs, predicate_labels=torch.tensor([[[1.0, -100, 0, -100], [-100] * 4]]))
    logits = whole.predicate_logits[0, 0, [0, 2]]
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor([1.0, 0]), reduction="sum")
    torch.testing.assert_close(part.losses["predicate"], wanted)
    for gamma in (0.0, 0.5, 2.0):
        unknown = build(focal_gamma=gamma)(**inputs, predicate_labels=torch.full((1, 2, 4), -100.0))
        assert unknown.loss == 0
        unknown.loss.backward()


def test_training_without_counts_is_training_under_the_uniform_prior(caplog) -> None:
    model = build("clean", hidden_dropout_prob=0.0)
    model.prior.reset_parameters()
    warned = warnings_of(model.train(), caplog, predicate_labels=torch.eye(4)[[0, 1, 2, 3, 0, 1]][None])
    assert len(warned) == 1 and "set_predicate_counts" in warned[0]
    logits = model(**segment(3)).predicate_logits
    model.config.prior_train = "uniform"
    torch.testing.assert_close(logits, model(**segment(3)).predicate_logits)


def test_a_warm_up_that_no_trainer_runs_is_named_once(caplog) -> None:
    labels = torch.eye(4)[[0, 1, 2, 3, 0, 1]][None]
    warned = warnings_of(build("paper").train(), caplog, predicate_labels=labels)
    assert len(warned) == 1 and "prototype_warmup=0.1" in warned[0]
    led = build("paper").train()
    led.warming_up = False  # as a trainer does
    assert not warnings_of(led, caplog, predicate_labels=labels)
    assert not warnings_of(build("clean").train(), caplog, predicate_labels=labels)


def warnings_of(model, caplog, **labels) -> list[str]:
    """What three steps of a plain training loop warn of."""
    modeling_ivrd.logger.warning_once.cache_clear()
    logging.getLogger("transformers").propagate, caplog.handler.level = True, logging.WARNING
    caplog.clear()
    logger = logging.getLogger(modeling_ivrd.__name__)
    logger.addHandler(caplog.handler)
    try:
        for _ in range(3):
            model(**segment(3), **labels).loss.backward()
    finally:
        logger.removeHandler(caplog.handler)
    return [record.message for record in {id(one): one for one in caplog.records}.values()]


@pytest.mark.parametrize("multi_label", [True, False])
@pytest.mark.parametrize("preset", ["clean", "logit-adjustment", "paper"])
def test_the_strength_leads_from_the_uniform_to_the_observed_prior(preset: str, multi_label: bool) -> None:
    model, inputs = build(preset, multi_label=multi_label), segment(3)

    def asked(strength: float) -> torch.Tensor:
        model.config.prior_eval_strength = strength
        logits = model(**inputs).predicate_logits
        return logits if multi_label else logits.log_softmax(-1)

    none, half, whole = (asked(strength) for strength in (0.0, 0.5, 1.0))
    if preset != "paper":
        middle = (none + whole) / 2
        torch.testing.assert_close(half, middle if multi_label else middle.log_softmax(-1), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(none, whole, atol=1e-4)
    model.config.prior_eval = "frequency"
    torch.testing.assert_close(asked(0.0), whole)


def test_a_prior_per_pair_of_classes_is_added_in_training_and_removed_by_the_intervention() -> None:
    torch.manual_seed(0)
    fields = TINY | {"class_pair_prior": True, "hidden_dropout_prob": 0.0}
    model = IVRDForVideoRelationDetection(IVRDConfig(**fields)).eval()
    with pytest.raises(CausalVideoError, match="per pair of classes"):
        model.set_predicate_counts(COUNTS, 100)
    pairs, counts = torch.full((3, 3), 10.0), torch.ones(3, 3, 4)
    counts[0, 1, 2] = 10  # class 0 always does 2 to class 1
    model.set_predicate_counts(COUNTS, 100, counts, pairs)
    inputs, classes = segment(2), torch.tensor([[0, 1]])
    plain = model(**inputs).predicate_logits
    torch.testing.assert_close(model(**inputs, track_classes=classes).predicate_logits, plain)
    model.train()
    added = model(**inputs, track_labels=classes).predicate_logits - plain
    assert added[0, 0].argmax() == 2 and added[0, 1].argmax() == 0
    assert (added[0, 0, 2] - added[0, 1, 2] > 2).item()
    torch.testing.assert_close(model.eval()(**inputs).predicate_logits, plain)
    model.config.prior_eval_strength = 1.0
    torch.testing.assert_close(model(**inputs, track_classes=classes).predicate_logits - plain, added)
    judged = model(**inputs)
    share = judged.object_logits[0, :, :3].softmax(-1)
    rates = torch.einsum("c,d,cdp->p", share[0], share[1], model.prior.pair_rates)
    torch.testing.assert_close(
        (judged.predicate_logits - plain)[0, 0].diff(), rates.logit().diff(), atol=1e-5, rtol=1e-4
    )


def other_boxes(inputs: dict) -> None:
    inputs["track_boxes"] = inputs["track_boxes"][..., :3]


def other_width(inputs: dict) -> None:
    inputs["track_features"] = inputs["track_features"][..., :4]


def other_tracks(inputs: dict) -> None:
    inputs["track_features"] = inputs["track_features"][:, :2]


def no_features(inputs: dict) -> None:
    del inputs["track_features"]


def flat_pairs(inputs: dict) -> None:
    inputs["pair_index"] = torch.tensor([[0, 1]])


def inverted(inputs: dict) -> None:
    inputs["track_boxes"] = inputs["track_boxes"].flip(-1)


def gap(inputs: dict) -> None:
    inputs["track_mask"][0, 0, 2] = False


def nan(inputs: dict) -> None:
    inputs["track_boxes"][0, 0, 0, 0] = torch.nan


def nan_feature(inputs: dict) -> None:
    inputs["track_features"][0, 0, 0, 0] = torch.nan


def pair_with_itself(inputs: dict) -> None:
    inputs["pair_index"] = torch.tensor([[[1, 1]]])


def pair_of_a_missing_track(inputs: dict) -> None:
    inputs["pair_index"] = torch.tensor([[[0, 9]]])


def pair_apart(inputs: dict) -> None:
    inputs |= {"pair_index": torch.tensor([[[0, 1]]]), "track_start": torch.tensor([[0, 90, 0]])}


def label_beyond(inputs: dict) -> None:
    inputs["track_labels"] = torch.tensor([[0, 4, 1]])


def half_label(inputs: dict) -> None:
    inputs["predicate_labels"] = torch.full((1, 6, 4), 0.5)


def labels_of_other_pairs(inputs: dict) -> None:
    inputs["predicate_labels"] = torch.zeros(1, 5, 4)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (other_boxes, "tracks"),
        (other_width, "feature_dim=5"),
        (other_tracks, "feature_dim=5"),
        (no_features, "feature_dim=5"),
        (flat_pairs, "pair_index"),
        (labels_of_other_pairs, "predicate_labels"),
        (inverted, "inverted"),
        (nan, "NaN"),
        (gap, "gap"),
        (nan_feature, "track_features"),
        (pair_with_itself, "pair_index"),
        (pair_of_a_missing_track, "pair_index"),
        (pair_apart, "pair_index"),
        (label_beyond, "track_labels"),
        (half_label, "predicate_labels"),
    ],
)
def test_bad_input_is_named(spoil, message: str) -> None:
    inputs = segment(3)
    spoil(inputs)
    with pytest.raises(CausalVideoError, match=message):
        build()(**inputs)


def test_a_pair_of_a_missing_track_never_reads_another_segment() -> None:
    pairs = torch.tensor([[[0, 2]], [[0, 1]]])
    with pytest.raises(CausalVideoError, match="pair_index"):
        build()(**batch(segment(2), segment(2, seed=1)), pair_index=pairs)


def test_bad_configs_are_refused() -> None:
    shares = [{"prior_eval_strength": share} for share in (-0.1, 1.5, float("nan"))]
    for fields in (
        {"hidden_size": 7},
        {"num_predicates": 0},
        {"focal_gamma": -1.0},
        {"prototype_momentum": 2.0},
        *shares,
    ):
        with pytest.raises(Exception, match="IVRD config"):
            IVRDConfig(**fields)
    with pytest.raises(CausalVideoError, match="unknown field"):
        IVRDConfig.preset("clean", hidden=3)
    with pytest.raises(CausalVideoError, match="preset"):
        IVRDConfig.preset("official-vidor")
