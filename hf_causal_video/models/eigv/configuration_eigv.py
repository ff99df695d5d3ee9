"""Configuration of EIGV. The official settings are the files in `presets`."""

from typing import Literal

from huggingface_hub.dataclasses import strict

from hf_causal_video.models.igv.configuration_igv import IGVConfig
from hf_causal_video.utils.checks import check_choice, check_number, check_whole
from hf_causal_video.utils.errors import require


@strict
class EIGVConfig(IGVConfig):
    """Configuration of `EIGVForVideoQuestionAnswering`: IGV's, and how samples are mixed and contrasted.

    Multiple choice grounds by the right candidate in training and by the predicted one at test time, so
    `mc_grounding` is "answer". IGV's environment and intervened terms have no place in EIGV's loss and weigh 0.
    `separation_weight` was not studied here and is 0 too.

    Args:
        answer_from: what a question is answered from at test time: the "causal" frames, which are then evidence by
            construction (each candidate from its own); or the whole "clip" (official), where the causal frames need
            not carry the answer. On confounded worlds that model shows the right frames and answers from the scenery.
        lambda1_alpha: Beta parameter of the coefficient of causal scenes, questions and answers.
        lambda2_alpha: Beta parameter of the coefficient of environments.
        lambda_per: one pair of coefficients a "batch" (official) or a "sample".
        mix_question_at: mix "encoded" questions, or "tokens" before the encoder (official over HGA for open answers).
        mixed_length: a mixed question is as long as the longer of the two ("longest"), or as the sample's own, which
            loses the partner's last words ("own", official).
        contrast_weight: weight of the contrastive term.
        contrast_temperature: its temperature.
        contrast_cosine: compare directions; False, official on MSVD-QA over HGA, raw dot products.
        num_negatives: n copies with another causal scene, and n with another question.
        negatives_layout: "paired", or "legacy" official: nearly every anchor meets other samples' negatives.
        question_swap: another question is never the sample's own ("derangement"), or may be ("any", official).
        projection_dim: width of the contrasted vectors.
        answer_every_branch: also answer from contrastive branches, which changes nothing but the running statistics of
            batch norms in the answer head (official over MSPAN).
        output_evidence: with answer_from="clip", ground at test time too; else `forward` does so when asked.

    Example:
        >>> EIGVConfig.preset("official-nextqa-hga").lambda1_alpha
        0.1
    """

    model_type = "eigv"

    # Answers and evidence
    answer_from: Literal["causal", "clip"] = "causal"
    output_evidence: bool = False

    # Fixed: fields of IGV that have no place here
    mc_grounding: Literal["question", "per_candidate", "answer"] = "answer"
    intervened_weight: float | int = 0.0
    separation_weight: float | int = 0.0
    environment_weight: float | int = 0.0

    # Mixing
    lambda1_alpha: float | int = 1.0
    lambda2_alpha: float | int = 1.0
    lambda_per: Literal["batch", "sample"] = "batch"
    mix_question_at: Literal["encoded", "tokens"] = "encoded"
    mixed_length: Literal["longest", "own"] = "longest"

    # Contrast
    contrast_weight: float | int = 0.0125
    contrast_temperature: float | int = 0.1
    contrast_cosine: bool = True
    num_negatives: int = 5
    negatives_layout: Literal["paired", "legacy"] = "paired"
    question_swap: Literal["derangement", "any"] = "derangement"
    projection_dim: int = 1024
    answer_every_branch: bool = False

    def validate_architecture(self) -> None:
        """Refuse settings that cannot run, or that would be ignored."""
        super(IGVConfig, self).validate_architecture()
        self._validate_grounding()
        check_choice("mc_grounding of EIGV", self.mc_grounding, ("answer",), fix="the others belong to IGV")
        idle = {"intervened_weight": self.intervened_weight, "environment_weight": self.environment_weight}
        require(not any(idle.values()), "EIGVConfig", found=idle, expected="0: these terms belong to IGV")
        for name in ("lambda1_alpha", "lambda2_alpha", "contrast_temperature"):
            check_number(name, getattr(self, name), above=0)
        check_whole("num_negatives", self.num_negatives, fix="set contrast_weight=0 to leave the contrast out")
