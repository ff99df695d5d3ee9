"""IVRD on real tracks: which triplets hold in a video, by true tracks of ImageNet-VidVRD and video-level annotation.

Protocol. Folds by a hash of the video id; train on the other folds, test on one, scores of all folds pooled. A pair
is an ordered pair of tracks that share a frame and whose classes are those of an annotated triplet. A triplet has no
track ids: where several pairs of a video have its classes, it is unknown for which of them it holds. Two ways to learn
from that: the largest score over these pairs is what the label judges (multiple instances), or the label of such a
pair is unknown (-100, partial labels). Input are 16 steps over the shared frames. The score of a triplet is the
largest over its pairs. Class pairs without a track pair are not candidates, for any method.

The prior is counted in the training videos of the data set, which have no tracks here: triplet statistics. They are
the baseline, and the prior per pair of classes that IVRD adds in training. The share that is left at inference
(`prior_eval_strength`) is chosen for each test fold on its training folds: each validated by a model of the others,
the largest mean of R@50 and mR@50.

Data (a folder of tracks, triplets, counts, names) are for measuring and not part of this repository.
"""

import argparse
import csv
import gzip
import hashlib
import json
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_causal_video.evaluation.relations.tagging import COLUMNS, tagging_metrics
from hf_causal_video.models.base import IGNORED_LABEL
from hf_causal_video.models.ivrd import IVRDConfig, IVRDForVideoRelationDetection
from hf_causal_video.tracks.track import check_track
from hf_causal_video.utils.errors import require

RESULTS = Path(__file__).parent / "results" / "relations_vidvrd_tracks.csv"
STEPS, FOLDS, LISTED = 16, 5, 200  # steps per pair, folds of the protocol, triplets ranked per video
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
# Scale of the cosine, learning rate, weight decay and the kind of labels were chosen on seed 0, each fold validated by
# a model of one other fold.
CHOSEN = "chosen"
BALANCED = {"1.0 / frequency^0.5": 0.5, "1.0 / frequency^0.75": 0.75}  # the whole prior, less log-odds by frequency
STATISTICS = (
    "triplet statistics",
    "triplet statistics / frequency^0.5",
    "triplet statistics / frequency^0.75",
    "class-pair table of the folds",
)
FIELDS = ("model", "strength", "seed", *COLUMNS, "cpu_s")
EXAMPLES = """examples:
  python scripts/benchmarks/relations_vidvrd_tracks.py vidvrd_tracks                    # 3 seeds, about 5 CPU minutes
  python scripts/benchmarks/relations_vidvrd_tracks.py vidvrd_tracks --seeds 0 --models ivrd --output -
  python scripts/benchmarks/relations_vidvrd_tracks.py vidvrd_tracks --report           # the table of the csv
"""


@dataclass(frozen=True)
class Pairs:
    """Candidate pairs of all videos; n pairs, C classes, P predicates.

    Args:
        boxes: (n, 2, T, 4) subject and object, xyxy in [0, 1].
        classes: (n, 2).
        labels: (n, P) 0/1 of the classes of the pair in its video.
        bag: (n,) number of the video and the two classes: pairs that share a label.
        video: (n,) index into `videos`.
        videos: ids. folds: (videos,). truth: triplets of names of each video.
        counts: (C, C, P) triplets of the training videos.
        objects, predicates: names.
    """

    boxes: Tensor
    classes: Tensor
    labels: Tensor
    bag: Tensor
    video: np.ndarray
    videos: list[str]
    folds: np.ndarray
    truth: dict[str, set[tuple[str, str, str]]]
    counts: Tensor
    objects: list[str]
    predicates: list[str]

    def rows(self, folds: Sequence[int]) -> Tensor:
        """Pairs of the videos of some folds."""
        return torch.tensor(np.flatnonzero(np.isin(self.folds[self.video], folds)))

    def partial(self) -> Tensor:
        """Labels (n, P), -100 where another pair of the video may be the one that is meant."""
        alone = (torch.bincount(self.bag)[self.bag] == 1).unsqueeze(1)
        return self.labels.masked_fill((self.labels == 1) & ~alone, IGNORED_LABEL)

    def names(self, folds: Sequence[int]) -> list[str]:
        """Videos of some folds."""
        return [name for name, fold in zip(self.videos, self.folds, strict=True) if fold in folds]


@dataclass(frozen=True)
class Setting:
    """A head, and what it may see.

    Args:
        preset, changes: of `IVRDConfig`.
        strengths: shares of the prior to ask it under; "chosen" is the one of the validation, those of `BALANCED`
            leave the prior and divide by a power of the predicate's frequency.
        motion: "real", "shuffled" (the tracks of another pair, in training and test) or "none" (boxes that rest).
        prior: the prior is counted per pair of classes; without, one prior of all pairs.
        labels: "multiple instances" or "partial".
    """

    preset: str
    changes: Mapping[str, Any]
    strengths: tuple[float | str, ...]
    motion: str = "real"
    prior: bool = True
    labels: str = "multiple instances"


SETTINGS: dict[str, Setting] = {
    "plain head": Setting("plain", {}, (0.0,), prior=False),
    "ivrd, partial labels": Setting("clean", {"similarity_scale": 1.0}, (1.0,), labels="partial"),
    "ivrd": Setting("clean", {"similarity_scale": 1.0}, (*STRENGTHS, CHOSEN, *BALANCED)),
    "ivrd, motion shuffled": Setting("clean", {"similarity_scale": 1.0}, (1.0,), motion="shuffled"),
    "ivrd, classes only": Setting("clean", {"similarity_scale": 1.0}, (1.0,), motion="none"),
    "ivrd, boxes only": Setting("clean", {"similarity_scale": 1.0}, (1.0,), prior=False),
}


def read(folder: Path) -> Pairs:
    """Read the folder of tracks, triplets and counts."""
    tracks, annotation = (_json(folder / f"{name}.json.gz") for name in ("true_tracks", "triplets"))
    objects, predicates = (list(_json(folder / f"{name}.json")) for name in ("id2object", "id2predicate"))
    counts = torch.zeros(len(objects), len(objects), len(predicates))
    with (folder / "train_triplet_counts.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            place = objects.index(row["subject"]), objects.index(row["object"]), predicates.index(row["predicate"])
            counts[place] += int(row["count"])
    videos = sorted(annotation)
    boxes, classes, labels, video, bags = [], [], [], [], []
    truth: dict[str, set[tuple[str, str, str]]] = {}
    numbers: dict[tuple[int, str, str], int] = {}
    for number, name in enumerate(videos):
        about = annotation[name]
        truth[name] = {tuple(triplet) for triplet in about["triplets"]}
        found = _candidates(name, tracks[name], about, truth[name])
        for subject, other, pair in found:
            label = torch.zeros(len(predicates))
            for _, predicate, _ in (one for one in truth[name] if (one[0], one[2]) == (subject, other)):
                label[predicates.index(predicate)] = 1
            boxes.append(pair)
            classes.append([objects.index(subject), objects.index(other)])
            labels.append(label)
            video.append(number)
            bags.append(numbers.setdefault((number, subject, other), len(numbers)))
    folds = [int(hashlib.sha256(name.encode()).hexdigest(), 16) % FOLDS for name in videos]
    return Pairs(
        torch.tensor(np.array(boxes), dtype=torch.float32),
        torch.tensor(classes),
        torch.stack(labels),
        torch.tensor(bags),
        np.array(video),
        videos,
        np.array(folds),
        truth,
        counts,
        objects,
        predicates,
    )


def _candidates(name: str, tracks: list[dict], about: Mapping, truth: set) -> list[tuple[str, str, np.ndarray]]:
    """Subject class, object class and boxes (2, T, 4) of the ordered pairs of a video."""
    wanted = {(subject, other) for subject, _, other in truth}
    size = np.array([about["width"], about["height"]] * 2, dtype=float)
    seen = []
    for number, track in enumerate(tracks):
        steps = track["trajectory"]
        boxes = {int(frame): box for frame, box in (steps.items() if isinstance(steps, dict) else steps)}
        frames = sorted(boxes)
        check_track(frames, np.array([boxes[frame] for frame in frames], dtype=float), f"{name}, track {number}")
        seen.append((track["category"], boxes))
    pairs = []
    for i, (subject, one) in enumerate(seen):
        for j, (other, two) in enumerate(seen):
            shared = sorted(set(one) & set(two))
            if i == j or (subject, other) not in wanted or not shared:
                continue
            chosen = [shared[place] for place in np.linspace(0, len(shared) - 1, STEPS).round().astype(int)]
            pairs.append((subject, other, np.stack([[side[frame] for frame in chosen] for side in (one, two)]) / size))
    return [(subject, other, pair.clip(0, 1)) for subject, other, pair in pairs]


def _json(path: Path) -> Any:
    require(path.is_file(), "data", found=f"no {path.name}", expected="the folder of the protocol", fix="name it")
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        return json.load(file)


def priors(data: Pairs, rows: Tensor) -> dict[str, Any]:
    """Counts for `set_predicate_counts`: probabilities from instances of the training videos.

    A pair has as many predicates as in the training folds (m), spread as the instances c of its classes; the
    probability of at least one instance is 1 - exp(-m c / sum(c)).
    """
    per_pair = float((data.labels[rows] != 0).sum(1).float().mean())
    pairs = data.counts.sum(-1) / per_pair  # (C, C)
    overall = pairs.sum()
    rates = 1 - torch.exp(-data.counts / pairs.clamp(min=1e-6).unsqueeze(-1))
    return {
        "counts": overall * (1 - torch.exp(-data.counts.sum((0, 1)) / overall)),
        "num_pairs": float(overall),
        "pair_counts": pairs.unsqueeze(-1) * rates,
        "num_class_pairs": pairs,
    }


def train(setting: Setting, data: Pairs, rows: Tensor, seed: int, args: argparse.Namespace) -> Any:
    """Train one head on some pairs."""
    torch.manual_seed(seed)
    config = IVRDConfig.preset(
        setting.preset,
        num_object_classes=len(data.objects),
        num_predicates=len(data.predicates),
        hidden_size=args.hidden,
        trajectory_pooling="mean",
        feature_dim=len(data.objects) if setting.preset == "plain" else 0,
        class_pair_prior=setting.prior,
        **setting.changes,
    )
    model = IVRDForVideoRelationDetection(config).train()
    counts = priors(data, rows)
    model.set_predicate_counts(*(list(counts.values()) if setting.prior else list(counts.values())[:2]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=args.weight_decay)
    steps = args.epochs * -(-len(rows) // args.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, total_steps=steps)
    swapped = torch.tensor([data.predicates.index(_mirrored(name)) for name in data.predicates])
    partial, bags = data.partial(), data.bag[rows].unique()
    for _ in range(args.epochs):
        for chosen in bags[torch.randperm(len(bags))].tensor_split(steps // args.epochs):
            index = rows[torch.isin(data.bag[rows], chosen)]
            batch = shown(setting, data, index, seed)
            labels = (partial if setting.labels == "partial" else data.labels)[index]
            if torch.rand(()) < 0.5:  # the mirrored clip: left becomes right
                x1, y1, x2, y2 = batch["track_boxes"].unbind(-1)
                batch["track_boxes"], labels = torch.stack([1 - x2, y1, 1 - x1, y2], -1), labels[:, swapped]
            if setting.labels == "partial":
                loss = model(**batch, predicate_labels=labels.unsqueeze(1)).loss
            else:
                loss = bag_loss(model(**batch).predicate_logits[:, 0], labels, data.bag[index])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return model.eval()


def bag_loss(logits: Tensor, labels: Tensor, bag: Tensor) -> Tensor:
    """Binary cross-entropy of the largest score of each bag; logits, labels (n, P), bag (n,)."""
    _, place = bag.unique(return_inverse=True)
    shape = (int(place.max()) + 1, logits.shape[1])
    place = place.unsqueeze(1).expand_as(logits)
    best = logits.new_full(shape, -torch.inf).scatter_reduce(0, place, logits, "amax")
    truth = labels.new_zeros(shape).scatter_reduce(0, place, labels, "amax")
    return torch.nn.functional.binary_cross_entropy_with_logits(best, truth, reduction="none").sum(1).mean()


def _mirrored(predicate: str) -> str:
    return predicate.replace("left", "#").replace("right", "left").replace("#", "right")


def shown(setting: Setting, data: Pairs, index: Tensor, seed: int) -> dict[str, Tensor]:
    """A batch of pairs, its motion hidden or exchanged."""
    boxes = data.boxes[index]
    if setting.motion == "shuffled":
        order = torch.randperm(len(data.boxes), generator=torch.Generator().manual_seed(seed))
        boxes = data.boxes[order[index]]
    if setting.motion == "none":
        boxes = torch.tensor([0.25, 0.25, 0.75, 0.75]).expand_as(boxes)
    pairs = torch.tensor([[[0, 1]]]).expand(len(index), 1, 2)
    batch = {"track_boxes": boxes, "pair_index": pairs, "track_classes": data.classes[index]}
    if setting.preset == "plain":
        batch["track_features"] = torch.nn.functional.one_hot(data.classes[index], len(data.objects)).float()
    return batch


@torch.inference_mode()
def ask(model: Any, setting: Setting, data: Pairs, rows: Tensor, strength: float, seed: int) -> np.ndarray:
    """Logits (rows, P) under a share of the prior."""
    model.config.prior_eval_strength = strength
    return model(**shown(setting, data, rows, seed)).predicate_logits[:, 0].numpy()


def ranked(data: Pairs, scores: np.ndarray, rows: Tensor) -> dict[str, list[tuple[str, str, str]]]:
    """Triplets of each video, best first, by the largest score over their pairs; scores (rows, P)."""
    best: dict[str, dict[tuple[int, int], np.ndarray]] = {}
    for row, score in zip(rows.tolist(), scores, strict=True):
        table, key = best.setdefault(data.videos[data.video[row]], {}), tuple(data.classes[row].tolist())
        table[key] = np.maximum(table[key], score) if key in table else score
    lists = {}
    for video, table in best.items():
        keys, values = list(table), np.stack(list(table.values()))  # (K, P)
        order = np.argsort(-values.ravel(), kind="stable")[:LISTED]
        lists[video] = [
            (data.objects[keys[pair][0]], data.predicates[predicate], data.objects[keys[pair][1]])
            for pair, predicate in zip(*np.divmod(order, len(data.predicates)), strict=True)
        ]
    return lists


def measured(data: Pairs, lists: Mapping[str, list], folds: Sequence[int]) -> dict[str, float]:
    """The tagging measures of the videos of some folds."""
    frequency = dict(zip(data.predicates, data.counts.sum((0, 1)).tolist(), strict=True))
    return tagging_metrics(lists, {video: data.truth[video] for video in data.names(folds)}, frequency)


def statistics_rows(data: Pairs, folds: list[int]) -> list[dict[str, Any]]:
    """Tables of counts, which look at no track."""
    every = data.rows(folds)
    counts, frequency = data.counts, data.counts.sum((0, 1)).clamp(min=1)
    tables = [counts, counts / frequency.sqrt(), counts / frequency**0.75]
    lists = [ranked(data, table[data.classes[every, 0], data.classes[every, 1]].numpy(), every) for table in tables]
    pooled: dict[str, list] = {}
    for fold in folds:
        table = torch.zeros_like(counts)
        training, test = data.rows([one for one in folds if one != fold]), data.rows([fold])
        for (subject, other), label in zip(data.classes[training].tolist(), data.labels[training], strict=True):
            table[subject, other] += label != 0
        pooled |= ranked(data, table[data.classes[test, 0], data.classes[test, 1]].numpy(), test)
    return [
        {"model": name, "strength": "", "seed": "", **measured(data, one, folds), "cpu_s": 0}
        for name, one in zip(STATISTICS, [*lists, pooled], strict=True)
    ]


def setting_rows(
    name: str, data: Pairs, folds: list[int], seed: int, args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Train a setting for every test fold; ask it under each strength."""
    setting, begin = SETTINGS[name], time.process_time()
    lists: dict[float | str, dict[str, list]] = {strength: {} for strength in setting.strengths}
    for fold in folds:
        training, rows = [one for one in folds if one != fold], data.rows([fold])
        model = train(setting, data, data.rows(training), seed, args)
        chosen = choose(setting, data, training, seed, args) if CHOSEN in setting.strengths else 1.0
        for strength, pooled in lists.items():
            share = chosen if strength == CHOSEN else 1.0 if strength in BALANCED else float(strength)
            scores = ask(model, setting, data, rows, share, seed)
            if strength in BALANCED:
                scores = scores - BALANCED[strength] * data.counts.sum((0, 1)).clamp(min=1).log().numpy()
            pooled |= ranked(data, scores, rows)
        print(f"{name}, seed {seed}, fold {fold}, chosen strength {chosen}", file=sys.stderr)
    seconds = round(time.process_time() - begin)
    return [
        {"model": name, "strength": strength, "seed": seed, **measured(data, pooled, folds), "cpu_s": seconds}
        for strength, pooled in lists.items()
    ]


def choose(setting: Setting, data: Pairs, training: Sequence[int], seed: int, args: argparse.Namespace) -> float:
    """The strength with the largest mean of R@50 and mR@50, each training fold validated by a model of the others."""
    gains: dict[float, list[float]] = {strength: [] for strength in STRENGTHS}
    for fold in training:
        model = train(setting, data, data.rows([one for one in training if one != fold]), seed, args)
        for strength, values in gains.items():
            rows = data.rows([fold])
            found = measured(data, ranked(data, ask(model, setting, data, rows, strength, seed), rows), [fold])
            values.append(found["R@50"] + found["mR@50"])
    return max(STRENGTHS, key=lambda strength: statistics.fmean(gains[strength]))


def report(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table in Markdown: means over seeds, with the sample deviation of the first and the recall columns."""
    lines = [f"| model | strength | {' | '.join(COLUMNS)} |", "|---" * (2 + len(COLUMNS)) + "|"]
    for key in dict.fromkeys((row["model"], str(row["strength"])) for row in rows):
        group = [row for row in rows if (row["model"], str(row["strength"])) == key]
        cells = []
        for column in COLUMNS:
            values = [float(row[column]) for row in group]
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{statistics.fmean(values):.1f}{spread}")
        lines.append(f"| {key[0]} | {key[1]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write the csv, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.2f}" if isinstance(v, float) and k in COLUMNS else v for k, v in row.items()})
    os.replace(temporary, path)


def main() -> None:
    """Train and measure every model, or report what was measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="the folder of tracks, triplets and counts")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--models", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--weight_decay", type=float, default=0.1)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--output", default=str(RESULTS), help="csv to write; '-' writes nothing")
    parser.add_argument("--report", action="store_true", help="print the table of the csv; nothing is trained")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.report:
        with Path(args.output).open(newline="", encoding="utf-8") as file:
            print(report(list(csv.DictReader(file))))
        return
    data = read(args.data)
    folds = sorted(set(data.folds.tolist()))
    rows = statistics_rows(data, folds)
    for name in args.models:
        for seed in args.seeds:
            rows += setting_rows(name, data, folds, seed, args)
            if args.output != "-":
                write(rows, Path(args.output))
    print(report(rows))


if __name__ == "__main__":
    main()
