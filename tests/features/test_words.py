"""Word eyes: a frame stands where its labels' words stand, provenance says so, and other networks are refused."""

import numpy as np
import pytest
import torch
import transformers as hf

from hf_causal_video.features import VideoFeatureExtractor
from hf_causal_video.features.extract import extract_folder
from hf_causal_video.features.store import FeatureStore
from hf_causal_video.features.words import WordEncoder, word_vectors
from hf_causal_video.selection import SimilaritySelector
from hf_causal_video.utils.errors import CausalVideoError
from hf_causal_video.worlds import tiny_text_config, world_tokenizer

NAMES = ["dark, night", "bright, day", "red"]


def save_text_encoder(folder, width):
    torch.manual_seed(width)
    tokenizer = world_tokenizer()
    hf.AutoModel.from_config(tiny_text_config(len(tokenizer), width, 1)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def save_classifier(folder, names):
    torch.manual_seed(0)
    config = hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3)
    if names:
        config.id2label = dict(enumerate(names))
    hf.ResNetForImageClassification(config).save_pretrained(folder)
    hf.ConvNextImageProcessorPil(size={"shortest_edge": 32}).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    return save_classifier(folder / "eyes", NAMES), save_text_encoder(folder / "text", 16)


@pytest.fixture(scope="module")
def encoder(networks):
    return WordEncoder(*networks, top=2)


def frames(count=5):
    return list(np.random.default_rng(0).integers(0, 255, (count, 40, 50, 3)).astype(np.uint8))


def test_a_frame_is_the_mean_of_its_likeliest_words_by_probability(encoder):
    pixels = encoder.processor(images=frames(), return_tensors="pt", input_data_format="channels_last")
    with torch.inference_mode():
        logits = encoder.model(**pixels).logits
    words = encoder.encode_text(["dark", "bright", "red"])
    for vector, row in zip(encoder(frames()), logits, strict=True):
        first, second = row.argsort(descending=True)[:2]
        p = row.softmax(-1)
        expected = p[first] * words[first] + p[second] * words[second]
        torch.testing.assert_close(vector, expected / expected.norm())


def test_a_sure_frame_is_its_word_and_similarity_finds_it():
    words = torch.nn.functional.normalize(torch.randn(3, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    vectors = word_vectors(torch.tensor([[0.0, 0, 30], [30, 0, 0], [0, 30, 0]]), words, top=3)
    torch.testing.assert_close(vectors, words[[2, 0, 1]])


def test_similarities_have_the_layout_of_transtr(encoder):
    features = encoder(frames())
    texts = ["dark", "red"]
    cosines = encoder.similarities(features, texts)
    assert cosines.shape == (2, 5, 1)
    torch.testing.assert_close(cosines[1, 3, 0], encoder.encode_text(texts)[1] @ features[3])
    with pytest.raises(CausalVideoError, match="frames of width 7; expected 16"):
        encoder.similarities(torch.zeros(5, 7), texts)


def test_a_feature_set_says_so_and_the_extractor_is_rebuilt_from_it(networks, make_clip, tmp_path):
    make_clip(tmp_path / "clip.mp4", frames=20, noise=True)
    eyes, text = networks
    extract_folder([tmp_path / "clip.mp4"], tmp_path / "set", eyes, sampling="uniform-4", label_words=text)
    store = FeatureStore.open(tmp_path / "set")
    card = store.provenance
    assert "likeliest labels, text sha256-" in card.frame_layer
    assert card.created_with["label_words"] == text and card.frame_dim == 16
    rebuilt = VideoFeatureExtractor.from_provenance(card)
    torch.testing.assert_close(rebuilt(tmp_path / "clip.mp4")[0].frame_features, store["clip"].frame_features)
    chosen = SimilaritySelector(rebuilt.frames).select(store["clip"], "red", 2)
    assert len(chosen.frame_indices) == 2


def test_another_text_encoder_is_refused_by_the_set(networks, make_clip, tmp_path):
    make_clip(tmp_path / "clip.mp4", frames=20)
    eyes, text = networks
    extract_folder([tmp_path / "clip.mp4"], tmp_path / "set", eyes, sampling="uniform-4", label_words=text)
    wider = save_text_encoder(tmp_path / "wider", 32)
    with pytest.raises(CausalVideoError, match="frame_dim 16"):
        extract_folder([tmp_path / "clip.mp4"], tmp_path / "set", eyes, sampling="uniform-4", label_words=wider)
    with pytest.raises(CausalVideoError, match="not the one asked for"):
        WordEncoder.from_provenance(FeatureStore.open(tmp_path / "set").provenance, label_words=wider)
    other = WordEncoder(eyes, wider)
    with pytest.raises(CausalVideoError, match="text vectors of width 32, frames of width 16"):
        SimilaritySelector(other).select(FeatureStore.open(tmp_path / "set")["clip"], "red", 2)


def test_a_classifier_without_label_names_is_refused(networks, tmp_path):
    nameless = save_classifier(tmp_path / "nameless", None)
    with pytest.raises(CausalVideoError, match="has no label names: found .'LABEL_0'"):
        WordEncoder(nameless, networks[1])
