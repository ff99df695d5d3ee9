"""Every public question set by name: the real files have the published sizes, and what is missing names its source."""

import gzip
import json
from pathlib import Path

import pytest

from hf_causal_video.data import BENCHMARKS, load_benchmark
from hf_causal_video.data.nextqa import SHARED_IDS
from hf_causal_video.utils.errors import CausalVideoError

FOLDERS = {
    "nextqa": "nextqa",
    "nextqa-atp-hard": "nextqa_atp_hard",
    "nextqa-oe": "nextqa_oe",
    "nextgqa": "nextgqa",
    "msvdqa": "msvd_qa",
    "msrvttqa": "msrvtt_qa",
    "tgifqa-action": "tgif_qa/action",
    "tgifqa-transition": "tgif_qa/transition",
    "tgifqa-frameqa": "tgif_qa/frameqa",
}
# answers outside the published vocabulary; MSVD-QA's published shares are 6.80 % and 5.92 %
OUTSIDE = {("msvdqa", "val"): 436, ("msvdqa", "test"): 779, ("msrvttqa", "val"): 370, ("msrvttqa", "test"): 2369}
ABSENT = {("nextqa", "train"), ("msrvttqa", "train"), ("tgifqa-transition", "train")}
REAL = [(name, split) for name in FOLDERS for split in BENCHMARKS[name].splits]


@pytest.mark.parametrize(("name", "split"), REAL)
def test_real_files_have_the_published_sizes(shared: Path, name: str, split: str):
    """The sizes are compared inside; a file that is not here is named with its source."""
    folder = shared / "data" / FOLDERS[name]
    if (name, split) in ABSENT:
        with pytest.raises(CausalVideoError, match="train.csv.*github.com/doc-doc"):
            load_benchmark(name, split, folder)
        return
    table = load_benchmark(name, split, folder)
    assert len(table) == BENCHMARKS[name].counts[split][0]
    answers = table["answer"][:]
    if not BENCHMARKS[name].open_ended:
        assert all(0 <= answer < 5 for answer in answers)
        assert all(len(choices) == 5 for choices in table["choices"])
    elif name != "nextqa-oe":
        assert answers.count(-1) == (OUTSIDE.get((name, split), 235 if split == "test" else 0))


def test_an_answer_outside_the_vocabulary_is_the_last_class_in_training_and_wrong_elsewhere(shared: Path):
    folder = shared / "data" / "msvd_qa"
    words = json.loads((folder / "ans_word.json").read_text())
    train, test = (load_benchmark("msvdqa", split, folder) for split in ("train", "test"))
    outside = [text for text, answer in zip(train["answer_text"], train["answer"], strict=True) if answer == 1852]
    assert sorted(outside) == ["breakdance", "freerunning", "handfeeding", "stirfrying"]  # spelt apart in the list
    for row in test.select(range(200)):
        assert row["answer_text"] == words[row["answer"]] if row["answer"] >= 0 else row["answer_text"] not in words
    assert load_benchmark("msvdqa", "test", folder, vocabulary=["man"])["answer"][:].count(0) > 1000


def test_the_vocabulary_of_the_training_answers_is_the_published_list(shared: Path, tmp_path: Path):
    """Frequency first, then first occurrence: FrameQA's 1,540 words come out in their published order."""
    folder = shared / "data" / "tgif_qa" / "frameqa"
    for name in ("train.csv.gz", "test.csv.gz"):
        (tmp_path / name).symlink_to(folder / name)
    published, built = (load_benchmark("tgifqa-frameqa", "test", place) for place in (folder, tmp_path))
    assert built["answer"][:] == published["answer"][:]
    few = load_benchmark("tgifqa-frameqa", "train", tmp_path, vocabulary=100)["answer"][:]
    assert max(few) == 100 and few.count(0) > few.count(99) and 0 < few.count(100) < len(few) / 2


def test_the_hard_part_is_a_part_of_val(shared: Path):
    hard = load_benchmark("nextqa-atp-hard", "val", shared / "data" / "nextqa_atp_hard")
    whole = {row["question_id"]: row for row in load_benchmark("nextqa", "val", shared / "data" / "nextqa")}
    assert all(whole[row["question_id"]] == row for row in hard)
    assert not {"DC", "DL", "DO"} & set(hard["question_type"])


def test_open_ended_nextqa_has_second_references_and_ids_of_its_own(shared: Path):
    folder = shared / "data" / "nextqa_oe"
    test = load_benchmark("nextqa-oe", "test", folder)
    references = test["reference_answers"][:]
    assert sum(len(given) == 2 for given in references) == 4632 - 718  # 718 repeat the answer of the csv
    assert all(given[0] == text for given, text in zip(references, test["answer_text"], strict=True))
    train = load_benchmark("nextqa-oe", "train", folder, vocabulary=1000)
    assert {f"{name}b" for name in SHARED_IDS} < set(train["question_id"])
    assert max(train["answer"]) == 1000 and train["answer"][:].count(0) > 1000


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_missing_file_names_the_official_source(name: str, tmp_path: Path):
    for split in BENCHMARKS[name].splits:
        with pytest.raises(CausalVideoError, match="missing annotation file.*https://github.com/"):
            load_benchmark(name, split, tmp_path)


def test_names_and_splits_are_those_of_the_table(tmp_path: Path):
    with pytest.raises(CausalVideoError, match="unknown benchmark: found 'youtube'; expected one of nextqa, "):
        load_benchmark("youtube", "val", tmp_path)
    with pytest.raises(CausalVideoError, match="unknown split of nextgqa: found 'train'; expected one of val, test"):
        load_benchmark("nextgqa", "train", tmp_path)
    with pytest.raises(CausalVideoError, match="nextqa is multiple choice"):
        load_benchmark("nextqa", "val", tmp_path, vocabulary=["a"])


def test_a_part_is_read_only_where_it_is_called_one(tmp_path: Path):
    text = "video,question,answer,qid\nv1,what runs,dog,1\nv1,who sits,elk,2\n"
    (tmp_path / "train.csv.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "ans_word.json").write_text('["dog"]')
    with pytest.raises(CausalVideoError, match=r"not the full train file: found \(2, 1\)"):
        load_benchmark("msvdqa", "train", tmp_path)
    assert load_benchmark("msvdqa", "train", tmp_path, full=False)["answer"][:] == [0, 1]
    (tmp_path / "val.csv").write_bytes(text.encode())
    assert load_benchmark("msvdqa", "validation", tmp_path, full=False)["answer"][:] == [0, -1]
