"""Check `config_overrides` before any data are read: a typo must not cost the time to load a dataset."""

from collections.abc import Mapping
from difflib import get_close_matches

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

from hf_causal_video.models.configuration import CausalVideoConfig
from hf_causal_video.utils.checks import check_fields
from hf_causal_video.utils.errors import CausalVideoError, require


def check_overrides(
    config_class: type[CausalVideoConfig], preset: str | None, overrides: Mapping[str, object], text_model: str | None
) -> None:
    """Refuse overrides that the config of a method does not have or allow.

    Args:
        config_class: config of the method.
        preset: the settings that they replace; None where a checkpoint decides, whose values are not known yet.
        overrides: fields of the config.
        text_model: where the text encoder starts from, if not new.

    Raises:
        CausalVideoError: an unknown field or value; a text_config that is not read, or that no encoder has.
    """
    known = config_class.__dataclass_fields__
    _refuse_unknown("config_overrides", set(overrides) - set(known), config_class.__name__, list(known))
    if "text_config" in overrides:
        _check_text_config(overrides["text_config"], text_model)
    if preset is not None:
        fields = {name: value for name, value in overrides.items() if name != "text_config"}
        try:
            config_class.preset(preset, **fields)
        except StrictDataclassError as error:
            if isinstance(error.__cause__, CausalVideoError):
                raise error.__cause__ from None
            name = config_class.__name__
            raise CausalVideoError(
                "config_overrides",
                found=" ".join(str(error).split()),
                expected=f"values that {name} takes",
                fix=f"see help({name})",
            ) from error


def _check_text_config(value: object, text_model: str | None) -> None:
    if value is None:
        return
    require(
        text_model is None,
        "config_overrides.text_config would not be read",
        found=f"text_model={text_model!r} as well",
        expected="one of them",
        fix="drop text_config: the encoder's own config comes with it",
    )
    check_fields("config_overrides.text_config", value, (), fix="write key: value pairs")
    assert isinstance(value, dict)
    try:
        known = AutoConfig.for_model(value.get("model_type", "bert"))
    except ValueError as error:
        raise CausalVideoError(
            "config_overrides.text_config",
            found=f"model_type {value['model_type']!r}",
            expected="a model_type of transformers",
            fix="take bert, roberta, deberta-v2, ...",
        ) from error
    unknown = {name for name in value if not hasattr(known, name)}
    names = [*known.to_dict(), *known.attribute_map]
    _refuse_unknown("config_overrides.text_config", unknown, type(known).__name__, names)


def _refuse_unknown(what: str, unknown: set[str], config: str, known: list[str]) -> None:
    if unknown:
        near = sorted({match for name in unknown for match in get_close_matches(name, known, n=1)})
        raise CausalVideoError(
            f"unknown {what}",
            found=", ".join(sorted(unknown)),
            expected=f"fields of {config}",
            fix=f"did you mean {', '.join(near)}?" if near else f"see help({config})",
        )
