"""IVRD: detect relations between tracks as if every predicate had been seen equally often.

Why: predicates have a long tail, and a head trained on it answers with what is frequent. IVRD summarises each
predicate by a prototype and intervenes on subject and object, so that all prototypes are weighed fairly.

Source: Li et al., "Interventional Video Relation Detection", ACM MM 2021; no code is public. *Confirmed*: a BiLSTM
over object trajectories, attention over a dictionary of one prototype a predicate, the back-door sum with uniform
P(z), and L = L_obj + lambda L_pred with cross-entropy on classes and binary cross-entropy on predicates.
*Reconstruction*: box inputs, pooling, the relation reference with 12 numbers of relative geometry, how prototypes
start and move, the two forms of the sum. *Ours*: relative motion at every frame, `mixture`, softmax for one
predicate a pair, and each track counted once in L_obj (not once a pair).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from hf_causal_video.backbones.track_encoder import TrajectoryEncoder
from hf_causal_video.causal.predicate_prior import PredicatePrior
from hf_causal_video.causal.prototypes import LiteralIntervention, PrototypeDictionary, PrototypeMixture
from hf_causal_video.models.base import IGNORED_LABEL, check_width
from hf_causal_video.models.ivrd.configuration_ivrd import IVRDConfig
from hf_causal_video.models.ivrd.motion import common_steps, motion_inputs, relative_geometry, relative_motion
from hf_causal_video.models.ivrd.outputs import VideoRelationOutput
from hf_causal_video.models.processes import mean_over_processes
from hf_causal_video.utils.errors import CausalVideoError

MOTION, RELATIVE, GEOMETRY = 8, 4, 12  # numbers a step of a track, a step of a pair, and a pair


class IVRDForVideoRelationDetection(PreTrainedModel):
    """Classes of tracks and predicates of ordered pairs of tracks, for one segment of a video a row.

    Relation to other methods: IGV and EIGV intervene on frames, IVRD on subject and object of a relation.

    Example:
        >>> config = IVRDConfig(num_object_classes=3, num_predicates=4, hidden_size=8)
        >>> model = IVRDForVideoRelationDetection(config).eval()
        >>> output = model(track_boxes=torch.tensor([0.1, 0.1, 0.5, 0.5]).expand(1, 3, 6, 4))
        >>> output.predicate_logits.shape, output.pair_index.shape, output.object_logits.shape
        (torch.Size([6, 4]), torch.Size([6, 2]), torch.Size([1, 3, 4]))
    """

    config: IVRDConfig
    prototypes: PrototypeDictionary
    intervention: LiteralIntervention | PrototypeMixture
    main_input_name = "track_boxes"
    base_model_prefix = ""
    accepts_loss_kwargs = False  # the loss is a batch mean; the Trainer must not rescale it
    warming_up = False  # training without intervention, until the prototypes are set; the trainer switches it

    def __init__(self, config: IVRDConfig):
        super().__init__(config)
        dim, drop, predicates = config.hidden_size, float(config.hidden_dropout_prob), config.num_predicates

        def mlp(width: int, out: int) -> nn.Sequential:
            return nn.Sequential(nn.Linear(width, dim), nn.ReLU(), nn.Dropout(drop), nn.Linear(dim, out))

        self.track_encoder = TrajectoryEncoder(config.feature_dim + MOTION, dim, config.trajectory_pooling)
        self.object_classifier = mlp(dim, config.num_object_classes + 1)
        width = 2 * dim + GEOMETRY
        if config.relative_motion:
            self.motion_encoder = TrajectoryEncoder(RELATIVE, dim, config.trajectory_pooling)
            width += dim
        self.reference = mlp(width, dim)
        self.prior = PredicatePrior(predicates, config.multi_label)
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
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Torch's own initialisation throughout."""
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()

    def set_predicate_counts(self, counts: Tensor, num_pairs: int) -> None:
        """Set the observed prior: how often each predicate (P,) is annotated among `num_pairs` training pairs."""
        self.prior.set_counts(counts, num_pairs)

    @torch.no_grad()
    def set_prototypes(self, references: Tensor, labels: Tensor) -> None:
        """Start the prototypes from class means, after a warm-up (reconstruction).

        Args:
            references: (R, D) `output.references` of annotated training pairs.
            labels: (R,) predicate indices or (R, P) 0/1; predicates without a pair keep what they have.
        """
        self.prototypes.move(self._comparable(references), self._multi_hot(labels), momentum=0.0)

    def forward(
        self,
        track_boxes: Tensor,
        track_mask: Tensor | None = None,
        track_features: Tensor | None = None,
        track_start: Tensor | None = None,
        pair_index: Tensor | None = None,
        pair_video: Tensor | None = None,
        track_labels: Tensor | None = None,
        predicate_labels: Tensor | None = None,
    ) -> VideoRelationOutput:
        """Judge tracks and pairs.

        Args:
            track_boxes: (B, N, T, 4) xyxy in [0, 1], one step a frame, padding after the real steps.
            track_mask: (B, N, T) bool; a track without any step is padding.
            track_features: (B, N, C) or (B, N, T, C) appearance, where the config has a feature_dim.
            track_start: (B, N) frame of each track's first step; all 0 otherwise.
            pair_index, pair_video: (R, 2) subject and object, (R,) row of the batch; otherwise all ordered pairs of
                tracks that share a frame.
            track_labels: (B, N) object class, C for background, -100 unknown.
            predicate_labels: (R, P) 0/1, or (R,) predicate indices with -100 for unknown (one predicate a pair).

        Raises:
            CausalVideoError: a wrong shape, a gap inside a track, inverted boxes, NaN, pairs of tracks that do not
                exist or share no frame, labels outside the vocabularies.
        """
        boxes, mask, start = self._read_tracks(track_boxes, track_mask, track_start)
        rows, tracks = boxes.shape[:2]
        flat_boxes, flat_mask, flat_start = boxes.flatten(0, 1), mask.flatten(0, 1), start.flatten()
        steps = self._with_features(motion_inputs(flat_boxes, flat_mask), track_features, rows, tracks)
        states = self.track_encoder(steps, flat_mask)  # (B*N, D)
        object_logits = self.object_classifier(states) * flat_mask.any(1, keepdim=True)

        pair_video, pair_index = self._pairs(mask, start, pair_video, pair_index)
        subject, other = (pair_video * tracks + side for side in pair_index.unbind(1))  # (R,) rows of B*N
        where = (flat_boxes, flat_mask, flat_start, subject, other)
        parts = [states[subject], states[other], relative_geometry(*where)]
        if self.config.relative_motion:
            one, two, shared = common_steps(*where)
            parts.append(self.motion_encoder(relative_motion(one, two), shared))
        references = self.reference(torch.cat(parts, 1))  # (R, D)
        predicate_logits, responsibilities = self._judge(references)

        losses = {}
        if track_labels is not None:
            losses["object"] = self._object_loss(object_logits, track_labels.flatten())
        if predicate_labels is not None:
            losses["predicate"] = self._predicate_loss(predicate_logits, predicate_labels)
            if self.training and self.config.uses_prototypes and self.config.prototype_update == "ema":
                labels = self._multi_hot(predicate_labels)
                self.prototypes.move(self._comparable(references.detach()), labels)
        weights = {"object": self.config.object_loss_weight, "predicate": self.config.predicate_loss_weight}
        return VideoRelationOutput(
            loss=torch.stack([weights[name] * value for name, value in losses.items()]).sum() if losses else None,
            losses=losses or None,
            predicate_logits=predicate_logits,
            object_logits=object_logits.unflatten(0, (rows, tracks)),
            pair_index=pair_index,
            pair_video=pair_video,
            references=references,
            responsibilities=responsibilities,
        )

    def _judge(self, references: Tensor) -> tuple[Tensor, Tensor | None]:
        """Predicate logits (R, P) under the prior of this mode, and the share of each prototype."""
        kind = self.config.prior_train if self.training else self.config.prior_eval
        if self.config.intervention in ("nwgm", "exact"):
            # warm-up: prototypes of 0 leave h([r; z]) = W1 r, and every weight in the graph
            prototypes = self.prototypes.vectors * (0.0 if self.warming_up and self.training else 1.0)
            return self.intervention(references, prototypes, self.prior.probabilities(kind))
        if self.warming_up and self.training and self.config.intervention == "mixture":
            kind = "uniform"
        prior = self.prior.logits(kind)
        if not self.config.uses_prototypes:
            return self.predicate_classifier(references) + prior, None
        logits = self.intervention(references, self.prototypes.vectors, prior)
        return logits, logits.detach().softmax(-1)

    def _comparable(self, references: Tensor) -> Tensor:
        """References in the space of the prototypes."""
        judge = self.intervention
        return judge.project(references) if isinstance(judge, PrototypeMixture) else references

    def _multi_hot(self, labels: Tensor) -> Tensor:
        if labels.dim() == 2:
            return labels
        known = labels != IGNORED_LABEL
        return F.one_hot(labels.clamp(min=0), self.config.num_predicates) * known.unsqueeze(1)

    def _read_tracks(self, boxes: Tensor, mask: Tensor | None, start: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        shape = boxes.shape[:-1]
        mask = boxes.new_ones(shape, dtype=torch.bool) if mask is None else mask.bool()
        start = torch.zeros(shape[:2], dtype=torch.long, device=boxes.device) if start is None else start
        if boxes.dim() != 4 or boxes.shape[-1] != 4 or mask.shape != shape or start.shape != shape[:2]:
            raise CausalVideoError(
                "tracks", found=f"boxes {tuple(boxes.shape)}, mask {tuple(mask.shape)}, start {tuple(start.shape)}",
                expected="(B, N, T, 4), (B, N, T), (B, N)", fix="make batches with VideoRelationProcessor",
            )  # fmt: skip
        if not torch.compiler.is_compiling():
            if (mask[..., 1:] & ~mask[..., :-1]).any():
                raise CausalVideoError(
                    "track_mask", found="a gap inside a track", expected="real steps first, then padding",
                    fix="interpolate the gap, or cut the track there",
                )  # fmt: skip
            real = boxes[mask]
            if not real.isfinite().all() or (real[:, 2:] < real[:, :2]).any():
                raise CausalVideoError(
                    "track_boxes", found="NaN or inverted boxes", expected="xyxy with x1 <= x2, y1 <= y2",
                    fix="convert xywh boxes, or mend the tracker",
                )  # fmt: skip
        return boxes.to(self.dtype), mask, start.long()

    def _with_features(self, motion: Tensor, features: Tensor | None, rows: int, tracks: int) -> Tensor:
        """Append the appearance to the motion, (B*N, T, C + 8)."""
        width = self.config.feature_dim
        if (features is None) != (width == 0):
            raise CausalVideoError(
                "track_features", found="none" if features is None else tuple(features.shape),
                expected=f"feature_dim={width}", fix="give the features this model was trained on",
            )  # fmt: skip
        if features is None:
            return motion
        if features.dim() == 3:  # one feature a track
            features = features.unsqueeze(2).expand(-1, -1, motion.shape[1], -1)
        if tracks:
            check_width("track_features", features, 4, width, "extract features as this model was trained")
        if features.shape[:3] != (rows, tracks, motion.shape[1]):
            raise CausalVideoError(
                "track_features", found=tuple(features.shape), expected=(rows, tracks, motion.shape[1], width),
                fix="give a feature for every track, or for every step of it",
            )  # fmt: skip
        return torch.cat([motion, features.flatten(0, 1).to(motion.dtype)], -1)

    def _pairs(self, mask: Tensor, start: Tensor, video: Tensor | None, index: Tensor | None) -> tuple[Tensor, Tensor]:
        """Batch row (R,) and tracks (R, 2) of the pairs to judge."""
        length = mask.sum(-1)  # (B, N)
        end = start + length
        first = torch.maximum(start.unsqueeze(2), start.unsqueeze(1))
        shared = torch.minimum(end.unsqueeze(2), end.unsqueeze(1)) > first  # (B, N, N) overlap in time
        shared &= (length > 0).unsqueeze(2) & (length > 0).unsqueeze(1)
        shared &= ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
        if index is None:
            every = shared.nonzero()
            return every[:, 0], every[:, 1:]
        video = torch.zeros(len(index), dtype=torch.long, device=index.device) if video is None else video
        if index.dim() != 2 or index.shape[1] != 2 or video.shape != index.shape[:1]:
            raise CausalVideoError("pairs", found=f"index {tuple(index.shape)}, video {tuple(video.shape)}",
                                   expected="(R, 2) and (R,)", fix="name subject and object of each pair")  # fmt: skip
        inside = (index >= 0).all(1) & (index < mask.shape[1]).all(1) & (video >= 0) & (video < len(mask))
        if not torch.compiler.is_compiling() and (
            not inside.all() or not shared[video, index[:, 0], index[:, 1]].all()
        ):
            raise CausalVideoError(
                "pairs", found="a pair of tracks that do not exist, are one, or share no frame",
                expected="two tracks of one segment with a common frame", fix="drop such pairs",
            )  # fmt: skip
        return video, index

    def _object_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """L_obj: cross-entropy on classes, the mean over tracks whose class is known."""
        known = labels != IGNORED_LABEL
        logits, labels = logits[known].float(), labels[known]
        _check_labels("track_labels", labels, logits.shape[-1])
        return self._mean(logits.log_softmax(-1).gather(1, labels.unsqueeze(1)))

    def _predicate_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """L_pred, the mean over pairs: cross-entropy on one predicate, or the sum of binary ones over all."""
        wanted = logits.shape if self.config.multi_label else logits.shape[:1]
        if labels.shape != wanted:
            raise CausalVideoError(
                "predicate_labels", found=tuple(labels.shape), expected=tuple(wanted),
                fix="0/1 for every predicate of a pair if multi_label, else one index a pair",
            )  # fmt: skip
        if self.config.multi_label:
            if not torch.compiler.is_compiling() and not ((labels == 0) | (labels == 1)).all():
                raise CausalVideoError(
                    "predicate_labels", found="other values", expected="0 and 1", fix="mend the labels",
                )  # fmt: skip
            return self._mean(F.logsigmoid(logits.float() * (2 * labels.float() - 1)))
        known = labels != IGNORED_LABEL
        logits, labels = logits[known].float(), labels[known]
        _check_labels("predicate_labels", labels, logits.shape[-1])
        return self._mean(logits.log_softmax(-1).gather(1, labels.unsqueeze(1)))

    def _mean(self, log_p: Tensor) -> Tensor:
        """-(1 - p)^gamma log p summed over columns, the mean over rows (0 of none); log_p (rows, columns).

        Of several processes in training, a row of each weighs the same: the mean of their means is that over all rows.
        """
        gamma = float(self.config.focal_gamma)
        terms = -log_p if gamma == 0 else -log_p * (1 - log_p.exp()) ** gamma
        rows = log_p.new_tensor(float(len(terms)))
        rows = mean_over_processes(rows) if self.training else rows
        return terms.sum() / rows.where(rows > 0, 1)


def _check_labels(name: str, labels: Tensor, count: int) -> None:
    if not torch.compiler.is_compiling() and ((labels < 0) | (labels >= count)).any():
        raise CausalVideoError(name, found=labels.unique().tolist()[:9], expected=f"indices 0..{count - 1}, or -100",
                               fix="check the labels against the vocabulary of the config")  # fmt: skip
