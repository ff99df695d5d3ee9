"""Tiny random networks and generated clips for the feature tests."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf

SIZE = {"height": 32, "width": 32}
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}


def build_backbone(kind: str):
    """A tiny random vision network and its image processor."""
    torch.manual_seed(0)
    if kind == "vit":
        return hf.ViTModel(hf.ViTConfig(**SMALL)), hf.ViTImageProcessorPil(size=SIZE)
    if kind == "clip_vision":
        processor = hf.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=SIZE)
        return hf.CLIPVisionModel(hf.CLIPVisionConfig(**SMALL)), processor
    if kind == "siglip":
        text = {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "vocab_size": 99,
            "projection_size": 32,
        }
        config = hf.SiglipConfig(text_config=text, vision_config=SMALL)
        return hf.SiglipModel(config), hf.SiglipImageProcessorPil(size=SIZE)
    if kind == "dinov2":
        processor = hf.BitImageProcessorPil(size={"shortest_edge": 32}, crop_size=SIZE)
        return hf.Dinov2Model(hf.Dinov2Config(**SMALL)), processor
    config = hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    return hf.ResNetModel(config), hf.ConvNextImageProcessorPil(size={"shortest_edge": 32})


def build_detector(kind: str):
    """A tiny random detector and its image processor."""
    torch.manual_seed(1)
    resnet = {
        "model_type": "resnet",
        "embedding_size": 8,
        "hidden_sizes": [8, 16, 16, 16],
        "depths": [1, 1, 1, 1],
        "layer_type": "basic",
    }
    if kind == "yolos":
        config = hf.YolosConfig(**{**SMALL, "image_size": [64, 64]}, num_detection_tokens=12, num_labels=5)
        return hf.YolosForObjectDetection(config), hf.YolosImageProcessorPil(size={"height": 64, "width": 64})
    if kind == "detr":
        backbone = hf.ResNetConfig(**resnet, out_features=["stage4"])
        config = hf.DetrConfig(
            use_timm_backbone=False,
            backbone_config=backbone,
            d_model=32,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            num_queries=12,
            num_labels=5,
        )
        return hf.DetrForObjectDetection(config), hf.DetrImageProcessorPil(size={"height": 64, "width": 64})
    backbone = {**resnet, "model_type": "rt_detr_resnet", "out_features": ["stage2", "stage3", "stage4"]}
    config = hf.RTDetrConfig(
        backbone_config=backbone,
        encoder_hidden_dim=32,
        encoder_in_channels=[16, 16, 16],
        encoder_layers=1,
        encoder_ffn_dim=32,
        encoder_attention_heads=2,
        d_model=32,
        decoder_in_channels=[32, 32, 32],
        decoder_layers=1,
        decoder_ffn_dim=32,
        decoder_attention_heads=2,
        num_queries=12,
        num_labels=5,
        num_denoising=0,
    )
    return hf.RTDetrForObjectDetection(config), hf.RTDetrImageProcessorPil(size={"height": 64, "width": 64})


def build_text_encoder():
    """A tiny random BERT and a tokenizer over single letters and a few words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    torch.manual_seed(2)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "boy", "dog", "runs", "sits", "the"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    config = hf.BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return hf.BertModel(config), hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


@pytest.fixture(scope="session")
def save_network(tmp_path_factory):
    """A function that saves one of the tiny networks above and gives its folder; each is made once."""
    folders: dict[str, str] = {}
    builders = {"backbone": build_backbone, "detector": build_detector}

    def save(kind: str, name: str = "") -> str:
        if (kind + name) not in folders:
            folder = tmp_path_factory.mktemp(kind + name)
            for part in builders[kind](name) if name else build_text_encoder():
                part.save_pretrained(folder)
            folders[kind + name] = str(folder)
        return folders[kind + name]

    return save


def write_clip(path: Path, frames: int = 32, fps: int = 8, size: tuple[int, int] = (64, 48), **options) -> Path:
    """Write a clip whose frame k has the grey level 7k in every pixel, so that a frame tells its number."""
    import av

    times, rng = options.get("times"), np.random.default_rng(0)
    with av.open(str(path), "w", options=options.get("container", {})) as container:
        stream = container.add_stream(options.get("codec", "libx264"), rate=fps)
        stream.width, stream.height, stream.pix_fmt = *size, options.get("pix_fmt", "yuv420p")
        if stream.codec.name == "libx264":
            stream.options = {"g": str(options.get("gop", 8)), "crf": "10", "threads": "1"}
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(frames):
            noise = rng.integers(-20, 21, (size[1], size[0], 3)) if options.get("noise") else 0
            image = np.clip(np.full((size[1], size[0], 3), 7 * number % 256) + noise, 0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(times[number] * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="session")
def make_clip():
    """The function `write_clip`."""
    return write_clip


@pytest.fixture(scope="session")
def numbers_of():
    """A function that reads the numbers of `write_clip` frames back from their grey levels."""
    return lambda frames: [round(float(frame.mean()) / 7) for frame in frames]
