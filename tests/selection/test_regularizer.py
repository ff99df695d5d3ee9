"""Laws of the regulariser on five tiny random language models: what is swapped, what learns, what a step costs."""

import pytest
import torch

from hf_causal_video.selection.regularizer import (
    EnvironmentSwap,
    _Recorder,
    add_language_lora,
    answer_positions,
    frames_of_tokens,
    swap_sources,
    swap_tokens,
    swapped_arguments,
)
from hf_causal_video.utils.errors import CausalVideoError
from tests.selection import tiny_vlm


@pytest.fixture(scope="module", params=tiny_vlm.FAMILIES)
def case(request):
    """A model with LoRA, inputs by hand, and one causal frame a clip."""
    model = add_language_lora(tiny_vlm.build_model(request.param)).train()
    inputs, frames = tiny_vlm.inputs_by_hand(request.param)
    causal = torch.zeros(2, frames, dtype=torch.bool)
    causal[0, 0] = causal[1, frames - 1] = True
    return model, inputs, causal, tiny_vlm.visual_token_ids(request.param)


def record(model, inputs):
    swap = EnvironmentSwap(model, [0])
    with _Recorder(swap.language_model) as seen:
        output = model(**inputs, use_cache=False)
    return swap, seen.arguments, output


def test_the_loss_is_finite_and_gradients_reach_lora_weights_of_the_language_model_alone(case):
    model, inputs, causal, ids = case
    model.zero_grad()
    found = EnvironmentSwap(model, ids)(inputs, causal, step=0)
    found.loss.backward()
    assert found.loss.isfinite() and found.consistency.isfinite() and found.consistency > 0
    touched = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert touched and all("lora_" in name and "vision" not in name and "visual" not in name for name in touched)
    assert any(dict(model.named_parameters())[name].grad.abs().sum() > 0 for name in touched)


def test_causal_and_text_tokens_are_the_same_to_the_bit_and_environment_tokens_are_the_partners(case):
    model, inputs, causal, ids = case
    _, arguments, _ = record(model, inputs)
    is_visual = torch.isin(inputs["input_ids"], torch.tensor(ids))
    frame_of = frames_of_tokens(is_visual, causal.shape[1])
    again = swapped_arguments(arguments, swap_sources(frame_of, causal), is_visual)
    before, after = arguments["inputs_embeds"], again["inputs_embeds"]
    stays = (frame_of < 0) | causal.gather(1, frame_of.clamp(min=0))
    assert torch.equal(before[stays], after[stays]) and not torch.equal(before[~stays], after[~stays])
    for row in (0, 1):
        mine, theirs = (~causal[row]).nonzero().flatten(), (~causal[1 - row]).nonzero().flatten()
        for to, source in zip(mine, theirs, strict=True):
            assert torch.equal(after[row][frame_of[row] == to], before[1 - row][frame_of[1 - row] == source])


def test_the_second_pass_over_tokens_that_stay_gives_the_first_answer_again(case):
    """Else a cache or a layer of its own would let the first pass through."""
    model, inputs, _, ids = case
    model.eval()
    swap, arguments, output = record(model, inputs)
    is_visual = torch.isin(inputs["input_ids"], torch.tensor(ids))
    same = torch.arange(is_visual.numel()).view_as(is_visual)
    rows, places = answer_positions(inputs["labels"])
    hidden = swap.language_model(**swapped_arguments(arguments, same, is_visual)).last_hidden_state[rows, places]
    torch.testing.assert_close(swap.head(hidden), output.logits[rows, places], atol=1e-5, rtol=1e-5)
    model.train()


def test_the_second_pass_on_swapped_tokens_is_the_answer_to_swapped_pictures(case):
    """Where frames are encoded each by itself, exchanging tokens is exchanging pictures."""
    model, inputs, causal, ids = case
    pictures = next((inputs[n] for n in ("pixel_values", "pixel_values_videos") if n in inputs), None)
    if "video_grid_thw" in inputs:
        pytest.skip("Qwen's towers place and mix patches over the clip")
    model.eval()
    frames = pictures.reshape(2, causal.shape[1], *pictures.shape[-3:]).clone()
    exchanged = frames.clone()
    exchanged[0, ~causal[0]], exchanged[1, ~causal[1]] = frames[1, ~causal[1]], frames[0, ~causal[0]]
    name = "pixel_values" if "pixel_values" in inputs else "pixel_values_videos"
    rows, places = answer_positions(inputs["labels"])
    wanted = model(**{**inputs, name: exchanged.reshape(pictures.shape)}).logits[rows, places]
    swap, arguments, _ = record(model, inputs)
    is_visual = torch.isin(inputs["input_ids"], torch.tensor(ids))
    sources = swap_sources(frames_of_tokens(is_visual, causal.shape[1]), causal)
    hidden = swap.language_model(**swapped_arguments(arguments, sources, is_visual)).last_hidden_state[rows, places]
    torch.testing.assert_close(swap.head(hidden), wanted, atol=1e-5, rtol=1e-5)
    model.train()


def test_only_one_step_in_every_is_intervened_and_a_weight_of_zero_never(case):
    model, inputs, causal, ids = case
    swap = EnvironmentSwap(model, ids, every=3)
    assert [swap(inputs, causal, step).consistency is not None for step in range(5)] == [
        True,
        False,
        False,
        True,
        False,
    ]
    assert EnvironmentSwap(model, ids, weight=0.0)(inputs, causal, 0).consistency is None


def test_an_intervention_costs_one_pass_of_the_language_model_and_encodes_no_picture_again(case):
    """Counted, not timed: on one step in four this is at most a quarter of a step."""
    model, inputs, causal, ids = case
    swap, calls = EnvironmentSwap(model, ids, every=4), {"language": 0, "vision": 0}
    towers = [
        m for name, m in model.named_modules() if name.rsplit(".", 1)[-1] in ("visual", "vision_tower", "vision_model")
    ]
    outermost = towers[0]

    def count(name):
        def hook(*_):
            calls[name] += 1

        return hook

    hooks = [
        swap.language_model.register_forward_hook(count("language")),
        outermost.register_forward_hook(count("vision")),
    ]
    try:
        made = []
        for step in (1, 0):
            calls.update(language=0, vision=0)
            swap(inputs, causal, step)
            made.append(dict(calls))
    finally:
        for hook in hooks:
            hook.remove()
    plain, intervened = made
    assert plain["language"] == 1 and intervened["language"] == 2 and plain["vision"] == intervened["vision"] > 0


def test_swapping_back_restores_every_token():
    frame_of = torch.tensor([[-1, 0, 0, 1, 1, -1], [0, 0, 1, 1, -1, -1]])
    causal = torch.tensor([[True, False], [False, True]])
    tokens = torch.randn(2, 6, 3)
    sources = swap_sources(frame_of, causal)
    swapped = swap_tokens(tokens, sources)
    assert not torch.equal(swapped, tokens) and torch.equal(swap_tokens(swapped, sources), tokens)


@pytest.mark.parametrize(
    ("frame_of", "causal", "message"),
    [
        ([[0, 1]], [[True, False]], "another clip"),
        ([[0, 1], [0, 1]], [[True, False], [True, True]], "environment frames"),
        ([[0, 0, 1], [0, 1, -1]], [[False, True], [False, True]], "tokens"),
    ],
)
def test_clips_that_cannot_exchange_frames_are_refused(frame_of, causal, message):
    with pytest.raises(CausalVideoError, match=message):
        swap_sources(torch.tensor(frame_of), torch.tensor(causal))


def test_bad_input_is_named(case):
    model, inputs, causal, ids = case
    with pytest.raises(CausalVideoError, match="at least one for each of 99"):
        EnvironmentSwap(model, ids)(inputs, torch.zeros(2, 99, dtype=torch.bool), 0)
    with pytest.raises(CausalVideoError, match="labels"):
        EnvironmentSwap(model, ids)({k: v for k, v in inputs.items() if k != "labels"}, causal, 0)
    with pytest.raises(CausalVideoError, match="invalid every: found 0"):
        EnvironmentSwap(model, ids, every=0)
    with pytest.raises(CausalVideoError, match="no layer to adapt"):
        add_language_lora(model.get_base_model(), targets=["absent"])
