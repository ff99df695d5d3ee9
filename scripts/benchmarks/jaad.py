"""IVRD on real tracks: JAAD, official split, 30-frame windows, 11 labels with a long tail.

What can be seen here, and what cannot. Average precision ranks the windows of one label, and the prior adds the same
number to every window of a label; so the step from the observed to the uniform prior at inference (the intervention of
`mixture`, or logit adjustment) leaves every AP as it is, but for rounding. It shows where labels compete with each
other: in the recall of each label among the four best of a window (which has three states, and sometimes an event).
AP can differ only between models that were *trained* differently.
"""

import argparse
import csv
import math
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from hf_causal_video.data.relations.jaad import CAR_STATES, JAAD_LABELS, JAAD_SPLITS, JaadWindows, read_jaad
from hf_causal_video.evaluation.relations.pairs import pair_metrics
from hf_causal_video.models.ivrd import IVRDConfig, IVRDForVideoRelationDetection
from hf_causal_video.utils.version import __version__

RESULTS = Path(__file__).parent / "results" / "jaad.csv"
# name, preset, what is changed, and the priors to ask the trained model under
MODELS: tuple[tuple[str, str, dict[str, str], tuple[str, ...]], ...] = (
    ("plain head", "plain", {}, ("uniform",)),
    ("logit adjustment", "logit-adjustment", {}, ("uniform", "frequency")),
    ("IVRD paper (nwgm), uniform prior in training", "paper", {}, ("uniform",)),
    ("IVRD nwgm, frequency prior in training", "paper", {"prior_train": "frequency"}, ("uniform", "frequency")),
    ("IVRD clean (mixture), frequency prior in training", "clean", {}, ("uniform", "frequency")),
)
RAREST, BEST = 5, 4
COLUMNS = ("model", "prior_eval", "inputs", "seed", "split", "mAP", "mAP_rarest5", f"mR@{BEST}", f"mR@{BEST}_rarest5")
EXAMPLES = """examples:
  python scripts/benchmarks/jaad.py jaad_annotations.tar.xz                 # 3 seeds, about a minute a model and seed
  python scripts/benchmarks/jaad.py jaad_annotations.tar.xz --split val     # what the settings were chosen on
  python scripts/benchmarks/jaad.py jaad_annotations.tar.xz --seeds 1 --epochs 1 --output -

columns of the table, in percent:
  mAP     average precision, the mean of 11 labels; of the rarest five in training
  mR@4    share of a label's windows that have it among their four best scores, the mean of labels
"""


def train(name: str, preset: str, changes: dict, data: JaadWindows, args: argparse.Namespace, seed: int):
    """Train one head on the windows of the training split."""
    torch.manual_seed(seed)
    config = IVRDConfig.preset(
        preset,
        num_object_classes=2,
        num_predicates=len(JAAD_LABELS),
        feature_dim=len(CAR_STATES),
        hidden_size=args.hidden,
        trajectory_pooling="mean",
        **changes,
    )
    model = IVRDForVideoRelationDetection(config).train()
    model.set_predicate_counts(data.labels.sum(0), len(data))
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=1e-2)
    steps = args.epochs * math.ceil(len(data) / args.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, total_steps=steps)
    warmup, step = round(float(config.prototype_warmup) * steps) if config.uses_prototypes else 0, 0
    for epoch in range(args.epochs):
        total = 0.0
        for index in torch.randperm(len(data)).split(args.batch_size):
            model.warming_up = step < warmup
            if warmup and step == warmup:
                start_prototypes(model, data, args.inputs)
            step += 1
            loss = model(**shown(data, index, args.inputs)).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item() * len(index)
        print(f"\r{name}, seed {seed}, epoch {epoch + 1}, loss {total / len(data):.3f}", end="", file=sys.stderr)
    print(file=sys.stderr)
    return model.eval()


@torch.no_grad()
def start_prototypes(model: IVRDForVideoRelationDetection, data: JaadWindows, inputs: str) -> None:
    """Set the prototypes to the class means of the references, as `RelationTrainer` does after the warm-up."""
    model.eval()
    rows = torch.arange(len(data)).split(256)
    references = torch.cat([model(**shown(data, index, inputs)).references[:, 0] for index in rows])
    model.set_prototypes(references, data.labels)
    model.train()


def shown(data: JaadWindows, index: torch.Tensor, inputs: str) -> dict[str, torch.Tensor]:
    """A batch in which the car's state, or the pedestrian's track, may be hidden."""
    batch = data.batch(index)
    if inputs == "track":
        batch["track_features"].zero_()
    if inputs == "car":
        batch["track_boxes"][:, 0] = batch["track_boxes"][:, 1]
    return batch


@torch.inference_mode()
def predict(model: IVRDForVideoRelationDetection, data: JaadWindows, inputs: str) -> np.ndarray:
    """Logits (n, P)."""
    rows = torch.arange(len(data)).split(256)
    return torch.cat([model(**shown(data, index, inputs)).predicate_logits[:, 0] for index in rows]).numpy()


def measure(logits: np.ndarray, labels: np.ndarray, rarest: Sequence[int]) -> dict[str, float]:
    """The four measures in percent; labels (n, P) without a window are left out of the means."""
    found = pair_metrics(logits, labels, {"rarest": rarest}, BEST)
    return dict(zip(COLUMNS[-4:], (found[k] for k in ("mAP", "rarest mAP", f"mR@{BEST}", "rarest")), strict=True))


def main() -> None:
    """Train, measure, print a table, write a csv."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("annotations", type=Path, help="jaad_annotations.tar.xz, or a checkout of the JAAD repository")
    parser.add_argument("--seeds", type=int, default=3)
    names = [name for name, *_ in MODELS]
    parser.add_argument("--models", nargs="+", choices=names, default=names, help="the csv keeps the other heads")
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--inputs", choices=("both", "track", "car"), default="both")
    parser.add_argument(
        "--split", choices=("val", "test"), default="test", help="what is measured; test is the default"
    )
    parser.add_argument("--output", default=str(RESULTS), help="csv to write, - for none")
    args = parser.parse_args()
    if min(args.seeds, args.epochs, args.hidden, args.batch_size) < 1:
        parser.error("--seeds, --epochs, --hidden and --batch_size are 1 or more")
    splits = {split: read_jaad(args.annotations, split) for split in JAAD_SPLITS if split in ("train", args.split)}
    data, held_out = splits["train"], splits[args.split]
    rarest = data.labels.sum(0).argsort()[:RAREST].tolist()
    print("rarest five:", ", ".join(JAAD_LABELS[p] for p in rarest), file=sys.stderr)
    rows = []
    for name, preset, changes, priors in (model for model in MODELS if model[0] in args.models):
        for seed in range(args.seeds):
            started = time.process_time()
            model = train(name, preset, changes, data, args, seed)
            seconds = time.process_time() - started
            for prior in priors:
                model.config.prior_eval = prior
                measured = measure(predict(model, held_out, args.inputs), held_out.labels.numpy(), rarest)
                key = {"model": name, "prior_eval": prior, "inputs": args.inputs, "seed": seed, "split": args.split}
                rows.append({**key, **{k: round(v, 2) for k, v in measured.items()}, "train_cpu_s": round(seconds)})
    report(rows)
    if args.output != "-":
        write(Path(args.output), rows, args.models)


def report(rows: list[dict]) -> None:
    """Print mean and sample deviation over the seeds."""
    for key in dict.fromkeys((row["model"], row["prior_eval"]) for row in rows):
        mine = [row for row in rows if (row["model"], row["prior_eval"]) == key]
        cells = []
        for column in COLUMNS[-4:]:
            values = [row[column] for row in mine]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{column} {statistics.fmean(values):5.1f} ± {spread:3.1f}")
        print(f"{key[0]}, asked under {key[1]}: " + " | ".join(cells))


def write(path: Path, rows: list[dict], measured: Sequence[str]) -> None:
    """Write the rows with how they were made, whole or not at all; rows of models not measured now are kept."""
    made = {
        "command": shlex.join(
            ["python", "scripts/benchmarks/jaad.py", *[Path(a).name if os.sep in a else a for a in sys.argv[1:]]]
        ),
        "versions": f"hf-causal-video-{__version__} torch-{torch.__version__} python-{platform.python_version()}",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = []
    if path.exists():
        with path.open(newline="") as file:
            kept = [row for row in csv.DictReader(file) if row["model"] not in measured]
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    with partial.open("w", newline="") as file:
        table = csv.DictWriter(file, [*rows[0], *made])
        table.writeheader()
        table.writerows(kept)
        table.writerows({**row, **made} for row in rows)
    os.replace(partial, path)
    print(f"written: {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
