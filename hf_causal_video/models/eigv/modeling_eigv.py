"""EIGV: IGV, and the only change is that the constraints come from mixing and contrast, and bind training alone.

Why: invariance says what must not move an answer; it is silent on what must. If causal scene and question change, the
answer must change along. EIGV mixes two samples: causal scenes, questions and answers by one coefficient, environments
by another that no answer follows (equivariance and invariance in one step). Then it grounds the mixed sample again,
disrupts one part at a time, and asks the joint vector to follow the causal ones only ("contrast"). At test time the
clean model answers from the causal frames. The official one answers from the whole clip, and its split is evidence
given on request: frames that need not carry the answer.

Source: Li et al., "Equivariant and Invariant Grounding for Video Question Answering", ACM MM 2022 (arXiv 2207.12783),
sections 3.2 to 3.4.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from hf_causal_video.backbones.base import Question, Video
from hf_causal_video.causal import (
    Grounding,
    arrange_negatives,
    deranged_rows,
    draw_lambda,
    info_nce,
    mix,
    mix_scenes,
    mixed_answer_loss,
    soft_target_loss,
    swap_frames,
    two_hot,
)
from hf_causal_video.models.eigv.configuration_eigv import EIGVConfig
from hf_causal_video.models.igv.modeling_igv import IGVForVideoQuestionAnswering
from hf_causal_video.models.inputs import Batch, EncodedText
from hf_causal_video.models.outputs import VideoQAOutput
from hf_causal_video.utils.errors import require_values


@dataclass
class Mixed:
    """B mixed samples: question, encoded clip, embedded frames (B, T, E) with mask (B, T), partner (B,), lambda 1."""

    question: Question
    video: Video
    frames: Tensor
    mask: Tensor
    partner: Tensor
    lambda1: Tensor


class EIGVForVideoQuestionAnswering(IGVForVideoQuestionAnswering):
    """Equivariant and invariant grounding around a backbone.

    Example:
        >>> sizes = {"hidden_dim": 4, "word_dim": 4, "bilinear_dim": 8, "bilinear_chunks": 2, "bilinear_rank": 2}
        >>> config = EIGVConfig(text_feature_dim=6, frame_feature_dim=5, num_answers=3, backbone_config=sizes)
        >>> model = EIGVForVideoQuestionAnswering(config).eval()
        >>> inputs = {"frame_features": torch.randn(2, 7, 5), "question_features": torch.randn(2, 4, 6)}
        >>> model(**inputs).causal_mask.shape
        torch.Size([2, 7])
    """

    config: EIGVConfig
    config_class = EIGVConfig
    own_terms = ("contrast",)

    def _build(self) -> None:
        super()._build()
        self.project_head = nn.Sequential(nn.ReLU(), nn.Linear(self.backbone.joint_dim, self.config.projection_dim))

    def _predict(self, batch: Batch, output_evidence: bool | None) -> VideoQAOutput:
        """Answer from the causal frames, which are the evidence.

        Or, official, from the whole clip; the evidence, if asked for, is then grounded by the answer.
        """
        if self.config.answer_from == "causal":
            return super()._predict(batch, output_evidence)
        question = self._encode(batch.strings)
        video = self.backbone.encode_video(batch.frames, batch.frame_mask)
        logits = self._logits(batch, self._fuse(question, video, batch.rows[batch.string_samples]))
        if not (self.config.output_evidence if output_evidence is None else output_evidence):
            return self._whole_clip(batch, logits)
        question_embedding = question.pooled[self._answer_rows(batch, logits.argmax(1))]  # (B, H)
        key = self._grounding_key(video, batch.frame_mask)
        split = self._split(question_embedding, key, batch.frame_mask, batch.rows, self.random_inputs.gumbel)
        return self._explained(batch, logits, split)

    def _step(self, batch: Batch, labels: Tensor) -> VideoQAOutput:
        """Compute the output and the loss terms of a training step."""
        self._check_labels(batch, labels)
        share = self._grounding_share()
        if share == 0:
            return self._warm_up(batch, labels)
        config = self.config
        strings = self._encode(batch.strings)
        answer_rows = self._answer_rows(batch, labels)  # (B,)
        samples = torch.arange(len(batch.rows), device=batch.rows.device)
        video = self.backbone.encode_video(batch.frames, batch.frame_mask)
        question_embedding = strings.pooled[answer_rows]  # (B, H)
        key = self._grounding_key(video, batch.frame_mask)  # (V, T, H)
        split = self._split(question_embedding, key, batch.frame_mask, batch.rows, self.random_inputs.gumbel)

        mixed = self._mix(batch, strings.rows(answer_rows), answer_rows, split)
        joints = None  # (2 + 2n, B, J): the sample, its positive, its negatives
        if config.contrast_weight:
            joints, possible = self._disrupt(batch, mixed)
        elif batch.present is None:
            joints = self.backbone.fuse_pairs(mixed.question, mixed.video, samples, samples).unsqueeze(0)
        logits, answer = self._mixed_answer(batch, labels, strings, mixed, joints)
        answers = self._answer_vectors(batch, strings, labels)
        losses = {"answer": answer, **self._terms(batch, split, question_embedding, key, samples, answers)}
        if joints is not None and config.contrast_weight:
            if config.answer_every_branch:
                self._visit_answer(batch, joints)
            # section 3.4; vectors (B, P) each
            anchor, positive, *negatives = self.project_head(joints)
            other_scene, other_question = torch.stack(negatives).chunk(2)  # (n, B, P) each
            negative = arrange_negatives(other_scene, other_question, config.negatives_layout)
            temperature = float(config.contrast_temperature)
            losses["contrast"] = info_nce(anchor, positive, negative, temperature, config.contrast_cosine, possible)
        output = self._add_losses(self._explained(batch, logits, split), losses, self._weights(losses, share))
        return output if config.contrast_weight else self._without_projection(output)

    def _warm_up(self, batch: Batch, labels: Tensor) -> VideoQAOutput:
        return self._without_projection(super()._warm_up(batch, labels))

    def _without_projection(self, output: VideoQAOutput) -> VideoQAOutput:
        """Keep the idle projection in the graph with weight 0, for DDP."""
        assert output.loss is not None
        output.loss = output.loss + sum(0.0 * parameter.sum() for parameter in self.project_head.parameters())
        return output

    # ----- equivariance and invariance: two samples mixed

    def _mix(self, batch: Batch, question: Question, answer_rows: Tensor, split: Grounding) -> Mixed:
        """Mix every sample with a partner: causal scenes and questions by lambda 1, environments by lambda 2."""
        config = self.config
        draws = self.random_inputs
        count = len(answer_rows)
        device = batch.frames.device
        partner = torch.randperm(count, device=device) if draws.partner is None else draws.partner
        each = None if config.lambda_per == "batch" else count
        lambda1 = draw_lambda(config.lambda1_alpha, each, device) if draws.lambda1 is None else draws.lambda1
        lambda2 = draw_lambda(config.lambda2_alpha, each, device) if draws.lambda2 is None else draws.lambda2
        frames = batch.frames[batch.rows]  # (B, T, E)
        mask = batch.frame_mask[batch.rows]  # (B, T)
        causal_mask = split.causal.to(frames.dtype)
        environment_mask = split.environment.to(frames.dtype)
        # c' = lambda1 c + (1 - lambda1) c_partner, e' = lambda2 e + (1 - lambda2) e_partner (section 3.3)
        frames = mix_scenes(frames, causal_mask, environment_mask, partner, lambda1, lambda2)
        mask = mask | mask[partner]
        if config.mix_question_at == "tokens":
            tokens = batch.strings.tokens[answer_rows]
            words = batch.strings.mask[answer_rows]
            both = words if config.mixed_length == "own" else words | words[partner]
            question = self._encode(EncodedText(mix(tokens, tokens[partner], lambda1), both))
        else:
            unmixed = question.mask
            question = self.backbone.mix_question(question, question.rows(partner), lambda1)
            if config.mixed_length == "own":
                question = replace(question, mask=unmixed)
        return Mixed(question, self.backbone.encode_video(frames, mask), frames, mask, partner, lambda1)

    def _mixed_answer(
        self, batch: Batch, labels: Tensor, strings: Question, mixed: Mixed, joints: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Compute the logits (B, A) of the mixed clip, and the loss of its mixed answer.

        Open answers are asked with the mixed question. Candidates are scored unmixed, the own and the partner's.
        """
        partner = mixed.partner
        lambda1 = mixed.lambda1
        if batch.present is None:
            assert joints is not None
            logits = self.backbone.answer(joints[0])
            return logits, mixed_answer_loss(logits, labels, partner, lambda1)
        answers = batch.present.shape[1]
        candidates = torch.arange(len(strings.pooled), device=partner.device).view(-1, answers)  # (B, A)
        rows = torch.cat([candidates, candidates[partner]], 1)  # (B, 2A)
        videos = torch.arange(len(rows), device=partner.device).repeat_interleave(2 * answers)
        logits = self.backbone.answer(self.backbone.fuse_pairs(strings, mixed.video, rows.flatten(), videos))
        # one softmax over both candidate lists: (B, 2A)
        present = torch.cat([batch.present, batch.present[partner]], 1)
        logits = logits.view(present.shape).masked_fill(~present, torch.finfo(logits.dtype).min)
        return logits[:, :answers], soft_target_loss(two_hot(labels, partner, lambda1, answers), logits)

    # ----- contrast: one part disrupted at a time

    def _disrupt(self, batch: Batch, mixed: Mixed) -> tuple[Tensor, Tensor]:
        """Compute joint vectors (2 + 2n, B, J): the mixed sample, one with another environment, n with another causal
        scene, and n with another question.

        Returns:
            The vectors, and which samples (B,) had a third video, and another question, to be disrupted with.
        """
        draws = self.random_inputs
        copies = self.config.num_negatives
        count = len(mixed.partner)
        device = mixed.frames.device
        samples = torch.arange(count, device=device)
        key = self._grounding_key(mixed.video, mixed.mask)
        split = self._split(mixed.question.pooled, key, mixed.mask, samples, draws.gumbel_mixed)
        video_ids = self._own_ids(batch)
        sources = torch.stack([video_ids, video_ids[mixed.partner]], 1)  # (B, 2): no frame of either is drawn
        foreign, possible = self._foreign(batch, sources, draws.foreign)
        # positive: another environment; negatives: another causal scene, or another question
        positive = swap_frames(mixed.frames, split.environment, foreign)
        foreign, _ = self._foreign(batch, sources.repeat(copies, 1), _flat(draws.foreign_negative))
        negative = swap_frames(mixed.frames.repeat(copies, 1, 1), split.causal.repeat(copies, 1), foreign)
        video = self.backbone.encode_video(torch.cat([positive, negative]), mixed.mask.repeat(1 + copies, 1))
        if draws.question_swap is not None:
            swapped = draws.question_swap % count
        elif self.config.question_swap == "any" or count < 2:
            swapped = torch.randperm(copies * count, device=device) % count
        else:
            swapped = deranged_rows(count, copies, device)
        questions = torch.cat([samples.repeat(2 + copies), swapped.flatten()])
        videos = torch.cat([torch.arange((2 + copies) * count, device=device), samples.repeat(copies)])
        joint = self.backbone.fuse_pairs(mixed.question, Video.join([mixed.video, video]), questions, videos)
        possible = possible & (count > 1)
        if self.config.negatives_layout == "legacy":  # an anchor's negatives are those of other samples
            possible = possible.all().expand_as(possible)
        return joint.view(2 + 2 * copies, count, -1), possible

    def _visit_answer(self, batch: Batch, joints: Tensor) -> None:
        """Let the answer head see every branch, for the running statistics of its batch norms."""
        copies = self.config.num_negatives
        for branch in joints.split([1, 1, copies, copies])[0 if batch.present is not None else 1 :]:
            self.backbone.answer(branch.flatten(0, 1))

    def _answer_rows(self, batch: Batch, answers: Tensor) -> Tensor:
        """Return the string (B,) of each sample that holds an answer (B,): its question, or that candidate."""
        samples = torch.arange(len(batch.rows), device=batch.rows.device)
        return samples if batch.present is None else samples * batch.candidates + answers

    def _check_labels(self, batch: Batch, labels: Tensor) -> None:
        """Refuse an unknown answer: mixing needs one in every row."""
        answers = batch.candidates if self.config.num_answers is None else self.config.num_answers
        valid = (labels >= 0) & (labels < answers)
        if batch.present is not None:
            valid = valid & batch.present.gather(1, labels.clamp(0, answers - 1).unsqueeze(1)).squeeze(1)
        require_values(
            valid.all(),
            "labels",
            found=labels.tolist,
            expected=f"indices 0..{answers - 1} of present answers, one per question",
            fix="check the answer column against the choices or the vocabulary; drop questions without an answer",
        )


def _flat(index: Tensor | None) -> Tensor | None:
    return None if index is None else index.flatten(0, 1)
