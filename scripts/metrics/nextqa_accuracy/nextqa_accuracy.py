"""Accuracy of NExT-QA, multiple choice, overall and by question type.

For `evaluate.load("scripts/metrics/nextqa_accuracy")`; thin over `hf_causal_video.evaluation.nextqa_accuracy`.
"""

import datasets
import evaluate

from hf_causal_video.evaluation import nextqa_accuracy

INPUTS = """
Args:
    predictions: one `question_id` and `prediction` (zero-based index) a question.
    references: `question_id`, `question_type` (CW, CH, TN, TC, TP, DC, DL, DO) and `answer` of the same questions.
    num_choices: choices of a question, 5 by default.

Returns:
    `Acc`, `Acc_C`, `Acc_T`, `Acc_D`, fine types and `counts`, in percent; see
        `hf_causal_video.evaluation.nextqa_accuracy`.

Raises:
    CausalVideoError: a question unknown, missing or twice, an answer that is no choice, or a type NExT-QA
        does not have.
"""
FEATURES = datasets.Features(
    {
        "predictions": {"question_id": datasets.Value("string"), "prediction": datasets.Value("int64")},
        "references": {
            "question_id": datasets.Value("string"),
            "question_type": datasets.Value("string"),
            "answer": datasets.Value("int64"),
        },
    }
)


class NextQAAccuracy(evaluate.Metric):
    """The metric, as `evaluate` loads it."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Accuracy of NExT-QA, multiple choice, overall and by question type.",
            citation="Xiao et al., NExT-QA: Next Phase of Question-Answering to Explaining Temporal Actions, 2021",
            inputs_description=INPUTS,
            features=FEATURES,
            reference_urls=["https://arxiv.org/abs/2105.08276"],
        )

    def _compute(self, predictions, references, **options):
        return nextqa_accuracy(predictions, references, **options)
