"""Configuration of EIGV, with the published settings as presets."""

from typing import Any, Literal

from huggingface_hub.dataclasses import strict

from hf_causal_video.models.backbone.presets import released
from hf_causal_video.models.igv.configuration_igv import OFFICIAL as IGV_OFFICIAL
from hf_causal_video.models.igv.configuration_igv import IGVConfig
from hf_causal_video.utils.errors import CausalVideoError

OFFICIAL: dict[str, Any] = {
    **IGV_OFFICIAL,
    "answer_from": "clip",  # the released code does not ground at test time
    "grounding_eval": "argmax",
    "environment_weight": 0.0,
    "negatives_layout": "legacy",
    "question_swap": "any",
    "mixed_length": "own",
    "contrast_weight": 1.0,
}


def eigv(dataset: str, backbone: str, projection: int, **fields: Any) -> dict[str, Any]:
    """A released combination; the projection has the width of its code."""
    return {**OFFICIAL, **released(dataset, backbone), "projection_dim": projection, **fields}


NEXT = {"gumbel_tau": 0.9, "contrast_weight": 0.0125}
PRESETS: dict[str, dict[str, Any]] = {
    "clean": {},
    "official-nextqa-hga": eigv("nextqa", "hga", 1024, **NEXT, lambda1_alpha=0.1),
    "official-nextqa-comem": eigv("nextqa", "comem", 1024, **NEXT, lambda1_alpha=0.1),
    "official-nextqa-mspan": eigv("nextqa", "mspan", 512, **NEXT, answer_every_branch=True),
    "official-msvdqa-hga": eigv("msvdqa", "hga", 1024, mix_question_at="tokens", contrast_cosine=False),
    "official-msvdqa-comem": eigv("msvdqa", "comem", 1024),
    "official-msvdqa-mspan": eigv("msvdqa", "mspan", 512, gumbel_tau=0.9, answer_every_branch=True),
    "official-msrvttqa-hga": eigv(
        "msrvttqa", "hga", 1024, mix_question_at="tokens", lambda1_alpha=2.0, lambda2_alpha=2.0
    ),
    "official-msrvttqa-comem": eigv("msrvttqa", "comem", 1024, contrast_weight=10.0),
    "official-msrvttqa-mspan": eigv("msrvttqa", "mspan", 512, gumbel_tau=0.9, answer_every_branch=True),
}


@strict
class EIGVConfig(IGVConfig):
    """Configuration of `EIGVForVideoQuestionAnswering`: IGV's, and how samples are mixed and contrasted.

    Multiple choice grounds by the right candidate in training and by the predicted one at test time, so
    `mc_grounding` is "answer". IGV's environment and intervened terms have no place in EIGV's loss and weigh 0.

    Args:
        answer_from: what a question is answered from at test time: the "causal" frames, which are then evidence by
            construction (each candidate from its own); or the whole "clip", as released, where the causal frames need
            not carry the answer. On confounded worlds that model shows the right frames and answers from the scenery.
        lambda1_alpha: Beta parameter of the coefficient of causal scenes, questions and answers.
        lambda2_alpha: Beta parameter of the coefficient of environments.
        lambda_per: one pair of coefficients a "batch" (released) or a "sample".
        mix_question_at: mix "encoded" questions, or "tokens" before the encoder (released over HGA for open answers).
        mixed_length: a mixed question is as long as the longer of the two ("longest"), or as the sample's own, which
            loses the partner's last words ("own", as released).
        contrast_weight: weight of the contrastive term.
        contrast_temperature: its temperature.
        contrast_cosine: compare directions; False, as released on MSVD-QA over HGA, raw dot products.
        num_negatives: n copies with another causal scene, and n with another question.
        negatives_layout: "paired", or "legacy" as released: nearly every anchor meets other samples' negatives.
        question_swap: another question is never the sample's own ("derangement"), or may be ("any", as released).
        projection_dim: width of the contrasted vectors.
        answer_every_branch: also answer from contrastive branches, which changes nothing but the running statistics of
            batch norms in the answer head (released over MSPAN).
        output_evidence: with answer_from="clip", ground at test time too; else `forward` does so when asked.

    Example:
        >>> EIGVConfig.preset("official-nextqa-hga").lambda1_alpha
        0.1
    """

    model_type = "eigv"

    answer_from: Literal["causal", "clip"] = "causal"
    mc_grounding: Literal["question", "per_candidate", "answer"] = "answer"
    intervened_weight: float | int = 0.0
    environment_weight: float | int = 0.0
    lambda1_alpha: float | int = 1.0
    lambda2_alpha: float | int = 1.0
    lambda_per: Literal["batch", "sample"] = "batch"
    mix_question_at: Literal["encoded", "tokens"] = "encoded"
    mixed_length: Literal["longest", "own"] = "longest"
    contrast_weight: float | int = 0.0125
    contrast_temperature: float | int = 0.1
    contrast_cosine: bool = True
    num_negatives: int = 5
    negatives_layout: Literal["paired", "legacy"] = "paired"
    question_swap: Literal["derangement", "any"] = "derangement"
    projection_dim: int = 1024
    answer_every_branch: bool = False
    output_evidence: bool = False

    @classmethod
    def presets(cls) -> dict[str, dict[str, Any]]:
        """The named settings of this method."""
        return PRESETS

    def validate_architecture(self) -> None:
        """Refuse settings that cannot run, or that would be ignored."""
        super(IGVConfig, self).validate_architecture()
        self._validate_grounding()
        if self.mc_grounding != "answer" or self.intervened_weight or self.environment_weight:
            raise CausalVideoError(
                "EIGVConfig",
                found=f"mc_grounding={self.mc_grounding!r}, intervened_weight={self.intervened_weight}, "
                f"environment_weight={self.environment_weight}",
                expected="mc_grounding='answer', weights of 0",
                fix="these belong to IGV; leave them out",
            )
        if min(self.lambda1_alpha, self.lambda2_alpha, self.contrast_temperature) <= 0 or self.num_negatives < 1:
            raise CausalVideoError(
                "EIGVConfig",
                found=f"lambda1_alpha={self.lambda1_alpha}, lambda2_alpha={self.lambda2_alpha}, "
                f"contrast_temperature={self.contrast_temperature}, num_negatives={self.num_negatives}",
                expected="numbers above 0",
                fix="set contrast_weight=0 to leave the contrast out",
            )
