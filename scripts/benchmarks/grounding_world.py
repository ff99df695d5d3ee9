"""Which part of IGV and EIGV does what? An ablation on the easy confounded world, around a weak backbone.

Why weak: the backbone does not normalize its question here (`normalize_question: false`), so it learns the scenery
first and every part shows. With normalized questions it needs no causal method in this world, since the cause is never
wrong; `comparison.py` has the worlds in which a strong backbone must fail, and is the comparison to quote.

In training the environment agrees with the answer with probability rho; in the split ood it is always wrong. A seed is
a new world (other vectors, other clips) and a new model. Every model is the package's own class around its attention
pooling backbone, trained by a lean loop: the loss, schedule and warm-up of `scripts/train.py --config igv_world`, but
tokens are the world's own word vectors instead of a tiny text encoder's, all clips stay in memory, and the last
weights count instead of the best on validation. One thread; a run is a quarter of a minute of CPU time.

Settings, the backbone among them, were fixed on seeds 201 to 207; seeds 61 to 65 were then run once.
"""

import argparse
import csv
import os
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hf_causal_video.models import (
    BackboneConfig,
    BackboneForVideoQuestionAnswering,
    EIGVConfig,
    EIGVForVideoQuestionAnswering,
    IGVConfig,
    IGVForVideoQuestionAnswering,
)
from hf_causal_video.viewer.canvas import EVIDENCE, FAINT, INK, MUTED, PLAIN, Canvas
from hf_causal_video.worlds import ANSWERS, WorldConfig, generate_world, world_tokenizer
from hf_causal_video.worlds.config import ACTIONS, CLASSES, COLOURS
from hf_causal_video.worlds.features import world_vocabulary

RESULTS = Path(__file__).parent / "results" / "grounding_world.csv"
PICTURE = Path(__file__).parents[2] / "hf_causal_video" / "models" / "igv" / "grounding_world.png"
METRICS = ("validation", "iid", "ood", "follows", "iou", "causal", "iou_ood", "unseen")
MODELS: dict[str, Any] = {
    "backbone": (BackboneConfig, BackboneForVideoQuestionAnswering),
    "igv": (IGVConfig, IGVForVideoQuestionAnswering),
    "eigv": (EIGVConfig, EIGVForVideoQuestionAnswering),
}
RECIPE: dict[str, Any] = {
    "grounding_logits": "logprob",
    "gumbel_tau": 1.0,
    "intervened_weight": 1.0,
    "environment_weight": 0.2,
    "size_weight": 5.0,
    "size_target": 0.3,
    "match_weight": 1.0,
    "match_answers": False,
    "intervention": "frames",
    "intervened_target": "causal",
    "warmup_share": 0.1,
    "ramp_share": 0.1,
    "mask_mode": "zero",
    "normalize_question": True,
}
RECIPE_A = {"match_weight": 0.0, "warmup_share": 0.4}  # what a prototype had instead
NO_LOSSES = {"intervened_weight": 0.0, "environment_weight": 0.0}
NO_GROUNDING = {"warmup_share": 1.0, "ramp_share": 0.0}  # the whole clip answers to the end of the training
NOT_EIGV = ("intervened_weight", "environment_weight", "intervention", "intervened_target")
MIXING = {**{name: value for name, value in RECIPE.items() if name not in NOT_EIGV}, "answer_from": "clip"}


@dataclass(frozen=True)
class Setting:
    """One row of the table: a model, its fields, and the world it lives in."""

    name: str
    method: str
    fields: dict[str, Any] = field(default_factory=dict)
    epochs: int = 20
    rho: float = 0.7
    clips: int = 6000
    unseen_pairs: int = 0
    whole_clip: bool = False
    normalize_question: bool = False  # of the backbone: this study is around the weak one, see comparison.py


def backbone(name: str = "backbone", **options: Any) -> Setting:
    """The backbone alone."""
    return Setting(name, "backbone", **options)


def matched(name: str, **options: Any) -> Setting:
    """The backbone, trained beside an indicator that is matched and that no answer rests on."""
    return Setting(name, "igv", {**RECIPE, **NO_GROUNDING}, whole_clip=True, **options)


def igv(name: str, changed: dict[str, Any] | None = None, **options: Any) -> Setting:
    """IGV by the recipe, with some fields changed."""
    return Setting(name, "igv", {**RECIPE, **(changed or {})}, **options)


def eigv(name: str, changed: dict[str, Any] | None = None, **options: Any) -> Setting:
    """EIGV by the same recipe."""
    return Setting(name, "eigv", {**MIXING, **(changed or {})}, **options)


UNSEEN: dict[str, Any] = {"rho": 0.0, "unseen_pairs": 2}
SETTINGS = [
    backbone(),
    igv("IGV"),
    backbone("backbone, 60 epochs", epochs=60),
    backbone("backbone, normalized questions", normalize_question=True),
    matched("backbone with matching"),
    igv("matching, warm start and size term alone", NO_LOSSES),
    igv("IGV without intervened branch", {"intervened_weight": 0.0}),
    igv("IGV without environment branch", {"environment_weight": 0.0}),
    igv("IGV without size term", {"size_weight": 0.0}),
    igv("IGV without warm start", {"warmup_share": 0.0}),
    igv("IGV, warm start of 40 %", {"warmup_share": 0.4}),
    igv("IGV without normalized questions", {"normalize_question": False}),
    igv("IGV by recipe A (no matching, 40 %)", RECIPE_A),
    igv("warm start and size term alone (A)", {**RECIPE_A, **NO_LOSSES}),
    eigv("EIGV"),
    eigv("EIGV without contrast", {"contrast_weight": 0.0}),
    eigv("EIGV by recipe A (no matching, 40 %)", RECIPE_A),
    backbone("backbone, rho 0.8", rho=0.8),
    matched("backbone with matching, rho 0.8", rho=0.8),
    igv("IGV, rho 0.8", rho=0.8),
    igv("IGV by recipe A, rho 0.8", RECIPE_A, rho=0.8),
    backbone("backbone, rho 0.9", rho=0.9),
    backbone("backbone, normalized questions, rho 0.9", rho=0.9, normalize_question=True),
    matched("backbone with matching, rho 0.9", rho=0.9),
    igv("matching and size term alone, rho 0.9", NO_LOSSES, rho=0.9),
    igv("IGV, rho 0.9", rho=0.9),
    backbone("backbone, rho 0", rho=0.0),
    igv("IGV, rho 0", rho=0.0),
    backbone("backbone, 3,000 clips", clips=3000),
    igv("IGV, 3,000 clips", clips=3000),
    backbone("backbone, unseen pairs", **UNSEEN),
    matched("backbone with matching, unseen pairs", **UNSEEN),
    igv("IGV, unseen pairs", **UNSEEN),
    eigv("EIGV, unseen pairs", **UNSEEN),
    eigv("EIGV without contrast, unseen pairs", {"contrast_weight": 0.0}, **UNSEEN),
]


@dataclass
class Split:
    """A split of the world as tensors: words (n, L, C) with mask (n, L), frames (n, T, C), and the truth."""

    words: Tensor
    mask: Tensor
    frames: Tensor
    answer: Tensor
    causal: Tensor
    environment_answer: Tensor
    frame_mask: Tensor | None = None  # (n, T) frames that a model may see; None: all

    def inputs(self, rows: Tensor | None = None) -> dict[str, Tensor]:
        """Return the inputs of a model for some rows, or for all."""
        chosen = slice(None) if rows is None else rows
        inputs = {
            "question_features": self.words[chosen],
            "attention_mask": self.mask[chosen],
            "frame_features": self.frames[chosen],
            "labels": self.answer[chosen],
        }
        return inputs if self.frame_mask is None else inputs | {"frame_mask": self.frame_mask[chosen]}


def world_of(setting: Setting, seed: int) -> WorldConfig:
    """Return the world of a setting and a seed."""
    return WorldConfig.grounding(rho=setting.rho, world_seed=seed, unseen_pairs=setting.unseen_pairs)


def load(split: str, clips: int, config: WorldConfig, seed: int) -> Split:
    """Make a split of a world as tensors."""
    world = generate_world(config, split, clips, seed)
    questions, tokenizer = world.questions, world_tokenizer()
    text = tokenizer(list(questions["question"]), padding=True, return_tensors="pt")
    return Split(
        words=word_vectors(config)[text["input_ids"]],
        mask=text["attention_mask"],
        frames=torch.stack([world.features[name].frame_features for name in questions["video_id"]]).float(),
        answer=torch.tensor(list(questions["answer"])),
        causal=torch.tensor(list(questions["causal_frames"])),
        environment_answer=torch.tensor(list(questions["environment_answer"])),
    )


def word_vectors(config: WorldConfig) -> Tensor:
    """(W, C): what is seen of a thing is its word's vector too; other words have random unit vectors of their own."""
    tokenizer, known = world_tokenizer(), world_vocabulary(config)
    generator = torch.Generator().manual_seed(config.world_seed)
    vectors = torch.nn.functional.normalize(
        torch.randn(len(tokenizer), config.feature_dim, generator=generator), dim=1
    )
    for words, name in ((CLASSES, "classes"), (COLOURS, "colours"), (ACTIONS, "actions")):
        vectors[tokenizer.convert_tokens_to_ids(list(words))] = torch.from_numpy(known[name])
    return vectors


def build(setting: Setting) -> Any:
    """A new model of a setting."""
    config_class, model_class = MODELS[setting.method]
    config = config_class.preset(
        "clean",
        text_feature_dim=64,
        frame_feature_dim=64,
        num_answers=len(ANSWERS),
        backbone="pooling",
        backbone_config={"hidden_size": 64, "normalize_question": setting.normalize_question},
        **setting.fields,
    )
    return model_class(config)


def train(setting: Setting, data: Split, seed: int) -> Any:
    """Build and train the model of a setting."""
    torch.manual_seed(seed)
    model = build(setting)
    fit(model, data, setting.epochs)
    return (backbone_of(model) if setting.whole_clip else model).eval()


def fit(
    model: Any,
    data: Split,
    epochs: int,
    batch: int = 64,
    rate: float = 2e-3,
    after_epoch: Callable[[], None] | None = None,
) -> None:
    """Train: Adam, one cycle, clipped at 1; the last batch of an epoch is left out if it holds one clip."""
    model.train()
    per_epoch = len(range(0, len(data.answer) - 1, batch))
    steps = epochs * per_epoch
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    for step in range(steps):
        if step % per_epoch == 0:
            order = torch.randperm(len(data.answer))
        first = step % per_epoch * batch
        model.training_progress = step / steps
        loss = model(**data.inputs(order[first : first + batch])).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if after_epoch is not None and (step + 1) % per_epoch == 0:
            after_epoch()
            model.train()
    model.eval()


def backbone_of(model: Any) -> Any:
    """The backbone by itself, which answers from the whole clip."""
    alone = build(backbone())
    alone.load_state_dict({name: value for name, value in model.state_dict().items() if "indicator" not in name})
    return alone


@torch.inference_mode()
def ask(model: Any, data: Split) -> tuple[Tensor, Tensor | None]:
    """Answers (n,), and the causal frames (n, T) of models that ground."""
    asked = {"output_evidence": True} if hasattr(model, "indicator") else {}
    output = model(**data.inputs() | {"labels": None}, **asked)
    return output.logits.argmax(1), output.causal_mask


def measure(model: Any, splits: dict[str, Split]) -> dict[str, float | None]:
    """The columns of the table, in percent; frames are None for a model that does not ground."""
    numbers: dict[str, float | None] = dict.fromkeys(METRICS)
    for name in splits.keys() - {"train"}:
        answers, mask = ask(model, splits[name])
        numbers[name] = percent(answers == splits[name].answer)
        if name == "ood":
            numbers["follows"] = percent(answers == splits[name].environment_answer)
        if mask is not None and name in ("iid", "ood"):
            numbers["iou" if name == "iid" else "iou_ood"] = 100 * frame_iou(mask, splits[name].causal)
            if name == "iid":
                numbers["causal"] = percent(mask)
    return numbers


def percent(flags: Tensor) -> float:
    """Share of true entries in percent."""
    return 100 * flags.double().mean().item()


def frame_iou(mask: Tensor, truth: Tensor) -> float:
    """Mean over clips of intersection over union of two sets of frames (n, T)."""
    return ((mask & truth).sum(1) / (mask | truth).sum(1)).double().mean().item()


def run(settings: list[Setting], seeds: Iterable[int], output: Path | None) -> list[dict[str, Any]]:
    """Train and measure what is not in the csv yet; a row is written when its run is finished."""
    rows: list[dict[str, Any]] = read(output) if output is not None and output.exists() else []
    done = {(row["setting"], int(row["seed"])) for row in rows}
    for seed in seeds:
        worlds: dict[tuple[float, int, int], dict[str, Split]] = {}
        for setting in settings:
            if (setting.name, seed) in done:
                continue
            key = (setting.rho, setting.clips, setting.unseen_pairs)
            if key not in worlds:
                worlds = {key: {name: load(name, n, world_of(setting, seed), seed) for name, n in splits(setting)}}
            started = time.process_time()
            model = train(setting, worlds[key]["train"], seed)
            numbers = measure(model, worlds[key])
            row = {"setting": setting.name, "seed": seed, "rho": setting.rho, "clips": setting.clips}
            row |= {"epochs": setting.epochs, **{name: _rounded(numbers[name]) for name in METRICS}}
            row["cpu_s"] = round(time.process_time() - started, 1)
            print({name: value for name, value in row.items() if value != ""}, flush=True)
            rows = (read(output) if output is not None and output.exists() else rows) + [row]
            if output is not None:
                write(rows, output)
    return rows


def splits(setting: Setting) -> list[tuple[str, int]]:
    """Names and sizes of the splits of a run."""
    made = [("train", setting.clips), ("validation", 1000), ("iid", 1000), ("ood", 1000)]
    return made + ([("unseen", 1000)] if setting.unseen_pairs else [])


def _rounded(value: float | None) -> float | str:
    return "" if value is None else round(value, 2)


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of a csv."""
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


def write(rows: list[dict[str, Any]], path: Path) -> None:
    """Write a csv so that a reader sees the old one or the new one."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(partial, path)


def in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows in the order of `SETTINGS` and of seeds."""
    places = {setting.name: place for place, setting in enumerate(SETTINGS)}
    return sorted(rows, key=lambda row: (places[row["setting"]], int(row["seed"])))


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a table in Markdown: mean and sample deviation over seeds."""
    head = ("setting", "seeds", "iid", "ood", "lowest ood", "follows the environment", "frame IoU", "frames causal")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name in dict.fromkeys(row["setting"] for row in rows):
        mine = [row for row in rows if row["setting"] == name]
        cells = [_spread(mine, "iid"), _spread(mine, "ood"), f"{min(float(row['ood']) for row in mine):.1f}"]
        cells += [_spread(mine, column) for column in ("follows", "iou", "causal")]
        lines.append(f"| {name} | {len(mine)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _spread(rows: list[dict[str, Any]], column: str) -> str:
    values = [float(row[column]) for row in rows if row[column] not in ("", None)]
    if not values:
        return "–"
    mean = statistics.mean(values)
    return f"{mean:.1f} ± {statistics.stdev(values):.1f}" if len(values) > 1 else f"{mean:.1f}"


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Accuracy where the environment is wrong: bars are means, dots are seeds."""
    names = list(dict.fromkeys(row["setting"] for row in rows))
    left, top, line, width = 300, 78, 30, 420
    canvas = Canvas(left + width + 70, top + line * len(names) + 20)
    canvas.text(20, 14, "Answers where the environment is always wrong, %", 20, INK, bold=True)
    canvas.text(20, 42, "confounded world, rho 0.7 where not stated; bars are means, dots are seeds", 14, MUTED)
    for place, name in enumerate(names):
        y, values = top + place * line, [float(row["ood"]) for row in rows if row["setting"] == name]
        mean, grounds = statistics.mean(values), "IGV" in name
        canvas.text(20, y + 2, name, 13, INK, bold=name == "IGV")
        canvas.box((left, y, left + width, y + 20), fill=FAINT, radius=3)
        canvas.box((left, y, left + width * mean / 100, y + 20), fill=EVIDENCE if grounds else PLAIN, radius=3)
        for value in values:
            x = left + width * value / 100
            canvas.box((x - 2, y + 8, x + 2, y + 12), fill=INK, radius=2)
        canvas.text(left + width + 8, y + 2, f"{mean:.1f}", 13, INK)
    partial = path.with_name(f".{path.name}.partial.png")
    canvas.finish().save(partial)
    os.replace(partial, path)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[61, 62, 63, 64, 65])
    parser.add_argument("--settings", nargs="+", help="names of rows, or the beginnings of them (default: all)")
    parser.add_argument("--output", default=str(RESULTS), help="csv that the rows are added to; - for none")
    parser.add_argument("--table", action="store_true", help="only print the table of the csv, and draw the picture")
    arguments = parser.parse_args(argv)
    output = None if arguments.output == "-" else Path(arguments.output)
    wanted = arguments.settings
    chosen = [setting for setting in SETTINGS if not wanted or setting.name in wanted]
    if arguments.table:
        rows = in_order(read(RESULTS if output is None else output))
        draw(rows, PICTURE)
        print(table(rows))
        return
    torch.set_num_threads(1)
    print(table(run(chosen, arguments.seeds, output)))


if __name__ == "__main__":
    main()
