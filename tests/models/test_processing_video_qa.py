"""Laws of the processor: it pads no further than the batch, refuses what it cannot mean, gives evidence in seconds."""

import copy
import pickle

import pytest
import torch
from torch.utils.data import DataLoader
from transformers.video_utils import VideoMetadata

from hf_causal_video.features.store import VideoFeatures
from hf_causal_video.models import VideoQAOutput, VideoQAProcessor
from hf_causal_video.models.spans import best_span, fit_gaussian, grow_window, kept_frames_to_spans
from hf_causal_video.utils.errors import CausalVideoError
from hf_causal_video.worlds import world_tokenizer

QUESTION, CHOICES = "who is doing jump", ["star", "ring"]


@pytest.fixture(scope="module")
def processor() -> VideoQAProcessor:
    return VideoQAProcessor(world_tokenizer())


def test_a_batch_is_padded_to_its_longest_and_no_further(processor):
    short = processor([QUESTION], [CHOICES], [torch.ones(3, 4)])
    clips = [torch.ones(3, 4), torch.ones(5, 4)]
    both = processor([QUESTION, QUESTION + " now or then"], [CHOICES, [*CHOICES, "heart"]], clips)
    assert short["frame_features"].shape == (1, 3, 4) and short["frame_mask"].all()
    assert short["input_ids"].shape[1] == int(short["attention_mask"].sum())
    assert both["frame_mask"].sum(1).tolist() == [3, 5]
    assert both["frame_features"][0, 3:].abs().sum() == 0
    assert both["choice_attention_mask"].any(-1).tolist() == [[True, True, False], [True, True, True]]
    width = short["input_ids"].shape[1]
    assert torch.equal(both["input_ids"][0, :width], short["input_ids"][0])


def test_one_clip_serves_all_its_questions(processor):
    inputs = processor([QUESTION] * 3, [CHOICES] * 3, torch.ones(5, 4), timestamps=torch.arange(5.0))
    assert inputs["frame_features"].shape == (3, 5, 4) and len(inputs.timestamps_s) == 3
    assert "timestamps_s" not in inputs


def test_official_template_doubles_the_special_tokens(processor):
    official = VideoQAProcessor(processor.tokenizer, choice_template="official")
    inputs = official(QUESTION, CHOICES, torch.ones(3, 4))
    words = processor.tokenizer.convert_ids_to_tokens(inputs["choice_input_ids"][0, 0])
    assert words[:2] == ["[CLS]", "[CLS]"] and words.count("[SEP]") == 2


def test_it_comes_back_from_disk_as_it_was(processor, tmp_path):
    VideoQAProcessor(processor.tokenizer, ["a", "b"], "choice", 99).save_pretrained(tmp_path)
    again = VideoQAProcessor.from_pretrained(tmp_path)
    assert (again.answer_vocabulary, again.choice_template, again.max_length) == (["a", "b"], "choice", 99)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"question": ["  "]}, "question"),
        ({"question": []}, "question"),
        ({"choices": [[]]}, "choices"),
        ({"choices": [["star", " "]]}, "choices"),
        ({"choices": [CHOICES, CHOICES]}, "choices"),
        ({"frame_features": None}, "features"),
        ({"frame_features": [torch.full((3, 4), torch.nan)]}, "NaN"),
        ({"frame_features": [torch.ones(0, 4)]}, "frame_features"),
        ({"frame_features": [torch.ones(3, 4)] * 2}, "frame_features"),
        ({"object_features": [torch.ones(3, 4)]}, "object_features"),
        ({"video": "clip.mp4"}, "feature_extractor"),
        ({"question": [QUESTION * 200]}, "max_length"),
        ({"return_tensors": "np"}, "return_tensors"),
    ],
)
def test_bad_input_is_named(processor, change, said):
    good = {"question": [QUESTION], "choices": [CHOICES], "frame_features": [torch.ones(3, 4)]}
    with pytest.raises(CausalVideoError, match=said) as caught:
        processor(**{**good, **change})
    assert "expected" in str(caught.value) and "Fix:" in str(caught.value)


def output(**change) -> VideoQAOutput:
    fields = {
        "logits": torch.tensor([[0.0, 2.0]]), "frame_scores": torch.tensor([[0.1, 0.9, 0.8, -torch.inf]]),
        "kept_frames": torch.tensor([[2, 1, 2]]), "object_scores": torch.tensor([[[0.5, -torch.inf]] * 3]),
        "kept_objects": torch.tensor([[[0, 1]] * 3]), "kept_boxes": torch.full((1, 3, 2, 4), 0.5),
    }  # fmt: skip
    return VideoQAOutput(**{**fields, **change})


def test_evidence_names_answer_seconds_frames_and_boxes(processor):
    (evidence,) = processor.post_process_evidence(output(), [torch.tensor([1.0, 3.0, 5.0])], [CHOICES])
    assert (evidence.answer, evidence.answer_index) == ("ring", 1)
    assert evidence.score == pytest.approx(torch.tensor([0.0, 2.0]).softmax(0)[1].item())
    assert [frame.index for frame in evidence.frames] == [1, 2], "each kept frame once, in temporal order"
    assert evidence.spans == [(2.0, 6.0)], "slices of neighbouring frames join"
    places = [(item.frame_index, item.object_index) for item in evidence.objects]
    assert places == [(1, 0), (2, 0)], "padding is no object"
    assert evidence.objects[0].box == (0.5, 0.5, 0.5, 0.5) and evidence.objects[0].time_s == 3.0


@pytest.mark.parametrize("rule", ["kept", "window", "gaussian"])
def test_every_span_rule_stays_inside_the_clip(processor, rule):
    (evidence,) = processor.post_process_evidence(
        output(), [torch.tensor([1.0, 3.0, 5.0])], [CHOICES], duration_s=5.5, span_rule=rule
    )
    assert evidence.spans and all(0 <= start < end <= 5.5 for start, end in evidence.spans)


def test_an_open_answer_is_a_word_of_the_vocabulary_or_none_of_them():
    processor = VideoQAProcessor(world_tokenizer(), answer_vocabulary=["cat", "dog"])
    (evidence,) = processor.post_process_evidence(output(logits=torch.tensor([[0.0, 1.0, 3.0]])))
    assert evidence.answer == "<other>" and evidence.choices == ["<other>", "dog", "cat"] and evidence.spans == []


def test_evidence_needs_a_model_that_chooses(processor):
    with pytest.raises(CausalVideoError, match="kept_frames"):
        processor.post_process_evidence(output(kept_frames=None))


def test_times_of_other_frames_are_refused(processor):
    with pytest.raises(CausalVideoError):
        processor.post_process_evidence(output(), [torch.arange(9.0)], [CHOICES])
    with pytest.raises(CausalVideoError, match="increas"):
        processor.post_process_evidence(output(), [torch.tensor([1.0, 3.0, 2.0])], [CHOICES])


@pytest.mark.parametrize("rule", ["kept", "window", "gaussian"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_spans_come_from_one_rule_in_order_of_time_and_the_best_is_named(processor, rule, dtype):
    """A grounding model's log-odds, -inf at padding; two runs are causal, the later one more surely."""
    times = [torch.arange(7.0) + 0.5, torch.arange(5.0) + 0.5]
    scores = torch.tensor([[-3, 0.5, 1, -4, 3, 2, -5], [-1, 4, 3, -2, -3, -torch.inf, -torch.inf]], dtype=dtype)
    causal = scores > 0
    kept = torch.tensor([[1, 2, 4, 5], [1, 2, 1, 1]])  # a clip with fewer repeats its best frame
    output = VideoQAOutput(logits=torch.zeros(2, 2), frame_scores=scores, kept_frames=kept, causal_mask=causal)
    for row, evidence in enumerate(processor.post_process_evidence(output, times, [CHOICES] * 2, span_rule=rule)):
        own = scores[row : row + 1, : len(times[row])].float()
        rules = {"window": grow_window, "gaussian": fit_gaussian}
        if rule == "kept":
            expected = kept_frames_to_spans(causal[row : row + 1, : len(times[row])], times[row], own)[0]
        else:
            expected = rules[rule](own.softmax(-1), times[row])
        assert evidence.best_span == pytest.approx(best_span(expected)[:2]) and len(evidence.spans) == len(expected)
    assert rule != "kept" or processor.post_process_evidence(output, times)[0].spans == [(1.0, 3.0), (4.0, 6.0)]


def test_logits_that_are_nan_are_no_answer(processor):
    logits = torch.tensor([[0.0, 1.0], [torch.nan, 1.0]])
    output = VideoQAOutput(
        logits=logits, frame_scores=torch.ones(2, 3), kept_frames=torch.zeros(2, 1, dtype=torch.long)
    )
    with pytest.raises(CausalVideoError, match="1 of 2 questions"):
        processor.post_process_evidence(output)


def test_seconds_and_unknown_words_survive_pickle_copies_and_workers(processor):
    def batch(_=None):
        return processor("who is yodelling", CHOICES, torch.ones(3, 4), timestamps=[0.5, 1.5, 2.5])

    inputs = batch()
    [loaded] = DataLoader([0], num_workers=1, collate_fn=batch)
    for again in (pickle.loads(pickle.dumps(inputs)), copy.deepcopy(inputs), loaded, inputs.to("cpu")):
        assert torch.equal(again.timestamps_s[0], torch.tensor([0.5, 1.5, 2.5], dtype=torch.float64))
        assert again.unknown_words == [["yodelling"]] and set(again) == set(inputs)
        assert processor.post_process_evidence(output(), again.timestamps_s)[0].spans == [(1.0, 3.0)]


def test_nested_lists_count_as_tensors(processor):
    frames, objects = torch.rand(3, 4), torch.rand(3, 2, 5)
    boxes, mask = torch.rand(3, 2, 4), torch.ones(3, 2).bool()
    given = {"frame_features": frames, "object_features": objects, "object_boxes": boxes, "object_mask": mask}
    whole = processor(QUESTION, CHOICES, **given)
    lists = processor(QUESTION, CHOICES, **{name: value.tolist() for name, value in given.items()})
    rows = processor(QUESTION, CHOICES, **{name: list(value) for name, value in given.items()})
    for name in whole:
        assert torch.allclose(whole[name].float(), lists[name].float()), name
        assert torch.allclose(whole[name].float(), rows[name].float()), name
    two = processor([QUESTION] * 2, [CHOICES] * 2, [frames.tolist(), frames[:2].tolist()])
    assert two["frame_mask"].sum(1).tolist() == [3, 2]


def test_text_and_videos_are_other_names(processor):
    def extractor(video):
        return VideoFeatures(video, torch.tensor([0.5, 1.5]), torch.ones(2, 4)), []

    inputs = processor(text=QUESTION, choices=CHOICES, videos="clip", feature_extractor=extractor)
    again = processor(QUESTION, CHOICES, video="clip", feature_extractor=extractor)
    assert all(torch.equal(inputs[name], again[name]) for name in again) and len(inputs.timestamps_s[0]) == 2
    with pytest.raises(CausalVideoError, match="text is another name of question"):
        processor(QUESTION, CHOICES, torch.ones(3, 4), text=QUESTION)


def test_options_reach_the_tokenizer(processor):
    wide = processor(QUESTION, CHOICES, torch.ones(3, 4), padding="max_length", max_length=20)
    assert wide["input_ids"].shape == (1, 20) and wide["choice_input_ids"].shape == (1, 2, 20)
    short = processor(QUESTION * 9, CHOICES, torch.ones(3, 4), text_kwargs={"truncation": True, "max_length": 6})
    assert short["input_ids"].shape == (1, 6) == (1, int(short["attention_mask"].sum()))
    left = processor([QUESTION, "who"], [CHOICES] * 2, torch.ones(3, 4), padding_side="left")
    assert left["attention_mask"][1, 0] == 0
    with pytest.raises(CausalVideoError, match="12 tokens .* at most max_length=11"):
        processor(" ".join(["jump"] * 10), CHOICES, torch.ones(3, 4), max_length=11)
    with pytest.raises(CausalVideoError, match="unknown option: found paddings"):
        processor(QUESTION, CHOICES, torch.ones(3, 4), paddings=True)


def test_the_input_names_are_all_that_it_returns(processor):
    objects = {"object_features": torch.rand(3, 2, 5), "object_boxes": torch.rand(3, 2, 4)}
    inputs = processor(QUESTION, CHOICES, torch.ones(3, 4), **objects, object_mask=torch.ones(3, 2))
    assert {*inputs, "video_index"} == set(processor.model_input_names)


def test_video_metadata_is_accepted_where_seconds_are(processor):
    metadata = VideoMetadata(total_num_frames=75, fps=25.0, frames_indices=[25, 75, 125])
    inputs = processor(QUESTION, CHOICES, torch.ones(3, 4), timestamps=metadata)
    assert inputs.timestamps_s[0].tolist() == [1.0, 3.0, 5.0]
    for times in (metadata, [metadata]):
        assert processor.post_process_evidence(output(), times)[0].spans == [(2.0, 6.0)]
    with pytest.raises(CausalVideoError, match="fps=None"):
        processor(QUESTION, CHOICES, torch.ones(3, 4), timestamps=VideoMetadata(total_num_frames=75))


def test_unknown_words_are_named_once_and_listed_for_each_question(processor, monkeypatch):
    told: list[str] = []
    monkeypatch.setattr("hf_causal_video.models.unknown_words.logger.warning", told.append)
    monkeypatch.setattr("hf_causal_video.models.unknown_words._named", set())
    for _ in range(2):
        inputs = processor(["who is yodelling?", "who"], [["star", "2 zithers 🙂"], CHOICES], torch.ones(3, 4))
        assert inputs.unknown_words == [["yodelling", "2", "zithers", "🙂"], []]
    assert len(told) == 1 and "yodelling" in told[0] and "zithers" in told[0]


def test_questions_share_videos_by_their_row():
    processor = VideoQAProcessor(world_tokenizer())
    questions = ["who jumps", "who spins", "who jumps"]
    frames = [torch.ones(2, 8), torch.zeros(4, 8)]
    times = [torch.arange(2.0), torch.arange(4.0)]
    inputs = processor(questions, frame_features=frames, timestamps=times, video_index=[1, 0, 1])
    assert inputs["frame_features"].shape == (2, 4, 8) and inputs["frame_mask"].sum(1).tolist() == [2, 4]
    assert inputs["video_index"].tolist() == [1, 0, 1] and [len(one) for one in inputs.timestamps_s] == [2, 4]
    for wrong in ([0, 1], [0, 2, 1], [0, -1, 0], [0.0, 1.0, 0.0], "011"):
        with pytest.raises(CausalVideoError, match="video_index|frame_features"):
            processor(questions, frame_features=frames, video_index=wrong)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_one_check_still_names_the_row(value: float):
    frames = [torch.ones(2, 8), torch.ones(3, 8)]
    frames[1][2, 5] = value
    with pytest.raises(CausalVideoError, match=r"NaN or infinity in rows \[1\]"):
        VideoQAProcessor(world_tokenizer())(["who jumps", "who spins"], frame_features=frames)
