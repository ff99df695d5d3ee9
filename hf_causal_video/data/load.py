"""Questions by one name: a public benchmark, your own files, or a dataset of question rows.

Why: training, evaluation and the stress test state their questions in the same way, so they must read them alike.
"""

from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from datasets import Dataset, load_dataset
from pyarrow.parquet import read_schema

from hf_causal_video.data.benchmarks import BENCHMARKS, load_benchmark
from hf_causal_video.data.custom import SUFFIXES, is_question_file, read_questions
from hf_causal_video.data.nextqa import read_nextgqa, read_nextqa
from hf_causal_video.data.open_ended import build_answer_vocabulary, index_answers, read_answer_vocabulary
from hf_causal_video.data.rows import QUESTION_FEATURES, questions_dataset
from hf_causal_video.data.tables import read_cells
from hf_causal_video.utils.checks import check_choice, check_file
from hf_causal_video.utils.errors import require, reworded

Vocabulary = Sequence[str] | str | Path | int | None
NEXTQA_COLUMNS = {"video", "question", "answer", "qid", "type", "a0", "a1", "a2", "a3", "a4"}


def load_questions(
    dataset: str | Path | Mapping[str, str],
    split: str,
    *,
    annotations: str | Path | None = None,
    vocabulary: Vocabulary = None,
    train_split: str = "train",
    videos: Container[str] | None = None,
    spans: str | Path | None = None,
) -> Dataset:
    """Load the question rows of a split.

    Args:
        dataset: one of
            a name of `BENCHMARKS`, with `annotations`;
            a file of your own, see `read_questions` (a column `split` may divide it);
            a mapping from split to such files;
            a folder with a file per split (`train.csv`, `test.jsonl`, ...) or one file `questions.*`;
            a folder or Hub id of a dataset with a `questions` config.
            An existing file or folder is never looked up on the Hub.
        split: name of the split.
        annotations: folder of the official files of a benchmark.
        vocabulary: answers of open-ended questions: a list, a JSON file, or how many of the most frequent training
            answers to take; None takes a benchmark's published list, or every training answer of your own files.
        train_split: split whose answers make the vocabulary, and in which an answer outside is a class of its own.
        videos: ids that are known, such as a feature set, for your own files.
        spans: gsub json of NExT-GQA with the true spans of a csv of NExT-QA.

    Raises:
        CausalVideoError: an unknown benchmark, file, split or Hub id, or whatever the reader refuses.

    Example:
        >>> load_questions("nextqa", "val", annotations="no/such/folder")
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: ...
    """
    if annotations is not None:
        return _benchmark(dataset, split, annotations, vocabulary)
    path = question_file(dataset, split)
    if path is None:
        return _hub_or_folder(str(dataset), split)
    if spans is not None:
        return read_nextgqa(path, spans)
    if path.suffix == ".parquet" and {"question_id", "video_id", "answer_text"} <= set(read_schema(path).names):
        return _known_columns(Dataset.from_parquet(str(path)))  # question rows, whose answers are indices already
    rows = _read_file(path, split, videos)
    if rows[0]["choices"]:
        return rows
    if vocabulary is None or isinstance(vocabulary, int):
        train_path = question_file(dataset, train_split) or path
        train = rows if split == train_split else _read_file(train_path, train_split, None)
        words: Sequence[str] = build_answer_vocabulary(train["answer_text"], vocabulary)
    elif isinstance(vocabulary, str | Path):
        words = read_answer_vocabulary(vocabulary, "your own list")
    else:
        words = vocabulary
    indices = index_answers(rows["answer_text"], words, outside_is_a_class=split == train_split)
    return rows.remove_columns("answer").add_column("answer", indices).cast(rows.features)


def _benchmark(dataset: object, split: str, annotations: str | Path, vocabulary: Vocabulary) -> Dataset:
    check_choice("dataset next to annotations", dataset, BENCHMARKS, fix="leave annotations out for your own files")
    benchmark = BENCHMARKS[str(dataset)]
    has_words = vocabulary is not None or not benchmark.open_ended or benchmark.vocabulary_size
    what = f"{dataset} has no published vocabulary of answers"
    expected = "a list, or how many of the most frequent training answers to learn"
    require(has_words, what, found="no vocabulary", expected=expected, fix="add --answer_vocabulary 1000")
    return load_benchmark(str(dataset), split, annotations, vocabulary if benchmark.open_ended else None)


def question_file(dataset: str | Path | Mapping[str, str], split: str) -> Path | None:
    """File of a split; None for a dataset that `datasets` loads."""
    if isinstance(dataset, Mapping):
        check_choice("split of dataset", split, dataset, fix="add it to dataset")
        fix = "correct the path; for a benchmark such as NExT-QA give its name and --annotations FOLDER"
        return check_file(f"file of split {split!r}", dataset[split], fix=fix)
    path = Path(dataset)
    if is_question_file(path):
        return path
    if path.name.removesuffix(".gz").endswith(SUFFIXES):
        check_file("file of questions", path)
    names = [f"{stem}{suffix}{gz}" for stem in (split, "questions") for suffix in SUFFIXES for gz in ("", ".gz")]
    return next((path / name for name in names if (path / name).is_file()), None)


def _read_file(path: Path, split: str, videos: Container[str] | None) -> Dataset:
    if path.name.removesuffix(".gz").endswith((".csv", ".tsv")) and NEXTQA_COLUMNS <= set(
        read_cells(path, "NExT-QA")[0]
    ):
        return read_nextqa(path)
    return read_questions(path, videos).of_split(split)


def _hub_or_folder(name: str, split: str) -> Dataset:
    has_files = name not in BENCHMARKS or Path(name).exists()
    expected = "the folder of its official files"
    fix = "add --annotations FOLDER"
    require(has_files, f"the files of {name} are missing", found="its name alone", expected=expected, fix=fix)
    expected = "a file of questions, a folder with a file per split, or a dataset with a 'questions' config"
    fix = "check the name; `hf-causal-video questions FILE` checks a file of your own"
    faults = (ValueError, FileNotFoundError, KeyError, ConnectionError)
    with reworded(faults, f"no questions for split {split!r} of {name}", expected=expected, fix=fix):
        return _known_columns(load_dataset(name, "questions", split=split))


def _known_columns(rows: Dataset) -> Dataset:
    """Question rows without columns beyond their layout, such as the truth of a world."""
    return questions_dataset(rows.select_columns([name for name in rows.column_names if name in QUESTION_FEATURES]))
