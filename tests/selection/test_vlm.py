"""The binding on tiny random Qwen2.5-VL, Qwen3-VL, LLaVA-OneVision, SmolVLM and InternVL, processor and model.

Needs torchvision (and num2words for SmolVLM), which the library's video processors import; beside CPU torch see
`tests/torchvision_operators.py`.
"""

import importlib.util

import numpy as np
import pytest
import torch

from hf_causal_video.selection import (
    FrameSelector,
    Ranking,
    TokenBudget,
    UniformSelector,
    bind_selector,
    count_visual_tokens,
    visual_tokens,
)
from hf_causal_video.utils.errors import CausalVideoError
from tests.selection import tiny_vlm

pytest.importorskip("torchvision", reason="video processors of transformers need torchvision")

VIDEO = np.random.default_rng(0).integers(0, 255, (24, 40, 48, 3), dtype=np.uint8)
RATE = {"total_num_frames": 24, "fps": 4.0, "duration": 6.0, "height": 40, "width": 48}
PICKED = [3, 4, 11, 17]


class Pick(FrameSelector):
    """Takes four frames that lie unevenly, then the others in order."""

    def rank(self, clip, question, choices):
        scores = -np.arange(len(clip), dtype=float)
        scores[PICKED] = 1.0
        return Ranking(scores, "that were picked")


@pytest.fixture(scope="module", params=tiny_vlm.FAMILIES)
def vlm(request):
    if request.param == "smolvlm" and importlib.util.find_spec("num2words") is None:
        pytest.skip("num2words is not installed, and SmolVLM's processor needs it")
    model, processor = tiny_vlm.build(request.param)
    return request.param, model.eval(), processor


def ask(processor, video=VIDEO, metadata=RATE, **options):
    content = [{"type": "video", "video": "clip"}, {"type": "text", "text": "what is the star doing"}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    given = {} if metadata is None else {"video_metadata": [metadata]}
    return processor(text=[text], videos=[video], return_tensors="pt", **given, **options)


def pixels(inputs):
    return inputs["pixel_values_videos"] if "pixel_values_videos" in inputs else inputs["pixel_values"]


def test_the_model_sees_exactly_the_chosen_frames_and_answers(vlm):
    _, model, processor = vlm
    with bind_selector(processor, Pick(), "what", 4):
        bound = ask(processor)
    by_hand = ask(processor, VIDEO[PICKED], {**RATE, "frames_indices": np.array(PICKED)}, do_sample_frames=False)
    assert torch.equal(pixels(bound), pixels(by_hand)) and torch.equal(bound["input_ids"], by_hand["input_ids"])
    answer = model.generate(**bound, max_new_tokens=3, do_sample=False)
    assert answer.shape[1] > bound["input_ids"].shape[1]
    assert torch.equal(answer, model.generate(**by_hand, max_new_tokens=3, do_sample=False))


def test_the_metadata_holds_the_chosen_frames_and_their_seconds(vlm):
    _, _, processor = vlm
    with bind_selector(processor, Pick(), "what", 4):
        seen = processor.video_processor([VIDEO], video_metadata=[RATE], return_metadata=True)["video_metadata"][0]
    assert list(seen.frames_indices) == PICKED and seen.timestamps == [0.75, 1.0, 2.75, 4.25]


def test_the_processor_is_the_same_before_and_after_also_after_an_error(vlm):
    _, _, processor = vlm
    whole = {**RATE, "frames_indices": np.arange(24)}
    before, text = ask(processor, VIDEO, whole, do_sample_frames=False), processor.to_json_string()
    for budget in (4, 0):
        try:
            with bind_selector(processor, Pick(), "what", budget):
                assert processor.to_json_string() == text
                ask(processor)
        except CausalVideoError:
            assert budget == 0
        after = ask(processor, VIDEO, whole, do_sample_frames=False)
        assert after.keys() == before.keys() and processor.to_json_string() == text
        assert torch.equal(pixels(after), pixels(before)) and torch.equal(after["input_ids"], before["input_ids"])


def test_a_token_budget_is_the_most_frames_that_fit_also_inside_a_binding(vlm):
    _, _, processor = vlm
    for frames in (2, 4, 8):
        limit = visual_tokens(processor, frames, 40, 48)
        with bind_selector(processor, UniformSelector(), None, TokenBudget(limit, processor)) as bound:
            inputs = ask(processor)
        taken = len(bound.selections[0].frame_indices)
        assert count_visual_tokens(processor, inputs["input_ids"]) <= limit and taken >= frames
        assert visual_tokens(processor, taken + 1, 40, 48) > limit
    with pytest.raises(CausalVideoError, match="tokens of one frame"):
        with bind_selector(processor, UniformSelector(), None, TokenBudget(1, processor)):
            ask(processor)


def test_a_budget_of_one_frame_is_served(vlm):
    _, model, processor = vlm
    with bind_selector(processor, Pick(), "what", 1):
        inputs = ask(processor)
    assert model(**inputs).logits.isfinite().all()


def test_seconds_in_the_prompt_are_the_true_ones():
    _, processor = tiny_vlm.build("qwen3_vl")
    times = np.linspace(0, 1, 24) ** 2 * 30 + np.arange(24) * 1e-3
    with bind_selector(processor, Pick(), "what", 4, timestamps_s=times):
        words = processor.tokenizer.decode(ask(processor, metadata=None)["input_ids"][0]).replace(" ", "")
    pairs = [np.mean(times[PICKED[:2]]), np.mean(times[PICKED[2:]])]  # Qwen3-VL merges frames in pairs
    for second in pairs:
        assert f"<{second:.1f}seconds>" in words


def test_the_mean_spacing_that_qwen2_5_vl_is_told_is_that_of_the_chosen_frames():
    _, processor = tiny_vlm.build("qwen2_5_vl")
    with bind_selector(processor, Pick(), "what", 4):
        assert ask(processor)["second_per_grid_ts"] == pytest.approx([2 / (4 / 6.0)])


def test_an_image_processor_and_half_a_processor_are_refused():
    _, processor = tiny_vlm.build("qwen2_5_vl")
    with pytest.raises(CausalVideoError, match="cannot be bound"):
        with bind_selector(processor.image_processor, Pick(), "what", 4):
            pass
    with pytest.raises(CausalVideoError, match="without a video token"):
        visual_tokens(processor.video_processor, 4, 40, 48)
