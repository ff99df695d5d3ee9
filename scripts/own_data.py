"""Own data, from a folder of clips and a file of questions to a compared table; minutes on two cores, no downloads.

    python -m scripts.own_data --output own_data                                    # clips and questions are made
    python -m scripts.own_data --clips clips/ --questions questions.csv --output own_data

Each step is a command that you can type yourself; it is printed before it runs. Only the features are special: so that
nothing has to be downloaded, a frame is described by the mean colours of its 4 x 4 parts, and `import arrays` makes a
feature set of them. For real work replace that step by `hf-causal-video extract` with a vision network.
"""

import argparse
import csv
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hf_causal_video.cli.main import main as verb
from hf_causal_video.data import read_questions
from hf_causal_video.features.decode import decode_video
from hf_causal_video.training import main as train
from hf_causal_video.utils.errors import CausalVideoError, as_message, require

COLOURS = {"red": (220, 40, 40), "green": (40, 190, 60), "blue": (50, 80, 220), "yellow": (225, 205, 40)}
SIDES = ("left", "right")
CLIP_S = 8  # seconds of a clip that is made here
SHOWN_S = 2  # seconds for which its square is seen
FPS = 4
SIZE = 64  # pixels
GRID = 4
TEXT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
MODELS = {
    "plain": ("video_qa_backbone", {"backbone": "pooling", "backbone_config": {"hidden_size": 32}}),
    "igv": ("igv", {"backbone": "pooling", "backbone_config": {"hidden_size": 32}}),
}


def main(argv: Sequence[str] | None = None) -> dict:
    """Walk from clips to the table; the report of `compare`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, help="folder of clips (default: some are made)")
    parser.add_argument("--questions", type=Path, help="file of questions with a column split (default: made)")
    parser.add_argument("--output", type=Path, required=True, help="folder for everything that is written")
    parser.add_argument("--num-clips", type=int, default=240, help="clips to make (default: 240)")
    parser.add_argument("--epochs", type=int, default=30, help="of training (default: 30)")
    parser.add_argument("--frames", type=int, default=16, help="frames of each clip (default: 16)")
    args = parser.parse_args(argv)
    require(
        (args.clips is None) == (args.questions is None),
        "clips and questions belong together",
        found=f"--clips {args.clips}, --questions {args.questions}",
        expected="both or neither",
        fix="add the other one",
    )
    clips, questions = args.clips, args.questions
    if clips is None:
        clips, questions = args.output / "clips", args.output / "questions.csv"
        make_clips(clips, questions, args.num_clips)
    features = args.output / "features"
    run_verb("questions", questions)
    if not (features / "provenance.json").exists():
        write_features(clips, features, questions, args.frames)
    run_verb("questions", questions, "--features", features)
    evaluations = []
    for name, (method, overrides) in MODELS.items():
        folder = args.output / name
        run_training(name, method, overrides, questions, features, folder, args.epochs)
        evaluations.append(folder / "evaluation")
        run_verb(
            "evaluate", folder, "--dataset", questions, "--split", "test", "--features", features,
            "--output", evaluations[-1],
        )  # fmt: skip
    run_verb("compare", *evaluations)
    runs = [args.output / name for name in MODELS]
    run_verb("compare", *runs, "--split", "test", "--png", args.output / "curves.png")
    from hf_causal_video.cli.compare import compare_folders

    report, _ = compare_folders(evaluations)
    (args.output / "table.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return report


def run_verb(name: str, *argv: object) -> None:
    """Print a command of the shell and run it."""
    words = [name, *map(str, argv)]
    print(f"\n$ hf-causal-video {shlex.join(words)}", flush=True)
    code = verb(words)
    if code:
        sys.exit(code)


def run_training(
    name: str, method: str, overrides: dict, questions: Path, features: Path, folder: Path, epochs: int
) -> None:
    """Train one model on the split `train`, chosen on `validation` and measured on `test`."""
    argv = [
        "--method", method, "--config_overrides", json.dumps({"text_config": TEXT, **overrides}),
        "--dataset", str(questions), "--features", str(features), "--test_splits", "test",
        "--output_dir", str(folder), "--num_train_epochs", str(epochs), "--learning_rate", "3e-3",
        "--lr_scheduler_type", "one_cycle", "--per_device_train_batch_size", "32",
        "--per_device_eval_batch_size", "64", "--disable_tqdm", "True", "--use_cpu", "True", "--resume", "True",
    ]  # fmt: skip
    print(f"\n$ python -m hf_causal_video.training {shlex.join(argv)}", flush=True)
    train(argv)


def write_features(clips: Path, folder: Path, questions: Path, frames: int) -> None:
    """Describe each frame of each clip by the mean colours of its parts, and import that as a feature set."""
    sampling = f"uniform-{frames}"
    wanted = set(read_questions(questions).questions["video_id"])
    paths = sorted(path for path in clips.iterdir() if path.stem in wanted)
    require(paths, "no clips to describe", found=f"none of {sorted(wanted)[:3]} in {clips}", expected="their files")
    arrays = folder.with_name("arrays")
    arrays.mkdir(parents=True, exist_ok=True)
    for path in paths:
        clip = decode_video(path, sampling)
        features = np.stack([mean_colours(frame) for frame in clip.frames])  # (T, C)
        np.savez(arrays / f"{path.stem}.npz", frame_features=features, timestamps_s=clip.timestamps_s)
    layer = f"{GRID} x {GRID} parts"
    card = {"frame_model": "mean colours", "frame_revision": "1", "frame_layer": layer, "sampling": sampling}
    card_file = folder.with_name("card.json")
    card_file.write_text(json.dumps(card), encoding="utf-8")
    run_verb("import", "arrays", arrays, "--provenance", card_file, "--output", folder, "--no-progress")


def mean_colours(frame: np.ndarray) -> np.ndarray:
    """Mean colour of each part of a frame (height, width, 3), around zero: (C,) float32."""
    height, width = (size // GRID for size in frame.shape[:2])
    parts = frame[: height * GRID, : width * GRID].reshape(GRID, height, GRID, width, 3).mean((1, 3))
    return (4.0 * (parts / 255.0 - 0.5)).reshape(-1).astype(np.float32)


def make_clips(folder: Path, questions: Path, count: int, seed: int = 0) -> None:
    """Make clips in which a coloured square is seen for two seconds on one side, and two questions about each."""
    if questions.exists():
        return
    from PIL import Image

    from hf_causal_video.worlds.render import write_video

    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        name = f"clip{number:04d}"
        colour = str(generator.choice(list(COLOURS)))
        side = str(generator.choice(SIDES))
        start = int(generator.integers(CLIP_S - SHOWN_S + 1))
        pictures = []
        for frame in range(CLIP_S * FPS):
            picture = generator.normal(128, 12, (SIZE, SIZE, 3)).clip(0, 255).astype(np.uint8)
            if start <= frame / FPS < start + SHOWN_S:
                left = SIZE // 8 if side == "left" else 5 * SIZE // 8
                picture[3 * SIZE // 8 : 5 * SIZE // 8, left : left + SIZE // 4] = COLOURS[colour]
            pictures.append(Image.fromarray(picture))
        write_video(folder / f"{name}.mp4", pictures, FPS)
        split = ("train", "train", "train", "validation", "test", "test")[number % 6]
        spans = json.dumps([[start, start + SHOWN_S]])
        rows.append([f"{name}.mp4", "which colour is the square", colour, json.dumps(list(COLOURS)), spans, split])
        rows.append([f"{name}.mp4", "on which side is it", side, json.dumps(list(SIDES)), spans, split])
    with questions.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["video", "question", "answer", "choices", "spans", "split"])
        writer.writerows(rows)


if __name__ == "__main__":
    try:
        main()
    except (CausalVideoError, OSError) as error:
        sys.exit(f"error: {as_message(error)}")
