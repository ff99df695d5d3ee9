"""IGV: the backbone, and the only change is that the answer rests on the causal frames of the clip.

Why: a network that sees a whole clip learns whatever predicts the answer, the scenery included. IGV splits the clip by
the question into a causal scene c and an environment e, and asks three things of the same backbone:

    c alone answers                          CE(f(c, q), a)                  "answer"
    e alone says nothing                     KL(uniform || f(e, q))          "environment"
    c with another video's e answers alike   KL(f(c, q) || f(c + e', q))     "intervened"; clean: CE(f(c + e', q), a)

Source: Li et al., "Invariant Grounding for Video Question Answering", CVPR 2022 (arXiv 2206.02349), section 3. The
warm start, the "size" and "match" terms, and moving whole surroundings are ours, see `IGVConfig`.
"""

from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.utils import logging

from hf_causal_video.backbones.base import Question, Video
from hf_causal_video.causal import (
    AnswerScorer,
    FrameBank,
    Grounding,
    GroundingIndicator,
    divergence,
    draw_donors,
    exchange_surroundings,
    grounding_logits,
    gumbel_noise,
    keep_causal,
    matching_loss,
    separation_loss,
    split_frames,
    swap_frames,
    uniformity,
)
from hf_causal_video.models.backbone.modeling_backbone import BackboneForVideoQuestionAnswering
from hf_causal_video.models.base import IGNORED_LABEL, answer_loss
from hf_causal_video.models.igv.configuration_igv import IGVConfig
from hf_causal_video.models.inputs import Batch
from hf_causal_video.models.outputs import VideoQAOutput
from hf_causal_video.models.processes import mean_over_processes
from hf_causal_video.utils.checks import check_file
from hf_causal_video.utils.errors import require

logger = logging.get_logger(__name__)
BANK_FILE = "frame_bank.safetensors"

Side = tuple[Tensor, Tensor]  # frames (G, T, E), and those that a branch encodes (G, T)


class IGVForVideoQuestionAnswering(BackboneForVideoQuestionAnswering):
    """Invariant grounding around a backbone.

    Attributes:
        training_progress: share of the training that is over, 0 to 1; a trainer sets it before every step, where
            `warmup_share` or `ramp_share` is not 0. None: no schedule, every term has its full weight.
        bank: frames of the training videos, where `config.bank` is "dataset"; on any device, and not in a checkpoint
            unless `save_pretrained(..., save_bank=True)`.

    Example:
        >>> sizes = {"hidden_dim": 4, "word_dim": 4, "bilinear_dim": 8, "bilinear_chunks": 2, "bilinear_rank": 2}
        >>> config = IGVConfig(text_feature_dim=6, frame_feature_dim=5, num_answers=3, backbone_config=sizes)
        >>> model = IGVForVideoQuestionAnswering(config).eval()
        >>> output = model(frame_features=torch.randn(2, 7, 5), question_features=torch.randn(2, 4, 6))
        >>> output.causal_mask.shape, bool(output.causal_mask.any(1).all())
        (torch.Size([2, 7]), True)
    """

    config: IGVConfig
    config_class = IGVConfig
    own_terms: tuple[str, ...] = ("environment", "intervened")  # loss terms after the warm-up

    def _build(self) -> None:
        dim = self.backbone.question_dim
        answers = AnswerScorer(dim, self.config.num_answers) if self.config.matches_answers else None
        self.indicator = GroundingIndicator(dim, self.config.normalize_question, answers)
        self.training_progress: float | None = None
        self.bank: FrameBank | None = None

    def _predict(self, batch: Batch, output_evidence: bool | None) -> VideoQAOutput:
        """Ground the question, and answer from the causal frames; no other branch is run."""
        question = self._encode(batch.strings)
        split, samples, _ = self._ground(batch, question)
        (logits,) = self._answer_branches(batch, question, [self._side(batch, samples, split, "causal")])
        return self._explained(batch, logits, split)

    def _step(self, batch: Batch, labels: Tensor) -> VideoQAOutput:
        """Compute the output and the loss terms of a training step; a branch whose weight is 0 is not run."""
        share = self._grounding_share()
        if share == 0:
            return self._warm_up(batch, labels)
        config = self.config
        question = self._encode(batch.strings)
        split, samples, terms = self._ground(batch, question, labels=labels)
        # frames and mask of each branch: the clip with the other side left out, or replaced
        sides = {"answer": self._side(batch, samples, split, "causal")}
        if config.environment_weight:
            sides["environment"] = self._side(batch, samples, split, "environment")
        if config.intervened_weight:
            sides["intervened"], possible = self._intervened(batch, samples, split)
        logits = dict(zip(sides, self._answer_branches(batch, question, list(sides.values())), strict=True))

        causal = logits["answer"]
        losses = {"answer": answer_loss(causal, labels), **terms}  # CE(f(c, q), a)
        if "environment" in logits:
            # a lone frame has no environment
            two = None if config.empty_side == "all" else batch.frame_mask[batch.rows].sum(1) > 1
            # KL(uniform || f(e, q))
            losses["environment"] = uniformity(logits["environment"], batch.present, two)
        if "intervened" in logits:
            # A question whose batch holds no other video has nothing to swap in, and leaves this term out.
            swapped = self._by_question(batch, possible)
            if config.intervened_target == "label":
                losses["intervened"] = answer_loss(logits["intervened"], labels.where(swapped, IGNORED_LABEL))
            else:
                # KL(f(c, q) || f(c + e', q))
                target = causal.detach() if config.detach_target else causal
                losses["intervened"] = divergence(target, logits["intervened"], swapped)
        return self._add_losses(self._explained(batch, causal, split), losses, self._weights(losses, share))

    def _warm_up(self, batch: Batch, labels: Tensor) -> VideoQAOutput:
        """Compute the backbone's own step, and matching.

        The size term has weight 0: it keeps the indicator in the graph, for DDP.
        """
        question = self._encode(batch.strings)
        video = self.backbone.encode_video(batch.frames, batch.frame_mask)
        logits = self._logits(batch, self._fuse(question, video, batch.rows[batch.string_samples]))
        _, _, terms = self._ground(batch, question, video, labels)
        losses = {"answer": answer_loss(logits, labels), **terms}
        return self._add_losses(self._whole_clip(batch, logits), losses, self._weights(losses, 0.0))

    def _term_names(self) -> tuple[str, ...]:
        """Return the terms of this config; "separation" is one of the schedule."""
        config = self.config
        scheduled = config.warmup_share + config.ramp_share > 0
        weighted = ("match", *(["separation"] if scheduled else []), *self.own_terms)
        return ("answer", "size", *(name for name in weighted if getattr(config, f"{name}_weight")))

    def _weights(self, losses: dict[str, Tensor], share: float) -> dict[str, float]:
        """Return the weight of each loss term; terms that need a trained backbone grow, separation fades."""
        grown = {"answer": 1.0, "match": 1.0, "separation": 1 - share}
        return {name: grown.get(name, share) * getattr(self.config, f"{name}_weight") for name in losses}

    def _grounding_share(self) -> float:
        """Return the scale of the grounding terms: 0 in the warm-up, then a ramp to 1; 1 without a schedule."""
        config = self.config
        progress = self.training_progress
        if config.warmup_share + config.ramp_share == 0:
            return 1.0
        if progress is None:
            logger.warning_once(
                "training_progress is not set: warmup_share and ramp_share have no effect, every loss term has its "
                "full weight. Set model.training_progress before each step, or train with CausalVideoTrainer."
            )
            return 1.0
        if progress < config.warmup_share:
            return 0.0
        return min(1.0, (progress - config.warmup_share) / config.ramp_share) if config.ramp_share else 1.0

    # ----- grounding: G splits, one per question, or one per candidate where each grounds for itself

    def _asks_question(self) -> bool:
        return self.config.num_answers is None and self.config.mc_grounding == "question"

    def _groundings(self, batch: Batch) -> Tensor:
        """Return the grounding (R,) that each string is scored with."""
        if batch.present is not None and self.config.mc_grounding != "question":
            return torch.arange(len(batch.strings.mask), device=batch.rows.device)
        return batch.string_samples

    def _ground(
        self, batch: Batch, question: Question, video: Video | None = None, labels: Tensor | None = None
    ) -> tuple[Grounding, Tensor, dict[str, Tensor]]:
        """Ground each question; return the split, the sample index (G,) and, given labels, the auxiliary losses."""
        samples = batch.string_samples
        answers = None
        if labels is not None:
            answers = self._answer_vectors(batch, question, labels)
        if batch.question is not None and self._asks_question():
            question = self._encode(batch.question)
            samples = torch.arange(len(batch.rows), device=batch.rows.device)
        if video is None:
            video = self.backbone.encode_video(batch.frames, batch.frame_mask)
        key = self._grounding_key(video, batch.frame_mask)
        split = self._split(question.pooled, key, batch.frame_mask, batch.rows[samples], self.random_inputs.gumbel)
        terms = {} if labels is None else self._terms(batch, split, question.pooled, key, samples, answers)
        return split, samples, terms

    def _answer_vectors(self, batch: Batch, strings: Question, labels: Tensor) -> Tensor | None:
        """Return a vector per right answer (B, H) to match frames with, 0 if unknown; None without a scorer."""
        if self.indicator.answers is None:
            return None
        answers = batch.candidates if batch.present is not None else cast(int, self.config.num_answers)
        index = labels.clamp(0, answers - 1)
        if batch.present is not None:
            samples = torch.arange(len(labels), device=labels.device)
            vectors = self.indicator.answers.vector(strings.pooled[samples * answers + index])
        else:
            vectors = self.indicator.answers.vector(index)
        return vectors * (labels >= 0).unsqueeze(1)

    def _terms(
        self,
        batch: Batch,
        split: Grounding,
        question_embedding: Tensor,
        key: Tensor,
        samples: Tensor,
        answers: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute the auxiliary losses: causal-size penalty, and matching of questions, and answers, with clips."""
        terms = {"size": self._size(split, samples, batch)}
        if self.config.match_weight:
            margins = self.indicator.margins(question_embedding, key, answers)  # (G, V, T)
            video_ids = self._own_ids(batch)[samples]  # (G,)
            terms["match"] = matching_loss(margins, batch.frame_mask, batch.rows[samples], video_ids)
        if self.config.separation_weight and self._grounding_share() < 1:
            frames = batch.frames[batch.rows[samples]]  # (G, T, E)
            terms["separation"] = separation_loss(frames, split.causal, split.environment)
        return terms

    def _split(self, question: Tensor, key: Tensor, mask: Tensor, rows: Tensor, noise: Tensor | None) -> Grounding:
        """Ground questions (G, H) in clips: `rows` (G,) of `key` (V, T, H), whose true frames are `mask` (V, T)."""
        config = self.config
        energies = self.indicator(question, key, rows)  # (G, 2, T), causal first
        mask = mask[rows]
        valid = mask & (key.sum(-1) != 0)[rows] if config.zero_sum_padding else mask
        logits = grounding_logits(energies, valid, config.grounding_logits)
        if noise is None and (self.training or config.grounding_eval == "sample"):
            noise = gumbel_noise(logits)
        return split_frames(logits, mask, float(config.gumbel_tau), noise, config.empty_side)

    def _grounding_key(self, video: Video, mask: Tensor) -> Tensor:
        """Return what the indicator compares a question with, (V, T, H), in the order of the clip's own frames."""
        key = self.backbone.grounding_key(video)
        if video.mask is mask or (not torch.compiler.is_compiling() and _is_view_of_all(video.mask, mask)):
            return key
        # The backbone packed its frames: the i-th true frame of the clip is its own i-th true frame.
        order = (~video.mask).int().sort(dim=1, stable=True).indices  # (V, T')
        place = (mask.long().cumsum(1) - 1).clamp(0, order.shape[1] - 1)  # (V, T)
        index = order.gather(1, place).unsqueeze(-1).expand(-1, -1, key.shape[-1])
        return key.gather(1, index).masked_fill(~mask.unsqueeze(-1), 0.0)

    def _side(self, batch: Batch, samples: Tensor, split: Grounding, side: str) -> Side:
        """Return the frames (G, T, E) of one side of each split, and the mask (G, T) of those that are encoded."""
        rows = batch.rows[samples]
        frames = batch.frames[rows] * getattr(split, side).unsqueeze(-1).to(batch.frames.dtype)
        return frames, batch.frame_mask[rows] if self.config.mask_mode == "zero" else getattr(split, f"chosen_{side}")

    def _size(self, split: Grounding, samples: Tensor, batch: Batch) -> Tensor:
        """Compute (mean P(causal) - target)^2 over all frames of the batch, of all processes together."""
        frames = batch.frame_mask[batch.rows[samples]].sum()
        # a square of a mean: the mean has to be that of the whole batch first
        causal, frames = mean_over_processes(torch.stack([split.probability.float().sum(), frames]))
        return (causal / frames - self.config.size_target).square()

    # ----- intervention: another video's frames in the place of the environment

    def _intervened(self, batch: Batch, samples: Tensor, split: Grounding) -> tuple[Side, Tensor]:
        """Swap the environment of each split for that of other videos; return also which splits (G,) had any."""
        rows = batch.rows[samples]
        if self.config.intervention == "surroundings":
            donors, possible = draw_donors(self._own_ids(batch)[samples])
            mask = batch.frame_mask[rows]
            causal = split.chosen_causal
            environment = split.chosen_environment
            frames = exchange_surroundings(batch.frames[rows], causal, environment, donors)  # (G, T, E)
            return (frames, mask), possible & (mask & ~causal).any(1)
        foreign, possible = self._foreign(batch, self._own_ids(batch)[samples], self.random_inputs.foreign)
        frames = swap_frames(batch.frames[rows], ~split.chosen_causal, foreign)  # (G, T, E)
        return (frames, batch.frame_mask[rows]), possible

    def _by_question(self, batch: Batch, of_groundings: Tensor) -> Tensor:
        """Reduce a flag per grounding (G,) to one per question (B,): all candidates of a question share its clip."""
        return of_groundings.view(len(batch.rows), -1).all(1)

    def _own_ids(self, batch: Batch) -> Tensor:
        """Return the video (B,) of each sample."""
        return batch.rows if batch.video_ids is None else batch.video_ids

    def _foreign(self, batch: Batch, own: Tensor, index: Tensor | None) -> tuple[Tensor, Tensor]:
        """Draw embedded frames (R, T, E) of videos other than `own` (R,) or (R, E), or take those at an index.

        Returns:
            The frames, and which rows (R,) had another video to draw from.
        """
        bank = self._bank(batch)
        possible = own.new_ones(len(own), dtype=torch.bool)
        if index is None:
            index, possible = bank.try_draw(own, batch.frames.shape[1])
        frames = bank.take(index)
        if bank is self.bank:
            frames = self.backbone.embed_frames(frames.to(self.dtype))
        return frames, possible

    def _bank(self, batch: Batch) -> FrameBank:
        if self.config.bank == "batch":
            ids = -1 - torch.arange(len(batch.frames), device=batch.rows.device)  # a clip that no question asks about
            return FrameBank(batch.frames, ids.scatter(0, batch.rows, self._own_ids(batch)), batch.frame_mask)
        problem = "none" if self.bank is None else "no video_ids"
        fix = "set model.bank = FrameBank(frames, video_ids) and pass video_ids, or set bank='batch'"
        fits = self.bank is not None and batch.video_ids is not None
        require(fits, "frame bank", found=problem, expected="frames of the training videos, and their ids", fix=fix)
        return cast(FrameBank, self.bank)

    def save_pretrained(self, save_directory: Any, *args: Any, save_bank: bool = False, **kwargs: Any) -> None:
        """Save the model; `save_bank` also writes the bank, which `load_bank` restores."""
        super().save_pretrained(save_directory, *args, **kwargs)
        if save_bank and self.bank is not None:
            tensors = {"frames": self.bank.frames, "video_ids": self.bank.video_ids, "mask": self.bank.mask}
            stored = {name: part.detach().cpu().contiguous() for name, part in tensors.items() if part is not None}
            save_file(stored, Path(save_directory) / BANK_FILE)

    def load_bank(self, folder: str | Path) -> None:
        """Restore the bank of a checkpoint folder, bit by bit.

        Raises:
            CausalVideoError: a folder that was saved without it.
        """
        fix = "fill model.bank from the training split again, or save with save_bank=True"
        self.bank = FrameBank(**load_file(check_file("frame bank", Path(folder) / BANK_FILE, fix=fix)))

    # ----- answers

    def _answer_branches(self, batch: Batch, question: Question, sides: list[Side]) -> list[Tensor]:
        """Compute the logits (B, A) of every branch, all in one batch."""
        if self.backbone.depends_on_batch:  # the longest clip of a branch affects the others
            video = Video.join([self.backbone.encode_video(*side) for side in sides])
        else:
            frames, chosen = (torch.cat(part) for part in zip(*sides, strict=True))
            video = self.backbone.encode_video(frames, chosen)
        rows = torch.arange(len(question.pooled), device=batch.rows.device).repeat(len(sides))
        groundings = self._groundings(batch)  # (R,)
        each = len(sides[0][0])
        clips = torch.cat([groundings + number * each for number in range(len(sides))])
        joints = self.backbone.fuse_pairs(question, video, rows, clips).chunk(len(sides))
        return [self._logits(batch, joint) for joint in joints]

    def _explained(self, batch: Batch, logits: Tensor, split: Grounding) -> VideoQAOutput:
        """Return the output with its evidence; if each candidate grounds for itself, that of the predicted one."""
        samples = torch.arange(len(logits), device=logits.device)
        if len(split.scores) != len(logits):
            samples = samples * logits.shape[1] + logits.argmax(1)
        split = split.rows(samples)
        return VideoQAOutput(
            logits=logits, frame_scores=split.scores, kept_frames=keep_causal(split), causal_mask=split.chosen_causal
        )


def _is_view_of_all(view: Tensor, mask: Tensor) -> bool:
    return view.shape == mask.shape and view.data_ptr() == mask.data_ptr()
