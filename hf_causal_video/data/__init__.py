"""Question rows, readers of the public sets, the confounded world, and the way from rows to batches."""

from hf_causal_video.data.benchmarks import BENCHMARKS, benchmark_vocabulary, load_benchmark
from hf_causal_video.data.causalvidqa import read_causalvidqa
from hf_causal_video.data.collator import VideoQACollator, video_number
from hf_causal_video.data.dataset import VideoQADataset
from hf_causal_video.data.nextqa import read_nextgqa, read_nextqa, read_nextqa_open, video_folds
from hf_causal_video.data.open_ended import read_frameqa, read_msrvttqa, read_msvdqa
from hf_causal_video.data.rows import QUESTION_FEATURES, questions_dataset
from hf_causal_video.data.tgifqa import read_tgifqa
from hf_causal_video.data.vocabulary import build_answer_vocabulary, index_answers, read_answer_vocabulary
from hf_causal_video.data.world import WorldClips, draw_clips, world_questions
from hf_causal_video.data.world_config import ANSWERS, SPLITS, WorldConfig
from hf_causal_video.data.world_features import WorldSplit, generate_world
from hf_causal_video.data.world_text import tiny_text_config, world_tokenizer

__all__ = [
    "ANSWERS",
    "BENCHMARKS",
    "QUESTION_FEATURES",
    "SPLITS",
    "VideoQACollator",
    "VideoQADataset",
    "WorldClips",
    "WorldConfig",
    "WorldSplit",
    "benchmark_vocabulary",
    "build_answer_vocabulary",
    "draw_clips",
    "generate_world",
    "index_answers",
    "load_benchmark",
    "questions_dataset",
    "read_answer_vocabulary",
    "read_causalvidqa",
    "read_frameqa",
    "read_msrvttqa",
    "read_msvdqa",
    "read_nextgqa",
    "read_nextqa",
    "read_nextqa_open",
    "read_tgifqa",
    "tiny_text_config",
    "video_folds",
    "video_number",
    "world_questions",
    "world_tokenizer",
]
