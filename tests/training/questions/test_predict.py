"""`predict` and `measure`: plain records in the order of the questions, and the evaluation that fits them."""

import pytest
import torch
from datasets import Dataset

from hf_causal_video.data import VideoQACollator, VideoQADataset
from hf_causal_video.models import TranSTRConfig, TranSTRForVideoQuestionAnswering, VideoQAProcessor
from hf_causal_video.training import measure, predict
from hf_causal_video.utils.errors import CausalVideoError
from hf_causal_video.worlds import WorldConfig, generate_world, world_tokenizer
from tests.training.conftest import TINY


@pytest.fixture(scope="module", params=[None, 4], ids=["open-ended", "multiple-choice"])
def setting(request: pytest.FixtureRequest):
    """A random model, and questions it was made for."""
    size = {"num_frames": 8, "num_objects": 3, "feature_dim": 8}
    world = generate_world(WorldConfig.selection(num_choices=request.param, **size), "iid", 11)
    from hf_causal_video.worlds import ANSWERS

    vocabulary = list(ANSWERS) if request.param is None else None
    overrides = {**TINY["config_overrides"], "frame_feature_dim": 8, "object_feature_dim": 8}
    overrides["text_config"] = {**overrides["text_config"], "vocab_size": len(world_tokenizer())}
    torch.manual_seed(0)
    config = TranSTRConfig.preset("clean", **overrides, num_answers=None if vocabulary is None else len(vocabulary))
    collator = VideoQACollator(VideoQAProcessor(world_tokenizer(), answer_vocabulary=vocabulary))
    return TranSTRForVideoQuestionAnswering(config), VideoQADataset(world.questions, world.features), collator


def test_records_follow_the_questions_whatever_the_batch(setting):
    model, dataset, collator = setting
    one, four = (predict(model, dataset, collator, size, progress=False) for size in (1, 4))
    assert [row["question_id"] for row in four] == dataset.questions["question_id"]
    for a, b in zip(one, four, strict=True):
        assert a["prediction"] == b["prediction"] and a["kept_frames"] == b["kept_frames"] and a["spans"] == b["spans"]
        assert a["scores"] == pytest.approx(b["scores"], abs=1e-5)


def test_records_are_plain_and_consistent(setting):
    import json

    model, dataset, collator = setting
    for row, item in zip(predict(model, dataset, collator, 4, progress=False), dataset, strict=True):
        assert json.loads(json.dumps(row)) == row
        assert len(row["frame_scores"]) == 8 and row["kept_frames"] == sorted(set(row["kept_frames"]))
        covered = {second for start, end in row["spans"] for second in range(int(start), int(end))}
        assert covered == set(row["kept_frames"])  # one frame a second, frame i is the second i
        if item["choices"]:
            assert row["choices"] == item["choices"] and row["answer"] == item["choices"][row["prediction"]]
            assert sum(row["scores"]) == pytest.approx(1.0, abs=1e-5)
        else:
            assert len(row["scores"]) == 5 and row["answer"] == row["choices"][0]


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_model_comes_back_and_answers_are_not_read(setting, training: bool):
    model, dataset, collator = setting
    model.train(training)
    known = predict(model, dataset, collator, 4, progress=False)
    assert model.training == training
    nobody = dataset.questions.map(lambda row: {"answer": -1})
    unknown = predict(model, VideoQADataset(nobody, dataset.store), collator, 4, progress=False)
    assert [row["prediction"] for row in known] == [row["prediction"] for row in unknown]


def test_measure_takes_the_evaluation_of_the_questions(setting):
    model, dataset, collator = setting
    rows = predict(model, dataset, collator, 4, progress=False)
    right = [row["prediction"] == answer for row, answer in zip(rows, dataset.questions["answer"], strict=True)]
    assert measure(rows, dataset.questions)["Acc"] == pytest.approx(100 * sum(right) / len(right))


def test_measure_knows_what_it_does_not_know():
    rows = [
        {"question_id": str(i), "question": "why", "choices": ["a", "b"], "answer": answer, "question_type": "CW"}
        for i, answer in enumerate((0, 1, -1))
    ]
    answers = [{"question_id": str(i), "prediction": 0} for i in range(3)]
    assert measure(answers[:2], rows[:2])["Acc_C"] == 50.0
    assert measure(answers[2:], rows[2:]) == {}
    with pytest.raises(CausalVideoError, match="1 of 3"):
        measure(answers, rows)
    rows = [{**row, "choices": []} for row in rows]  # open-ended: one answer outside the vocabulary is wrong
    assert measure(answers, rows)["Acc"] == pytest.approx(100 / 3)
    assert measure(answers[2:], rows[2:]) == {}


def test_causalvidqa_is_measured_in_pairs():
    kinds = ("d", "e", "p", "pr", "c", "cr")
    rows = [
        {"question_id": f"v_{kind}", "video_id": "v", "question": "?", "choices": list("abcde"), "answer": 1,
         "question_type": kind}
        for kind in kinds
    ]  # fmt: skip
    answers = [{"question_id": f"v_{kind}", "prediction": 0 if kind == "pr" else 1} for kind in kinds]
    found = measure(answers, rows)
    assert (found["p"], found["par"], found["All"]) == (100.0, 0.0, 75.0)
    assert found["Acc"] == pytest.approx(100 * 5 / 6)


def test_questions_of_a_video_are_answered_together(setting, monkeypatch):
    """Three questions per video, in mixed order: each video is read and encoded once, and the answers are the same."""
    model, dataset, collator = setting
    rows = dataset.questions.to_list()
    copies = [row | {"question_id": f"{row['question_id']}-{n}", "question": rows[n]["question"]}
              for n in range(3) for row in rows]  # fmt: skip
    many = VideoQADataset(Dataset.from_list(copies, features=dataset.questions.features), dataset.store)
    read, encoded = [], []
    get_many = many.store.get_many
    encode = model.encode_video

    def spy_read(names):
        read.extend(names := list(names))
        return get_many(names)

    def spy_encode(frames, *inputs, **options):
        encoded.append(len(frames))
        return encode(frames, *inputs, **options)

    monkeypatch.setattr(many.store, "get_many", spy_read)
    monkeypatch.setattr(model, "encode_video", spy_encode)
    together = predict(model, many, collator, 7, progress=False)
    assert sorted(read) == sorted(set(read)) and sum(encoded) == len(rows)
    assert [row["question_id"] for row in together] == many.questions["question_id"]
    alone = predict(model, many, collator, 1, progress=False)
    for a, b in zip(together, alone, strict=True):
        assert a["prediction"] == b["prediction"] and a["kept_frames"] == b["kept_frames"]
        assert a["scores"] == pytest.approx(b["scores"], abs=1e-5)
    shares = [predict(model, many, collator, 7, progress=False, share=(rank, 2)) for rank in range(2)]
    videos = [{row["video_id"] for row in share} for share in shares]
    assert not videos[0] & videos[1] and sum(map(len, shares)) == len(copies)


def test_a_model_without_video_index_gets_a_video_per_question(setting, monkeypatch):
    model, dataset, collator = setting
    expected = predict(model, dataset, collator, 4, progress=False)
    forward = type(model).forward

    def plain(self, frame_features, input_ids, attention_mask, choice_input_ids=None, choice_attention_mask=None,
              object_features=None, object_boxes=None, frame_mask=None, object_mask=None):  # fmt: skip
        assert len(frame_features) == len(input_ids)
        return forward(self, frame_features, input_ids, attention_mask, choice_input_ids, choice_attention_mask,
                       object_features, object_boxes, frame_mask, object_mask)  # fmt: skip

    monkeypatch.setattr(type(model), "forward", plain)
    for a, b in zip(predict(model, dataset, collator, 4, progress=False), expected, strict=True):
        assert a["prediction"] == b["prediction"]
