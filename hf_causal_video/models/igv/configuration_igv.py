"""Configuration of IGV. The official settings are the files in `presets`."""

from typing import Literal

from huggingface_hub.dataclasses import strict

from hf_causal_video.models.backbone.configuration_backbone import BackboneConfig
from hf_causal_video.utils.checks import check_choice, check_number
from hf_causal_video.utils.errors import require


@strict
class IGVConfig(BackboneConfig):
    """Configuration of `IGVForVideoQuestionAnswering`: a backbone's, and how it grounds.

    Args:
        grounding_logits: what the two sides of a frame compete with: "logprob" the log-softmax over frames of each
            side, "energy" the two scores themselves, "prob" the softmax (official), which bounds P(causal) to
            [0.27, 0.73] at temperature 1 whatever is learned.
        gumbel_tau: temperature of the straight-through Gumbel softmax.
        grounding_eval: the larger side at test time ("argmax"), or Gumbel noise there too ("sample", official: then
            answers differ from run to run).
        empty_side: a side without frames takes its best one ("best"), or its branch reads a clip of zeros ("all",
            official).
        zero_sum_padding: leave a frame whose encoded feature sums to exactly 0 out of the softmax over frames
            (official; on normalised features that is decided by rounding).
        mask_mode: branches read the frames of the other side as zeros ("zero"), or drop them ("drop", official:
            then no gradient says that a dropped frame is missed).
        normalize_question: the indicator compares the direction of the question vector, whatever its length; official:
            False.
        bank: where replacement frames come from: the other clips of the batch ("batch"), or `model.bank` ("dataset",
            official), which a trainer fills with the training videos.
        mc_grounding: multiple choice grounds once per question ("question", which needs the question alone) or for
            every candidate ("per_candidate"). No official code says how IGV does it.
        answer_weight, intervened_weight, environment_weight: weights of the loss terms of equations 7 to 9.
        detach_target: keep the intervened branch from pulling the causal one towards itself. Official: False. The
            indicator then no longer learns from this term.
        match_weight: weight of `causal.matching_loss`: the scores that ground a question must find its clip among the
            others of the batch (of this process), from the first step on. Ours; it breaks the tie between the sides.
        match_answers: the answer takes part in matching (`causal.AnswerScorer`), so that scenery which merely goes
            with the words of questions is not called causal. For open answers, and where a question grounds its
            candidates together.
        separation_weight: weight of `causal.separation_loss` in the warm-up; it falls to 0 over the ramp. What varies
            from clip to clip in the environment must not vary along in the causal frames. Ours; it tells the cause
            from scenery that fits question and answer alike. Kept to the end it costs accuracy where scenery shows
            in causal frames too.
        intervention: what the intervened branch reads: "surroundings" puts the clip into the environment of one other
            clip of the batch, also where it shows in causal frames (`causal.exchange_surroundings`); "frames"
            (official) puts a frame of any other video at each place of the environment, and leaves causal frames
            alone.
        intervened_target: what that branch should answer: the "label", or as the "causal" branch does (official).
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

    # Grounding
    grounding_logits: Literal["logprob", "energy", "prob"] = "logprob"
    gumbel_tau: float | int = 1.0
    grounding_eval: Literal["argmax", "sample"] = "argmax"
    empty_side: Literal["best", "all"] = "best"
    zero_sum_padding: bool = False
    mask_mode: Literal["drop", "zero"] = "zero"
    normalize_question: bool = True
    mc_grounding: Literal["question", "per_candidate", "answer"] = "question"

    # Intervention
    bank: Literal["batch", "dataset"] = "batch"
    intervention: Literal["surroundings", "frames"] = "surroundings"
    intervened_target: Literal["label", "causal"] = "label"
    detach_target: bool = False

    # Loss terms
    answer_weight: float | int = 1.0
    intervened_weight: float | int = 1.0
    environment_weight: float | int = 0.2
    match_weight: float | int = 1.0
    match_answers: bool = True
    separation_weight: float | int = 1.0
    size_weight: float | int = 5.0
    size_target: float | int = 0.3

    # Schedule
    warmup_share: float | int = 0.1
    ramp_share: float | int = 0.1

    def validate_architecture(self) -> None:
        """Refuse settings that cannot run."""
        super().validate_architecture()
        self._validate_grounding()
        fix = "grounding by the right answer needs it at test time; EIGV can, because it answers first"
        check_choice("mc_grounding of IGV", self.mc_grounding, ("question", "per_candidate"), fix=fix)

    @property
    def matches_answers(self) -> bool:
        """True if matching has an answer to match: not where every candidate grounds for itself."""
        by_question = self.num_answers is not None or self.mc_grounding == "question"
        return bool(self.match_answers and self.match_weight and by_question)

    def _validate_grounding(self) -> None:
        name = type(self).__name__
        fits = self.bank == "batch" or self.intervention == "frames" or not self.intervened_weight
        expected = "intervention='frames' with a bank, since surroundings are those of a clip of the batch"
        require(fits, name, found=f"bank={self.bank!r}, intervention={self.intervention!r}", expected=expected)
        check_number("gumbel_tau", self.gumbel_tau, above=0)
        check_number("size_target", self.size_target, 0, 1)
        for share in ("warmup_share", "ramp_share"):
            check_number(share, getattr(self, share), 0, 1)
        shares = self.warmup_share + self.ramp_share
        require(shares <= 1, name, found=f"warmup_share + ramp_share = {shares}", expected="at most 1")
