"""Laws of reading annotation files: what is written comes back, and what is broken is named, never guessed."""

import csv
import gzip
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_causal_video.data import (
    build_answer_vocabulary,
    index_answers,
    read_answer_vocabulary,
    read_msvdqa,
    read_nextqa,
)
from hf_causal_video.utils.errors import CausalVideoError

HEADER = ["video", "question", "answer", "qid", "type", "a0", "a1", "a2", "a3", "a4"]
CELLS = ["v7", "why did he stop", "2", "4", "CW", "to rest", "to eat", "to look", "to hide", "none"]


def write(path: Path, *lines: list[str], delimiter: str = ",", encoding: str = "utf-8") -> Path:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(lines)
    data = text.getvalue().encode(encoding)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def changed(**cells: str) -> list[str]:
    return [cells.get(name, cell) for name, cell in zip(HEADER, CELLS, strict=True)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_byte_order_mark_and_tabs_change_nothing(tmp_path, encoding, delimiter):
    path = write(tmp_path / "val.csv", HEADER, changed(question="où, donc"), delimiter=delimiter, encoding=encoding)
    row = read_nextqa(path)[0]
    assert (row["question_id"], row["question"], row["answer_text"]) == ("v7_4", "où, donc", "to look")


def test_both_exports_of_msvd_read_alike(tmp_path):
    one = write(
        tmp_path / "a.csv", ["video", "width", "question", "answer", "qid"], ["9", "480", "who is it", "dog", "3"]
    )
    two = write(
        tmp_path / "b.csv", ["id", "video_id", "question", "answer"], ["3", "9", "who is it", "dog"], delimiter="\t"
    )
    assert read_msvdqa(one, ["cat", "dog"]).to_list() == read_msvdqa(two, ["cat", "dog"]).to_list()


BAD = {
    "latin-1": (lambda p: write(p, HEADER, changed(question="où"), encoding="latin-1"), "not UTF-8.*0xf9 in line 2"),
    "utf-16": (lambda p: write(p, HEADER, CELLS, encoding="utf-16"), "not UTF-8"),
    "utf-16 without a mark": (lambda p: write(p, HEADER, CELLS, encoding="utf-16-le"), "zero bytes"),
    "nothing": (lambda p: p.write_bytes(b""), "no header"),
    "a header alone": (lambda p: write(p, HEADER), "has no rows"),
    "answer 5": (lambda p: write(p, HEADER, changed(answer="5")), "line 2 of .* found '5'; expected 0 to 4"),
    "answer -1": (lambda p: write(p, HEADER, changed(answer="-1")), "found '-1'"),
    "answer 2.0": (lambda p: write(p, HEADER, changed(answer="2.0")), "found '2.0'"),
    "a twin": (lambda p: write(p, HEADER, CELLS, changed(answer="1")), "'v7_4' in line 2 and line 3"),
    "a blank choice": (lambda p: write(p, HEADER, changed(a3=" ")), "line 2 .*nothing in a3"),
    "a short line": (lambda p: write(p, HEADER, CELLS[:-1]), "line 2 .*9 cells; expected 10"),
    "a long line": (lambda p: write(p, HEADER, [*CELLS, "more"]), "line 2 .*11 cells; expected 10"),
    "no a0": (lambda p: write(p, HEADER[:5] + ["b", "c", "d", "e", "f"], CELLS), "no a0 in video, question"),
    "six choices": (lambda p: write(p, [*HEADER, "a5"], [*CELLS, "more"]), "a sixth choice"),
    "two names of the video": (lambda p: write(p, ["video_id", *HEADER], ["v8", *CELLS]), r"\['video_id', 'video'\]"),
    "an open quote": (lambda p: p.write_text(",".join(HEADER) + '\nv7,"why'), "line 2 .*cannot be read"),
    "a folder": (lambda p: p.mkdir(), "missing annotation file"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_broken_file_is_refused_by_name_and_line(tmp_path, case):
    make, words = BAD[case]
    make(tmp_path / "val.csv")
    with pytest.raises(CausalVideoError, match=words) as caught:
        read_nextqa(tmp_path / "val.csv")
    assert "val.csv" in str(caught.value) and caught.value.fix


def test_a_gzip_file_that_is_cut_off_is_named(tmp_path):
    path = write(tmp_path / "val.csv.gz", HEADER, CELLS)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CausalVideoError, match="val.csv.gz cannot be unpacked"):
        read_nextqa(path)
    path.write_bytes(b"video,question")
    with pytest.raises(CausalVideoError, match="val.csv.gz cannot be unpacked"):
        read_nextqa(path)


words = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1, max_size=12).filter(
    lambda text: text.strip() == text and text
)
questions = st.tuples(words, words, st.integers(0, 4), st.lists(words, min_size=5, max_size=5))


@given(st.lists(questions, min_size=1, max_size=6), st.sampled_from([",", "\t"]), st.sampled_from(["", ".gz"]))
def test_whatever_is_written_comes_back(tmp_path, rows, delimiter, end):
    """Quotes, line breaks and delimiters inside of cells included."""
    lines = [
        [video, question, str(answer), str(qid), "CW", *choices]
        for qid, (video, question, answer, choices) in enumerate(rows)
    ]
    path = write(tmp_path / f"val.csv{end}", HEADER, *lines, delimiter=delimiter)
    for row, (video, question, answer, choices) in zip(read_nextqa(path), rows, strict=True):
        assert (row["video_id"], row["question"], row["answer"], row["choices"]) == (video, question, answer, choices)


@given(st.lists(st.sampled_from("abcdefg"), min_size=1), st.integers(1, 9))
def test_a_vocabulary_is_frequent_first_and_indices_lead_back(answers, size):
    vocabulary = build_answer_vocabulary(answers, size)
    counts = [answers.count(word) for word in vocabulary]
    assert counts == sorted(counts, reverse=True) and len(set(vocabulary)) == len(vocabulary) <= size
    ties = [(-answers.count(word), answers.index(word)) for word in vocabulary]
    assert ties == sorted(ties)
    for text, index in zip(answers, index_answers(answers, vocabulary, True), strict=True):
        assert (vocabulary + ["other"])[index] == (text if text in vocabulary else "other")


@pytest.mark.parametrize("text", ["{}", "[]", '["a", 1]', '["a", "a"]', '["a", " "]', "[", "3"])
def test_a_vocabulary_is_a_list_of_different_texts(tmp_path, text):
    (tmp_path / "ans_word.json").write_text(text)
    with pytest.raises(CausalVideoError, match="ans_word.json"):
        read_answer_vocabulary(tmp_path / "ans_word.json", "the source")
    with pytest.raises(CausalVideoError, match="no vocabulary"):
        build_answer_vocabulary(["a", ""])
