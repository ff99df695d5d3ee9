"""The two faces: the pipeline and the command line, over a tiny model and a clip written on the spot."""

import json
import pickle
from dataclasses import replace
from pathlib import Path
from types import GeneratorType

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoModel, AutoProcessor, pipeline
from transformers.video_utils import VideoMetadata

from hf_causal_video import (
    EIGVConfig,
    EIGVForVideoQuestionAnswering,
    IGVConfig,
    IGVForVideoQuestionAnswering,
    TranSTRConfig,
    TranSTRForVideoQuestionAnswering,
    VideoQAProcessor,
)
from hf_causal_video.cli.main import main
from hf_causal_video.features.store import VideoFeatures
from hf_causal_video.models.clip_statistics import ClipStatistics
from hf_causal_video.stress.ablation import event_frames
from hf_causal_video.utils.errors import CausalVideoError
from hf_causal_video.viewer.answer import notes_of
from hf_causal_video.worlds import tiny_text_config, world_tokenizer

QUESTION, CHOICES = "who is doing jump", ["star", "ring", "heart"]
FRAMES = [np.full((32, 32, 3), 20 * index, np.uint8) for index in range(8)]
TIMES = [0.5 + index for index in range(8)]


def tiny_extractor(video, timestamps_s=None):
    """Stands for the networks: eight frames whose features are their own index."""
    times = torch.tensor(TIMES if timestamps_s is None else timestamps_s)
    features = torch.arange(len(times)).float()[:, None].expand(-1, 6)
    return VideoFeatures("clip", times, features), FRAMES[: len(times)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder, tokenizer = tmp_path_factory.mktemp("tiny checkpoint"), world_tokenizer()
    torch.manual_seed(0)
    config = TranSTRConfig(
        text_config=tiny_text_config(len(tokenizer), 16, 1).to_dict(), hidden_size=16, num_attention_heads=2,
        intermediate_size=16, frame_feature_dim=6, num_frames_kept=3, num_objects_kept=0,
    )  # fmt: skip
    TranSTRForVideoQuestionAnswering(config).save_pretrained(folder)
    VideoQAProcessor(tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def qa(checkpoint):
    return pipeline("video-question-answering", model=str(checkpoint), clip_extractor=tiny_extractor)


def test_the_task_is_known_by_name_and_the_auto_classes_open_the_checkpoint(qa, checkpoint):
    assert type(qa).__name__ == "VideoQuestionAnsweringPipeline"
    assert isinstance(AutoModel.from_pretrained(checkpoint), TranSTRForVideoQuestionAnswering)
    assert isinstance(AutoProcessor.from_pretrained(checkpoint), VideoQAProcessor)


def test_a_path_frames_and_features_give_the_same_answer(qa):
    features, frames = tiny_extractor("clip.mp4")
    by_path = qa("clip.mp4", question=QUESTION, choices=CHOICES)
    by_frames = qa(np.stack(frames), question=QUESTION, choices=CHOICES, timestamps_s=TIMES)
    by_features = qa(features=features, question=QUESTION, choices=CHOICES)
    assert by_path == by_frames == by_features
    assert by_path["answer"] in CHOICES and len(by_path["evidence"].frames) == 3


def test_several_questions_of_a_clip_are_answered_as_one_by_one(qa):
    questions = [QUESTION, "who is doing spin"]
    together = qa("clip.mp4", question=questions, choices=CHOICES)
    assert [r["answer"] for r in together] == [qa("c", question=q, choices=CHOICES)["answer"] for q in questions]


def test_a_list_of_clips(qa):
    item = {"video": "clip.mp4", "question": QUESTION, "choices": CHOICES}
    results = qa([item, item], return_frames=True)
    assert len(results) == 2 and len(results[0]["frames"]) == 8


def test_proof_asks_again_with_and_without_the_evidence(qa):
    result = qa("clip.mp4", question=QUESTION, choices=CHOICES, prove=True)
    verdict = result["verdict"]
    for name in ("scores_only", "scores_without"):
        assert list(verdict[name]) == CHOICES and sum(verdict[name].values()) == pytest.approx(1, abs=1e-5)
    kept = [frame.index for frame in result["evidence"].frames]
    features, _ = tiny_extractor("clip.mp4")
    alone = VideoFeatures("clip", features.timestamps_s[kept], features.frame_features[kept])
    again = qa(features=alone, question=QUESTION, choices=CHOICES)
    only = pytest.approx(list(verdict.scores_only.values()), abs=1e-5)
    assert again["evidence"].scores == only, "masked is as good as absent"


def test_every_form_of_input_that_pipelines_take(qa):
    features, _ = tiny_extractor("clip.mp4")
    item = {"video": "clip.mp4", "question": QUESTION, "choices": CHOICES}
    one = qa(**item)
    assert qa(item) == one
    assert qa([item, item]) == [one, one]
    assert qa(["a.mp4", Path("b.mp4")], question=QUESTION, choices=CHOICES) == [one, one]
    stream = qa(item for _ in range(3))
    assert isinstance(stream, GeneratorType) and list(stream) == [one] * 3
    table = Dataset.from_list([{**item, "answer": 1, "video_id": "v"}] * 2)
    assert qa(table) == [one, one], "a column that is no argument is left out"
    columns = {"question": QUESTION, "frame_features": features.frame_features.tolist(), "timestamps_s": TIMES}
    rows = Dataset.from_list([columns, columns])
    assert qa(rows, choices=CHOICES) == [one, one], "features as an unformatted table holds them"

    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return {"features": features, "question": QUESTION, "choices": CHOICES}

    assert qa(Rows()) == [one, one]
    nested = {"frame_features": features.frame_features.tolist(), "timestamps_s": TIMES}
    assert qa({"features": nested, "question": QUESTION, "choices": CHOICES}) == one


def test_a_result_is_json_and_its_evidence_has_attributes(qa):
    result = qa("clip.mp4", question=QUESTION, choices=CHOICES)
    told = json.loads(json.dumps(result))
    assert set(told) == {
        "answer", "score", "choices", "scores", "evidence", "verdict", "unknown_words", "unlike_training",
        "frames_missing",
    }  # fmt: skip
    assert told["evidence"]["frames"][0]["time_s"] == result["evidence"].frames[0].time_s
    again = pickle.loads(pickle.dumps(result))
    assert again == result and again["evidence"].answer == result["answer"]
    assert replace(result["evidence"], answer="other")["answer"] == "other"


def test_top_k_cuts_the_choices_and_nothing_else(qa):
    whole, cut = (qa("clip.mp4", question=QUESTION, choices=CHOICES, top_k=k) for k in (None, 2))
    assert whole["choices"] == CHOICES and len(cut["choices"]) == 2
    assert cut["choices"][0] == cut["answer"] and cut["scores"] == sorted(whole["scores"], reverse=True)[:2]
    assert cut["verdict"] == whole["verdict"]
    for wrong in (0, "2", True):
        with pytest.raises(CausalVideoError, match="top_k"):
            qa("clip.mp4", question=QUESTION, choices=CHOICES, top_k=wrong)


def test_a_clip_that_cannot_be_used_leaves_its_error_in_its_place(checkpoint):
    def extractor(video, timestamps_s=None):
        if "broken" in str(video):
            raise CausalVideoError("broken.mp4", found="no picture", expected="a video", fix="encode it again")
        return tiny_extractor(video, timestamps_s)

    qa = pipeline("video-question-answering", model=str(checkpoint), clip_extractor=extractor)
    clips = ["a.mp4", "broken.mp4", "c.mp4"]
    results = qa(clips, question=QUESTION, choices=CHOICES, on_error="return")
    assert [set(result) == {"video", "error"} for result in results] == [False, True, False]
    assert "found no picture" in results[1]["error"] and results[1]["video"] == "broken.mp4"
    assert results[0] == results[2] and json.dumps(results)
    with pytest.raises(CausalVideoError, match="no picture"):
        qa(clips, question=QUESTION, choices=CHOICES)
    with pytest.raises(CausalVideoError, match="on_error"):
        qa(clips, question=QUESTION, choices=CHOICES, on_error="ignore")


def clip_of(number: int) -> dict[str, object]:
    """Clips of different length, with different numbers of choices and words."""
    times = TIMES[: 8 - number % 3]
    features = torch.randn(len(times), 6, generator=torch.Generator().manual_seed(number))
    question = QUESTION if number % 2 else [QUESTION, f"{QUESTION} and spin"]
    return {
        "features": VideoFeatures("clip", torch.tensor(times), features),
        "question": question,
        "choices": [*CHOICES, "star and ring", "square"][: 3 + number % 3],
    }


def flat(results: list) -> list[dict]:
    return [one for result in results for one in (result if isinstance(result, list) else [result])]


def same_results(found: list, wanted: list) -> None:
    """Equal answers, evidence and verdicts, but for rounding."""
    assert len(flat(found)) == len(flat(wanted))
    for one, other in zip(flat(found), flat(wanted), strict=True):
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-5)
        assert (one["answer"], one["choices"]) == (other["answer"], other["choices"])
        assert one["evidence"].spans == other["evidence"].spans
        assert [frame.index for frame in one["evidence"].frames] == [f.index for f in other["evidence"].frames]
        assert (one["verdict"] is None) == (other["verdict"] is None)
        for name in ("scores_only", "scores_without") if one["verdict"] else ():
            assert one["verdict"][name] == (other["verdict"][name] and pytest.approx(other["verdict"][name], abs=1e-5))
        assert not one["verdict"] or one["verdict"].removed_s == other["verdict"].removed_s


def counted(qa) -> list[int]:
    """The number of questions of each forward pass."""
    calls: list[int] = []
    qa.model.register_forward_hook(lambda _, args, output: calls.append(len(output.logits)))
    return calls


def test_a_batch_of_clips_is_answered_in_one_pass_as_they_are_alone(checkpoint):
    model = AutoModel.from_pretrained(checkpoint, num_frames_kept=1)  # enough are left to ask without the evidence
    qa = pipeline("video-question-answering", model=model, processor=AutoProcessor.from_pretrained(checkpoint))
    clips, calls = [clip_of(number) for number in range(6)], counted(qa)
    wanted = qa(clips)
    assert len(calls) == 3 * 6  # the answer, from the evidence alone, and without it
    calls.clear()
    same_results(qa(clips, batch_size=4), wanted)
    assert calls == [6] * 3 + [3] * 3
    calls.clear()
    results = qa((clip for clip in clips), batch_size=3, prove=False)
    next(results)
    assert calls == [5], "a generator runs as it is read"
    assert [one["answer"] for one in flat(list(results))] == [one["answer"] for one in flat(wanted[1:])][-7:]
    with pytest.raises(CausalVideoError, match="batch_size"):
        qa(clips, batch_size=0)


def test_options_of_a_pipeline_hold_where_the_call_has_none(checkpoint):
    qa = pipeline("video-question-answering", model=str(checkpoint), batch_size=4, prove=False, top_k=1)
    calls = counted(qa)
    results = flat(qa([clip_of(number) for number in range(4)]))
    assert calls == [6] and {len(one["choices"]) for one in results} == {1} and not any(r["verdict"] for r in results)
    assert len(qa(clip_of(1), top_k=2)["choices"]) == 2


def test_a_batch_with_a_clip_of_too_few_frames_or_a_broken_one(checkpoint):
    """What cannot be asked of one clip, and the error of another, are no other clip's."""
    qa = pipeline("video-question-answering", model=str(checkpoint))
    features = clip_of(1)["features"]
    few = VideoFeatures("few", features.timestamps_s[:4], features.frame_features[:4])
    nan = VideoFeatures("nan", features.timestamps_s, features.frame_features * torch.nan)
    clips = [clip_of(0), clip_of(1) | {"features": few}, clip_of(2)]
    wanted = qa(clips)
    assert flat(wanted)[2]["verdict"].scores_without is None
    same_results(qa(clips, batch_size=3), wanted)
    found = qa([*clips, clip_of(1) | {"features": nan}, clip_of(3)], batch_size=4, on_error="return")
    assert "finite" in found[3]["error"]
    same_results([*found[:3], found[4]], [*wanted, qa(clip_of(3))])


def test_clips_that_padding_would_change_are_batched_by_their_shape(checkpoint):
    model = AutoModel.from_pretrained(checkpoint, rank_by="prob", topk_order="unsorted")
    qa = pipeline("video-question-answering", model=model, processor=AutoProcessor.from_pretrained(checkpoint))
    clips, calls = [clip_of(number) for number in (1, 3, 7)], counted(qa)
    wanted = qa(clips, prove=False)
    calls.clear()
    same_results(qa(clips, batch_size=3, prove=False), wanted)
    assert calls == [1, 1, 1]
    calls.clear()
    same_results(qa([clips[0], clips[2], clips[1]], batch_size=3, prove=False), [wanted[0], wanted[2], wanted[1]])
    assert calls == [2, 1]


def test_a_model_fresh_from_training_answers_the_same_every_time(checkpoint):
    model = AutoModel.from_pretrained(checkpoint, hidden_dropout_prob=0.5).train()
    qa = pipeline("video-question-answering", model=model, processor=AutoProcessor.from_pretrained(checkpoint))
    features = tiny_extractor("clip.mp4")[0]
    scores = [qa(features=features, question=QUESTION, choices=CHOICES)["scores"] for _ in range(3)]
    assert scores[0] == scores[1] == scores[2]


def test_a_saved_pipeline_opens_again_without_trust(checkpoint, tmp_path):
    processor = VideoQAProcessor(world_tokenizer(), choice_template="choice", max_length=31)
    model = AutoModel.from_pretrained(checkpoint)
    model.config.custom_pipelines = {"left by": "an older version"}
    saved = pipeline("video-question-answering", model=model, processor=processor, clip_extractor=tiny_extractor)
    saved.save_pretrained(tmp_path / "folder")
    assert not list((tmp_path / "folder").glob("*.py"))
    assert "custom_pipelines" not in json.loads((tmp_path / "folder" / "config.json").read_text())
    again = pipeline("video-question-answering", model=str(tmp_path / "folder"), clip_extractor=tiny_extractor)
    assert (again.processor.choice_template, again.processor.max_length) == ("choice", 31)
    assert again("c", question=QUESTION, choices=CHOICES) == saved("c", question=QUESTION, choices=CHOICES)


def test_seconds_may_come_as_video_metadata(qa):
    metadata = VideoMetadata(total_num_frames=200, fps=25.0, frames_indices=[int(25 * time) for time in TIMES])
    by_seconds = qa(np.stack(FRAMES), question=QUESTION, choices=CHOICES, timestamps_s=metadata.timestamps)
    assert qa(np.stack(FRAMES), question=QUESTION, choices=CHOICES, timestamps_s=metadata) == by_seconds


def test_words_the_model_cannot_read_are_named_in_the_result(qa):
    result = qa("clip.mp4", question="who is yodelling", choices=["star", "zither"])
    assert result["unknown_words"] == ["yodelling", "zither"]


def test_a_text_longer_than_the_encoder_reads_is_refused_or_cut(qa):
    positions = qa.model.config.text_config.max_position_embeddings
    words = " ".join(["jump"] * (positions + 10))
    assert qa.processor.max_length > positions
    with pytest.raises(CausalVideoError, match=f"{positions + 12} tokens .*max_length={positions}"):
        qa("clip.mp4", question=words, choices=CHOICES)
    assert qa("clip.mp4", question=words, choices=CHOICES, truncation=True)["answer"] in CHOICES
    inputs = qa.processor(words, CHOICES, frame_features=torch.zeros(4, 6))
    with pytest.raises(CausalVideoError, match=f"at most {positions}"):
        qa.model(**inputs)


def test_a_clip_unlike_the_training_clips_is_noted(checkpoint):
    statistics = ClipStatistics.of_clips(tiny_extractor("")[0].frame_features + shift for shift in (-0.2, 0, 0.2))
    processor = VideoQAProcessor(world_tokenizer(), clip_statistics=statistics.to_dict())
    model = AutoModel.from_pretrained(checkpoint)
    qa = pipeline("video-question-answering", model=model, processor=processor)
    features = tiny_extractor("clip.mp4")[0]
    far = replace(features, frame_features=features.frame_features + 50)
    near, other = (qa(features=one, question=QUESTION, choices=CHOICES) for one in (features, far))
    assert near["unlike_training"]["unlike"] is False and other["unlike_training"]["unlike"] is True
    assert "Unlike the training clips" in notes_of(other)[0]
    assert not any("Unlike" in note for note in notes_of(near))


@pytest.mark.parametrize(
    "call",
    [
        {"question": QUESTION, "choices": CHOICES},
        {"video": "clip.mp4", "features": tiny_extractor("")[0], "question": QUESTION},
        {"video": "clip.mp4", "choices": CHOICES},
        {"video": "clip.mp4", "question": QUESTION, "choices": CHOICES, "tomorrow": 1},
        {"video": "clip.mp4", "question": QUESTION},
        {"video": "clip.mp4", "question": QUESTION, "choices": []},
        {"video": np.stack(FRAMES), "question": QUESTION, "choices": CHOICES, "timestamps_s": [1.0] * 8},
    ],
)
def test_a_call_that_cannot_be_meant_is_refused(qa, call):
    with pytest.raises(CausalVideoError):
        qa(**call)


@pytest.mark.parametrize(
    ("config", "model_class"), [(IGVConfig, IGVForVideoQuestionAnswering), (EIGVConfig, EIGVForVideoQuestionAnswering)]
)
def test_the_evidence_of_a_grounding_model_are_its_causal_frames(config, model_class):
    torch.manual_seed(1)
    tokenizer = world_tokenizer()
    sizes = {"hidden_dim": 4, "word_dim": 4, "bilinear_dim": 8, "bilinear_chunks": 2, "bilinear_rank": 2}
    text = tiny_text_config(len(tokenizer), 16, 1).to_dict()
    model = model_class(config(text_config=text, frame_feature_dim=6, backbone_config=sizes)).eval()
    processor = VideoQAProcessor(tokenizer)
    features = VideoFeatures("clip", torch.tensor(TIMES), torch.randn(8, 6))
    qa = pipeline("video-question-answering", model=model, processor=processor)
    result = qa(features=features, question=QUESTION, choices=CHOICES, prove=True)
    inputs = processor(QUESTION, CHOICES, frame_features=features.frame_features)
    causal = model(**inputs, output_evidence=True).causal_mask[0]
    assert [frame.index for frame in result["evidence"].frames] == causal.nonzero()[:, 0].tolist()
    covered = sum(end - start for start, end in result["evidence"].spans)
    assert covered == pytest.approx(int(causal.sum())), "a second a frame"
    verdict = result["verdict"]
    assert sum(verdict.scores_only.values()) == pytest.approx(1, abs=1e-5)
    everything = event_frames(causal[None], torch.ones(1, 8).bool()).all()
    assert (verdict.scores_without is None) == (verdict.necessary is None) == bool(everything)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_answers_with_its_evidence(checkpoint, dtype):
    half = pipeline("video-question-answering", model=str(checkpoint), clip_extractor=tiny_extractor, dtype=dtype)
    result = half("clip.mp4", question=QUESTION, choices=CHOICES, prove=True)
    assert result["answer"] in CHOICES and len(result["evidence"].frames) == 3
    assert sum(result["verdict"].scores_only.values()) == pytest.approx(1, abs=1e-2)


def test_a_clip_of_one_frame_is_its_own_evidence_and_cannot_be_without_it(checkpoint):
    model = AutoModel.from_pretrained(checkpoint, num_frames_kept=1)
    qa = pipeline("video-question-answering", model=model, processor=AutoProcessor.from_pretrained(checkpoint))
    features = VideoFeatures("clip", torch.tensor([1.0]), torch.ones(1, 6))
    result = qa(features=features, question=QUESTION, choices=CHOICES, prove=True)
    verdict = result["verdict"]
    assert result["evidence"].spans == [(0.0, 2.0)]
    assert verdict.scores_without is None and verdict.necessary is None and verdict.sufficient is True
    assert list(verdict.scores_only.values()) == pytest.approx(result["evidence"].scores, abs=1e-5)


def test_nan_is_no_answer(checkpoint):
    model = AutoModel.from_pretrained(checkpoint)
    with torch.no_grad():
        model.classifier.weight.fill_(float("nan"))
    qa = pipeline("video-question-answering", model=model, processor=AutoProcessor.from_pretrained(checkpoint))
    features = tiny_extractor("clip.mp4")[0]
    with pytest.raises(CausalVideoError, match="NaN among the logits"):
        qa(features=features, question=QUESTION, choices=CHOICES)


def test_a_checkpoint_that_does_not_know_its_features_says_so(checkpoint):
    qa = pipeline("video-question-answering", model=str(checkpoint))
    with pytest.raises(CausalVideoError, match="feature_provenance"):
        qa("clip.mp4", question=QUESTION, choices=CHOICES)


def test_answer_verb_prints_draws_and_writes_json(qa, checkpoint, tmp_path, monkeypatch, capsys):
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"stands for a video")
    monkeypatch.setattr("hf_causal_video.pipelines.question_answering.load_pipeline", lambda *_, **__: qa)
    arguments = ["answer", str(checkpoint), str(clip), QUESTION, "--choices", *CHOICES]
    assert main([*arguments, "--html", str(tmp_path / "a.html"), "--png", str(tmp_path / "a.png")]) == 0
    printed = capsys.readouterr().out
    assert "evidence only" in printed and "With the evidence removed" in printed
    assert (tmp_path / "a.png").stat().st_size > 1000 and QUESTION in (tmp_path / "a.html").read_text()
    assert main([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["answer"] in CHOICES and {"score", "choices", "evidence", "verdict"} <= set(told)
    assert list(told["verdict"]["scores_without"]) == CHOICES


def test_bad_input_ends_with_a_message_and_code_two(checkpoint, capsys):
    assert main(["answer", str(checkpoint), "absent.mp4", QUESTION]) == 2
    assert "absent.mp4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"choices": None}, "found none; expected the choices of this multiple-choice model"),
        ({"question": " "}, "write what you want to know"),
        ({"question": [QUESTION, ""]}, "write what you want to know"),
        ({"question": []}, "write what you want to know"),
    ],
)
def test_what_is_missing_is_said_before_the_clip_is_looked_at(checkpoint, change, words):
    def never(*_, **__):
        raise AssertionError("the clip was looked at")

    qa = pipeline("video-question-answering", model=str(checkpoint), clip_extractor=never)
    with pytest.raises(CausalVideoError, match=words):
        qa(**{"video": "clip.mp4", "question": QUESTION, "choices": CHOICES} | change)


def test_an_open_ended_model_takes_no_choices(checkpoint):
    model = AutoModel.from_pretrained(checkpoint, num_answers=2, ignore_mismatched_sizes=True)
    qa = pipeline("video-question-answering", model=model, processor=AutoProcessor.from_pretrained(checkpoint))
    with pytest.raises(CausalVideoError, match="leave the choices out"):
        qa(features=tiny_extractor("clip.mp4")[0], question=QUESTION, choices=CHOICES)


def test_reading_weights_shows_no_bars(checkpoint, tmp_path, monkeypatch, capfd):
    from huggingface_hub.utils import are_progress_bars_disabled
    from transformers.utils import logging

    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"no video")
    logging.enable_progress_bar()
    assert main(["answer", str(checkpoint), str(clip), QUESTION, "--choices", *CHOICES]) == 2
    told = capfd.readouterr().err
    assert "feature_provenance" in told and "Loading weights" not in told and "\r" not in told
    assert not are_progress_bars_disabled(), "downloads keep theirs"


@pytest.mark.parametrize("verb", ["extract", "evaluate", "answer", "relations", "stress", "app"])
def test_help_teaches_by_example(verb, capsys):
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    assert "examples:" in capsys.readouterr().out
