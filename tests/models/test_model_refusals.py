"""Every model refuses bad input in the same words, and says the way out."""

import pytest
import torch
from torch import Tensor

from hf_causal_video.utils.errors import CausalVideoError
from tests.models.cases import CASES, FRAME_DIM, Case

choice_models = pytest.mark.parametrize("case", [case for case in CASES if not case.open_ended], ids=lambda c: c.name)
object_models = pytest.mark.parametrize("case", [case for case in CASES if case.objects], ids=lambda c: c.name)


def broken(case: Case, what: str) -> tuple[dict[str, Tensor], str]:
    """Inputs with one thing wrong, and words that the error must contain."""
    inputs = case.inputs()
    frames = inputs["frame_features"]
    match what:
        case "width":
            return inputs | {"frame_features": frames[..., :-1]}, rf"{FRAME_DIM - 1}.*width {FRAME_DIM}"
        case "rank":
            return inputs | {"frame_features": frames[0]}, "3 axes"
        case "no frames":
            return inputs | {"frame_features": frames[:, :0], "frame_mask": inputs["frame_mask"][:, :0]}, "empty axis"
        case "video without frames":
            return inputs | {"frame_mask": torch.arange(9)[None] < torch.tensor([[9], [9], [0]])}, "frames"
        case "empty question":
            mask = inputs["attention_mask"].clone()
            mask[1] = 0
            return inputs | {"attention_mask": mask}, "zero tokens"
        case "no text":
            lost = "input_ids" if case.open_ended or case.needs_question else "choice_input_ids"
            return {name: tensor for name, tensor in inputs.items() if name != lost}, f"no {lost}"
        case "wrong batch":
            of_video = [name for name in inputs if name.startswith(("frame", "object"))]
            return inputs | {name: inputs[name][:2] for name in of_video}, "3 questions, 2 videos"
        case "video index":
            return inputs | {"video_index": torch.tensor([0, 3, 1])}, r"3 videos, video_index \[0, 3, 1\]"
        case "label":
            return inputs | {"labels": torch.tensor([0, 99, 1])}, r"\[0, 99, 1\]"
        case "unknown label":
            return inputs | {"labels": torch.tensor([0, -1, 1])}, r"\[0, -1, 1\]"
        case "mask":
            return inputs | {"frame_mask": inputs["frame_mask"][:, :-1]}, "frame_mask"
    raise AssertionError(what)


BROKEN = (
    "width", "rank", "no frames", "video without frames", "empty question", "no text", "wrong batch",
    "video index", "label", "unknown label", "mask",
)  # fmt: skip


REFUSED = [(case, what) for what in BROKEN for case in CASES]


@pytest.mark.parametrize(("case", "what"), REFUSED, ids=[f"{case.name}-{what}" for case, what in REFUSED])
def test_bad_input_is_refused_with_a_way_out(case: Case, what: str) -> None:
    (inputs, words), model = broken(case, what), case.build()
    for training in (False, True):
        with pytest.raises(CausalVideoError, match=words) as caught:
            model.train(training)(**inputs)
        assert caught.value.fix and str(caught.value.found) and str(caught.value.expected)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"object_features": None}, "object_features: found none"),
        ({"object_boxes": None}, "append boxes"),
        ({"object_features": lambda x: x[..., :-1]}, "object_features"),
        ({name: lambda x: x[:, :, :0] for name in ("object_features", "object_boxes", "object_mask")}, "empty axis"),
        ({"object_boxes": lambda x: x[..., :3]}, "object_boxes"),
        ({"object_boxes": lambda x: x[:, :, :-1]}, "object_boxes"),
        ({"object_mask": lambda x: x & False}, "object"),
        ({"object_mask": lambda x: x[:, :, :-1]}, "object_mask"),
        ({name: lambda x: x[:, :-1] for name in ("object_features", "object_boxes", "object_mask")}, "frames"),
    ],
)  # fmt: skip
@object_models
def test_bad_objects_are_refused_with_a_way_out(case: Case, change: dict, words: str) -> None:
    inputs = case.inputs()
    for name, how in change.items():
        inputs[name] = None if how is None else how(inputs[name])
    model = case.build()
    for training in (False, True):
        with pytest.raises(CausalVideoError, match=words) as caught:
            model.train(training)(**inputs)
        assert caught.value.fix


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_features_that_are_not_finite_are_refused(case: Case, value: float) -> None:
    model, inputs = case.build(), case.inputs()
    for name in [name for name in inputs if name.endswith(("features", "boxes"))]:
        bad = inputs[name].clone()
        bad.view(-1)[3] = value
        with pytest.raises(CausalVideoError, match=f"{name}: found NaN or infinity"):
            model(**inputs | {name: bad})


@choice_models
def test_bad_choices_are_refused_with_a_way_out(case: Case) -> None:
    inputs = case.inputs()
    with pytest.raises(CausalVideoError, match="no choice_input_ids"):
        case.build()(**{name: tensor for name, tensor in inputs.items() if not name.startswith("choice")})
    with pytest.raises(CausalVideoError, match="4 choices.*num_choices=5"):
        case.build(num_choices=5)(**inputs)
    mask = inputs["choice_attention_mask"].clone()
    mask[1, 2] = 0
    with pytest.raises(CausalVideoError, match="num_choices=4"):
        case.build(num_choices=4)(**inputs | {"choice_attention_mask": mask})
    mask[1] = 0
    with pytest.raises(CausalVideoError, match="choice"):
        case.build()(**inputs | {"choice_attention_mask": mask})
    mask[1, :2] = 1
    with pytest.raises(CausalVideoError, match="label"):  # the right answer is a choice that is not there
        case.build()(**inputs | {"choice_attention_mask": mask, "labels": torch.tensor([0, 3, 0])})
