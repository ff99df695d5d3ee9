"""Laws of measuring a checkpoint: each question answered once, files say what the table says, no wrong features."""

import csv
import json

import pytest
import torch

from hf_causal_video import TranSTRConfig, TranSTRForVideoQuestionAnswering, VideoQAProcessor
from hf_causal_video.cli.main import main
from hf_causal_video.features.store import FeatureWriter, Provenance, VideoFeatures
from hf_causal_video.models import EIGVConfig, EIGVForVideoQuestionAnswering
from hf_causal_video.models.loading import weights_digest
from hf_causal_video.training.evaluate import evaluate_checkpoint
from hf_causal_video.utils.errors import CausalVideoError
from hf_causal_video.worlds import tiny_text_config, world_tokenizer

CARD = Provenance("org/vit", "main", "pooled", 6, sampling="fps-1")
CHOICES = ["jumping", "sliding", "spinning", "growing", "shaking"]
REST = ["frame_count", "width", "height", "question", "answer", "qid", "type", *[f"a{i}" for i in range(5)]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint, a feature set, an official csv and spans for two clips with three questions each."""
    folder, tokenizer = tmp_path_factory.mktemp("evaluate"), world_tokenizer()
    torch.manual_seed(0)
    config = TranSTRConfig(
        text_config=tiny_text_config(len(tokenizer), 16, 1).to_dict(), hidden_size=16, num_attention_heads=2,
        intermediate_size=16, frame_feature_dim=6, num_frames_kept=2, num_objects_kept=0,
        feature_provenance=CARD.to_dict(),
    )  # fmt: skip
    TranSTRForVideoQuestionAnswering(config).save_pretrained(folder / "model")
    VideoQAProcessor(tokenizer).save_pretrained(folder / "model")
    with FeatureWriter(folder / "features", CARD) as writer:
        for video in ("11", "22"):
            writer.add(VideoFeatures(video, torch.arange(5) + 0.5, torch.randn(5, 6)))
    with open(folder / "val.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["video", *REST])
        for video in ("11", "22"):
            for qid, kind in enumerate(("CW", "TN", "DO")):
                rows.writerow([video, 150, 64, 64, "what is the star doing", qid, qid, kind, *CHOICES])
    spans = {video: {"duration": 5, "fps": 30, "location": {"0": [[1, 2]], "1": [[0, 5]]}} for video in ("11", "22")}
    (folder / "gsub.json").write_text(json.dumps(spans))
    with open(folder / "gqa.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["video_id", *REST])
        for video in ("11", "22"):
            for qid, kind in enumerate(("CW", "TN")):
                rows.writerow([video, 150, 64, 64, "what is the star doing", CHOICES[qid], qid, kind, *CHOICES])
    return folder


def test_every_question_is_answered_and_the_files_say_what_is_returned(folder, tmp_path):
    report = evaluate_checkpoint(
        folder / "model", str(folder / "val.csv"), features=folder / "features", output=tmp_path,
        progress=False,
    )  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [line["question_id"] for line in lines] == [f"{v}_{q}" for v in ("11", "22") for q in range(3)]
    assert json.loads((tmp_path / "metrics.json").read_text()) == report
    assert report["weights"] == weights_digest(folder / "model") and report["weights"]
    right = sum(line["prediction"] == int(line["question_id"][-1]) for line in lines)
    assert report["metrics"]["Acc"] == pytest.approx(100 * right / 6) and report["mark"] == "measured here"


def test_grounded_evaluation_scores_the_seconds_too(folder):
    report = evaluate_checkpoint(
        folder / "model", str(folder / "gqa.csv"), spans=folder / "gsub.json",
        features=folder / "features", progress=False,
    )  # fmt: skip
    assert {"Acc", "Acc@GQA", "mIoP", "mIoU", "IoP@0.3", "IoU@0.5"} <= set(report["metrics"])
    assert report["metrics"]["Acc@GQA"] <= report["metrics"]["Acc"]


def test_eigv_is_asked_which_frames_it_calls_causal(folder, tmp_path):
    """It grounds only when asked. The seconds that are scored are those of its frames, not of the whole clip."""
    text, sizes = tiny_text_config(len(world_tokenizer()), 16, 1).to_dict(), {"hidden_size": 16}
    torch.manual_seed(3)
    config = EIGVConfig(
        text_config=text, backbone="pooling", backbone_config=sizes, frame_feature_dim=6,
        feature_provenance=CARD.to_dict(),
    )  # fmt: skip
    EIGVForVideoQuestionAnswering(config).save_pretrained(tmp_path / "model")
    VideoQAProcessor(world_tokenizer()).save_pretrained(tmp_path / "model")
    report = evaluate_checkpoint(
        tmp_path / "model", str(folder / "gqa.csv"), spans=folder / "gsub.json",
        features=folder / "features", output=tmp_path, progress=False,
    )  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert all(0 < len(line["kept_frames"]) < 5 for line in lines)
    true = {"0": (1.0, 2.0), "1": (0.0, 5.0)}
    shares = []
    for line in lines:
        (start, end), (first, last) = line["best_span"], true[line["question_id"][-1]]
        assert (start, end) != (0.0, 5.0)
        shares.append(100 * max(0.0, min(end, last) - max(start, first)) / (end - start))
    assert report["metrics"]["mIoP"] == pytest.approx(sum(shares) / len(shares))


def test_features_of_another_backbone_are_refused(folder, tmp_path):
    other = Provenance("org/another", "main", "pooled", 6, sampling="fps-1")
    with FeatureWriter(tmp_path / "features", other) as writer:
        for video in ("11", "22"):
            writer.add(VideoFeatures(video, torch.arange(5) + 0.5, torch.randn(5, 6)))
    with pytest.raises(CausalVideoError, match="org/another"):
        evaluate_checkpoint(folder / "model", str(folder / "val.csv"), features=tmp_path / "features")


def test_missing_features_and_files_are_named(folder, tmp_path):
    with FeatureWriter(tmp_path / "features", CARD) as writer:
        writer.add(VideoFeatures("11", torch.arange(5) + 0.5, torch.randn(5, 6)))
    with pytest.raises(CausalVideoError, match="22"):
        evaluate_checkpoint(folder / "model", str(folder / "val.csv"), features=tmp_path / "features")
    with pytest.raises(CausalVideoError, match="--features"):
        evaluate_checkpoint(folder / "model", str(folder / "val.csv"))


def test_the_verb_prints_the_table_and_says_where_the_files_are(folder, capsys):
    command = ["evaluate", str(folder / "model"), "--split", "test", "--features", str(folder / "features")]
    assert main([*command, "--dataset", str(folder / "val.csv")]) == 0
    printed = capsys.readouterr().out
    assert "Acc_T" in printed and "measured here" in printed
    assert (folder / "model" / "evaluation" / "val-test" / "metrics.json").is_file()
    assert main([*command, "--dataset", "absent.csv"]) == 2
    assert "absent.csv" in capsys.readouterr().err


def test_a_benchmark_is_its_name_and_its_folder(folder, monkeypatch, tmp_path):
    """The same questions by name as by file; for training too, and never a name alone."""
    from hf_causal_video.data import benchmarks
    from hf_causal_video.training.arguments import DataArguments
    from hf_causal_video.training.questions.splits import load_split

    options = {"features": folder / "features", "progress": False, "split": "val"}
    with pytest.raises(CausalVideoError, match=r"not the full val file: found \(6, 2\)"):
        evaluate_checkpoint(folder / "model", "nextqa", annotations=folder, **options)
    small = benchmarks.Benchmark("source", {}, benchmarks.BENCHMARKS["nextqa"].read)
    monkeypatch.setitem(benchmarks.BENCHMARKS, "nextqa", small)
    by_name = evaluate_checkpoint(folder / "model", "nextqa", annotations=folder, **options)
    by_file = evaluate_checkpoint(folder / "model", str(folder / "val.csv"), **options)
    assert by_name["metrics"] == by_file["metrics"]
    command = [
        "evaluate",
        str(folder / "model"),
        "--dataset",
        "nextqa",
        "--annotations",
        str(folder),
        "--split",
        "val",
    ]
    assert main([*command, "--features", str(folder / "features"), "--output", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["metrics"] == by_name["metrics"]
    arguments = DataArguments(dataset="nextqa", annotations=str(folder), features=str(folder / "features"))
    assert len(load_split(arguments, "validation")) == 6
    with pytest.raises(CausalVideoError, match="add --annotations FOLDER"):
        load_split(DataArguments(dataset="msvdqa", features=str(folder / "features")), "test")
    phrases = DataArguments(dataset="nextqa-oe", annotations=str(folder), features=str(folder / "features"))
    with pytest.raises(CausalVideoError, match="add --answer_vocabulary 1000"):
        load_split(phrases, "test")


def test_an_open_ended_benchmark_is_scored_by_the_words_of_the_checkpoint(folder, monkeypatch, tmp_path):
    """The order of the words is the checkpoint's, whatever list lies beside the questions."""
    from hf_causal_video.data import benchmarks

    monkeypatch.setattr(benchmarks.open_ended, "MSVDQA_COUNTS", {"test": (2, 2)})
    texts = "video,question,answer,qid\n11,what is the star doing,sliding,1\n22,what is the star doing,knitting,2\n"
    (tmp_path / "test.csv").write_text(texts)
    (tmp_path / "ans_word.json").write_text('["knitting"]')
    tokenizer = world_tokenizer()
    config = TranSTRConfig(
        text_config=tiny_text_config(len(tokenizer), 16, 1).to_dict(), hidden_size=16, num_attention_heads=2,
        intermediate_size=16, frame_feature_dim=6, num_frames_kept=2, num_objects_kept=0, num_answers=3,
        feature_provenance=CARD.to_dict(),
    )  # fmt: skip
    TranSTRForVideoQuestionAnswering(config).save_pretrained(tmp_path / "model")
    VideoQAProcessor(tokenizer, answer_vocabulary=["jumping", "sliding"]).save_pretrained(tmp_path / "model")
    report = evaluate_checkpoint(
        tmp_path / "model", "msvdqa", annotations=tmp_path, features=folder / "features", output=tmp_path / "out",
        progress=False,
    )  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert report["metrics"]["Acc"] == 50.0 * (lines[0]["prediction"] == 1)
