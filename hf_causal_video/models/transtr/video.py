"""Question-independent part of a video in TranSTR: checked, joined with its boxes, encoded once for all questions."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hf_causal_video.models.base import check_finite, check_mask, check_width
from hf_causal_video.models.transtr.configuration_transtr import TranSTRConfig
from hf_causal_video.utils.errors import require


@dataclass
class EncodedVideo:
    """Question-independent encoding of a video by `encode_video`, for any number of calls.

    Args:
        frames, pos: (V, T, D) frames after self-attention, and their positions.
        query: (V, T, D) the frames' queries to any question.
        frame_mask: (V, T) bool.
        features, boxes, object_mask: the objects as given, (V, T, N, C), (V, T, N, 4) and (V, T, N).
        objects: (V, T, N, D) objects after self-attention, where all frames' were encoded.
        object_query: (V, T, N, D) the queries of those objects to any question.
    """

    frames: Tensor
    pos: Tensor
    query: Tensor
    frame_mask: Tensor
    features: Tensor | None = None
    boxes: Tensor | None = None
    object_mask: Tensor | None = None
    objects: Tensor | None = None
    object_query: Tensor | None = None

    def frames_of(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Select frames, positions, queries and mask of rows; nothing is copied where all are one video."""
        if len(self.frames) > 1:
            return self.frames[rows], self.pos[rows], self.query[rows], self.frame_mask[rows]
        frames, pos, mask = (x.expand(len(rows), *x.shape[1:]) for x in (self.frames, self.pos, self.frame_mask))
        return frames, pos, self.query, mask


class FeatureResizer(nn.Module):
    """Projection of features of another model to our width: linear, norm, dropout."""

    def __init__(self, width: int, dim: int, dropout: float):
        super().__init__()
        self.fc = nn.Linear(width, dim)
        self.layer_norm = nn.LayerNorm(dim, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Project (..., width) to (..., dim)."""
        return self.dropout(self.layer_norm(self.fc(x)))


def check_objects(
    config: TranSTRConfig, features: Tensor | None, boxes: Tensor | None, mask: Tensor | None, frames: Tensor
) -> tuple[Tensor, Tensor]:
    """Check objects, and return them (V, T, N, C) with the mask of those that exist (V, T, N).

    Args:
        config: has the width of an object.
        features: (V, T, N, C), with boxes appended where `boxes` is None.
        boxes: (V, T, N, 4) xyxy.
        mask: (V, T, N), True where an object exists; all do where None.
        frames: (V, T, D) the frames they belong to.

    Raises:
        CausalVideoError: missing objects, a wrong shape or width, another number of frames.
    """
    needed = f"objects, num_objects_kept={config.num_objects_kept}"
    fix = "extract objects too, or train with num_objects_kept=0"
    require(features is not None, "object_features", found="none", expected=needed, fix=fix)
    assert features is not None
    width = config.object_input_dim if boxes is None else config.object_feature_dim
    fix = "give object_boxes, or append boxes of the config's bbox_mode to the features"
    check_width("object_features", features, 4, width, fix)
    if boxes is not None:
        wanted = (*features.shape[:-1], 4)
        shape = tuple(boxes.shape)
        require(shape == wanted, "object_boxes", found=shape, expected=wanted, fix="give one xyxy box for each object")
        check_finite("object_boxes", boxes)
    shape = tuple(features.shape[:2])
    wanted = tuple(frames.shape[:2])
    fix = "extract frames and objects from the same timestamps"
    require(shape == wanted, "clips and frames of object_features", found=shape, expected=wanted, fix=fix)
    return features, check_mask("object_mask", mask, features, 3)


def join_boxes(config: TranSTRConfig, features: Tensor, boxes: Tensor | None) -> Tensor:
    """Append boxes (..., 4) to objects (..., C), and areas where the config says "norm5"."""
    if boxes is None:
        return features
    parts = [features, boxes]
    if config.bbox_mode == "norm5":
        parts.append(((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])).unsqueeze(-1))
    return torch.cat([part.to(features.dtype) for part in parts], -1)
