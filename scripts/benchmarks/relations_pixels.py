"""From pixels to relations: films are rendered, a detector learns, objects are tracked, IVRD learns from the tracks.

Every step is one that a user would take with films of their own (`hf-causal-video track`, `scripts/train.py`,
`hf-causal-video evaluate` and `relations`); nothing is downloaded. The numbers say that the road is open and how much
is lost on it, not how good the method is: six predicates of shapes are easy.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from hf_causal_video.cli.main import main as command_line
from hf_causal_video.features.encoders import ObjectEncoder
from hf_causal_video.tracks.track_set import TrackSet, track_folder
from hf_causal_video.tracks.tracker import ClipTracker
from hf_causal_video.training.relations.evaluate import evaluate_relations
from hf_causal_video.worlds.config import CLASSES, COLOURS
from hf_causal_video.worlds.render_relations import FPS, RELATION_WORDS, SIZE, draw_relations, render_relations
from scripts.demo.networks import DrawnFrames, train_frame_network, train_object_network

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parent / "results" / "relations_pixels.csv"
FILMS = {"train": 80, "validation": 12, "test": 20}
METRICS = ("mAP", "R@50", "R@100", "P@1", "P@5", "P@10", "mR@50", "mR@100", "tail mR@50")
DETECTOR_SEED, FRAMES_A_FILM = 9, 10
EXAMPLES = """examples:
  python scripts/benchmarks/relations_pixels.py                      # some minutes of one core
  python scripts/benchmarks/relations_pixels.py --quick --output -   # only shows that the road is open
"""


def detector_frames(films: int) -> DrawnFrames:
    """Pictures of other films, with the truth about them as the networks of the demo read it."""
    rows: list[tuple[Any, ...]] = []
    for number in range(films):
        pictures, annotation = draw_relations(f"detector-s{DETECTOR_SEED}-{number:04d}")
        things: Any = annotation["subject/objects"]
        trajectories: Any = annotation["trajectories"]
        kinds = [CLASSES.index(thing["category"]) for thing in things]
        colours = [COLOURS.index(thing["colour"]) for thing in things]
        for frame in range(number % 4, len(pictures), len(pictures) // FRAMES_A_FILM):
            boxes = [list(thing["bbox"].values()) for thing in trajectories[frame]]
            pixels = np.asarray(pictures[frame]).transpose(2, 0, 1)
            rows.append((pixels, np.array(boxes, dtype=np.float32) / SIZE, kinds, colours, [-1] * len(things), -1))
    return DrawnFrames(*[torch.from_numpy(np.array(column)) for column in zip(*rows, strict=True)])


def train_networks(folder: Path, quick: bool) -> None:
    """The detector of the demo, taught by these films."""
    frames = detector_frames(4 if quick else 120)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "frames").is_dir():
        train_frame_network(folder / "frames", frames, 8 if quick else 200)
    if not (folder / "objects").is_dir():
        train_object_network(folder / "objects", folder / "frames", frames, 8 if quick else 500)


def recipe(folder: Path, preset: str, tracked: bool, quick: bool, seed: int) -> dict[str, Any]:
    """What is written beside the model; every key is a flag of `scripts/train.py`."""
    splits = {split: str(folder / "films" / "annotations" / split) for split in FILMS}
    return {
        "method": "ivrd",
        "preset": preset,
        "config_overrides": {"hidden_size": 64},
        "dataset": splits,
        **({"features": str(folder / "tracks")} if tracked else {}),
        # boxes of 16 pixels: half a pixel costs a tenth of the overlap, so 0.9 would find no example
        "relations": {
            "segment_frames": 10,
            "segment_stride": 5,
            "positive": 0.5,
            "negative": 0.3,
            "min_overlap": 7,
            "appearance": not quick,  # that of an untrained detector lends nothing to the annotated tracks
        },
        "test_splits": ["test"],
        "num_train_epochs": 1 if quick else 12,
        "per_device_train_batch_size": 16,
        "learning_rate": 3e-3,
        "lr_scheduler_type": "one_cycle",
        "weight_decay": 0.0,
        "metric_for_best_model": "mAP",
        "seed": seed,
    }


def train(folder: Path, name: str, values: dict[str, Any]) -> dict[str, Any]:
    """Train by the command that a user would type; a finished run is read, not repeated."""
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    command = ["-m", "hf_causal_video.training", "--config", str(path), "--output_dir", str(folder / name)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, *command, "--resume", "--use_cpu", "true"], check=True, env=environment)
    return json.loads((folder / name / "metrics.json").read_text())["test"]["test"]


def main() -> None:
    """Walk the road."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("relations_pixels"), help="where everything goes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a minute of everything; the numbers are noise")
    parser.add_argument("--output", default=str(RESULTS), help="csv to write, - for none")
    args = parser.parse_args()
    torch.set_num_threads(1)
    folder, began = args.folder.resolve(), time.monotonic()
    counts = dict.fromkeys(FILMS, 3) if args.quick else FILMS
    for split, count in counts.items():
        if not list((folder / "films" / "annotations" / split).glob("*.json")):
            render_relations(folder / "films", split, count)
    train_networks(folder / "networks", args.quick)
    detector = ObjectEncoder(str(folder / "networks" / "objects"), 6, 0.0 if args.quick else 0.3)
    tracker = ClipTracker(detector, f"fps-{FPS}", min_score=0.01 if args.quick else 0.5)
    track_folder(folder / "films" / "videos", folder / "tracks", tracker)
    print(f"{len(TrackSet.open(folder / 'tracks'))} films tracked after {time.monotonic() - began:.0f} s", flush=True)
    rows = []
    for name, preset, tracked in (("model", "clean", True), ("plain", "plain", True), ("annotated", "clean", False)):
        found = train(folder, name, recipe(folder, preset, tracked, args.quick, args.seed))
        rows.append({"model": preset, "tracks": "detected" if tracked else "annotated", "prior": "uniform", **found})
        if name == "model":
            off = evaluate_relations(
                folder / name, "vidvrd", annotations=folder / "films" / "annotations" / "test", prior="frequency",
                tracks=folder / "tracks", training_annotations=folder / "films" / "annotations" / "train",
            )  # fmt: skip
            rows.append({"model": preset, "tracks": "detected", "prior": "frequency", **off["metrics"]})
    for row in rows:
        print(f"{row['model']:>6}, {row['tracks']} tracks, asked under {row['prior']}: "
              + " | ".join(f"{name} {row[name]:.1f}" for name in METRICS if row[name] is not None))  # fmt: skip
    clip = sorted((folder / "films" / "videos" / "test").glob("*.mp4"))[0]
    drawn = ["--html", str(folder / "relations.html"), "--png", str(folder / "relations.png")]
    least = ["--threshold", "0" if args.quick else "0.2", "--top", "8"]
    command_line(["relations", str(folder / "model"), str(clip), *drawn, *least])
    print(f"predicates: {', '.join(RELATION_WORDS)}; {time.monotonic() - began:.0f} s in all")
    if args.output != "-":
        write(Path(args.output), rows, args.seed)


def write(path: Path, rows: list[dict[str, Any]], seed: int) -> None:
    """Write the table, whole or not at all."""
    partial = path.with_name(f".{path.name}.part")
    with partial.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["model", "tracks", "prior", "seed", *METRICS])
        for row in rows:
            numbers = [None if row[name] is None else f"{row[name]:.2f}" for name in METRICS]
            table.writerow([row["model"], row["tracks"], row["prior"], seed, *numbers])
    os.replace(partial, path)


if __name__ == "__main__":
    main()
