"""Base classes of all models: initialisation, loading, random inputs, the text encoder, and checks of tensors."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers.utils import TransformersKwargs, cached_file

from hf_causal_video.backbones.text import build_text_encoder, encode_in_buckets
from hf_causal_video.models.configuration import check_auto_class
from hf_causal_video.models.text_limits import check_text_length
from hf_causal_video.utils.errors import require, require_values

IGNORED_LABEL = -100
NO_PICKLE = "weights in safetensors; this package opens no pickled file"


@dataclass
class RandomInputs:
    """Random inputs of a training step; fields that are None are sampled. Tests and benchmarks fix them.

    G groundings, n negative copies, T frames.

    Args:
        frame_noise, object_noise: (B, samples, T[*L]) and (B*K, samples, N[*L]) noise of the selection (TranSTR).
        gumbel: (G, 2, T) noise of the grounding, causal first (IGV, EIGV).
        gumbel_mixed: (B, 2, T) noise of the second grounding (EIGV).
        foreign: (G, T) flat index `row * T + frame` of the frames that replace an environment (IGV, EIGV).
        foreign_negative: (n, B, T) the same for causal scenes (EIGV).
        lambda1, lambda2: () or (B,) mixing coefficients (EIGV).
        partner: (B,) row that each sample is mixed with (EIGV).
        question_swap: (n, B) flat index `copy * B + row` of the question that each copy gets instead (EIGV).
    """

    frame_noise: Tensor | None = None
    object_noise: Tensor | None = None
    gumbel: Tensor | None = None
    gumbel_mixed: Tensor | None = None
    foreign: Tensor | None = None
    foreign_negative: Tensor | None = None
    lambda1: Tensor | None = None
    lambda2: Tensor | None = None
    partner: Tensor | None = None
    question_swap: Tensor | None = None


class CausalVideoPreTrainedModel(PreTrainedModel):
    """Base of every model of the package: initialisation, the loss convention, and weights from safetensors alone."""

    base_model_prefix = ""
    accepts_loss_kwargs = False  # the loss is a batch mean; the Trainer must not rescale it
    random_inputs = RandomInputs()
    _renamed_keys: dict[str, str] = {}  # parts of names in older checkpoints, and what they are called now

    def _init_weights(self, module: nn.Module) -> None:
        """Keep torch's initialisation of our own modules; a nested text encoder keeps its own rule."""
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()

    @contextmanager
    def fixed_random_inputs(self, random_inputs: RandomInputs) -> Iterator[None]:
        """Use given random inputs instead of sampling them, for tests and benchmarks.

        Example:
            >>> with model.fixed_random_inputs(RandomInputs(partner=torch.tensor([1, 0]))):  # doctest: +SKIP
            ...     loss = model(**batch).loss
        """
        self.random_inputs = random_inputs
        try:
            yield
        finally:
            del self.random_inputs  # back to that of the class

    @classmethod
    def from_pretrained(
        cls, *args: Any, use_safetensors: bool | None = None, key_mapping: dict[str, str] | None = None, **kwargs: Any
    ) -> Any:
        """Load a checkpoint as transformers does, from safetensors alone.

        Why: a pickled `pytorch_model.bin` can run code; it is never opened.

        Raises:
            CausalVideoError: `use_safetensors=False`.
        """
        fix = "leave the argument out; convert the file with load_state_dict and save_pretrained"
        require(use_safetensors is not False, "use_safetensors", found=False, expected=NO_PICKLE, fix=fix)
        key_mapping = {**cls._renamed_keys, **(key_mapping or {})}
        return super().from_pretrained(*args, use_safetensors=True, key_mapping=key_mapping, **kwargs)

    def load_adapter(self, peft_model_id: str | None = None, *args: Any, **kwargs: Any) -> Any:
        """Load adapters as transformers does, from safetensors alone.

        Raises:
            CausalVideoError: adapters in a pickled file only.
        """
        if peft_model_id is not None:
            options = kwargs.get("adapter_kwargs") or {}
            hub = {name: options[name] for name in ("revision", "token", "cache_dir", "subfolder") if name in options}
            file = cached_file(
                peft_model_id, "adapter_model.safetensors", _raise_exceptions_for_missing_entries=False, **hub
            )
            missing = "no adapter_model.safetensors"
            fix = "save the adapters again with save_pretrained of peft"
            require(file is not None, f"adapters {peft_model_id}", found=missing, expected=NO_PICKLE, fix=fix)
        return super().load_adapter(peft_model_id, *args, **kwargs)

    def _check_kwargs(self, kwargs: Mapping[str, object]) -> bool:
        """Refuse unknown arguments of `forward`, and attention maps that this model cannot give.

        Returns:
            Whether hidden states or attention maps are asked for.

        Raises:
            CausalVideoError: an argument that is neither an input nor one of transformers, or attention maps of a
                model without attention layers of its own.
        """
        name = f"{type(self).__name__}.forward"
        unknown = ", ".join(sorted(kwargs.keys() - TransformersKwargs.__annotations__.keys()))
        require(not unknown, name, found=f"unknown argument {unknown}", expected="its inputs", fix="drop it")
        wanted = [
            getattr(self.config, flag) if kwargs.get(flag) is None else kwargs[flag]
            for flag in ("output_attentions", "output_hidden_states")
        ]
        if wanted[0]:
            expected = "False: the network has no attention layers"
            fix = "read the scores of the output; of a text, call model.text_encoder(output_attentions=True)"
            fits = "attentions" in self.can_record_outputs
            require(fits, name, found="output_attentions=True", expected=expected, fix=fix)
        return any(wanted)

    def get_input_embeddings(self) -> nn.Module:
        """Raise NotImplementedError, which transformers expects of a model without a vocabulary."""
        raise NotImplementedError(f"{type(self).__name__} reads features: it has no token embeddings to get or resize")

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Raise NotImplementedError; see `get_input_embeddings`."""
        self.get_input_embeddings()

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoModel") -> None:
        """Refuse where the saved code would need this package; see `check_auto_class`."""
        check_auto_class(cls)
        super().register_for_auto_class(auto_class)


class VideoQAPreTrainedModel(CausalVideoPreTrainedModel):
    """Base of the question models: a nested Hugging Face text encoder and own modules, built from the config alone."""

    main_input_name = "frame_features"
    supports_gradient_checkpointing = True
    text_encoder: PreTrainedModel | None

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
        missing = model._text_encoder().load_state_dict(encoder.state_dict(), strict=False).missing_keys
        fix = "name an encoder of the same architecture"
        require(not missing, f"text encoder {name}", found=f"no {missing[:3]}", expected="every weight", fix=fix)
        return model

    def _build_text_encoder(self) -> None:
        """Build the text encoder; None where the config has none and token features are given."""
        config = self.config.text_config
        self.text_encoder = None if config is None else build_text_encoder(config)
        if self.text_encoder is not None and self.config.freeze_text_encoder:
            self.text_encoder.requires_grad_(False)

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embeddings of the text encoder, which `resize_token_embeddings` replaces."""
        if self.text_encoder is None:
            return super().get_input_embeddings()
        return self.text_encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embeddings of the text encoder."""
        if self.text_encoder is None:
            super().set_input_embeddings(value)
        else:
            self.text_encoder.set_input_embeddings(value)

    def _text_encoder(self) -> PreTrainedModel:
        what = f"the text of {type(self).__name__}"
        problem = "ids, and no text encoder: text_config=None"
        fix = "give question_features and choice_features, or a config with text_config"
        require(self.text_encoder is not None, what, found=problem, expected="token features", fix=fix)
        return cast(PreTrainedModel, self.text_encoder)

    @property
    def _text_is_frozen(self) -> bool:
        """True if nothing in the text encoder learns; adapters in a frozen encoder do."""
        if self.text_encoder is None or not self.config.freeze_text_encoder:
            return False
        return not any(parameter.requires_grad for parameter in self.text_encoder.parameters())

    def train(self, mode: bool = True) -> Self:
        """Switch modes; a frozen text encoder stays in evaluation mode, so its dropout is off."""
        super().train(mode)
        if self._text_is_frozen:
            self._text_encoder().eval()
        return self

    def encode_texts(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return inputs of `forward` with token features in place of ids, for several calls about the same texts.

        A model that takes no token features returns them as they are.
        """
        return dict(inputs)

    def encode_text(self, groups: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """Encode groups of (ids, mask), each (rows, L), to (rows, L, D_text); see `encode_in_buckets`."""
        check_text_length(self._text_encoder(), *(ids for ids, _ in groups))
        # Buckets depend on the values of the masks; a compiled or exported graph has one shape per input shape.
        buckets = 1 if torch.compiler.is_compiling() else self.config.text_length_buckets
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self._text_is_frozen):
            return encode_in_buckets(self._text_encoder(), groups, buckets)


def check_width(name: str, tensor: Tensor, dims: int, width: int, fix: str) -> None:
    """Refuse a feature tensor of another rank or width, with an empty axis, or with NaN."""
    shape = tensor.shape
    fits = len(shape) == dims and shape[-1] == width and 0 not in shape
    expected = f"{dims} axes, the last of width {width}, and no empty axis"
    require(fits, name, found=lambda: f"shape {tuple(shape)}", expected=expected, fix=fix)
    check_finite(name, tensor)


def check_finite(name: str, tensor: Tensor) -> None:
    """Refuse NaN and infinity: a model would answer NaN, or worse, the first of its answers."""
    if not tensor.numel():
        return
    extremes = torch.stack(torch.aminmax(tensor.detach()))  # NaN in both; one pass, without a mask of all elements
    require_values(
        extremes.isfinite().all(),
        name,
        found=lambda: "NaN or infinity",
        expected="finite numbers",
        fix="extract the features of these clips again",
    )


def check_mask(name: str, mask: Tensor | None, features: Tensor, dims: int) -> Tensor:
    """Return the mask as bool, all true where none is given; refuse another shape than the first `dims` axes."""
    shape = features.shape[:dims]
    if mask is None:
        return features.new_ones(shape, dtype=torch.bool)
    fix = "pass the mask that was made with these features"
    require(mask.shape == shape, name, found=lambda: f"shape {tuple(mask.shape)}", expected=tuple(shape), fix=fix)
    return mask.bool()


def answer_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over the questions whose answer is known; a label of -100 is an unknown answer.

    Raises:
        CausalVideoError: a label outside the answers, or of an absent choice.
    """
    known = labels != IGNORED_LABEL
    inside = (labels >= 0) & (labels < logits.shape[-1])
    chosen = logits.detach().gather(1, labels.where(inside, 0).unsqueeze(1)).squeeze(1)
    valid = inside & (chosen != torch.finfo(logits.dtype).min)  # an absent choice has the lowest logit
    require_values(
        (valid | ~known).all(),
        "labels",
        found=labels.tolist,
        expected=f"indices 0..{logits.shape[-1] - 1} of present choices, or -100",
        fix="check the answer column against the choices or the vocabulary",
    )
    total = F.cross_entropy(logits.float(), labels, ignore_index=IGNORED_LABEL, reduction="sum")
    return total / known.sum().clamp(min=1)
