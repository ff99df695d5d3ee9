"""LoRA on the nested text encoder; the method's own modules are trained in full and saved with the adapters.

Why: the text encoder holds most of the weights, and it is pretrained. Source: Hu et al. 2022, arXiv 2106.09685.
"""

from typing import TYPE_CHECKING

from torch import nn
from transformers import PreTrainedModel

from hf_causal_video.utils.errors import CausalVideoError, require

if TYPE_CHECKING:
    from peft import PeftModel

# Query and value projections; where an encoder fuses them with the key, the fused projection.
TARGETS = {
    "deberta": "in_proj",
    "deberta-v2": "query_proj|value_proj",
    "distilbert": "q_lin|v_lin",
    "modernbert": "Wqkv",
    "mpnet": "q|v",
}
USUAL_TARGETS = "query|value"  # bert, roberta, xlm-roberta, albert, electra


def add_lora(model: PreTrainedModel, rank: int, alpha: float) -> "PeftModel":
    """Wrap a model so that adapters on its text encoder and all its own modules are trained.

    Args:
        model: a method of this package.
        rank: of the adapters.
        alpha: the update is multiplied by alpha / rank.

    Raises:
        CausalVideoError: no query and value projection found, or a parameter that would be trained or frozen wrongly.
    """
    from peft import LoraConfig, get_peft_model

    targets = TARGETS.get(model.config.text_config.model_type, USUAL_TARGETS)
    method_modules = [
        name for name, module in model.named_children() if name != "text_encoder" and list(module.parameters())
    ]
    config = LoraConfig(r=rank, target_modules=rf"text_encoder\..*\.({targets})", modules_to_save=method_modules)
    config.lora_alpha = alpha  # type: ignore[assignment]  # peft annotates a whole number and divides by the rank
    try:
        wrapped = get_peft_model(model, config)
    except ValueError as error:
        raise CausalVideoError(
            "no projection to adapt",
            found=f"text encoder {model.config.text_config.model_type!r} ({error})",
            expected=f"modules named {targets}",
            fix="train without LoRA (lora_rank 0), or with another text encoder",
        ) from error
    _check_trained(wrapped)
    return wrapped


def _check_trained(wrapped: nn.Module) -> None:
    """Check which weights are trained: peft matches modules by the ends of their names, and may match others."""
    wrong = []
    for name, parameter in wrapped.named_parameters():
        in_text = ".text_encoder." in name
        expected = "lora_" in name if in_text else ".original_module." not in name
        if parameter.requires_grad != expected:
            wrong.append(name)
    require(
        not wrong,
        "LoRA would train the wrong weights",
        found=lambda: wrong[:5],
        expected="adapters in the text encoder, and all of the method's own modules",
        fix="report this model and encoder",
    )
