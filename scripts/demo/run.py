"""The whole road on one small machine: films, features, training, numbers, and answers with their evidence drawn.

    python -m scripts.demo.run --output demo

Nothing is downloaded. The films are rendered from the confounded world, so every answer, every second and every box is
known; even the vision networks are trained here. Each stage leaves a mark when it is finished, so a second run skips
it, and a run that was stopped goes on where it was.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from datasets import disable_progress_bars
from transformers.utils import logging

from hf_causal_video.features.store.reader import FeatureStore
from hf_causal_video.utils.errors import CausalVideoError, as_message
from hf_causal_video.utils.files import write_whole
from hf_causal_video.worlds import WorldConfig, draw_clips
from hf_causal_video.worlds.clips import world_questions
from hf_causal_video.worlds.render import read_truth, render_split
from scripts.demo.report import answer_and_draw, evidence_quality

WORLD = WorldConfig.rendered(num_choices=None, ask_all=True)  # open answers; six questions about every film
SPLITS = ("train", "validation", "iid", "ood")
VISION_SEED = 1  # the clips that are asked about have seed 0
OWN = (
    "world",
    "questions",
    "networks",
    "features",
    "model",
    "evaluation",
    "stages",
    "recipe.yaml",
    "summary.json",
    "films",
    "unpacked",
)


@dataclass(frozen=True)
class Sizes:
    """How much of everything: the full demo, or a quick one that only shows that the road is open."""

    clips: tuple[int, ...] = (500, 60, 150, 150)  # of each split
    pixels: int = 96  # width and height
    vision_clips: int = 300
    frame_steps: int = 350
    object_steps: int = 600
    threshold: float = 0.3  # regions that score less are no objects
    epochs: int = 16
    kept_frames: int = 4  # of 16
    kept_objects: int = 2  # of about 4

    @classmethod
    def quick(cls) -> "Sizes":
        """A few seconds; the answers are noise."""
        return cls(clips=(6, 2, 3, 3), pixels=64, vision_clips=2, frame_steps=8, object_steps=8, threshold=0, epochs=1)


class Demo:
    """The stages of the demo over one folder.

    Args:
        folder: where everything goes.
        sizes: how much of everything.
        seed: of TranSTR's training.
    """

    def __init__(self, folder: Path, sizes: Any, seed: int = 0):
        self.folder, self.sizes, self.seed, self.started = folder, sizes, seed, time.monotonic()
        self.stages: tuple[tuple[str, str, Callable[[], dict[str, Any]]], ...] = (
            ("render", "render films of the confounded world", self.render),
            ("networks", "train two small vision networks, as no pretrained ones are at hand", self.train_networks),
            ("extract", "extract frame and object features from the films", self.extract),
            ("train", "train TranSTR with Accelerate", self.train),
            ("evaluate", "evaluate answers and evidence", self.evaluate),
            ("answer", "load it in a new process, answer about a film it never saw, draw the evidence", self.ask),
        )

    def run(self) -> None:
        """Run what is not finished yet."""
        (self.folder / "stages").mkdir(parents=True, exist_ok=True)
        settings = {"sizes": json.loads(json.dumps(asdict(self.sizes))), "seed": self.seed}
        for number, (name, title, stage) in enumerate(self.stages, 1):
            mark = self.folder / "stages" / f"{number}-{name}.json"
            head = f"[{number}/{len(self.stages)}] {title}"
            if mark.is_file():
                before = json.loads(mark.read_text())
                if before["settings"] != settings:
                    raise CausalVideoError(
                        f"{self.folder} holds a demo of other sizes", found=before["settings"], expected=settings,
                        fix="start over with --fresh, or choose another --output",
                    )  # fmt: skip
                print(f"{head}: finished before, in {before['seconds']:.0f} s", flush=True)
                continue
            print(f"\n{head}  (at {self._elapsed()})", flush=True)
            began, worked = time.monotonic(), _cpu_seconds()
            result = stage()
            spent = {"seconds": round(time.monotonic() - began, 1), "cpu_seconds": round(_cpu_seconds() - worked, 1)}
            write_whole(mark, json.dumps({"settings": settings, **spent, "result": result}, indent=2))
        self._print_summary()

    def render(self) -> dict[str, Any]:
        """Render the films of every split and write down what is asked about them."""
        folder = self.folder / "questions"
        folder.mkdir(parents=True, exist_ok=True)
        counts = {}
        for split, count in zip(SPLITS, self.sizes.clips, strict=True):
            world = self.folder / "world"
            if not (world / "questions" / f"{split}.parquet").is_file():  # written last
                render_split(world, split, count, WORLD, size=self.sizes.pixels)
            rows = world_questions(draw_clips(WORLD, split, count))
            rows.to_parquet(folder / f"{split}.parquet")
            counts[split] = {"films": count, "questions": len(rows)}
            print(f"  {split}: {count} films, {len(rows)} questions", flush=True)
        write_whole(folder / "README.md", questions_card(folder))
        return counts

    def train_networks(self) -> dict[str, Any]:
        """Train the frame network, then the detector that starts from it."""
        from scripts.demo.networks import draw_frames, train_frame_network, train_object_network

        networks, sizes = self.folder / "networks", self.sizes
        networks.mkdir(exist_ok=True)
        frames = draw_frames(sizes.vision_clips, sizes.pixels, VISION_SEED)
        if not (networks / "frames").is_dir():
            train_frame_network(networks / "frames", frames, sizes.frame_steps)
        if not (networks / "objects").is_dir():
            train_object_network(networks / "objects", networks / "frames", frames, sizes.object_steps)
        return {"drawn frames": len(frames)}

    def extract(self) -> dict[str, Any]:
        """Turn every film into features, and compare the boxes with the true ones."""
        from hf_causal_video.features import extract_folder

        report = extract_folder(
            self.folder / "world" / "videos", self.folder / "features",
            str(self.folder / "networks" / "frames"), str(self.folder / "networks" / "objects"),
            num_objects=6, object_threshold=self.sizes.threshold,
        )  # fmt: skip
        print(report, flush=True)
        if report.failed:
            raise CausalVideoError(
                "films without features", found=report.failed, expected="every film", fix="try again with --fresh"
            )
        from scripts.demo.networks import box_quality

        return box_quality(FeatureStore.open(self.folder / "features"), read_truth(self.folder / "world", "iid"))

    def train(self) -> dict[str, Any]:
        """Train by the command a user would type; the best epoch is chosen on the validation split."""
        recipe = self.folder / "recipe.yaml"
        write_whole(recipe, yaml.safe_dump(self.recipe(), sort_keys=False))
        command = [
            sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", "--num_machines", "1",
            "--mixed_precision", "no", "--dynamo_backend", "no",
            "--num_cpu_threads_per_process", str(torch.get_num_threads()), "--module", "hf_causal_video.training",
            "--config", str(recipe), "--output_dir", str(self.folder / "model"), "--resume",
        ]  # fmt: skip
        _run_process(command)
        # the model carries its small networks, so that its folder answers wherever it is moved
        shutil.copytree(self.folder / "networks", self.folder / "model" / "networks", dirs_exist_ok=True)
        return json.loads((self.folder / "model" / "metrics.json").read_text())

    def recipe(self) -> dict[str, Any]:
        """The recipe that is written beside the model; every key is a flag of `scripts/train.py`."""
        return {
            "method": "transtr",
            "preset": "clean",
            "config_overrides": {
                # a text encoder from nothing: a wide start and no dropout let it tell 24 words apart in minutes
                "text_config": {
                    "hidden_size": 64,
                    "num_hidden_layers": 1,
                    "initializer_range": 0.1,
                    "hidden_dropout_prob": 0.0,
                    "attention_probs_dropout_prob": 0.0,
                },
                "hidden_dropout_prob": 0.0,
                "hidden_size": 64,
                "num_attention_heads": 4,
                "intermediate_size": 128,
                "num_frames_kept": self.sizes.kept_frames,
                "num_objects_kept": self.sizes.kept_objects,
                "topk_samples": 50,
            },
            "dataset": str(self.folder / "questions"),
            "features": str(self.folder / "features"),
            "per_device_train_batch_size": 64,
            "per_device_eval_batch_size": 128,
            "num_train_epochs": self.sizes.epochs,
            "learning_rate": 2e-3,
            "lr_scheduler_type": "one_cycle",
            "weight_decay": 0.01,
            "max_grad_norm": 1.0,
            "seed": self.seed,
        }

    def evaluate(self) -> dict[str, Any]:
        """Measure answers by the package's own evaluation, and evidence against the truth of the films."""
        from hf_causal_video.training.evaluate import evaluate_checkpoint

        model, questions, features = (str(self.folder / name) for name in ("model", "questions", "features"))
        results: dict[str, Any] = {}
        for split in ("iid", "ood"):
            for name, frames in ((split, None), (f"{split}, uniform", self.sizes.kept_frames)):
                output = self.folder / "evaluation" / name.replace(", ", "-")
                report = evaluate_checkpoint(
                    model, questions, split, features=features, output=output, num_frames=frames
                )  # fmt: skip
                results[name] = {key: value for key, value in report["metrics"].items() if isinstance(value, float)}
            results[split] |= evidence_quality(self.folder, split)
        print(_table(results), flush=True)
        write_whole(self.folder / "summary.json", json.dumps(results, indent=2) + "\n")
        return results

    def ask(self) -> dict[str, Any]:
        """Do as a stranger would, in a process that knows nothing but the folder."""
        _run_process([sys.executable, "-m", "scripts.demo.run", "--output", str(self.folder), "--answer"])
        return {"pictures": sorted(path.name for path in self.folder.glob("evidence-*.png"))}

    def _elapsed(self) -> str:
        seconds = int(time.monotonic() - self.started)
        return f"{seconds // 60}:{seconds % 60:02d}"

    def _print_summary(self) -> None:
        marks = [json.loads(path.read_text()) for path in sorted((self.folder / "stages").glob("*.json"))]
        box, results = marks[2]["result"], marks[4]["result"]
        print("\nmeasured here, on films the model was not trained on (chance is 12.5 %: eight answers of a kind):")
        print(f"  detector: mean IoU with the true boxes {box['mean IoU']:.2f}, {box['found']:.1f} % found, "
              f"{box['named']:.1f} % named right")  # fmt: skip
        print(_table(results))
        clip = next((self.folder / "unseen" / "videos").glob("*.mp4"))
        clock, cpu = (sum(mark[kind] for mark in marks) for kind in ("seconds", "cpu_seconds"))
        print(f"time: {clock:.0f} s by the clock, {cpu:.0f} s of CPU, for {len(marks)} stages")
        print(f"look at {self.folder / 'report.html'} and {self.folder / 'evidence-1.png'} ...; ask it more:")
        print(f'  hf-causal-video answer {self.folder / "model"} {clip} "who is jumping"')


def questions_card(folder: Path) -> str:
    """Let `load_dataset(folder, "questions")` find the splits.

    `datasets` takes local folders for one set, and answers from its cache, if their names and cards are alike; the
    digest makes this the card of these questions alone.
    """
    digest = hashlib.sha256(b"".join((folder / f"{split}.parquet").read_bytes() for split in SPLITS)).hexdigest()[:16]
    files = [{"split": split, "path": f"{split}.parquet"} for split in SPLITS]
    config = {"config_name": "questions", "description": f"sha256 {digest}", "data_files": files}
    head = yaml.safe_dump({"configs": [config]}, sort_keys=False)
    return f"---\n{head}---\nQuestions about the rendered films of the demo.\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo from the command line; 0 if all went well."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="demo", description=__doc__, formatter_class=raw)
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder for everything (default: demo)")
    parser.add_argument("--fresh", action="store_true", help="start over; what the demo wrote there is deleted")
    parser.add_argument("--quick", action="store_true", help="a minute of everything; the answers are noise")
    parser.add_argument("--seed", type=int, default=0, help="of TranSTR's training")
    parser.add_argument("--answer", action="store_true", help="only ask the trained model and draw, as the last stage")
    parser.add_argument("--real", metavar="FOLDER", help="the same on spliced films of these clips or photographs")
    parser.add_argument("--questions", default="file-names", help="of --real: csv or JSONL, file-names or folders")
    args = parser.parse_args(argv)
    disable_progress_bars()  # of tables and of weights; films, training and answers keep theirs
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        if args.answer:
            answer_and_draw(args.output, WORLD)
            return 0
        if args.fresh:
            _clear(args.output)
        if args.real:
            _run_real(args)
            return 0
        Demo(args.output, Sizes.quick() if args.quick else Sizes(), args.seed).run()
    except (CausalVideoError, OSError) as error:
        print(f"demo: {as_message(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped. Finished stages are kept; the same command goes on from here.", file=sys.stderr)
        return 130
    return 0


def _run_real(args: argparse.Namespace) -> None:
    from scripts.demo.real import RealDemo, RealSettings, install_missing

    install_missing()
    make = RealSettings.quick if args.quick else RealSettings
    RealDemo(args.output, make(str(Path(args.real).resolve()), args.questions), args.seed).run()


def _clear(folder: Path) -> None:
    for path in [*(folder / name for name in (*OWN, "unseen", "report.html")), *folder.glob("evidence-*.png")]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _run_process(command: list[str]) -> None:
    if code := subprocess.run(command, check=False).returncode:
        raise CausalVideoError(
            "a process of the demo failed", found=f"exit code {code} of {' '.join(command[1:4])} ...", expected="0",
            fix="read what it said above",
        )  # fmt: skip


def _cpu_seconds() -> float:
    """CPU time of this process and of its finished children, user and system."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def _table(results: dict[str, Any]) -> str:
    columns = sorted({key for row in results.values() for key in row}, key=list(results["iid"]).index)
    width = max(map(len, columns))
    lines = ["  " + " " * width + "".join(f"{name:>14}" for name in results)]
    for column in columns:
        cells = [f"{row[column]:>12.1f} %" if column in row else " " * 14 for row in results.values()]
        lines.append(f"  {column:<{width}}" + "".join(cells))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
