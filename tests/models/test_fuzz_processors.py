"""Processors given anything: tensors that say what was put in, evidence that the output holds, or a refusal."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_causal_video.models import VideoQAOutput, VideoQAProcessor, VideoRelationProcessor
from hf_causal_video.models.ivrd.outputs import VideoRelationOutput
from hf_causal_video.worlds import world_tokenizer
from tests.fuzzing import JUNK, mutated, refused

QUESTIONS, CHOICES = ["who is doing jump", "what is the moon doing"], [["star", "ring"], ["jump", "shaking", "star"]]
CLIPS = [torch.arange(6.0).view(3, 2), torch.arange(10.0).view(5, 2) / 8]
OBJECTS = [torch.arange(12.0).view(3, 2, 2), torch.ones(5, 2, 2)]
GOOD = {
    "question": QUESTIONS, "choices": CHOICES, "frame_features": CLIPS, "object_features": OBJECTS,
    "object_boxes": [torch.rand(3, 2, 4), torch.rand(5, 2, 4)],
    "object_mask": [torch.ones(3, 2, dtype=torch.bool), torch.zeros(5, 2, dtype=torch.bool)],
    "labels": [1, 2], "timestamps": [torch.arange(3.0), torch.arange(5.0)],
}  # fmt: skip
NAMES = ["object_features", "object_boxes", "object_mask", "frame_features", "timestamps"]


@pytest.fixture(scope="module")
def processor() -> VideoQAProcessor:
    return VideoQAProcessor(world_tokenizer(), max_length=40)


@st.composite
def tensors(draw):
    """What is given for features: of a wrong shape, kind or number, or no tensors at all."""
    kind = draw(st.sampled_from(["tensor", "batch", "list", "nested", "array", "junk"]))
    shape = draw(st.lists(st.integers(0, 3), max_size=4))
    value = torch.full(shape, draw(st.sampled_from([0.0, 1.0, math.nan, math.inf, -3.0, 1e30])))
    value = value.to(draw(st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16])))
    if draw(st.booleans()):
        value = value.nan_to_num().clamp(-3, 3).to(draw(st.sampled_from([torch.bool, torch.int64, torch.uint8])))
    if kind == "junk":
        return draw(JUNK)
    if kind == "array":
        return [value.float().numpy()] * 2
    return {"tensor": value, "batch": torch.stack([value] * 2), "list": [value] * 2, "nested": value.tolist()}[kind]


@st.composite
def calls(draw):
    """The arguments of a good batch of two, some of them changed."""
    given_ones = {name: value for name, value in GOOD.items() if name in NAMES[3:] or draw(st.booleans())}
    given_ones["question"] = QUESTIONS
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from(list(given_ones)))
        if name in NAMES:
            given_ones[name] = draw(tensors())
        elif name == "labels":
            given_ones[name] = draw(mutated([1, 2]) | tensors())
        else:
            given_ones[name] = draw(mutated(GOOD[name]) | st.just(GOOD[name][0]))
    return given_ones


def as_rows(value, dims: int, count: int):
    """What was given, a tensor a question."""
    if isinstance(value, torch.Tensor):
        return [value] * count if value.dim() == dims else list(value)
    rows = [torch.as_tensor(one) for one in value]
    return [torch.stack(rows)] * count if dims == 1 and rows[0].dim() == 0 else rows


@given(calls())
def test_any_batch_holds_what_was_put_in_or_is_refused(processor, given_ones):
    no, inputs = refused(processor, **given_ones)
    if no:
        return
    questions = given_ones["question"]
    count = 1 if isinstance(questions, str) else len(questions)
    assert all(len(value) == count for value in inputs.values())
    mask = inputs["frame_mask"]
    assert (mask.long().diff(dim=1) <= 0).all() and mask.any(1).all()
    for name, dims in (("frame_features", 2), ("object_features", 3), ("object_boxes", 3), ("object_mask", 2)):
        if name not in inputs:
            continue
        rows = as_rows(given_ones[name], dims, count)
        assert [len(row) for row in rows] == mask.sum(1).tolist(), "frames and objects show the same instants"
        for row, padded in zip(rows, inputs[name], strict=True):
            assert torch.equal(padded[: len(row)], row.to(padded.dtype)) and not padded[len(row) :].any()
            assert padded.dtype == (torch.bool if name == "object_mask" else torch.float32)
            assert padded.isfinite().all()
    if inputs.timestamps_s is not None:
        assert [len(times) for times in inputs.timestamps_s] == mask.sum(1).tolist()
    if "labels" in inputs:
        said = torch.as_tensor(given_ones["labels"])
        assert inputs["labels"].dtype == torch.long and torch.equal(inputs["labels"], said.long().reshape(-1))
        assert not said.dtype.is_floating_point and said.dtype != torch.bool
    if given_ones.get("choices") is not None:
        choices = given_ones["choices"]
        choices = [choices] if isinstance(choices[0], str) else choices
        assert inputs["choice_attention_mask"].any(-1).sum(1).tolist() == [len(one) for one in choices]
        first = processor.tokenizer.decode(inputs["choice_input_ids"][0, 0], skip_special_tokens=True)
        last = processor.tokenizer(choices[0][0])["input_ids"]
        assert first.endswith(processor.tokenizer.decode(last, skip_special_tokens=True))  # unknown words are special


@given(st.data())
def test_a_processor_of_any_settings_works_or_is_refused(processor, data):
    no, made = refused(
        VideoQAProcessor, processor.tokenizer, data.draw(st.none() | mutated(["cat", "dog"])),
        data.draw(st.sampled_from(["pair", "choice", "official", "x", None])), data.draw(st.just(40) | JUNK),
    )  # fmt: skip
    if not no:
        assert refused(made, QUESTIONS, CHOICES, CLIPS)[0] in (True, False)


FINE = {
    "logits": torch.tensor([[0.0, 2.0], [1.0, -1.0]]),
    "frame_scores": torch.tensor([[0.1, 0.9, 0.8, -torch.inf], [0.5, 0.25, 0.0, 1.0]]),
    "kept_frames": torch.tensor([[2, 1, 2], [0, 3, 3]]),
    "object_scores": torch.tensor([[[0.5, -torch.inf]] * 3] * 2),
    "kept_objects": torch.tensor([[[0, 1]] * 3] * 2),
    "kept_boxes": torch.full((2, 3, 2, 4), 0.5),
}
TIMES = [torch.tensor([1.0, 3.0, 5.0]), torch.tensor([1.0, 3.0, 5.0, 7.0])]


@st.composite
def outputs(draw):
    """What a model returned, some of it of another batch, or no numbers."""
    fields = dict(FINE)
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from(list(fields)))
        value = fields[name]
        what = draw(st.sampled_from(["none", "rows", "last", "number", "beyond", "axis"]))
        if value is None or what == "none":
            fields[name] = None
        elif what == "rows":
            fields[name] = value[:1] if draw(st.booleans()) else torch.cat([value, value])
        elif what == "last":
            fields[name] = value[..., :-1] if draw(st.booleans()) else torch.cat([value, value], -1)
        elif what == "axis":
            fields[name] = value[0] if draw(st.booleans()) else value.unsqueeze(0)
        elif value.dtype.is_floating_point:
            fields[name] = value.clone().fill_(draw(st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -1.0])))
        else:
            fields[name] = value + draw(st.sampled_from([1, 9, -1, -9]))
    return VideoQAOutput(**fields)


@given(st.data())
def test_evidence_is_in_the_output_or_the_output_is_refused(processor, data):
    output = data.draw(outputs())
    times = data.draw(st.none() | st.just(TIMES) | tensors() | st.just(TIMES[0]))
    choices = data.draw(st.none() | st.just([CHOICES[0]] * 2) | mutated([CHOICES[0]] * 2, most=1))
    duration = data.draw(st.none() | st.just([6.0, 8.0]) | mutated([6.0, 8.0], most=1) | JUNK)
    rule = data.draw(st.sampled_from(["kept", "kept", "window", "gaussian", "x"]))
    vocabulary = data.draw(st.none() | st.just(["cat"]) | st.just(["cat", "dog", "cow"]))
    asked = VideoQAProcessor(processor.tokenizer, vocabulary)
    no, found = refused(asked.post_process_evidence, output, times, choices, duration, rule)
    if no:
        return
    assert len(found) == len(output.logits)
    for row, evidence in enumerate(found):
        probabilities = output.logits[row].softmax(-1)
        assert evidence.answer_index == int(probabilities.argmax())
        assert math.isclose(evidence.score, float(probabilities.max()), rel_tol=1e-5)
        assert evidence.answer in evidence.choices and len(evidence.choices) == len(evidence.scores)
        assert [frame.index for frame in evidence.frames] == sorted(set(output.kept_frames[row].tolist()))
        frames = output.frame_scores.shape[1]
        assert all(0 <= frame.index < frames and not math.isnan(frame.score) for frame in evidence.frames)
        ends = (
            math.inf if duration is None else (duration[row] if isinstance(duration, list) else duration) or math.inf
        )
        assert all(0 <= start <= end <= ends for start, end in evidence.spans)
        assert (times is None) == (not evidence.spans)
        for item in evidence.objects:
            assert item.frame_index in output.kept_frames[row] and -math.inf < item.score < math.inf
            assert item.box is None or len(item.box) == 4 and all(map(math.isfinite, item.box))


TRACKS = [
    {"start": 0, "boxes": [[n, 0, 9 + n, 9] for n in range(5)], "features": [0.5, 1.0]},
    {"start": 3, "boxes": [[52, n, 59, 9 + n] for n in range(4)], "features": [[1.0, 2.0]] * 4},
]


def relation_processor(frames=4, stride=2) -> VideoRelationProcessor:
    return VideoRelationProcessor(["dog", "cat"], ["chase", "watch"], frames, stride)


@given(
    mutated(TRACKS) | mutated([TRACKS, TRACKS]), st.just((100, 50)) | st.none() | mutated([[100, 50], [90, 40]]) | JUNK
)
def test_any_tracks_come_back_from_their_segments_or_are_refused(tracks, size):
    asked = relation_processor()
    no, inputs = refused(asked, tracks, size)
    if no:
        return
    videos = [tracks] if not tracks or isinstance(tracks[0], dict) else tracks
    mask, boxes = inputs["track_mask"], inputs["track_boxes"]
    assert boxes.isfinite().all() and boxes.min() >= 0 and boxes.max() <= 1 if boxes.numel() else True
    assert not boxes[~mask].any()
    sizes = [size] * len(videos) if size is None or np.ndim(size) == 1 else size
    seen = {(v, t, f) for v, given_ones in enumerate(videos) for t in range(len(given_ones))
            for f in range(len(given_ones[t]["boxes"]))}  # fmt: skip
    for row, segment in enumerate(inputs.segments):
        for place, index in enumerate(segment.tracks):
            track = videos[segment.video][index]
            first = segment.start + int(inputs["track_start"][row, place]) - int(track.get("start", 0))
            for step in range(int(mask[row, place].sum())):
                scale = np.array([1.0] * 4 if sizes[segment.video] is None else [*sizes[segment.video]] * 2)
                wanted = (np.array(track["boxes"][first + step], dtype=float) / scale).clip(0, 1)
                assert np.allclose(boxes[row, place, step], wanted, atol=1e-6)
                seen.discard((segment.video, index, first + step))
                if "track_features" in inputs:
                    told = np.asarray(track["features"], dtype=float)
                    told = told if told.ndim == 1 else told[first + step]
                    assert np.allclose(inputs["track_features"][row, place, step], told)
    assert not seen, "every box of every track is in a segment"


@given(*[st.integers(-1, 9) | JUNK] * 2, st.integers(-5, 40), st.integers(0, 80))
def test_segments_of_any_length_and_stride_cover_the_video_or_are_refused(frames, stride, first, length):
    no, asked = refused(relation_processor, frames, stride)
    if no:
        return
    begins = asked.segment_begins(first, first + length)
    assert begins == sorted(set(begins)) and begins[0] == first
    covered = {frame for begin in begins for frame in range(begin, begin + frames)}
    assert covered >= set(range(first, first + length))
    assert length < frames or begins[-1] + frames == first + length


names = st.lists(st.sampled_from(["dog", "cat", ""]) | JUNK, max_size=3) | JUNK


@given(names, names)
def test_any_vocabularies_of_relations_are_names_or_refused(classes, predicates):
    no, asked = refused(VideoRelationProcessor, classes, predicates)
    if not no:
        for words in (asked.object_classes, asked.predicates):
            assert words and len(set(words)) == len(words) and all(isinstance(word, str) and word for word in words)


@given(st.data())
def test_relations_are_of_the_tracks_that_were_given_or_the_output_is_refused(data):
    asked = relation_processor()
    inputs = asked(TRACKS, (100, 50))
    rows = len(inputs.segments)
    seed = data.draw(st.integers(0, 99))
    generator = torch.Generator().manual_seed(seed)
    fields = {
        "predicate_logits": 4 * torch.randn(rows, 2, 2, generator=generator),
        "object_logits": 4 * torch.randn(rows, 2, 3, generator=generator),
        "pair_index": torch.tensor([[[0, 1], [1, 0]]] * rows),
    }  # fmt: skip
    name, what = (
        data.draw(st.sampled_from(list(fields))),
        data.draw(st.sampled_from(["", "", "nan", "cut", "+9", "-9"])),
    )
    if what == "nan" and fields[name].dtype.is_floating_point:
        fields[name][0] = math.nan
    elif what == "cut":
        fields[name] = fields[name][:-1]
    elif what in ("+9", "-9"):
        fields[name] = fields[name] + int(what)
    thresholds = st.sampled_from([0.2, 0.0, 0.5, 1.0])
    options = {
        "multi_label": data.draw(st.booleans()), "object_threshold": data.draw(thresholds | JUNK),
        "predicate_threshold": data.draw(thresholds), "max_per_segment": data.draw(st.sampled_from([100, 1, 0, -1])),
        "nms_threshold": data.draw(thresholds), "max_per_video": data.draw(st.sampled_from([200, 2, 0, -1])),
        "association_score": data.draw(st.sampled_from(["sum", "mean", "x"])),
    }  # fmt: skip
    no, found = refused(asked.post_process_relations, VideoRelationOutput(**fields), inputs, **options)
    if no:
        return
    [relations] = found
    assert len(relations) <= options["max_per_video"]
    assert [one["score"] for one in relations] == sorted((one["score"] for one in relations), reverse=True)
    truth = [{track["start"] + n: box for n, box in enumerate(track["boxes"])} for track in TRACKS]
    for one in relations:
        assert one["triplet"][0] in ("dog", "cat") and one["triplet"][1] in ("chase", "watch")
        assert 0 < one["score"] < math.inf and (options["association_score"] == "sum" or one["score"] <= 1)
        first, last = one["duration"]
        sides = [[tuple(map(round, box)) for box in one[side]] for side in ("sub_traj", "obj_traj")]
        said = [[tuple(track.get(frame, ())) for frame in range(first, last)] for track in truth]
        assert sides in (said, said[::-1])
