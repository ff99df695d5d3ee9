"""The card of a feature set: what `load_dataset` needs to read it, and what a person needs to trust it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from hf_causal_video.features.store.provenance import Provenance
from hf_causal_video.utils.errors import CausalVideoError


def feature_card(folder: str | Path, provenance: Provenance) -> str:
    """Write the README of a feature set from its provenance and the shards that are there.

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

One row a video; videos: {counts}. Frames and objects of a row show the same instants.

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
    """Take over what a repository's card says about its other tables, such as the questions about these videos.

    Args:
        ours: card of the feature set; other tables that it lists are left out.
        there: README of the repository it goes to, "" if it has none.

    Raises:
        CausalVideoError: metadata that are no plain YAML.

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
    features, others = _tables(new, "configs", ours=True), _tables(old, "configs", ours=False)
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


def _tables(metadata: dict[str, Any], name: str, ours: bool) -> list[dict[str, Any]]:
    entries = metadata.get(name) or []
    entries = entries if isinstance(entries, list) else [entries]
    return [entry for entry in entries if isinstance(entry, dict) and (entry.get("config_name") == "features") == ours]


def _words(value: Any) -> list[str]:
    return [word for word in (value if isinstance(value, list) else [value]) if isinstance(word, str)]


def _split_card(card: str) -> tuple[dict[str, Any], str]:
    found = re.match(r"\s*---\n(.*?)^---\s*?$\n*(.*)", card, re.DOTALL | re.MULTILINE)
    if not found:
        return {}, card
    try:
        metadata = yaml.safe_load(found[1]) or {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        metadata = str(error)
    if not isinstance(metadata, dict):
        raise CausalVideoError(
            "the head of a card", found=" ".join(str(metadata).split())[:200], expected="plain YAML, names and values",
            fix="mend the README.md of the repository",
        )  # fmt: skip
    return metadata, found[2]
