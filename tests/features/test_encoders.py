"""Laws of the encoders: any backbone or detector of transformers, the same numbers in any batch, the layer it says."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from hf_causal_video.features import FrameEncoder, ObjectEncoder
from hf_causal_video.utils.errors import CausalVideoError

PICTURES = [np.random.default_rng(i).integers(0, 256, (48, 64, 3), dtype=np.uint8) for i in range(5)]


@pytest.mark.parametrize("kind", ["vit", "clip_vision", "siglip", "dinov2", "resnet"])
def test_any_backbone_gives_one_vector_a_frame_in_any_batch(save_network, kind):
    encoder = FrameEncoder(save_network("backbone", kind), batch_size=2)
    features = encoder(PICTURES)
    assert features.shape == (5, encoder.dim) and features.dtype == torch.float32
    for picture, vector in zip(PICTURES, features, strict=True):
        torch.testing.assert_close(encoder([picture])[0], vector, atol=1e-5, rtol=1e-4)
    assert (features[0] - features[1]).abs().max() > 1e-4
    half = FrameEncoder(save_network("backbone", kind), dtype="bfloat16")(PICTURES)
    assert torch.nn.functional.cosine_similarity(half, features).min() > 0.99


def test_the_layer_is_what_its_name_says(save_network):
    folder = save_network("backbone", "siglip")
    model = AutoModel.from_pretrained(folder).eval()
    encoders = {layer: FrameEncoder(folder, layer) for layer in ("pooled", "cls", "mean", "projected")}
    inputs = encoders["cls"].processor(images=PICTURES, return_tensors="pt")
    with torch.no_grad():
        output = model.vision_model(**inputs)
    for layer, expected in {
        "pooled": output.pooler_output,
        "cls": output.last_hidden_state[:, 0],
        "mean": output.last_hidden_state.mean(1),
        "projected": output.pooler_output,
    }.items():
        torch.testing.assert_close(encoders[layer](PICTURES), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind, layer", [("resnet", "cls"), ("vit", "projected"), ("vit", "best")])
def test_a_layer_that_is_not_there_is_refused(save_network, kind, layer):
    with pytest.raises(CausalVideoError, match=layer):
        FrameEncoder(save_network("backbone", kind), layer)


def test_weights_that_are_not_there_are_refused_if_their_output_is_read(save_network, tmp_path):
    import shutil

    folder = shutil.copytree(save_network("backbone", "vit"), tmp_path / "vit")
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "pooler" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    assert FrameEncoder(str(folder), "cls")(PICTURES).shape == (5, 32)
    with pytest.raises(CausalVideoError, match="lacks weights.*pooler"):
        FrameEncoder(str(folder), "pooled")


def test_a_local_network_is_named_by_its_content(save_network, tmp_path):
    import shutil

    folder = shutil.copytree(save_network("backbone", "vit"), tmp_path / "moved")
    revision = FrameEncoder(save_network("backbone", "vit")).revision
    assert FrameEncoder(str(folder), revision=revision).revision == revision  # a move does not matter
    config = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps({**config, "image_mean": [0, 0, 0]}))
    with pytest.raises(CausalVideoError, match="is not the one asked for.*sha256-"):
        FrameEncoder(str(folder), revision=revision)


def test_networks_that_cannot_be_loaded_are_refused(tmp_path, save_network):
    with pytest.raises(CausalVideoError, match="cannot load the network"):
        FrameEncoder(str(tmp_path))
    with pytest.raises(CausalVideoError, match="unknown arithmetic"):
        FrameEncoder(save_network("backbone", "vit"), dtype="int8")


@pytest.mark.parametrize("kind", ["yolos", "detr", "rt_detr"])
def test_any_detector_gives_its_best_regions(save_network, kind):
    encoder = ObjectEncoder(save_network("detector", kind), num_objects=5, batch_size=2)
    found = encoder(PICTURES)
    assert found["object_features"].shape == (5, 5, encoder.dim)
    assert (found["object_scores"].diff(dim=1) <= 0).all() and (found["object_scores"] > 0).all()
    boxes = found["object_boxes"]
    assert boxes.min() >= 0 and boxes.max() <= 1 and (boxes[..., 2:] >= boxes[..., :2]).all()
    assert found["object_labels"].min() >= 0 and found["object_labels"].max() < 5
    for index, picture in enumerate(PICTURES):
        torch.testing.assert_close(encoder([picture])["object_scores"][0], found["object_scores"][index])


@pytest.mark.parametrize("kind", ["yolos", "detr", "rt_detr"])
def test_regions_agree_with_the_detectors_own_post_processing(save_network, kind):
    """Boxes, scores and labels are those transformers itself reports for the same picture."""
    encoder = ObjectEncoder(save_network("detector", kind), num_objects=12)
    found = {name: value[0] for name, value in encoder(PICTURES[:1]).items()}
    inputs = encoder.processor(images=PICTURES[:1], return_tensors="pt")
    with torch.no_grad():
        output = encoder.model(**inputs)
    theirs = encoder.processor.post_process_object_detection(output, threshold=0.0, target_sizes=[(1, 1)])[0]
    best = theirs["scores"].argmax()
    torch.testing.assert_close(found["object_scores"][0], theirs["scores"][best])
    torch.testing.assert_close(found["object_boxes"][0], theirs["boxes"][best].clamp(0, 1), atol=1e-5, rtol=1e-4)
    assert found["object_labels"][0] == theirs["labels"][best]


@pytest.mark.parametrize("kind", ["yolos", "detr"])  # the head of rt_detr also reads a reference point
def test_the_region_feature_is_the_state_its_box_was_read_from(save_network, kind):
    """Putting the kept states through the detector's own box head gives the kept boxes back."""
    encoder = ObjectEncoder(save_network("detector", kind), num_objects=4)
    found = encoder(PICTURES[:2])
    head = encoder.model.bbox_predictor
    with torch.no_grad():
        centre, size = head(found["object_features"]).sigmoid().split(2, -1)
    expected = torch.cat([centre - size / 2, centre + size / 2], -1).clamp(0, 1)
    torch.testing.assert_close(found["object_boxes"], expected, atol=1e-5, rtol=1e-4)


def test_what_scores_too_little_is_padding(save_network):
    folder = save_network("detector", "rt_detr")
    everything = ObjectEncoder(folder, num_objects=6)(PICTURES)
    threshold = float(everything["object_scores"].median())
    found = ObjectEncoder(folder, num_objects=6, threshold=threshold)(PICTURES)
    kept = everything["object_scores"] >= threshold
    assert 0 < kept.sum() < kept.numel()
    assert torch.equal(found["object_scores"] > 0, kept) and torch.equal(found["object_labels"] >= 0, kept)
    for name in ("object_features", "object_boxes"):
        assert (found[name][~kept] == 0).all() and torch.equal(found[name][kept], everything[name][kept])


def test_more_objects_than_proposals_is_refused(save_network):
    with pytest.raises(CausalVideoError, match="found 12 per frame; expected at least num_objects = 13"):
        ObjectEncoder(save_network("detector", "yolos"), num_objects=13)


def test_torchvision_is_not_needed(save_network):
    assert type(FrameEncoder(save_network("backbone", "vit")).processor).__name__.endswith("Pil")
    assert type(ObjectEncoder(save_network("detector", "detr"), 3).processor).__name__.endswith("Pil")
