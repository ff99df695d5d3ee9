"""Questions joined with the features of their videos, read lazily by video id.

One feature row serves all questions of a video (about nine in NExT-QA), and no split is ever loaded whole: an
item reads its own video when it is asked for.
"""

from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset

from hf_causal_video.features.store import FeatureStore, VideoFeatures
from hf_causal_video.utils.checks import check_whole
from hf_causal_video.utils.errors import require


class VideoQADataset(torch.utils.data.Dataset):
    """A map-style dataset whose items are a question row and the tensors of its video.

    Features keep the stored precision (float16). Train with `remove_unused_columns=False`: the collator needs
    every key.

    Args:
        questions: question rows, as `questions_dataset` or a reader makes them.
        store: features by video id, such as `FeatureStore.open(folder)`.
        num_frames: keep at most this many frames of each video, at the centres of equal stretches; all frames
            if None.

    Raises:
        CausalVideoError: videos without features (named at construction), a num_frames below 1, a video of
            zero frames.

    Example:
        >>> from hf_causal_video.worlds import WorldConfig, generate_world
        >>> world = generate_world(WorldConfig.grounding(), "train", num_clips=4)
        >>> VideoQADataset(world.questions, world.features, num_frames=8)[0]["frame_features"].shape
        torch.Size([8, 64])
    """

    def __init__(self, questions: Dataset, store: FeatureStore, num_frames: int | None = None):
        if num_frames is not None:
            check_whole("num_frames", num_frames)
        video_ids = list(dict.fromkeys(questions["video_id"]))
        missing = [video_id for video_id in video_ids if video_id not in store]
        require(
            not missing,
            "questions about videos without features",
            found=f"{len(missing)} of {len(video_ids)} videos missing: {_some(missing)}",
            expected="features for every video that is asked about",
            fix="extract these videos (hf-causal-video extract resumes), or filter their questions out",
        )
        self.questions = questions
        self.store = store
        self.num_frames = num_frames

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Read a batch: the table once, and each video once however many questions ask about it."""
        columns = self.questions[[int(index) for index in indices]]
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        video_ids = list(dict.fromkeys(row["video_id"] for row in rows))
        videos = {video.video_id: self._tensors(video) for video in self.store.get_many(video_ids)}
        return [row | videos[row["video_id"]] for row in rows]

    def _tensors(self, video: VideoFeatures) -> dict[str, torch.Tensor]:
        total = video.frame_features.shape[0]
        fix = "extract it again; the report of failed files says why it was empty"
        require(total, f"video {video.video_id!r} has no frames", found="0 rows", expected="1 or more", fix=fix)
        frames: slice | torch.Tensor = slice(None)
        if self.num_frames is not None and self.num_frames < total:
            frames = uniform_frames(total, self.num_frames)
        tensors = {
            "timestamps_s": video.timestamps_s[frames],  # (T,)
            "frame_features": video.frame_features[frames],  # (T, C)
        }
        for name in ("object_features", "object_boxes", "object_mask"):
            tensor = getattr(video, name)  # (T, N, C), (T, N, 4), (T, N); all None without objects
            if tensor is not None:
                tensors[name] = tensor[frames]
        return tensors


def uniform_frames(total: int, count: int) -> torch.Tensor:
    """Return the frame indices at the centres of `count` equal stretches of `total` frames, in time order.

    Example:
        >>> uniform_frames(16, 4).tolist()
        [2, 6, 10, 14]
    """
    return ((2 * torch.arange(count) + 1) * total) // (2 * count)


def _some(names: Sequence[str], limit: int = 8) -> str:
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(repr, names[:limit])) + rest
