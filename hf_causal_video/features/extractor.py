"""One clip to features, as a feature set was made."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from hf_causal_video.features.decode import decode_video, pictures, sample_instants
from hf_causal_video.features.encoders import LAYERS, FrameEncoder, ObjectEncoder
from hf_causal_video.features.networks import find_network
from hf_causal_video.features.store.reader import Provenance, VideoFeatures
from hf_causal_video.features.words import WordEncoder, is_word_layer
from hf_causal_video.utils.errors import require

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)


@dataclass
class PictureClip:
    """Hold a decoded clip of T frames.

    Args:
        name: video id.
        frames: T arrays (height, width, 3) RGB uint8.
        times_s: (T,) seconds.
        missing: frames that the sampling looks at and the clip does not have.
    """

    name: str
    frames: list[np.ndarray]
    times_s: Tensor
    missing: int = 0


@dataclass
class PreparedClip:
    """Hold a clip of T frames as inputs of the networks.

    Args:
        name: video id.
        times_s: (T,) seconds.
        frames: inputs of the frame encoder, each (T, ...).
        objects: inputs of the object encoder; None without one.
    """

    name: str
    times_s: Tensor
    frames: dict[str, Tensor]
    objects: dict[str, Tensor] | None


class VideoFeatureExtractor:
    """Turn one clip into features, the way a feature set was made.

    Args:
        frames: encoder of whole frames.
        objects: encoder of object regions; None for frames only.
        sampling: instants to look at, see `decode_video`.

    Example:
        >>> VideoFeatureExtractor.from_provenance({"frame_model": "no/such"})
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: invalid provenance: ...
    """

    def __init__(
        self, frames: FrameEncoder | WordEncoder, objects: ObjectEncoder | None = None, sampling: str = "uniform-16"
    ):
        sample_instants(sampling, 1.0)
        self.frames = frames
        self.objects = objects
        self.sampling = sampling

    @classmethod
    def from_provenance(
        cls,
        provenance: Provenance | dict,
        device: str = "cpu",
        frame_model: str | None = None,
        object_model: str | None = None,
        checkpoint: str | Path | None = None,
        commit: str | None = None,
    ) -> VideoFeatureExtractor:
        """Build the extractor that made a feature set, or that a checkpoint was trained on.

        Args:
            provenance: of the feature set.
            device: where to compute.
            frame_model, object_model: where the same networks lie now, if local folders have moved.
            checkpoint: folder or Hub id of the model that carries this provenance; networks are looked for in and
                around it.
            commit: of the repository, if the checkpoint is a Hub id.

        Raises:
            CausalVideoError: the features do not come from pixels, or a network is absent or not the same.
        """
        card = provenance if isinstance(provenance, Provenance) else Provenance.from_dict(provenance)
        made = card.created_with
        is_ours = card.frame_layer in LAYERS or is_word_layer(card.frame_layer)
        what = "these features were not extracted from frames by this package"
        problem = f"{card.frame_model}, layer {card.frame_layer!r}"
        fix = "pass precomputed features, or train on features from `hf-causal-video extract`"
        require(is_ours, what, found=problem, expected=f"a layer of {', '.join(LAYERS)}", fix=fix)
        dtype = made.get("dtype", "float32")
        frame_model = frame_model or find_network(
            card.frame_model, card.frame_revision, checkpoint, "--frame-model (frame_model=...)", commit
        )
        frames: FrameEncoder | WordEncoder
        if is_word_layer(card.frame_layer):
            frames = WordEncoder.from_provenance(card, frame_model, device)
        else:
            frames = FrameEncoder(frame_model, card.frame_layer, card.frame_revision, device, dtype)
        objects = None
        if card.has_objects:
            object_model = object_model or find_network(
                card.object_model or "", card.object_revision, checkpoint, "--object-model (object_model=...)", commit
            )
            objects = ObjectEncoder(
                object_model, card.num_objects, made.get("object_threshold", 0.0), card.object_revision, device, dtype
            )
        return cls(frames, objects, card.sampling)

    @classmethod
    def of_model(
        cls, model: PreTrainedModel, frame_model: str | None = None, object_model: str | None = None
    ) -> VideoFeatureExtractor:
        """Build the extractor of the features that a model was trained on, on the model's device.

        Args:
            model: a model whose config has `feature_provenance`.
            frame_model, object_model: where its networks lie; by default they are looked for, see `find_network`.

        Raises:
            CausalVideoError: a model that does not say which features those are, and as in `from_provenance`.
        """
        problem = "a checkpoint that does not say which features it was trained on"
        fix = "pass features, or a VideoFeatureExtractor of your own"
        card = model.config.feature_provenance
        require(card is not None, "clip", found=problem, expected="feature_provenance in its config", fix=fix)
        return cls.from_provenance(
            card,
            str(model.device),
            frame_model,
            object_model,
            checkpoint=getattr(model, "name_or_path", None) or None,
            commit=getattr(model.config, "_commit_hash", None),
        )

    @property
    def provenance(self) -> Provenance:
        """Provenance of the features of this extractor."""
        import av
        import PIL
        import transformers

        created: dict[str, str | float] = {
            "dtype": self.frames.dtype,
            "decoder": f"av {av.__version__}",
            "pillow": PIL.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }
        if isinstance(self.frames, WordEncoder):
            created["label_words"] = self.frames.text.model_name
        if self.objects is not None:
            created["object_threshold"] = self.objects.threshold
        frames = self.frames
        objects = self.objects
        return Provenance(
            frame_model=frames.model_name,
            frame_revision=frames.revision,
            frame_layer=frames.layer,
            frame_dim=frames.dim,
            object_model=objects.model_name if objects else None,
            object_revision=objects.revision if objects else None,
            object_layer=objects.layer if objects else None,
            object_dim=objects.dim if objects else None,
            num_objects=objects.num_objects if objects else 0,
            sampling=self.sampling,
            created_with=created,
        )

    def __call__(
        self, video: str | Path | Sequence | np.ndarray, timestamps_s: Sequence[float] | None = None
    ) -> tuple[VideoFeatures, list[np.ndarray]]:
        """Give the features of a clip and the frames they show.

        Args:
            video: a path, or T decoded frames (height, width, 3) RGB uint8 (arrays, or PIL images). Each frame of a
                file that has fewer than the sampling looks at is taken once, and a warning says so.
            timestamps_s: seconds; instants to look at for a path (default: the sampling), of the frames otherwise.

        Raises:
            CausalVideoError: the clip does not hold the frames, or decoded frames come without times.
        """
        clip = self.read(video, timestamps_s)
        if clip.missing:
            logger.warning(short_clip_note(str(video), len(clip.frames), clip.missing))
        # through the stored form: a single clip gets the numbers, and the checks, of a feature set
        arrays = self.encode(clip).to_arrays(self.provenance)
        tensors = {column: torch.from_numpy(array) for column, array in arrays.items()}
        return VideoFeatures(clip.name, **tensors), clip.frames

    def read(
        self, video: str | Path | Sequence | np.ndarray, timestamps_s: Sequence[float] | None = None
    ) -> PictureClip:
        """Decode a clip; arguments and errors as of the call. It uses no network, so it may run in another thread."""
        if isinstance(video, str | os.PathLike):
            decoded = decode_video(video, self.sampling if timestamps_s is None else timestamps_s, allow_fewer=True)
            times = torch.from_numpy(decoded.timestamps_s)
            return PictureClip(Path(video).stem, decoded.frames, times, decoded.missing)
        frames = pictures(video)
        times_s = [float(second) for second in timestamps_s] if timestamps_s is not None else []
        problem = f"{len(frames)} frames, {len(times_s)} times"
        fits = len(times_s) == len(frames)
        expected = "one time in seconds for each frame"
        require(fits, "decoded frames without their times", found=problem, expected=expected, fix="pass timestamps_s")
        return PictureClip("clip", frames, torch.tensor(times_s))

    def encode(self, clip: PictureClip) -> VideoFeatures:
        """Turn a decoded clip into features, which whoever stores them checks."""
        objects = self.objects(clip.frames) if self.objects is not None else {}
        return VideoFeatures(clip.name, clip.times_s, self.frames(clip.frames), **objects)

    def prepare(self, clip: PictureClip) -> PreparedClip:
        """Turn the frames of a clip into inputs of the networks, without using these."""
        objects = None if self.objects is None else self.objects.prepare(clip.frames)
        return PreparedClip(clip.name, clip.times_s, self.frames.prepare(clip.frames), objects)

    def encode_together(self, clips: Sequence[PreparedClip]) -> list[VideoFeatures]:
        """Turn several prepared clips into features; those whose inputs have one size share batches."""
        frames = _encode_together(
            lambda inputs: {"frame_features": self.frames.encode(inputs)}, [clip.frames for clip in clips]
        )
        objects: list[dict[str, Tensor]] = [{}] * len(clips)
        if self.objects is not None:
            objects = _encode_together(self.objects.encode, [clip.objects or {} for clip in clips])
        return [
            VideoFeatures(clip.name, clip.times_s, **frame_columns, **object_columns)
            for clip, frame_columns, object_columns in zip(clips, frames, objects, strict=True)
        ]


def _encode_together(
    encode: Callable[[dict[str, Tensor]], dict[str, Tensor]], inputs: list[dict[str, Tensor]]
) -> list[dict[str, Tensor]]:
    """Encode the inputs of several clips, consecutive ones of equal size in common batches."""
    results: list[dict[str, Tensor]] = []
    for _, run in itertools.groupby(inputs, lambda one: {name: value.shape[1:] for name, value in one.items()}):
        clips = list(run)
        counts = [len(next(iter(clip.values()))) for clip in clips]
        joined = {name: torch.cat([clip[name] for clip in clips]) for name in clips[0]}
        columns = {name: values.split(counts) for name, values in encode(joined).items()}
        results += [{name: values[row] for name, values in columns.items()} for row in range(len(clips))]
    return results


def short_clip_note(name: str, count: int, missing: int) -> str:
    """Say that a clip has fewer frames than were asked for.

    Example:
        >>> short_clip_note("clip", 3, 13)
        'clip has 3 of the 16 frames that are looked at; the other 13 are left out'
    """
    return f"{name} has {count} of the {count + missing} frames that are looked at; the other {missing} are left out"
