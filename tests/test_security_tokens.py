"""Whatever goes wrong between this machine and the Hub, the token is in no output, log, error, card or file.

Also where the Hub repeats what it was sent. Logs down to INFO: below, the HTTP library writes what a server answers.
"""

import logging
import traceback
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from hf_causal_video.cli.main import main
from hf_causal_video.features.store import FeatureStore, FeatureWriter, Provenance, VideoFeatures
from hf_causal_video.hub import push_checkpoint
from hf_causal_video.training.recipe import ConfigParser
from hf_causal_video.utils.errors import CausalVideoError
from tests.hub.test_push import trained
from tests.loopback_hub import LoopbackHub, Repository

__all__ = ["trained"]  # fixture
TOKEN = "hf_secretOfThisMachine0123456789abcdef"
WRONG = "hf_secretThatTheHubDoesNotKnow0123456789"
PIECE = 14  # so many letters of a token in a row are a piece of it, and more than its name
NAME, FEATURES = "org/transtr-own", "org/features"
ECHO = f"you sent {TOKEN} " + TOKEN.join("," * 30)  # wherever it is cut, it is cut inside the token


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with LoopbackHub(TOKEN) as hub:
        template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        settings = {
            "ENDPOINT": hub.url, "HUGGINGFACE_CO_URL_TEMPLATE": template, "HF_HUB_DISABLE_XET": True,
            "HF_HUB_OFFLINE": False, "HF_HUB_CACHE": str(tmp_path / "cache"),
        }  # fmt: skip
        for name, value in settings.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield hub


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    card = Provenance("org/vit", "abc", "pooled", 6, sampling="uniform-2")
    with FeatureWriter(tmp_path / "set", card) as writer:
        writer.add(VideoFeatures("a", torch.tensor([0.5, 1.5]), torch.ones(2, 6)))
    return FeatureStore.open(tmp_path / "set")


def refuse(*routes: str, status: int):
    def change(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
        hub.broken |= set(routes)
        hub.complaint = (status, ECHO)

    return change


def without_network(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")


def taken(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, name in (("model", NAME), ("dataset", FEATURES)):
        hub.repositories[kind, name] = Repository(name, hidden=True)
        hub.repositories[kind, name].commit({".gitattributes": b""})


FAILURES = {
    "401, unknown token": lambda hub, patch: patch.setenv("HF_TOKEN", WRONG),
    "401, said at length": refuse("info", status=401),
    "403, a token that reads": lambda hub, patch: patch.setenv("HF_TOKEN", hub.read_token),
    "403 on commit": refuse("commit", status=403),
    "403 on upload": refuse("lfs_batch", status=403),
    "409, taken by somebody": taken,
    "409 on commit": refuse("commit", status=409),
    "412 on commit": refuse("commit", status=412),
    "500 on commit": refuse("commit", status=500),
    "400 on preupload": refuse("preupload", status=400),
    "no network": without_network,
    "offline": lambda hub, patch: patch.setattr(constants, "HF_HUB_OFFLINE", True),
}


def check_silent(texts: dict[str, str]) -> None:
    for where, text in texts.items():
        for token in (TOKEN, WRONG):
            pieces = [token[start : start + PIECE] for start in range(3, len(token) - PIECE + 1)]
            assert not [piece for piece in pieces if piece in text], f"{where}: {text}"


def written(folder: Path, hub: LoopbackHub) -> dict[str, str]:
    """Everything on this disk and on the Hub."""
    files = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for repository in hub.repositories.values():
        files |= {
            f"{repository.name}/{name}": data for tree in repository.commits.values() for name, data in tree.items()
        }
    return {name: data.decode(errors="replace") for name, data in files.items()}


@pytest.mark.parametrize("what", FAILURES)
def test_a_push_that_fails_tells_no_token(hub, trained, store, tmp_path, what, monkeypatch, capfd, caplog):
    FAILURES[what](hub, monkeypatch)
    pushes = {"model": lambda: push_checkpoint(trained, NAME), "features": lambda: store.push_to_hub(FEATURES)}
    with caplog.at_level(logging.INFO):
        texts = {}
        for name, push in pushes.items():
            with pytest.raises(CausalVideoError) as refused:
                push()
            error = refused.value
            texts[name] = "".join(traceback.format_exception(error)) + repr(error) + f"{error.found} {error.fix}"
            texts[f"{name}, for others"] = repr(refused.getrepr(chain=True)) + str(error.__reduce__())
        if what == "401, said at length":
            assert main(["push", str(trained), NAME]) == 2
    out, err = capfd.readouterr()
    assert "Traceback" not in err
    check_silent({**texts, "stdout": out, "stderr": err, "logs": caplog.text})
    check_silent(written(tmp_path, hub) | written(trained, hub))


def test_a_push_that_succeeds_leaves_no_token(hub, trained, store, tmp_path, capfd, caplog):
    with caplog.at_level(logging.INFO):
        assert main(["push", str(trained), NAME]) == 0
        store.push_to_hub(FEATURES)
        assert FeatureStore.open(FEATURES).video_ids == ["a"]
    assert {"README.md", "config.json"} < hub.repositories["model", NAME].files.keys()
    check_silent({**dict(zip(("stdout", "stderr"), capfd.readouterr(), strict=True)), "logs": caplog.text})
    check_silent(written(tmp_path, hub) | written(trained, hub))


@pytest.mark.parametrize("what", ["401, unknown token", "no network"])
def test_reading_that_fails_tells_no_token(hub, what, monkeypatch, capfd, caplog, tmp_path):
    FAILURES[what](hub, monkeypatch)
    if what == "no network":
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)  # between its five attempts
    with caplog.at_level(logging.INFO), pytest.raises(CausalVideoError) as refused:
        FeatureStore.open("org/none")
    assert main(["evaluate", "org/none", "--dataset", "world", "--output", str(tmp_path / "out")]) == 2
    out, err = capfd.readouterr()
    told = {"error": "".join(traceback.format_exception(refused.value)), "stdout": out, "stderr": err}
    check_silent(told | {"logs": caplog.text} | written(tmp_path, hub))


def test_a_run_takes_no_token_which_it_would_keep_in_a_file(tmp_path):
    (tmp_path / "recipe.yaml").write_text(f"dataset: world\nhub_token: {TOKEN}\n")
    for given in (["--dataset", "world", "--hub_token", TOKEN], ["--config", str(tmp_path / "recipe.yaml")]):
        with pytest.raises(CausalVideoError, match="hub_token cannot be changed") as refused:
            ConfigParser().parse([*given, "--output_dir", str(tmp_path / "out")])
        check_silent({"error": str(refused.value), "chain": repr(refused.getrepr(chain=True))})
