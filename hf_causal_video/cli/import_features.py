"""Features that were made elsewhere to a feature set, from the shell: `hf-causal-video import`."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hf_causal_video.cli.extract import conclude
from hf_causal_video.cli.options import argument, option
from hf_causal_video.utils.checks import check_number, is_number
from hf_causal_video.utils.errors import CausalVideoError, require

if TYPE_CHECKING:
    from hf_causal_video.features.build import ExtractionReport

LAYOUTS = {
    "arrays": "your own .npy, .npz, .pt or HDF5 files, one per video or one with video ids as keys",
    "appearance-motion": "two files, appearance and motion, joined by id",
    "app-mot": "one file with both side by side",
    "transtr": "a file of frames and, if there is a second, one of objects",
}
FILES = {"arrays": (1, 1), "app-mot": (1, 1), "appearance-motion": (2, 2), "transtr": (1, 2)}
LISTED = "\n".join(f"  {name:18} {what}" for name, what in LAYOUTS.items())
EXAMPLES = f"""layouts:
{LISTED}

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


@dataclass(kw_only=True)
class Options:
    """Turn features that were made elsewhere into a feature set."""

    layout: str = argument("how the files are laid out, see below", choices=list(LAYOUTS))
    files: list[str] = argument("the HDF5 files, in the order of the layout; a folder or file of arrays")
    provenance: str | None = option("how the features were made: fields of Provenance", None, metavar="JSON")
    durations: str | None = option("seconds of every video: one number, or {video: seconds}", None, metavar="S|JSON")
    output: str = option("folder of the feature set", metavar="DIR")
    sizes: str | None = option(
        "transtr objects: {video: [width, height]}, or a csv with these columns", None, metavar="JSON|CSV"
    )
    clip_stride: int = option("transtr: 2 takes every second clip, as published", 2)
    appearance_key: str | None = option("appearance-motion: name of the dataset in the file", None, metavar="NAME")
    motion_key: str | None = option("appearance-motion: name of the dataset in the file", None, metavar="NAME")
    split: str = option("name of the split", "train")
    progress: bool = option("no bar", True)
    push_to_hub: str | None = option("upload the set as a dataset repository", None, metavar="ORG/NAME")
    private: bool = option("with --push-to-hub: for members only", False)


def run(options: Options) -> int:
    """Import; 1 if a video failed, and a run that imported none at all is an error."""
    least, most = FILES[options.layout]
    require(
        least <= len(options.files) <= most,
        f"files of the layout {options.layout}",
        found=len(options.files),
        expected=LAYOUTS[options.layout],
        fix="name them",
    )
    return conclude(_import(options), options.push_to_hub, options.private)


def _import(options: Options) -> "ExtractionReport":
    from hf_causal_video.features.arrays import import_arrays, infer_from
    from hf_causal_video.features.legacy_hdf5 import import_app_mot, import_appearance_motion, import_transtr
    from hf_causal_video.features.store.provenance import Provenance, complete_card

    first, *others = options.files
    output = options.output
    split = options.split
    progress = options.progress
    durations = None if options.durations is None else _durations(options.durations)
    path = None if options.provenance is None else Path(options.provenance)
    card = _read_json(path) if path is not None and path.exists() else {}
    if options.layout == "arrays":
        fields = {**infer_from(first), **{name: value for name, value in card.items() if value}}
        return import_arrays(first, output, complete_card(fields, path), durations, split=split, progress=progress)
    if durations is None:
        fix = "pass one number or a JSON file; 1 gives times as fractions of the clip"
        raise CausalVideoError("--durations", found="none", expected="seconds of every video", fix=fix)
    provenance = Provenance.from_dict(complete_card(card, path))
    if options.layout == "app-mot":
        return import_app_mot(first, output, provenance, durations, split=split, progress=progress)
    if options.layout == "appearance-motion":
        return import_appearance_motion(
            first,
            others[0],
            output,
            provenance,
            durations,
            split=split,
            progress=progress,
            appearance_key=options.appearance_key,
            motion_key=options.motion_key,
        )
    return import_transtr(
        first,
        others[0] if others else None,
        output,
        provenance,
        durations,
        _sizes(options.sizes) if options.sizes else None,
        clip_stride=options.clip_stride,
        split=split,
        progress=progress,
    )


def _durations(value: str) -> float | dict[str, float]:
    try:
        seconds = float(value)
    except ValueError:
        return {video_id: seconds for video_id, (seconds,) in _numbers(value, 1).items()}
    return check_number("--durations", seconds, above=0, fix="pass the real length")


def _sizes(path: str) -> dict[str, tuple[int, int]]:
    if not path.endswith(".csv"):
        return {video_id: (int(width), int(height)) for video_id, (width, height) in _numbers(path, 2).items()}
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        name = "video_id" if "video_id" in rows[0] else "video"
        return {row[name]: (int(row["width"]), int(row["height"])) for row in rows}
    except (IndexError, KeyError, ValueError, TypeError) as error:
        raise CausalVideoError(
            f"no picture sizes in {path}",
            found=f"{type(error).__name__}: {error}",
            expected="columns video (or video_id), width and height",
            fix="give such a csv, or JSON",
        ) from error


def _numbers(path: str, count: int) -> dict[str, list[float]]:
    """Read {video: number} or {video: [number, number]}, all above zero."""
    numbers: dict[str, list[float]] = {}
    for video_id, value in _read_json(path).items():
        row = value if isinstance(value, list) and count > 1 else [value]
        numbers[video_id] = [float(one) for one in row if is_number(one) and one > 0]
        is_valid = len(row) == count == len(numbers[video_id])
        expected = f"{count} number(s) above zero"
        require(is_valid, f"{path}, video {video_id!r}", found=value, expected=expected)
    return numbers


def _read_json(path: str | Path) -> dict[str, object]:
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CausalVideoError(f"{path} cannot be read", found=error, expected="JSON", fix="check the file") from error
    problem = type(data).__name__
    require(isinstance(data, dict), f"{path} cannot be used", found=problem, expected="a mapping", fix="see --help")
    return data
