"""The readers of NExT-QA and NExT-GQA: layouts, published counts, and the folds by video."""

import collections
import gzip
import json

import pytest

from hf_causal_video.data import read_nextgqa, read_nextqa, video_folds
from hf_causal_video.utils.errors import CausalVideoError

HEADER = "video,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4"
LINE = '{video},369,640,480,"why, then, did he stop",{answer},{qid},CW,to rest,to eat,to look,to hide,none'


def write(path, lines, header=HEADER):
    text = "\n".join([header, *lines]) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["val.csv", "val.csv.gz"])
@pytest.mark.parametrize("column", ["video", "video_id"])
def test_plain_and_gzipped_files_with_either_name_of_the_video_read_alike(tmp_path, name, column):
    path = write(tmp_path / name, [LINE.format(video=77, answer=2, qid=4)], HEADER.replace("video", column, 1))
    row = read_nextqa(path)[0]
    assert (row["question_id"], row["video_id"], row["question_type"]) == ("77_4", "77", "CW")
    assert (row["question"], row["answer"], row["answer_text"]) == ("why, then, did he stop", 2, "to look")
    assert row["choices"] == ["to rest", "to eat", "to look", "to hide", "none"]


def test_spans_and_duration_are_joined_by_video_and_question(tmp_path):
    lines = [LINE.format(video=77, answer="to eat", qid=qid) for qid in (4, 5)]
    located = {"77": {"duration": 21, "fps": 30.0, "location": {"5": [[-0.1, 3.0], [9.2, 21.5]], "4": [[1, 2]]}}}
    (tmp_path / "gsub.json").write_text(json.dumps(located))
    table = read_nextgqa(write(tmp_path / "val.csv", lines), tmp_path / "gsub.json")
    assert table["spans"] == [[[1.0, 2.0]], [[-0.1, 3.0], [9.2, 21.5]]]
    assert table["duration_s"] == [21.0, 21.0] and table["answer"] == [1, 1]
    del located["77"]["location"]["5"]
    (tmp_path / "gsub.json").write_text(json.dumps(located))
    with pytest.raises(CausalVideoError, match="77_5"):
        read_nextgqa(tmp_path / "val.csv", tmp_path / "gsub.json")


def test_a_file_of_the_other_benchmark_is_refused(tmp_path):
    indices = write(tmp_path / "mc.csv", [LINE.format(video=77, answer=2, qid=4)])
    texts = write(tmp_path / "gqa.csv", [LINE.format(video=77, answer="to eat", qid=4)])
    (tmp_path / "gsub.json").write_text(json.dumps({"77": {"duration": 21, "location": {"4": [[1, 2]]}}}))
    with pytest.raises(CausalVideoError, match="read_nextgqa"):
        read_nextqa(texts)
    with pytest.raises(CausalVideoError, match="read_nextqa"):
        read_nextgqa(indices, tmp_path / "gsub.json")


def test_missing_files_and_columns_name_the_official_source(tmp_path):
    with pytest.raises(CausalVideoError, match="github.com/doc-doc/NExT-QA"):
        read_nextqa(tmp_path / "val.csv")
    with pytest.raises(CausalVideoError, match="github.com/doc-doc/NExT-GQA"):
        read_nextgqa(tmp_path / "val.csv", tmp_path / "gsub_val.json")
    open_ended = write(tmp_path / "oe.csv", ["77,369,why,to eat,4,CW"], "video,frame_count,question,answer,qid,type")
    with pytest.raises(CausalVideoError, match="a0"):
        read_nextqa(open_ended)


def test_a_part_passes_only_where_no_full_split_is_claimed(tmp_path):
    path = write(tmp_path / "val.csv", [LINE.format(video=77, answer=2, qid=4)])
    with pytest.raises(CausalVideoError, match=r"found \(1, 1\).*\(4996, 570\)"):
        read_nextqa(path, split="val")
    assert read_nextqa(path).num_rows == 1


@pytest.mark.parametrize(("split", "ambiguous"), [("val", []), ("test", ["3842638015_4"])])
def test_full_files_have_the_published_counts_and_agree_on_the_answers(shared, split, ambiguous):
    data = shared / "data"
    table = read_nextqa(data / "nextqa" / f"{split}.csv.gz", split=split)
    assert set(table["question_type"]) == {"CW", "CH", "TN", "TC", "TP", "DC", "DL", "DO"}
    located = data / "nextgqa" / f"gsub_{split}.json"
    grounded = read_nextgqa(data / "nextgqa" / f"{split}.csv.gz", located, split=split)
    answers = dict(zip(table["question_id"], table["answer"], strict=True))
    assert [row["question_id"] for row in grounded if answers[row["question_id"]] != row["answer"]] == ambiguous


def test_folds_are_those_of_the_benchmark_and_never_part_a_video(shared):
    table = read_nextqa(shared / "data" / "nextqa" / "val.csv.gz")
    folds = video_folds(table["video_id"])
    by_question, by_video = collections.Counter(folds), collections.Counter()
    by_video.update(fold for _, fold in set(zip(table["video_id"], folds, strict=True)))
    assert [by_question[fold] for fold in range(5)] == [911, 1181, 893, 976, 1035]
    assert [by_video[fold] for fold in range(5)] == [103, 136, 104, 109, 118]
    with pytest.raises(CausalVideoError, match="number of folds"):
        video_folds(["1"], k=1)
