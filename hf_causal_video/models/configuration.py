"""Base classes of the configs: presets, misspelt fields, and the fields of every question model."""

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

import yaml
from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from hf_causal_video.utils.checks import check_choice
from hf_causal_video.utils.errors import require


@strict
class CausalVideoConfig(PreTrainedConfig):
    """Base of every config. Named settings are YAML files in the folder `presets` of a method."""

    def __post_init__(self, **kwargs: Any) -> None:
        """Refuse a misspelt field. Why: transformers keeps any unknown field as an attribute without effect."""
        known = [name for name in type(self).__dataclass_fields__ if name not in PreTrainedConfig.__dataclass_fields__]
        for name in kwargs:
            meant = None if hasattr(PreTrainedConfig, name) else get_close_matches(name, known, 1, 0.8)
            require(not meant, type(self).__name__, found=f"unknown field {name}", expected=" or ".join(meant or []))
        super().__post_init__(**kwargs)

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoConfig") -> None:
        """Refuse where the saved code would need this package; see `check_auto_class`."""
        check_auto_class(cls)
        super().register_for_auto_class(auto_class)

    @classmethod
    def presets(cls) -> dict[str, dict[str, object]]:
        """Read the named settings of this method, a YAML file each in the folder `presets` next to its config.

        "clean" is the config's defaults; "official-..." are the numbers in effect in the authors' code.
        """
        source = getattr(sys.modules.get(cls.__module__), "__file__", None)
        files = sorted(Path(source).parent.glob("presets/*.yaml")) if source else []
        return {"clean": {}, **{file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in files}}

    @classmethod
    def preset(cls, name: str, **overrides: object) -> Self:
        """Build a named setting: "clean", or, as a rule, "official-<dataset>" as in the authors' code.

        Args:
            name: one of `presets()`.
            overrides: fields that win over the preset.

        Raises:
            CausalVideoError: an unknown preset, or an override that is not a field.
        """
        presets = cls.presets()
        check_choice(f"{cls.__name__} preset", name, sorted(presets))
        unknown = ", ".join(sorted(set(overrides) - set(cls.__dataclass_fields__)))
        fix = f"see help({cls.__name__})"
        require(not unknown, cls.__name__, found=f"unknown field {unknown}", expected="its fields", fix=fix)
        return cls(**cls._filled(presets[name], overrides))

    @classmethod
    def _filled(cls, preset: dict[str, object], overrides: dict[str, Any]) -> dict[str, Any]:
        return {**preset, **overrides}


def check_auto_class(cls: type) -> None:
    """Refuse `register_for_auto_class` for a class of the installed package.

    Why: `save_pretrained` would copy only the files next to the class, whose imports name this package; the folder
    could not be loaded where only transformers is installed. Classes of a pushed model (remote code) pass.

    Raises:
        CausalVideoError: a class of this package.
    """
    what = f"{cls.__name__}.register_for_auto_class"
    problem = "a class whose code lies in several folders of this package"
    fix = "save_pretrained without it, then run hf-causal-video push, which writes the whole bundle of remote code"
    fits = cls.__module__.split(".")[0] != "hf_causal_video"
    require(fits, what, found=problem, expected="code that save_pretrained can copy as it stands", fix=fix)


@strict
class VideoQAConfig(CausalVideoConfig):
    """Base of the configs of question models: the fields that training, processor, evaluation and push rely on.

    Args:
        text_config: config of the nested text encoder, any BERT-like `model_type`.
        frame_feature_dim: width C of a frame feature.
        num_answers: size of the answer vocabulary of an open-ended model; None means multiple choice.
        num_choices: number of choices every question must have; None accepts any.
        text_length_buckets: length buckets of one text pass; 1 pads all strings to the longest.
        freeze_text_encoder: keep the text encoder's weights and dropout fixed.
        feature_provenance: how the features this model was trained on were made; checked before a feature set is read.

    Example:
        >>> class MineConfig(VideoQAConfig):
        ...     model_type = "mine"
        ...     hidden_size: int = 64
        >>> MineConfig.preset("clean", num_answers=3).text_config.model_type
        'bert'
    """

    sub_configs_defaults = {"text_config": SubConfigSpec(config_class=AutoConfig, model_type="bert")}
    keys_to_ignore_at_inference = [
        "losses",
        "frame_scores",
        "kept_frames",
        "object_scores",
        "kept_objects",
        "kept_boxes",
        "causal_mask",
        "hidden_states",
        "attentions",
    ]

    text_config: dict | PreTrainedConfig | None = None
    frame_feature_dim: int = 768
    num_answers: int | None = None
    num_choices: int | None = None
    text_length_buckets: int = 4
    freeze_text_encoder: bool = False
    feature_provenance: dict | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Name the answers: one label per answer of the vocabulary, `LABEL_i` where its words are not known.

        Raises:
            CausalVideoError: labels of another number than `num_answers`.
        """
        if self.num_answers is not None and "num_labels" not in kwargs:
            generic = all(str(label).startswith("LABEL_") for label in (self.id2label or {}).values())
            if self.id2label is None or (generic and len(self.id2label) != self.num_answers):
                self.id2label = {index: f"LABEL_{index}" for index in range(self.num_answers)}
                self.label2id = None
        if self.id2label is not None and (self.label2id is None or len(self.label2id) != len(self.id2label)):
            self.label2id = {label: int(index) for index, label in self.id2label.items()}
        super().__post_init__(**kwargs)
        labels = self.num_labels
        answers = self.num_answers
        fix = "leave id2label and num_labels out, or give one label per answer"
        fits = answers is None or labels == answers
        require(fits, type(self).__name__, found=f"{labels} labels", expected=f"num_answers={answers} labels", fix=fix)

    def set_answer_vocabulary(self, words: Sequence[str]) -> None:
        """Make the words of an answer vocabulary the labels; an answer without a word keeps the label `<other>`."""
        known = dict(enumerate(words))
        self.id2label = {index: known.get(index, "<other>") for index in range(self.num_answers or len(known))}
        self.label2id = {label: index for index, label in self.id2label.items()}

    @property
    def text_width(self) -> int:
        """Width of a token feature."""
        return self.text_config.hidden_size  # type: ignore[union-attr]
