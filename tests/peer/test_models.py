"""transformers' ModelTesterMixin and ConfigTester over our models."""

import copy
from typing import Any
from unittest import TestCase

import torch

from tests.peer.sources import make_importable

make_importable()

from transformers_tests.test_configuration_common import ConfigTester  # noqa: E402
from transformers_tests.test_modeling_common import ModelTesterMixin  # noqa: E402

from tests.models.cases import CASES, RELATION_CASES  # noqa: E402


class Inputs:
    """What the tests of transformers ask about a model: its tiny config, and inputs.

    Args:
        name: of a case.
        fields: further fields of its config.
    """

    batch_size = 3
    is_training = True
    num_attention_heads = 2

    def __init__(self, name: str, **fields: Any):
        self.case = next(case for case in CASES + RELATION_CASES if case.name == name)
        self.fields = fields
        inputs = self.case.inputs()
        self.labels = inputs.pop("labels")
        self.seq_length = inputs["frame_features"].shape[1]
        # Scores of padding are -inf, which one test takes for a fault; and one test shrinks the vocabulary by 15.
        self.inputs = {
            key: value.clamp(max=30) if key.endswith("ids") else torch.ones_like(value) if "mask" in key else value
            for key, value in inputs.items()
        }
        if name.startswith("transtr"):  # two maps of each of four decoders, one of the encoder
            self.num_hidden_layers, self.expected_num_hidden_layers, self.hidden_size = 9, 6, 16
        else:
            self.num_hidden_layers, self.expected_num_hidden_layers, self.hidden_size = 0, 2, 8

    def get_config(self) -> Any:
        """A tiny config."""
        return self.case.config(**self.fields)

    def prepare_config_and_inputs_for_common(self) -> tuple[Any, dict[str, Any]]:
        """A tiny config and inputs without labels."""
        return self.get_config(), copy.deepcopy(self.inputs)


class Relations(Inputs):
    """The same of a relation model: all pairs of tracks that fill every step."""

    def __init__(self, name: str, **fields: Any):
        self.case = next(case for case in CASES + RELATION_CASES if case.name == name)
        self.fields = fields
        torch.manual_seed(0)
        corners = torch.rand(3, 4, 6, 2) * 0.5
        self.labels = torch.randint(0, 2, (3, 12, self.get_config().num_predicates)).float()
        self.inputs = {
            "track_boxes": torch.cat([corners, corners + 0.3], -1),
            "track_features": torch.randn(3, 4, 6, self.get_config().feature_dim),
        }
        self.num_hidden_layers, self.expected_num_hidden_layers = 0, 2
        self.seq_length, self.hidden_size = 4, 8


class Common(ModelTesterMixin):
    """Answers that all models share."""

    case: str
    fields: dict[str, Any] = {}
    inputs: type[Inputs] = Inputs
    labels = "labels"
    config_fields: dict[str, Any] = {"frame_feature_dim": 12, "num_choices": 4}
    _is_composite = True

    def setUp(self) -> None:
        self.model_tester = self.inputs(self.case, **self.fields)
        self.all_model_classes = (self.model_tester.case.model_class,)
        config_class = self.all_model_classes[0].config_class
        self.config_tester = ConfigTester(self, config_class, False, [], **self.config_fields)

    def _prepare_for_class(self, inputs_dict: Any, model_class: Any, return_labels: bool = False) -> Any:
        inputs = copy.deepcopy(inputs_dict)
        return inputs | ({self.labels: self.model_tester.labels} if return_labels else {})

    def test_config(self) -> None:
        self.config_tester.run_common_tests()


class TestTranSTR(Common, TestCase):
    case = "transtr-choices"


class TestBackbone(Common, TestCase):
    case = "backbone-open-ended"
    has_attentions = False


class TestIGV(Common, TestCase):
    case = "igv-choices"
    has_attentions = False


class TestEIGV(Common, TestCase):
    case = "eigv-open-ended"
    has_attentions = False


class TestIVRD(Common, TestCase):
    case = "ivrd-clean"
    inputs = Relations
    labels = "predicate_labels"
    config_fields = {"num_object_classes": 3, "hidden_size": 8}
    has_attentions = False
    test_resize_embeddings = False
    _is_composite = False
