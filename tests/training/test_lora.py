"""LoRA finds query and value of every text encoder, and trains them and the method's own modules only."""

import pytest
import torch

from hf_causal_video.models import TranSTRConfig, TranSTRForVideoQuestionAnswering
from hf_causal_video.training.lora import add_lora
from hf_causal_video.utils.errors import CausalVideoError

SIZES = {"vocab_size": 20, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
SIZES["num_hidden_layers"] = 2
ENCODERS = {
    "bert": {},
    "roberta": {"pad_token_id": 1},
    "electra": {"embedding_size": 16},
    "deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False},
    "deberta-v2": {},
    "distilbert": {"dim": 16, "hidden_dim": 16, "n_heads": 2, "n_layers": 2, "vocab_size": 20},
    "modernbert": {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2},
    "mpnet": {},
}


def build(model_type: str) -> TranSTRForVideoQuestionAnswering:
    text = {"model_type": model_type, **({} if model_type == "distilbert" else SIZES), **ENCODERS.get(model_type, {})}
    own = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "frame_feature_dim": 8}
    return TranSTRForVideoQuestionAnswering(
        TranSTRConfig(text_config=text, object_feature_dim=8, num_frames_kept=2, num_objects_kept=2, **own)
    )


@pytest.mark.parametrize("model_type", sorted(ENCODERS))
def test_adapters_are_on_the_text_encoder_and_the_rest_is_trained(model_type: str):
    model = build(model_type)
    own = {name for name, _ in model.named_parameters() if not name.startswith("text_encoder.")}
    wrapped = add_lora(model, rank=2, alpha=8.0)
    trained = {name for name, parameter in wrapped.named_parameters() if parameter.requires_grad}
    adapters = {name for name in trained if "lora_" in name}
    assert adapters and all(".text_encoder." in name for name in adapters)
    assert len(trained - adapters) == len(own)
    assert any(".0." in name for name in adapters) and any(".1." in name for name in adapters)  # both layers


def test_adapters_begin_as_nothing():
    torch.manual_seed(0)
    model = build("bert").eval()
    inputs = {"input_ids": torch.tensor([[3, 4, 5]]), "frame_features": torch.randn(1, 4, 8)}
    inputs |= {"choice_input_ids": torch.tensor([[[3, 6], [3, 7]]]), "object_features": torch.randn(1, 4, 3, 8)}
    inputs["object_boxes"] = torch.rand(1, 4, 3, 4)
    before = model(**inputs).logits
    torch.testing.assert_close(add_lora(model, 2, 8.0).eval()(**inputs).logits, before)


def test_an_encoder_without_such_projections_is_refused():
    model = build("bert")
    model.config.text_config.model_type = "distilbert"  # whose names BERT does not have
    with pytest.raises(CausalVideoError, match="q_lin"):
        add_lora(model, 2, 8.0)
