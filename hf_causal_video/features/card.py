"""The card of a feature set: what `load_dataset` needs to read it, and what a person needs to trust it."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from hf_causal_video.features.provenance import Provenance


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
