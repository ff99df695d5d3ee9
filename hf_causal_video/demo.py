"""The whole road on one small machine: films, features, training, numbers, and answers with their evidence drawn.

    python -m hf_causal_video.demo --output demo

Nothing is downloaded. The films are rendered from the confounded world, so every answer, every second and every box is
known; even the vision networks are trained here. Each stage leaves a mark when it is finished, so a second run skips
it, and a run that was stopped goes on where it was.
"""

import argparse
import hashlib
import json
import math
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
from datasets import Dataset, disable_progress_bars
from transformers.utils import logging

from hf_causal_video.data import (
    VideoQACollator,
    VideoQADataset,
    WorldConfig,
    draw_clips,
)
from hf_causal_video.data.render import read_truth, render_split
from hf_causal_video.data.world import world_questions
from hf_causal_video.errors import CausalVideoError, as_message
from hf_causal_video.features.store import FeatureStore
from hf_causal_video.training.checkpoints import write_atomically

WORLD = WorldConfig.rendered(num_choices=None, ask_all=True)  # open answers; six questions about every film
SPLITS = ("train", "validation", "iid", "ood")
VISION_SEED, UNSEEN_SEED = 1, 2  # the clips that are asked about have seed 0
OWN = ("world", "questions", "networks", "features", "model", "evaluation", "stages", "recipe.yaml", "summary.json")


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

    def __init__(self, folder: Path, sizes: Sizes, seed: int = 0):
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
            write_atomically(mark, json.dumps({"settings": settings, **spent, "result": result}, indent=2))
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
        write_atomically(folder / "README.md", questions_card(folder))
        return counts

    def train_networks(self) -> dict[str, Any]:
        """Train the frame network, then the detector that starts from it."""
        from hf_causal_video.demo_models import draw_frames, train_frame_network, train_object_network

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
        from hf_causal_video.demo_models import box_quality

        return box_quality(FeatureStore.open(self.folder / "features"), read_truth(self.folder / "world", "iid"))

    def train(self) -> dict[str, Any]:
        """Train by the command a user would type; the best epoch is chosen on the validation split."""
        recipe = self.folder / "recipe.yaml"
        write_atomically(recipe, yaml.safe_dump(self.recipe(), sort_keys=False))
        command = [
            sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", "--num_machines", "1",
            "--mixed_precision", "no", "--dynamo_backend", "no",
            "--num_cpu_threads_per_process", str(torch.get_num_threads()), "--module", "hf_causal_video.training",
            "--config", str(recipe), "--output_dir", str(self.folder / "model"), "--resume",
        ]  # fmt: skip
        _run_process(command)
        return json.loads((self.folder / "model" / "metrics.json").read_text())

    def recipe(self) -> dict[str, Any]:
        """The recipe that is written beside the model; every key is a flag of `scripts/train.py`."""
        return {
            "method": "transtr",
            "preset": "clean",
            "config_overrides": {
                # a text encoder from nothing: a wide start and no dropout let it tell 24 words apart in minutes
                "text_config": {
                    "hidden_size": 64, "num_hidden_layers": 1, "initializer_range": 0.1,
                    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
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
        write_atomically(self.folder / "summary.json", json.dumps(results, indent=2) + "\n")
        return results

    def ask(self) -> dict[str, Any]:
        """Do as a stranger would, in a process that knows nothing but the folder."""
        _run_process([sys.executable, "-m", "hf_causal_video.demo", "--output", str(self.folder), "--answer"])
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


@torch.inference_mode()
def evidence_quality(folder: Path, split: str) -> dict[str, float]:
    """Percent of kept frames inside the true window, and how often there the true actor (IoU > 0.5) is among the kept
    objects; and what a uniform choice of frames, a random choice of as many regions, would get."""
    from transformers import AutoModel, AutoProcessor

    from hf_causal_video.demo_models import box_iou, frame_numbers

    model, processor = (auto.from_pretrained(str(folder / "model")) for auto in (AutoModel, AutoProcessor))
    questions = Dataset.from_parquet(str(folder / "questions" / f"{split}.parquet"))
    truths = read_truth(folder / "world", split)
    dataset = VideoQADataset(questions, FeatureStore.open(folder / "features"))
    collator = VideoQACollator(processor, with_labels=False)
    inside, hits, random_hits = [], [], []
    for start in range(0, len(dataset), 64):
        items = [dataset[index] for index in range(start, min(start + 64, len(dataset)))]
        output = model.eval()(**collator(items))
        for row, item in enumerate(items):
            causal, kept = torch.tensor(item["causal_frames"]), output.kept_frames[row]
            inside.append(causal[kept].float().mean())
            truth = truths[item["video_id"]]
            shown = frame_numbers(item["timestamps_s"], truth)
            true_boxes = torch.from_numpy(truth.boxes[shown, item["causal_object"]])
            for slot, frame in enumerate(kept.tolist()):
                regions = item["object_boxes"][frame][item["object_mask"][frame]]
                if causal[frame] and len(regions):
                    found = box_iou(output.kept_boxes[row, slot], true_boxes[frame]) > 0.5
                    hits.append(found.any().float())
                    misses = int((box_iou(regions, true_boxes[frame]) <= 0.5).sum())
                    picks = min(output.kept_boxes.shape[2], len(regions))
                    random_hits.append(torch.tensor(1 - math.comb(misses, picks) / math.comb(len(regions), picks)))
    shares = {
        "kept frames in the window": inside,
        "uniform frames in the window": [torch.tensor(row).float().mean() for row in questions["causal_frames"]],
        "the actor among kept objects": hits,
        "the actor among random objects": random_hits,
    }
    return {name: float(100 * torch.stack(values).mean()) if values else 0.0 for name, values in shares.items()}


def answer_and_draw(folder: Path, num_pictures: int = 6) -> None:
    """Load the trained model as a stranger would, ask about a film rendered just now, and draw what it looked at."""
    from transformers import AutoModel, AutoProcessor, pipeline

    import hf_causal_video.pipelines  # noqa: F401  (registers the task)
    from hf_causal_video.evidence import EvidenceCase, save_strip, write_report

    model, processor = (auto.from_pretrained(str(folder / "model")) for auto in (AutoModel, AutoProcessor))
    qa: Any = pipeline("video-question-answering", model=model, processor=processor)  # type: ignore[call-overload]
    size = json.loads((folder / "world" / "truth" / "iid.json").read_text())["size"]
    films = [(folder / "unseen", world_questions(draw_clips(WORLD, "iid", 1, UNSEEN_SEED)))]
    render_split(folder / "unseen", "iid", 1, WORLD, seed=UNSEEN_SEED, size=size, progress=False)
    others = Dataset.from_parquet(str(folder / "questions" / "ood.parquet"))
    films += [(folder / "world", others.select([row])) for row in range(min(6, len(others)))]
    cases = []
    for world, rows in films:
        clip = world / "videos" / f"{rows[0]['video_id']}.mp4"
        answers = qa(str(clip), question=rows["question"][:], return_frames=True, prove=True)
        for row, result in zip(rows, answers, strict=True):
            cases.append(
                EvidenceCase(
                    row["question"], result["evidence"], result["frames"], result["times_s"].tolist(),
                    row["answer_text"], [tuple(span) for span in row["spans"]], row["duration_s"],
                    f"{clip.name}, never seen in training", result["scores_without"], result["scores_only"],
                )
            )  # fmt: skip
            verdict = "right" if cases[-1].right else f"wrong, it is {row['answer_text']}"
            print(f"  {clip.name}: {row['question']}? {result['answer']} ({result['score']:.0%}), {verdict}")
    for number, case in enumerate(cases[:num_pictures], 1):
        save_strip(case, folder / f"evidence-{number}.png")
    metrics = json.loads((folder / "summary.json").read_text())
    write_report(
        folder / "report.html", cases, metrics, "What it answered about films it never saw, and why",
        "TranSTR, trained in minutes on rendered films of the confounded world. Numbers in percent, measured here.",
    )  # fmt: skip
    print(f"  drawn: {folder / 'report.html'} and {min(num_pictures, len(cases))} pictures", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo from the command line; 0 if all went well."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="demo", description=__doc__, formatter_class=raw)
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder for everything (default: demo)")
    parser.add_argument("--fresh", action="store_true", help="start over; what the demo wrote there is deleted")
    parser.add_argument("--quick", action="store_true", help="a minute of everything; the answers are noise")
    parser.add_argument("--seed", type=int, default=0, help="of TranSTR's training")
    parser.add_argument("--answer", action="store_true", help="only ask the trained model and draw, as the last stage")
    args = parser.parse_args(argv)
    disable_progress_bars()  # of tables and of weights; films, training and answers keep theirs
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        if args.answer:
            answer_and_draw(args.output)
            return 0
        if args.fresh:
            _clear(args.output)
        Demo(args.output, Sizes.quick() if args.quick else Sizes(), args.seed).run()
    except (CausalVideoError, OSError) as error:
        print(f"demo: {as_message(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped. Finished stages are kept; the same command goes on from here.", file=sys.stderr)
        return 130
    return 0


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
