"""Films of photographs for `real_pictures.py`: what is shown, what is asked, and what may be known about it.

One photograph a class, so a class of a test film was never seen in training. Two sets of films:

find   16 stretches of 4 s: one member of each of eight groups (dogs, birds, ...) and eight other things. "which dog is
       shown?" names the group, so the right stretch must be found; the wrong choices are other dogs, so the right
       stretch alone does not say which.
noisy  4 stretches of 4 s: a member of the first four groups, one of the last four, and two fillers. One question asks
       which of the first four is shown, the other which of the last four; the group that is not asked about goes with
       the answer (the environment) with probability rho in training and never in ood. In a share q of all films the
       causal photograph is of another group than the answer.
"""

import io
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from hf_causal_video.data import questions_dataset
from hf_causal_video.features.words import label_names

# ImageNet sorts animals by kind: first and last index of each run
GROUPS: dict[str, list[tuple[int, int]]] = {
    "dog": [(151, 268)],
    "bird": [(7, 24), (80, 100), (127, 146)],
    "snake": [(52, 68)],
    "fish": [(0, 6), (389, 397)],
    "monkey or ape": [(365, 382)],
    "insect": [(300, 326)],
    "cat": [(281, 293)],
    "hoofed animal": [(339, 354)],
}
OBJECTS = (398, 900)  # things made by people, in alphabetical order
STRETCH = 4  # frames, one a second
SHARES = (0.6, 0.1)  # of the classes: training, validation; the rest is test
SPLITS = ("train", "validation", "test")


@dataclass
class Photos:
    """All photographs: Lite0 features (1000, C), logits (1000, 1000) and class names."""

    pooled: Tensor
    logits: Tensor
    names: list[str]


def read_photos(archive: Path, weights: str, cache: Path, batch: int = 25) -> Photos:
    """Run the classifier over the photographs once, in parts, so that a stopped run goes on."""
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    model: Any = AutoModelForImageClassification.from_pretrained(weights, trust_remote_code=False).eval()
    processor = AutoImageProcessor.from_pretrained(weights, trust_remote_code=False)
    cache.mkdir(parents=True, exist_ok=True)
    parts = []
    with zipfile.ZipFile(archive) as files, torch.inference_mode():
        names = sorted(name for name in files.namelist() if name.endswith(".jpg"))
        for start in range(0, len(names), batch):
            part = cache / f"photos-{start:04d}.safetensors"
            if not part.is_file():
                pictures = [
                    Image.open(io.BytesIO(files.read(name))).convert("RGB") for name in names[start : start + batch]
                ]
                pixels = processor(images=pictures, return_tensors="pt")
                pooled = model.efficientnet(**pixels).pooler_output.flatten(1)
                partial = part.with_suffix(".partial")
                save_file({"pooled": pooled, "logits": model.classifier(pooled)}, partial)
                os.replace(partial, part)
            parts.append(load_file(part))
    stacked = {key: torch.cat([part[key] for part in parts]) for key in ("pooled", "logits")}
    return Photos(**stacked, names=label_names(model.config.id2label, weights))


def members(group: str) -> list[int]:
    """Classes of a group."""
    return [number for first, last in GROUPS[group] for number in range(first, last + 1)]


def divide(classes: list[int], draw: np.random.Generator, least: int = 0) -> dict[str, list[int]]:
    """Classes of training, validation and test, none in two of them; at least `least` in test."""
    order = [classes[i] for i in draw.permutation(len(classes))]
    first = min(round(SHARES[0] * len(order)), len(order) - least - 1)
    second = max(first + 1, min(first + round(SHARES[1] * len(order)), len(order) - least))
    return {"train": order[:first], "validation": order[first:second], "test": order[second:]}


def find_films(split: str, count: int, photos: Photos, seed: int) -> tuple[Dataset, dict[str, list[int]]]:
    """Question rows and, by film, the class shown in each of its 64 seconds."""
    draw = np.random.default_rng([seed, 7])
    groups = {group: divide(members(group), draw, least=4) for group in GROUPS}
    fillers = divide(list(range(OBJECTS[0], OBJECTS[1] + 1)), draw)
    draw = np.random.default_rng([seed, SPLITS.index(split)])
    rows: list[dict[str, Any]] = []
    films: dict[str, list[int]] = {}
    for film in range(count):
        name = f"{split}{film}"
        shown = {group: int(draw.choice(groups[group][split])) for group in groups}
        stretches = [*shown.values(), *draw.choice(fillers[split], 8, replace=False).tolist()]
        order = [stretches[i] for i in draw.permutation(len(stretches))]
        films[name] = [photo for photo in order for _ in range(STRETCH)]
        for group, right in shown.items():
            pool = groups[group][split] if split != "validation" else groups[group]["train"]
            others = [c for c in pool if photos.names[c] != photos.names[right]]
            choices = [right, *draw.choice(others, 3, replace=False).tolist()]
            mixed = [choices[i] for i in draw.permutation(4)]
            start = STRETCH * order.index(right)
            rows.append(
                {
                    "question_id": f"{name}_{len(rows)}",
                    "video_id": name,
                    "question": f"which {group} is shown?",
                    "choices": [photos.names[c] for c in mixed],
                    "answer": mixed.index(right),
                    "question_type": group,
                    "spans": [[float(start), float(start + STRETCH)]],
                    "duration_s": float(len(films[name])),
                }
            )
    return questions_dataset(rows), films


@dataclass
class NoisyFilms:
    """A split of the noisy-cause films as tensors.

    Args:
        question: (n,) index into `NOISY_QUESTIONS`.
        photos: (n, T) class shown in each second.
        answer: (n,) of the eight groups.
        environment_answer: (n,) the answer that the environment stands for.
        causal: (n, T) bool, the seconds of the causal stretch.
    """

    question: Tensor
    photos: Tensor
    answer: Tensor
    environment_answer: Tensor
    causal: Tensor


NOISY_QUESTIONS = tuple(f"which {' or '.join(list(GROUPS)[i : i + 4])} is shown?" for i in (0, 4))


def noisy_films(split: str, count: int, seed: int, rho: float = 0.9, noise: float = 0.2) -> NoisyFilms:
    """Films in which the second photograph follows the answer; splits train, validation, iid and ood."""
    draw = np.random.default_rng([seed, 11])
    kinds = [divide(members(group), draw, least=4) for group in GROUPS]
    fillers = divide(list(range(OBJECTS[0], OBJECTS[1] + 1)), draw)
    part = {"iid": "test", "ood": "test"}.get(split, split)
    draw = np.random.default_rng([seed, 20 + ("train", "validation", "iid", "ood").index(split)])
    made: dict[str, list[Any]] = {"question": [], "photos": [], "answer": [], "environment_answer": [], "causal": []}
    for _ in range(count):
        asked, truth = int(draw.integers(2)), int(draw.integers(4))
        others = [i for i in range(4) if i != truth]
        if split == "ood":
            follows = int(draw.choice(others))
        else:
            follows = truth if draw.random() < rho else int(draw.integers(4))
        seen = int(draw.choice(others)) if draw.random() < noise else truth
        kind = (seen, 4 + follows) if asked == 0 else (4 + seen, follows)
        stretches = [int(draw.choice(kinds[k][part])) for k in kind] + draw.choice(fillers[part], 2).tolist()
        order = draw.permutation(4)
        made["question"].append(asked)
        made["answer"].append(4 * asked + truth)
        made["environment_answer"].append(4 * asked + follows)
        made["photos"].append([stretches[i] for i in order for _ in range(STRETCH)])
        made["causal"].append([i == 0 for i in order for _ in range(STRETCH)])
    return NoisyFilms(**{name: torch.tensor(value) for name, value in made.items()})


def seconds(films: dict[str, list[int]], vectors: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
    """By film: id, seconds (T,) and features (T, C)."""
    for name, shown in films.items():
        yield name, torch.arange(len(shown)) + 0.5, vectors[torch.tensor(shown)]
