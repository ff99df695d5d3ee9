"""IVRD: detect relations between tracks as if every predicate had been seen equally often.

Why: predicates have a long tail, and a head trained on it answers with what is frequent. IVRD summarises each
predicate by a prototype and intervenes on subject and object, so that all prototypes are weighed fairly.

    L = w_obj L_obj + w_pred L_pred
    L_obj:  cross-entropy of the class of each track
    L_pred: binary cross-entropy of each predicate of a pair (or cross-entropy of its only one)
    mixture: logits = scale * cos(W r, z_p) + strength * log-odds P(z_p), strength 1 in training, 0 at inference

Source: Li et al., "Interventional Video Relation Detection", ACM MM 2021; no code is public. *Confirmed*: a BiLSTM
over object trajectories, attention over a dictionary of one prototype per predicate, the back-door sum with uniform
P(z), and L = L_obj + lambda L_pred with cross-entropy on classes and binary cross-entropy on predicates.
*Reconstruction*: box inputs, pooling, the relation reference with 12 numbers of relative geometry, how prototypes
start and move, the two forms of the sum. *Ours*: relative motion at every frame, `mixture`, softmax for one
predicate per pair, each track counted once in L_obj (not once per pair), unknown labels, the strength of the prior
and the prior per pair of classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple, logging

from hf_causal_video.backbones.recurrent import Packing
from hf_causal_video.backbones.track_encoder import TrackEncoder
from hf_causal_video.causal.prototypes import (
    LiteralIntervention,
    PredicatePrior,
    PrototypeDictionary,
    PrototypeMixture,
)
from hf_causal_video.models.base import IGNORED_LABEL, CausalVideoPreTrainedModel, check_finite
from hf_causal_video.models.ivrd.configuration_ivrd import IVRDConfig
from hf_causal_video.models.ivrd.motion import (
    common_steps,
    list_pairs,
    motion_inputs,
    relative_geometry,
    relative_motion,
    tracks_that_meet,
)
from hf_causal_video.models.ivrd.outputs import VideoRelationOutput
from hf_causal_video.models.processes import mean_over_processes
from hf_causal_video.utils.errors import require, require_values

MOTION = 8  # numbers per step of a track, per step of a pair, and per pair
RELATIVE = 4
GEOMETRY = 12
PROCESSOR = "make batches with VideoRelationProcessor"
logger = logging.get_logger(__name__)


class IVRDForVideoRelationDetection(CausalVideoPreTrainedModel):
    """Classes of tracks and predicates of ordered pairs of tracks, for one segment of a video per sample.

    Relation to other methods: IGV and EIGV intervene on frames, IVRD on subject and object of a relation.

    Example:
        >>> config = IVRDConfig(num_object_classes=3, num_predicates=4, hidden_size=8)
        >>> model = IVRDForVideoRelationDetection(config).eval()
        >>> output = model(track_boxes=torch.tensor([0.1, 0.1, 0.5, 0.5]).expand(1, 3, 6, 4))
        >>> output.predicate_logits.shape, output.pair_index.shape, output.object_logits.shape
        (torch.Size([1, 6, 4]), torch.Size([1, 6, 2]), torch.Size([1, 3, 4]))
    """

    config: IVRDConfig
    prototypes: PrototypeDictionary
    intervention: LiteralIntervention | PrototypeMixture
    main_input_name = "track_boxes"
    _no_split_modules = ["TrackEncoder", "PrototypeMixture", "LiteralIntervention"]
    warming_up: bool | None = None  # training without intervention until the prototypes are set; a trainer switches it

    def __init__(self, config: IVRDConfig):
        super().__init__(config)
        dim = config.hidden_size
        predicates = config.num_predicates
        dropout = float(config.hidden_dropout_prob)

        def mlp(width: int, out: int) -> nn.Sequential:
            return nn.Sequential(nn.Linear(width, dim), nn.ReLU(), nn.Dropout(dropout), nn.Linear(dim, out))

        self.track_encoder = TrackEncoder(config.feature_dim + MOTION, dim, config.trajectory_pooling)
        self.object_classifier = mlp(dim, config.num_object_classes + 1)
        width = 2 * dim + GEOMETRY
        if config.relative_motion:
            self.motion_encoder = TrackEncoder(RELATIVE, dim, config.trajectory_pooling)
            width += dim
        self.reference = mlp(width, dim)
        classes = config.num_object_classes if config.class_pair_prior else 0
        self.prior = PredicatePrior(predicates, config.multi_label, classes)
        if config.uses_prototypes:
            self.prototypes = PrototypeDictionary(
                predicates, dim, config.prototype_update, float(config.prototype_momentum)
            )
        if config.intervention in ("nwgm", "exact"):
            self.intervention = LiteralIntervention(dim, predicates, config.intervention, config.multi_label)
        elif config.uses_prototypes:
            project = config.intervention == "mixture"
            self.intervention = PrototypeMixture(dim, float(config.similarity_scale), project)
        else:
            self.predicate_classifier = nn.Linear(dim, predicates)
        self._modes_seen: set[bool] = set()
        self.post_init()

    def set_predicate_counts(
        self, counts: Tensor, num_pairs: int, pair_counts: Tensor | None = None, num_class_pairs: Tensor | None = None
    ) -> None:
        """Set the observed prior: how often each predicate (P,) is annotated among `num_pairs` training pairs.

        Args:
            counts, num_pairs: of all pairs.
            pair_counts, num_class_pairs: (C, C, P) and (C, C) per subject and object class, for `class_pair_prior`.
        """
        self.prior.set_counts(counts, num_pairs, pair_counts, num_class_pairs)

    @torch.no_grad()
    def set_prototypes(self, references: Tensor, labels: Tensor) -> None:
        """Start the prototypes from class means, after a warm-up (reconstruction).

        Args:
            references: (R, D) `output.references` of annotated training pairs.
            labels: (R,) predicate indices or (R, P) 0/1, -100 for unknown; predicates without a pair keep theirs.
        """
        self.prototypes.move(self._comparable(references), self._multi_hot(labels), momentum=0.0)

    @can_return_tuple
    def forward(
        self,
        track_boxes: Tensor,
        track_mask: Tensor | None = None,
        track_features: Tensor | None = None,
        track_start: Tensor | None = None,
        pair_index: Tensor | None = None,
        track_classes: Tensor | None = None,
        track_labels: Tensor | None = None,
        predicate_labels: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> VideoRelationOutput:
        """Judge tracks and pairs.

        Args:
            track_boxes: (B, N, T, 4) xyxy in [0, 1], one step per frame, padding after the real steps.
            track_mask: (B, N, T) bool; a track without any step is padding.
            track_features: (B, N, C) or (B, N, T, C) appearance, where the config has a feature_dim.
            track_start: (B, N) frame of each track's first step; all 0 otherwise.
            pair_index: (B, R, 2) subject and object, -100 for padding; otherwise all ordered pairs that share a frame.
            track_classes: (B, N) known object classes for a `class_pair_prior`, -100 unknown; otherwise the labels
                in training, and the classifier's own judgement.
            track_labels: (B, N) object class, C for background, -100 unknown.
            predicate_labels: (B, R, P) 0/1, or (B, R) indices (one predicate per pair); -100 for unknown and padding.
            kwargs: `return_dict`, `output_hidden_states`.

        Raises:
            CausalVideoError: a wrong shape, a gap inside a track, inverted boxes, NaN, invalid pairs or labels.
        """
        record = self._check_kwargs(kwargs)
        boxes, mask, start = self._read_tracks(track_boxes, track_mask, track_start)
        rows, tracks = boxes.shape[:2]
        flat_boxes = boxes.flatten(0, 1)
        flat_mask = mask.flatten(0, 1)
        flat_start = start.flatten()
        steps = self._with_features(motion_inputs(flat_boxes, flat_mask), track_features, rows, tracks)
        track_states = self.track_encoder(steps, flat_mask).unflatten(0, (rows, tracks))  # (B, N, D)
        states = track_states.flatten(0, 1)  # (B*N, D)
        # a track without any step is padding: its logits are 0
        object_logits = self.object_classifier(states) * flat_mask.any(1, keepdim=True)

        # Real pairs alone are judged, those of all samples as one list of n; a graph, whose shapes cannot depend on
        # values, judges padding too and masks it.
        meet = tracks_that_meet(mask, start)  # (B, N, N)
        if pair_index is None:
            pair_index, pair_mask = list_pairs(meet)  # (B, R, 2), (B, R)
        else:
            pair_mask = self._read_pairs(pair_index, meet)
        packing = Packing(pair_mask)
        first = tracks * torch.arange(rows, device=boxes.device).view(-1, 1, 1)  # of B*N tracks, that of each sample
        subject, other = packing.pack(pair_index.clamp(min=0) + first).unbind(1)  # (n,)
        pairs = (flat_boxes, flat_mask, flat_start, subject, other)
        # r = MLP[subject; object; 12 numbers of relative geometry; relative motion]
        parts = [states[subject], states[other], relative_geometry(*pairs)]
        if self.config.relative_motion:
            subject_boxes, other_boxes, shared = common_steps(*pairs)
            parts.append(self.motion_encoder(relative_motion(subject_boxes, other_boxes), shared))
        references = self.reference(torch.cat(parts, 1))  # (n, D)
        classes = self._classes(object_logits, track_classes, track_labels)
        predicate_logits, responsibilities = self._judge(references, classes, subject, other)
        pair_states = packing.pad(references)  # (B, R, D)
        losses = {}
        if track_labels is not None:
            _check_labels("track_labels", track_labels, self.config.num_object_classes + 1)
            losses["object"] = self._object_loss(object_logits, track_labels.flatten())
        if predicate_labels is not None:
            labels = self._read_labels(predicate_labels, packing)
            losses["predicate"] = self._predicate_loss(predicate_logits, labels)
            if self.training and self.config.uses_prototypes and self.config.prototype_update == "ema":
                self.prototypes.move(self._comparable(references.detach()), self._multi_hot(labels))
        weights = {"object": self.config.object_loss_weight, "predicate": self.config.predicate_loss_weight}

        # L = w_obj L_obj + w_pred L_pred
        return VideoRelationOutput(
            loss=torch.stack([weights[name] * value for name, value in losses.items()]).sum() if losses else None,
            losses=losses or None,
            predicate_logits=packing.pad(predicate_logits),
            object_logits=object_logits.unflatten(0, (rows, tracks)),
            pair_index=pair_index,
            pair_mask=pair_mask,
            references=pair_states,
            responsibilities=None if responsibilities is None else packing.pad(responsibilities),
            hidden_states=(track_states, pair_states) if record else None,
        )

    def _judge(
        self, references: Tensor, classes: Tensor | None, subject: Tensor, other: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Predicate logits (R, P) under the prior of this mode, and the share of each prototype."""
        config = self.config
        strength = float(config.prior_train == "frequency") if self.training else config.inference_strength
        self._warn_once(strength)
        warming_up = bool(self.warming_up) and self.training
        if warming_up and config.intervention == "mixture":
            strength = 0.0
        pair = () if classes is None else (classes[subject], classes[other])
        prior = self.prior(strength, *pair)  # (P,) or (R, P)
        if not config.uses_prototypes:
            return self.predicate_classifier(references) + prior, None
        prototypes = self.prototypes()
        if config.intervention in ("nwgm", "exact"):
            # warm-up: prototypes of 0 leave h([r; z]) = W1 r, and every weight in the graph
            probabilities = self.prior(strength, *pair, normalized=True)
            return self.intervention(references, prototypes * float(not warming_up), probabilities)
        logits = self.intervention(references, prototypes, prior)
        return logits, logits.detach().softmax(-1)

    def _warn_once(self, strength: float) -> None:
        """Name what a plain training loop leaves out, at the first batch of each mode alone."""
        if torch.compiler.is_compiling() or self.training in self._modes_seen:
            return
        self._modes_seen.add(self.training)
        rates = self.prior.rates
        if strength and not rates.is_meta and not rates.any():
            logger.warning_once(
                "IVRD has no predicate counts, so its observed prior is uniform and the intervention changes nothing. "
                "Call model.set_predicate_counts(counts, num_pairs) before training."
            )
        warmup = self.config.prototype_warmup if self.config.uses_prototypes else 0
        if self.training and self.warming_up is None and warmup:
            logger.warning_once(
                f"IVRD: prototype_warmup={warmup} needs a trainer that sets model.warming_up and "
                "calls model.set_prototypes (RelationTrainer does); trained without a warm-up."
            )

    def _classes(self, object_logits: Tensor, known: Tensor | None, labels: Tensor | None) -> Tensor | None:
        """Class probabilities (B*N, C) that the prior per pair of classes reads: known ones, else judged ones."""
        if not self.config.class_pair_prior:
            return None
        count = self.config.num_object_classes
        judged = object_logits.detach()[:, :count].softmax(-1)
        known = labels if known is None and self.training else known
        if known is None:
            return judged
        known = known.view(-1, 1)  # (B*N, 1)
        certain = known == torch.arange(count, device=known.device)  # F.one_hot would wait for the device
        return torch.where((known >= 0) & (known < count), certain.to(judged.dtype), judged)

    def _comparable(self, references: Tensor) -> Tensor:
        """References in the space of the prototypes."""
        intervention = self.intervention
        return intervention.project(references) if isinstance(intervention, PrototypeMixture) else references

    def _multi_hot(self, labels: Tensor) -> Tensor:
        """(R,) or (R, P) labels as (R, P) 0/1; unknown ones are 0."""
        if labels.dim() == 2:
            return labels * (labels != IGNORED_LABEL)
        return labels.unsqueeze(1) == torch.arange(self.config.num_predicates, device=labels.device)

    def _read_tracks(self, boxes: Tensor, mask: Tensor | None, start: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        shape = boxes.shape[:-1]
        mask = boxes.new_ones(shape, dtype=torch.bool) if mask is None else mask.bool()
        start = torch.zeros(shape[:2], dtype=torch.long, device=boxes.device) if start is None else start
        fits = boxes.dim() == 4 and boxes.shape[-1] == 4 and mask.shape == shape and start.shape == shape[:2]
        shapes = f"boxes {tuple(boxes.shape)}, mask {tuple(mask.shape)}, start {tuple(start.shape)}"
        require(fits, "tracks", found=shapes, expected="(B, N, T, 4), (B, N, T), (B, N)", fix=PROCESSOR)
        require_values(
            ~(mask[..., 1:] & ~mask[..., :-1]).any(),
            "track_mask",
            found=lambda: "a gap inside a track",
            expected="real steps first, then padding",
        )
        valid = boxes.isfinite().all(-1) & (boxes[..., 2:] >= boxes[..., :2]).all(-1)
        require_values(
            (valid | ~mask).all(),
            "track_boxes",
            found=lambda: "NaN or inverted boxes",
            expected="finite xyxy with x1 <= x2, y1 <= y2",
            fix="convert x, y, width, height boxes, or fix the tracker",
        )
        return boxes.to(self.dtype), mask, start.long()

    def _with_features(self, motion: Tensor, features: Tensor | None, rows: int, tracks: int) -> Tensor:
        """Append the appearance to the motion, (B*N, T, C + 8)."""
        width = self.config.feature_dim
        steps = motion.shape[1]
        shape = (rows, tracks, steps, width)
        if features is not None and features.dim() == 3:  # one feature per track
            features = features.unsqueeze(2).expand(-1, -1, steps, -1)
        fits = features is None if width == 0 else features is not None and features.shape == shape
        problem = "none" if features is None else tuple(features.shape)
        require(fits, "track_features", found=problem, expected=f"feature_dim={width}, {shape if width else 'none'}")
        if features is None:
            return motion
        features = features.flatten(0, 1)
        check_finite("track_features", features)
        return torch.cat([motion, features.to(motion.dtype)], -1)

    def _read_pairs(self, index: Tensor, meet: Tensor) -> Tensor:
        """Which pairs are real, (B, R); `meet` (B, N, N) marks those that may be named."""
        rows, tracks = meet.shape[:2]
        fits = index.dim() == 3 and index.shape[0] == rows and index.shape[2] == 2
        require(fits, "pair_index", found=tuple(index.shape), expected=f"({rows}, R, 2), -100 for padding")
        real = (index >= 0).all(-1)
        inside = (index < tracks).all(-1)
        place = (index[..., 0] * tracks + index[..., 1]).masked_fill(~(real & inside), 0)  # (B, R)
        valid = inside & meet.flatten(1).gather(1, place) if tracks else torch.zeros_like(real)
        require_values(
            (valid | ~real).all(),
            "pair_index",
            found=lambda: "a pair of tracks that do not exist, are the same, or share no frame",
            expected="two tracks of one segment with a common frame",
            fix="drop such pairs",
        )
        return real

    def _read_labels(self, labels: Tensor, packing: Packing) -> Tensor:
        """Labels of the judged pairs, (n, P) or (n,); those of padding are unknown."""
        multi_label = self.config.multi_label
        shape = (*packing.mask.shape, self.config.num_predicates) if multi_label else tuple(packing.mask.shape)
        fix = "0/1 for every predicate of a pair if multi_label, else one index per pair; -100 for unknown"
        require(labels.shape == shape, "predicate_labels", found=tuple(labels.shape), expected=shape, fix=fix)
        labels = labels.unsqueeze(2) if not multi_label else labels  # (B, R, P or 1)
        labels = packing.pack(labels.masked_fill(~packing.mask.unsqueeze(-1), IGNORED_LABEL))
        _check_labels("predicate_labels", labels, 2 if multi_label else self.config.num_predicates)
        return labels if multi_label else labels.squeeze(1)

    def _object_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """L_obj: cross-entropy on classes, the mean over tracks whose class is known."""
        return self._mean(*_log_likelihood(logits, labels))

    def _predicate_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """L_pred, the mean over pairs: cross-entropy on one predicate, or the sum of binary ones over the known."""
        if not self.config.multi_label:
            return self._mean(*_log_likelihood(logits, labels))
        known = labels != IGNORED_LABEL
        # -log sigmoid(x) where the predicate holds, -log sigmoid(-x) where it does not, 0 where unknown
        sign = (2 * labels.float() - 1).masked_fill(~known, 0.0)
        return self._mean(F.logsigmoid(logits.float() * sign), known)

    def _mean(self, log_p: Tensor, known: Tensor) -> Tensor:
        """-(1 - p)^gamma log p summed over known columns, the mean over rows with one (0 of none); (rows, columns).

        With several processes in training, the mean of their means is that over all rows.
        """
        gamma = float(self.config.focal_gamma)
        terms = -log_p if gamma == 0 else -log_p * (1 - log_p.exp()) ** gamma
        rows = known.any(1).to(log_p.dtype).sum()
        rows = mean_over_processes(rows) if self.training else rows
        return (terms * known).sum() / rows.where(rows > 0, 1)


def _check_labels(name: str, labels: Tensor, count: int) -> None:
    valid = (labels == IGNORED_LABEL) | (labels >= 0) & (labels < count) & (labels % 1 == 0)
    require_values(
        valid.all(),
        name,
        found=lambda: labels.unique().tolist()[:9],
        expected=f"0..{count - 1}, or -100 for unknown",
        fix="check the labels against the vocabulary of the config",
    )


def _log_likelihood(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability (n, 1) of the labels, and which of them (n, 1) are known."""
    labels = labels.unsqueeze(1)
    return logits.float().log_softmax(-1).gather(1, labels.clamp(min=0)), labels != IGNORED_LABEL
