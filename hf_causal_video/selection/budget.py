"""A budget in visual tokens: how many frames of this clip a language model's processor turns into so many tokens.

Why measured and not computed: the tokens of a frame depend on the picture's size, on pixel limits over the whole clip
and on frames merged in pairs, differently for each model. So the processor itself gets blank frames of the clip's
size, and the placeholders it writes are counted: the number is the one that the model will see.
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor
from transformers import ProcessorMixin

from hf_causal_video.selection.clip import Clip
from hf_causal_video.utils.checks import check_whole
from hf_causal_video.utils.errors import CausalVideoError, require


@dataclass
class TokenBudget:
    """At most this many visual tokens.

    Args:
        tokens: the limit.
        processor: the processor of the video language model (tokenizer and video processor together).
        size: height and width of the frames, needed only where a clip is given as features.
    """

    tokens: int
    processor: ProcessorMixin
    size: tuple[int, int] | None = None

    def in_frames(self, clip: Clip) -> int:
        """Count the most frames of the clip that stay within the limit.

        Raises:
            CausalVideoError: the limit is below one frame, or the size of the frames is not known.
        """
        size = clip.size or self.size
        if size is None:
            raise CausalVideoError(
                "a budget in tokens",
                found="a clip given as features",
                expected="the size of its frames, which decides the tokens of each",
                fix="pass TokenBudget(..., size=(height, width)), the clip itself, or a budget in frames",
            )
        low, high = 0, len(clip)  # low fits; counts above high do not
        while low < high:
            middle = (low + high + 1) // 2
            fits = visual_tokens(self.processor, middle, *size) <= self.tokens
            low, high = (middle, high) if fits else (low, middle - 1)
        if low == 0:
            least = visual_tokens(self.processor, 1, *size)  # of one frame
            fix = "raise it to the tokens of one frame, or lower the processor's size"
            check_whole("budget in visual tokens", self.tokens, least, fix=fix)
        return low


def visual_tokens(processor: ProcessorMixin, num_frames: int, height: int, width: int) -> int:
    """Count the visual tokens that a processor makes of a clip: placeholders that the model fills with pictures.

    Args:
        processor: of a video language model.
        num_frames: frames given to the model.
        height, width: of a frame in pixels.

    Raises:
        CausalVideoError: the processor has no video token.
    """
    from transformers.video_utils import VideoMetadata

    token = getattr(processor, "video_token", None)
    problem = f"{type(processor).__name__} without a video token"
    require(
        token is not None, "visual tokens", found=problem, expected="the whole processor of a video language model"
    )
    patch = getattr(getattr(processor, "video_processor", None), "temporal_patch_size", None) or 1
    num_frames = max(num_frames, patch)
    blank = np.zeros((num_frames, height, width, 3), np.uint8)
    metadata = VideoMetadata(num_frames, 1.0, width, height, float(num_frames), "blank", list(range(num_frames)))
    inputs = processor(
        text=[token], videos=[blank], video_metadata=[metadata], do_sample_frames=False, return_tensors="pt"
    )
    return count_visual_tokens(processor, inputs["input_ids"])


def count_visual_tokens(processor: ProcessorMixin, input_ids: Tensor | np.ndarray) -> int:
    """Count the placeholders of pictures among token ids (B, L)."""
    return int(np.isin(np.asarray(input_ids), visual_token_ids(processor)).sum())


def visual_token_ids(processor: ProcessorMixin) -> list[int]:
    """List the ids of the placeholders that a model fills with pictures."""
    names = ("video_token_id", "image_token_id")
    ids = [getattr(processor, name) for name in names if getattr(processor, name, None) is not None]
    return ids or [getattr(processor, "tokenizer").convert_tokens_to_ids(getattr(processor, "video_token"))]  # noqa: B009
