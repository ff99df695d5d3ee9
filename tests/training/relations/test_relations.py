"""Relations through the same run: annotated videos, given tracks, pairs; labels, warm-up, artefacts, evaluation."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoModel, AutoProcessor

from hf_causal_video.cli.main import main as main_verb
from hf_causal_video.data.relations.collator import RelationCollator
from hf_causal_video.data.relations.segments import GivenTracks, RelationSegments
from hf_causal_video.data.relations.vidvrd import read_relations
from hf_causal_video.models.ivrd import IVRDForVideoRelationDetection
from hf_causal_video.models.ivrd.processing_video_relation import VideoRelationProcessor
from hf_causal_video.models.loading import weights_digest
from hf_causal_video.training import main
from hf_causal_video.training.relations.evaluate import evaluate_relations
from hf_causal_video.training.relations.trainer import start_prototypes
from hf_causal_video.utils.errors import CausalVideoError
from hf_causal_video.worlds.relation_pairs import relation_world_pairs
from hf_causal_video.worlds.render_relations import draw_relations

WORLD = {
    "method": "ivrd", "preset": "clean", "config_overrides": {"hidden_size": 8}, "dataset": "world",
    "world": {"train_pairs": 96, "eval_pairs": 40, "num_steps": 4, "seed": 0}, "test_splits": ["iid", "balanced"],
    "per_device_train_batch_size": 16, "per_device_eval_batch_size": 20, "num_train_epochs": 2, "learning_rate": 3e-3,
    "lr_scheduler_type": "one_cycle", "logging_steps": 2, "seed": 1, "disable_tqdm": True, "use_cpu": True,
}  # fmt: skip


def write(path: Path, **changes: object) -> Path:
    values = {key: value for key, value in {**WORLD, **changes}.items() if value is not None}
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def annotations(folder: Path, split: str, films: int) -> str:
    (folder / split).mkdir(parents=True)
    for number in range(films):
        _, annotation = draw_relations(f"{split}-s0-{number:04d}")
        (folder / split / f"{annotation['video_id']}.json").write_text(json.dumps(annotation))
    return str(folder / split)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Annotations of a few films."""
    folder = tmp_path_factory.mktemp("films")
    return {
        split: annotations(folder, split, count) for split, count in (("train", 6), ("validation", 2), ("test", 2))
    }


def video_recipe(path: Path, films: dict[str, str], **changes: object) -> Path:
    relations = {"segment_frames": 10, "segment_stride": 5, "min_overlap": 7, "max_pairs": 6}
    return write(path, dataset=films, world=None, relations=relations, test_splits=["test"],
                 metric_for_best_model="mAP", **changes)  # fmt: skip


def segments(films: dict[str, str], tracks=None, **options) -> RelationSegments:
    rows = read_relations(films["train"])
    classes = sorted({track["category"] for row in rows for track in row["tracks"]})
    predicates = sorted({relation["predicate"] for row in rows for relation in row["relations"]})
    processor = VideoRelationProcessor(classes, predicates, 10, 5)
    return RelationSegments(rows, classes, predicates, processor.segment_begins, 10, tracks, **options)


@pytest.fixture(scope="module")
def world_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    main(["--config", str(write(folder / "r.yaml")), "--output_dir", str(folder / "run")])
    return folder / "run"


def test_what_a_run_leaves_behind_loads_and_says_what_was_measured(world_run: Path):
    metrics = json.loads((world_run / "metrics.json").read_text())
    assert set(metrics["test"]) == {"iid", "balanced"} and metrics["test"]["balanced"]["pairs"] == 40
    assert type(AutoModel.from_pretrained(world_run)) is IVRDForVideoRelationDetection
    processor = AutoProcessor.from_pretrained(world_run)
    assert (processor.segment_frames, len(processor.predicates)) == (4, 20)
    log = [json.loads(line) for line in (world_run / "training_log.jsonl").read_text().splitlines()]
    assert any({"loss_object", "loss_predicate"} <= set(entry) for entry in log)
    validated = [entry["eval_accuracy"] for entry in log if "eval_accuracy" in entry]
    assert metrics["best"]["value"] == max(validated) == metrics["validation"]["accuracy"]
    records = [json.loads(line) for line in (world_run / "predictions" / "iid.jsonl").read_text().splitlines()]
    split = relation_world_pairs("iid", {**WORLD["world"]})
    assert [record["id"] for record in records] == split.ids
    right = [
        record["prediction"] == split.predicates[label] for record, label in zip(records, split.labels, strict=True)
    ]
    assert metrics["test"]["iid"]["accuracy"] == pytest.approx(100 * np.mean(right))
    card = json.loads((world_run / "card_data.json").read_text())
    assert card["tracks"] == {"tracks": "the relation world"} and card["text_encoder"] is None


def test_evaluate_repeats_the_number_and_the_prior_is_one_switch(world_run: Path, tmp_path: Path, capsys):
    measured = json.loads((world_run / "metrics.json").read_text())["test"]["balanced"]
    options = {"world": WORLD["world"], "progress": False}
    report = evaluate_relations(world_run, "world", "balanced", output=tmp_path, **options)
    assert report["weights"] == weights_digest(world_run) and report["weights"]
    found = report["metrics"]
    assert found == pytest.approx(measured, rel=1e-5)
    lines = (tmp_path / "predictions.jsonl").read_text().splitlines()
    evaluate_relations(world_run, "world", "balanced", prior="frequency", output=tmp_path / "off", **options)
    records = [json.loads(line)["scores"] for line in lines]
    off = [json.loads(line)["scores"] for line in (tmp_path / "off" / "predictions.jsonl").read_text().splitlines()]
    assert len(lines) == len(off) == 40 and not np.allclose(records, off, atol=0.1)
    again = ["--dataset", "world", "--split", "balanced", "--output", str(tmp_path / "again")]
    assert main_verb(["evaluate", str(world_run), *again]) == 0  # of the sizes that the recipe names
    assert "mean_recall" in capsys.readouterr().out
    assert (tmp_path / "again" / "predictions.jsonl").read_text().splitlines() == lines
    for bad in (
        {"dataset": "nextqa"},
        {"dataset": "vidvrd"},
        {"dataset": "world", "prior": "mine"},
        {"dataset": "world", "prior": 1.5},
    ):
        with pytest.raises(CausalVideoError):
            evaluate_relations(world_run, **bad)
    with pytest.raises(CausalVideoError, match="other data"):
        evaluate_relations(world_run, "world", "iid", world={"feature_dim": 5})


def test_annotated_videos_from_recipe_to_table(films: dict[str, str], tmp_path: Path):
    recipe = video_recipe(tmp_path / "r.yaml", films, preset="paper", config_overrides={"hidden_size": 8})
    metrics = main(["--config", str(recipe), "--output_dir", str(tmp_path / "run")])
    assert {"mAP", "R@50", "mR@50", "tail mR@50", "zero_shot mAP"} <= set(metrics["test"]["test"])
    records = [json.loads(line) for line in (tmp_path / "run" / "predictions" / "test.jsonl").read_text().splitlines()]
    assert [record["id"] for record in records] == [row["video_id"] for row in read_relations(films["test"])]
    found = evaluate_relations(
        tmp_path / "run", "vidvrd", annotations=films["test"], training_annotations=films["train"], progress=False
    )
    assert found["metrics"]["mAP"] == pytest.approx(metrics["test"]["test"]["mAP"])
    assert found["tracks"] == "annotated"


def test_counts_of_the_prior_are_those_of_the_pairs_that_are_shown(films: dict[str, str], tmp_path: Path):
    recipe = video_recipe(tmp_path / "r.yaml", films, num_train_epochs=1)
    main(["--config", str(recipe), "--output_dir", str(tmp_path / "run")])
    model = AutoModel.from_pretrained(tmp_path / "run")
    data = segments(films)
    counts, pairs = data.training_counts()
    names = AutoProcessor.from_pretrained(tmp_path / "run").predicates
    for name, count in zip(data.predicates, counts, strict=True):
        if count:
            rates = model.prior.rates[names.index(name)].item()
            assert 0.5 * count / pairs < rates < 2.5 * count / pairs  # max_pairs differ, the order does not
    assert model.config.trajectory_provenance == {"tracks": "annotated"}


def test_the_prior_per_pair_of_classes_is_counted_from_the_training_pairs(tmp_path: Path):
    overrides = {"hidden_size": 8, "class_pair_prior": True, "prior_eval_strength": 0.5}
    recipe = write(tmp_path / "r.yaml", config_overrides=overrides, num_train_epochs=1, test_splits=["iid"])
    main(["--config", str(recipe), "--output_dir", str(tmp_path / "run")])
    model = AutoModel.from_pretrained(tmp_path / "run")
    split = relation_world_pairs("train", WORLD["world"])
    assert model.config.id2label == dict(enumerate(split.predicates))
    for subject, other in split.track_labels[:3].tolist():
        rows = (split.track_labels == torch.tensor([subject, other])).all(1)
        counts = torch.bincount(split.labels[rows], minlength=20)
        wanted = (counts + 4 * model.prior.rates) / (rows.sum() + 4)
        torch.testing.assert_close(model.prior.pair_rates[subject, other], wanted)
    options = {"world": WORLD["world"], "progress": False}
    half, same, none = (
        evaluate_relations(tmp_path / "run", "world", "iid", prior=prior, **options)
        for prior in (None, 0.5, "uniform")
    )
    assert half["metrics"] == same["metrics"] and half["prior_strength"] == 0.5
    assert none["metrics"] != half["metrics"]


def test_pairs_without_a_relation_change_with_the_epoch_and_come_again_with_it(films: dict[str, str]):
    from hf_causal_video.data.relations.labels import PairRule

    data = segments(films, rule=PairRule(max_pairs=3, min_overlap=7))
    drawn = {}
    for epoch in (0, 1, 2, 1):
        data.set_epoch(epoch)
        now = [data[item]["pair_index"].tolist() for item in range(len(data))]
        assert drawn.setdefault(epoch, now) == now
    assert drawn[0] != drawn[1] != drawn[2]
    assert all(len(data[item]["pair_index"]) <= 3 for item in range(len(data)))


class Detected(GivenTracks):
    """Annotated tracks a pixel aside, one of them lost, with an appearance that names the object."""

    feature_dim = 3

    def __getitem__(self, video_id: str) -> list[dict]:
        tracks = super().__getitem__(video_id)[1:]
        rows = [np.full((len(t["boxes"]), 3), place, dtype=np.float32) for place, t in enumerate(tracks)]
        return [{**t, "boxes": t["boxes"] + 0.4, "features": f} for t, f in zip(tracks, rows, strict=True)]


def test_annotated_tracks_borrow_the_appearance_of_the_detections_that_follow_them(films: dict[str, str]):
    data = segments(films, Detected(read_relations(films["train"]), {"tracks": "a detector"}))
    for item in (data[number] for number in range(4)):
        assert len(item["tracks"]) == 6, "three detected, and the three annotated that these follow"
        for detected, annotated in zip(item["tracks"][:3], item["tracks"][3:], strict=True):
            assert np.allclose(annotated["features"], detected["features"].mean(0))
    batch = RelationCollator(VideoRelationProcessor(data.object_classes, data.predicates, 10, 5))([data[0], data[3]])
    assert batch["track_features"].shape[-1] == 3 and (batch["pair_index"][:, 0] >= 0).all()
    bare = segments(films, GivenTracks(read_relations(films["train"]), {}))[0]
    assert len(bare["tracks"]) == 8, "without appearance all four annotated tracks stand beside the given ones"


def test_prototypes_start_from_the_class_means_of_the_references():
    split = relation_world_pairs("train", WORLD["world"])
    processor = VideoRelationProcessor(split.object_classes, split.predicates, 4, 4)
    collator = RelationCollator(processor)
    from hf_causal_video.models.ivrd import IVRDConfig

    config = IVRDConfig.preset("paper", num_object_classes=10, num_predicates=20, hidden_size=8, feature_dim=32,
                               multi_label=False)  # fmt: skip
    model = IVRDForVideoRelationDetection(config).train()
    before = model.prototypes.vectors.detach().clone()
    items = [split[number] for number in range(40)]
    start_prototypes(model, [collator(items[:25]), collator(items[25:])])
    inputs = {k: v for k, v in collator(items).items() if k not in ("track_labels", "predicate_labels")}
    references = model.eval()(**inputs).references[:, 0]
    for predicate in range(20):
        mine = split.labels[:40] == predicate
        wanted = references[mine].mean(0) if mine.any() else before[predicate]
        assert torch.allclose(model.prototypes.vectors[predicate], wanted, atol=1e-5)


@pytest.mark.parametrize("preset", ["paper", "paper-exact"])
def test_the_warm_up_is_blind_to_prototypes_and_the_rest_is_not(preset: str):
    from hf_causal_video.models.ivrd import IVRDConfig

    torch.manual_seed(0)
    model = IVRDForVideoRelationDetection(
        IVRDConfig.preset(preset, num_object_classes=2, num_predicates=3, hidden_size=8, hidden_dropout_prob=0.0)
    ).train()
    boxes = torch.rand(1, 3, 5, 2).sort(-2).values
    inputs = {"track_boxes": torch.cat([boxes, boxes + 0.2], -1)}
    model.warming_up = True
    one = model(**inputs, predicate_labels=torch.ones(1, 6, 3))
    one.loss.backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if "object_classifier" not in name)
    model.prototypes.vectors.data += 1.0
    assert torch.equal(model(**inputs).predicate_logits, one.predicate_logits)
    model.warming_up = False
    assert not torch.allclose(model(**inputs).predicate_logits, one.predicate_logits, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"lora_rank": 2}, "reads no text"),
        ({"world": {"pairs": 3}}, "unknown options"),
        ({"dataset": {"train": "no/such"}, "world": None, "relations": {"min_overlap": 3}}, "no/such"),
        ({"dataset": {"train": "x"}, "world": None, "relations": {"overlap": 3}}, "overlap"),
    ],
)
def test_what_cannot_be_trained_is_refused(changes: dict, named: str, tmp_path: Path):
    recipe = write(tmp_path / "r.yaml", **changes)
    with pytest.raises(CausalVideoError, match=named):
        main(["--config", str(recipe), "--output_dir", str(tmp_path / "run")])


def test_accuracy_cannot_choose_where_a_pair_has_several_predicates(films: dict[str, str], tmp_path: Path):
    recipe = video_recipe(tmp_path / "r.yaml", films)
    with pytest.raises(CausalVideoError, match="metric_for_best_model mAP"):
        main(["--config", str(recipe), "--output_dir", str(tmp_path / "run"), "--metric_for_best_model", "accuracy"])


def test_a_part_of_the_videos_can_be_held_out(films: dict[str, str]):
    from hf_causal_video.training.relations.splits import read_rows

    whole, first, rest = (read_rows(films["train"] + part)["video_id"] for part in ("", "[:34%]", "[34%:]"))
    assert list(first) + list(rest) == list(whole) and len(first) == 2
    with pytest.raises(CausalVideoError, match="0 videos|no video"):
        read_rows(films["train"] + "[:1%]")


def odd_row(
    name: str, tracks: list[tuple[int, int]], relations: list[dict], frames: int = 60, shift: float = 0.0
) -> dict:
    """A video of given (first frame, length) tracks, side by side."""
    boxes = [[40.0 * place + shift, 10.0, 40.0 * place + 30 + shift, 50.0] for place in range(len(tracks))]
    return {
        "video_id": name, "width": 100, "height": 60, "fps": 10.0, "num_frames": frames, "relations": relations,
        "tracks": [
            {"category": "dog" if place % 2 else "cat", "score": 1.0, "frames": list(range(first, first + length)),
             "boxes": [box] * length}
            for place, ((first, length), box) in enumerate(zip(tracks, boxes, strict=True))
        ],
    }  # fmt: skip


def chase(start: int, end: int, predicate: str = "chase") -> dict:
    return {"subject": 0, "predicate": predicate, "object": 1, "start": start, "end": end}


def test_odd_videos_are_learned_from_and_asked_about_and_none_is_lost():
    """No track, one, tracks that never meet, of one frame, shorter than a segment, over the edge, an unseen word."""
    from hf_causal_video.data.relations.rows import relations_dataset
    from hf_causal_video.models.ivrd import IVRDConfig
    from hf_causal_video.training.relations.predict import measure_videos, predict_videos

    rows = relations_dataset([
        odd_row("none", [], []), odd_row("one", [(0, 60)], []), odd_row("apart", [(0, 9), (30, 9)], []),
        odd_row("blink", [(5, 1), (5, 1)], [chase(5, 6)]), odd_row("short", [(0, 4), (0, 4)], [chase(0, 4)], frames=4),
        odd_row("edge", [(0, 60), (0, 60)], [chase(0, 60)], shift=45.0),
        odd_row("word", [(0, 60), (0, 60)], [chase(0, 60, "bite")]),
    ])  # fmt: skip
    processor = VideoRelationProcessor(["cat", "dog"], ["chase", "near"], 10, 5)
    known = rows.filter(lambda row: row["video_id"] != "word")
    data = RelationSegments(known, ["cat", "dog"], ["chase", "near"], processor.segment_begins, 10)
    items = [data[number] for number in range(len(data))]
    assert {item["question_id"].split(":")[0] for item in items} == {"blink", "short", "edge"}
    for item in items:
        assert item["predicate_labels"][:, 0].sum() == 1, "the relation of each of them is an example"
    model = IVRDForVideoRelationDetection(IVRDConfig(num_object_classes=2, num_predicates=2, hidden_size=8))
    counts, pairs = data.training_counts()
    model.set_predicate_counts(torch.tensor(counts), pairs)
    output = model.train()(**RelationCollator(processor)(items))
    assert output.loss.isfinite() and counts.tolist() == [len(items), 0], "nobody is near, and the loss is finite"
    whole = RelationSegments(rows, ["cat", "dog"], ["chase", "near"], processor.segment_begins, 10)
    open_to_all = {"object_threshold": 0.0, "predicate_threshold": 0.0}
    found = predict_videos(model, processor, whole, progress=False, **open_to_all)
    assert [record["id"] for record in found] == rows["video_id"][:]
    told = {record["id"]: len(record["relations"]) for record in found}
    assert (
        told["none"] == told["one"] == told["apart"] == 0
        and min(told[name] for name in ("blink", "short", "edge")) > 0
    )
    table = measure_videos(found, rows, {"chase": 3}, {("cat", "chase", "dog")})
    assert table["counts"]["gt_relations"] == 4, "an unseen word counts as missed, and is not dropped"
    with pytest.raises(CausalVideoError, match="bite"):
        unknown = RelationSegments(rows, ["cat", "dog"], ["chase"], processor.segment_begins, 10)
        [unknown[number] for number in range(len(unknown))]


def test_overlapping_duplicates_teach_alike_and_inverted_boxes_are_refused():
    from hf_causal_video.data.relations.rows import relations_dataset

    rows = relations_dataset([odd_row("v", [(0, 10), (0, 10)], [chase(0, 10)], frames=10)])

    class Twice(GivenTracks):
        def __getitem__(self, video_id: str) -> list[dict]:
            return [track for track in super().__getitem__(video_id) for _ in range(2)]

    data = RelationSegments(rows, ["cat", "dog"], ["chase"], lambda first, last: [first], 10, Twice(rows, {}))
    item = data[0]
    assert item["track_labels"].tolist() == [0, 0, 1, 1, 0, 1]
    assert item["predicate_labels"].sum() == 3 * 3, "each of three cats chases each of three dogs"
    bad = odd_row("w", [(0, 10), (0, 10)], [])
    bad["tracks"][0]["boxes"][3] = [30.0, 10.0, 0.0, 50.0]
    with pytest.raises(CausalVideoError, match="video 'w', track 0, frame 3"):
        relations_dataset([bad])

    class Late(GivenTracks):
        def __getitem__(self, video_id: str) -> list[dict]:
            return [{**track, "start": 5} for track in super().__getitem__(video_id)]

    with pytest.raises(CausalVideoError, match="within the 10 frames"):
        RelationSegments(rows, ["cat", "dog"], ["chase"], lambda first, last: [first], 10, Late(rows, {}))
    with pytest.raises(CausalVideoError, match="without tracks"):
        RelationSegments(rows, ["cat", "dog"], ["chase"], lambda first, last: [first], 10, {})


def test_windows_of_jaad_train_by_their_recipe(tmp_path: Path):
    from tests.data.relations.test_jaad import box
    from tests.data.relations.test_jaad import write as write_jaad

    boxes = [box(frame, **({"nod": "nodding"} if frame % 60 < 30 else {"action": "standing"})) for frame in range(90)]
    folder = write_jaad(tmp_path / "jaad", boxes, ["stopped"] * 90)
    for split in ("val", "test"):
        (folder / f"split_ids/all_videos/{split}.txt").write_text("video_0001\n")
    places = json.dumps(dict.fromkeys(("train", "validation", "test"), str(folder)))
    flags = ["--dataset", places, "--num_train_epochs", "1", "--config_overrides", '{"hidden_size": 8}']
    run = ["--config", "ivrd_jaad", "--output_dir", str(tmp_path / "run"), "--use_cpu", "true"]
    metrics = main([*run, *flags, "--disable_tqdm", "true"])
    assert metrics["test"]["test"]["pairs"] == 3 and "mR@4" in metrics["test"]["test"]
    found = evaluate_relations(tmp_path / "run", "jaad", "test", annotations=folder, progress=False)
    assert found["metrics"]["mAP"] == pytest.approx(metrics["test"]["test"]["mAP"], rel=1e-4)
    assert AutoModel.from_pretrained(tmp_path / "run").prior.rates.count_nonzero() == 11
