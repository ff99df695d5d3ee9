"""The words of a new model: those of the benchmark's list, whatever the training split happens to hold."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

from hf_causal_video.data import load_benchmark
from hf_causal_video.training.arguments import DataArguments
from hf_causal_video.training.questions.model import answer_vocabulary


def test_one_text_outside_the_list_is_no_word(tmp_path: Path):
    """In the rows alone it looks like one: the last index has a single text."""
    (tmp_path / "ans_word.json").write_text(json.dumps(["dog", "cat"]))
    questions = "video,question,answer,qid\n1,what runs,dog,1\n1,what sits,aardvark,2\n"
    (tmp_path / "train.csv").write_text(questions)
    rows = load_benchmark("msvdqa", "train", tmp_path, full=False)
    assert rows["answer"][:] == [0, 2] and rows["answer_text"][1] == "aardvark"
    data = DataArguments(dataset="msvdqa", annotations=str(tmp_path), features="features")
    assert answer_vocabulary(data, SimpleNamespace(questions=rows)) == ["dog", "cat"]
    (tmp_path / "train.csv").write_text(f"{questions}1,what sits,dog,3\n")
    frequent = dataclasses.replace(data, dataset="nextqa-oe", answer_vocabulary="1")
    assert answer_vocabulary(frequent, SimpleNamespace(questions=rows)) == ["dog"]
