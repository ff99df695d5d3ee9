"""Grounded accuracy of NExT-GQA: is the answer right, and right for the right seconds.

For `evaluate.load("scripts/metrics/nextgqa")`; thin over `hf_causal_video.evaluation.nextgqa_metrics`.
"""

import datasets
import evaluate

from hf_causal_video.evaluation import nextgqa_metrics

INPUTS = """
Args:
    predictions: `question_id`, `span` ([start_s, end_s]) and `prediction` (zero-based index) a question.
    references: `question_id`, `spans` ([[start_s, end_s], ...]), `duration_s` and `answer` of the same questions.
    unit: "seconds", or "fraction" of the duration.

Returns:
    `Acc@GQA`, `Acc@QA`, `mIoP`, `IoP@0.3`, `IoP@0.5`, `mIoU`, `IoU@0.3`, `IoU@0.5` and `counts`, in percent;
        see `hf_causal_video.evaluation.nextgqa_metrics`.

Raises:
    CausalVideoError: a question unknown, missing or twice, or a span that is no interval.
"""
FEATURES = datasets.Features(
    {
        "predictions": {
            "question_id": datasets.Value("string"),
            "span": datasets.List(datasets.Value("float64"), length=2),
            "prediction": datasets.Value("int64"),
        },
        "references": {
            "question_id": datasets.Value("string"),
            "spans": datasets.List(datasets.List(datasets.Value("float64"), length=2)),
            "duration_s": datasets.Value("float64"),
            "answer": datasets.Value("int64"),
        },
    }
)


class NextGQA(evaluate.Metric):
    """The metric, as `evaluate` loads it."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Grounded accuracy of NExT-GQA: is the answer right, and right for the right seconds.",
            citation="Xiao et al., Can I Trust Your Answer? Visually Grounded Video Question Answering, CVPR 2024",
            inputs_description=INPUTS,
            features=FEATURES,
            reference_urls=["https://arxiv.org/abs/2309.01327"],
        )

    def _compute(self, predictions, references, **options):
        return nextgqa_metrics(predictions, references, **{"missing": "error", **options})
