"""From `ModelArguments` to a model and its processor: a checkpoint, a pretrained text encoder, or a new small one."""

import random
from collections.abc import Mapping

from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from hf_causal_video.data import BENCHMARKS, VideoQADataset, benchmark_vocabulary
from hf_causal_video.models import METHODS, VideoQAProcessor
from hf_causal_video.models.clip_statistics import ClipStatistics
from hf_causal_video.training.arguments import DataArguments, ModelArguments
from hf_causal_video.training.questions.splits import vocabulary_option
from hf_causal_video.training.text_features import QuestionsWithTextFeatures, TextFeatures
from hf_causal_video.utils.errors import require
from hf_causal_video.worlds import ANSWERS, tiny_text_config, world_tokenizer

MOST_CLIPS = 2000  # training clips whose features are measured
EXAMPLES = 4  # questions that the processor keeps as examples


def build_model(
    arguments: ModelArguments, data: DataArguments, train: VideoQADataset
) -> tuple[PreTrainedModel, VideoQAProcessor]:
    """Build what is trained, fitted to the widths of the features and to the answers of the training split.

    Args:
        arguments: method, preset, and where to start from.
        data: where the questions come from, and the longest text.
        train: the training split; its features decide widths, its questions the vocabulary of answers.

    Raises:
        CausalVideoError: features or answers that the config or checkpoint does not fit.
    """
    text = _text_features(arguments, train)
    if arguments.model_name_or_path:
        model, processor = _from_checkpoint(arguments, train)
        require(
            (model.config.text_config is None) == (text is not None),
            f"the text of {arguments.model_name_or_path}",
            found=f"text_features={data.text_features!r}",
            fix="add or remove text_features",
            expected="none: it has a text encoder" if text else "token features: it has no text encoder",
        )
    else:
        model, processor = _from_preset(arguments, data, train)
    if data.max_length is not None:
        processor.max_length = data.max_length
    _check_answers(model.config, train)
    processor.clip_statistics = _clip_statistics(train)
    processor.example_questions = _example_questions(train)
    return model, processor


def _from_checkpoint(arguments: ModelArguments, train: VideoQADataset) -> tuple[PreTrainedModel, VideoQAProcessor]:
    name = str(arguments.model_name_or_path)
    method = METHODS[arguments.method]
    fields: dict[str, object] = {**arguments.overrides, "freeze_text_encoder": arguments.freeze_text_encoder}
    # sizes may differ here so that the error below, and not transformers' own, says what to do
    loaded = method.model.from_pretrained(name, **fields, output_loading_info=True, ignore_mismatched_sizes=True)
    model, report = loaded
    mismatched = [key[0] if isinstance(key, tuple) else key for key in report["mismatched_keys"]]
    wrong = sorted({*report["missing_keys"], *report["unexpected_keys"], *mismatched})
    require(
        not wrong,
        f"the checkpoint {name} does not fit the config",
        found=lambda: f"weights missing, unknown or of another shape: {wrong[:8]}",
        expected="the same network",
        fix="remove the config_overrides that change the network",
    )
    if model.config.feature_provenance is not None and hasattr(train.store, "check"):
        train.store.check(model.config.feature_provenance)
    processor = method.processor.from_pretrained(name)
    if arguments.choice_template is not None:
        processor.choice_template = arguments.choice_template
    return model, processor


def _from_preset(
    arguments: ModelArguments, data: DataArguments, train: VideoQADataset
) -> tuple[PreTrainedModel, VideoQAProcessor]:
    method = METHODS[arguments.method]
    config_class = method.config
    model_class = method.model
    provenance = train.store.provenance
    vocabulary = answer_vocabulary(data, train)
    fields: dict[str, object] = {
        "frame_feature_dim": provenance.frame_dim,
        "feature_provenance": provenance.to_dict(),
        "freeze_text_encoder": arguments.freeze_text_encoder,
        **arguments.overrides,
    }
    if provenance.has_objects and "object_feature_dim" in config_class.__dataclass_fields__:
        fields.setdefault("object_feature_dim", provenance.object_dim)
    official = arguments.preset.startswith("official")
    if vocabulary is not None and not official:  # the official heads have the size of the published vocabulary
        fields.setdefault("num_answers", max(len(vocabulary), max(train.questions["answer"]) + 1))
    tokenizer: PreTrainedTokenizerBase
    if text := _text_features(arguments, train):
        fields |= {"text_config": None, "text_feature_dim": text.width}
        tokenizer = word_tokenizer(train)
        model = model_class(config_class.preset(arguments.preset, **fields))
    elif arguments.text_model:
        tokenizer = AutoTokenizer.from_pretrained(arguments.text_model, trust_remote_code=False)
        config = config_class.preset(arguments.preset, **fields)
        model = model_class.from_text_pretrained(arguments.text_model, config)
    else:
        tokenizer = world_tokenizer() if data.dataset == "world" else word_tokenizer(train)
        text_config = arguments.overrides.get("text_config") or {}
        assert isinstance(text_config, dict)  # `check_overrides`
        fields["text_config"] = _small_text_config(len(tokenizer), text_config)
        model = model_class(config_class.preset(arguments.preset, **fields))
    if vocabulary is not None:
        model.config.set_answer_vocabulary(vocabulary)
    template = arguments.choice_template or ("official" if official else "pair")
    return model, method.processor(tokenizer, answer_vocabulary=vocabulary, choice_template=template)


def _clip_statistics(train: VideoQADataset) -> dict[str, object]:
    """Measure the training clips, or many of them, so that a clip unlike them is noticed later."""
    videos = sorted(set(train.questions["video_id"]))
    step = max(len(videos) // MOST_CLIPS, 1)
    return ClipStatistics.of_clips(train.store[video].frame_features for video in videos[::step]).to_dict()


def _example_questions(train: VideoQADataset) -> list[dict[str, object]]:
    """Return some questions of the split, as an app offers them."""
    drawn = random.Random(0).sample(range(len(train.questions)), min(len(train.questions), 10 * EXAMPLES))
    different = {row["question"]: row["choices"] for row in train.questions.select(drawn)}
    return [{"question": question, "choices": choices} for question, choices in list(different.items())[:EXAMPLES]]


def _text_features(arguments: ModelArguments, train: VideoQADataset) -> TextFeatures | None:
    """The token features that a run reads; None where a text encoder makes them."""
    text = train.text if isinstance(train, QuestionsWithTextFeatures) else None
    encoder = {
        "text_model": arguments.text_model,
        "lora_rank": arguments.lora_rank or None,
        "freeze_text_encoder": arguments.freeze_text_encoder or None,
        "text_config": arguments.overrides.get("text_config"),
    }
    chosen = {name: value for name, value in encoder.items() if value is not None}
    takes = "text_feature_dim" in METHODS[arguments.method].config.__dataclass_fields__
    require(
        text is None or (not chosen and takes),
        "text_features take the place of a text encoder",
        found=chosen or f"method {arguments.method}",
        expected="no text encoder, and a method that needs none: igv, eigv, video_qa_backbone",
        fix="remove text_features, or what belongs to the encoder",
    )
    return text


def answer_vocabulary(data: DataArguments, train: VideoQADataset) -> list[str] | None:
    """Return the answers of open-ended questions in the order of their indices; None for multiple choice.

    A benchmark has its list. In question rows the last index may stand for many texts: the class of every answer
    outside the vocabulary, which has no word.

    Raises:
        CausalVideoError: some questions have choices and some have none, or an index has no text or several.

    Example:
        >>> from hf_causal_video.training.questions.splits import load_split
        >>> data = DataArguments(dataset="world", world={"train_clips": 8})
        >>> len(answer_vocabulary(data, load_split(data, "train")))
        24
    """
    questions = train.questions
    open_ended = {not choices for choices in questions["choices"]}
    problem = "questions with choices and questions without"
    fix = "split the questions into two datasets"
    require(len(open_ended) == 1, "two kinds of questions in one split", found=problem, expected="one kind", fix=fix)
    if False in open_ended:
        return None
    if data.dataset == "world":
        return list(ANSWERS)
    if data.annotations is not None and data.dataset in list(BENCHMARKS):
        return list(benchmark_vocabulary(str(data.dataset), data.annotations, vocabulary_option(data)))
    texts: dict[int, set[str]] = {}
    for index, text in zip(questions["answer"], questions["answer_text"], strict=True):
        texts.setdefault(index, set()).add(text)
    last = max(texts)
    if len(texts[last]) > 1:
        del texts[last]
    for index, words in texts.items():
        what = f"answer {index} of the open-ended questions"
        expected = "one text for every index but the last"
        fix = "fill answer_text, one text per answer index"
        has_one = len(words) <= 1 and "" not in words
        require(has_one, what, found=f"texts {sorted(words)[:4]}", expected=expected, fix=fix)
    return [texts.get(index, {f"<answer {index}>"}).copy().pop() for index in range(max(texts) + 1)]


def word_tokenizer(train: VideoQADataset) -> PreTrainedTokenizerBase:
    """Return a tokenizer over the words of the training questions and choices; nothing is downloaded."""
    different = {choice for choices in train.questions["choices"] for choice in choices}
    texts = [*train.questions["question"], *sorted(different)]
    return world_tokenizer().train_new_from_iterator([texts], vocab_size=30_000)


def _small_text_config(vocab_size: int, fields: Mapping[str, object]) -> dict[str, object]:
    if fields.get("model_type", "bert") == "bert":
        fields = {**tiny_text_config(vocab_size).to_dict(), **fields}
    return {**fields, "vocab_size": vocab_size, "pad_token_id": 0}


def _check_answers(config: PreTrainedConfig, train: VideoQADataset) -> None:
    answers = train.questions["answer"]
    limit = config.num_answers
    unknown = sum(answer < 0 for answer in answers)
    require(
        not unknown and (limit is None or max(answers) < limit),
        "answers that cannot be learned",
        found=lambda: f"{unknown} questions without a known answer, largest index {max(answers)}",
        expected=f"an index for every training question{'' if limit is None else f', below num_answers={limit}'}",
        fix="drop questions without an answer from the training split"
        + ("" if limit is None else ", or raise config_overrides.num_answers"),
    )
    require(
        (limit is None) == bool(train.questions[0]["choices"]),
        "a head of the wrong kind",
        found=f"num_answers={limit}, {'no ' if limit is None else ''}choices in the questions",
        expected="num_answers with open-ended questions, choices without",
        fix="choose a preset or checkpoint of the dataset's kind",
    )
