"""The card of a feature set, for `load_dataset` and for a reader; and the set on the Hub, in one commit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from hf_causal_video.features.store.provenance import PROVENANCE_FILE, Provenance
from hf_causal_video.utils.errors import CausalVideoError, require


def feature_card(folder: str | Path, provenance: Provenance) -> str:
    """Write the README of a feature set from its provenance and its shards.

    Args:
        folder: the feature set.
        provenance: how it was made.
    """
    rows: dict[str, int] = {}
    for path in sorted((Path(folder) / "features").glob("*.parquet")):
        split = path.stem.rsplit("-", 1)[0]
        rows[split] = rows.get(split, 0) + pq.read_metadata(path).num_rows
    files = "".join(f"  - split: {split}\n    path: features/{split}-*.parquet\n" for split in rows)
    config = f"configs:\n- config_name: features\n  default: true\n  data_files:\n{files}" if rows else ""
    table = "\n".join(
        f"| {name} | {value} |" for name, value in provenance.to_dict().items() if value not in (None, {})
    )
    counts = ", ".join(f"{split} {count}" for split, count in rows.items()) or "none yet"
    objects = (
        "| object_features | float16 (T, N, C) |\n| object_boxes | float32 (T, N, 4), xyxy in [0, 1] |\n"
        "| object_scores | float32 (T, N), 0 is padding |\n| object_labels | int32 (T, N), -1 is padding |\n"
    )
    return f"""---
{config}tags:
- video-question-answering
- features
---

# Video features

One row per video; videos: {counts}. Frames and objects of a row show the same instants.

```python
from hf_causal_video.features import FeatureStore
store = FeatureStore.open("this folder or repository")
store[store.video_ids[0]].frame_features
```

## How they were made

| field | value |
|---|---|
{table}

## Columns

| column | type |
|---|---|
| video_id | string |
| timestamps_s | float32 (T,), seconds |
| frame_features | float16 (T, C) |
{objects if provenance.has_objects else ""}"""


def merge_cards(ours: str, there: str) -> str:
    """Keep what a repository's card says about its other tables, such as the questions about these videos.

    Args:
        ours: card of the feature set; other tables that it lists are left out.
        there: README of the repository it goes to, "" if it has none.

    Raises:
        CausalVideoError: metadata that are not plain YAML.

    Example:
        >>> there = "---\\nlicense: mit\\nconfigs:\\n- config_name: questions\\n---\\n"
        >>> print(merge_cards("---\\nconfigs:\\n- config_name: features\\n---\\n# Video features\\n", there))
        ---
        license: mit
        configs:
        - config_name: features
        - config_name: questions
        ---
        # Video features
        <BLANKLINE>
    """
    new, text = _split_card(ours)
    old, _ = _split_card(there)
    features = _tables(new, "configs", ours=True)
    others = _tables(old, "configs", ours=False)
    if any(config.get("default") for config in others):  # a repository has one default table
        features = [{name: value for name, value in config.items() if name != "default"} for config in features]
    merged = {
        **old,
        **new,
        "configs": features + others,
        "dataset_info": _tables(new, "dataset_info", ours=True) + _tables(old, "dataset_info", ours=False),
        "tags": list(dict.fromkeys([*_words(new.get("tags")), *_words(old.get("tags"))])),
    }
    metadata = {name: value for name, value in merged.items() if value}
    return f"---\n{yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)}---\n{text}"


def _tables(metadata: dict[str, object], name: str, ours: bool) -> list[dict[str, object]]:
    entries = metadata.get(name) or []
    entries = entries if isinstance(entries, list) else [entries]
    return [entry for entry in entries if isinstance(entry, dict) and (entry.get("config_name") == "features") == ours]


def _words(value: Any) -> list[str]:
    return [word for word in (value if isinstance(value, list) else [value]) if isinstance(word, str)]


def _split_card(card: str) -> tuple[dict[str, object], str]:
    match = re.match(r"\s*---\n(.*?)^---\s*?$\n*(.*)", card, re.DOTALL | re.MULTILINE)
    if not match:
        return {}, card
    try:
        metadata = yaml.safe_load(match[1]) or {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        metadata = str(error)
    problem = " ".join(str(metadata).split())[:200]
    fix = "correct the README.md of the repository"
    require(isinstance(metadata, dict), "the head of a card", found=problem, expected="plain YAML, by name", fix=fix)
    return metadata, match[2]


def push_features(
    folder: Path | None, provenance: Provenance, repo_id: str, private: bool | None = None, token: str | None = None
) -> str:
    """Upload a feature set; see `FeatureStore.push_to_hub`. The list of clips that failed stays here."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError, HTTPError

    what = f"pushing features to {repo_id}"
    fix = "write them with FeatureWriter first"
    require(folder is not None, what, found="features in memory", expected="a feature set on disk", fix=fix)
    token = token or get_token()
    fix = "log in with `hf auth login`, or set HF_TOKEN"
    require(token is not None, what, found="no token", expected="a token that may write", fix=fix)
    assert folder is not None and token is not None
    try:
        return _push(folder, provenance, repo_id, private, token)
    except CausalVideoError:
        raise
    except (HFValidationError, HTTPError, OSError) as error:
        reason = " ".join(str(error).replace(token, "hf_***").split())[:400] or type(error).__name__
        # not `from error`: a traceback would print the request, and with it whatever stands in its headers
        expected = "a connection, and a repository that you may write to"
        fix = "check name, token and network; a push is one commit, so that none of it is there"
        raise CausalVideoError(what, found=reason, expected=expected, fix=fix) from None


def _push(folder: Path, provenance: Provenance, repo_id: str, private: bool | None, token: str) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi(token=token)
    api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
    repository = api.dataset_info(repo_id)
    agrees = private is None or repository.private == private
    problem, expected = ("private" if is_private else "public" for is_private in (repository.private, private))
    fix = "change it in the repository's settings, or push under another name"
    require(agrees, f"the repository {repo_id} exists already", found=problem, expected=expected, fix=fix)
    names = {sibling.rfilename for sibling in repository.siblings or []}
    readme = folder / "README.md"
    card = readme.read_text(encoding="utf-8") if readme.is_file() else feature_card(folder, provenance)
    if "README.md" in names:
        readme = Path(api.hf_hub_download(repo_id, "README.md", repo_type="dataset", revision=repository.sha))
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
        parent_commit=repository.sha,
    ).commit_url
