"""A VideoQA backbone on its own, for multiple choice or open answers.

Why: IGV and EIGV wrap a backbone, and a claim about them is a comparison with it. This class reads the inputs, encodes
questions and clip, and answers; IGV changes what the answer rests on, EIGV how it is trained, and neither changes
anything here.

Source: section 3 of IGV (arXiv 2206.02349) and EIGV (arXiv 2207.12783) for what a backbone is.
"""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple

from hf_causal_video.backbones.base import RENAMED_KEYS, Question, Video, build_backbone
from hf_causal_video.models.backbone.configuration_backbone import BackboneConfig
from hf_causal_video.models.base import VideoQAPreTrainedModel, answer_loss
from hf_causal_video.models.inputs import Batch, EncodedText, encode_texts, read_batch
from hf_causal_video.models.outputs import VideoQAOutput


class BackboneForVideoQuestionAnswering(VideoQAPreTrainedModel):
    """A registered backbone that answers from the whole clip.

    It chooses no frames: its `kept_frames` are all frames of a clip, all with score 0.

    Example:
        >>> sizes = {"hidden_dim": 4, "word_dim": 4, "bilinear_dim": 8, "bilinear_chunks": 2, "bilinear_rank": 2}
        >>> config = BackboneConfig(text_feature_dim=6, frame_feature_dim=5, num_answers=3, backbone_config=sizes)
        >>> model = BackboneForVideoQuestionAnswering(config).eval()
        >>> output = model(frame_features=torch.randn(2, 7, 5), question_features=torch.randn(2, 4, 6))
        >>> output.logits.shape, output.kept_frames.shape
        (torch.Size([2, 3]), torch.Size([2, 7]))
    """

    config: BackboneConfig
    config_class = BackboneConfig
    _no_split_modules = [
        "TransformerLayer",
        "BlockFusion",
        "FrameScorer",
        "QuestionEncoder",
        "StreamEncoder",
        "EpisodicMemory",
        "Linguistic",
        "ProgressiveAttention",
    ]
    _renamed_keys = RENAMED_KEYS

    def __init__(self, config: BackboneConfig):
        super().__init__(config)
        self._build_text_encoder()
        self.backbone = build_backbone(
            config.backbone, config.text_width, config.frame_feature_dim, config.num_answers, config.backbone_config
        )
        self._build()
        self.post_init()

    def _build(self) -> None:
        """Build what a method adds to its backbone."""

    @can_return_tuple
    def forward(
        self,
        frame_features: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        choice_input_ids: Tensor | None = None,
        choice_attention_mask: Tensor | None = None,
        frame_mask: Tensor | None = None,
        question_features: Tensor | None = None,
        choice_features: Tensor | None = None,
        video_index: Tensor | None = None,
        video_ids: Tensor | None = None,
        labels: Tensor | None = None,
        object_features: Tensor | None = None,
        object_boxes: Tensor | None = None,
        object_mask: Tensor | None = None,
        output_evidence: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> VideoQAOutput:
        """Answer questions about clips.

        Args:
            frame_features: (V, T, C); V = B, or fewer clips than questions together with `video_index`. A clip is
                encoded once, whatever the number of its questions.
            input_ids, attention_mask: (B, L) the question.
            choice_input_ids, choice_attention_mask: (B, A, L) question and choice as one string; a row of zeros in the
                mask is an absent choice. Multiple choice only.
            frame_mask: (V, T) bool, False at padding.
            question_features, choice_features: (B, L, D_text) and (B, A, L, D_text) token features instead of ids.
            video_index: (B,) the clip of each question.
            video_ids: (B,) int, clips of one video share an id and lend each other no frames; None: every clip is a
                video of its own.
            labels: (B,) index of the right answer.
            object_features, object_boxes, object_mask: not read; a collator gives all that a feature set holds.
            output_evidence: also say which frames the answer should rest on, where the model would not do so by
                itself (EIGV); None: as the config says.
            kwargs: `return_dict`, `output_hidden_states`.

        Raises:
            CausalVideoError: a wrong shape, an empty question, a label outside the answers, a clip without frames.
        """
        record = self._check_kwargs(kwargs)
        batch = read_batch(
            self,
            frame_features=frame_features,
            input_ids=input_ids,
            attention_mask=attention_mask,
            choice_input_ids=choice_input_ids,
            choice_attention_mask=choice_attention_mask,
            frame_mask=frame_mask,
            question_features=question_features,
            choice_features=choice_features,
            video_index=video_index,
            video_ids=video_ids,
            with_question=self._asks_question(),
        )
        batch.frames = self.backbone.embed_frames(batch.frames)  # (V, T, E)
        if self.training and labels is not None:
            output = self._step(batch, labels)
            output.losses = self._every_term(cast(dict[str, Tensor], output.losses))
        else:
            output = self._predict(batch, output_evidence)
            if labels is not None:
                losses = {"answer": answer_loss(cast(Tensor, output.logits), labels)}
                output = self._add_losses(output, losses, {"answer": 1.0})
        if record:
            encoded = self.backbone.encode_video(batch.frames, batch.frame_mask)
            output["hidden_states"] = (batch.frames, encoded.frames)
        return output

    def encode_texts(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return inputs of `forward` with token features in place of ids."""
        return encode_texts(self, inputs, self._asks_question())

    def _step(self, batch: Batch, labels: Tensor) -> VideoQAOutput:
        """Compute the output and the loss terms of a training step."""
        output = self._predict(batch, None)
        losses = {"answer": answer_loss(cast(Tensor, output.logits), labels)}
        return self._add_losses(output, losses, {"answer": 1.0})

    def _predict(self, batch: Batch, output_evidence: bool | None) -> VideoQAOutput:
        """Answer from the whole clip."""
        question = self._encode(batch.strings)
        video = self.backbone.encode_video(batch.frames, batch.frame_mask)
        logits = self._logits(batch, self._fuse(question, video, batch.rows[batch.string_samples]))
        return self._whole_clip(batch, logits)

    def _whole_clip(self, batch: Batch, logits: Tensor) -> VideoQAOutput:
        """Return the output of an answer that rests on every frame: all are kept, padding repeats the first one."""
        mask = batch.frame_mask[batch.rows]  # (B, T)
        positions = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
        # padding repeats the first real frame, so that every slot names evidence
        first = mask.int().argmax(1, keepdim=True)
        scores = logits.new_zeros(mask.shape).masked_fill(~mask, -torch.inf)
        return VideoQAOutput(logits=logits, frame_scores=scores, kept_frames=torch.where(mask, positions, first))

    def _encode(self, strings: EncodedText) -> Question:
        return self.backbone.encode_question(strings.tokens, strings.mask)

    def _fuse(self, question: Question, video: Video, video_rows: Tensor) -> Tensor:
        """Fuse every question row with the clip that `video_rows` (R,) names."""
        rows = torch.arange(len(question.pooled), device=video_rows.device)
        return self.backbone.fuse_pairs(question, video, rows, video_rows)

    def _logits(self, batch: Batch, joint: Tensor) -> Tensor:
        """Score joint vectors (R, J) as (B, A); an absent choice gets the lowest finite logit."""
        return batch.logits(self.backbone.answer(joint))

    @staticmethod
    def _add_losses(output: VideoQAOutput, losses: dict[str, Tensor], weights: dict[str, float]) -> VideoQAOutput:
        """Put the loss and its terms in front of an output, where a tuple has them."""
        loss = torch.stack([weights[name] * term for name, term in losses.items()]).sum()
        return VideoQAOutput(loss=loss, losses=losses, **output)

    def _term_names(self) -> tuple[str, ...]:
        """Return the loss terms that some step of a training with this config has."""
        return ("answer",)

    def _every_term(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add a 0 without gradient for every term that this step leaves out.

        Why: what gathers, compiles or logs outputs relies on as many leaves, by the same names, in every step.
        """
        nothing = losses["answer"].detach().new_zeros(())
        return {name: losses.get(name, nothing) for name in self._term_names()}

    def _asks_question(self) -> bool:
        """Return whether the question is encoded by itself, in addition to the strings that are scored."""
        return False
