"""Laws of caption features: one unit vector a second, whatever else is in the batch, with its source on record."""

import json
import zipfile

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from hf_causal_video.features import extract_captions, import_caption_features
from hf_causal_video.features.captions import TextEncoder
from hf_causal_video.features.store import FeatureStore
from hf_causal_video.utils.errors import CausalVideoError

CAPTIONS = {
    "v1": {"0": "a boy runs", "2": "the dog sits", "10": "the boy sits a a a a a a a", "1": "a dog"},
    "v2": {"0": "the the the", "1": "boy"},
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "captions").mkdir()
    for name, texts in CAPTIONS.items():
        (tmp_path / f"captions/{name}_cap.json").write_text(json.dumps(texts))
    return tmp_path / "captions"


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_each_second_becomes_its_own_sentence_vector(folder, save_network, tmp_path, pooling):
    model = save_network("text")
    report = extract_captions(folder, tmp_path / "set", model, pooling, batch_size=2, progress=False)
    assert report.written == ["v1", "v2"] and not report.failed
    store = FeatureStore.open(tmp_path / "set")
    row = store["v1"]
    assert row.timestamps_s.tolist() == [0, 1, 2, 10]  # in order of time, not of text
    torch.testing.assert_close(row.frame_features.float().norm(dim=-1), torch.ones(4), atol=1e-3, rtol=0)
    encoder = TextEncoder(model, pooling)
    alone = torch.cat([encoder([CAPTIONS["v1"][second]]) for second in ("0", "1", "2", "10")])
    torch.testing.assert_close(row.frame_features.float(), alone, atol=2e-3, rtol=0)  # padding does not matter
    assert store.provenance.frame_layer == f"captions, {pooling} of the last layer, L2"
    assert store.provenance.sampling == "captions-fps-1" and store.provenance.frame_revision.startswith("sha256-")


def test_mean_pooling_is_over_the_mask(save_network):
    encoder = TextEncoder(save_network("text"))
    inputs = encoder.tokenizer(["a boy runs"], return_tensors="pt")
    with torch.no_grad():
        mean = encoder.model(**inputs).last_hidden_state.mean(1)
    expected = torch.nn.functional.normalize(mean, dim=-1)
    together = encoder(["a boy runs", "the the the the the the the the the"])
    torch.testing.assert_close(together[:1], expected, atol=1e-5, rtol=1e-4)


def test_a_zip_equals_a_folder(folder, save_network, tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"inside/{file.name}")
    for source, output in ((folder, "a"), (tmp_path / "all.zip", "b")):
        extract_captions(source, tmp_path / output, save_network("text"), progress=False)
    for name in ("features/train-00000.parquet", "provenance.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("content", ["[]", "{}", "{", '{"0": ""}', '{"first": "a"}', '{"0": 3}'])
def test_a_bad_caption_file_is_listed_and_the_run_goes_on(folder, save_network, tmp_path, content):
    (folder / "bad_cap.json").write_text(content)
    report = extract_captions(folder, tmp_path / "set", save_network("text"), progress=False)
    assert report.written == ["v1", "v2"] and "bad_cap.json is not a caption file" in report.failed["bad"]


def test_a_folder_without_captions_is_refused(tmp_path, save_network):
    with pytest.raises(CausalVideoError, match="no captions in"):
        extract_captions(tmp_path, tmp_path / "set", save_network("text"))


def write_features(path, header=None, **changes):
    arrays = {
        "features": np.arange(12, dtype=np.float16).reshape(4, 3),
        "video_id": np.array([7, 7, 30, 7]),
        "second": np.array([2, 0, 0, 1], np.int32),
    }
    save_file({**arrays, **changes}, path, metadata={"encoder": "org/text", "pooling": "mean"} | (header or {}))
    return path


def test_ready_features_in_memory_and_on_disk_are_the_same(tmp_path):
    file = write_features(tmp_path / "f.safetensors")
    for store in (import_caption_features(file), import_caption_features(file, tmp_path / "set")):
        assert store.video_ids == ["7", "30"] and store.provenance.frame_model == "org/text"
        assert store["7"].timestamps_s.tolist() == [0, 1, 2]
        assert store["7"].frame_features[:, 0].tolist() == [3, 9, 0]


def test_ready_features_without_source_or_shape_are_refused(tmp_path):
    with pytest.raises(CausalVideoError, match="invalid encoder in the header of .*f.safetensors"):
        import_caption_features(write_features(tmp_path / "f.safetensors", {"encoder": ""}))
    with pytest.raises(CausalVideoError, match="does not hold caption features"):
        import_caption_features(tmp_path / "absent.safetensors")
    for output in (None, tmp_path / "set"):
        with pytest.raises(CausalVideoError, match="'7'.*do not increase"):
            twice = np.array([0, 0, 0, 1], np.int32)
            import_caption_features(write_features(tmp_path / "f.safetensors", second=twice), output)


def test_the_public_caption_features(shared):
    file = shared / "data/nextqa_captions/minilm_l6_v2_caption_features.safetensors"
    store = import_caption_features(file)
    assert len(store) == 570 and sum(len(row.timestamps_s) for row in store) == 24089
    assert store.provenance.frame_model.endswith("all-MiniLM-L6-v2") and store.provenance.frame_dim == 384
