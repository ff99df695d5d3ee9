"""Did the evidence matter? Ask again with nothing but the kept frames, and again with everything but them.

Why: a model can point anywhere. If its answer survives the removal of the frames it points at, and falls without them,
the frames were not decoration: sufficiency and necessity in the sense of the thesis, section 1.2.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hf_causal_video.models.outputs import VideoQAOutput
from hf_causal_video.utils.errors import CausalVideoError


def evidence_masks(output: VideoQAOutput, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Frame masks that leave only the evidence, and all but the evidence.

    Args:
        output: of a model that keeps frames (`kept_frames`) or calls frames causal (`causal_mask`); on any device.
        frame_mask: (B, T) True at real frames.

    Returns:
        Two (B, T) bool masks, on the device of `frame_mask`.

    Raises:
        CausalVideoError: an output that singles out no frames.

    Example:
        >>> output = VideoQAOutput(kept_frames=torch.tensor([[0, 2]]))
        >>> [mask.int().tolist() for mask in evidence_masks(output, torch.tensor([[True, True, True, False]]))]
        [[[1, 0, 1, 0]], [[0, 1, 0, 0]]]
    """
    kept_frames, causal = output.kept_frames, output.causal_mask
    if kept_frames is None and causal is None:
        raise CausalVideoError(
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
    return kept & real, ~kept & real


@torch.inference_mode()
def scores_of_evidence(
    model: nn.Module, inputs: Mapping[str, Tensor], output: VideoQAOutput
) -> tuple[Tensor | None, Tensor | None]:
    """Answer probabilities from the evidence alone and from all the rest.

    Args:
        model: the model in evaluation mode.
        inputs: what `output` was computed from; with `video_index` where questions share a clip.
        output: its output.

    Returns:
        Two (B, A) tensors of probabilities. One is None where the model cannot run on so few frames: a selection of K
        frames cannot be made from fewer than K that are left.
    """
    features = inputs["frame_features"]
    whole = inputs.get("frame_mask", torch.ones(features.shape[:2], dtype=torch.bool, device=features.device))
    rows = inputs.get("video_index", torch.arange(len(features), device=features.device))
    clips = {name: inputs[name][rows] for name in inputs if name.startswith(("frame_", "object_"))}
    rest = {name: inputs[name] for name in inputs if name not in clips and name not in ("video_index", "labels")}

    def ask(mask: Tensor) -> Tensor | None:
        if not _enough(model, mask):
            return None
        return model(**rest, **{**clips, "frame_mask": mask}).logits.float().softmax(-1)

    only, without = evidence_masks(output, whole[rows])
    return ask(only), ask(without)


def _enough(model: nn.Module, mask: Tensor) -> bool:
    """Whether as many frames are left as the model keeps; a model that keeps no fixed number runs on one."""
    return int(mask.sum(1).min()) >= getattr(model.config, "num_frames_kept", 1)
