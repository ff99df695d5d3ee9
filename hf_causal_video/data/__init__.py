"""Question rows, readers of public benchmarks, and the way from rows to batches."""

from hf_causal_video.data.benchmarks import BENCHMARKS, benchmark_vocabulary, load_benchmark
from hf_causal_video.data.causalvidqa import read_causalvidqa
from hf_causal_video.data.collator import VideoQACollator, video_number
from hf_causal_video.data.custom import QuestionFile, read_questions
from hf_causal_video.data.dataset import VideoQADataset
from hf_causal_video.data.load import load_questions
from hf_causal_video.data.nextqa import read_nextgqa, read_nextqa, read_nextqa_open, video_folds
from hf_causal_video.data.open_ended import (
    build_answer_vocabulary,
    index_answers,
    read_answer_vocabulary,
    read_frameqa,
    read_msrvttqa,
    read_msvdqa,
    read_tgifqa,
)
from hf_causal_video.data.rows import QUESTION_FEATURES, questions_dataset

__all__ = [
    "BENCHMARKS",
    "QUESTION_FEATURES",
    "QuestionFile",
    "VideoQACollator",
    "VideoQADataset",
    "benchmark_vocabulary",
    "build_answer_vocabulary",
    "index_answers",
    "load_benchmark",
    "load_questions",
    "questions_dataset",
    "read_answer_vocabulary",
    "read_causalvidqa",
    "read_frameqa",
    "read_msrvttqa",
    "read_msvdqa",
    "read_nextgqa",
    "read_nextqa",
    "read_nextqa_open",
    "read_questions",
    "read_tgifqa",
    "video_folds",
    "video_number",
]
