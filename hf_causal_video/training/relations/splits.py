"""From `DataArguments` to the splits of a relation run: annotated videos with their tracks, or given pairs.

Three sources: the relation world (made on the spot), annotations of VidVRD or VidOR with tracks of anyone's making,
and the windows of JAAD.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import Dataset

from hf_causal_video.data.relations.jaad import read_jaad
from hf_causal_video.data.relations.rows import Part, relations_dataset
from hf_causal_video.data.relations.segments import GivenTracks, RelationSegments, vocabularies
from hf_causal_video.data.relations.vidvrd import read_relations, read_trajectories
from hf_causal_video.models import VideoRelationProcessor
from hf_causal_video.tracks.track_set import TrackSet
from hf_causal_video.training.arguments import DataArguments
from hf_causal_video.training.options import RelationOptions, path_of_split
from hf_causal_video.utils.errors import CausalVideoError, require
from hf_causal_video.worlds.relation_pairs import RelationPairs, relation_world_pairs

Split = RelationSegments | RelationPairs
SLICED = re.compile(r"(?P<path>.+)\[(?P<first>\d+%)?:(?P<last>\d+%)?\]")


def load_splits(arguments: DataArguments, names: list[str]) -> dict[str, Split]:
    """Load the splits of a run; the first two (training and validation) decide the vocabularies.

    Raises:
        CausalVideoError: a split without data, or what readers and datasets refuse.
    """
    if arguments.dataset == "world" or RelationOptions.read(arguments.relation_options).reader == "jaad":
        return {name: load_pairs(arguments, name) for name in names}
    rows = {name: read_rows(path_of_split(arguments.dataset, name, "dataset")) for name in names}
    words = vocabularies(*(rows[name] for name in names[:2]))
    splits: dict[str, Split] = {name: segments_of(arguments, name, rows[name], *words) for name in names}
    made = splits[names[0]].provenance
    for name, split in splits.items():
        require(
            not isinstance(split, RelationSegments)
            or not isinstance(split.tracks, TrackSet)
            or split.provenance == made,
            f"tracks of split {name!r} were made in another way",
            found=split.provenance,
            expected=made,
            fix="track all splits alike",
        )
    return splits


def load_pairs(arguments: DataArguments, split: str) -> RelationPairs:
    """A split of the relation world or of JAAD."""
    if arguments.dataset == "world":
        return relation_world_pairs(split, arguments.world_options)
    name = {"validation": "val"}.get(split, split)
    options = RelationOptions.read(arguments.relation_options)
    windows = read_jaad(path_of_split(arguments.dataset, split, "dataset"), name, window=options.segment_frames)
    return RelationPairs.of_jaad(windows)


def segments_of(
    arguments: DataArguments, split: str, rows: Dataset, object_classes: list[str], predicates: list[str]
) -> RelationSegments:
    """Annotated videos with their tracks as segments; the pairs without a relation are drawn from torch's seed."""
    options = RelationOptions.read(arguments.relation_options)
    frames = options.segment_frames
    processor = VideoRelationProcessor(object_classes, predicates, frames, options.segment_stride)
    tracks = None
    if arguments.features:
        features = arguments.features
        path = path_of_split(features, split, "features") if isinstance(features, dict) else str(features)
        tracks = read_tracks(path, rows, options.appearance)
    begins = processor.segment_begins
    seed = torch.initial_seed()
    return RelationSegments(rows, object_classes, predicates, begins, frames, tracks, options.rule, seed)


def read_rows(name: str) -> Dataset:
    """Relation rows of a folder of annotations, one json, or a parquet file; `PATH[:10%]` and `PATH[10%:]` part it.

    Raises:
        CausalVideoError: nothing there, or a part without videos.
    """
    match = SLICED.fullmatch(name)
    path = Path(match["path"] if match else name)
    if path.suffix == ".parquet" and path.is_file():
        try:
            rows = relations_dataset(pq.read_table(path).to_pylist())
        except (pa.ArrowException, OSError) as error:
            raise CausalVideoError(
                f"{path} cannot be read",
                found=str(error).splitlines()[0],
                expected="a Parquet file of relation rows",
                fix="write it again with relations_dataset(rows).to_parquet(...)",
            ) from error
    else:
        rows = read_relations(path)
    if match is None:
        return rows
    first, last = (
        int(match[side].rstrip("%")) if match[side] else whole for side, whole in (("first", 0), ("last", 100))
    )
    chosen = range(len(rows) * first // 100, len(rows) * last // 100)
    require(chosen, f"the part {name}", found=f"no video of {len(rows)}", expected="one or more", fix="enlarge it")
    return rows.select(chosen)


def read_tracks(path: str, rows: Dataset, appearance: bool = True) -> Mapping[str, list[Part]]:
    """Tracks by video id: a track set (`hf-causal-video track`), or a json of trajectories, plain or gzipped."""
    if TrackSet.is_one(path):
        return cast(Mapping[str, list[Part]], TrackSet.open(path, appearance))
    known = {row["video_id"]: (row["width"], row["height"], row["num_frames"]) for row in rows}
    return GivenTracks(read_trajectories(path, known, others="ignore"), {"tracks": Path(path).name})
