"""From `DataArguments` to the splits of a run: questions joined with their features.

Four sources: the confounded world (made on the spot, the truth is known), a public benchmark by name with the folder
of its official files, a dataset of question rows (folder or Hub id with a `questions` config), and the csv files of
NExT-QA.
"""

from pathlib import Path
from typing import Any

from datasets import Dataset, load_dataset

from hf_causal_video.data import (
    BENCHMARKS,
    QUESTION_FEATURES,
    VideoQADataset,
    load_benchmark,
    questions_dataset,
    read_nextqa,
)
from hf_causal_video.data.nextqa import NEXTQA_SOURCE
from hf_causal_video.features.store.reader import FeatureStore
from hf_causal_video.training.arguments import DataArguments
from hf_causal_video.training.text_features import QuestionsWithTextFeatures, TextFeatures
from hf_causal_video.utils.errors import CausalVideoError
from hf_causal_video.worlds import SPLITS, WorldConfig, generate_world

WORLD_DEFAULTS = {"study": "selection", "train_clips": 4000, "eval_clips": 1000, "seed": 0}
STUDIES = ("selection", "grounding", "rendered")
BENCHMARK_NAMES = list(BENCHMARKS)


def load_split(arguments: DataArguments, split: str) -> VideoQADataset:
    """Load the questions of a split and join them with features, which are read when an item is asked for.

    Args:
        arguments: of the run.
        split: a name in the dataset. World splits: train, validation, iid, ood, long, crowded, both.

    Raises:
        CausalVideoError: no such dataset, split or feature set, unknown world options, or videos without features.

    Example:
        >>> arguments = DataArguments(dataset="world", world={"study": "selection", "eval_clips": 10})
        >>> len(load_split(arguments, "iid"))
        10
    """
    found = _split(arguments, split)
    if (files := arguments.text_features) is None:
        return found
    text = TextFeatures(_of_split(files, split, "text_features") if isinstance(files, dict) else files)
    return QuestionsWithTextFeatures(found.questions, found.store, found.num_frames, text)


def _split(arguments: DataArguments, split: str) -> VideoQADataset:
    if arguments.dataset == "world":
        return _world_split(arguments, split)
    if arguments.annotations or arguments.dataset in BENCHMARK_NAMES:
        questions = _benchmark_split(arguments, split)
    elif isinstance(arguments.dataset, dict):
        questions = read_nextqa(_of_split(arguments.dataset, split, "dataset"))
    else:
        questions = _question_split(str(arguments.dataset), split)
    features = arguments.features
    path = _of_split(features, split, "features") if isinstance(features, dict) else str(features)
    return VideoQADataset(questions, FeatureStore.open(path), arguments.num_frames)


def load_splits(arguments: DataArguments, split_names: list[str]) -> dict[str, VideoQADataset]:
    """Load several splits, which must have been made by the same backbones.

    Raises:
        CausalVideoError: as `load_split`, or features of two backbones.
    """
    splits = {name: load_split(arguments, name) for name in split_names}
    first = splits[split_names[0]].store
    for split in splits.values():
        if isinstance(split.store, FeatureStore):
            split.store.check(first.provenance)
    return splits


def _world_split(arguments: DataArguments, split: str) -> VideoQADataset:
    options: dict[str, Any] = {**WORLD_DEFAULTS, **arguments.world_options}
    study, seed = options.pop("study"), options.pop("seed")
    clips = {"train": options.pop("train_clips")}.get(split, options.pop("eval_clips"))
    if study not in STUDIES or (unknown := sorted(set(options) - set(WorldConfig.__dataclass_fields__))):
        raise CausalVideoError(
            "no such world",
            found=f"study {study!r}" if study not in STUDIES else f"unknown options {unknown}",
            expected=f"study ({', '.join(STUDIES)}), train_clips, eval_clips, seed, or a field of WorldConfig: "
            f"{', '.join(WorldConfig.__dataclass_fields__)}",
            fix="mend the world options",
        )
    if split not in SPLITS:
        raise CausalVideoError("no such split of the world", found=split, expected=", ".join(SPLITS), fix="name one")
    world = generate_world(getattr(WorldConfig, study)(**options), split, clips, seed)
    return VideoQADataset(world.questions, world.features, arguments.num_frames)


def _benchmark_split(arguments: DataArguments, split: str) -> Dataset:
    if arguments.dataset not in BENCHMARK_NAMES or arguments.annotations is None:
        raise CausalVideoError(
            "a benchmark is its name and the folder of its files",
            found=f"dataset={arguments.dataset!r}, annotations={arguments.annotations!r}",
            expected=f"dataset one of {', '.join(BENCHMARK_NAMES)}, and its folder",
            fix="add --annotations FOLDER with the official files, or give question rows as dataset",
        )
    words = asked_vocabulary(arguments)
    if (
        words is None
        and BENCHMARKS[arguments.dataset].open_ended
        and not BENCHMARKS[arguments.dataset].vocabulary_size
    ):
        raise CausalVideoError(
            f"{arguments.dataset} has no published vocabulary of answers",
            found="answer_vocabulary=None",
            expected="a list, or how many of the most frequent training answers to learn",
            fix="add --answer_vocabulary 1000",
        )
    return load_benchmark(arguments.dataset, split, arguments.annotations, words)


def asked_vocabulary(arguments: DataArguments) -> str | int | None:
    """The file of answers that a run asks for, or how many of the most frequent ones."""
    words = arguments.answer_vocabulary
    return int(words) if words is not None and str(words).isdigit() else words


def _question_split(name: str, split: str) -> Dataset:
    try:
        rows = load_dataset(name, "questions", split=split)
    except (ValueError, FileNotFoundError, KeyError, ConnectionError) as error:
        raise CausalVideoError(
            f"no questions for split {split!r} of {name}",
            found=str(error).splitlines()[0],
            expected="a folder or Hub id with a 'questions' config that has this split",
            fix="check the name; write one with questions_dataset(rows).push_to_hub(..., config_name='questions')",
        ) from error
    return questions_dataset(rows.select_columns([name for name in rows.column_names if name in QUESTION_FEATURES]))


def _of_split(mapping: dict[str, str], split: str, what: str) -> str:
    if split not in mapping:
        raise CausalVideoError(
            f"no {what} for split {split!r}", found=", ".join(mapping), expected=split, fix=f"add it to {what}"
        )
    path = str(mapping[split])
    if what == "dataset" and not Path(path).is_file():
        raise CausalVideoError(
            f"no file for split {split!r}", found=path, expected=f"a csv of NExT-QA, from {NEXTQA_SOURCE}",
            fix="download it and say where it is: --dataset nextqa --annotations FOLDER, or --dataset "
            f'\'{{"{split}": "FOLDER/{Path(path).name}", ...}}\'',
        )  # fmt: skip
    return path
