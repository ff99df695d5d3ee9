"""Configuration of IGV, with the published settings as presets."""

from typing import Any, Literal

from huggingface_hub.dataclasses import strict

from hf_causal_video.models.backbone import BackboneConfig
from hf_causal_video.models.backbone.presets import released
from hf_causal_video.utils.errors import CausalVideoError, require

# What the released code does and we would not: each is a switch, and together they are the `official-*` presets.
OFFICIAL: dict[str, Any] = {
    "grounding_logits": "prob",
    "grounding_eval": "sample",
    "gumbel_tau": 1.0,
    "empty_side": "all",
    "mask_mode": "drop",
    "zero_sum_padding": True,
    "bank": "dataset",
    "normalize_question": False,
    "environment_weight": 1.0,
    "match_weight": 0.0,
    "match_answers": False,
    "intervention": "frames",
    "intervened_target": "causal",
    "size_weight": 0.0,
    "warmup_share": 0.0,
    "ramp_share": 0.0,
}


def igv_hga(dataset: str, dropout: float) -> dict[str, Any]:
    """HGA as IGV's code builds it: EIGV's, with GRUs."""
    fields = released(dataset, "hga")
    sizes = {"cell": "gru", "word_dim": 512, "dropout": dropout}
    return {**OFFICIAL, **fields, "backbone_config": {**fields["backbone_config"], **sizes}}


PRESETS: dict[str, dict[str, Any]] = {
    "clean": {},
    # The released code covers open answers over HGA; no code of IGV on NExT-QA, or over Co-Mem or MSPAN, was released.
    "official-msvdqa-hga": igv_hga("msvdqa", 0.5),
    "official-msrvttqa-hga": {**igv_hga("msrvttqa", 0.56), "gumbel_tau": 0.9},
}


@strict
class IGVConfig(BackboneConfig):
    """Configuration of `IGVForVideoQuestionAnswering`: a backbone's, and how it grounds.

    Args:
        grounding_logits: what the two sides of a frame compete with: "energy" the two scores, "logprob" their
            log-softmax over frames, "prob" the softmax itself, as released, which bounds P(causal) to [0.27, 0.73] at
            temperature 1 whatever is learned.
        gumbel_tau: temperature of the straight-through Gumbel softmax.
        grounding_eval: the larger side at test time ("argmax"), or Gumbel noise there too ("sample", as released: then
            answers differ from run to run).
        empty_side: a side without frames takes its best one ("best"), or its branch reads a clip of zeros ("all", as
            released).
        zero_sum_padding: leave a frame whose encoded feature sums to exactly 0 out of the softmax over frames
            (released; on normalised features that is decided by rounding).
        mask_mode: branches read the frames of the other side as zeros ("zero"), or drop them ("drop", released:
            then no gradient says that a dropped frame is missed).
        normalize_question: the indicator compares the direction of the question vector, whatever its length; released:
            False.
        bank: where replacement frames come from: the other clips of the batch ("batch"), or `model.bank` ("dataset",
            as released), which a trainer fills with the training videos.
        mc_grounding: multiple choice grounds once a question ("question", which needs the question alone) or for every
            candidate ("per_candidate"). No released code says how IGV does it.
        answer_weight, intervened_weight, environment_weight: weights of the loss terms of equations 7 to 9.
        detach_target: keep the intervened branch from pulling the causal one towards itself. Released: False. The
            indicator then no longer learns from this term.
        match_weight: weight of `causal.matching_loss`: the scores that ground a question must find its clip among the
            others of the batch (of this process), from the first step on. Ours; it breaks the tie between the sides.
        match_answers: the answer takes part in matching (`causal.AnswerScorer`), so that scenery which merely goes
            with the words of questions is not called causal. For open answers, and where a question grounds its
            candidates together.
        intervention: what the intervened branch reads: "surroundings" puts the clip into the environment of one other
            clip of the batch, also where it shows in causal frames (`causal.exchange_surroundings`); "frames", as
            released, puts a frame of any other video at each place of the environment, and leaves causal frames alone.
        intervened_target: what that branch should answer: the "label", or as the "causal" branch does (released).
            Against an environment that is visible in the causal frames too, only the label holds.
        size_weight, size_target: weight and target of (mean P(causal) - target)^2, which keeps the split from
            degenerating.
        warmup_share: share of the training that answers from the whole clip before grounding begins.
        ramp_share: share of the training over which the other terms then grow to their weights.

    `clean` matches, warms up, holds the size of the causal scene and exchanges surroundings: without the first three,
    IGV's objective is symmetric in its two sides, and on a confounded world it has called the environment causal. The
    README of this method says what was measured.

    Example:
        >>> IGVConfig.preset("official-msrvttqa-hga").gumbel_tau
        0.9
    """

    model_type = "igv"

    grounding_logits: Literal["energy", "logprob", "prob"] = "energy"
    gumbel_tau: float | int = 1.0
    grounding_eval: Literal["argmax", "sample"] = "argmax"
    empty_side: Literal["best", "all"] = "best"
    zero_sum_padding: bool = False
    mask_mode: Literal["drop", "zero"] = "zero"
    normalize_question: bool = True
    bank: Literal["batch", "dataset"] = "batch"
    mc_grounding: Literal["question", "per_candidate", "answer"] = "question"
    answer_weight: float | int = 1.0
    intervened_weight: float | int = 1.0
    environment_weight: float | int = 0.2
    detach_target: bool = False
    match_weight: float | int = 1.0
    match_answers: bool = True
    intervention: Literal["surroundings", "frames"] = "surroundings"
    intervened_target: Literal["label", "causal"] = "label"
    size_weight: float | int = 5.0
    size_target: float | int = 0.3
    warmup_share: float | int = 0.1
    ramp_share: float | int = 0.1

    @classmethod
    def presets(cls) -> dict[str, dict[str, Any]]:
        """The named settings of this method."""
        return PRESETS

    def validate_architecture(self) -> None:
        """Refuse settings that cannot run."""
        super().validate_architecture()
        self._validate_grounding()
        if self.mc_grounding == "answer":
            raise CausalVideoError(
                type(self).__name__,
                found="mc_grounding='answer'",
                expected="'question' or 'per_candidate'",
                fix="grounding by the right answer needs it at test time; EIGV can, because it answers first",
            )

    @property
    def matches_answers(self) -> bool:
        """Whether matching has an answer to match: not where every candidate grounds for itself."""
        by_question = self.num_answers is not None or self.mc_grounding == "question"
        return bool(self.match_answers and self.match_weight and by_question)

    def _validate_grounding(self) -> None:
        require(
            self.bank == "batch" or self.intervention == "frames" or not self.intervened_weight,
            type(self).__name__,
            found=f"bank={self.bank!r}, intervention={self.intervention!r}",
            expected="intervention='frames' with a bank, since surroundings are those of a clip of the batch",
            fix="set intervention='frames', or bank='batch'",
        )
        shares = (self.warmup_share, self.ramp_share)
        if self.gumbel_tau <= 0 or min(shares) < 0 or sum(shares) > 1 or not 0 <= self.size_target <= 1:
            raise CausalVideoError(
                type(self).__name__,
                found=f"gumbel_tau={self.gumbel_tau}, warmup_share={self.warmup_share}, "
                f"ramp_share={self.ramp_share}, size_target={self.size_target}",
                expected="a temperature above 0, shares that sum to at most 1, a target in [0, 1]",
                fix="change them",
            )
