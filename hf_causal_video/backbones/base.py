"""Backbone protocol: the four calls by which IGV and EIGV wrap any VideoQA network, and the registry of names.

Why so few: both methods edit frames before the video encoder and constrain answers and joint vectors after the answer
head; nothing between concerns them. A network with these calls is a backbone.

Source: IGV (arXiv 2206.02349) and EIGV (arXiv 2207.12783) call themselves model-agnostic; the calls are what their
equations use of a backbone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from hf_causal_video.utils.checks import check_choice
from hf_causal_video.utils.errors import CausalVideoError, require


class _Rows:
    """Dataclass of tensors that share a leading axis, and can be gathered along it."""

    def rows(self, index: Tensor) -> Self:
        """Select the rows at `index` (K,) int, in that order; a row may repeat."""
        return self._each(lambda tensor: tensor.index_select(0, index))

    @classmethod
    def join(cls, parts: list[Self]) -> Self:
        """Concatenate the rows of several objects, in order; other axes must agree."""
        joined: dict[str, Tensor | dict[str, Tensor]] = {}
        for part in fields(cls):  # type: ignore[arg-type]
            values = [getattr(one, part.name) for one in parts]
            if isinstance(values[0], dict):
                joined[part.name] = {name: torch.cat([value[name] for value in values]) for name in values[0]}
            elif values[0] is not None:
                joined[part.name] = torch.cat(values)
        return replace(parts[0], **joined)  # type: ignore[type-var]

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        changed: dict[str, Tensor | dict[str, Tensor]] = {}
        for part in fields(self):  # type: ignore[arg-type]
            value = getattr(self, part.name)
            if isinstance(value, dict):
                changed[part.name] = {name: change(tensor) for name, tensor in value.items()}
            elif value is not None:
                changed[part.name] = change(value)
        return replace(self, **changed)  # type: ignore[type-var]


@dataclass
class Question(_Rows):
    """Encoded questions, or question and candidate strings; R rows.

    Args:
        pooled: (R, H) one vector per question; the grounding indicator compares it with the frames.
        tokens: (R, L, H) its tokens, where the backbone uses them.
        mask: (R, L) bool, true at tokens.
        extra: further inputs of `fuse`, each tensor with R rows.
    """

    pooled: Tensor
    tokens: Tensor | None = None
    mask: Tensor | None = None
    extra: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Video(_Rows):
    """Encoded videos; V rows.

    Args:
        frames: (V, T', Hk) encoded frames. T' may be smaller than T where masked frames were dropped.
        mask: (V, T') bool, true at frames that count.
        pooled: (V, Hk) one vector per video, where the backbone has one.
        extra: further inputs of `fuse` or `grounding_key`, each tensor with V rows.
    """

    frames: Tensor
    mask: Tensor
    pooled: Tensor | None = None
    extra: dict[str, Tensor] = field(default_factory=dict)


class VideoQABackbone(nn.Module):
    """Base class of VideoQA networks for IGV and EIGV. Subclass it, set the two widths, write the four calls.

    R question rows (B, or B*A where each candidate is a string of its own), V videos, T frames, L tokens.

    Args:
        text_dim: width of a token feature.
        frame_dim: width C of a frame feature.
        num_answers: size of the answer vocabulary; None where a row is one candidate and gets one score.

    Attributes:
        question_dim: H, width of `Question.pooled` and of the grounding key.
        joint_dim: J, width of the joint vector.
        depends_on_batch: whether a row's answer depends on how long the other rows are (a released behaviour of HGA);
            then the branches of a method are encoded one by one, else in one batch.
    """

    question_dim: int
    joint_dim: int
    depends_on_batch: bool = False

    def __init__(self, text_dim: int, frame_dim: int, num_answers: int | None):
        super().__init__()
        self.text_dim = text_dim
        self.frame_dim = frame_dim
        self.num_answers = num_answers

    def encode_question(self, tokens: Tensor, mask: Tensor) -> Question:
        """Encode token features (R, L, D_text) with mask (R, L) bool, true tokens first, at least one per row."""
        raise NotImplementedError

    def embed_frames(self, frames: Tensor) -> Tensor:
        """Map frames (V, T, C) to the input of `encode_video`, (V, T, E), linearly without bias; default: unchanged.

        Masking, swapping and mixing frames commute with such a map, so it is done once for all edited copies of a
        video. A backbone that starts with a wide projection saves most of its cost here.
        """
        return frames

    def encode_video(self, frames: Tensor, mask: Tensor) -> Video:
        """Encode embedded frames (V, T, E) with mask (V, T) bool.

        True frames may be at any position, and every row has at least one. Masked frames must not affect the output.
        The true entries of the result's mask are the true frames, in their order.
        """
        raise NotImplementedError

    def grounding_key(self, video: Video) -> Tensor:
        """Return the vectors that the indicator compares with the question, (V, T, H); default: the encoded frames.

        Called for videos that were encoded with all their frames.
        """
        return video.frames

    def fuse(self, question: Question, video: Video) -> Tensor:
        """Fuse questions and videos of the same number of rows to joint vectors (R, J)."""
        raise NotImplementedError

    def fuse_pairs(self, question: Question, video: Video, question_rows: Tensor, video_rows: Tensor) -> Tensor:
        """Fuse question i with video j for each pair (i, j) of two index vectors (P,), to (P, J).

        A backbone overrides this where part of `fuse` depends on one side alone and need not be repeated per pair.
        """
        return self.fuse(question.rows(question_rows), video.rows(video_rows))

    def answer(self, joint: Tensor) -> Tensor:
        """Score answers from joint vectors (R, J), to (R, num_answers), or (R, 1) where a row is one candidate."""
        raise NotImplementedError

    def mix_question(self, a: Question, b: Question, weight: Tensor) -> Question:
        """Mix questions, weight * a + (1 - weight) * b row by row; a token counts if either question has it.

        Args:
            a, b: questions of the same number of rows.
            weight: (R,) or () in [0, 1].
        """

        def mix(x: Tensor, y: Tensor) -> Tensor:
            w = weight if weight.dim() == 0 else weight.view(-1, *[1] * (x.dim() - 1))
            return w.to(x.dtype) * x + (1 - w).to(x.dtype) * y

        return Question(
            pooled=mix(a.pooled, b.pooled),
            tokens=None if a.tokens is None or b.tokens is None else mix(a.tokens, b.tokens),
            mask=None if a.mask is None or b.mask is None else a.mask | b.mask,
            extra={name: mix(a.extra[name], b.extra[name]) for name in a.extra},
        )


def check_sizes(name: str, hidden: int, divisors: dict[str, int], **counts: int) -> None:
    """Refuse a hidden size that its parts do not divide, and a count below 1.

    Args:
        name: of the backbone.
        hidden: its hidden size.
        divisors: what has to divide it, by name.
        counts: numbers of layers, rounds and so on.

    Raises:
        CausalVideoError: any of them.
    """
    for part, divisor in {"": 1, **divisors}.items():
        right = hidden >= 1 and divisor >= 1 and hidden % divisor == 0
        require(right, f"{name}'s hidden size", found=hidden, expected=f"a positive multiple of {part} {divisor}")
    for part, count in counts.items():
        require(count >= 1, f"{name}'s {part}", found=count, expected="at least 1")


def without_bias(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply an affine layer without its bias, (..., C) to (..., E).

    Why by calls: hooks, adapters and quantised forms of the layer take effect in a call only. The bias is the output
    for zeros, so a frame of zeros stays exactly zero.

    Example:
        >>> layer, x = nn.Linear(3, 2), torch.ones(3)
        >>> torch.allclose(without_bias(layer, x), layer.weight @ x), torch.equal(bias_of(layer, 3, x)[0], layer.bias)
        (True, True)
    """
    return layer(x) - bias_of(layer, x.shape[-1], x)


def bias_of(layer: nn.Module, width: int, like: Tensor) -> Tensor:
    """Return the bias (1, E) of an affine layer over inputs of a width, with the type and device of `like`."""
    return layer(like.new_zeros(1, width))


# Names of HGA's normalised weights in released checkpoints, and in ours while torch's parametrisation held them.
RENAMED_KEYS = {
    f".edge_layer_{layer}.{old}": f".edge_layer_{layer}.{new}"
    for layer in (1, 2)
    for new, names in {"g": ("weight_g", "original0"), "v": ("weight_v", "original1")}.items()
    for old in (names[0], f"parametrizations.weight.{names[1]}")
}
REQUIRED = ("encode_question", "encode_video", "fuse", "answer")
BACKBONES: dict[str, type[VideoQABackbone]] = {}


def register_backbone(name: str, backbone: type[VideoQABackbone]) -> None:
    """Register a backbone under a name, for `backbone="name"` in a config.

    Args:
        name: the name; registering a class of the same qualified name again replaces it.
        backbone: a class, built as `backbone(text_dim, frame_dim, num_answers, **backbone_config)`.

    Raises:
        CausalVideoError: another class than a `VideoQABackbone`, a missing call, or a name that another class has.

    Example:
        >>> register_backbone("mine", VideoQABackbone)
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: backbone 'mine': found no encode_question, ...
    """
    what = f"backbone {name!r}"
    is_backbone = isinstance(backbone, type) and issubclass(backbone, VideoQABackbone)
    require(is_backbone, what, found=repr(backbone), expected="a subclass of VideoQABackbone")
    missing = ", ".join(call for call in REQUIRED if getattr(backbone, call) is getattr(VideoQABackbone, call))
    fix = f"write {missing} in {backbone.__name__}"
    require(not missing, what, found=f"no {missing}", expected=f"the calls {', '.join(REQUIRED)}", fix=fix)
    registered = BACKBONES.get(name, backbone)
    is_free = registered.__qualname__ == backbone.__qualname__
    require(is_free, what, found=f"{registered.__name__} under this name already", expected="a free name")
    BACKBONES[name] = backbone


def build_backbone(
    name: str, text_dim: int, frame_dim: int, num_answers: int | None, config: dict[str, Any] | None = None
) -> VideoQABackbone:
    """Build a registered backbone.

    Args:
        name: a registered name.
        text_dim, frame_dim, num_answers: as in `VideoQABackbone`.
        config: further arguments of its constructor.

    Raises:
        CausalVideoError: an unknown name, arguments that the constructor refuses, or widths it did not set.
    """
    fix = "name one, or import the module that registers it first (--import MODULE in the shell)"
    check_choice("backbone", name, sorted(BACKBONES), fix=fix)
    try:
        backbone = BACKBONES[name](text_dim, frame_dim, num_answers, **(config or {}))
    except TypeError as error:
        raise CausalVideoError(
            f"backbone {name!r}",
            found=f"backbone_config {config}: {error}",
            expected="arguments of its constructor",
            fix=f"see help({BACKBONES[name].__name__})",
        ) from error
    for width in ("question_dim", "joint_dim"):
        is_set = isinstance(getattr(backbone, width, None), int)
        require(is_set, f"backbone {name!r}", found=f"no {width}", expected=f"self.{width} set in __init__")
    return backbone
