"""`hf-causal-video push`: look at everything first, then write it in one commit, or not at all.

    hf-causal-video push outputs/transtr org/transtr-nextqa --dry-run

Why one commit: whoever loads the repository meets the old state or the new one, never weights of one run with
the config of another.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelInfo, get_token
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from hf_causal_video.hub.bundle import flat_name
from hf_causal_video.hub.checks import Checkpoint, open_checkpoint
from hf_causal_video.hub.contents import Files, check_private, local_names, repository_files
from hf_causal_video.models import METHODS, RELATION_METHODS
from hf_causal_video.utils.errors import CausalVideoError, require

# Files of an earlier push that this one does not write again.
STALE = re.compile(r"networks/.+|[\w.-]+\.(?:py|safetensors|safetensors\.index\.json)|(?:adapter_)?config\.json")


@dataclass(frozen=True)
class Pushed:
    """Result of a push; with `dry_run` what it would upload.

    Args:
        files: size in bytes of each file, by its name in the repository.
        url: of the commit; None where nothing was uploaded.
        local: names in it that mean a folder of this machine, by field and file.
    """

    files: dict[str, int]
    url: str | None = None
    local: dict[str, str] = field(default_factory=dict)


def push_checkpoint(
    folder: str | Path,
    repo_id: str,
    private: bool = False,
    revision: str | None = None,
    license_id: str = "apache-2.0",
    base: str | None = None,
    token: str | None = None,
    dry_run: bool = False,
) -> Pushed:
    """Check a checkpoint, then upload it with its card, recipe and remote code in one commit.

    Args:
        folder: what a training run wrote, or any folder with a model and its processor; or one with adapters.
        repo_id: "org/name", created if absent.
        private: whether only you and yours see it, where it is made.
        revision: branch, created if absent; None is the main one.
        license_id: licence of the weights, as the Hub names it.
        base: for adapters, the Hub id of the model they go onto; by default the one they name.
        token: of the Hub; the one you logged in with if None.
        dry_run: check and list, upload nothing. Of a whole model nothing is asked of the Hub.

    Raises:
        CausalVideoError: a checkpoint that is not whole, results of other weights, a token or a path in a file, no
            token, no network, a repository that is not yours, holds something else, or is seen by others than asked.

    Example:
        >>> push_checkpoint("outputs/transtr", "org/transtr-nextqa", dry_run=True).files  # doctest: +SKIP
        {'README.md': 4711, 'config.json': 1523, 'model.safetensors': 734003200, ...}
    """
    token = token or get_token()
    with _in_words(repo_id, token):
        validate_repo_id(repo_id)
        if repo_id.count("/") != 1:
            raise HFValidationError(f"{repo_id!r} names no owner")
    require(
        token is not None or dry_run,
        f"pushing {'a private repository ' if private else ''}to {repo_id}",
        found="no token",
        expected="a token that may write",
        fix="log in with `hf auth login`, or set HF_TOKEN",
    )
    checkpoint = open_checkpoint(folder, base, token)
    files = repository_files(checkpoint, repo_id, license_id)
    check_private(files, (token,))
    sizes = {name: part.stat().st_size if isinstance(part, Path) else len(part) for name, part in files.items()}
    local = local_names(checkpoint)
    if dry_run:
        return Pushed(sizes, local=local)
    with _in_words(repo_id, token):
        api = HfApi(token=token)
        _check_owner(api, repo_id)
        return Pushed(sizes, _write(api, repo_id, files, checkpoint, private, revision), local)


def _check_owner(api: HfApi, repo_id: str) -> None:
    """Refuse a namespace that the token may not write to, before anything is created."""
    me = api.whoami()
    owner, name = repo_id.split("/")
    writable = [me["name"], *(org["name"] for org in me.get("orgs", []) if org.get("roleInOrg") != "read")]
    require(
        owner in writable,
        f"{owner}/ is not yours",
        found=lambda: f"you may write to {', '.join(writable)}",
        expected=owner,
        fix=f"push to {writable[0]}/{name}, or with the token of a member of {owner} who may write",
    )


def _write(api: HfApi, repo_id: str, files: Files, checkpoint: Checkpoint, private: bool, revision: str | None) -> str:
    """Make what is missing, commit, and give the commit's address; what was made for nothing is taken back."""
    made = _look(api, repo_id, checkpoint.method, private) is None
    if made:
        try:
            api.create_repo(repo_id, private=private)
        except HfHubHTTPError as error:
            if error.response.status_code != 409:
                raise
            raise CausalVideoError(
                f"the name {repo_id} is taken",
                found="a repository that you may not see",
                expected="a free name",
                fix="push under another name",
            ) from None
    try:
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        now = api.model_info(repo_id, revision=revision)
        gone = {sibling.rfilename for sibling in now.siblings or []} - set(files)
        added = [CommitOperationAdd(name, part) for name, part in sorted(files.items())]
        deleted = [CommitOperationDelete(name) for name in sorted(gone) if STALE.fullmatch(name)]
        message = f"Upload {'adapters' if checkpoint.base else 'model'}"
        done = api.create_commit(
            repo_id, [*added, *deleted], commit_message=message, revision=revision, parent_commit=now.sha
        )
    except BaseException:
        if made:
            _take_back(api, repo_id)
        raise
    return done.commit_url


def _look(api: HfApi, repo_id: str, method: str, private: bool) -> ModelInfo | None:
    """Return the repository of this name, or None; refuse one that a push must not overwrite."""
    try:
        repository = api.model_info(repo_id)
    except RepositoryNotFoundError:
        return None
    require(
        not private or repository.private is not False,
        f"{repo_id} exists already",
        found="public",
        expected="private",
        fix="change it in the repository's settings, or push under another name",
    )
    names = {sibling.rfilename for sibling in repository.siblings or []} - {".gitattributes", "README.md", "LICENSE"}
    held = (repository.config or {}).get("model_type")
    same = (
        held == method if held else f"{flat_name((METHODS | RELATION_METHODS)[method].model.__module__)}.py" in names
    )
    require(
        not names or same,
        f"the name {repo_id} is taken",
        found=lambda: f"a model of type {held}" if held else ", ".join(sorted(names)[:4]),
        expected=f"a free name, or a repository of {method}",
        fix="push under another name, or delete that one first",
    )
    return repository


def _take_back(api: HfApi, repo_id: str) -> None:
    """Delete a repository that this push made and could not fill, unless it holds something after all."""
    try:
        if {sibling.rfilename for sibling in api.model_info(repo_id).siblings or []} <= {".gitattributes"}:
            api.delete_repo(repo_id, missing_ok=True)
    except (HTTPError, OSError) as error:
        raise CausalVideoError(
            f"the push to {repo_id} broke off, and the empty repository may still be there",
            found=f"{type(error).__name__} when it was to be deleted",
            expected="an answer of the Hub",
            fix="push again, which fills it, or delete it on the Hub",
        ) from None


@contextmanager
def _in_words(repo_id: str, token: str | None) -> Iterator[None]:
    """Turn what the client raises into our error; the token stands in none of it."""
    try:
        yield
    except CausalVideoError:
        raise
    except (HFValidationError, HTTPError, OSError) as error:
        what, expected, fix = _explain(error)
        text = str(error).replace(token, "hf_***") if token else str(error)  # before it is cut, or half of it stays
        text = " ".join(text.split())[:400] or type(error).__name__
        # not `from error`: a traceback would print the request, and with it whatever stands in its headers
        raise CausalVideoError(f"pushing to {repo_id}: {what}", found=text, expected=expected, fix=fix) from None


def _explain(error: Exception) -> tuple[str, str, str]:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, HFValidationError):
        return "invalid name of a repository", "owner/name", "choose a name of letters, digits, '-', '_' and '.'"
    if isinstance(error, OfflineModeIsEnabled):
        return "the network is switched off", "HF_HUB_OFFLINE unset", "unset it and push again; nothing was written"
    if status == 401:
        return "the token was refused", "a token that may write", "log in again: hf auth login"
    if status == 403:
        return "not allowed", "a token with write access to it", "ask its owner, or make a token that may write there"
    if status in (409, 412):
        return "somebody else wrote there meanwhile", "the state that was read", "push again"
    if isinstance(error, RevisionNotFoundError | EntryNotFoundError | RepositoryNotFoundError):
        return "it does not exist", "a repository and branch that you may read", "check name, branch and token"
    if status is not None:
        return f"the Hub answered {status}", "success", "try again later; nothing was written"
    return "the Hub cannot be reached", "a connection", "check the network and HF_ENDPOINT; nothing was written"
