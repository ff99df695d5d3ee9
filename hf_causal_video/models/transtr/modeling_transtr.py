"""TranSTR: choose the question's frames, then their objects, then reason over what was kept.

Why: most frames and objects of a video have nothing to do with a question and carry spurious cues. A differentiable
top-K keeps the critical few, so the answer rests on evidence that can be shown; frames first, objects inside them
second.

Source: Li et al., "Discovering Spatio-Temporal Rationales for Video Question Answering", ICCV 2023 (arXiv 2307.12058),
equations 3 to 10. Submodule names follow the published checkpoints. Where the official code differs from what we think
right there is a switch in the config, and the preset `official-<dataset>` turns all of them on.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.output_capturing import capture_outputs

from hf_causal_video.backbones.transformer import DotProductAttention, TransformerStack, sine_positions
from hf_causal_video.models.base import VideoQAPreTrainedModel, answer_loss
from hf_causal_video.models.inputs import read_frames, read_rows
from hf_causal_video.models.outputs import VideoQAOutput
from hf_causal_video.models.transtr.configuration_transtr import TranSTRConfig
from hf_causal_video.models.transtr.selection import Items, Selection, rank, select
from hf_causal_video.models.transtr.similarity import SimilarityHead, check_similarities
from hf_causal_video.models.transtr.text import encode_question, encode_texts
from hf_causal_video.models.transtr.video import EncodedVideo, FeatureResizer, check_objects, join_boxes
from hf_causal_video.utils.errors import require_values


class TranSTRForVideoQuestionAnswering(VideoQAPreTrainedModel):
    """Spatio-temporal rationalisation for multiple-choice or open-ended video question answering.

    Relation to other methods: IGV and EIGV wrap a backbone and mask frames; TranSTR is a network of its own that
    gathers frames and objects.

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
    _supports_sdpa = True
    _can_record_outputs = {"hidden_states": TransformerStack, "attentions": DotProductAttention}
    _no_split_modules = ["TransformerLayer", "FeatureResizer"]

    def __init__(self, config: TranSTRConfig):
        super().__init__(config)
        self._build_text_encoder()
        dim = config.hidden_size
        dropout = float(config.hidden_dropout_prob)

        def stack(cross: bool) -> TransformerStack:
            heads, feedforward = config.num_attention_heads, config.intermediate_size
            return TransformerStack(config.num_layers, dim, heads, feedforward, dropout, cross, config)

        self.text_resize = nn.Identity() if config.text_width == dim else nn.Linear(config.text_width, dim)
        project = config.frame_feature_dim != dim if config.project_frames is None else config.project_frames
        self.frame_resize = FeatureResizer(config.frame_feature_dim, dim, dropout) if project else nn.Identity()
        self.frame_decoder = stack(cross=True)
        if config.num_objects_kept:
            self.obj_resize = FeatureResizer(config.object_input_dim, dim, dropout)
            self.obj_decoder = stack(cross=True)
            self.fo_decoder = stack(cross=True)
        if config.rank_by == "scorer":
            self.frame_scorer = nn.Linear(dim, 1)
            if config.num_objects_kept:
                self.object_scorer = nn.Linear(dim, 1)
        if config.num_similarities:
            self.similarity = SimilarityHead(config.num_similarities)
        self.vl_encoder = stack(cross=False)
        self.ans_decoder = stack(cross=True)
        self.classifier = nn.Linear(dim, 1 if config.num_answers is None else config.num_answers)
        self.topk_sigma = float(config.topk_sigma)  # a trainer may anneal it
        self.post_init()

    def encode_video(
        self,
        frame_features: Tensor | None,
        object_features: Tensor | None = None,
        object_boxes: Tensor | None = None,
        frame_mask: Tensor | None = None,
        object_mask: Tensor | None = None,
        objects: bool = True,
    ) -> EncodedVideo:
        """Encode what does not depend on the question, to be handed to `forward` as `video` any number of times.

        Args:
            frame_features, object_features, object_boxes, frame_mask, object_mask: as in `forward`.
            objects: encode the objects of every frame now; otherwise those of kept frames are encoded when asked.
        """
        frames, frame_mask = self._embed_frames(frame_features, frame_mask)  # (V, T, D)
        pos = sine_positions(frame_mask, frames.shape[-1]).to(frames.dtype)
        frames = self.frame_decoder.attend_self(frames, pos, frame_mask)
        video = EncodedVideo(frames, pos, self.frame_decoder.ask(frames, pos), frame_mask)
        if self.config.num_objects_kept:
            video.boxes = object_boxes
            video.features, video.object_mask = check_objects(
                self.config, object_features, object_boxes, object_mask, frames
            )
            if objects:
                video.objects = self._encode_objects(video)  # (V, T, N, D)
                video.object_query = self.obj_decoder.ask(video.objects, None)
        return video

    def encode_texts(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return inputs of `forward` with token features in place of ids."""
        return encode_texts(self, inputs)

    @capture_outputs
    def forward(
        self,
        frame_features: Tensor | None = None,
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
        similarities: Tensor | None = None,
        labels: Tensor | None = None,
        video: EncodedVideo | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> VideoQAOutput:
        """Answer questions about videos and say which frames and objects were kept.

        Args:
            frame_features: (V, T, C); V = B, or fewer videos than questions together with `video_index`.
            input_ids, attention_mask: (B, L) the question.
            choice_input_ids, choice_attention_mask: (B, A, L') question and choice as one string; a row of zeros in
                the mask is an absent choice. Multiple choice only.
            object_features: (V, T, N, C) without boxes, or with them appended if `object_boxes` is None.
            object_boxes: (V, T, N, 4) xyxy.
            frame_mask, object_mask: (V, T) and (V, T, N) bool, False at padding.
            question_features, choice_features: (B, L, D_text) and (B, A, D_text), cached text instead of ids;
                `choice_attention_mask` is then (B, A).
            video_index: (B,) row of each question's video; what does not depend on the question is computed once per
                video.
            similarities: (B, A, T, S) how well each choice fits each frame, S = `num_similarities`.
            labels: (B,) index of the right answer.
            video: what `encode_video` returned, in place of all frame and object inputs.
            kwargs: `return_dict`, `output_hidden_states`, `output_attentions`; maps are computed eagerly, whatever the
                attention implementation.

        Raises:
            CausalVideoError: a wrong shape, an empty question, too few objects or choices, an unknown label.
        """
        record = self._check_kwargs(kwargs)
        question, question_mask, queries, choice_mask = encode_question(
            self,
            ids=input_ids,
            mask=attention_mask,
            choice_ids=choice_input_ids,
            choice_mask=choice_attention_mask,
            question=question_features,
            choices=choice_features,
        )
        if video is None:
            video = self.encode_video(
                frame_features, object_features, object_boxes, frame_mask, object_mask, objects=False
            )
        rows = read_rows(video_index, len(question), len(video.frames), video.frames.device)

        # Temporal rationalisation (eq. 3-5): frames meet the question, the critical ones are kept.
        frames, pos, query, frame_mask = video.frames_of(rows)  # (B, T, D), (B, T, D), (B or 1, T, D), (B, T)
        measured = None
        if self.config.num_similarities:
            similarities = check_similarities(self.config, similarities, queries.shape[1], frame_mask).to(self.dtype)
            measured = self.similarity(similarities, frame_mask, choice_mask)  # (B, T)
        kept, kept_frames = self._choose(
            "frames",
            self.frame_decoder,
            Items(frames, frame_mask, pos, query, measured),
            question,
            question_mask,
            whole=record,
        )  # (B, K, D)
        filled = kept_frames.take_mask(frame_mask)  # (B, K): a short clip leaves slots empty

        object_scores = kept_objects = kept_boxes = None
        if self.config.num_objects_kept:
            # Spatial rationalisation (eq. 6-7) inside each kept frame, then fusion of the two grains (eq. 8).
            objects = self._objects_of_kept(video, rows, kept_frames)  # B*K rows of N objects
            memory, chosen = self._choose(
                "objects", self.obj_decoder, objects, question, question_mask, whole=record
            )  # (B*K, M, D)
            # (B, K*M): few objects and few frames leave slots to padding
            memory_mask = (chosen.take_mask(objects.mask).unflatten(0, filled.shape) & filled.unsqueeze(-1)).flatten(1)
            require_values(
                memory_mask.any(1).all(),
                "objects",
                found=lambda: "a clip without any object",
                expected="at least one object per clip",
                fix="lower the detector's threshold, or drop the clip",
            )
            memory = memory.view(len(kept), -1, kept.shape[-1])  # (B, K*M, D)
            kept = self.fo_decoder(kept, memory=memory, memory_mask=memory_mask)[0]
            object_scores = chosen.scores.unflatten(0, kept.shape[:2])  # (B, K, N)
            kept_objects = chosen.indices.unflatten(0, kept.shape[:2])  # (B, K, M)
            if video.boxes is not None:
                kept_boxes = video.boxes[rows[:, None, None], kept_frames.indices[..., None], kept_objects]

        # Reasoning (eq. 9-10): kept frames and question as one sequence, read by the answers.
        memory = torch.cat([kept, question], 1)  # (B, K+L, D)
        memory_mask = torch.cat([filled, question_mask], 1)  # (B, K+L)
        pos = sine_positions(memory_mask, memory.shape[-1]).to(memory.dtype)
        memory = self.vl_encoder(memory, pos, memory_mask)[0]
        answers = self.ans_decoder(queries, None, choice_mask, memory, memory_mask)[0]  # (B, A or 1, D)
        logits = self.classifier(answers)  # (B, A, 1) or (B, 1, A)
        logits = logits.squeeze(-1 if self.config.num_answers is None else 1)  # (B, A)
        if similarities is not None and self.config.num_similarities:
            logits = logits + self.similarity(similarities, kept_frames.share(), part="answer")
        if choice_mask is not None:
            logits = logits.masked_fill(~choice_mask, torch.finfo(logits.dtype).min)

        loss = None if labels is None else answer_loss(logits, labels)
        return VideoQAOutput(
            loss=loss,
            losses=None if loss is None else {"answer": loss},
            logits=logits,
            frame_scores=kept_frames.scores,
            kept_frames=kept_frames.indices,
            object_scores=object_scores,
            kept_objects=kept_objects,
            kept_boxes=kept_boxes,
        )

    def _choose(
        self,
        what: Literal["frames", "objects"],
        stack: TransformerStack,
        items: Items,
        question: Tensor,
        question_mask: Tensor,
        whole: bool,
    ) -> tuple[Tensor, Selection]:
        """Let items meet the question (B, L, D), rank them, keep K: the kept (R, K, D), and which they are.

        Args:
            what: which of the two selections.
            stack: its decoder.
            items: R rows of frames or objects, R a multiple of B.
            question, question_mask: (B, L, D) and (B, L).
            whole: compute the layer for all items, so that states and maps of all are recorded.
        """
        config = self.config
        keep = config.num_frames_kept if what == "frames" else config.num_objects_kept
        noise = self.random_inputs.frame_noise if what == "frames" else self.random_inputs.object_noise
        scorer = getattr(self, "frame_scorer" if what == "frames" else "object_scorer", None)
        soft = self.training or config.topk_eval == "perturbed"
        x = items.x
        tokens = question_mask.repeat_interleave(len(x) // len(question), 0)  # (R, L)

        def choose(attention: Tensor | None, x: Tensor) -> Selection:
            scores = rank(config, x, attention, items.mask, tokens, scorer, items.measured)  # (R, items, units)
            return select(config, scores, keep, soft, self.topk_sigma, noise, what)

        early: list[Selection] = []

        def keep_early(attention: Tensor) -> Tensor:
            early.append(choose(attention, x))
            return early[0].indices

        # Attention alone ranks, and the choice is hard: only what is kept needs the rest of the layer.
        only_kept = keep_early if scorer is None and not soft and not whole else None
        # Optional: the choice comes before the feed-forward, which a hard choice then runs on K rows instead of all.
        early_choice = config.select_after == "cross_attention"
        y, attention = stack(
            x,
            items.pos,
            items.mask,
            question,
            question_mask,
            self._weights,
            self_attended=True,
            keep=only_kept,
            query=items.query,
            finish=only_kept is not None or not early_choice,
        )
        if early:
            return y, early[0]
        selection = choose(attention, y)
        if not early_choice:
            return selection.take(y), selection  # (R, K, D)
        if soft:  # a slot is a mixture of finished items, as the hard choice takes finished ones
            return selection.take(stack.finish(y)), selection
        return stack.finish(selection.take(y)), selection

    @property
    def _weights(self) -> str | None:
        if self.config.rank_by == "prob":
            return "dropped" if self.config.rank_after_dropout else "prob"
        return "energy" if self.config.rank_by == "energy" else None

    def _embed_frames(self, features: Tensor | None, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        features, mask = read_frames(features, mask, self.config)
        return self.frame_resize(features.to(self.dtype)), mask

    def _objects_of_kept(self, video: EncodedVideo, rows: Tensor, frames: Selection) -> Items:
        """Return the objects of the kept frames after self-attention, (B*K, N, D) with mask (B*K, N)."""
        assert video.features is not None and video.object_mask is not None
        features = video.features
        boxes = video.boxes
        mask = video.object_mask
        if frames.selector is not None:  # a soft mixture of frames
            selector = frames.selector  # (B, T, K)
            features = join_boxes(self.config, features, boxes).to(self.dtype)
            features = torch.einsum("btk,btno->bkno", selector.to(features.dtype), features[rows])
            mask = torch.einsum("btk,btn->bkn", selector, mask[rows].to(selector.dtype)) > 0.5
            mask = mask.flatten(0, 1)
            return Items(self._attend_objects(features.flatten(0, 1), mask), mask)
        pick = (rows.unsqueeze(1), frames.indices)  # of (V, T, ...) to (B, K, ...)
        objects = video.objects
        if objects is None and mask.shape[:2].numel() < frames.indices.numel():  # fewer frames in all than slots
            objects = self._encode_objects(video)
        mask = mask[pick].flatten(0, 1)
        if objects is not None:
            query = None if video.object_query is None else video.object_query[pick].flatten(0, 1)
            return Items(objects[pick].flatten(0, 1), mask, query=query)
        features = join_boxes(self.config, features[pick], None if boxes is None else boxes[pick]).to(self.dtype)
        return Items(self._attend_objects(features.flatten(0, 1), mask), mask)

    def _encode_objects(self, video: EncodedVideo) -> Tensor:
        """Objects of all frames after self-attention, (V, T, N, D)."""
        assert video.features is not None and video.object_mask is not None
        features = join_boxes(self.config, video.features, video.boxes).to(self.dtype)
        objects = self._attend_objects(features.flatten(0, 1), video.object_mask.flatten(0, 1))
        return objects.unflatten(0, video.object_mask.shape[:2])

    def _attend_objects(self, features: Tensor, mask: Tensor) -> Tensor:
        # A frame without any object attends to its padding: nothing reads the result, a softmax over nothing is NaN.
        mask = mask | ~mask.any(-1, keepdim=True)
        return self.obj_decoder.attend_self(self.obj_resize(features), None, mask)
