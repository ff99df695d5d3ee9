"""The public question sets by one name each: reader, files, source, published sizes.

Why: training, evaluation and users name a benchmark and a folder, never a reader. Nothing is downloaded; what is
missing is named together with its official source.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasets import Dataset

from hf_causal_video.data import nextqa, open_ended
from hf_causal_video.data.causalvidqa import CAUSALVIDQA_COUNTS, CAUSALVIDQA_SOURCE, read_causalvidqa
from hf_causal_video.data.open_ended import (
    TGIFQA_COUNTS,
    TGIFQA_SOURCE,
    build_answer_vocabulary,
    read_answer_vocabulary,
    read_tgifqa,
)
from hf_causal_video.utils.checks import check_choice
from hf_causal_video.utils.errors import require

SPLIT_NAMES = {"validation": "val", "valid": "val", "dev": "val"}
VOCABULARY_FILE = "ans_word.json"


Files = Mapping[str, Path]
CSV = {"questions": ("{split}.csv",)}


@dataclass(frozen=True)
class Benchmark:
    """Say what a benchmark is made of.

    Args:
        source: where its files come from.
        counts: split to published questions and videos (NExT-GQA: questions and spans); the size of a split that is
            not in it is not compared.
        read: gives question rows from files by role, the split whose counts are compared (None: none) and, of
            open-ended sets, options of the vocabulary.
        splits: the splits there are.
        files: role to the names that its file may have in the folder; each also with `.gz` behind it.
        open_ended: its answers are words of a vocabulary, or phrases.
        vocabulary_size: answers of the published vocabulary.
    """

    source: str
    counts: Mapping[str, tuple[int, int]]
    read: Callable[..., Dataset]
    splits: tuple[str, ...] = ("train", "val", "test")
    files: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: CSV)
    open_ended: bool = False
    vocabulary_size: int | None = None


def _by_words(reader: Callable[..., Dataset]) -> Callable[..., Dataset]:
    return lambda files, split, **options: reader(files["questions"], split=split, **options)


def _tgifqa(task: str) -> Benchmark:
    def read(files: Files, split: str | None) -> Dataset:
        return read_tgifqa(files["questions"], task, split)

    return Benchmark(TGIFQA_SOURCE, TGIFQA_COUNTS[task], read, ("train", "test"))


BENCHMARKS: dict[str, Benchmark] = {
    "nextqa": Benchmark(
        nextqa.NEXTQA_SOURCE, nextqa.NEXTQA_COUNTS, lambda files, split: nextqa.read_nextqa(files["questions"], split)
    ),
    "nextqa-atp-hard": Benchmark(
        nextqa.ATP_HARD_SOURCE,
        {"val": nextqa.NEXTQA_COUNTS["atp-hard"]},
        lambda files, split: nextqa.read_nextqa(files["questions"], split and "atp-hard"),
        ("val",),
        {"questions": ("nextqa-atphard.csv",)},
    ),
    "nextqa-oe": Benchmark(
        nextqa.NEXTQA_OE_SOURCE,
        nextqa.NEXTQA_OE_COUNTS,
        lambda files, split, **options: nextqa.read_nextqa_open(
            files["questions"], files.get("references"), split, **options
        ),
        files={**CSV, "references": ("add_reference_answer_{split}.json",)},
        open_ended=True,
    ),
    "nextgqa": Benchmark(
        nextqa.NEXTGQA_SOURCE,
        nextqa.NEXTGQA_COUNTS,
        lambda files, split: nextqa.read_nextgqa(files["questions"], files["spans"], split),
        ("val", "test"),
        {**CSV, "spans": ("gsub_{split}.json",)},
    ),
    "msvdqa": Benchmark(
        open_ended.MSVDQA_SOURCE,
        open_ended.MSVDQA_COUNTS,
        _by_words(open_ended.read_msvdqa),
        open_ended=True,
        vocabulary_size=1852,
    ),
    "msrvttqa": Benchmark(
        open_ended.MSRVTTQA_SOURCE,
        open_ended.MSRVTTQA_COUNTS,
        _by_words(open_ended.read_msrvttqa),
        open_ended=True,
        vocabulary_size=5000,
    ),
    "causalvidqa": Benchmark(
        CAUSALVIDQA_SOURCE,
        CAUSALVIDQA_COUNTS,
        lambda files, split: read_causalvidqa(files["questions"], split, files.get("videos")),
        files={"questions": ("{split}.csv", "QA"), "videos": ("{split}.txt",)},
    ),
    "tgifqa-action": _tgifqa("action"),
    "tgifqa-transition": _tgifqa("transition"),
    "tgifqa-frameqa": Benchmark(
        open_ended.FRAMEQA_SOURCE,
        open_ended.FRAMEQA_COUNTS,
        _by_words(open_ended.read_frameqa),
        ("train", "test"),
        open_ended=True,
        vocabulary_size=1540,
    ),
}
OPTIONAL = ("references", "videos")  # roles whose file need not be there


def load_benchmark(
    name: str,
    split: str,
    folder: str | Path,
    vocabulary: Sequence[str] | str | Path | int | None = None,
    full: bool = True,
) -> Dataset:
    """Read a split of a public benchmark from the folder of its official files.

    Args:
        name: a name of `BENCHMARKS`.
        split: train, val (also validation, valid) or test.
        folder: holds the files under their official names, plain or gzipped: `<split>.csv`; NExT-GQA also
            `gsub_<split>.json`, NExT-QA open ended `add_reference_answer_test.json`, open-ended sets `ans_word.json`.
        vocabulary: answers of open-ended questions: a list, a JSON file, or how many of the most frequent answers of
            `train.csv` to take. None: `ans_word.json` of the folder or, where it is absent, the size of the published
            vocabulary from `train.csv`; for NExT-QA open ended, none. An answer outside is the last class in train,
            and -1, always wrong, in the other splits.
        full: the counts must be the published ones; False reads a part.

    Raises:
        CausalVideoError: an unknown name or split, a missing file (named with its source), or whatever the reader
            refuses.

    Example:
        >>> load_benchmark("nextqa", "val", "no/such/folder")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: an annotation file is not there: ...
    """
    benchmark = BENCHMARKS[check_choice("benchmark", name, BENCHMARKS, fix="name one, or read your own rows")]
    split = check_choice(f"split of {name}", SPLIT_NAMES.get(split, split), benchmark.splits)
    files = _find_files(benchmark, split, Path(folder))
    options = {}
    if vocabulary is not None or benchmark.vocabulary_size:
        words = benchmark_vocabulary(name, folder, vocabulary)
        options = {"vocabulary": words, "outside_is_a_class": split == "train"}
    return benchmark.read(files, split if full and split in benchmark.counts else None, **options)


def _find_files(benchmark: Benchmark, split: str, folder: Path) -> Files:
    files = {}
    for role, names in benchmark.files.items():
        candidates = [folder / (name.format(split=split) + end) for name in names for end in ("", ".gz")]
        existing = [path for path in candidates if path.exists()]
        if existing or role not in OPTIONAL:
            files[role] = (existing or candidates)[0]
    return files


def benchmark_vocabulary(
    name: str, folder: str | Path, given: Sequence[str] | str | Path | int | None = None
) -> Sequence[str]:
    """The words that `load_benchmark` numbers the answers of an open-ended benchmark by; arguments as there.

    Raises:
        CausalVideoError: the benchmark is multiple choice, or a file is not there.
    """
    benchmark = BENCHMARKS[name]
    folder = Path(folder)
    what = f"{name} is multiple choice"
    require(benchmark.open_ended, what, found="a vocabulary", expected="no vocabulary", fix="leave vocabulary out")
    if isinstance(given, str | Path):
        return read_answer_vocabulary(given, benchmark.source)
    if given is not None and not isinstance(given, int):
        return given
    published = folder / VOCABULARY_FILE
    if given is None and published.is_file():
        return read_answer_vocabulary(published, benchmark.source)
    train = next((path for end in ("", ".gz") if (path := folder / f"train.csv{end}").is_file()), folder / "train.csv")
    answers = open_ended.read_answers(train, benchmark.source)
    return build_answer_vocabulary(answers, given if given is not None else benchmark.vocabulary_size)
