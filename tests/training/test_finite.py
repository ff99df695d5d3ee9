"""What is not a finite number stops a run of any method, names the questions or segments of the batch, and no step is
taken on it."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from hf_causal_video.training.questions.task import QuestionTask
from hf_causal_video.training.recipe import ConfigParser
from hf_causal_video.training.relations.task import RelationTask
from hf_causal_video.utils.errors import CausalVideoError
from tests.training.conftest import write_recipe
from tests.training.relations.test_relations import write as relation_recipe
from tests.training.test_grounding import recipe as grounding_recipe

Setting = tuple[Any, Any, Any, dict[str, Any], Callable[[], Any]]
MAKE = {
    "transtr": lambda folder: write_recipe(folder / "r.yaml"),
    "video_qa_backbone": lambda folder: grounding_recipe(folder / "r.yaml", "video_qa_backbone"),
    "igv": lambda folder: grounding_recipe(folder / "r.yaml", "igv", fields={"warmup_share": 0.0}),
    "eigv": lambda folder: grounding_recipe(folder / "r.yaml", "eigv", fields={"warmup_share": 0.0}),
    "ivrd": lambda folder: relation_recipe(folder / "r.yaml", preset="paper", config_overrides={"hidden_size": 8}),
}
FEATURES = {"ivrd": ("features", "boxes"), "transtr": ("frame_features", "object_features")}


@pytest.fixture(scope="module", params=MAKE)
def setting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """A task, its arguments, its splits, and how its model and collator are made."""
    folder = tmp_path_factory.mktemp(request.param)
    argv = ["--config", str(MAKE[request.param](folder)), "--output_dir", str(folder / "run")]
    model_arguments, data, arguments = ConfigParser().parse(argv)
    task: Any = RelationTask() if request.param == "ivrd" else QuestionTask()
    splits = task.load_splits(data, ["train", "validation"])

    def build() -> tuple[Any, Any]:
        torch.manual_seed(0)
        model, processor = task.build_model(model_arguments, data, splits["train"])
        return model, task.collator(processor)

    return request.param, task, arguments, splits, build


def train(setting: Setting, model: Any, collator: Any, dataset: Any) -> None:
    _, task, arguments, splits, _ = setting
    task.trainer(model, copy.copy(arguments), collator, dataset, splits["validation"]).train()


def with_poison(dataset: Any, index: int, name: str, value: float) -> tuple[Any, str]:
    """The dataset with a number of one item replaced, and the id of that item."""
    clean = type(dataset)

    class Poisoned(clean):  # type: ignore[valid-type, misc]
        def __getitem__(self, row: int) -> dict[str, Any]:
            many = getattr(clean, "__getitems__", None)
            item = dict(clean.__getitem__(self, row) if many is None else many(self, [row])[0])
            if row == index:
                features = item["tracks"][0] if "tracks" in item else item
                numbers = torch.as_tensor(features[name]).clone()
                numbers.view(-1)[numbers.numel() // 2] = value
                features[name] = numbers.numpy() if "tracks" in item else numbers
            return item

        def __getitems__(self, rows: list[int]) -> list[dict[str, Any]]:
            return [self[row] for row in rows]

    poisoned = copy.copy(dataset)
    poisoned.__class__ = Poisoned
    return poisoned, dataset[index]["question_id"]


@pytest.mark.parametrize("value", [float("nan"), -float("inf")])
def test_features_that_are_not_finite_are_named_by_their_batch(setting: Setting, value: float):
    for name in FEATURES.get(setting[0], ("frame_features",)):
        dataset, question = with_poison(setting[3]["train"], 20, name, value)
        model, collator = setting[4]()
        with pytest.raises(CausalVideoError, match="Fix:") as caught:
            train(setting, model, collator, dataset)
        assert repr(question) in str(caught.value) and "in the batch of questions" in str(caught.value)
        assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_numbers_too_large_for_the_loss_are_named_by_their_batch(setting: Setting):
    """IVRD survives them: what it reads of a step is bounded."""
    dataset, question = with_poison(setting[3]["train"], 20, FEATURES.get(setting[0], ("frame_features",))[0], 3e38)
    model, collator = setting[4]()
    if setting[0] == "ivrd":
        train(setting, model, collator, dataset)
        assert all(parameter.isfinite().all() for parameter in model.parameters())
        return
    with pytest.raises(CausalVideoError, match="Fix:") as caught:
        train(setting, model, collator, dataset)
    assert repr(question) in str(caught.value)


def test_weights_that_broke_stop_the_run_with_the_batch(setting: Setting):
    """As a step that was too large leaves them: every loss is NaN from then on."""
    model, collator = setting[4]()
    with torch.no_grad():
        next(parameter for name, parameter in model.named_parameters() if "text_encoder" not in name).fill_(torch.nan)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    with pytest.raises(CausalVideoError, match="in the batch of questions") as caught:
        train(setting, model, collator, setting[3]["train"])
    assert "NaN" in str(caught.value) or "not finite" in str(caught.value)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.nan_to_num(), before[name].nan_to_num()), name
