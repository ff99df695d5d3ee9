"""TranSTR: choose the question's frames, then their objects, then reason over what was kept.

Why: most frames and objects of a video have nothing to do with a question and carry spurious cues. A differentiable top-K
keeps the critical few, so the answer rests on evidence that can be shown; frames first, objects inside them second.

Source: Li et al., "Discovering Spatio-Temporal Rationales for Video Question Answering", ICCV 2023 (arXiv 2307.12058),
equations 3 to 10. Submodule names follow the published checkpoints. Where the released code differs from what we think
right there is a switch in the config, and the preset `official-<dataset>` turns all of them on.
"""

import torch
from torch import Tensor, nn

from hf_causal_video.backbones.transformer import TransformerStack, sine_positions
from hf_causal_video.causal.topk import perturbed_topk, topk_indices
from hf_causal_video.errors import CausalVideoError
from hf_causal_video.models.base import CausalVideoPreTrainedModel, answer_loss, check_width
from hf_causal_video.models.outputs import VideoQAOutput
from hf_causal_video.models.transtr.configuration_transtr import TranSTRConfig


class FeatureResizer(nn.Module):
    """Project features of another model to our width: linear, norm, dropout."""

    def __init__(self, width: int, dim: int, dropout: float):
        super().__init__()
        self.fc, self.layer_norm, self.dropout = nn.Linear(width, dim), nn.LayerNorm(dim, eps=1e-12), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to (..., dim)."""
        return self.dropout(self.layer_norm(self.fc(x)))


class TranSTRForVideoQuestionAnswering(CausalVideoPreTrainedModel):
    """Spatio-temporal rationalisation for multiple-choice or open-ended video question answering.

    Relation to other methods: IGV and EIGV wrap a backbone and mask frames; TranSTR is a network of its own that gathers
    frames and objects.

    Example:
        >>> text = {"model_type": "bert", "vocab_size": 9, "hidden_size": 8, "num_attention_heads": 2,
        ...         "num_hidden_layers": 1, "intermediate_size": 8}
        >>> config = TranSTRConfig(text_config=text, hidden_size=8, num_attention_heads=2, intermediate_size=8,
        ...                        frame_feature_dim=6, num_frames_kept=2, num_objects_kept=0, num_answers=3)
        >>> model, ids = TranSTRForVideoQuestionAnswering(config).eval(), torch.tensor([[1, 2, 3]])
        >>> output = model(frame_features=torch.randn(1, 5, 6), input_ids=ids)
        >>> output.logits.shape, output.kept_frames.shape
        (torch.Size([1, 3]), torch.Size([1, 2]))
    """

    config: TranSTRConfig

    def __init__(self, config: TranSTRConfig):
        super().__init__(config)
        self._build_text_encoder()
        dim, dropout = config.hidden_size, float(config.hidden_dropout_prob)

        def stack(cross: bool) -> TransformerStack:
            return TransformerStack(
                config.num_layers, dim, config.num_attention_heads, config.intermediate_size, dropout, cross
            )

        text_dim = config.text_config.hidden_size
        self.text_resize = nn.Identity() if text_dim == dim else nn.Linear(text_dim, dim)
        project = config.frame_feature_dim != dim if config.project_frames is None else config.project_frames
        self.frame_resize = FeatureResizer(config.frame_feature_dim, dim, dropout) if project else nn.Identity()
        self.frame_decoder = stack(cross=True)
        if config.num_objects_kept:
            self.obj_resize = FeatureResizer(config.object_input_dim, dim, dropout)
            self.obj_decoder, self.fo_decoder = stack(cross=True), stack(cross=True)
        if config.rank_by == "scorer":
            self.frame_scorer = nn.Linear(dim, 1)
            if config.num_objects_kept:
                self.object_scorer = nn.Linear(dim, 1)
        self.vl_encoder, self.ans_decoder = stack(cross=False), stack(cross=True)
        self.classifier = nn.Linear(dim, 1 if config.num_answers is None else config.num_answers)
        self.topk_sigma = float(config.topk_sigma)  # a trainer may anneal it
        self.post_init()

    def forward(
        self,
        frame_features: Tensor,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        choice_input_ids: Tensor | None = None,
        choice_attention_mask: Tensor | None = None,
        object_features: Tensor | None = None,
        object_boxes: Tensor | None = None,
        frame_mask: Tensor | None = None,
        object_mask: Tensor | None = None,
        question_features: Tensor | None = None,
        choice_features: Tensor | None = None,
        video_index: Tensor | None = None,
        labels: Tensor | None = None,
        frame_noise: Tensor | None = None,
        object_noise: Tensor | None = None,
    ) -> VideoQAOutput:
        """Answer questions about videos and say which frames and objects were kept.

        Args:
            frame_features: (V, T, C); V = B, or fewer videos than questions together with `video_index`.
            input_ids, attention_mask: (B, L) the question.
            choice_input_ids, choice_attention_mask: (B, A, L') question and choice as one string; a row of zeros in the
                mask is an absent choice. Multiple choice only.
            object_features: (V, T, N, C) without boxes, or with them appended if `object_boxes` is None.
            object_boxes: (V, T, N, 4) xyxy.
            frame_mask, object_mask: (V, T) and (V, T, N) bool, False at padding.
            question_features, choice_features: (B, L, D_text) and (B, A, D_text), cached text instead of ids.
            video_index: (B,) row of each question's video; what does not depend on the question is computed once a video.
            labels: (B,) index of the right answer.
            frame_noise, object_noise: (B, samples, T[*L]) and (B*K, samples, N[*L]) stored draws of the selection.

        Raises:
            CausalVideoError: a wrong width, an empty axis, NaN, an empty question, too few frames, objects or choices.
        """
        question, question_mask, queries, choice_mask = self._encode_text(
            input_ids, attention_mask, choice_input_ids, choice_attention_mask, question_features, choice_features
        )
        frames, frame_mask = self._embed_frames(frame_features, frame_mask)  # (V, T, D)
        rows = torch.arange(len(question), device=frames.device) if video_index is None else video_index
        if len(rows) != len(question) or (video_index is None and len(frames) != len(question)):
            raise CausalVideoError("batch", found=f"{len(question)} questions, {len(frames)} videos",
                                   expected="as many", fix="give video_index, a video row for each question")  # fmt: skip

        # Temporal rationalisation (eq. 3-5): frames meet the question, the critical ones are kept.
        pos = sine_positions(frame_mask, frames.shape[-1]).to(frames.dtype)
        frames = self.frame_decoder.layers[0].attend_self(frames, pos, frame_mask)  # (V, T, D), knows no question
        frames, pos, frame_mask = frames[rows], pos[rows], frame_mask[rows]  # (B, T, ·)
        frames, ranking = self.frame_decoder(
            frames, pos, frame_mask, question, question_mask, self._weights, self_attended=True
        )
        scores = self._scores(frames, ranking, frame_mask, question_mask, getattr(self, "frame_scorer", None))
        selector, kept_frames, frame_scores = self._select(
            scores, frame_mask, self.config.num_frames_kept, frame_noise, "frames"
        )
        kept = _take(frames, selector, kept_frames)  # (B, K, D)

        object_scores = kept_objects = kept_boxes = None
        if self.config.num_objects_kept:  # Spatial rationalisation (eq. 6-7), then fusion of the two grains (eq. 8).
            objects, present = self._embed_objects(
                object_features, object_boxes, object_mask, rows, selector, kept_frames, len(frame_features)
            )  # (B, K, N, D), (B, K, N)
            slots = kept_frames.shape[1]
            flat_mask = present.flatten(0, 1)
            tokens, token_mask = question.repeat_interleave(slots, 0), question_mask.repeat_interleave(slots, 0)
            objects, ranking = self.obj_decoder(
                objects.flatten(0, 1), None, flat_mask, tokens, token_mask, self._weights, self_attended=True
            )
            scores = self._scores(objects, ranking, flat_mask, token_mask, getattr(self, "object_scorer", None))
            choice, kept_objects, object_scores = self._select(
                scores, flat_mask, self.config.num_objects_kept, object_noise, "objects"
            )
            chosen = _take(objects, choice, kept_objects).unflatten(0, (-1, slots))  # (B, K, M, D)
            chosen_mask = _take(flat_mask.unsqueeze(-1).to(objects.dtype), choice, kept_objects) > 0.5
            chosen_mask = chosen_mask.view(chosen.shape[0], -1)  # (B, K*M): a slot may hold padding where objects are few
            if not torch.compiler.is_compiling() and not chosen_mask.any(1).all():
                raise CausalVideoError("objects", found="a clip without any object", expected="at least one",
                                       fix="lower the detector's threshold, or drop the clip")  # fmt: skip
            kept = self.fo_decoder(kept, memory=chosen.flatten(1, 2), memory_mask=chosen_mask)[0]
            object_scores, kept_objects = (x.unflatten(0, (-1, slots)) for x in (object_scores, kept_objects))
            if object_boxes is not None:
                kept_boxes = object_boxes[rows[:, None, None], kept_frames[..., None], kept_objects]  # (B, K, M, 4)

        # Reasoning (eq. 9-10): kept frames and question as one sequence, read by the answers.
        memory_mask = torch.cat([question_mask.new_ones(kept.shape[:2]), question_mask], 1)  # (B, K+L)
        memory = torch.cat([kept, question], 1)
        memory = self.vl_encoder(memory, sine_positions(memory_mask, memory.shape[-1]).to(memory.dtype), memory_mask)[0]
        answers = self.ans_decoder(queries, None, choice_mask, memory, memory_mask)[0]  # (B, A or 1, D)
        logits = self.classifier(answers)  # (B, A, 1) or (B, 1, A)
        logits = logits.squeeze(-1 if self.config.num_answers is None else 1)
        if choice_mask is not None:
            logits = logits.masked_fill(~choice_mask, torch.finfo(logits.dtype).min)

        loss = losses = None
        if labels is not None:
            losses = {"answer": answer_loss(logits, labels)}
            loss = losses["answer"]
        return VideoQAOutput(
            loss, losses, logits, frame_scores, kept_frames, object_scores, kept_objects, kept_boxes
        )

    @property
    def _weights(self) -> str | None:
        if self.config.rank_by == "prob":
            return "dropped" if self.config.rank_after_dropout else "prob"
        return "energy" if self.config.rank_by == "energy" else None

    def _encode_text(self, ids, mask, choice_ids, choice_mask, question, choices):
        """Question (B, L, D) with its mask, and the answer queries (B, A or 1, D) with the mask of present choices."""
        multiple_choice = self.config.num_answers is None
        if question is None and ids is None or multiple_choice and choices is None and choice_ids is None:
            missing = "input_ids" if question is None and ids is None else "choice_input_ids"
            raise CausalVideoError("text", found=f"no {missing}", expected="ids, or cached features in their place",
                                   fix="pass what the processor returned; an open-ended model sets num_answers")  # fmt: skip
        if mask is None:
            mask = (ids if ids is not None else question[..., 0]).new_ones((ids if ids is not None else question).shape[:2])
        question_mask = mask.bool()
        if not torch.compiler.is_compiling() and not question_mask.any(1).all():
            raise CausalVideoError("question", found="a question of zero tokens", expected="at least one token",
                                   fix="check the question column and the attention mask")  # fmt: skip
        groups = [(ids, mask)] if question is None else []
        if multiple_choice and choices is None:
            choice_mask = torch.ones_like(choice_ids) if choice_mask is None else choice_mask
            groups.append((choice_ids.flatten(0, 1), choice_mask.flatten(0, 1)))
        states = self.encode_text(groups) if groups else []
        question = self.text_resize(states.pop(0) if question is None else question.to(self.dtype))
        if not multiple_choice:  # the question's mean token asks the vocabulary
            weight = question_mask.unsqueeze(-1).to(question.dtype)
            return question, question_mask, ((question * weight).sum(1) / weight.sum(1)).unsqueeze(1), None
        present = None
        if choices is None:
            present = choice_mask.bool().any(-1)  # (B, A)
            strings = states.pop(0).unflatten(0, present.shape)  # (B, A, L', D)
            if self.config.choice_pooling == "mean":
                choices = strings.sum(2) / choice_mask.sum(-1, keepdim=True).clamp(min=1).to(strings.dtype)
            else:
                choices = strings[:, :, 0]
        choices = self.text_resize(choices.to(self.dtype))  # (B, A, D)
        wanted = self.config.num_choices
        if wanted is not None and (choices.shape[1] != wanted or present is not None and not present.all()):
            raise CausalVideoError("choices", found=f"{choices.shape[1]} choices a question, some may be empty",
                                   expected=f"num_choices={wanted}", fix="give every choice, or set num_choices=None")  # fmt: skip
        return question, question_mask, choices, present

    def _embed_frames(self, features: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        made_by = (self.config.feature_provenance or {}).get("frame_model", "the frame model it was trained with")
        check_width("frame_features", features, 3, self.config.frame_feature_dim,
                    f"this checkpoint expects features of {made_by}; extract them, or load another checkpoint")  # fmt: skip
        mask = features.new_ones(features.shape[:2], dtype=torch.bool) if mask is None else mask.bool()
        return self.frame_resize(features.to(self.dtype)), mask

    def _embed_objects(self, features, boxes, mask, rows, selector, kept_frames, videos):
        """Objects of the kept frames after self-attention (B, K, N, D), and which of them exist (B, K, N)."""
        if features is None:
            raise CausalVideoError("object_features", found="none", expected=f"objects, num_objects_kept={self.config.num_objects_kept}",
                                   fix="extract objects too, or train with num_objects_kept=0")  # fmt: skip
        if boxes is not None:
            if boxes.shape != (*features.shape[:-1], 4):
                raise CausalVideoError("object_boxes", found=tuple(boxes.shape), expected=(*features.shape[:-1], 4),
                                       fix="give one xyxy box for each object")  # fmt: skip
            parts = [features, boxes.to(features.dtype)]
            if self.config.bbox_mode == "norm5":
                parts.append(((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])).unsqueeze(-1).to(features.dtype))
            features = torch.cat(parts, -1)
        check_width("object_features", features, 4, self.config.object_input_dim,
                    "give object_boxes, or append boxes of the config's bbox_mode to the features")  # fmt: skip
        features = features.to(self.dtype)
        mask = features.new_ones(features.shape[:3], dtype=torch.bool) if mask is None else mask.bool()
        attend = self.obj_decoder.layers[0].attend_self
        if selector is not None:  # training: a soft mixture of frames
            kept = torch.einsum("btk,btno->bkno", selector.to(features.dtype), features[rows])
            present = torch.einsum("btk,btn->bkn", selector, mask[rows].to(selector.dtype)) > 0.5
            shape = present.shape
            return attend(self.obj_resize(kept).flatten(0, 1), None, _open(present).flatten(0, 1)).unflatten(0, shape[:2]), present
        pick = (rows.unsqueeze(1), kept_frames)
        if videos * features.shape[1] < kept_frames.numel():  # fewer frames in all than kept slots: encode each frame once
            whole = attend(self.obj_resize(features).flatten(0, 1), None, _open(mask).flatten(0, 1))
            return whole.unflatten(0, mask.shape[:2])[pick], mask[pick]
        present = mask[pick]
        kept = attend(self.obj_resize(features[pick]).flatten(0, 1), None, _open(present).flatten(0, 1))
        return kept.unflatten(0, present.shape[:2]), present

    def _scores(self, x: Tensor, ranking: Tensor | None, mask: Tensor, tokens: Tensor, scorer: nn.Module | None) -> Tensor:
        """What selection ranks, (R, items, units): one score an item, or one for each of its L interactions."""
        scores = (scorer(x) if scorer is not None else ranking).float()  # (R, items, 1 or L)
        if self.config.rank_by != "prob":
            if self.config.score_bound is not None:
                scores = self.config.score_bound * scores.tanh()
            if scorer is None:
                scores = scores.masked_fill(~tokens.unsqueeze(1), -torch.inf)
        return scores.masked_fill(~mask.unsqueeze(-1), -torch.inf)

    def _select(
        self, scores: Tensor, mask: Tensor, keep: int, noise: Tensor | None, what: str
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        """Selector (R, items, K) or None where the choice is hard, kept items (R, K), and one score an item (R, items)."""
        units, flat = scores.shape[-1], scores.flatten(1)
        there = (mask.sum(1).min() if what == "frames" and not torch.compiler.is_compiling() else mask.shape[1]) * units
        if there < keep:
            raise CausalVideoError(f"selection of {what}", found=f"{int(there)} to choose from", expected=f"at least {keep}",
                                   fix=f"give more {what}, or lower num_{what}_kept")  # fmt: skip
        if not self.training and self.config.topk_eval == "hard":
            return None, topk_indices(flat, keep, self.config.topk_order) // units, scores.amax(-1)
        selector = perturbed_topk(
            flat, keep, self.config.topk_samples, self.topk_sigma, noise,
            self.config.topk_gradient, baseline=self.config.topk_baseline,
        )  # fmt: skip
        selector = selector.unflatten(1, (-1, units)).sum(2)  # (R, items, K)
        return selector, selector.argmax(1), scores.amax(-1)


def _take(x: Tensor, selector: Tensor | None, indices: Tensor) -> Tensor:
    """Kept rows of x (R, items, D): a mixture where the choice is soft, a gather where it is hard."""
    if selector is not None:
        return torch.einsum("rik,rid->rkd", selector.to(x.dtype), x)
    return x.gather(1, indices.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def _open(mask: Tensor) -> Tensor:
    """Let a frame without any object attend to its padding: nothing reads the result, and a softmax over nothing is NaN."""
    return mask | ~mask.any(-1, keepdim=True)
