"""Which method answers from the cause, in which world? One comparison at one budget.

Five worlds (`SETTINGS`), each confounded in another way, and every method at the same clips and epochs: rows of a csv,
one table and one picture. A seed is a new world (other vectors, other clips) and a new model. Every model is the
package's own class with its clean defaults around the light backbone (attention pooling with normalized questions),
trained by the lean loop of `grounding_world.py`.

Columns: accuracy on iid and ood clips; share of ood answers that follow the environment (empty where it follows the
question); overlap of shown frames with the true ones (iid); evidence effect as in the stress test, on iid clips:
accuracy on the shown frames alone minus accuracy without them; CPU seconds of training.

Settings were chosen on seeds 901 and 902; other seeds are fresh. A run goes on where it stopped: a (setting, method,
seed) in the csv is not run again.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from grounding_world import Split, fit, frame_iou, load, percent, read, write

from hf_causal_video.models import (
    BackboneConfig,
    BackboneForVideoQuestionAnswering,
    EIGVConfig,
    EIGVForVideoQuestionAnswering,
    IGVConfig,
    IGVForVideoQuestionAnswering,
    TranSTRConfig,
    TranSTRForVideoQuestionAnswering,
)
from hf_causal_video.viewer.canvas import EVIDENCE, FAINT, INK, MUTED, PLAIN, Canvas
from hf_causal_video.worlds import ANSWERS, WorldConfig, bayes_accuracy

RESULTS = Path(__file__).parent / "results" / "comparison.csv"
COLUMNS = (
    "setting",
    "method",
    "seed",
    "iid",
    "ood",
    "follows_environment",
    "frame_iou",
    "evidence_effect",
    "cpu_seconds",
)
HARD: dict[str, Any] = {"rho": 0.9, "cause_noise": 0.2}
SETTINGS: dict[str, dict[str, Any]] = {
    "easy": {"rho": 0.7},
    "noisy": HARD,
    "question": {"rho": 0.9, "environment_follows": "question"},
    "both": {**HARD, "environment_follows": "both"},
    "everywhere": {**HARD, "background_everywhere": True},
    "question_noisy": {**HARD, "environment_follows": "question"},
}
DEFAULT_SETTINGS = ["easy", "noisy", "question", "both", "everywhere"]
DEFAULT_METHODS = ["strong", "early_stopping", "igv_official", "igv", "eigv", "transtr", "oracle"]
QUICK: dict[str, Any] = {"clips": 3000, "epochs": 10, "seeds": [911]}
SIZES: dict[str, Any] = {
    "text_feature_dim": 64,
    "frame_feature_dim": 64,
    "num_answers": len(ANSWERS),
    "backbone": "pooling",
    "backbone_config": {"hidden_size": 64},
}
Splits = dict[str, Split]


# ----- methods


def backbone(splits: Splits, epochs: int, **options: Any) -> Any:
    """Train the backbone alone; return it, and the weights that were best on validation."""
    sizes = SIZES | {"backbone_config": SIZES["backbone_config"] | options}
    model = BackboneForVideoQuestionAnswering(BackboneConfig.preset("clean", **sizes))
    best: dict[str, Any] = {"accuracy": -1.0}

    def validate() -> None:
        accuracy = percent(answers_of(model.eval(), splits["validation"]) == splits["validation"].answer)
        if accuracy > best["accuracy"]:
            weights = {name: value.clone() for name, value in model.state_dict().items()}
            best.update(accuracy=accuracy, weights=weights)

    fit(model, splits["train"], epochs, after_epoch=validate)
    return model, best["weights"]


def strong(splits: Splits, epochs: int) -> Any:
    """The backbone alone, at its last epoch."""
    return backbone(splits, epochs)[0]


def early_stopping(splits: Splits, epochs: int) -> Any:
    """The backbone alone, at its best epoch on validation."""
    model, weights = backbone(splits, epochs)
    model.load_state_dict(weights)
    return model


def weak(splits: Splits, epochs: int) -> Any:
    """The backbone without normalized questions: an ablation."""
    return backbone(splits, epochs, normalize_question=False)[0]


def oracle(splits: Splits, epochs: int) -> Any:
    """The backbone on the true causal frames alone: what a perfect grounding allows."""
    return backbone({name: only_causal(split) for name, split in splits.items()}, epochs)[0]


def igv(splits: Splits, epochs: int, **fields: Any) -> Any:
    """IGV with clean defaults, or with some fields changed."""
    model = IGVForVideoQuestionAnswering(IGVConfig.preset("clean", **SIZES, **fields))
    fit(model, splits["train"], epochs)
    return model


def igv_official(splits: Splits, epochs: int) -> Any:
    """IGV as released; replacement frames come from the batch, which its authors say serves as well as their bank."""
    preset = IGVConfig.presets()["official-msvdqa-hga"]
    sizes = {"backbone", "backbone_config", "num_answers", "text_feature_dim", "frame_feature_dim"}
    fields = {name: value for name, value in preset.items() if name not in sizes}
    return igv(splits, epochs, **fields | {"bank": "batch"})


def igv_question(splits: Splits, epochs: int) -> Any:
    """IGV whose matching knows no answers, and whose intervention swaps frames: the clean model before this study."""
    fields = {"match_answers": False, "intervention": "frames", "intervened_target": "causal"}
    return igv(splits, epochs, separation_weight=0.0, **fields)


def igv_joined(splits: Splits, epochs: int) -> Any:
    """IGV without the term that separates the two sides of a split."""
    return igv(splits, epochs, separation_weight=0.0)


def igv_frames(splits: Splits, epochs: int) -> Any:
    """IGV that matches answers, and swaps single frames."""
    return igv(splits, epochs, intervention="frames", intervened_target="causal")


def eigv(splits: Splits, epochs: int, **fields: Any) -> Any:
    """EIGV with clean defaults."""
    model = EIGVForVideoQuestionAnswering(EIGVConfig.preset("clean", **SIZES, **fields))
    fit(model, splits["train"], epochs)
    return model


def eigv_clip(splits: Splits, epochs: int) -> Any:
    """EIGV that answers from the whole clip, as released."""
    return eigv(splits, epochs, answer_from="clip")


class WholeClip(IGVForVideoQuestionAnswering):
    """A plain learner with IGV's intervention: it answers from the whole clip, whatever frames are called causal."""

    def _side(self, batch: Any, samples: Tensor, split: Any, side: str) -> Any:
        if side != "causal":
            return super()._side(batch, samples, split, side)
        rows = batch.rows[samples]
        return batch.frames[rows], batch.frame_mask[rows]


def plain_swap(splits: Splits, epochs: int) -> Any:
    """The backbone, also trained on clips whose surroundings are exchanged; matching alone says which those are."""
    model = WholeClip(IGVConfig.preset("clean", **SIZES, environment_weight=0.0))
    fit(model, splits["train"], epochs)
    return model


def transtr(splits: Splits, epochs: int) -> Any:
    """TranSTR without objects: 4 of 16 frames are kept."""
    text = {"model_type": "bert", "vocab_size": 32, "hidden_size": 64, "num_hidden_layers": 1}
    config = TranSTRConfig.preset(
        "clean",
        text_config=text | {"num_attention_heads": 4, "intermediate_size": 64},
        frame_feature_dim=64,
        num_answers=len(ANSWERS),
        hidden_size=64,
        num_attention_heads=4,
        intermediate_size=128,
        num_frames_kept=4,
        num_objects_kept=0,
    )
    model = TranSTRForVideoQuestionAnswering(config)
    first, last = float(config.topk_sigma), float(config.topk_sigma_final)
    finished = 0

    def anneal() -> None:
        nonlocal finished
        finished += 1
        model.topk_sigma = first + (last - first) * min(1.0, finished / max(epochs - 1, 1))

    fit(model, splits["train"], epochs, after_epoch=anneal)
    return model


def similarity(splits: Splits, epochs: int) -> Any:
    """The backbone on the 4 frames most similar to the words of the question, which share a space with frames here."""
    return backbone({name: most_similar(split) for name, split in splits.items()}, epochs)[0]


METHODS: dict[str, Callable[[Splits, int], Any]] = {
    "strong": strong,
    "early_stopping": early_stopping,
    "igv_official": igv_official,
    "igv": igv,
    "eigv": eigv,
    "transtr": transtr,
    "oracle": oracle,
    "weak": weak,
    "plain_swap": plain_swap,
    "igv_question": igv_question,
    "igv_joined": igv_joined,
    "igv_frames": igv_frames,
    "eigv_clip": eigv_clip,
    "similarity": similarity,
}
VIEWS: dict[str, Callable[[Split], Split]] = {}  # what a method may see of a clip, where that is not all of it


def only_causal(split: Split) -> Split:
    """The same clips, of which only the causal frames can be seen."""
    return replace(split, frame_mask=split.causal)


def most_similar(split: Split, count: int = 4) -> Split:
    """The same clips, of which only the frames closest to the question can be seen."""
    weight = split.mask.unsqueeze(-1).to(split.words.dtype)
    question = (split.words * weight).sum(1)  # (n, C)
    scores = (split.frames @ question.unsqueeze(-1)).squeeze(-1)  # (n, T)
    kept = scores.topk(count, dim=1).indices
    return replace(split, frame_mask=torch.zeros_like(split.causal).scatter(1, kept, True))


VIEWS |= {"oracle": only_causal, "similarity": most_similar}


# ----- measures


@torch.inference_mode()
def ask(model: Any, data: Split, batch: int = 250) -> tuple[Tensor, Tensor | None]:
    """Answers (n,), and the frames that the model shows (n, T); None for a model that singles out none."""
    asked = {"output_evidence": True} if isinstance(model, EIGVForVideoQuestionAnswering) else {}
    answers, shown = [], []
    for rows in torch.arange(len(data.answer)).split(batch):
        output = model(**data.inputs(rows) | {"labels": None}, **asked)
        answers.append(output.logits.argmax(1))
        if output.causal_mask is not None:
            shown.append(output.causal_mask)
        elif output.kept_frames.shape[1] < data.frames.shape[1]:
            shown.append(torch.zeros_like(data.causal[rows]).scatter(1, output.kept_frames, True))
    return torch.cat(answers), torch.cat(shown) if shown else None


def answers_of(model: Any, data: Split) -> Tensor:
    """Answers (n,)."""
    return ask(model, data)[0]


def evidence_effect(model: Any, data: Split, shown: Tensor) -> float:
    """Accuracy on the shown frames alone minus accuracy without them; a clip with no frame left is blank."""
    empty = shown.all(1, keepdim=True)
    without = replace(data, frames=data.frames * ~empty.unsqueeze(-1), frame_mask=~shown | empty)
    alone = replace(data, frame_mask=shown)
    return percent(answers_of(model, alone) == data.answer) - percent(answers_of(model, without) == data.answer)


def measure(name: str, model: Any, splits: Splits) -> dict[str, float | str]:
    """Measure a trained model; the columns of a row."""
    view = VIEWS.get(name, lambda split: split)
    seen = {split: view(splits[split]) for split in ("iid", "ood")}
    iid, shown = ask(model, seen["iid"])
    if shown is None and seen["iid"].frame_mask is not None:
        shown = seen["iid"].frame_mask
    ood = answers_of(model, seen["ood"])
    row: dict[str, float | str] = dict.fromkeys(COLUMNS, "")
    row["iid"] = round(percent(iid == splits["iid"].answer), 2)
    row["ood"] = round(percent(ood == splits["ood"].answer), 2)
    if (splits["ood"].environment_answer >= 0).any():
        row["follows_environment"] = round(percent(ood == splits["ood"].environment_answer), 2)
    if shown is not None:
        row["frame_iou"] = round(100 * frame_iou(shown, splits["iid"].causal), 2)
        row["evidence_effect"] = round(evidence_effect(model, splits["iid"], shown), 2)
    return row


# ----- runs


@dataclass(frozen=True)
class Size:
    """The budget that all rows of a csv share."""

    clips: int = 6000
    epochs: int = 20


def world(setting: str, seed: int) -> WorldConfig:
    """Return the world of a setting and a seed."""
    return WorldConfig.grounding(world_seed=seed, **SETTINGS[setting])


def load_splits(setting: str, seed: int, size: Size) -> Splits:
    """Make the splits of a setting and a seed."""
    held_out = min(1000, size.clips)
    sizes = {"train": size.clips, "validation": held_out, "iid": held_out, "ood": held_out}
    return {split: load(split, clips, world(setting, seed), seed) for split, clips in sizes.items()}


def check_budget(output: Path, size: Size) -> None:
    """Refuse to add rows of another budget to a csv; its budget lies next to it."""
    record = output.with_suffix(".json")
    budget = {"clips": size.clips, "epochs": size.epochs}
    if output.exists() and record.exists() and json.loads(record.read_text()) != budget:
        sys.exit(f"{output} has rows of another budget, {record.read_text()}; found {budget}. Name another --output.")
    output.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(budget))


def run(settings: list[str], methods: list[str], seeds: list[int], size: Size, output: Path) -> list[dict[str, Any]]:
    """Train and measure what the csv lacks; a row is written when its run is finished."""
    check_budget(output, size)
    rows: list[dict[str, Any]] = read(output) if output.exists() else []
    for seed in seeds:
        for setting in settings:
            done = {row["method"] for row in rows if (row["setting"], int(row["seed"])) == (setting, seed)}
            wanted = [method for method in methods if method not in done]
            if not wanted:
                continue
            splits = load_splits(setting, seed, size)
            for method, model, seconds in train(wanted, splits, seed, size.epochs):
                row = measure(method, model, splits)
                row |= {"setting": setting, "method": method, "seed": seed, "cpu_seconds": round(seconds, 1)}
                print(json.dumps({name: row[name] for name in COLUMNS}), flush=True)
                rows = (read(output) if output.exists() else []) + [row]
                write(rows, output)
    return rows


def train(methods: list[str], splits: Splits, seed: int, epochs: int) -> Iterator[tuple[str, Any, float]]:
    """Yield each method's trained model and its CPU seconds; both ends of one backbone run are trained together."""
    both = {"strong", "early_stopping"}
    for method in methods:
        if method == "early_stopping" and "strong" in methods:
            continue
        started = time.process_time()
        torch.manual_seed(seed)
        if method == "strong" and both <= set(methods):
            model, weights = backbone(splits, epochs)
            seconds = time.process_time() - started
            yield method, model, seconds
            model.load_state_dict(weights)
            yield "early_stopping", model, seconds
        else:
            model = METHODS[method](splits, epochs)
            yield method, model.eval(), time.process_time() - started


# ----- table and picture


def mean_spread(rows: list[dict[str, Any]], column: str) -> str:
    """Mean and sample deviation of a column over seeds."""
    values = torch.tensor([float(row[column]) for row in rows if row[column] not in ("", None)], dtype=torch.float64)
    if not len(values):
        return "–"
    mean = f"{values.mean():.1f}"
    return f"{mean} ± {values.std():.1f}" if len(values) > 1 else mean


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a table in Markdown: mean and sample deviation over seeds, and the exact limits of each setting."""
    heads = [column.replace("_", " ") for column in COLUMNS[3:]]
    lines = [f"| setting | method | seeds | {' | '.join(heads)} |", "|---" * (3 + len(heads)) + "|"]
    for setting in [name for name in SETTINGS if any(row["setting"] == name for row in rows)]:
        for method in [name for name in METHODS if any((r["setting"], r["method"]) == (setting, name) for r in rows)]:
            chosen = [row for row in rows if (row["setting"], row["method"]) == (setting, method)]
            cells = [mean_spread(chosen, column) for column in COLUMNS[3:]]
            lines.append(f"| {setting} | {method} | {len(chosen)} | {' | '.join(cells)} |")
        exact = bayes_accuracy(world(setting, 0))
        lines.append(f"| {setting} | *best predictor (iid), exact* | | {exact.iid:.1f} | {exact.ood:.1f} | | | | |")
        lines.append(f"| {setting} | *best by the cause, exact* | | {exact.cause:.1f} | {exact.cause:.1f} | | | | |")
    return "\n".join(lines)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Accuracy where the environment is wrong, a panel per setting: bars are means, dots are seeds."""
    settings = [name for name in SETTINGS if any(row["setting"] == name for row in rows)]
    methods = [name for name in METHODS if any(row["method"] == name for row in rows)]
    left, top, line, width, gap = 130, 76, 24, 250, 70
    height = top + line * len(methods) + 46
    canvas = Canvas(left + (width + gap) * len(settings), height)
    canvas.text(20, 12, "Answers where the environment is always wrong, %", 20, INK, bold=True)
    canvas.text(20, 40, "bars are means, dots are seeds; the line is the best that the cause allows", 13, MUTED)
    for panel, setting in enumerate(settings):
        x = left + panel * (width + gap)
        canvas.text(x, top - 16, setting, 14, INK, bold=True)
        for place, method in enumerate(methods):
            y = top + 8 + place * line
            if panel == 0:
                canvas.text(12, y + 1, method, 13, INK)
            values = [float(r["ood"]) for r in rows if (r["setting"], r["method"]) == (setting, method)]
            canvas.box((x, y, x + width, y + 16), fill=FAINT, radius=3)
            if not values:
                continue
            mean = sum(values) / len(values)
            colour = EVIDENCE if method.startswith(("igv", "eigv")) else PLAIN
            canvas.box((x, y, x + width * mean / 100, y + 16), fill=colour, radius=3)
            for value in values:
                dot = x + width * value / 100
                canvas.box((dot - 2, y + 6, dot + 2, y + 10), fill=INK, radius=2)
            canvas.text(x + width + 6, y + 1, f"{mean:.1f}", 12, INK)
        limit = x + width * bayes_accuracy(world(setting, 0)).cause / 100
        canvas.line([(limit, top + 4), (limit, top + 8 + line * len(methods))], INK, 1)
    temporary = path.with_name(f".{path.name}.partial.png")
    canvas.finish().save(temporary)
    os.replace(temporary, path)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=DEFAULT_SETTINGS)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=DEFAULT_METHODS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[911, 912, 913, 914, 915])
    parser.add_argument("--clips", type=int, help="training clips (default 6000)")
    parser.add_argument("--epochs", type=int, help="default 20")
    parser.add_argument("--quick", action="store_true", help=f"about ten minutes: {QUICK}, where nothing else is said")
    parser.add_argument("--output", type=Path, default=RESULTS, help="csv; table and picture go next to it")
    parser.add_argument("--table", action="store_true", help="only print the table of the csv, and draw the picture")
    arguments = parser.parse_args(argv)
    seeds = arguments.seeds
    size = Size(arguments.clips or Size.clips, arguments.epochs or Size.epochs)
    if arguments.quick:
        size = Size(arguments.clips or QUICK["clips"], arguments.epochs or QUICK["epochs"])
        seeds = QUICK["seeds"] if seeds == parser.get_default("seeds") else seeds
    torch.set_num_threads(1)
    if arguments.table:
        rows = read(arguments.output)
    else:
        rows = run(arguments.settings, arguments.methods, seeds, size, arguments.output)
    draw(rows, arguments.output.with_suffix(".png"))
    print(table(rows))


if __name__ == "__main__":
    main()
