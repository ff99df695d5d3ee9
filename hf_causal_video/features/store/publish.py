"""Put a feature set on the Hub: one commit, with a card that says how the features were made."""

from __future__ import annotations

from pathlib import Path

from hf_causal_video.features.store.card import feature_card, merge_cards
from hf_causal_video.features.store.provenance import PROVENANCE_FILE, Provenance
from hf_causal_video.utils.errors import CausalVideoError


def push_features(
    folder: Path | None, provenance: Provenance, repo_id: str, private: bool | None = None, token: str | None = None
) -> str:
    """Upload a feature set; see `FeatureStore.push_to_hub`. The list of clips that failed stays here."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError, HTTPError

    if folder is None:
        raise CausalVideoError(
            "features in memory cannot be pushed",
            found="no folder",
            expected="a feature set on disk",
            fix="write it with FeatureWriter first",
        )
    token = token or get_token()
    if token is None:
        raise CausalVideoError(
            f"pushing features to {repo_id}",
            found="no token",
            expected="a token that may write",
            fix="log in with `hf auth login`, or set HF_TOKEN",
        )
    try:
        return _push(folder, provenance, repo_id, private, token)
    except CausalVideoError:
        raise
    except (HFValidationError, HTTPError, OSError) as error:
        found = " ".join(str(error).replace(token, "hf_***").split())[:400] or type(error).__name__
        # not `from error`: a traceback would print the request, and with it whatever stands in its headers
        raise CausalVideoError(
            f"pushing features to {repo_id}",
            found=found,
            expected="a connection, and a repository that you may write to",
            fix="check name, token and network; a push is one commit, so that none of it is there",
        ) from None


def _push(folder: Path, provenance: Provenance, repo_id: str, private: bool | None, token: str) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi(token=token)
    api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
    there = api.dataset_info(repo_id)
    if private is not None and there.private != private:
        raise CausalVideoError(
            f"the repository {repo_id} is there already",
            found="private" if there.private else "public",
            expected="private" if private else "public",
            fix="change it in the repository's settings, or push under another name",
        )
    names = {sibling.rfilename for sibling in there.siblings or []}
    readme = folder / "README.md"
    card = readme.read_text(encoding="utf-8") if readme.is_file() else feature_card(folder, provenance)
    if "README.md" in names:
        readme = Path(api.hf_hub_download(repo_id, "README.md", repo_type="dataset", revision=there.sha))
    card = merge_cards(card, readme.read_text(encoding="utf-8") if "README.md" in names else "")
    files = [folder / PROVENANCE_FILE, *folder.glob("features/*.parquet")]
    sent = {path.relative_to(folder).as_posix(): path for path in sorted(files)}
    stale = [name for name in sorted(names - set(sent)) if name.startswith("features/")]
    return api.create_commit(
        repo_id,
        [
            *(CommitOperationAdd(name, str(path)) for name, path in sent.items()),
            CommitOperationAdd("README.md", card.encode()),
            *(CommitOperationDelete(name) for name in stale),
        ],
        commit_message="Upload features",
        repo_type="dataset",
        parent_commit=there.sha,
    ).commit_url
