"""What the NExT-QA caption benchmark feeds to a model: sentence vectors of seconds and texts, and their cosines.

Why cosines: captions, questions and choices come from one sentence encoder, and a few thousand questions do not teach
a network to compare sentences. Why whitened: raw captions all resemble each other ("The image showcases ..."), so
their cosines mostly tell how much a text sounds like a caption. Mean and covariance are taken from training videos and
training questions alone, and without labels. The powers of the variance lie between none (0) and full whitening (0.5),
which blows up noise.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_causal_video.data import VideoQADataset
from hf_causal_video.data.dataset import uniform_frames

CHANNELS = ("choice, second", "question + choice, second", "choice, question", "question + choice, question")
FRAME_POWER, TEXT_POWER = 0.25, 0.15


class Texts(NamedTuple):
    """Unit vectors of questions (n, C), of their choices alone and of question and choice as one text (n, A, C)."""

    question: Tensor
    choice: Tensor
    statement: Tensor


class Whitening(NamedTuple):
    """An affine map to unit vectors whose directions are more alike in spread."""

    mean: Tensor
    matrix: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """(..., C) to unit vectors (..., C)."""
        return F.normalize((x.float() - self.mean) @ self.matrix, dim=-1)


def fit_whitening(x: Tensor, power: float) -> Whitening:
    """Fit on rows (n, C): subtract their mean and divide each principal direction by its variance to the `power`.

    Example:
        >>> whiten = fit_whitening(torch.randn(100, 3) * torch.tensor([9.0, 1.0, 1.0]) + 5, 0.5)
        >>> whiten(torch.full((1, 3), 6.0)).norm().item().__round__(4)
        1.0
    """
    x = x.double()
    mean = x.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((x - mean).T))
    scale = (values.clamp(min=0) + 1e-4) ** -power
    return Whitening(mean.float(), ((vectors * scale) @ vectors.T).float())


class Preparation:
    """Everything that is fitted before training, on training questions and their videos only.

    Args:
        dataset: the training questions with their frames.
        texts: sentence vectors by question id.
    """

    def __init__(self, dataset: VideoQADataset, texts: Mapping[str, Texts]):
        table = dataset.questions
        videos = dict(zip(table["video_id"], range(len(table)), strict=True))  # one item a video
        frames = torch.cat([dataset[row]["frame_features"] for row in videos.values()]).float()
        rows = [texts[key] for key in table["question_id"]]
        self.frames = fit_whitening(frames, FRAME_POWER)
        statements = torch.cat([row.statement for row in rows])
        spread = fit_whitening(statements, TEXT_POWER).matrix
        self.statement = Whitening(statements.mean(0), spread)
        self.choice = Whitening(torch.cat([row.choice for row in rows]).mean(0), spread)
        self.question = Whitening(torch.stack([row.question for row in rows]).mean(0), spread)
        self.mean, self.deviation = torch.zeros(len(CHANNELS)), torch.ones(len(CHANNELS))
        items = (dataset[row] for row in range(len(table)))
        cosines = [self(item["frame_features"], texts[item["question_id"]])["similarities"] for item in items]
        together = torch.cat([one.flatten(0, 1) for one in cosines])
        self.mean, self.deviation = together.mean(0), together.std(0)

    def __call__(self, frames: Tensor, text: Texts, blind: bool = False) -> dict[str, Tensor]:
        """Model inputs of one question: frames (T, C), question (1, C), choices (A, C), similarities (A, T, S).

        Vectors are scaled to unit variance a component. `blind` hides the video: what depends on seconds is zero.
        """
        seconds = self.frames(frames)  # (T, C)
        question, choice = self.question(text.question), self.choice(text.choice)  # (C,), (A, C)
        statement = self.statement(text.statement)  # (A, C)
        still = torch.stack([choice @ question, statement @ question], -1).unsqueeze(1)  # (A, 1, 2)
        moving = torch.stack([choice @ seconds.T, statement @ seconds.T], -1)  # (A, T, 2)
        cosines = torch.cat([moving, still.expand(-1, len(seconds), -1)], -1)  # (A, T, S)
        cosines = (cosines - self.mean) / self.deviation
        if blind:
            seconds, cosines = torch.zeros_like(seconds), cosines * torch.tensor([0.0, 0.0, 1.0, 1.0])
        scale = seconds.shape[-1] ** 0.5
        return {
            "frame_features": seconds * scale,
            "question_features": question.unsqueeze(0) * scale,
            "choice_features": statement * scale,
            "choices_alone": choice * scale,
            "similarities": cosines,
        }


class CosineDataset(torch.utils.data.Dataset):
    """Questions as model inputs, made once and held.

    Args:
        dataset: question rows with frames.
        texts: sentence vectors by question id.
        prepare: fitted on training questions.
        blind: hide the video.
        similarities: give the cosines.
        other_video: take the frames of the next video in the order of ids, which is never the question's own.
    """

    def __init__(
        self,
        dataset: VideoQADataset,
        texts: Mapping[str, Texts],
        prepare: Preparation,
        blind: bool = False,
        similarities: bool = True,
        other_video: bool = False,
    ):
        videos = sorted(set(dataset.questions["video_id"]))
        following = dict(zip(videos, videos[1:] + videos[:1], strict=True))
        self.items = []
        for index in range(len(dataset)):
            row = dataset[index]
            frames, times = row["frame_features"], row["timestamps_s"]
            if other_video:
                video = dataset.store[following[row["video_id"]]]
                frames, times = video.frame_features, video.timestamps_s
                if dataset.num_frames is not None and dataset.num_frames < len(frames):
                    picked = uniform_frames(len(frames), dataset.num_frames)
                    frames, times = frames[picked], times[picked]
            inputs = prepare(frames, texts[row["question_id"]], blind)
            if not similarities:
                del inputs["similarities"]
            known = {"question_id": row["question_id"], "video_id": row["video_id"], "labels": row["answer"]}
            self.items.append({**inputs, **known, "timestamps_s": times})

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.items[index]


def collate(items: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """Pad frames and similarities to the longest clip of the batch."""
    frames = [item["frame_features"] for item in items]
    lengths = torch.tensor([len(clip) for clip in frames])
    batch = {
        "frame_features": torch.nn.utils.rnn.pad_sequence(frames, batch_first=True),  # (B, T, C)
        "frame_mask": torch.arange(int(lengths.max())) < lengths.unsqueeze(1),
        "question_features": torch.stack([item["question_features"] for item in items]),
        "choice_features": torch.stack([item["choice_features"] for item in items]),
        "labels": torch.tensor([item["labels"] for item in items]),
    }
    if "similarities" in items[0]:
        by_time = [item["similarities"].transpose(0, 1) for item in items]  # (T, A, S)
        batch["similarities"] = torch.nn.utils.rnn.pad_sequence(by_time, batch_first=True).transpose(1, 2).contiguous()
    return batch
