"""Configuration of IVRD, with the forms of its intervention and its baselines as presets."""

from typing import Any, Literal

from huggingface_hub.dataclasses import strict

from hf_causal_video.models.configuration import CausalVideoConfig
from hf_causal_video.utils.checks import check_number, check_whole
from hf_causal_video.utils.errors import require

SHARES = ("prior_eval_strength", "prototype_momentum", "prototype_warmup")
LITERAL: dict[str, object] = {"prior_train": "uniform", "prior_eval": "uniform"}
STARTED: dict[str, object] = {"prototype_warmup": 0.1, **LITERAL}  # prototypes from class means, as reconstructed
# "paper" is the back-door sum as the paper states it; without public code there cannot be an "official" preset.
PRESETS: dict[str, dict[str, object]] = {
    "clean": {},
    "paper": {"intervention": "nwgm", **STARTED},
    "paper-exact": {"intervention": "exact", **STARTED},
    "plain": {"intervention": "none", "classifier": "linear", **LITERAL},
    "cosine": {"intervention": "none", "classifier": "cosine", **LITERAL},
    "logit-adjustment": {"intervention": "none", "classifier": "linear"},
    "logit-adjustment-cosine": {"intervention": "none", "classifier": "cosine"},
}


@strict
class IVRDConfig(CausalVideoConfig):
    """Configuration of `IVRDForVideoRelationDetection`.

    Args:
        num_object_classes: classes C of subjects and objects; the classifier has one more, the last, for background.
        num_predicates: P, which is also the number of prototypes.
        feature_dim: width of a track's appearance feature; 0 reads boxes alone.
        hidden_size: model width D, even.
        hidden_dropout_prob: dropout in the heads.
        trajectory_pooling: a track is the two last states of its BiLSTM ("last") or the mean over its steps ("mean").
        relative_motion: a second BiLSTM reads the relative motion of a pair at every common frame. Ours: with the 12
            numbers of relative geometry alone, what happens between start and end is lost.
        intervention: "mixture", the literal "nwgm" or "exact", or "none" (a plain classifier).
        classifier: what judges without an intervention: a "linear" layer, or "cosine" similarity to the prototypes.
        prior_train, prior_eval: P(z) in training and at inference, "frequency" (observed) or "uniform". The
            intervention is the step from one to the other; without an intervention the same two are logit adjustment
            (Menon et al.).
        prior_eval_strength: share of the observed prior that is left at inference, from 0 (uniform) to 1 (observed);
            `prior_eval="frequency"` leaves all of it. Ours: ranking wants some of it, rare predicates want none.
        class_pair_prior: observe the prior per pair of object classes. Ours: what the classes alone suggest is added
            in training and removed by the intervention too, so that the motion is what is left to learn.
        similarity_scale: scale of cosine similarities.
        prototype_update: prototypes are "learned", move as "ema" of class means, or stay "frozen" as set.
        prototype_momentum: mu of "ema".
        prototype_warmup: share of the training steps without intervention, after which the prototypes start from the
            class means of the relation references (reconstruction); 0 keeps their random start.
        multi_label: a pair may have several predicates, or none, judged by a sigmoid each (the public datasets);
            False: exactly one, by softmax (the confounded world).
        focal_gamma: focal loss of VidVRD-II; 0 is plain cross-entropy.
        object_loss_weight, predicate_loss_weight: weights of the two terms; the second is the paper's lambda.
        trajectory_provenance: how the trajectories were made (detector, tracker, thresholds); a number without the
            name of its tracks means nothing.

    Example:
        >>> IVRDConfig.preset("paper").intervention, IVRDConfig().prior_train, IVRDConfig().prior_eval
        ('nwgm', 'frequency', 'uniform')
    """

    model_type = "ivrd"
    keys_to_ignore_at_inference = ["losses", "pair_mask", "references", "responsibilities"]

    num_object_classes: int = 35
    num_predicates: int = 132
    feature_dim: int = 0
    hidden_size: int = 512
    hidden_dropout_prob: float | int = 0.2
    trajectory_pooling: Literal["last", "mean"] = "last"
    relative_motion: bool = True
    intervention: Literal["mixture", "nwgm", "exact", "none"] = "mixture"
    classifier: Literal["linear", "cosine"] = "linear"
    prior_train: Literal["uniform", "frequency"] = "frequency"
    prior_eval: Literal["uniform", "frequency"] = "uniform"
    prior_eval_strength: float | int = 0.0
    class_pair_prior: bool = False
    similarity_scale: float | int = 16.0
    prototype_update: Literal["learned", "ema", "frozen"] = "learned"
    prototype_momentum: float | int = 0.99
    prototype_warmup: float | int = 0.0
    multi_label: bool = True
    focal_gamma: float | int = 0.0
    object_loss_weight: float | int = 1.0
    predicate_loss_weight: float | int = 1.0
    trajectory_provenance: dict | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Name the predicates: `id2label` if passed, else one `LABEL_i` per predicate."""
        if "num_labels" not in kwargs and (self.id2label is None or len(self.id2label) != self.num_predicates):
            self.id2label = {index: f"LABEL_{index}" for index in range(self.num_predicates)}
            self.label2id = None
        if self.id2label is not None and (self.label2id is None or len(self.label2id) != len(self.id2label)):
            self.label2id = {label: int(index) for index, label in self.id2label.items()}
        super().__post_init__(**kwargs)

    @classmethod
    def presets(cls) -> dict[str, dict[str, object]]:
        """Return the forms of the intervention, and its baselines."""
        return PRESETS

    @property
    def inference_strength(self) -> float:
        """Share of the observed prior at inference."""
        return 1.0 if self.prior_eval == "frequency" else float(self.prior_eval_strength)

    @property
    def uses_prototypes(self) -> bool:
        """True if predicates are judged against prototypes."""
        return self.intervention != "none" or self.classifier == "cosine"

    def validate_architecture(self) -> None:
        """Refuse sizes that cannot run, and rates outside their range."""
        for name, least in (("num_object_classes", 1), ("num_predicates", 1), ("hidden_size", 1), ("feature_dim", 0)):
            check_whole(f"IVRD config: {name}", getattr(self, name), least)
        even = self.hidden_size % 2 == 0
        require(even, "IVRD config: hidden_size", found=self.hidden_size, expected="an even number: two directions")
        for name in SHARES:
            check_number(f"IVRD config: {name}", getattr(self, name), 0, 1)
        check_number("IVRD config: focal_gamma", self.focal_gamma, 0)
        check_number("IVRD config: similarity_scale", self.similarity_scale, above=0)
