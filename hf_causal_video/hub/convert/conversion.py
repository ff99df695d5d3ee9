"""Original checkpoints to our models: nothing is guessed, nothing is dropped in silence.

The key layouts are those of the authors' released `state_dict`s. A converted model behaves as the released code does:
every legacy switch of the `official-*` presets is on.
"""

from collections.abc import Mapping

from torch import Tensor
from transformers import PreTrainedModel

from hf_causal_video.hub.convert.grounding import PRESETS as GROUNDING_PRESETS
from hf_causal_video.hub.convert.grounding import grounding_model
from hf_causal_video.hub.convert.transtr import PRESETS as TRANSTR_PRESETS
from hf_causal_video.hub.convert.transtr import transtr_model
from hf_causal_video.utils.checks import check_choice
from hf_causal_video.utils.errors import require

VARIANTS: dict[str, dict[str, str]] = {"transtr": TRANSTR_PRESETS, **GROUNDING_PRESETS}


def convert_official_checkpoint(
    state_dict: Mapping[str, Tensor], method: str, variant: str, config_overrides: Mapping[str, object] | None = None
) -> PreTrainedModel:
    """Load an original checkpoint into our model of the same method.

    Args:
        state_dict: the released tensors under the released names.
        method: "transtr", "igv" or "eigv".
        variant: which copy of the released code: "next", "causalvid", "msvd" or "msrvtt" of TranSTR; a dataset and a
            backbone of IGV and EIGV, as "msvd-hga" (IGV: msvd or msrvtt, over hga; EIGV: nextqa, msvd or msrvtt, over
            hga, comem or mspan).
        config_overrides: config fields that the tensors cannot tell (heads, effective K's of another run, a text
            encoder other than DeBERTa base). Widths are read off the tensors.

    Returns:
        The model in evaluation mode.

    Raises:
        CausalVideoError: an unknown method or variant, or any missing, unexpected or misshapen key, by name.

    Example:
        >>> convert_official_checkpoint({}, "transtr", "next")
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: transtr checkpoint: found no classifier.weight; expected ...
    """
    check_choice("method", method, sorted(VARIANTS))
    check_choice(f"variant of {method}", variant, sorted(VARIANTS[method]))
    overrides = config_overrides or {}
    if method == "transtr":
        model, tensors = transtr_model(state_dict, variant, overrides)
    else:
        model, tensors = grounding_model(state_dict, method, variant, overrides)
    load_exactly(model, tensors)
    return model.eval()


def load_exactly(model: PreTrainedModel, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors into a model whose keys and shapes must be exactly theirs."""
    wanted = model.state_dict()
    problems = [f"missing {key}" for key in wanted if key not in tensors]
    problems += [f"unexpected {key}" for key in tensors if key not in wanted]
    problems += [
        f"{key} of shape {tuple(tensors[key].shape)}, not {tuple(wanted[key].shape)}"
        for key in wanted
        if key in tensors and tensors[key].shape != wanted[key].shape
    ]
    require(
        not problems,
        f"{model.config.model_type} checkpoint",
        found=lambda: "; ".join(problems),
        expected=f"exactly the {len(wanted)} tensors of this variant",
        fix="name the variant the file was trained with, or the fields that differ in config_overrides",
    )
    model.load_state_dict(tensors)
