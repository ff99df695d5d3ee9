"""Configuration of a VideoQA backbone on its own, and what IGV and EIGV share with it."""

from typing import Any, Self

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from hf_causal_video.errors import CausalVideoError
from hf_causal_video.models.backbone.presets import BACKBONE_PRESETS


@strict
class BackboneConfig(PreTrainedConfig):
    """Configuration of `BackboneForVideoQuestionAnswering`.

    Args:
        text_config: config of the nested text encoder, any BERT-like `model_type`; None builds none, and token
            features are given.
        text_feature_dim: width of given token features, where there is no text encoder.
        backbone: a registered name, see `register_backbone`.
        backbone_config: arguments of its constructor, beyond widths and answers.
        frame_feature_dim: width C of a frame feature.
        num_answers: size of the answer vocabulary of an open-ended model; None means multiple choice.
        num_choices: number of choices every question must have; None accepts any.
        text_length_buckets: length buckets of one text pass; 1 pads all strings to the longest.
        freeze_text_encoder: keep the text encoder's weights and dropout fixed.
        feature_provenance: how the features this model was trained on were made.

    Example:
        >>> BackboneConfig.preset("official-msvdqa-hga").num_answers
        1853
    """

    model_type = "video_qa_backbone"
    sub_configs_defaults = {"text_config": SubConfigSpec(config_class=AutoConfig, model_type="bert", optional=True)}
    keys_to_ignore_at_inference = ["losses", "frame_scores", "kept_frames", "causal_mask"]

    text_config: dict | PreTrainedConfig | None = None
    text_feature_dim: int = 768
    backbone: str = "hga"
    backbone_config: dict | None = None
    frame_feature_dim: int = 4096
    num_answers: int | None = None
    num_choices: int | None = None
    text_length_buckets: int = 4
    freeze_text_encoder: bool = False
    feature_provenance: dict | None = None

    @classmethod
    def presets(cls) -> dict[str, dict[str, Any]]:
        """The named settings of this method."""
        return BACKBONE_PRESETS

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> Self:
        """A named setting: "clean", or "official-<dataset>-<backbone>" with every released behaviour switched on.

        Args:
            name: one of `presets()`.
            overrides: fields that win over the preset; `backbone_config` is merged into the preset's.

        Raises:
            CausalVideoError: an unknown preset, or an override that is no field.
        """
        presets = cls.presets()
        if name not in presets:
            raise CausalVideoError(
                f"{cls.__name__} preset", found=name, expected=sorted(presets), fix="take one of these names"
            )
        if unknown := sorted(set(overrides) - set(cls.__dataclass_fields__)):
            raise CausalVideoError(
                cls.__name__,
                found=f"unknown field {', '.join(unknown)}",
                expected=f"fields of {cls.__name__}",
                fix=f"see help({cls.__name__})",
            )
        fields = {**presets[name], **overrides}
        released = presets[name].get("backbone_config", {})
        inherited = released if fields.get("backbone") == presets[name].get("backbone") else {}
        if inherited or "backbone_config" in fields:
            fields["backbone_config"] = {**inherited, **(overrides.get("backbone_config") or {})}
        return cls(**fields)

    @property
    def text_width(self) -> int:
        """Width of a token feature."""
        return self.text_feature_dim if self.text_config is None else self.text_config.hidden_size  # type: ignore

    def validate_architecture(self) -> None:
        """Refuse sizes that cannot run."""
        if min(self.frame_feature_dim, self.text_feature_dim) < 1 or (self.num_answers or 1) < 1:
            raise CausalVideoError(
                type(self).__name__,
                found=f"frame_feature_dim={self.frame_feature_dim}, text_feature_dim={self.text_feature_dim}, "
                f"num_answers={self.num_answers}",
                expected="sizes of at least 1",
                fix="change them",
            )
