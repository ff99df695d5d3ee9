"""From `DataArguments` to the splits of a run: questions joined with their features.

Two sources: the confounded world (made on the spot, the truth is known), and everything that `data.load_questions`
reads.
"""

from collections.abc import Sequence

from hf_causal_video.data import VideoQADataset, load_questions
from hf_causal_video.data.load import question_file
from hf_causal_video.features.store.reader import FeatureStore
from hf_causal_video.training.arguments import DataArguments
from hf_causal_video.training.options import WorldOptions, path_of_split
from hf_causal_video.training.text_features import QuestionsWithTextFeatures, TextFeatures
from hf_causal_video.utils.checks import check_choice
from hf_causal_video.worlds import SPLITS, generate_world


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
    dataset = _split(arguments, split)
    if (files := arguments.text_features) is None:
        return dataset
    text = TextFeatures(path_of_split(files, split, "text_features") if isinstance(files, dict) else files)
    return QuestionsWithTextFeatures(dataset.questions, dataset.store, dataset.num_frames, text)


def _split(arguments: DataArguments, split: str) -> VideoQADataset:
    if arguments.dataset == "world":
        return _world_split(arguments, split)
    features = arguments.features
    path = path_of_split(features, split, "features") if isinstance(features, dict) else str(features)
    if arguments.annotations is None and arguments.dataset is not None:
        question_file(arguments.dataset, split)  # a missing file is named before features are opened
    store = FeatureStore.open(path)
    assert arguments.dataset is not None
    questions = load_questions(
        arguments.dataset,
        split,
        annotations=arguments.annotations,
        vocabulary=vocabulary_option(arguments),
        train_split=arguments.train_split,
        videos=set(store.video_ids),
    )
    return VideoQADataset(questions, store, arguments.num_frames)


def load_splits(arguments: DataArguments, split_names: Sequence[str]) -> dict[str, VideoQADataset]:
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
    options = WorldOptions.read(arguments.world_options)
    check_choice("split of the world", split, SPLITS)
    world = generate_world(options.config(), split, options.clips(split), options.seed)
    return VideoQADataset(world.questions, world.features, arguments.num_frames)


def vocabulary_option(arguments: DataArguments) -> str | int | None:
    """The file of answers that a run asks for, or how many of the most frequent ones."""
    words = arguments.answer_vocabulary
    return int(words) if words is not None and str(words).isdigit() else words
