"""Laws of the question table: what is refused, what follows by itself, and that it survives every door."""

import pytest
from datasets import Features, Value, load_dataset

from hf_causal_video.data.rows import QUESTION_FEATURES, questions_dataset
from hf_causal_video.utils.errors import CausalVideoError

ROW = {
    "question_id": "v1_0",
    "video_id": "v1",
    "question": "who runs",
    "choices": ["a boy", "a dog"],
    "answer": 1,
    "answer_text": "a dog",
    "question_type": "CW",
    "spans": [[0.5, 2.25], [4.0, 7.1]],
    "duration_s": 9.3,
}
OPEN_ROW = {"question_id": "v1_1", "video_id": "v1", "question": "what is seen", "answer": 17, "answer_text": "grass"}


def test_a_full_row_is_kept_and_absent_columns_take_their_defaults():
    table = questions_dataset([ROW, OPEN_ROW])
    assert table.features == QUESTION_FEATURES
    assert table[0] == ROW
    assert table[1] == {**OPEN_ROW, "choices": [], "question_type": "", "spans": [], "duration_s": 0.0}


def test_the_text_of_the_answer_follows_from_the_choices():
    row = {**ROW, "answer_text": ""}
    assert questions_dataset([row])[0]["answer_text"] == "a dog"
    assert questions_dataset([{**row, "answer": -1}])[0]["answer_text"] == ""


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"answer": 2}, "outside the choices"),
        ({"answer": -2}, "invalid answer"),
        ({"answer": 1.0}, "invalid answer"),
        ({"answer_text": "a cat"}, "disagree"),
        ({"choices": ["a boy", None]}, "invalid choices"),
        ({"question": "  "}, "invalid question"),
        ({"video_id": 4010069381}, "video_id"),
        ({"spans": [[2.0, 1.0]]}, "span"),
        ({"spans": [[0.0, float("nan")]]}, "span"),
        ({"spans": [[0.0, 1.0, 2.0]]}, "span"),
        ({"duration_s": -1.0}, "duration_s"),
        ({"colour": "red"}, "unknown columns"),
    ],
)
def test_a_row_that_could_change_a_number_is_refused_by_name(change, named):
    with pytest.raises(CausalVideoError, match=named) as caught:
        questions_dataset([{**ROW, "question_id": "v0_0"}, {**ROW, **change}])
    assert "v1_0" in str(caught.value) and caught.value.fix


def test_a_missing_column_and_a_repeated_id_are_refused():
    with pytest.raises(CausalVideoError, match="video_id"):
        questions_dataset([{"question_id": "v1_0", "question": "who runs"}])
    with pytest.raises(CausalVideoError, match="in question row 0 and question row 2"):
        questions_dataset([ROW, OPEN_ROW, ROW])


def test_extra_columns_are_typed_and_required_of_every_row():
    extra = Features({"environment": Value("int32")})
    assert questions_dataset([{**ROW, "environment": 3}], extra=extra)[0]["environment"] == 3
    with pytest.raises(CausalVideoError, match="environment"):
        questions_dataset([ROW], extra=extra)


def test_parquet_and_load_dataset_give_back_the_same_table(tmp_path):
    table = questions_dataset([ROW, OPEN_ROW])
    (tmp_path / "questions").mkdir()
    table.to_parquet(tmp_path / "questions" / "train-00000-of-00001.parquet")
    files = "  data_files:\n  - split: train\n    path: questions/train-*.parquet\n"
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n- config_name: questions\n{files}---\n")
    again = load_dataset(str(tmp_path), "questions", split="train", cache_dir=str(tmp_path / "cache"))
    assert again.features == table.features
    assert again.to_list() == table.to_list()
    assert questions_dataset(again).to_list() == table.to_list()
