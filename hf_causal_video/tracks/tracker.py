"""A clip to tracks: frames at an even pace, a detector on each, detections linked.

Why a class: a relation head is only right about tracks that were made as those it learned from. So what made them is
one object with a `provenance`, which a checkpoint carries and from which the same object is built again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hf_causal_video.features.decode import decode_video, instants_with_frames, pictures, sample_instants
from hf_causal_video.features.encoders import ObjectEncoder
from hf_causal_video.features.extractor import short_clip_note
from hf_causal_video.features.networks import find_network
from hf_causal_video.tracks.track import Track, link_detections
from hf_causal_video.utils.errors import require

logger = logging.getLogger(__name__)
CHUNK = 64  # frames that are in memory at a time
OPTIONS = ("sampling", "min_score", "max_gap", "min_frames")
LINKER = "bytetrack"


@dataclass
class TrackedClip:
    """The tracks of a clip and what they refer to; T frames looked at.

    Args:
        tracks: in order of their first frame.
        times_s: (T,) seconds of the frames looked at; tracks count these frames.
        frame_size: width and height in pixels.
        missing: frames that the sampling looks at and a slower clip does not have.
    """

    tracks: list[Track]
    times_s: np.ndarray
    frame_size: tuple[int, int]
    missing: int = 0


class ClipTracker:
    """Find and follow the objects of a clip.

    Args:
        detector: encoder of object regions; its features become the appearance of the tracks.
        sampling: frames to look at, see `decode_video`: at an even pace, "fps-10". Of a clip with fewer frames per
            second, each frame is looked at once, and a warning says so.
        min_score, max_gap, min_frames: see `link_detections`; the gap is in frames looked at.

    Raises:
        CausalVideoError: a sampling that is not an even pace.

    Example:
        >>> ClipTracker.from_provenance({"detector": "no/such", "tracker": "unheard-of"})
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: ...
    """

    def __init__(
        self,
        detector: ObjectEncoder,
        sampling: str = "fps-10",
        min_score: float = 0.5,
        max_gap: int = 15,
        min_frames: int = 2,
    ):
        is_even = sampling.startswith("fps-")
        fix = "objects are followed from frame to frame; say how many frames per second"
        require(is_even, "sampling of tracks", found=sampling, expected="an even pace such as 'fps-10'", fix=fix)
        sample_instants(sampling, 1.0)
        self.detector = detector
        self.sampling = sampling
        self.min_score = min_score
        self.max_gap = max_gap
        self.min_frames = min_frames

    @classmethod
    def from_provenance(
        cls,
        card: Mapping[str, Any],
        detector: str | None = None,
        device: str = "cpu",
        checkpoint: str | Path | None = None,
    ) -> ClipTracker:
        """Build the tracker that a checkpoint was trained with.

        Args:
            card: its `provenance`.
            detector: where the same detector lies now, if a local folder has moved.
            device: where to compute.
            checkpoint: folder of the model that carries this provenance; the detector is looked for in and around it.

        Raises:
            CausalVideoError: tracks that this package did not make, or a detector that is not the same.
        """
        is_ours = card.get("tracker") == LINKER and "detector" in card
        what = "these tracks cannot be made from a clip"
        fix = "pass tracks=..., or clip_tracker=ClipTracker(ObjectEncoder(...))"
        require(is_ours, what, found=dict(card), expected=f"a detector, and tracker {LINKER!r}", fix=fix)
        encoder = ObjectEncoder(
            detector or find_network(card["detector"], card.get("revision"), checkpoint, "--detector (detector=...)"),
            card.get("num_objects", 20),
            card.get("threshold", 0.0),
            card.get("revision"),
            device,
            card.get("dtype", "float32"),
        )
        return cls(encoder, **{name: card[name] for name in OPTIONS if name in card})

    @property
    def provenance(self) -> dict[str, str | float | None]:
        """Provenance of the tracks, for `IVRDConfig.trajectory_provenance`."""
        detector = self.detector
        return {
            "tracker": LINKER,
            "detector": detector.model_name,
            "revision": detector.revision,
            "dtype": detector.dtype,
            "num_objects": detector.num_objects,
            "threshold": detector.threshold,
            **{name: getattr(self, name) for name in OPTIONS},
        }

    def __call__(
        self, video: str | Path | Sequence | np.ndarray, timestamps_s: Sequence[float] | None = None
    ) -> TrackedClip:
        """Track the objects of a clip.

        Args:
            video: a path, or decoded frames (height, width, 3) RGB uint8 at an even pace, with their times.
            timestamps_s: increasing seconds of decoded frames.

        Raises:
            CausalVideoError: the clip cannot be decoded at this pace, or decoded frames come without times.
        """
        if isinstance(video, str | os.PathLike):
            times, missing = instants_with_frames(video, self.sampling)
            if missing:
                logger.warning(short_clip_note(str(video), len(times), missing))
            chunks = (decode_video(video, times[i : i + CHUNK].tolist()).frames for i in range(0, len(times), CHUNK))
        else:
            frames = pictures(video)
            times = np.asarray(timestamps_s, dtype=np.float64)
            missing = 0
            fits = times.shape == (len(frames),) and len(frames) and (np.diff(times) > 0).all()
            problem = f"{len(frames)} frames, times {times.shape}"
            expected = "frames with increasing times, one each"
            require(fits, "decoded frames", found=problem, expected=expected, fix="pass timestamps_s")
            chunks = (frames[i : i + CHUNK] for i in range(0, len(frames), CHUNK))
        parts = []
        sizes: set[tuple[int, int]] = set()
        for chunk in chunks:
            sizes |= {(frame.shape[1], frame.shape[0]) for frame in chunk}
            is_one_size = len(sizes) == 1
            fix = "encode the clip to one"
            require(is_one_size, "frames of several sizes", found=sorted(sizes), expected="one size", fix=fix)
            parts.append(self.detector(chunk))
        detections = {name: np.concatenate([part[name].numpy() for part in parts]) for name in parts[0]}
        tracks = link_detections(
            detections,
            self.detector.model.config.id2label,
            frame_rate=_rate(times),
            max_gap=self.max_gap,
            min_frames=self.min_frames,
            min_score=self.min_score,
        )
        return TrackedClip(tracks, times, sizes.pop(), missing)


def _rate(times: np.ndarray) -> float:
    return float(1 / np.median(np.diff(times))) if len(times) > 1 else 1.0
