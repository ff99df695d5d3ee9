"""One clip to features, in exactly the way a feature set was made."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hf_causal_video.features.decode import decode_video, sample_instants
from hf_causal_video.features.frames import LAYERS, FrameEncoder
from hf_causal_video.features.objects import ObjectEncoder
from hf_causal_video.features.pictures import pictures
from hf_causal_video.features.store.reader import Provenance, VideoFeatures
from hf_causal_video.utils.errors import CausalVideoError


class VideoFeatureExtractor:
    """Turn one clip into features, the way a feature set was made.

    Args:
        frames: encoder of whole frames.
        objects: encoder of object regions; None for frames only.
        sampling: instants to look at, see `decode_video`.

    Example:
        >>> VideoFeatureExtractor.from_provenance({"frame_model": "no/such"})
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: provenance does not have the expected fields: ...
    """

    def __init__(self, frames: FrameEncoder, objects: ObjectEncoder | None = None, sampling: str = "uniform-16"):
        sample_instants(sampling, 1.0)
        self.frames, self.objects, self.sampling = frames, objects, sampling

    @classmethod
    def from_provenance(
        cls,
        provenance: Provenance | dict,
        device: str = "cpu",
        frame_model: str | None = None,
        object_model: str | None = None,
    ) -> VideoFeatureExtractor:
        """Build the extractor that made a feature set, or that a checkpoint was trained on.

        Args:
            provenance: of the feature set.
            device: where to compute.
            frame_model, object_model: where the same networks lie now, if local folders have moved.

        Raises:
            CausalVideoError: the features do not come from pixels, or a network is absent or not the same.
        """
        card = provenance if isinstance(provenance, Provenance) else Provenance.from_dict(provenance)
        made = card.created_with
        if card.frame_layer not in LAYERS:
            raise CausalVideoError(
                "these features were not extracted from frames by this package",
                found=f"{card.frame_model}, layer {card.frame_layer!r}",
                expected=f"a layer of {', '.join(LAYERS)}",
                fix="pass precomputed features, or train on features from `hf-causal-video extract`",
            )
        dtype = made.get("dtype", "float32")
        frames = FrameEncoder(frame_model or card.frame_model, card.frame_layer, card.frame_revision, device, dtype)
        objects = None
        if card.has_objects:
            objects = ObjectEncoder(
                object_model or card.object_model or "",
                card.num_objects,
                made.get("object_threshold", 0.0),
                card.object_revision,
                device,
                dtype,
            )
        return cls(frames, objects, card.sampling)

    @classmethod
    def of_model(cls, model: Any) -> VideoFeatureExtractor:
        """Build the extractor of the features that a model was trained on, on the model's device.

        Args:
            model: a model whose config has `feature_provenance`.

        Raises:
            CausalVideoError: a model that does not say which features those are, and as in `from_provenance`.
        """
        if model.config.feature_provenance is None:
            raise CausalVideoError(
                "clip",
                found="a checkpoint that does not say which features it was trained on",
                expected="feature_provenance in its config",
                fix="pass features, or a VideoFeatureExtractor of your own",
            )
        return cls.from_provenance(model.config.feature_provenance, device=str(model.device))

    @property
    def provenance(self) -> Provenance:
        """Where features of this extractor come from."""
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
        if self.objects is not None:
            created["object_threshold"] = self.objects.threshold
        frames, objects = self.frames, self.objects
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
            video: a path, or T decoded frames (height, width, 3) RGB uint8 (arrays, or PIL images).
            timestamps_s: seconds; instants to look at for a path (default: the sampling), of the frames otherwise.

        Raises:
            CausalVideoError: the clip does not hold the frames, or decoded frames come without times.
        """
        if isinstance(video, str | os.PathLike):
            decoded = decode_video(video, self.sampling if timestamps_s is None else timestamps_s)
            name, frames, times = Path(video).stem, decoded.frames, torch.from_numpy(decoded.timestamps_s)
        else:
            name, frames = "clip", pictures(video)
            if timestamps_s is None or len(timestamps_s) != len(frames):
                raise CausalVideoError(
                    "decoded frames without their times",
                    found=f"{len(frames)} frames, {0 if timestamps_s is None else len(timestamps_s)} times",
                    expected="one time in seconds for each frame",
                    fix="pass timestamps_s",
                )
            times = torch.tensor([float(second) for second in timestamps_s])
        objects = self.objects(frames) if self.objects is not None else {}
        # through the stored form: a single clip gets the numbers, and the checks, of a feature set
        arrays = VideoFeatures(name, times, self.frames(frames), **objects).to_arrays(self.provenance)
        return VideoFeatures(name, **{column: torch.from_numpy(array) for column, array in arrays.items()}), frames
