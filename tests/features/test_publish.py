"""A push that cannot be made is said in words, without the token; the push itself is tested over the loopback Hub."""

import pytest
import torch

from hf_causal_video.features.store import FeatureStore, FeatureWriter, Provenance, VideoFeatures
from hf_causal_video.utils.errors import CausalVideoError

SECRET = "hf_" + "abcdefghijklmnopqrstuvwxyz02"


@pytest.fixture
def store(tmp_path):
    card = Provenance("org/vit", "abc", "pooled", 6, sampling="uniform-2")
    with FeatureWriter(tmp_path, card) as writer:
        writer.add(VideoFeatures("a", torch.tensor([0.5, 1.5]), torch.ones(2, 6)))
    return FeatureStore.open(tmp_path)


def test_no_token(store, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(CausalVideoError, match="found no token.*hf auth login"):
        store.push_to_hub("org/features")


def test_no_network_and_no_name(store, monkeypatch):
    from huggingface_hub import HfApi

    def unreachable(*args, **options):
        raise ConnectionError(f"no route to host, header Bearer {SECRET}")

    with pytest.raises(CausalVideoError, match="pushing features to a//b.*check name") as caught:
        store.push_to_hub("a//b", token=SECRET)
    monkeypatch.setattr(HfApi, "create_repo", unreachable)
    with pytest.raises(CausalVideoError, match="no route to host.*check name, token and network") as caught:
        store.push_to_hub("org/features", token=SECRET)
    assert SECRET not in str(caught.value) and caught.value.__cause__ is None
