"""The two small vision networks of the demo, trained from nothing in about a minute and a half.

Why: a machine without network has no pretrained weights, and the demo shall go from pixels to evidence all the same.
So a frame network (a ResNet) learns which action, by which shape, before which backdrop a picture shows, and a
detector (RT-DETR on that ResNet) learns where every shape is. Both are ordinary transformers models in ordinary
folders: `extract_folder` takes them as it would take SigLIP or a large DETR.

What makes it quick is where the supervision sits. The ResNet also says, at every place of its coarse map that lies
on an object, which shape, colour and action that is; by then the map holds all that the detector has to read, and 36
places are few enough to search. The heads that say so are thrown away, like the attribute head of a detector trained
on Visual Genome.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import trange
from transformers import (
    ConvNextImageProcessorPil,
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    RTDetrConfig,
    RTDetrForObjectDetection,
    RTDetrImageProcessorPil,
)

from hf_causal_video.features.store.reader import FeatureStore
from hf_causal_video.utils.files import whole_folder
from hf_causal_video.worlds.clips import draw_clips
from hf_causal_video.worlds.config import ACTIONS, CLASSES, ENVIRONMENTS, NUM_VALUES, WorldConfig
from hf_causal_video.worlds.render import ClipTruth, draw_clip

WIDTHS = (16, 32, 64, 128)  # channels at strides 4, 8, 16, 32
DETECTED_FROM = 2  # the stage whose map the detector searches: stride 16, 6 x 6 places for 96 pixels
WIDTH = 64  # of the detector, so of a region feature
NUM_QUERIES = 8
FRAME_LABELS = ACTIONS + tuple(f"{name} acts" for name in CLASSES) + ENVIRONMENTS
LOOKS = 3 * NUM_VALUES + 1  # logits of one object: shape, colour, "does nothing" and the actions
IDLE_WEIGHT = 0.3  # four objects in five do nothing


@dataclass
class DrawnFrames:
    """Frames with the truth about them. Shapes: F frames, N objects.

    Args:
        pixels: (F, 3, H, W) uint8.
        boxes: (F, N, 4), xyxy in [0, 1].
        shapes, colours: (F, N), index into the words of the world.
        actions: (F, N), -1 while an object does nothing.
        environment: (F,), -1 while it is hidden.
    """

    pixels: Tensor
    boxes: Tensor
    shapes: Tensor
    colours: Tensor
    actions: Tensor
    environment: Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, rows: Tensor) -> "DrawnFrames":
        return DrawnFrames(*[getattr(self, field.name)[rows] for field in fields(self)])


def draw_frames(num_clips: int, size: int, seed: int) -> DrawnFrames:
    """Draw frames for the vision networks: clips of their own, in which three objects act and nothing is confounded.

    Args:
        num_clips: clips; 32 frames each.
        size: width and height in pixels.
        seed: fixes the clips; take another than that of the clips that are asked about.

    Example:
        >>> draw_frames(1, size=64, seed=1).boxes.shape
        torch.Size([32, 4, 4])
    """
    clips = draw_clips(WorldConfig.rendered(num_actors=3, rho=0.0), "train", num_clips, seed)
    parts = []
    for index in range(num_clips):
        pictures, truth = draw_clip(clips, index, size, fps=2)
        count = len(pictures)
        hidden = (truth.actions >= 0).any(axis=1)
        parts.append(
            (
                np.stack([np.asarray(picture) for picture in pictures]).transpose(0, 3, 1, 2),
                truth.boxes,
                np.tile(truth.classes, (count, 1)),
                np.tile(truth.colours, (count, 1)),
                truth.actions,
                np.where(hidden, -1, truth.environment),
            )
        )
    return DrawnFrames(*[torch.from_numpy(np.concatenate(column)) for column in zip(*parts, strict=True)])


def train_frame_network(folder: Path, frames: DrawnFrames, steps: int, batch_size: int = 64) -> None:
    """Train the frame network and save it with its image processor.

    Args:
        folder: where to; it appears when the network is finished, never half.
        frames: what to learn from.
        steps: training steps.
        batch_size: frames a step.
    """
    torch.manual_seed(0)
    model = ResNetForImageClassification(
        _resnet(id2label=dict(enumerate(FRAME_LABELS)),
                problem_type="multi_label_classification")
    )  # fmt: skip
    heads = nn.ModuleDict({str(stage): nn.Linear(WIDTHS[stage], LOOKS) for stage in (1, DETECTED_FROM)})

    def loss_of(batch: DrawnFrames) -> Tensor:
        output = model(_pixels(batch), labels=frame_targets(batch), output_hidden_states=True)
        maps = {stage: output.hidden_states[int(stage) + 1] for stage in heads}  # (B, C, h, w); 0 is the stem
        loss = NUM_VALUES * output.loss
        for stage, head in heads.items():
            loss = loss + 0.5 * _look_loss(head(_rows(maps[stage])), *on_objects(maps[stage], batch), batch)
        return loss

    _train("frame network", nn.ModuleList([model, heads]), loss_of, frames, steps, batch_size, peak=3e-3)
    _save(folder, model, ConvNextImageProcessorPil(do_resize=False, do_normalize=False))


def train_object_network(
    folder: Path, frame_network: Path, frames: DrawnFrames, steps: int, batch_size: int = 32
) -> None:
    """Train the detector, which starts from the frame network, and save it with its image processor.

    Args:
        folder: where to; it appears when the network is finished, never half.
        frame_network: folder of the trained frame network.
        frames: what to learn from.
        steps: training steps.
        batch_size: frames a step.
    """
    torch.manual_seed(0)
    model = RTDetrForObjectDetection(_detector_config())
    trained = ResNetForImageClassification.from_pretrained(frame_network)
    model.model.backbone.model.load_state_dict(trained.resnet.state_dict())
    head = nn.Linear(WIDTH, LOOKS)

    def loss_of(batch: DrawnFrames) -> Tensor:
        low, high = batch.boxes.split(2, dim=-1)
        boxes = torch.cat([(low + high) / 2, high - low], -1)  # centre and size, as DETR speaks
        labels = [{"class_labels": kind, "boxes": box} for kind, box in zip(batch.shapes, boxes, strict=True)]
        output = model(_pixels(batch), labels=labels)
        owner, found = on_queries(output.pred_boxes.detach(), batch)
        return output.loss + _look_loss(head(output.last_hidden_state), owner, found, batch)

    _train("object network", nn.ModuleList([model, head]), loss_of, frames, steps, batch_size, peak=2e-3)
    _save(folder, model, RTDetrImageProcessorPil(do_resize=False, do_normalize=False, do_pad=False))


def frame_targets(frames: DrawnFrames) -> Tensor:
    """Which action, by which shape, before which backdrop: (F, 24) of 0 and 1, the last eight 0 while it is hidden."""
    action, actor = frames.actions.max(dim=1)
    shape = frames.shapes.gather(1, actor[:, None])[:, 0]
    shown = (action, torch.where(action >= 0, shape, -1), frames.environment)
    return torch.cat([F.one_hot(value + 1, NUM_VALUES + 1)[:, 1:] for value in shown], dim=1).float()


def on_objects(feature_map: Tensor, frames: DrawnFrames) -> tuple[Tensor, Tensor]:
    """For each place of a map (B, C, h, w): the object it lies on, and whether it lies on any. Both (B, h * w)."""
    height, width = feature_map.shape[-2:]
    y, x = (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width
    place = torch.cartesian_prod(y, x).flip(-1)[None, :, None]  # (1, h * w, 1, 2), as (x, y)
    box = frames.boxes[:, None]  # (B, 1, N, 4)
    inside = ((place > box[..., :2]) & (place < box[..., 2:])).all(-1)
    return inside.float().argmax(-1), inside.any(-1)


def on_queries(boxes: Tensor, frames: DrawnFrames) -> tuple[Tensor, Tensor]:
    """For each predicted box (B, Q, 4) as centre and size: the object it covers best, and whether by more than 0.4."""
    half = boxes[..., 2:] / 2
    corners = torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], -1)
    best, owner = box_iou(corners[:, :, None], frames.boxes[:, None]).max(-1)
    return owner, best > 0.4


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes xyxy, (..., 4) each, broadcast against one another.

    Example:
        >>> box_iou(torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([0.5, 0.0, 1.5, 1.0])).item()
        0.3333333432674408
    """
    inside = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    area_a, area_b = ((box[..., 2:] - box[..., :2]).prod(-1) for box in (a, b))
    return inside / (area_a + area_b - inside)


def box_quality(store: FeatureStore, truths: dict[str, ClipTruth]) -> dict[str, float]:
    """How well detected regions fit the true ones: mean best IoU, percent found (IoU > 0.5), percent named right."""
    best, right = [], []
    for video in store.get_many(truths):
        truth = truths[video.video_id]
        frames, found = frame_numbers(video.timestamps_s, truth), video.object_mask
        assert found is not None and video.object_boxes is not None and video.object_labels is not None
        overlap = box_iou(video.object_boxes[:, :, None], torch.from_numpy(truth.boxes[frames])[:, None])
        overlap, which = (overlap * found[:, :, None]).max(1)  # (T, true objects)
        best.append(overlap)
        right.append(video.object_labels.gather(1, which) == torch.from_numpy(truth.classes))
    overlaps = torch.cat(best)
    share = 100 * (overlaps > 0.5).float().mean()
    named = 100 * torch.cat(right).float().mean()
    return {"mean IoU": float(overlaps.mean()), "found": float(share), "named": float(named)}


def frame_numbers(times_s: Tensor, truth: ClipTruth) -> np.ndarray:
    """Which frame of the film is shown at these seconds."""
    return (times_s.double().numpy() * truth.fps + 1e-4).astype(int)


def _look_loss(logits: Tensor, owner: Tensor, there: Tensor, frames: DrawnFrames) -> Tensor:
    """Cross-entropies of shape, colour and action of the objects that rows (B, S, 25) look at."""
    if not there.any():
        return logits.sum() * 0
    weight = torch.ones(NUM_VALUES + 1)
    weight[0] = IDLE_WEIGHT
    shape, colour, action = logits[there].split([NUM_VALUES, NUM_VALUES, NUM_VALUES + 1], dim=-1)
    truth = (values.gather(1, owner)[there] for values in (frames.shapes, frames.colours, frames.actions + 1))
    losses = (F.cross_entropy(shape, next(truth)), F.cross_entropy(colour, next(truth)))
    return losses[0] + losses[1] + F.cross_entropy(action, next(truth), weight=weight)


def _resnet(**options: Any) -> ResNetConfig:
    return ResNetConfig(
        embedding_size=WIDTHS[0], hidden_sizes=list(WIDTHS), depths=[1] * 4, layer_type="basic", **options
    )


def _detector_config() -> RTDetrConfig:
    return RTDetrConfig(
        backbone_config=_resnet(out_features=[f"stage{DETECTED_FROM + 1}"]), freeze_backbone_batch_norms=False,
        encoder_in_channels=[WIDTHS[DETECTED_FROM]], feat_strides=[16], encoder_hidden_dim=WIDTH, encoder_layers=0,
        encode_proj_layers=[0], num_feature_levels=1, decoder_in_channels=[WIDTH], d_model=WIDTH, decoder_layers=2,
        decoder_attention_heads=4, decoder_ffn_dim=2 * WIDTH, num_queries=NUM_QUERIES, num_denoising=0,
        id2label=dict(enumerate(CLASSES)),
    )  # fmt: skip


def _train(
    name: str, model: nn.Module, loss_of: Callable[[DrawnFrames], Tensor], frames: DrawnFrames,
    steps: int, batch_size: int, peak: float,
) -> None:  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps, pct_start=0.15)
    model.train()
    bar = trange(steps, desc=f"train {name}", unit="step")
    for step in bar:
        loss = loss_of(frames[torch.randint(0, len(frames), (batch_size,))])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 10 == 0:
            bar.set_postfix(loss=f"{loss.item():.2f}")


def _pixels(frames: DrawnFrames) -> Tensor:
    return frames.pixels.float() / 255


def _rows(feature_map: Tensor) -> Tensor:
    return feature_map.flatten(2).transpose(1, 2)  # (B, h * w, C)


def _save(folder: Path, model: PreTrainedModel, processor: Any) -> None:
    with whole_folder(folder) as partial:
        model.eval().save_pretrained(partial)
        processor.save_pretrained(partial)
