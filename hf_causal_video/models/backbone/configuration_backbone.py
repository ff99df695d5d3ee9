"""Configuration of a VideoQA backbone on its own, and the fields that IGV and EIGV share with it."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig
from transformers.configuration_utils import SubConfigSpec

from hf_causal_video.models.configuration import VideoQAConfig
from hf_causal_video.utils.checks import check_whole


@strict
class BackboneConfig(VideoQAConfig):
    """Configuration of `BackboneForVideoQuestionAnswering`: the fields of every `VideoQAConfig`, and the backbone.

    Args:
        text_config: as in every config, but None builds no text encoder, and token features are given.
        text_feature_dim: width of given token features, without a text encoder.
        backbone: a registered name, see `register_backbone`.
        backbone_config: arguments of its constructor, beyond widths and answers. Where the backbone is the preset's,
            they are merged into the preset's.

    Example:
        >>> BackboneConfig.preset("official-msvdqa-hga").num_answers
        1853
    """

    model_type = "video_qa_backbone"
    sub_configs_defaults = {"text_config": SubConfigSpec(config_class=AutoConfig, model_type="bert", optional=True)}

    text_feature_dim: int = 768
    backbone: str = "hga"
    backbone_config: dict | None = None
    frame_feature_dim: int = 4096

    @classmethod
    def _filled(cls, preset: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
        fields = {**preset, **overrides}
        inherited = preset.get("backbone_config", {}) if fields.get("backbone") == preset.get("backbone") else {}
        if inherited or "backbone_config" in fields:
            fields["backbone_config"] = {**inherited, **(overrides.get("backbone_config") or {})}
        return fields

    @property
    def text_width(self) -> int:
        """Width of a token feature."""
        return self.text_feature_dim if self.text_config is None else self.text_config.hidden_size  # type: ignore

    def validate_architecture(self) -> None:
        """Refuse sizes that cannot run."""
        check_whole("frame_feature_dim", self.frame_feature_dim)
        check_whole("text_feature_dim", self.text_feature_dim)
        if self.num_answers is not None:
            check_whole("num_answers", self.num_answers)
