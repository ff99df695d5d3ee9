"""What all VideoQA models of the package share: construction, the text side, and the checks on what is fed in."""

from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from hf_causal_video.backbones.text import build_text_encoder, encode_in_buckets
from hf_causal_video.utils.errors import CausalVideoError

IGNORED_LABEL = -100


class CausalVideoPreTrainedModel(PreTrainedModel):
    """Base of the methods: a nested Hugging Face text encoder and own modules, built from the config alone."""

    main_input_name = "frame_features"
    base_model_prefix = ""
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # the loss is a batch mean; the Trainer must not rescale it
    _supports_sdpa = True

    def _init_weights(self, module: nn.Module) -> None:
        """Own modules keep torch's initialisation; the nested text encoder keeps its own rule."""
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()

    @classmethod
    def from_pretrained(cls, *given: Any, **options: Any) -> Any:
        """As in transformers, from safetensors alone: a pickled `pytorch_model.bin` is never opened."""
        return super().from_pretrained(*given, **{**options, "use_safetensors": True})

    @classmethod
    def from_text_pretrained(cls, name: str, config: Any | None = None, **fields: Any) -> Self:
        """Build a model whose text encoder starts from pretrained weights.

        Args:
            name: Hub id or folder of a text encoder.
            config: a config of this class, whose `text_config` is replaced; otherwise made from `fields`.
            fields: fields of the config.
        """
        encoder = AutoModel.from_pretrained(name, trust_remote_code=False)
        make: Any = cls.config_class
        config = make(**fields) if config is None else config
        config.text_config = encoder.config
        model = cls(config)
        missing = model.text_encoder.load_state_dict(encoder.state_dict(), strict=False).missing_keys
        if missing:
            raise CausalVideoError(
                f"text encoder {name}",
                found=f"no weights for {missing[:3]}",
                expected="every weight",
                fix="name an encoder of the same architecture",
            )
        return model

    def _build_text_encoder(self) -> None:
        self.text_encoder = build_text_encoder(self.config.text_config)
        if self.config.freeze_text_encoder:
            self.text_encoder.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Switch modes; a frozen text encoder stays in evaluation mode, so its dropout is off."""
        super().train(mode)
        if self.config.freeze_text_encoder:
            self.text_encoder.eval()
        return self

    def encode_text(self, groups: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """Encode groups of (ids, mask), each (rows, L), to (rows, L, D_text); see `encode_in_buckets`."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.freeze_text_encoder):
            return encode_in_buckets(self.text_encoder, groups, self.config.text_length_buckets)


def check_width(name: str, tensor: Tensor, dims: int, width: int, fix: str) -> None:
    """Refuse a feature tensor of another rank or width, one with an empty axis, and one with NaN or infinity."""
    if tensor.dim() != dims or tensor.shape[-1] != width:
        raise CausalVideoError(
            name, found=f"shape {tuple(tensor.shape)}", expected=f"{dims} axes, the last of width {width}", fix=fix
        )
    if 0 in tensor.shape:
        raise CausalVideoError(
            name,
            found=f"shape {tuple(tensor.shape)}",
            expected="no empty axis",
            fix="drop clips without frames or objects before batching",
        )
    if torch.compiler.is_compiling() or tensor.sum(dtype=torch.float32).isfinite():  # one pass, and no mask is built
        return
    if not tensor.isfinite().all():
        bad = (~tensor.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
        raise CausalVideoError(
            name,
            found=f"NaN or infinity in rows {bad}",
            expected="finite numbers",
            fix="extract the features of these clips again",
        )


def check_mask(name: str, mask: Tensor | None, features: Tensor, dims: int) -> Tensor:
    """The mask as bool, all true where none is given; refuse another shape than the features' first `dims` axes."""
    shape = features.shape[:dims]
    if mask is None:
        return features.new_ones(shape, dtype=torch.bool)
    if mask.shape != shape:
        raise CausalVideoError(
            name,
            found=f"shape {tuple(mask.shape)}",
            expected=tuple(shape),
            fix="pass the mask that was made with these features",
        )
    return mask.bool()


def answer_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over the questions whose answer is known; a label of -100 is an unknown answer.

    Raises:
        CausalVideoError: a label outside the answers, or of an absent choice.
    """
    known = labels != IGNORED_LABEL
    if not torch.compiler.is_compiling():
        inside = (labels >= 0) & (labels < logits.shape[-1])
        chosen = logits.detach().gather(1, labels.where(inside, 0).unsqueeze(1)).squeeze(1)
        there = inside & (chosen != torch.finfo(logits.dtype).min)  # an absent choice has the lowest logit there is
        if (known & ~there).any():
            raise CausalVideoError(
                "labels",
                found=labels.tolist(),
                expected=f"indices 0..{logits.shape[-1] - 1} of choices that are there, or -100",
                fix="check the answer column against the choices or the vocabulary",
            )
    total = F.cross_entropy(logits.float(), labels, ignore_index=IGNORED_LABEL, reduction="sum")
    return total / known.sum().clamp(min=1)
