"""Accuracy of open-ended VideoQA over a vocabulary of answers, overall and by first word.

For `evaluate.load("scripts/metrics/open_ended_accuracy")`; thin over `hf_causal_video.evaluation.open_ended_accuracy`.
"""

import datasets
import evaluate

from hf_causal_video.evaluation import open_ended_accuracy

INPUTS = """
Args:
    predictions: one `question_id` and `prediction` (zero-based index) a question.
    references: `question_id`, `question` and `answer` of the same questions, the index in the vocabulary or
        -1 if it is outside.

Returns:
    `Acc`, `what`, `who`, `how`, `when`, `where`, `other` and `counts`, in percent; see
        `hf_causal_video.evaluation.open_ended_accuracy`.

Raises:
    CausalVideoError: a question unknown, missing or twice.
"""
FEATURES = datasets.Features(
    {
        "predictions": {"question_id": datasets.Value("string"), "prediction": datasets.Value("int64")},
        "references": {
            "question_id": datasets.Value("string"),
            "question": datasets.Value("string"),
            "answer": datasets.Value("int64"),
        },
    }
)


class OpenEndedAccuracy(evaluate.Metric):
    """The metric, as `evaluate` loads it."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Accuracy of open-ended VideoQA over a vocabulary of answers, overall and by first word.",
            citation="Xu et al., Video Question Answering via Gradually Refined Attention, ACM MM 2017",
            inputs_description=INPUTS,
            features=FEATURES,
            reference_urls=["https://dl.acm.org/doi/10.1145/3123266.3123427"],
        )

    def _compute(self, predictions, references, **options):
        return open_ended_accuracy(predictions, references, **options)
