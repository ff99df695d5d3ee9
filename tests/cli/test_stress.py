"""`hf-causal-video stress` and a checkpoint as what is tested: TranSTR, IGV, EIGV and a plain backbone."""

import json
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from transformers import AutoModel, AutoProcessor

from hf_causal_video import (
    BackboneConfig,
    BackboneForVideoQuestionAnswering,
    EIGVConfig,
    EIGVForVideoQuestionAnswering,
    IGVConfig,
    IGVForVideoQuestionAnswering,
    IVRDConfig,
    IVRDForVideoRelationDetection,
    TranSTRConfig,
    TranSTRForVideoQuestionAnswering,
    VideoQAProcessor,
)
from hf_causal_video.cli.main import main
from hf_causal_video.cli.stress import stress_checkpoint
from hf_causal_video.stress.model import VideoQAAnswerer
from hf_causal_video.stress.runner import TESTS, stress_test
from hf_causal_video.training.evaluate import load_data
from hf_causal_video.utils.errors import CausalVideoError
from hf_causal_video.viewer import canvas, fonts
from hf_causal_video.worlds import tiny_text_config, world_tokenizer

WORLD = {"study": "grounding", "eval_clips": 12, "num_choices": 5}
SIZES = {"hidden_dim": 4, "word_dim": 4, "bilinear_dim": 8, "bilinear_chunks": 2, "bilinear_rank": 2}
TOKENIZER = world_tokenizer()
TEXT = tiny_text_config(len(TOKENIZER), 16, 1).to_dict()
GROUNDED = {"text_config": TEXT, "frame_feature_dim": 64, "backbone_config": SIZES}
MODELS = {
    "transtr": lambda: TranSTRForVideoQuestionAnswering(
        TranSTRConfig(
            text_config=TEXT,
            hidden_size=16,
            num_attention_heads=2,
            intermediate_size=16,
            frame_feature_dim=64,
            num_frames_kept=4,
            num_objects_kept=0,
        )  # fmt: skip
    ),
    "igv": lambda: IGVForVideoQuestionAnswering(IGVConfig(**GROUNDED)),
    "eigv": lambda: EIGVForVideoQuestionAnswering(EIGVConfig(**GROUNDED)),
    "backbone": lambda: BackboneForVideoQuestionAnswering(BackboneConfig(**GROUNDED)),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    def make(name: str):
        folder = tmp_path_factory.getbasetemp() / name
        if not folder.exists():
            torch.manual_seed(0)
            MODELS[name]().save_pretrained(folder)
            VideoQAProcessor(TOKENIZER).save_pretrained(folder)
            (folder / "recipe.yaml").write_text(f"world: {json.dumps(WORLD)}\n")
        return folder

    return make


def answerer(checkpoint, name: str, dtype: torch.dtype = torch.float32) -> VideoQAAnswerer:
    folder = checkpoint(name)
    return VideoQAAnswerer(AutoModel.from_pretrained(folder, dtype=dtype), AutoProcessor.from_pretrained(folder))


@pytest.mark.parametrize("name", list(MODELS))
def test_every_method_is_tested_with_its_own_evidence(checkpoint, name, capsys):
    folder = checkpoint(name)
    assert main(["stress", str(folder), "--dataset", "world", "--limit", "10"]) == 0
    printed = capsys.readouterr().out
    output = folder / "stress" / "world-iid"
    assert sorted(path.name for path in output.iterdir()) == [
        "model_index.json", "questions.jsonl", "stress.json", "stress.png",
    ]  # fmt: skip
    report = json.loads((output / "stress.json").read_text())
    assert [row["test"] for row in report["rows"]] == list(TESTS) and report["questions"] == 10
    assert report["mark"] == "measured here" and report["chance"] == 20
    kept = [len(json.loads(line)["evidence"]) for line in (output / "questions.jsonl").read_text().splitlines()[1:]]
    expected = {"transtr": lambda n: n == 4, "backbone": lambda n: n == 16}.get(name, lambda n: 1 <= n <= 16)
    assert all(map(expected, kept)) and ("singles out none" in printed) == (name == "backbone")
    if name == "transtr":  # its answer is computed from what it keeps, so nothing else can change it
        only = next(row for row in report["rows"] if row["test"] == "evidence_only")
        assert only["change"] == 0 and only["same_answer"] == 100


def test_a_second_run_reads_what_the_first_wrote_and_other_weights_are_refused(checkpoint, tmp_path, monkeypatch):
    folder, given = checkpoint("transtr"), {"world": WORLD, "output": tmp_path, "progress": False}
    first = stress_checkpoint(folder, "world", "iid", **given)
    monkeypatch.setattr(VideoQAAnswerer, "batch", None)
    assert stress_checkpoint(folder, "world", "iid", **given) == first
    with pytest.raises(CausalVideoError, match="another run"):
        stress_checkpoint(checkpoint("igv"), "world", "iid", **given)
    with pytest.raises(CausalVideoError, match="another run"):
        stress_checkpoint(folder, "world", "ood", **given)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["transtr", "igv"])
def test_models_of_any_precision_are_tested(checkpoint, name, dtype):
    data = load_data("world", "iid", world=WORLD | {"eval_clips": 6})
    model = answerer(checkpoint, name, dtype)
    report = stress_test(model, data, progress=False, resamples=10)
    assert report["questions"] == 6 and len(report["effects"]) == 4


def test_one_question_is_answered_as_in_a_batch(checkpoint):
    model, data = answerer(checkpoint, "igv"), load_data("world", "iid", world=WORLD)
    items = [data[row] for row in range(3)]
    asked = [({"frame_features": x["frame_features"]}, x["question"], x["choices"]) for x in items]
    together = model.batch(asked)
    for one, scores in zip(asked, together, strict=True):
        assert model(*one) == pytest.approx(scores, abs=1e-5) and len(scores) == 5
    with pytest.raises(CausalVideoError, match="looks at features"):
        model(torch.zeros(4, 64), "who is jumping", ["star", "ring"])


def test_a_relation_model_is_not_asked_questions(tmp_path):
    IVRDForVideoRelationDetection(
        IVRDConfig.preset("plain", num_object_classes=3, num_predicates=2, hidden_size=8, feature_dim=0)
    ).save_pretrained(tmp_path)
    with pytest.raises(CausalVideoError, match="a relation model"):
        stress_checkpoint(tmp_path, "world")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--world", "study=grounding"], "expected JSON such as"),
        (["--limit", "0"], "raise --limit"),
        (["--tests", "tomorrow"], "no such test"),
        (["--evidence", "none", "--tests", "evidence_only"], "no evidence"),
        (["--dataset", "questions.csv"], "add --features"),
    ],
)
def test_what_cannot_be_meant_ends_with_a_message(checkpoint, tmp_path, arguments, message, capsys):
    given = ["stress", str(checkpoint("transtr")), "--dataset", "world", "--output", str(tmp_path), *arguments]
    try:
        code = main(given)
    except SystemExit as usage:
        code = usage.code
    assert code == 2 and message in capsys.readouterr().err


def test_a_title_in_another_script_is_drawn_or_its_letters_are_named(checkpoint, tmp_path, monkeypatch, capsys):
    """The picture takes letters from `--font`; those that no font has are question marks, and that is said."""
    folder = tmp_path / "\ue001\ue002"
    folder.symlink_to(checkpoint("transtr"))
    output = tmp_path / "out"
    command = [
        "stress",
        str(folder),
        "--dataset",
        "world",
        "--limit",
        "4",
        "--tests",
        "blind",
        "--output",
        str(output),
    ]
    monkeypatch.setattr(fonts, "font_files", lambda: ())
    fonts.font_with.cache_clear()
    canvas._written.cache_clear()
    try:
        assert main(command) == 0
        assert "2 letters are written as question marks" in capsys.readouterr().err
        plain = Image.open(output / "stress.png")
        assert main([*command, "--font", str(tmp_path / "none.ttf")]) == 2
        assert "a font file" in capsys.readouterr().err
    finally:
        fonts.font_with.cache_clear()
        canvas._written.cache_clear()
    monkeypatch.undo()
    if not (files := fonts.font_files()):
        pytest.skip("no font file on this system")
    named = next(path for path in files if fonts.has_letter(path, "a"))
    assert main([*command, "--font", named]) == 0
    other = Image.open(output / "stress.png")
    assert other.size != plain.size or (np.asarray(other) != np.asarray(plain)).any()


def test_the_text_encoder_runs_once_for_all_changed_clips(checkpoint, monkeypatch):
    """Eleven tests and the evidence ask three different texts: those of the questions, permuted, and replaced."""
    model, data = answerer(checkpoint, "igv"), load_data("world", "iid", world=WORLD)
    run = {"progress": False, "resamples": 10, "environment": "truth"}
    calls = []
    encode = model.model.encode_text
    monkeypatch.setattr(model.model, "encode_text", lambda groups: calls.append(1) or encode(groups))
    with_reuse = stress_test(model, data, **run)
    assert len(calls) == 3, "the questions fit into one batch"
    monkeypatch.setattr(VideoQAAnswerer, "reuse", nullcontext)
    calls.clear()
    assert stress_test(model, data, **run)["rows"] == with_reuse["rows"]
    assert len(calls) == 12


def test_outside_of_a_run_changed_weights_change_the_answer(checkpoint):
    model, data = answerer(checkpoint, "transtr"), load_data("world", "iid", world=WORLD)
    first = data[0]
    asked = [({"frame_features": first["frame_features"]}, first["question"], list(first["choices"]))]
    [before] = model.batch(asked)
    with torch.no_grad():
        for parameter in model.model.text_encoder.parameters():
            parameter.add_(torch.randn_like(parameter))
    assert abs(model.batch(asked)[0] - before).max() > 1e-4


def test_a_clip_is_encoded_once_for_all_its_questions(checkpoint, monkeypatch):
    """Two questions per video, in mixed order: conditions that do not depend on the question share one encoding."""
    model, data = answerer(checkpoint, "transtr"), load_data("world", "iid", world=WORLD | {"eval_clips": 6})
    rows = data.questions.to_list()
    again = [row | {"question_id": row["question_id"] + "-again"} for row in rows[::-1]]
    data.questions = Dataset.from_list(rows + again, features=data.questions.features)
    options = {"tests": ["blind", "first_frame", "options_permuted"]}
    options |= {"evidence": "none", "progress": False, "resamples": 10}
    alone = stress_test(model, data, batch_size=1, **options)
    encoded = []
    encode = model.model.encode_video
    monkeypatch.setattr(
        model.model, "encode_video", lambda frames, *a, **k: encoded.append(len(frames)) or encode(frames, *a, **k)
    )
    together = stress_test(model, data, batch_size=4, **options)
    assert together["rows"] == alone["rows"]
    assert sum(encoded) == 4 * len(rows)  # whole, blind, first frame, permuted: once per video each
