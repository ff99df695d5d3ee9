"""Does the intervention of IVRD help the rare predicates? The relation world, where the answer can be known.

Every setting is trained on the same pairs from the same seed and asked twice: on pairs drawn as in training (iid),
and on pairs whose predicates are equally frequent and independent of the object classes (balanced). A seed is a new
world, with new signatures, class vectors and affinities. Settings were chosen on seeds 101 to 103; seeds 11 to 15
were then run once.
"""

import argparse
import csv
import os
import statistics
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from hf_causal_video.causal.predicate_prior import Prior
from hf_causal_video.data.relation_world import PARTS, RelationWorldConfig, RelationWorldSplit, generate_relation_world
from hf_causal_video.evidence.drawing import EVIDENCE, FAINT, INK, MUTED, PLAIN, Canvas
from hf_causal_video.models.ivrd import IVRDConfig, IVRDForVideoRelationDetection

RESULTS = Path(__file__).parent / "results" / "relations_world.csv"
PICTURE = Path(__file__).parents[2] / "hf_causal_video" / "models" / "ivrd" / "relations_world.png"
BATCH, PEAK = 64, 4e-3
SIZES = {"train": 6000, "iid": 2000, "balanced": 2000}
METRICS = ("iid accuracy", "mean recall", "head", "body", "tail", "mAP")
# What is trained, and how each trained model is asked: (name of the row, prior at test, prior subtracted afterwards).
MODELS: dict[str, list[tuple[str, Prior | None, bool]]] = {
    "plain": [("plain classifier", None, False), ("plain, prior subtracted afterwards", None, True)],
    "paper": [("literal, uniform prior (nwgm)", None, False)],
    "paper-exact": [("literal, uniform prior (exact)", None, False)],
    "cosine": [("cosine prototypes, no prior", None, False), ("cosine, prior subtracted afterwards", None, True)],
    "logit-adjustment": [("logit adjustment, linear head", None, False)],
    "logit-adjustment-cosine": [("logit adjustment, cosine head", None, False)],
    "clean": [
        ("mixture, observed to uniform prior", None, False),
        ("mixture, observed prior at test", "frequency", False),
    ],
}
TABLE, BASE, OURS = "frequency table of class pairs", "plain classifier", "mixture, observed to uniform prior"
OFF = "mixture, observed prior at test"
EXAMPLES = """examples:
  python scripts/benchmarks/relations_world.py                        # 5 seeds, 7 models each; half an hour of one
  core python scripts/benchmarks/relations_world.py --seeds 101 --models plain clean --output -
  python scripts/benchmarks/relations_world.py --report               # table and picture from the csv
"""


def train(
    preset: str, split: RelationWorldSplit, world: RelationWorldConfig, seed: int, epochs: int
) -> IVRDForVideoRelationDetection:
    """Train one setting: Adam, one-cycle, gradients clipped at 1."""
    torch.manual_seed(seed)
    config = IVRDConfig.preset(
        preset, num_object_classes=world.num_classes, num_predicates=world.num_predicates, hidden_size=64,
        feature_dim=world.feature_dim, multi_label=False,
    )  # fmt: skip
    model = IVRDForVideoRelationDetection(config).train()
    model.set_predicate_counts(torch.bincount(split.predicates, minlength=world.num_predicates), len(split))
    optimizer = torch.optim.Adam(model.parameters(), PEAK)
    steps = epochs * -(-len(split) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK, total_steps=steps)
    for epoch in range(epochs):
        references = []
        for rows in torch.randperm(len(split)).split(BATCH):
            output = model(**split.batch(rows))
            optimizer.zero_grad()
            output.loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            references.append((output.references.detach(), split.predicates[rows]))
        if epoch == 0 and config.intervention in ("nwgm", "exact"):  # class means after warm-up (reconstruction)
            model.set_prototypes(*(torch.cat(column) for column in zip(*references, strict=True)))
    return model.eval()


@torch.no_grad()
def judge(model: IVRDForVideoRelationDetection, split: RelationWorldSplit) -> Tensor:
    """Log-probabilities (n, P) of the predicates."""
    batches = torch.arange(len(split)).split(500)
    return torch.cat([model(**split.batch(rows)).predicate_logits for rows in batches]).log_softmax(-1)


def frequency_table(train_split: RelationWorldSplit, split: RelationWorldSplit, world: RelationWorldConfig) -> Tensor:
    """The share of each predicate among the training pairs of the same two classes, as log-probabilities."""
    counts = torch.full((world.num_classes, world.num_classes, world.num_predicates), 1e-3)
    where = (*train_split.classes.unbind(1), train_split.predicates)
    counts.index_put_(where, torch.ones(len(train_split)), accumulate=True)
    return counts[tuple(split.classes.unbind(1))].log().log_softmax(-1)


def measure(iid: Tensor, balanced: Tensor, splits: dict[str, RelationWorldSplit]) -> dict[str, float]:
    """Percentages: accuracy on iid pairs; mean recall, its parts, and mean average precision on balanced ones."""
    truth = splits["balanced"].predicates
    right = balanced.argmax(1) == truth
    recall = torch.stack([right[truth == p].float().mean() for p in range(balanced.shape[1])])
    precisions = [average_precision(balanced[:, p], truth == p) for p in range(balanced.shape[1])]
    found = {
        "iid accuracy": (iid.argmax(1) == splits["iid"].predicates).float().mean(),
        "mean recall": recall.mean(),
        **{part: recall[where].mean() for part, where in PARTS.items()},
        "mAP": torch.stack(precisions).mean(),
    }
    return {name: 100 * float(value) for name, value in found.items()}


def average_precision(scores: Tensor, positive: Tensor) -> Tensor:
    """Mean precision at each positive, by falling score."""
    hits = positive[scores.argsort(descending=True)].float()
    return (hits.cumsum(0) / torch.arange(1, len(hits) + 1) * hits).sum() / hits.sum()


def run_seed(seed: int, epochs: int, presets: Iterable[str]) -> Iterable[dict[str, object]]:
    """One world: train every setting, yield a row for every way of asking it."""
    world = RelationWorldConfig(world_seed=seed)
    splits = {name: generate_relation_world(world, name, size, seed) for name, size in SIZES.items()}
    tests = splits["iid"], splits["balanced"]

    def row(name: str, logits: list[Tensor], cpu_s: float) -> dict[str, object]:
        found = measure(logits[0], logits[1], splits)
        numbers = {metric: f"{value:.2f}" for metric, value in found.items()}
        return {"seed": seed, "setting": name, **numbers, "epochs": epochs, "cpu_s": f"{cpu_s:.0f}"}

    yield row(TABLE, [frequency_table(splits["train"], test, world) for test in tests], 0.0)
    for preset in presets:
        begin = time.process_time()
        model = train(preset, splits["train"], world, seed, epochs)
        spent = time.process_time() - begin
        for name, prior, subtract in MODELS[preset]:
            asked, model.config.prior_eval = model.config.prior_eval, prior or model.config.prior_eval
            logits = [judge(model, test) for test in tests]
            model.config.prior_eval = asked
            if subtract:
                logits = [one - model.prior.probabilities("frequency").log() for one in logits]
            yield row(name, logits, spent)


def summary(rows: list[dict[str, str]]) -> dict[str, dict[str, list[float]]]:
    """Values of every seed by setting and metric, settings in the order of the csv."""
    table: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        for metric in METRICS:
            table.setdefault(row["setting"], {}).setdefault(metric, []).append(float(row[metric]))
    return table


def spread(values: list[float]) -> str:
    """Mean and sample standard deviation."""
    return f"{statistics.mean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


def report(rows: list[dict[str, str]]) -> str:
    """The table in Markdown, and the differences that were promised, seed by seed."""
    table = summary(rows)
    lines = [f"| setting | {' | '.join(METRICS)} |", "|---" * (1 + len(METRICS)) + "|"]
    for name, found in table.items():
        bold = "**" if name == OURS else ""
        lines.append(f"| {bold}{name}{bold} | " + " | ".join(spread(found[metric]) for metric in METRICS) + " |")
    if {BASE, OURS, OFF} <= set(table):
        lines += ["", "| difference | " + " | ".join(METRICS) + " |", "|---" * (1 + len(METRICS)) + "|"]
        for name in (OURS, OFF):
            gains = [[a - b for a, b in zip(table[name][m], table[BASE][m], strict=True)] for m in METRICS]
            lines.append(f"| {name} over {BASE} | " + " | ".join(spread(values) for values in gains) + " |")
    return "\n".join(lines)


def draw(rows: list[dict[str, str]], path: Path) -> None:
    """Head, body and tail recall of every setting as bars with the value of each seed as a dot."""
    table = summary(rows)
    names, left, top, line, width = list(table), 290, 78, 34, 190
    canvas = Canvas(left + 3 * (width + 40), top + line * len(names) + 40)
    seeds = len(next(iter(table.values()))["head"])
    canvas.text(20, 14, "Recall on balanced pairs, by how frequent a predicate was in training", 20, INK, bold=True)
    canvas.text(20, 42, f"confounded relation world; bars are means of {seeds} seeds, dots are seeds", 14, MUTED)
    for column, part in enumerate(PARTS):
        x = left + column * (width + 40)
        canvas.text(x, top - 14, f"{part} ({PARTS[part].stop - PARTS[part].start} predicates), %", 14, INK, bold=True)
        for place, name in enumerate(names):
            y, values = top + 12 + place * line, table[name][part]
            mean, colour = statistics.mean(values), EVIDENCE if name == OURS else PLAIN
            canvas.box((x, y, x + width, y + 20), fill=FAINT, radius=3)
            canvas.box((x, y, x + width * mean / 100, y + 20), fill=colour, radius=3)
            for value in values:
                canvas.box(
                    (x + width * value / 100 - 2, y + 8, x + width * value / 100 + 2, y + 12), fill=INK, radius=2
                )
            canvas.text(x + width + 4, y + 2, f"{mean:.0f}", 13, INK)
            if column == 0:
                canvas.text(20, y + 2, name, 13, INK, bold=name == OURS)
    temporary = path.with_name(f".{path.name}.tmp.png")
    canvas.finish().save(temporary)
    os.replace(temporary, path)


def write_rows(rows: list[dict[str, object]], path: Path) -> None:
    """Write the csv, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, path)


def main() -> None:
    """Run the seeds, or report what was run."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13, 14, 15])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--output", default=str(RESULTS), help="csv of all seeds; '-' writes nothing")
    parser.add_argument("--report", action="store_true", help="table and picture from the csv, nothing is trained")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    if not given.report:
        for seed in given.seeds:
            for row in run_seed(seed, given.epochs, given.models):
                rows.append(row)
                print(row, flush=True)
                if given.output != "-":
                    write_rows(rows, Path(given.output))
    if given.output != "-":
        with Path(given.output).open(newline="", encoding="utf-8") as file:
            read = list(csv.DictReader(file))
        print(report(read))
        if given.report or Path(given.output) == RESULTS:
            draw(read, PICTURE)
    else:
        print(report([{k: str(v) for k, v in row.items()} for row in rows]))


if __name__ == "__main__":
    main()
