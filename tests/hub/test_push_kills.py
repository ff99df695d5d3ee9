"""A push ended by SIGKILL at any request and made again: the Hub is as after one push, and so is the folder here.

Through the real client. A request can be cut before it, in the middle of what it sends, or after its answer came and
before anybody read it; one of each tenth of these points is drawn, seed 0.
"""

import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants, get_session

from hf_causal_video.features.store import FeatureStore, FeatureWriter, Provenance, VideoFeatures
from hf_causal_video.hub import bundle, push_checkpoint
from tests.hub.test_push import NAME, hub, trained
from tests.killing import Countdown, forked, spread

__all__ = ["hub", "trained"]  # fixtures
FEATURES = "org/features"


@pytest.fixture(autouse=True)
def own_cache_and_addresses(hub, monkeypatch, tmp_path) -> None:
    template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"  # made when the library is imported
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


def count_requests(countdown: Countdown) -> None:
    """From now on count three moments of each request with a body, two of others. For good: call it in a child."""
    client: Any = type(get_session())
    send, write = client.send, socket.socket.send
    cut: list[Callable] = []

    def sending(self: socket.socket, data: bytes, *flags: int) -> int:
        if cut and not bytes(data).endswith(b"\r\n\r\n"):  # behind the headers
            cut.pop()(lambda: write(self, bytes(data)[: len(data) // 2], *flags))
        return write(self, data, *flags)

    def requesting(self: Any, request: Any, **options: object) -> Any:
        countdown.tick()
        if int(request.headers.get("Content-Length", 0)):
            cut.append(countdown.tick)
        answer = send(self, request, **options)
        countdown.tick()
        return answer

    client.send, socket.socket.send = requesting, sending  # type: ignore[method-assign]


def killed_before(last: int | None, push: Callable[[], object]) -> tuple[int, int]:
    """Push in a child that ends at its `last` moment; its exit code, and how many moments there were."""
    countdown = Countdown(last)

    def child() -> None:
        count_requests(countdown)
        push()

    return forked(child), countdown.count


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def check_kills(hub, kind: str, name: str, folder: Path, push: Callable[[], object], prepare: Callable) -> Iterator:
    """Kill, look, push again, look; `prepare` puts the Hub back to what was there before."""
    push()  # what the client remembers from its first push on, every child of this process knows
    prepare()
    before = {tuple(sorted(tree.items())) for repo in hub.repositories.values() for tree in repo.commits.values()}
    here = contents(folder)
    code, count = killed_before(None, push)
    assert code == 0
    whole, uploads, refs = hub.repositories[kind, name].files, dict(hub.uploads), hub.repositories[kind, name].refs
    allowed = before | {tuple(sorted(whole.items())), ((".gitattributes", b""),)}
    for point in spread(count, seed=0):
        prepare()
        code, _ = killed_before(point, push)
        assert code == -signal.SIGKILL, f"not killed at {point} of {count}"
        for repository in hub.repositories.values():
            for tree in repository.commits.values():
                assert tuple(sorted(tree.items())) in allowed, f"half a commit after a kill at {point} of {count}"
        yield point
        push()
        there = hub.repositories[kind, name]
        assert there.files == whole and there.refs.keys() == refs.keys() and len(hub.repositories) == 1, point
        assert hub.uploads == uploads, f"an upload that no commit names after a kill at {point} of {count}"
        assert contents(folder) == here


def test_a_model_killed_at_ten_points_of_its_push_is_whole_after_the_next(hub, trained, tmp_path, monkeypatch):
    sources = shutil.copytree(bundle.PACKAGE, tmp_path / bundle.NAME, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(bundle, "PACKAGE", Path(sources))  # somebody may edit a file that travels while this runs

    def prepare() -> None:
        hub.repositories.clear()
        hub.uploads.clear()

    def push() -> object:
        return push_checkpoint(trained, NAME)

    assert len(list(check_kills(hub, "model", NAME, trained, push, prepare))) == 10


def write_set(folder: Path, videos: int) -> FeatureStore:
    card = Provenance("org/vit", "abc", "pooled", 6, sampling="uniform-2")
    with FeatureWriter(folder, card, rows_per_shard=1) as writer:
        for number in range(videos):
            writer.add(
                VideoFeatures(f"v{number}", torch.tensor([0.5, 1.5]), torch.full((2, 6), float(videos + number)))
            )
    return FeatureStore.open(folder)


def test_features_killed_at_ten_points_of_their_push_are_the_old_ones_or_the_new(hub, tmp_path):
    """Three shards are replaced by two: whoever reads meanwhile meets one set or the other."""
    older, newer = write_set(tmp_path / "older", 3), write_set(tmp_path / "newer", 2)
    older.push_to_hub(FEATURES)
    repository = hub.repositories["dataset", FEATURES]
    commits, refs, uploads = dict(repository.commits), dict(repository.refs), dict(hub.uploads)

    def prepare() -> None:
        shutil.rmtree(constants.HF_HUB_CACHE, ignore_errors=True)  # of the card that is there
        repository.commits, repository.refs, hub.uploads = dict(commits), dict(refs), dict(uploads)

    def push() -> object:
        return newer.push_to_hub(FEATURES)

    for _ in check_kills(hub, "dataset", FEATURES, tmp_path / "newer", push, prepare):
        shards = {name for name in repository.files if name.startswith("features/")}
        assert len(shards) in (2, 3)
