"""What the configs of all methods share: named settings, no misspelt field, and what a question model is fed."""

from difflib import get_close_matches
from typing import Any, Self

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from hf_causal_video.utils.errors import CausalVideoError


@strict
class CausalVideoConfig(PreTrainedConfig):
    """Base of every config. A method says its named settings in `presets`."""

    def __post_init__(self, **kwargs: Any) -> None:
        """Refuse a misspelt field; transformers keeps whatever else it is given, and would keep that too."""
        known = [name for name in type(self).__dataclass_fields__ if name not in PreTrainedConfig.__dataclass_fields__]
        for name in kwargs:
            if not hasattr(PreTrainedConfig, name) and (meant := get_close_matches(name, known, 1, 0.8)):
                raise CausalVideoError(
                    type(self).__name__, found=f"unknown field {name}", expected=meant[0],
                    fix=f"see help({type(self).__name__})",
                )  # fmt: skip
        super().__post_init__(**kwargs)

    @classmethod
    def presets(cls) -> dict[str, dict[str, Any]]:
        """The named settings of this method; "clean" is the config's defaults."""
        return {"clean": {}}

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> Self:
        """A named setting: "clean", or, as a rule, "official-<dataset>" with every released behaviour switched on.

        Args:
            name: one of `presets()`.
            overrides: fields that win over the preset.

        Raises:
            CausalVideoError: an unknown preset, or an override that is no field.
        """
        if name not in cls.presets():
            raise CausalVideoError(
                f"{cls.__name__} preset", found=name, expected=sorted(cls.presets()), fix="take one of these names"
            )
        if unknown := sorted(set(overrides) - set(cls.__dataclass_fields__)):
            raise CausalVideoError(
                cls.__name__, found=f"unknown field {', '.join(unknown)}", expected=f"fields of {cls.__name__}",
                fix=f"see help({cls.__name__})",
            )  # fmt: skip
        return cls(**cls._filled(cls.presets()[name], overrides))

    @classmethod
    def _filled(cls, preset: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
        return {**preset, **overrides}


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
        "losses", "frame_scores", "kept_frames", "object_scores", "kept_objects", "kept_boxes", "causal_mask",
    ]  # fmt: skip

    text_config: dict | PreTrainedConfig | None = None
    frame_feature_dim: int = 768
    num_answers: int | None = None
    num_choices: int | None = None
    text_length_buckets: int = 4
    freeze_text_encoder: bool = False
    feature_provenance: dict | None = None

    @property
    def text_width(self) -> int:
        """Width of a token feature."""
        return self.text_config.hidden_size  # type: ignore[union-attr]
