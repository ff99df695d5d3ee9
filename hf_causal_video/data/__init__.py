"""Question rows, readers of the public sets, the confounded world, and the way from rows to batches."""

from hf_causal_video.data.collator import VideoQACollator
from hf_causal_video.data.dataset import VideoQADataset
from hf_causal_video.data.nextqa import read_nextgqa, read_nextqa, video_folds
from hf_causal_video.data.rows import QUESTION_FEATURES, questions_dataset
from hf_causal_video.data.world import WorldClips, draw_clips, world_questions
from hf_causal_video.data.world_config import ANSWERS, SPLITS, WorldConfig
from hf_causal_video.data.world_features import WorldSplit, generate_world
from hf_causal_video.data.world_text import tiny_text_config, world_tokenizer

__all__ = [
    "ANSWERS",
    "QUESTION_FEATURES",
    "SPLITS",
    "VideoQACollator",
    "VideoQADataset",
    "WorldClips",
    "WorldConfig",
    "WorldSplit",
    "draw_clips",
    "generate_world",
    "questions_dataset",
    "read_nextgqa",
    "read_nextqa",
    "tiny_text_config",
    "video_folds",
    "world_questions",
    "world_tokenizer",
]
