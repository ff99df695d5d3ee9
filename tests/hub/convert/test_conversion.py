"""Laws of the conversion of original checkpoints: exact or refused, and the sizes come from the tensors."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModel

from hf_causal_video.hub import convert_official_checkpoint
from hf_causal_video.models.transtr import TranSTRConfig, TranSTRForVideoQuestionAnswering
from hf_causal_video.utils.errors import CausalVideoError

TEXT = {
    "model_type": "deberta", "vocab_size": 40, "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1,
    "intermediate_size": 24, "max_position_embeddings": 32, "relative_attention": True, "type_vocab_size": 0,
    "position_biased_input": False, "pos_att_type": ["c2p", "p2c"],
}  # fmt: skip
# What the released classes hold at full size with microsoft/deberta-base: preset, elements outside the text encoder.
PUBLISHED = {
    "next": ("official-nextqa", 177_213_953),
    "causalvid": ("official-causalvidqa", 177_214_721),
    "msvd": ("official-msvdqa", 178_638_141),
    "msrvtt": ("official-msrvttqa", 181_058_953),
}
OVERRIDES = {"text_config": TEXT, "num_attention_heads": 2, "num_frames_kept": 3, "num_objects_kept": 2}
variants = pytest.mark.parametrize("variant", PUBLISHED)


def tiny(variant: str, **fields) -> TranSTRForVideoQuestionAnswering:
    sizes = {"hidden_size": 16, "frame_feature_dim": 16, "intermediate_size": 20, "object_feature_dim": 9}
    config = TranSTRConfig.preset(PUBLISHED[variant][0], **(sizes | OVERRIDES | fields))
    return TranSTRForVideoQuestionAnswering(config).eval()


def released(variant: str, **fields) -> tuple[dict[str, Tensor], TranSTRForVideoQuestionAnswering]:
    """A state_dict as the released code would save it, and the model it came from."""
    model = tiny(variant, **fields)
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}, model


@variants
def test_full_size_models_have_the_published_tensors(variant: str) -> None:
    preset, elements = PUBLISHED[variant]
    with torch.device("meta"):
        model = TranSTRForVideoQuestionAnswering(TranSTRConfig.preset(preset))
    tensors = model.state_dict()
    text = {name: tensor for name, tensor in tensors.items() if name.startswith("text_encoder.")}
    assert (len(tensors), len(text)) == (332, 196)
    assert sum(tensor.numel() for tensor in tensors.values()) == elements
    assert sum(tensor.numel() for tensor in text.values()) == 138_601_728
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values())


@variants
def test_a_converted_checkpoint_answers_as_its_source(variant: str, tmp_path: Path) -> None:
    state, source = released(variant, num_layers=2)
    model = convert_official_checkpoint(state, "transtr", variant, OVERRIDES)
    assert not model.training and model.config.num_layers == 2 and model.config.object_feature_dim == 9
    inputs = {
        "frame_features": torch.randn(2, 6, 16),
        "object_features": torch.randn(2, 6, 4, source.config.object_input_dim),
        "input_ids": torch.randint(5, 40, (2, 7)),
    }
    if source.config.num_answers is None:
        inputs["choice_input_ids"] = torch.randint(5, 40, (2, 5, 9))
    with torch.no_grad():
        wanted = source(**inputs).logits
        assert torch.equal(model(**inputs).logits, wanted)
        model.save_pretrained(tmp_path)
        torch.testing.assert_close(AutoModel.from_pretrained(tmp_path).eval()(**inputs).logits, wanted)


@pytest.mark.parametrize("answers", [3, 1853])
def test_the_answer_vocabulary_is_read_off_the_head(answers: int) -> None:
    state, _ = released("msvd", num_answers=answers)
    assert convert_official_checkpoint(state, "transtr", "msvd", OVERRIDES).config.num_answers == answers


def test_buffers_of_older_transformers_are_dropped() -> None:
    state, _ = released("next")
    state["text_encoder.embeddings.position_ids"] = torch.arange(32)[None]
    convert_official_checkpoint(state, "transtr", "next", OVERRIDES)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("fo_decoder.norm.bias"), "missing fo_decoder.norm.bias"),
        (lambda s: s.pop("classifier.weight"), "no classifier.weight"),
        (lambda s: s.update({"telepathy.weight": torch.zeros(1)}), "unexpected telepathy.weight"),
        (lambda s: s.update({"classifier.bias": torch.zeros(2)}), r"classifier.bias of shape \(2,\), not \(1,\)"),
        (lambda s: s.update({"text_encoder.pooler.weight": torch.zeros(1)}), "unexpected text_encoder.pooler.weight"),
    ],
)
def test_anything_missing_or_left_over_is_named(change, words: str) -> None:
    state, _ = released("next")
    change(state)
    with pytest.raises(CausalVideoError, match=words) as caught:
        convert_official_checkpoint(state, "transtr", "next", OVERRIDES)
    assert caught.value.fix


@pytest.mark.parametrize(
    ("method", "variant", "words"),
    [
        ("magic", "next", "found 'magic'"),
        ("transtr", "youtube", "found 'youtube'"),
        ("transtr", "msvd", "found 1 answers"),
    ],
)
def test_the_wrong_name_is_refused(method: str, variant: str, words: str) -> None:
    state, _ = released("next")
    with pytest.raises(CausalVideoError, match=words):
        convert_official_checkpoint(state, method, variant, OVERRIDES)


def test_a_field_that_is_none_is_refused() -> None:
    state, _ = released("next")
    with pytest.raises(CausalVideoError, match="num_frame_kept"):
        convert_official_checkpoint(state, "transtr", "next", OVERRIDES | {"num_frame_kept": 2})


def test_the_box_layout_of_another_dataset_is_noticed() -> None:
    state, _ = released("next", object_feature_dim=2048)
    with pytest.raises(CausalVideoError, match="objects of width 2052; expected 1 answers and objects of width 2053"):
        convert_official_checkpoint(state, "transtr", "causalvid", OVERRIDES)
