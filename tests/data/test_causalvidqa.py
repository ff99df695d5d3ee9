"""Causal-VidQA in the layouts that are documented, written by hand: a clip is six questions, or it is refused."""

import csv
import json
from pathlib import Path

import pytest

from hf_causal_video.data import load_benchmark, read_causalvidqa
from hf_causal_video.evaluation import causalvidqa_accuracy
from hf_causal_video.utils.errors import CausalVideoError

TYPES = ("d", "e", "p", "pr", "c", "cr")
VIDEOS = ("abc_000010_000020", "def_000001_000011")
KEYS = (("descriptive", ("answer",)), ("explanatory", ("answer",)), ("predictive", ("answer", "reason")),
        ("counterfactual", ("answer", "reason")))  # fmt: skip


def choices(video: str, key: str, part: str) -> list[str]:
    return [f"{part} {number} of {key} in {video}" for number in range(5)]


def write_folder(root: Path, answer: int = 3) -> Path:
    for video in VIDEOS:
        text, answers = {}, {}
        for key, parts in KEYS:
            text[key] = {"question": f"{key}, [person_1]?", **{part: choices(video, key, part) for part in parts}}
            answers[key] = {part: answer for part in parts}
        (root / "QA" / video).mkdir(parents=True)
        (root / "QA" / video / "text.json").write_text(json.dumps(text))
        (root / "QA" / video / "answer.json").write_text(json.dumps(answers))
    return root / "QA"


def write_csv(path: Path, by_text: bool = True) -> Path:
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["video_id", "type", "question", "answer", "a0", "a1", "a2", "a3", "a4"])
        for video in VIDEOS:
            for kind, (key, part) in zip(TYPES, [(key, part) for key, parts in KEYS for part in parts], strict=True):
                five = choices(video, key, part)
                table.writerow([video, kind, f"{key}, [person_1]?", five[3] if by_text else 3, *five])
    return path


def test_csv_by_text_csv_by_index_and_folder_give_the_same_rows(tmp_path):
    table = read_causalvidqa(write_folder(tmp_path))
    assert table["question_id"][:] == [f"{video}_{kind}" for video in VIDEOS for kind in TYPES]
    assert table[3]["answer_text"] == "reason 3 of predictive in abc_000010_000020"
    for by_text in (True, False):
        assert read_causalvidqa(write_csv(tmp_path / "val.csv", by_text)).to_list() == table.to_list()


def test_a_right_answer_counts_only_with_its_reason(tmp_path):
    table = read_causalvidqa(write_csv(tmp_path / "val.csv"))
    right = {row["question_id"]: row["answer"] for row in table}
    assert causalvidqa_accuracy(right, table)["All"] == 100.0
    result = causalvidqa_accuracy({**right, f"{VIDEOS[0]}_pr": 0}, table)
    assert (result["p"], result["par"], result["car"], result["All"]) == (100.0, 50.0, 100.0, 87.5)


def test_unreleased_test_answers_are_unknown(tmp_path):
    assert set(read_causalvidqa(write_folder(tmp_path, answer=-1))["answer"]) == {-1}


def test_a_list_of_videos_picks_a_split_of_the_folder(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "val.txt").write_text(f"{VIDEOS[1]}\n\n")
    assert set(load_benchmark("causalvidqa", "val", tmp_path, full=False)["video_id"]) == {VIDEOS[1]}
    (tmp_path / "val.txt").write_text("ghi_1_2\n")
    with pytest.raises(CausalVideoError, match="ghi_1_2.*bcmi/Causal-VidQA"):
        load_benchmark("causalvidqa", "val", tmp_path, full=False)
    with pytest.raises(CausalVideoError, match=r"full val file: found \(12, 2\).*\(16170, 2695\)"):
        read_causalvidqa(tmp_path / "QA", "val")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (f"{VIDEOS[0]},pr,", f"{VIDEOS[0]},p,", r"1 of 2 videos without all types: abc_000010_000020 \(pr\)"),
        (",cr,", ",q,", "'q'.*d, e, p, pr, c, cr"),
        ("reason 3 of predictive in abc_000010_000020,reason 0", "none of them,reason 0", "unknown answer in line 5"),
    ],
)
def test_a_csv_that_cannot_be_paired_or_answered_is_refused(tmp_path, old, new, words):
    path = write_csv(tmp_path / "val.csv")
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(CausalVideoError, match=words):
        read_causalvidqa(path)


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("text.json", lambda data: data.pop("counterfactual")),
        ("text.json", lambda data: data["predictive"].pop("reason")),
        ("text.json", lambda data: data["descriptive"]["answer"].pop()),
        ("answer.json", lambda data: data.update(descriptive={"answer": "2"})),
        ("answer.json", lambda data: data.update(descriptive={"answer": 5})),
        ("answer.json", lambda data: data.update(descriptive=[1])),
    ],
)
def test_a_clip_that_is_not_whole_is_refused(tmp_path, file, change):
    path = write_folder(tmp_path) / VIDEOS[0] / file
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(CausalVideoError, match=VIDEOS[0]):
        read_causalvidqa(tmp_path / "QA")
