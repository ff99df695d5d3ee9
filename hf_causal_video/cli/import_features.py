"""Features that were made elsewhere to a feature set, from the shell: `hf-causal-video import`."""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

from hf_causal_video.cli.extract import add_push_arguments, conclude
from hf_causal_video.features.arrays import import_arrays, infer_from
from hf_causal_video.features.legacy_hdf5 import import_app_mot, import_appearance_motion, import_transtr
from hf_causal_video.features.store.provenance import Provenance, complete_card
from hf_causal_video.utils.errors import CausalVideoError, require

LAYOUTS = {
    "arrays": "your own .npy, .npz, .pt or HDF5 files, one per video or one with video ids as keys",
    "appearance-motion": "two files, appearance and motion, joined by id",
    "app-mot": "one file with both side by side",
    "transtr": "a file of frames and, if there is a second, one of objects",
}
FILES = {"arrays": (1, 1), "app-mot": (1, 1), "appearance-motion": (2, 2), "transtr": (1, 2)}
EPILOG = """layouts:
{}

examples:
  hf-causal-video import arrays my_features/ --provenance card.json --output features/
  hf-causal-video import app-mot app_mot_val.h5 --provenance card.json --durations durations.json --output features/
  hf-causal-video import appearance-motion app.h5 motion.h5 --provenance card.json --durations 1 --output features/
  hf-causal-video import transtr frames.h5 objects.h5 --provenance card.json --durations 1 --sizes a.csv --output out/

The files do not say how they were made: card.json does, for instance
  {{"frame_model": "resnet152 + 3d-resnet152", "frame_revision": "as published by ...", "frame_layer": "pool5",
   "frame_dim": 4096, "sampling": "uniform-16"}}
Fields that it lacks are asked for on a terminal; widths of `arrays` are read from the arrays.
`arrays` takes frame_features (frames, channels) and, if there are any, timestamps_s, object_features (frames, objects,
channels), object_boxes (xyxy in [0, 1]), object_scores and object_labels. Without timestamps_s and --durations the
times follow from a sampling fps-R, else they are fractions of the clip.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `hf-causal-video import`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG.format("\n".join(f"  {name:18} {what}" for name, what in LAYOUTS.items()))
    add = parser.add_argument
    add("layout", choices=list(LAYOUTS), help="how the files are laid out, see below")
    add("files", nargs="+", help="the HDF5 files, in the order of the layout; a folder or file of arrays")
    add("--provenance", metavar="JSON", help="how the features were made: fields of Provenance")
    add("--durations", metavar="S|JSON", help="seconds of every video: one number, or {video: seconds}")
    add("--output", required=True, metavar="DIR", help="folder of the feature set")
    add("--sizes", metavar="JSON|CSV", help="transtr objects: {video: [width, height]}, or a csv with these columns")
    add("--clip-stride", type=int, default=2, help="transtr: 2 takes every second clip, as published (default: 2)")
    add("--appearance-key", metavar="NAME", help="appearance-motion: name of the dataset in the file")
    add("--motion-key", metavar="NAME", help="appearance-motion: name of the dataset in the file")
    add("--split", default="train", help="name of the split (default: %(default)s)")
    add("--no-progress", dest="progress", action="store_false", help="no bar")
    add_push_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run `hf-causal-video import`; 1 if a video failed, and one that imported none at all is an error."""
    least, most = FILES[args.layout]
    require(
        least <= len(args.files) <= most,
        f"files of the layout {args.layout}",
        found=len(args.files),
        expected=LAYOUTS[args.layout],
        fix="name them",
    )
    options: dict[str, Any] = {"split": args.split, "progress": args.progress}
    durations = None if args.durations is None else _durations(args.durations)
    path = None if args.provenance is None else Path(args.provenance)
    card = _read_json(args.provenance) if path is not None and path.exists() else {}
    if args.layout == "arrays":
        fields = infer_from(args.files[0])
        card = complete_card({**fields, **{name: value for name, value in card.items() if value}}, path)
        return conclude(import_arrays(args.files[0], args.output, card, durations, **options), args)
    require(
        durations is not None,
        "--durations",
        found="none",
        expected="seconds of every video",
        fix="pass one number or a JSON file; 1 gives times as fractions of the clip",
    )
    assert durations is not None
    provenance = Provenance.from_dict(complete_card(card, path))
    if args.layout == "app-mot":
        report = import_app_mot(args.files[0], args.output, provenance, durations, **options)
    elif args.layout == "appearance-motion":
        appearance, motion = args.files
        options |= {"appearance_key": args.appearance_key, "motion_key": args.motion_key}
        report = import_appearance_motion(appearance, motion, args.output, provenance, durations, **options)
    else:
        objects = args.files[1] if len(args.files) == 2 else None
        sizes = _sizes(args.sizes) if args.sizes else None
        report = import_transtr(
            args.files[0], objects, args.output, provenance, durations, sizes, clip_stride=args.clip_stride, **options
        )
    return conclude(report, args)


def _durations(value: str) -> Any:
    try:
        seconds = float(value)
    except ValueError:
        return _numbers(value, 1)
    require(
        0 < seconds < float("inf"), "--durations", found=value, expected="seconds above 0", fix="pass the real length"
    )
    return seconds


def _sizes(path: str) -> dict[str, tuple[int, int]]:
    if not path.endswith(".csv"):
        return {video_id: (int(size[0]), int(size[1])) for video_id, size in _numbers(path, 2).items()}
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        names = [name for name in ("video_id", "video") if name in rows[0]]
        return {row[names[0]]: (int(row["width"]), int(row["height"])) for row in rows}
    except (IndexError, KeyError, ValueError, TypeError) as error:
        raise CausalVideoError(
            f"no picture sizes in {path}",
            found=f"{type(error).__name__}: {error}",
            expected="columns video (or video_id), width and height",
            fix="give such a csv, or JSON",
        ) from error


def _numbers(path: str, count: int) -> dict[str, Any]:
    data = _read_json(path)
    for video_id, value in data.items():
        numbers = value if count > 1 and isinstance(value, list) else [value]
        good = len(numbers) == count and all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers)
        require(
            good and min(numbers) > 0,
            f"{path}, video {video_id!r}",
            found=value,
            expected=f"{count} number(s) above zero",
            fix="correct it",
        )
    return data


def _read_json(path: str) -> dict[str, Any]:
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CausalVideoError(f"{path} cannot be read", found=error, expected="JSON", fix="check the file") from error
    require(
        isinstance(data, dict),
        f"{path} cannot be used",
        found=lambda: type(data).__name__,
        expected="a mapping",
        fix="see --help",
    )
    return data
