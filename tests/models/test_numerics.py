"""How far apart answers are in single precision, in bfloat16 and in mixed precision, for every method.

Double precision is the truth. An error is counted in roundings, each of 2^-8 in bfloat16 and in mixed precision
(matrix products in bfloat16, sums, norms and softmax in float32) and 2^-24 in float32, against the largest logit. The
error of a question is that of its worst logit. Nine in ten questions have at most
- 12: a path through a model has some hundred operations, and independent errors add up like the root of their number;
- 64 over HGA, whose bilinear fusion takes a signed square root: its slope at 0 has no bound, and what is lost in a
  small number comes out enlarged. So the worst question of all has the luck of its numbers in it, and is allowed 16
  times as much.
Where a model keeps K of T, or splits frames in two, a rounding may tip a choice between two that are nearly alike.
Then another answer is right: answers are compared where the same was chosen.
"""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hf_causal_video.models import METHODS
from tests.models.cases import CASES, FRAME_DIM, TEXT
from tests.models.test_ivrd import batch, build, segment

pytestmark = pytest.mark.rounding

ROUNDING = {"float32": 2.0**-24, "bfloat16": 2.0**-8, "mixed": 2.0**-8}
QUESTIONS = 24


def question_model(name: str, seed: int) -> tuple[torch.nn.Module, dict[str, Tensor]]:
    """A model by its case, or by its method over the plain transformer, and questions for it."""
    torch.manual_seed(seed)
    by_name = {case.name: case for case in CASES}
    if name in by_name:
        case = by_name[name]
        model = case.model_class(case.config())
    else:
        case = by_name["igv-choices"]
        sizes = {"hidden_size": 16, "heads": 2, "intermediate_size": 24}
        fields = {"text_config": TEXT, "frame_feature_dim": FRAME_DIM, "backbone": "plain"}
        model = METHODS[name].model(METHODS[name].config(**fields, backbone_config=sizes))
    inputs = case.inputs(batch=QUESTIONS, seed=seed)
    del inputs["labels"]
    return model.eval(), inputs


def relation_model(name: str, seed: int) -> tuple[torch.nn.Module, dict[str, Tensor]]:
    segments = (segment(2 + number % 3, 4 + number % 4, seed=seed * QUESTIONS + number) for number in range(QUESTIONS))
    return build(name.removeprefix("ivrd-")), batch(*segments)


@torch.no_grad()
def ask(model: torch.nn.Module, inputs: dict[str, Tensor], precision: str) -> Any:
    """The output of a model in a precision."""
    torch.manual_seed(0)
    if precision == "double":
        inputs = {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}
        return copy.deepcopy(model).double()(**inputs)
    if precision == "bfloat16":
        model = copy.deepcopy(model).to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "mixed"):
        return model(**inputs)


def same_choice(one: Any, other: Any) -> Tensor:
    """(B,) bool: both kept the same frames and objects, and call the same frames causal."""
    same = torch.ones(len(one.logits), dtype=torch.bool)
    for name in ("kept_frames", "kept_objects", "causal_mask"):
        if (mine := getattr(one, name, None)) is not None:
            theirs = getattr(other, name)
            if name != "causal_mask":
                width = max(mine.shape[-1], theirs.shape[-1])  # IGV and EIGV keep as many frames as they call causal
                mine, theirs = (F.pad(kept, (0, width - kept.shape[-1]), value=-1) for kept in (mine, theirs))
                mine, theirs = mine.sort(-1).values, theirs.sort(-1).values
            same &= (mine == theirs).flatten(1).all(1)
    return same


@pytest.mark.parametrize("precision", ROUNDING)
@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("transtr-choices", 12), ("transtr-open-ended", 12), ("transtr-frames-alone", 12), ("transtr-official", 12),
        ("video_qa_backbone", 12), ("igv", 12), ("eigv", 12), ("ivrd-clean", 12), ("ivrd-paper", 12),
        ("backbone-choices", 64), ("backbone-open-ended", 64), ("igv-choices", 64), ("igv-open-ended", 64),
        ("eigv-choices", 64), ("eigv-open-ended", 64),
    ],
)  # fmt: skip
def test_answers_agree_across_precisions(name: str, allowed: int, precision: str) -> None:
    errors, unchanged = [], []
    for seed in range(3):
        model, inputs = (relation_model if name.startswith("ivrd") else question_model)(name, seed)
        truth, found = (ask(model, inputs, kind) for kind in ("double", precision))
        if name.startswith("ivrd"):
            exact, rough = (one.predicate_logits[one.pair_mask] for one in (truth, found))
        else:
            same = same_choice(truth, found)
            unchanged.append(same.double())
            if not same.any():  # every split of this seed stands on a rounding
                continue
            exact, rough = truth.logits[same], found.logits[same]
        assert exact.dtype == torch.float64
        there = exact > -1e30  # an absent choice has the lowest logit there is
        largest = exact[there].abs().max()
        error = (rough.double() - exact).masked_fill(~there, 0.0).abs().amax(1)
        errors.append(error / largest / ROUNDING[precision])
    roundings = torch.cat(errors)
    assert roundings.quantile(0.9) <= allowed and roundings.max() <= 16 * allowed
    assert not unchanged or torch.cat(unchanged).mean() > (0.9 if precision == "float32" else 0.3)
