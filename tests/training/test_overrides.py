"""What the arguments alone can tell is wrong is refused with them: no data are made, nothing is loaded."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from hf_causal_video.training.arguments import DataArguments, ModelArguments
from hf_causal_video.training.questions.splits import load_split
from hf_causal_video.utils.errors import CausalVideoError
from tests.training.conftest import TINY

TEXT = TINY["config_overrides"]["text_config"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"config_overrides": {"num_fames_kept": 3}}, "num_fames_kept.*did you mean num_frames_kept"),
        ({"config_overrides": {"zzz": 3}}, r"zzz.*fields of TranSTRConfig.*help\(TranSTRConfig\)"),
        ({"config_overrides": {"hidden_size": "wide"}}, "hidden_size.*wide"),
        ({"config_overrides": {"hidden_size": 17}}, "hidden_size=17"),
        ({"config_overrides": {"rank_by": "luck"}}, "rank_by.*scorer.*luck"),
        ({"method": "igv", "config_overrides": {"bakbone": "hga"}}, "did you mean backbone"),
        ({"method": "ivrd", "config_overrides": {"intervention": "magic"}}, "intervention.*magic"),
        ({"model_name_or_path": "x", "config_overrides": {"bakbone": "hga"}}, "bakbone"),
        ({"config_overrides": {"text_config": {**TEXT, "hiden_size": 8}}}, "hiden_size.*did you mean hidden_size"),
        ({"config_overrides": {"text_config": {"model_type": "berty"}}}, "berty"),
        ({"config_overrides": {"text_config": 3}}, "text_config: found a int; expected a mapping"),
        ({"config_overrides": {"text_config": TEXT}, "text_model": "org/text"}, "would not be read"),
    ],
)
def test_overrides_that_cannot_be_meant_are_refused(arguments: dict[str, Any], words: str):
    with pytest.raises(CausalVideoError, match=words):
        ModelArguments(**arguments)


def test_what_can_be_meant_is_taken():
    ModelArguments(config_overrides=TINY["config_overrides"])
    ModelArguments(config_overrides={"text_config": {"model_type": "distilbert", "hidden_size": 8, "dim": 8}})
    ModelArguments(config_overrides={"text_config": None}, method="igv")
    ModelArguments(config_overrides={"num_attention_heads": 5}, model_name_or_path="x")  # what fits is in the folder
    for recipe in Path(str(files("hf_causal_video.training"))).glob("recipes/*.yaml"):
        values = yaml.safe_load(recipe.read_text(encoding="utf-8"))
        names = set(values) & set(ModelArguments.__dataclass_fields__)
        ModelArguments(**{name: values[name] for name in names})


def test_a_missing_csv_says_where_it_comes_from(tmp_path: Path):
    data = DataArguments(dataset={"train": str(tmp_path / "train.csv")}, features="x")
    with pytest.raises(CausalVideoError, match=r"missing file of split.*for a benchmark.*--annotations FOLDER"):
        load_split(data, "train")
