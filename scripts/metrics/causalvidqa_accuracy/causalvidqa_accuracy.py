"""Accuracy of Causal-VidQA, where an answer counts together with its reason.

For `evaluate.load("scripts/metrics/causalvidqa_accuracy")`; thin over the function of the same name.
"""

import datasets
import evaluate

from hf_causal_video.evaluation import causalvidqa_accuracy

INPUTS = """
Args:
    predictions: one `question_id` and `prediction` (zero-based index) a question.
    references: `question_id`, `video_id`, `question_type` (d, e, p, pr, c, cr) and `answer` of the same questions.
    num_choices: choices of a question, 5 by default.

Returns:
    `d`, `e`, `p`, `pr`, `c`, `cr`, `par`, `car`, `All` and `counts`, in percent; see
        `hf_causal_video.evaluation.causalvidqa_accuracy`.

Raises:
    CausalVideoError: a question unknown, missing or twice, or a video without all six.
"""
FEATURES = datasets.Features(
    {
        "predictions": {"question_id": datasets.Value("string"), "prediction": datasets.Value("int64")},
        "references": {
            "question_id": datasets.Value("string"),
            "video_id": datasets.Value("string"),
            "question_type": datasets.Value("string"),
            "answer": datasets.Value("int64"),
        },
    }
)


class CausalVidQAAccuracy(evaluate.Metric):
    """The metric, as `evaluate` loads it."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Accuracy of Causal-VidQA, where an answer counts together with its reason.",
            citation="Li et al., From Representation to Reasoning: Towards both Evidence and Commonsense "
            "Reasoning for Video Question-Answering, CVPR 2022",
            inputs_description=INPUTS,
            features=FEATURES,
            reference_urls=["https://arxiv.org/abs/2205.14895"],
        )

    def _compute(self, predictions, references, **options):
        return causalvidqa_accuracy(predictions, references, **options)
