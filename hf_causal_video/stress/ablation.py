"""Proof of evidence: ask again with the kept frames alone, and again without the event that they show.

Why: a model can point anywhere. If its answer survives on the frames it points at, and falls without them, the frames
were not decoration: sufficiency and necessity in the sense of the thesis, section 1.2.

The rule of removal, the same in the pipeline, the app and the stress test: a frame between two kept frames shows what
they show, so taking away the kept frames alone proves nothing. What is taken away is the *event*: the kept frames and
every short gap between them (`event_frames`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from hf_causal_video.models.frame_times import frame_slices
from hf_causal_video.models.outputs import Evidence, VideoQAOutput
from hf_causal_video.models.spans import kept_frames_to_spans
from hf_causal_video.models.verdict import Verdict, unique_labels
from hf_causal_video.utils.errors import require

SHORT_GAP = 1 / 8  # of the clip


def event_frames(kept: Tensor, frame_mask: Tensor, timestamps_s: Tensor | None = None) -> Tensor:
    """Kept frames and the short gaps between them.

    A gap is short if it is a single frame, or lasts at most an eighth of the clip.

    Args:
        kept: (B, T) bool, the frames that an answer rests on.
        frame_mask: (B, T) True at real frames.
        timestamps_s: (T,) or (B, T) seconds; without them every frame lasts equally long.

    Returns:
        (B, T) bool.

    Example:
        >>> kept = torch.tensor([[0, 1, 0, 1, 0, 0, 0, 0, 0, 1]]).bool()
        >>> event_frames(kept, torch.ones(1, 10).bool()).int().tolist()
        [[0, 1, 1, 1, 0, 0, 0, 0, 0, 1]]
    """
    real = frame_mask.bool()
    kept = kept.bool() & real
    length = real.double()  # (B, T) how long each frame lasts
    if timestamps_s is not None:
        slices = frame_slices(timestamps_s.to(real.device).expand(real.shape), real)  # (B, T, 2)
        length = slices[..., 1] - slices[..., 0]
    until = length.cumsum(1)  # (B, T), with the frame itself
    count = real.long().cumsum(1)
    indices = torch.arange(real.shape[1], device=real.device).expand(real.shape)
    last = real.shape[1] - 1
    before = indices.masked_fill(~kept, -1).cummax(1).values  # (B, T) kept frame at or before each frame, or -1
    after = indices.masked_fill(~kept, last + 1).flip(1).cummin(1).values.flip(1)  # the same at or after, or T
    between = (before >= 0) & (after <= last)
    before, after = before.clamp(min=0), after.clamp(max=last)
    # what lies strictly between the two: up to the later one, without it, and without all up to the earlier one
    seconds = (until - length).gather(1, after) - until.gather(1, before)
    frames = (count - real.long()).gather(1, after) - count.gather(1, before)
    short = (frames <= 1) | (seconds <= SHORT_GAP * until[:, -1:] + 1e-6)
    return kept | (between & short & real)


def evidence_masks(
    output: VideoQAOutput, frame_mask: Tensor, timestamps_s: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Frame masks that leave only the evidence, and all but the event that it shows.

    Args:
        output: of a model that keeps frames (`kept_frames`) or calls frames causal (`causal_mask`); on any device.
        frame_mask: (B, T) True at real frames.
        timestamps_s: as in `event_frames`.

    Returns:
        Two (B, T) bool masks, on the device of `frame_mask`.

    Raises:
        CausalVideoError: an output that singles out no frames.

    Example:
        >>> output = VideoQAOutput(kept_frames=torch.tensor([[0, 2]]))
        >>> [mask.int().tolist() for mask in evidence_masks(output, torch.tensor([[True, True, True, True]]))]
        [[[1, 0, 1, 0]], [[0, 0, 0, 1]]]
    """
    kept_frames = output.kept_frames
    causal = output.causal_mask
    require(
        kept_frames is not None or causal is not None,
        "no evidence",
        found="an output with neither kept_frames nor causal_mask: this model singles out no frames",
        expected="a model that does, such as TranSTR, IGV or EIGV",
        fix="wrap this backbone in IGV or EIGV, or test it against annotated spans (evidence='truth')",
    )
    real = frame_mask.bool()
    if causal is not None:
        kept = causal.to(real.device) > 0.5  # (B, T)
    else:
        assert kept_frames is not None
        kept = torch.zeros_like(real).scatter(1, kept_frames.to(real.device).long(), True)
    return kept & real, ~event_frames(kept, real, timestamps_s) & real


@dataclass
class Proof:
    """Answers with and without the evidence.

    Args:
        only: (B, A) probabilities from the evidence alone, NaN where no frame is left.
        without: (B, A) probabilities without the event, likewise.
        removed: (B, T) bool, the frames taken away.
    """

    only: Tensor
    without: Tensor
    removed: Tensor


@torch.inference_mode()
def scores_of_evidence(
    model: nn.Module, inputs: Mapping[str, Tensor], output: VideoQAOutput, timestamps_s: Tensor | None = None
) -> Proof:
    """Answer probabilities from the evidence alone, and without the event that it shows.

    Texts do not depend on the frames: pass inputs that went through `model.encode_texts`, and the text encoder, most
    of the cost, runs once for all answers. Frames are encoded again, since they attend to each other.

    Args:
        model: the model in evaluation mode.
        inputs: what `output` was computed from; with `video_index` where questions share a clip.
        output: its output.
        timestamps_s: (T,) or (B, T) seconds of the frames.
    """
    features = inputs["frame_features"]
    whole = inputs.get("frame_mask", torch.ones(features.shape[:2], dtype=torch.bool, device=features.device))
    clip_of = inputs.get("video_index", torch.arange(len(features), device=features.device))  # (B,)
    clips = {name: value for name, value in inputs.items() if name.startswith(("frame_", "object_"))}
    texts = {name: value for name, value in inputs.items() if name not in (*clips, "video_index", "labels")}

    def ask(mask: Tensor) -> Tensor:
        left = mask.any(1).nonzero().squeeze(1)  # questions that have a frame left
        scores = mask.new_full((len(mask), output.logits.shape[1]), torch.nan, dtype=torch.float32)  # type: ignore[union-attr]
        if len(left):
            rows = {name: value[clip_of[left]] for name, value in clips.items()} | {"frame_mask": mask[left]}
            logits = model(**{name: value[left] for name, value in texts.items()}, **rows).logits
            scores[left] = logits.float().softmax(-1)
        return scores

    only, without = evidence_masks(output, whole[clip_of], timestamps_s)
    return Proof(ask(only), ask(without), ~without & whole[clip_of])


def judge(
    evidence: Evidence, words: Sequence[str], proof: Proof, row: int = 0, timestamps_s: Tensor | None = None
) -> Verdict:
    """Say whether the evidence of one answer was sufficient and necessary.

    Args:
        evidence: the answer.
        words: every answer of the model, by index; `evidence.choices` are among them.
        proof: of `scores_of_evidence`.
        row: which question of the proof.
        timestamps_s: (T,) seconds of the frames.

    Example:
        >>> evidence = Evidence("run", 0, 0.9, [0.9, 0.1], ["run", "sit"])
        >>> proof = Proof(torch.tensor([[0.8, 0.2]]), torch.tensor([[0.3, 0.7]]), torch.tensor([[False, True]]))
        >>> verdict = judge(evidence, ["run", "sit"], proof)
        >>> verdict.sufficient, verdict.necessary, verdict.answer_without
        (True, True, 'sit')
    """
    verdict = Verdict()
    if len(words) == len(evidence.choices):
        shown = list(range(len(words)))
    else:  # the likeliest words of a vocabulary, which are all different
        shown = [list(words).index(word) for word in evidence.choices]
    views: dict[Literal["only", "without"], Tensor] = {"only": proof.only, "without": proof.without}
    for name, scores in views.items():
        if scores[row].isnan().any():
            continue
        best = int(scores[row, : len(words)].argmax())
        # the answer then may be a word that was not among the likeliest before
        listed = shown if best in shown else [*shown, best]
        labels = unique_labels([words[index] for index in listed])
        values = {label: float(scores[row, index]) for label, index in zip(labels, listed, strict=True)}
        verdict.record(name, values, words[best], words[best] == evidence.answer)
    if timestamps_s is not None and proof.removed[row].any():
        removed = proof.removed[row : row + 1, : len(timestamps_s)].cpu()
        verdict.removed_s = [(start, end) for start, end, _ in kept_frames_to_spans(removed, timestamps_s)[0]]
    return verdict
