"""Laws of the conversion of original IGV and EIGV checkpoints: exact or refused, in both layouts of IGV."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModel

from hf_causal_video.hub import convert_official_checkpoint
from hf_causal_video.hub.convert.command import command
from hf_causal_video.hub.convert.grounding import CLASSES, PRESETS, renamed
from hf_causal_video.utils.errors import CausalVideoError

# Keys and elements of the released modules: methods.md, section 7. IGV on MSRVTT-QA differs by its answers alone.
PUBLISHED = {
    ("igv", "msvd-hga"): (212, 37_229_374),
    ("igv", "msrvtt-hga"): (212, 37_229_374 + (5001 - 1853) * 1025),
    ("eigv", "nextqa-hga"): (214, 39_727_362),
    ("eigv", "msvd-hga"): (214, 40_380_222),
    ("eigv", "msrvtt-hga"): (214, 43_606_922),
    ("eigv", "nextqa-comem"): (68, 17_390_339),
    ("eigv", "msvd-comem"): (72, 58_234_175),
    ("eigv", "msrvtt-comem"): (72, 64_684_427),
    ("eigv", "nextqa-mspan"): (88, 18_373_635),
    ("eigv", "msvd-mspan"): (88, 19_323_711),
    ("eigv", "msrvtt-mspan"): (88, 20_938_635),
}
every_variant = pytest.mark.parametrize(("method", "variant"), PUBLISHED)
SMALL: dict[str, dict[str, Any]] = {
    "hga": {"hidden_dim": 6, "word_dim": 7, "bilinear_dim": 8, "bilinear_chunks": 4, "bilinear_rank": 3},
    "comem": {"hidden_size": 8, "word_dim": 7, "appearance_dim": 5},
    "mspan": {"hidden_size": 8},
}


def released(model: torch.nn.Module, method: str, top_level: bool = False) -> dict[str, Tensor]:
    """A state_dict under the names that the released code saves."""
    found: dict[str, Tensor] = {}
    numbers: Counter[tuple] = Counter()  # chunks of a fusion so far
    for key, tensor in model.state_dict().items():
        key = key.removeprefix("backbone.")
        key = re.sub(r"\.([gv])$", r".weight_\1", key)
        if method == "eigv" or top_level:
            key = key.removeprefix("indicator.")
        if match := re.fullmatch(r"(.*fusion)\.merge([01])(?:_rest)?\.(weight|bias)", key):
            for chunk in tensor:
                number = numbers[match.groups()]
                numbers[match.groups()] += 1
                found[f"{match[1]}.merge_linears{match[2]}.{number}.{match[3]}"] = chunk.clone()
        else:
            found[key] = tensor.clone()
    return found


def build(method: str, variant: str, **fields: Any) -> torch.nn.Module:
    config, model = CLASSES[method]
    return model(config.preset(PRESETS[method][variant], **fields)).eval()


def small(method: str, variant: str, **fields: Any) -> torch.nn.Module:
    sizes = {"text_feature_dim": 9, "frame_feature_dim": 11, "backbone_config": SMALL[variant.split("-")[1]]}
    answers = {} if variant.startswith("nextqa") else {"num_answers": 13}
    return build(method, variant, **sizes | answers | ({"projection_dim": 5} if method == "eigv" else {}) | fields)


@every_variant
def test_full_size_models_have_the_published_tensors(method: str, variant: str) -> None:
    with torch.device("meta"):
        model = build(method, variant)
    tensors = released(model, method)
    assert (len(tensors), sum(tensor.numel() for tensor in tensors.values())) == PUBLISHED[method, variant]
    assert renamed(tensors).keys() == model.state_dict().keys()


@every_variant
def test_a_converted_checkpoint_answers_as_its_source(method: str, variant: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = small(method, variant)
    model = convert_official_checkpoint(released(source, method), method, variant)
    assert not model.training and model.config.to_dict() == source.config.to_dict()
    strings = torch.randn(3, 5, 4, 9) if variant.startswith("nextqa") else torch.randn(3, 4, 9)
    inputs = {"choice_features" if strings.dim() == 4 else "question_features": strings}
    inputs["frame_features"] = torch.randn(3, 6, 11)

    def answer(model: torch.nn.Module) -> Tensor:
        torch.manual_seed(1)  # IGV as released also samples at test time
        with torch.no_grad():
            return model(**inputs).logits

    assert torch.equal(answer(model), answer(source))
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path).eval()
    assert type(loaded) is type(source)
    torch.testing.assert_close(answer(loaded), answer(source))


@pytest.mark.parametrize(
    ("method", "variant"), [("igv", "msvd-hga"), ("eigv", "nextqa-comem"), ("eigv", "msrvtt-mspan")]
)
def test_the_command_turns_a_file_into_a_folder(method: str, variant: str, tmp_path: Path) -> None:
    torch.save(released(small(method, variant), method), tmp_path / "best.ckpt")
    flags = ["--method", method, "--variant", variant, "--output", str(tmp_path / "out")]
    assert command([str(tmp_path / "best.ckpt"), *flags]) == 0
    assert AutoModel.from_pretrained(tmp_path / "out").config.model_type == method


def test_both_layouts_of_igv_are_one_model() -> None:
    source = small("igv", "msvd-hga")
    old, new = (released(source, "igv", top_level) for top_level in (True, False))
    assert "fg_att.linear_q.weight" in old and "indicator.fg_att.linear_q.weight" in new
    one, other = (convert_official_checkpoint(tensors, "igv", "msvd-hga").state_dict() for tensors in (old, new))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_cell_and_every_width_are_read_off_the_tensors() -> None:
    source = small("eigv", "msvd-hga", backbone_config=SMALL["hga"] | {"cell": "gru", "gcn_layers": 3})
    model = convert_official_checkpoint(released(source, "eigv"), "eigv", "msvd-hga")
    assert model.config.backbone_config["cell"] == "gru" and model.config.backbone_config["gcn_layers"] == 3
    assert (model.config.num_answers, model.config.projection_dim) == (13, 5)


@pytest.mark.parametrize(("width", "chunks", "empty"), [(11, 4, 0), (10, 8, 0), (6, 4, 1), (7, 1, 0)])
def test_chunks_that_do_not_divide_a_width(width: int, chunks: int, empty: int) -> None:
    sizes = SMALL["hga"] | {"bilinear_dim": width, "bilinear_chunks": chunks}
    source = small("eigv", "msvd-hga", backbone_config=sizes)
    state = released(source, "eigv")
    for fusion in ("global_fusion", "fusion"):
        for side in (0, 1):
            for number in range(chunks - empty, chunks):  # published as layers of nothing
                state[f"{fusion}.merge_linears{side}.{number}.weight"] = torch.zeros(0, 0)
                state[f"{fusion}.merge_linears{side}.{number}.bias"] = torch.zeros(0)
    model = convert_official_checkpoint(state, "eigv", "msvd-hga")
    assert model.config.backbone_config | sizes == model.config.backbone_config
    for name, tensor in source.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("decoder.weight"), "no decoder.weight"),
        (lambda s: s.pop("decoder.bias"), "missing backbone.decoder.bias"),
        (lambda s: s.pop("fusion.merge_linears1.2.weight"), "chunks"),
        (lambda s: s.update({"telepathy.weight": torch.zeros(1)}), "unexpected backbone.telepathy.weight"),
        (lambda s: s.update({"fg_att.linear_q.bias": torch.zeros(3)}), r"fg_att.linear_q.bias of shape \(3,\)"),
        (lambda s: s.update({"bank": torch.zeros(1)}), "unexpected backbone.bank"),
    ],
)
def test_anything_missing_or_left_over_is_named(change, words: str) -> None:
    state = released(small("eigv", "msvd-hga"), "eigv")
    change(state)
    with pytest.raises(CausalVideoError, match=words) as caught:
        convert_official_checkpoint(state, "eigv", "msvd-hga")
    assert caught.value.fix


@pytest.mark.parametrize(
    ("method", "variant", "words"),
    [
        ("eigv", "next", "found 'next'.*nextqa-hga"),
        ("igv", "nextqa-hga", "found 'nextqa-hga'.*msvd-hga"),
        ("eigv", "nextqa-hga", "found 13 answers; expected 1 in official-nextqa-hga"),
        ("eigv", "msvd-comem", "no vid_encoder.rnn_app_l1.weight_ih_l0"),
        ("igv", "msvd-hga", "unexpected project_head.1.weight"),
    ],
)
def test_the_wrong_name_is_refused(method: str, variant: str, words: str) -> None:
    state = released(small("eigv", "msvd-hga"), "eigv")
    with pytest.raises(CausalVideoError, match=words):
        convert_official_checkpoint(state, method, variant)


def test_fields_that_no_tensor_tells_are_overridden() -> None:
    state = released(small("eigv", "msvd-hga"), "eigv")
    fields = {"gumbel_tau": 0.5, "backbone_config": {"dropout": 0.0}}
    config = convert_official_checkpoint(state, "eigv", "msvd-hga", fields).config
    assert config.gumbel_tau == 0.5 and config.backbone_config["dropout"] == 0.0
    assert config.backbone_config["pool_mask"] == "post" and config.negatives_layout == "legacy"
    with pytest.raises(CausalVideoError, match="gumbel_tua"):
        convert_official_checkpoint(state, "eigv", "msvd-hga", {"gumbel_tua": 0.5})
