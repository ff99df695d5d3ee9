"""Laws of clips with fewer frames than a model keeps: the frames there are answer, the rest is masked."""

import pytest
import torch

from hf_causal_video.models.transtr.configuration_transtr import TranSTRConfig
from hf_causal_video.models.transtr.selection import select
from tests.models.cases import CASES, Case

BY_VIDEO = ("frame_features", "frame_mask", "object_features", "object_boxes", "object_mask")


def cut(inputs: dict, frames: int) -> dict:
    return {name: value[:, :frames] if name in BY_VIDEO else value for name, value in inputs.items()}


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
@pytest.mark.parametrize("frames", [1, 3])
def test_a_clip_with_few_frames_is_answered_from_them(case: Case, frames: int) -> None:
    """Alone and padded in a batch give the same answer, and evidence names real frames only."""
    model = case.build().eval()
    inputs = case.inputs()
    inputs["frame_mask"] = torch.arange(inputs["frame_features"].shape[1])[None] < torch.tensor([[9], [9], [frames]])
    with torch.no_grad():
        padded, alone = model(**inputs), model(**{k: v[2:] for k, v in cut(inputs, frames).items()})
    assert (padded.kept_frames[2] < frames).all() and (alone.kept_frames < frames).all()
    assert padded.logits.isfinite().all()
    if "igv-official" not in case.name:  # the authors' pooling reads padding, see the backbones
        torch.testing.assert_close(padded.logits[2], alone.logits[0], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("case", [case for case in CASES if case.keeps], ids=lambda case: case.name)
def test_a_clip_with_few_frames_teaches(case: Case) -> None:
    model, inputs = case.build().train(), cut(case.inputs(), 2)
    inputs["frame_mask"] = torch.tensor([[True, True], [True, True], [True, False]])
    loss = model(**inputs | {"labels": torch.tensor([0, 1, 0])}).loss
    loss.backward()
    assert loss.isfinite() and all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert model.frame_resize.fc.weight.grad.abs().sum() > 0


def test_empty_slots_are_marked_and_repeat_the_best_frame() -> None:
    config = TranSTRConfig(num_frames_kept=4)
    scores = torch.tensor([[[0.1], [0.7], [-torch.inf]], [[0.3], [0.2], [0.1]]])
    chosen = select(config, scores, 4, False, 0.1, None, "frames")
    assert chosen.indices.tolist() == [[0, 1, 1, 1], [0, 1, 2, 0]]
    assert chosen.filled.tolist() == [[True, True, False, False], [True, True, True, False]]
    mask = scores[..., 0] > -torch.inf
    assert chosen.take_mask(mask).equal(chosen.filled)
