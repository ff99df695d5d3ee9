"""Four ways to text, for IGV and EIGV: an encoder that is trained, frozen or adapted, or token features alone."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoProcessor, BertModel, set_seed

from hf_causal_video.training import predict
from hf_causal_video.training.questions.model import build_model
from hf_causal_video.training.questions.splits import load_split
from hf_causal_video.training.questions.task import QuestionTask
from hf_causal_video.training.recipe import ConfigParser
from hf_causal_video.training.text_features import QuestionCollator
from hf_causal_video.utils.errors import CausalVideoError
from tests.training.conftest import TINY, write_recipe
from tests.training.test_grounding import FIELDS, POOLING
from tests.training.test_run import run, text_model

WORLD = {**TINY["world"], "study": "grounding", "min_window": 2, "max_window": 3, "train_clips": 16, "eval_clips": 6}
ADAPTED = ("query.weight", "value.weight")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_model(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module", params=[4, None], ids=["choices", "open-ended"])
def token_features(request: pytest.FixtureRequest, encoder: Path, tmp_path_factory) -> tuple[int | None, Path]:
    """What the frozen encoder says of every text of the world, in a file."""
    model, processor = BertModel.from_pretrained(encoder).eval(), AutoProcessor.from_pretrained(encoder)
    argv = ["--config", str(made(tmp_path_factory.mktemp("r"), "igv", request.param)), "--output_dir", "x"]
    _, data, _ = ConfigParser().parse(argv)
    found = {}
    for split in ("train", "validation", "iid"):
        for row in load_split(data, split).questions:
            texts = {"question": (row["question"],)}
            texts |= {f"choices/{i}": (row["question"], choice) for i, choice in enumerate(row["choices"])}
            for name, text in texts.items():
                with torch.no_grad():
                    states = model(**processor(*text, return_tensors="pt")).last_hidden_state[0]
                found[f"{row['question_id']}/{name}"] = states.half()
    path = tmp_path_factory.mktemp("features") / "text.safetensors"
    save_file(found, path)
    return request.param, path


def made(folder: Path, method: str, choices: int | None = 4, **changes: object) -> Path:
    """Two steps of a method; no term waits for a warm-up."""
    fields = {**POOLING, **FIELDS[method], "warmup_share": 0.0, "ramp_share": 0.0}
    fields["backbone_config"] = {"hidden_size": 32}
    if "text_features" in changes or "text_model" in changes:
        del fields["text_config"]
    changes = {"test_splits": ["iid"], "world": {**WORLD, "num_choices": choices}, "num_train_epochs": 1, **changes}
    return write_recipe(folder / "r.yaml", method=method, config_overrides=fields, **changes)


@pytest.mark.parametrize("method", ["igv", "eigv"])
@pytest.mark.parametrize("way", ["trained", "frozen", "adapted"])
def test_an_encoder_learns_as_much_as_it_should(way: str, method: str, encoder: Path, tmp_path: Path):
    changes = {"trained": {}, "frozen": {"freeze_text_encoder": True}, "adapted": {"lora_rank": 2}}[way]
    path = made(tmp_path, method, text_model=str(encoder), **changes)
    assert run(path, tmp_path / "run")["training"]["steps"] == 2
    before, after = load_file(encoder / "model.safetensors"), load_file(tmp_path / "run" / "model.safetensors")
    text = {name.removeprefix("text_encoder."): value for name, value in after.items() if "text_encoder" in name}
    moved = {name for name, value in text.items() if not torch.equal(value, before[name])}
    if way == "trained":
        assert len(moved) > len(text) / 2
    else:
        assert moved == {name for name in text if way == "adapted" and name.endswith(ADAPTED)}
    reloads_with_the_same_answers(tmp_path / "run", path)
    all_else_moved(after, path)


@pytest.mark.parametrize("method", ["igv", "eigv"])
def test_token_features_take_the_place_of_an_encoder(method: str, token_features, tmp_path: Path):
    choices, file = token_features
    path = made(tmp_path, method, choices, text_features=str(file))
    assert run(path, tmp_path / "run")["training"]["steps"] == 2
    after = load_file(tmp_path / "run" / "model.safetensors")
    assert not [name for name in after if "text_encoder" in name]
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["text_config"] is None and config["text_feature_dim"] == 16
    reloads_with_the_same_answers(tmp_path / "run", path)
    all_else_moved(after, path)


def reloads_with_the_same_answers(folder: Path, path: Path) -> None:
    """What was written down is what the checkpoint says when it is read again."""
    _, data, _ = ConfigParser().parse(["--config", str(path), "--output_dir", "x"])
    model, questions = AutoModel.from_pretrained(folder), load_split(data, "iid")
    again = predict(
        model, questions, QuestionTask().collator(AutoProcessor.from_pretrained(folder)), 6, progress=False
    )
    stored = [json.loads(line) for line in (folder / "predictions" / "iid.jsonl").read_text().splitlines()]
    assert len(again) == len(stored) == 6
    for mine, theirs in zip(again, stored, strict=True):
        assert mine["scores"] == pytest.approx(theirs["scores"], abs=1e-6)
        assert mine["kept_frames"] == theirs["kept_frames"]


def all_else_moved(after: dict[str, torch.Tensor], path: Path) -> None:
    """Every weight beside the encoder's is another one than at the start of the run."""
    model_arguments, data, arguments = ConfigParser().parse(["--config", str(path), "--output_dir", "x"])
    set_seed(arguments.seed)
    before = build_model(model_arguments, data, load_split(data, "train"))[0].state_dict()
    own = [name for name in after if "text_encoder" not in name and name.endswith("weight")]
    assert own and not [name for name in own if torch.equal(after[name], before[name])]


def test_token_features_that_cannot_be_read_are_refused(token_features, encoder: Path, tmp_path: Path):
    choices, file = token_features
    with pytest.raises(CausalVideoError, match="no text encoder, and a method that needs none"):
        world = {**WORLD, "num_choices": choices}
        run(write_recipe(tmp_path / "a.yaml", text_features=str(file), world=world, test_splits=[]), tmp_path / "a")
    with pytest.raises(CausalVideoError, match="take the place of a text encoder"):
        run(made(tmp_path, "igv", choices, text_features=str(file), text_model=str(encoder)), tmp_path / "a")
    with pytest.raises(CausalVideoError, match="check text_features"):
        run(made(tmp_path, "igv", choices, text_features=str(tmp_path)), tmp_path / "a")
    found = load_file(file)
    gone = next(name for name in found if "train" in name)
    save_file({name: value for name, value in found.items() if name != gone}, tmp_path / "less.safetensors")
    with pytest.raises(CausalVideoError, match=f"1 tensors missing, such as .*{gone}"):
        run(made(tmp_path, "igv", choices, text_features=str(tmp_path / "less.safetensors")), tmp_path / "a")
    save_file({**found, gone: found[gone][:, :5].clone()}, tmp_path / "odd.safetensors")
    with pytest.raises(CausalVideoError, match="token features of question"):
        run(made(tmp_path, "igv", choices, text_features=str(tmp_path / "odd.safetensors")), tmp_path / "b")


def test_choices_of_different_number_are_padded_with_absent_ones():
    def item(*lengths: int) -> dict:
        texts = [torch.full((length, 3), float(length)) for length in lengths]
        choices = ["c"] * (len(lengths) - 1)
        return {"question": "q", "choices": choices, "answer": 0, "frame_features": torch.zeros(2, 3),
                "text_features": texts}  # fmt: skip

    batch = QuestionCollator(lambda **inputs: {"input_ids": 0, "attention_mask": 0, "choice_input_ids": 0,
                                       "choice_attention_mask": 0})([item(2, 4, 1, 3), item(5, 2)])  # fmt: skip
    assert batch["question_features"].shape == (2, 5, 3) and batch["attention_mask"].sum(1).tolist() == [2, 5]
    assert batch["choice_features"].shape == (2, 3, 4, 3) and "input_ids" not in batch
    assert batch["choice_attention_mask"].sum(-1).tolist() == [[4, 1, 3], [2, 0, 0]]
    assert batch["choice_features"][0, :, 0, 0].tolist() == [4, 1, 3]
