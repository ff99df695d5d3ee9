"""A tiny dual encoder, a tiny untrained TranSTR that reads its features, and a clip: enough for every verb."""

import av
import numpy as np
import pytest
import torch
import transformers as hf

from hf_causal_video import TranSTRConfig, TranSTRForVideoQuestionAnswering, VideoQAProcessor
from hf_causal_video.worlds import tiny_text_config, world_tokenizer


@pytest.fixture(scope="session")
def dual_encoder(tmp_path_factory):
    """Folder of a tiny random CLIP with its tokenizer and image processor."""
    folder = tmp_path_factory.mktemp("clip model")
    side = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**side, "vocab_size": 99, "max_position_embeddings": 12, "eos_token_id": 3}
    eye = {**side, "image_size": 16, "patch_size": 8}
    torch.manual_seed(0)
    model = hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=eye, projection_dim=8))
    images = hf.CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    for part in (model, images, world_tokenizer()):
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, dual_encoder):
    """Folder of a tiny random TranSTR whose features are those of the dual encoder at eight moments."""
    from hf_causal_video.features.encoders import FrameEncoder
    from hf_causal_video.features.extractor import VideoFeatureExtractor

    folder, tokenizer = tmp_path_factory.mktemp("transtr"), world_tokenizer()
    extractor = VideoFeatureExtractor(FrameEncoder(str(dual_encoder), "projected"), sampling="uniform-8")
    torch.manual_seed(0)
    config = TranSTRConfig(
        text_config=tiny_text_config(len(tokenizer), 16, 1).to_dict(), hidden_size=16, num_attention_heads=2,
        intermediate_size=16, frame_feature_dim=8, num_frames_kept=3, num_objects_kept=0,
        feature_provenance=extractor.provenance.to_dict(),
    )  # fmt: skip
    TranSTRForVideoQuestionAnswering(config).save_pretrained(folder)
    VideoQAProcessor(tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def clip_file(tmp_path_factory):
    """Four seconds at eight frames a second; frame k has the grey level 7k."""
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(32):
            image = np.full((48, 64, 3), 7 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="session")
def word_networks(tmp_path_factory):
    """Folders of a tiny random classifier with label names, and of a tiny random text encoder."""
    folder, tokenizer = tmp_path_factory.mktemp("words"), world_tokenizer()
    torch.manual_seed(0)
    config = hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=2)
    config.id2label = {0: "star", 1: "moon"}
    text = hf.AutoModel.from_config(tiny_text_config(len(tokenizer), 16, 1))
    images = hf.ConvNextImageProcessorPil(size={"shortest_edge": 32})
    for part in (hf.ResNetForImageClassification(config), images):
        part.save_pretrained(folder / "eyes")
    for part in (text, tokenizer):
        part.save_pretrained(folder / "text")
    return folder / "eyes", folder / "text"
