"""IGV: the backbone, and the only change is that the answer rests on the causal frames of the clip.

Why: a network that sees a whole clip learns whatever predicts the answer, the scenery included. IGV splits the clip by
the question into a causal scene c and an environment e, and asks three things of the same backbone:

    c alone answers                          CE(f(c, q), a)                  "answer"
    e alone says nothing                     KL(uniform || f(e, q))          "environment"
    c with another video's e answers alike   KL(f(c, q) || f(c + e', q))     "intervened"

Source: Li et al., "Invariant Grounding for Video Question Answering", CVPR 2022 (arXiv 2206.02349), section 3. The
warm start and the "size" term are ours, see `IGVConfig`.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hf_causal_video.backbones.base import Question, Video
from hf_causal_video.causal import (
    FrameBank,
    Grounding,
    GroundingIndicator,
    divergence,
    grounding_logits,
    gumbel_noise,
    keep_causal,
    matching_loss,
    split_frames,
    swap_frames,
    uniformity,
)
from hf_causal_video.models.backbone import BackboneForVideoQuestionAnswering
from hf_causal_video.models.backbone.draws import Draws
from hf_causal_video.models.base import answer_loss
from hf_causal_video.models.igv.bank import load_bank as read_bank
from hf_causal_video.models.igv.bank import save_bank as write_bank
from hf_causal_video.models.igv.configuration_igv import IGVConfig
from hf_causal_video.models.inputs import Batch
from hf_causal_video.models.outputs import VideoQAOutput
from hf_causal_video.models.processes import mean_over_processes
from hf_causal_video.utils.errors import CausalVideoError

Side = tuple[Tensor, Tensor]  # frames (G, T, E), and those that a branch encodes (G, T)


class IGVForVideoQuestionAnswering(BackboneForVideoQuestionAnswering):
    """Invariant grounding around a backbone.

    Attributes:
        training_progress: share of the training that is over, 0 to 1; a trainer sets it before every step, where
            `warmup_share` or `ramp_share` is not 0.
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

    def _build(self) -> None:
        self.indicator = GroundingIndicator(self.backbone.question_dim, self.config.normalize_question)
        self.training_progress: float | None = None
        self.bank: FrameBank | None = None

    def _predict(self, batch: Batch, draws: Draws, output_evidence: bool | None) -> VideoQAOutput:
        """Ground the question, and answer from the causal frames; no other branch is run."""
        question = self._encode(batch.strings)
        split, samples, _ = self._ground(batch, question, draws)
        (logits,) = self._answer_branches(batch, question, [self._side(batch, samples, split, "causal")])
        return self._explained(batch, logits, split)

    def _step(self, batch: Batch, labels: Tensor, draws: Draws) -> VideoQAOutput:
        """A training step; a branch whose weight is 0 is not run."""
        share = self._grounding_share()
        if share == 0:
            return self._warm_up(batch, labels, draws)
        config, question = self.config, self._encode(batch.strings)
        split, samples, terms = self._ground(batch, question, draws)
        sides = {"answer": self._side(batch, samples, split, "causal")}
        if config.environment_weight:
            sides["environment"] = self._side(batch, samples, split, "environment")
        if config.intervened_weight:
            sides["intervened"] = self._intervened(batch, samples, split, draws)
        logits = dict(zip(sides, self._answer_branches(batch, question, list(sides.values())), strict=True))

        causal = logits["answer"]
        losses = {"answer": answer_loss(causal, labels), **terms}
        if "environment" in logits:
            two = None if config.empty_side == "all" else batch.frame_mask[batch.rows].sum(1) > 1  # else there is no e
            losses["environment"] = uniformity(logits["environment"], batch.present, two)
        if "intervened" in logits:
            losses["intervened"] = divergence(
                causal.detach() if config.detach_target else causal, logits["intervened"]
            )
        return self._add_losses(self._explained(batch, causal, split), losses, self._weights(losses, share))

    def _warm_up(self, batch: Batch, labels: Tensor, draws: Draws) -> VideoQAOutput:
        """The backbone's own step, and matching. The size term has weight 0: it keeps the indicator in the graph, for
        DDP."""
        question = self._encode(batch.strings)
        video = self.backbone.encode_video(batch.frames, batch.frame_mask)
        logits = self._logits(batch, self._fuse(question, video, batch.rows[batch.string_samples]))
        _, _, terms = self._ground(batch, question, draws, video)
        losses = {"answer": answer_loss(logits, labels), **terms}
        return self._add_losses(self._whole_clip(batch, logits), losses, self._weights(losses, 0.0))

    def _weights(self, losses: dict[str, Tensor], share: float) -> dict[str, float]:
        """Of every term; those that need a backbone which has learned something grow with the share."""
        grown = {"answer": 1.0, "match": 1.0}
        return {name: grown.get(name, share) * getattr(self.config, f"{name}_weight") for name in losses}

    def _grounding_share(self) -> float:
        """How far the grounding terms have grown: 0 in the warm-up, then a ramp to 1."""
        config, progress = self.config, self.training_progress
        if config.warmup_share + config.ramp_share == 0:
            return 1.0
        if progress is None:
            raise CausalVideoError(
                "training progress",
                found=f"warmup_share={config.warmup_share}, and no training_progress",
                expected="a share of the training between 0 and 1, before every step",
                fix="train with CausalVideoTrainer, set model.training_progress, or set both shares to 0",
            )
        if progress < config.warmup_share:
            return 0.0
        return min(1.0, (progress - config.warmup_share) / config.ramp_share) if config.ramp_share else 1.0

    # ----- grounding: G splits, one a question, or one a candidate where each grounds for itself

    def _asks_question(self) -> bool:
        return self.config.num_answers is None and self.config.mc_grounding == "question"

    def _groundings(self, batch: Batch) -> Tensor:
        """(R,) the grounding that each string is scored with."""
        if batch.present is not None and self.config.mc_grounding == "per_candidate":
            return torch.arange(len(batch.strings.mask), device=batch.rows.device)
        return batch.string_samples

    def _ground(
        self, batch: Batch, question: Question, draws: Draws, video: Video | None = None
    ) -> tuple[Grounding, Tensor, dict[str, Tensor]]:
        """The split of every grounding, its sample (G,), and the terms of the loss that it owes in training."""
        samples = batch.string_samples
        if batch.question is not None and self._asks_question():
            question, samples = self._encode(batch.question), torch.arange(len(batch.rows), device=batch.rows.device)
        if video is None:
            video = self.backbone.encode_video(batch.frames, batch.frame_mask)
        key = self._grounding_key(video, batch.frame_mask)
        split = self._split(question.pooled, key, batch.frame_mask, batch.rows[samples], draws.gumbel)
        return split, samples, self._terms(batch, split, question.pooled, key, samples) if self.training else {}

    def _terms(self, batch: Batch, split: Grounding, asked: Tensor, key: Tensor, samples: Tensor) -> dict[str, Tensor]:
        """Of the scores themselves: how much of a clip they call causal, and whether a question finds its clip."""
        terms = {"size": self._size(split, samples, batch)}
        if self.config.match_weight:
            own, rows = self._own_ids(batch)[samples], batch.rows[samples]
            terms["match"] = matching_loss(self.indicator.margins(asked, key), batch.frame_mask, rows, own)
        return terms

    def _split(self, asked: Tensor, key: Tensor, mask: Tensor, rows: Tensor, noise: Tensor | None) -> Grounding:
        """Ground questions (G, H) in clips: `rows` (G,) of `key` (V, T, H), whose true frames are `mask` (V, T)."""
        config = self.config
        energies, mask = self.indicator(asked, key, rows), mask[rows]
        there = mask & (key.sum(-1) != 0)[rows] if config.zero_sum_padding else mask
        logits = grounding_logits(energies, there, config.grounding_logits)
        if noise is None and (self.training or config.grounding_eval == "sample"):
            noise = gumbel_noise(logits)
        return split_frames(logits, mask, float(config.gumbel_tau), noise, config.empty_side)

    def _grounding_key(self, video: Video, mask: Tensor) -> Tensor:
        """What the indicator compares a question with, (V, T, H), at the places of the clip's own frames."""
        key = self.backbone.grounding_key(video)
        if video.mask.shape == mask.shape and torch.equal(video.mask, mask):
            return key
        moved = key.new_zeros(*mask.shape, key.shape[-1])  # the backbone packed its frames: put them back
        return moved.index_put(mask.nonzero(as_tuple=True), key[video.mask])

    def _side(self, batch: Batch, samples: Tensor, split: Grounding, side: str) -> Side:
        """The frames of one side of every split, and those that are encoded."""
        rows = batch.rows[samples]
        frames = batch.frames[rows] * getattr(split, side).unsqueeze(-1).to(batch.frames.dtype)
        return frames, batch.frame_mask[rows] if self.config.mask_mode == "zero" else getattr(split, f"chosen_{side}")

    def _size(self, split: Grounding, samples: Tensor, batch: Batch) -> Tensor:
        """(mean P(causal) - target)^2 over all frames of the batch, of all processes together."""
        frames = batch.frame_mask[batch.rows[samples]].sum()
        causal, frames = mean_over_processes(torch.stack([split.probability.float().sum(), frames]))
        return (causal / frames - self.config.size_target).square()

    # ----- intervention: another video's frames in the place of the environment

    def _intervened(self, batch: Batch, samples: Tensor, split: Grounding, draws: Draws) -> Side:
        rows, chosen = batch.rows[samples], split.chosen_causal
        foreign = self._foreign(batch, self._own_ids(batch)[samples], draws.foreign)
        return swap_frames(batch.frames[rows], ~chosen, foreign), batch.frame_mask[rows]

    def _own_ids(self, batch: Batch) -> Tensor:
        """(B,) the video of each sample."""
        return batch.rows if batch.video_ids is None else batch.video_ids

    def _foreign(self, batch: Batch, own: Tensor, index: Tensor | None) -> Tensor:
        """Embedded frames (..., T, E) of videos that are none of `own` (R,) or (R, E), or those at a drawn index."""
        bank = self._bank(batch)
        index = bank.draw(own, batch.frames.shape[1]) if index is None else index
        found = bank.take(index)
        return found if bank is not self.bank else self.backbone.embed_frames(found.to(self.dtype))

    def _bank(self, batch: Batch) -> FrameBank:
        if self.config.bank == "batch":
            ids = -1 - torch.arange(len(batch.frames), device=batch.rows.device)  # a clip that no question asks about
            return FrameBank(batch.frames, ids.scatter(0, batch.rows, self._own_ids(batch)), batch.frame_mask)
        if self.bank is None or batch.video_ids is None:
            raise CausalVideoError(
                "frame bank",
                found="none" if self.bank is None else "no video_ids",
                expected="model.bank with frames of the training videos, and the video_ids of the batch in it",
                fix="set model.bank = FrameBank(frames, video_ids) and pass video_ids, or set bank='batch'",
            )
        return self.bank

    def save_pretrained(self, save_directory: Any, *args: Any, save_bank: bool = False, **kwargs: Any) -> Any:
        """Save the model; `save_bank` also writes the bank, which `load_bank` restores."""
        result = super().save_pretrained(save_directory, *args, **kwargs)
        if save_bank and self.bank is not None:
            write_bank(self.bank, save_directory)
        return result

    def load_bank(self, folder: str | Path) -> None:
        """Take the bank that was saved in a checkpoint folder."""
        self.bank = read_bank(folder)

    # ----- answers

    def _answer_branches(self, batch: Batch, question: Question, sides: list[Side]) -> list[Tensor]:
        """Logits (B, A) of every branch, all in one batch."""
        if self.backbone.depends_on_batch:  # a clip hears how long the others of its branch are
            video = Video.join([self.backbone.encode_video(*side) for side in sides])
        else:
            frames, chosen = (torch.cat(part) for part in zip(*sides, strict=True))
            video = self.backbone.encode_video(frames, chosen)
        rows = torch.arange(len(question.pooled), device=batch.rows.device).repeat(len(sides))
        groundings, each = self._groundings(batch), len(sides[0][0])
        clips = torch.cat([groundings + number * each for number in range(len(sides))])
        joints = self.backbone.fuse_pairs(question, video, rows, clips).chunk(len(sides))
        return [self._logits(batch, joint) for joint in joints]

    def _explained(self, batch: Batch, logits: Tensor, split: Grounding) -> VideoQAOutput:
        """The output with its evidence: of the answer given, where every candidate grounds for itself."""
        samples = torch.arange(len(logits), device=logits.device)
        if len(split.scores) != len(logits):
            samples = samples * logits.shape[1] + logits.argmax(1)
        split = split.rows(samples)
        return VideoQAOutput(
            logits=logits,
            frame_scores=split.scores,
            kept_frames=keep_causal(split),
            causal_mask=split.chosen_causal,
        )
