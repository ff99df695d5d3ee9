"""Laws of reading users' own questions: what is written is read, and what is ambiguous is named by file and line."""

import json

import pytest

from hf_causal_video.cli.main import main
from hf_causal_video.data import load_questions, questions_dataset, read_msvdqa, read_questions
from hf_causal_video.features.store import FeatureStore, FeatureWriter, Provenance, VideoFeatures
from hf_causal_video.utils.errors import CausalVideoError

HEADER = "video,question,answer,a0,a1,a2"


def csv_file(folder, *lines, header=HEADER, name="questions.csv"):
    path = folder / name
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def test_answers_are_indices_or_texts_and_blanks_are_cut(tmp_path):
    path = csv_file(
        tmp_path, "walk.mp4,what does he do,1,he runs, he walks ,he sits", "walk,where,at home,at home,out,"
    )
    file = read_questions(path)
    first, second = file.questions
    assert (first["video_id"], first["answer"], first["answer_text"]) == ("walk", 1, "he walks")
    assert (second["question_id"], second["answer"], second["choices"]) == ("walk_1", 0, ["at home", "out"])
    assert file.notes == ["blanks around 1 value were cut"]


def test_every_layout_gives_the_same_rows(tmp_path):
    row = {"video": "v", "question": "who", "answer": "a dog", "choices": ["a man", "a dog"], "type": "DO"}
    rows = {}
    for name, text in {
        "a.jsonl": json.dumps(row) + "\n",
        "a.json": json.dumps([row]),
        "a.csv": 'video,question,answer,choices,type\nv,who,a dog,"[""a man"", ""a dog""]",DO\n',
        "a.tsv": "video\tquestion\tanswer\ta0\ta1\ttype\nv\twho\t1\ta man\ta dog\tDO\n",
    }.items():
        (tmp_path / name).write_text(text)
        rows[name] = read_questions(tmp_path / name).questions.to_list()
    read_questions(tmp_path / "a.csv").questions.to_parquet(tmp_path / "a.parquet")
    rows["a.parquet"] = read_questions(tmp_path / "a.parquet").questions.to_list()
    assert all(value == rows["a.jsonl"] for value in rows.values())
    assert rows["a.jsonl"][0]["answer_text"] == "a dog"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("v,who,a cat,a man,a dog,a cow", "line 2 .*not among the choices: found 'a cat'"),
        ("v,who,3,a man,a dog,a cow", "line 2 .*found '3'; expected 0 to 2"),
        ("v,how many,1,2,3,1", "line 2 .*ambiguous"),
        ("v,,1,2,3,4", "line 2 .*no question"),
        (",who,1,2,3,4", "line 2 .*no video_id"),
        ("v,who,1,a man,,a dog", "line 2 .*invalid choices"),
        ("v,who,1,a man,a dog", "line 2 .*5 cells; expected 6"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, words):
    with pytest.raises(CausalVideoError, match=words):
        read_questions(csv_file(tmp_path, line))


def test_a_video_that_is_nearly_known_is_suggested(tmp_path):
    path = csv_file(tmp_path, "wlak.mp4,who,0,a,b,c")
    with pytest.raises(CausalVideoError, match="did you mean 'walk'"):
        read_questions(path, {"walk", "run"})


def test_a_tab_separated_file_that_quotes_nothing_keeps_every_row(tmp_path):
    lines = [
        "v1\t1\twho is walking\tdog",
        'v2\t2\t"who is this\tcat',
        'v3\t3\twho is that"\tman',
        "v5\t5\twho runs\tdog",
    ]
    path = csv_file(tmp_path, *lines, header="video_id\tid\tquestion\tanswer", name="test.tsv")
    assert [row["answer_text"] for row in read_msvdqa(path, ["dog", "cat", "man"])] == ["dog", "cat", "man", "dog"]
    assert read_questions(path).questions[1]["question"] == '"who is this'


def test_splits_come_from_files_or_from_a_column(tmp_path):
    one = csv_file(tmp_path, "v,who,0,a,b,c,train", "v,who,1,a,b,c,test", header=HEADER + ",split")
    assert load_questions(one, "test")["answer"] == [1]
    with pytest.raises(CausalVideoError, match="no questions of split 'dev'.*test, train"):
        load_questions(one, "dev")
    folder = tmp_path / "set"
    folder.mkdir()
    csv_file(folder, "v,who,2,a,b,c", name="test.csv")
    assert load_questions(folder, "test")["answer"] == [2]
    assert load_questions({"test": str(folder / "test.csv")}, "test")["answer"] == [2]


def test_open_answers_are_numbered_by_the_training_split(tmp_path):
    csv_file(tmp_path, "v,who,dog", "v,who,cat", "v,who,dog", header="video,question,answer", name="train.csv")
    csv_file(tmp_path, "v,who,cat", "v,who,emu", header="video,question,answer", name="test.csv")
    assert load_questions(tmp_path, "train")["answer"] == [0, 1, 0]
    assert load_questions(tmp_path, "test")["answer"] == [1, -1]
    assert load_questions(tmp_path, "train", vocabulary=1)["answer"] == [0, 1, 0]  # 1: the class of all others
    assert load_questions(tmp_path, "test", vocabulary=["emu"])["answer"] == [-1, 0]


def test_a_missing_file_is_never_looked_up_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_causal_video.data.load.load_dataset", None)
    with pytest.raises(CausalVideoError, match="missing file of questions"):
        load_questions(tmp_path / "absent.csv", "test")


def test_the_verb_says_what_a_file_holds_and_what_has_no_features(tmp_path, capsys):
    import torch

    card = Provenance("org/vit", "main", "pooled", 4, sampling="fps-1")
    with FeatureWriter(tmp_path / "features", card) as writer:
        writer.add(VideoFeatures("walk", torch.arange(3) + 0.5, torch.randn(3, 4)))
    assert FeatureStore.open(tmp_path / "features").video_ids == ["walk"]
    path = csv_file(tmp_path, "walk.mp4,who,0,a,b,c", "wlak,who,1,a,b,c")
    assert main(["questions", str(path)]) == 0
    assert "2 questions about 2 videos, multiple choice" in capsys.readouterr().out
    assert main(["questions", str(path), "--features", str(tmp_path / "features")]) == 1
    assert "wlak (did you mean 'walk'?)" in capsys.readouterr().out
    assert main(["questions", str(tmp_path / "no.csv")]) == 2


def test_question_rows_in_parquet_keep_their_indices(tmp_path):
    """A folder of splits that questions_dataset wrote: answers are indices, and their words stand in answer_text."""
    rows = [
        {"question_id": "v_0", "video_id": "v", "question": "who", "answer": 3, "answer_text": "dog"},
        {"question_id": "v_1", "video_id": "v", "question": "where", "answer": 1, "answer_text": "park"},
    ]
    more = questions_dataset(rows).add_column("truth", [0, 1])  # a world writes such columns
    more.to_parquet(tmp_path / "train.parquet")
    read = load_questions(tmp_path, "train")
    assert (read["answer"], read["answer_text"]) == ([3, 1], ["dog", "park"])
    assert read_questions(tmp_path / "train.parquet").questions["answer_text"] == ["dog", "park"]
