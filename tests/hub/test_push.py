"""Pushing to the loopback Hub: one commit or nothing, and every bad input in words, before anything is written."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard, constants
from safetensors.torch import load_file, save_file

from hf_causal_video.cli.main import main
from hf_causal_video.hub import push_checkpoint
from hf_causal_video.models import TranSTRConfig, TranSTRForVideoQuestionAnswering, VideoQAProcessor
from hf_causal_video.models.loading import weights_digest
from hf_causal_video.utils.errors import CausalVideoError
from hf_causal_video.worlds import tiny_text_config, world_tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.loopback_hub import LoopbackHub, Repository  # noqa: E402

NAME = "org/transtr-own"
SECRET = "hf_" + "abcdefghijklmnopqrstuvwxyz01"


def write_run(folder: Path) -> Path:
    """What a finished training run leaves, with a smaller model than any run would train."""
    torch.manual_seed(0)
    config = TranSTRConfig(
        text_config=tiny_text_config(len(world_tokenizer()), 16, 1).to_dict(), hidden_size=16, num_attention_heads=2,
        intermediate_size=16, frame_feature_dim=6, num_frames_kept=3, num_objects_kept=0, num_answers=3,
        feature_provenance={"frame_model": "org/vit", "frame_layer": "pooled", "sampling": "uniform-8"},
    )  # fmt: skip
    TranSTRForVideoQuestionAnswering(config).save_pretrained(folder)
    VideoQAProcessor(world_tokenizer(), ["red", "green", "blue"]).save_pretrained(folder)
    recipe = {"method": "transtr", "features": "/data/of/this/machine/features", "learning_rate": 1e-3, "seed": 7}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    card = {
        "method": "transtr", "preset": "clean", "text_encoder": "microsoft/deberta-base", "dataset": "org/questions",
        "metrics": [
            {"split": "validation", "role": "validation", "name": "Acc", "value": 61.0, "unit": "percent"},
            {"split": "test", "role": "test", "name": "Acc", "value": 59.25, "unit": "percent"},
        ],
        "chosen_by": "accuracy on validation", "seed": 7, "training": {"steps": 12}, "weights": weights_digest(folder),
    }  # fmt: skip
    (folder / "card_data.json").write_text(json.dumps(card))
    report = {"checkpoint": str(folder), "dataset": "nextqa", "split": "test", "metrics": {"Acc": 40.5, "Acc@C": 39.0}}
    (folder / "evaluation" / "nextqa-test").mkdir(parents=True)
    (folder / "evaluation" / "nextqa-test" / "metrics.json").write_text(json.dumps(report))
    (folder / "checkpoint-12").mkdir()
    (folder / "checkpoint-12" / "optimizer.pt").write_bytes(b"not for others")
    (folder / "training_args.bin").write_bytes(b"not for others")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def run(trained, tmp_path) -> Path:
    folder = Path(shutil.copytree(trained, tmp_path / "run"))
    rewrite("evaluation/nextqa-test/metrics.json", checkpoint=str(folder))(folder)
    return folder


@pytest.fixture
def hub(monkeypatch):
    """A Hub of this test's own, with the real client pointed at it and its token in the environment."""
    with LoopbackHub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", hub.token)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield hub


def test_a_push_is_one_commit_of_what_a_stranger_needs(hub, run):
    pushed = push_checkpoint(run, NAME)
    repository = hub.repositories["model", NAME]
    assert len(repository.commits) == 2, "made, pushed"
    assert pushed.url == f"{hub.url}/{NAME}/commit/{repository.refs['main']}"
    files = repository.files
    assert files.keys() - {".gitattributes"} == pushed.files.keys()
    assert {name: len(data) for name, data in files.items() if name in pushed.files} == pushed.files
    code = {name for name in files if name.endswith(".py")}
    assert files.keys() - code == {
        ".gitattributes", "README.md", "config.json", "model.safetensors", "processor_config.json", "recipe.yaml",
        "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert files["model.safetensors"] == (run / "model.safetensors").read_bytes()
    assert hub.uploads[weights_digest(run)["model.safetensors"]] == files["model.safetensors"], "the Hub's own hash"
    config = json.loads(files["config.json"])
    for place in [
        *config["auto_map"].values(),
        json.loads(files["processor_config.json"])["auto_map"]["AutoProcessor"],
    ]:
        file, name = place.split(".")
        assert f"class {name}(" in files[f"{file}.py"].decode()
    assert config["auto_map"].keys() == {
        "AutoConfig", "AutoModel", "AutoModelForVisualQuestionAnswering", "AutoProcessor",
    }  # fmt: skip
    assert yaml.safe_load(files["recipe.yaml"])["features"] == "features", "a path of this machine is cut to its name"


def test_the_card_states_what_was_measured_in_words_and_in_metadata(hub, run):
    push_checkpoint(run, NAME, license_id="mit")
    card = ModelCard(hub.repositories["model", NAME].files["README.md"].decode())
    assert card.data.license == "mit" and card.data.base_model == "microsoft/deberta-base"
    assert card.data.datasets == ["org/questions"] and "hf-causal-video" in card.data.tags
    found = {
        (one.dataset_type, one.dataset_split, one.metric_name): one.metric_value for one in card.data.eval_results
    }
    assert found == {
        ("org/questions", "test", "Acc"): 59.25, ("org/questions", "validation", "Acc"): 61.0,
        ("nextqa", "test", "Acc"): 40.5, ("nextqa", "test", "Acc@C"): 39.0,
    }  # fmt: skip
    lines = (
        "| org/questions | test | Acc | 59.25 |", "validation (chosen by it) | Acc | 61.00", "learning_rate: 0.001",
        "| `num_frames_kept` | `3` |", "`org/vit`", f'AutoModel.from_pretrained("{NAME}")', "Seed 7",
    )  # fmt: skip
    for line in lines:
        assert line in card.content
    assert "do not hold their hash" in card.content, "one of the two reports is bound by its date alone"


def test_pushing_again_replaces_the_files_of_the_push_and_no_others(hub, run):
    push_checkpoint(run, NAME)
    repository = hub.repositories["model", NAME]
    old = {"old_module.py": b"", "model-00001-of-00002.safetensors": b"", "notes.md": b"the owner's"}
    repository.commit(repository.files | old)
    push_checkpoint(run, NAME)
    assert len(repository.commits) == 4
    assert repository.files.keys() & old.keys() == {"notes.md"}


def test_a_revision_is_a_branch_of_its_own(hub, run):
    push_checkpoint(run, NAME)
    repository = hub.repositories["model", NAME]
    before = repository.refs["main"]
    state = load_file(run / "model.safetensors")
    save_file({name: value + 1 for name, value in state.items()}, run / "model.safetensors", {"format": "pt"})
    shutil.rmtree(run / "evaluation")
    (run / "card_data.json").unlink()
    push_checkpoint(run, NAME, revision="seed-1")
    assert repository.refs["main"] == before
    branch = repository.commits[repository.refs["seed-1"]]
    assert branch["model.safetensors"] == (run / "model.safetensors").read_bytes()
    assert "Nothing yet." in branch["README.md"].decode()


def test_a_dry_run_asks_the_hub_nothing_and_needs_no_token(run, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("hf_causal_video.hub.push.get_token", lambda: None)
    monkeypatch.setattr("hf_causal_video.hub.push.HfApi", None)
    assert main(["push", str(run), NAME, "--private", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "model.safetensors" in printed and "nothing uploaded" in printed and "optimizer" not in printed


def test_names_that_only_this_machine_knows_are_told(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    made = {"frame_model": "demo/networks/frames", "frame_layer": "pooled", "sampling": "uniform-8"}
    rewrite("config.json", feature_provenance=made)(run)
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"dataset": "nextqa", "text_model": "org/bert"}))
    assert main(["push", str(run), NAME, "--dry-run"]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert len(told) == 2 and "features in recipe.yaml names 'features'" in told[0]
    assert "frame_model in config.json names 'demo/networks/frames'" in told[1]


def rewrite(name: str, **changes):
    """Change fields of a JSON file."""

    def mutate(run: Path) -> None:
        path = run / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return mutate


def change_weights(change):
    def mutate(run: Path) -> None:
        save_file(change(load_file(run / "model.safetensors")), run / "model.safetensors", {"format": "pt"})

    return mutate


def spoil(state):
    state["classifier.bias"][1] = float("nan")
    return state


def forget(state):
    return {name: value for name, value in state.items() if name != "classifier.bias"}


def cut(run: Path) -> None:
    os.truncate(run / "model.safetensors", (run / "model.safetensors").stat().st_size // 2)


def pickled_only(run: Path) -> None:
    torch.save(load_file(run / "model.safetensors"), run / "pytorch_model.bin")
    (run / "model.safetensors").unlink()


def train_again(run: Path) -> None:
    change_weights(lambda state: {name: value + 1 for name, value in state.items()})(run)


def copy_a_report(run: Path) -> None:
    (run / "card_data.json").unlink()
    rewrite("evaluation/nextqa-test/metrics.json", checkpoint=str(run.parent / "another"))(run)


def outdate(run: Path) -> None:
    (run / "card_data.json").unlink()
    os.utime(run / "evaluation" / "nextqa-test" / "metrics.json", (0, 0))


def tell_a_secret(run: Path) -> None:
    (run / "recipe.yaml").write_text(f"method: transtr\nhub_token: {SECRET}\n")


PROVENANCE = {"frame_model": "/home/somebody/vit", "frame_layer": "pooled"}
BAD = {
    "no folder": (shutil.rmtree, "missing checkpoint to push"),
    "no weights": (lambda run: (run / "model.safetensors").unlink(), "no weights"),
    "pickled weights": (pickled_only, "pickled weights are not pushed"),
    "half a file": (cut, "model.safetensors cannot be read"),
    "NaN": (change_weights(spoil), "NaN or infinity in classifier.bias"),
    "a key missing": (change_weights(forget), "classifier.bias"),
    "a key too many": (change_weights(lambda s: s | {"surplus": torch.zeros(1)}), "surplus"),
    "another shape": (rewrite("config.json", hidden_size=32, num_attention_heads=2), "do not fit its config"),
    "a config of another library": (rewrite("config.json", model_type="bert"), "found 'bert'; expected one of"),
    "a config that is no JSON": (lambda run: (run / "config.json").write_text("{"), "cannot be read"),
    "architectures of another": (rewrite("config.json", architectures=["Other"]), "architectures"),
    "another vocabulary of answers": (rewrite("processor_config.json", answer_vocabulary=["red"]), "1 answers"),
    "a config that is no object": (lambda run: (run / "config.json").write_text("[]"), "config.json: found a list"),
    "no settings of the processor": (lambda run: (run / "processor_config.json").unlink(), "missing processor"),
    "a report without a split": (rewrite("card_data.json", metrics=[{"name": "Acc"}]), "is not a report of a run"),
    "a report that is a list": (lambda run: (run / "card_data.json").write_text("[]"), "card_data.json: found a list"),
    "a result in words": (rewrite("evaluation/nextqa-test/metrics.json", metrics={"Acc": "good"}), "is not a report"),
    "a recipe that is no YAML": (lambda run: (run / "recipe.yaml").write_text("a: [1"), "recipe.yaml cannot be read"),
    "a recipe of one word": (lambda run: (run / "recipe.yaml").write_text("transtr"), "recipe.yaml: found a str"),
    "no processor": (lambda run: (run / "tokenizer.json").unlink(), "processor"),
    "trained again since": (train_again, "measured on other weights"),
    "a report of another checkpoint": (copy_a_report, "does not say which weights"),
    "a report older than the weights": (outdate, "older than the weights"),
    "an infinite result": (
        rewrite("evaluation/nextqa-test/metrics.json", metrics={"Acc": float("inf")}), "expected finite numbers",
    ),
    "a token in the recipe": (tell_a_secret, "recipe.yaml cannot be uploaded.*a token in it"),
    "a path of this machine": (rewrite("config.json", feature_provenance=PROVENANCE), "/home/somebody/vit"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_bad_checkpoint_is_refused_before_anything_is_written(hub, run, what, capfd, caplog):
    mutate, words = BAD[what]
    mutate(run)
    with pytest.raises(CausalVideoError, match=words) as refused:
        push_checkpoint(run, NAME)
    assert not hub.repositories and not hub.uploads
    assert_silent_about(hub, refused, capfd, caplog)


def assert_silent_about(hub, refused, capfd, caplog):
    printed = "".join([*capfd.readouterr(), caplog.text, str(refused.value), repr(refused.getrepr(chain=True))])
    for secret in (hub.token, hub.read_token, SECRET):
        assert secret not in printed.replace(f"{secret}ForReadersAlone", "")


def test_a_licence_the_hub_does_not_know_is_refused(hub, run):
    with pytest.raises(CausalVideoError, match="licence of the weights: found 'mine'"):
        push_checkpoint(run, NAME, license_id="mine")
    assert not hub.repositories


def foreign(name: str, **options) -> Repository:
    made = Repository(name, **options)
    made.commit({".gitattributes": b"", "config.json": b'{"model_type": "bert"}', "model.safetensors": b"theirs"})
    return made


WORDS = {  # arguments of the push, and what it says
    "no token": ({"private": True}, "pushing a private repository to org/transtr-own: found no token"),
    "a wrong token": ({"token": "hf_wrongTokenOfAStranger"}, "the token was refused"),
    "a token that reads": ({}, "not allowed"),
    "another's namespace": ({"repo_id": "google/bert"}, "google/ is not yours: found you may write to me, org"),
    "an organisation one only reads": ({"repo_id": "readers/x"}, "readers/ is not yours"),
    "a name taken by another model": ({}, "the name org/transtr-own is taken: found a model of type bert"),
    "a name taken, unseen": ({}, "is taken: found a repository that you may not see"),
    "public where private is asked": ({"private": True}, "found public; expected private"),
    "no network": ({}, "the Hub cannot be reached"),
    "offline": ({}, "the network is switched off"),
    "no owner": ({"repo_id": "transtr"}, "invalid name of a repository"),
    "no name": ({"repo_id": "org/../x"}, "invalid name of a repository"),
    "the Hub breaks down": ({}, "the Hub answered 500"),
}


@pytest.mark.parametrize("what", WORDS)
def test_what_the_hub_refuses_is_said_in_words_and_nothing_is_left(hub, run, what, monkeypatch, capfd, caplog):
    given, words = WORDS[what]
    given = {"repo_id": NAME, **given}
    match what:
        case "no token":
            monkeypatch.setattr("hf_causal_video.hub.push.get_token", lambda: None)
        case "a token that reads":
            monkeypatch.setenv("HF_TOKEN", hub.read_token)
        case "a name taken by another model":
            hub.repositories["model", NAME] = foreign(NAME)
        case "a name taken, unseen":
            hub.repositories["model", NAME] = foreign(NAME, hidden=True)
        case "public where private is asked":
            hub.repositories["model", NAME] = foreign(NAME)
        case "no network":
            monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        case "offline":
            monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        case "the Hub breaks down":
            hub.broken.add("commit")
    before = {key: len(repository.commits) for key, repository in hub.repositories.items()}
    with pytest.raises(CausalVideoError, match=words) as refused:
        push_checkpoint(run, **given)
    assert {key: len(repository.commits) for key, repository in hub.repositories.items()} == before
    assert_silent_about(hub, refused, capfd, caplog)
    assert "hf_wrongTokenOfAStranger" not in str(refused.value)


def test_a_repository_that_could_not_be_taken_back_is_named_and_filled_by_the_next_push(hub, run):
    hub.broken |= {"commit", "delete"}
    with pytest.raises(CausalVideoError, match="the empty repository may still be there"):
        push_checkpoint(run, NAME)
    hub.broken.clear()
    push_checkpoint(run, NAME)
    assert "model.safetensors" in hub.repositories["model", NAME].files


def test_a_push_that_is_interrupted_leaves_nothing_and_the_next_one_is_whole(hub, run, monkeypatch):
    def interrupt(*_: object, **__: object):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("huggingface_hub.HfApi.create_commit", interrupt)
        push_checkpoint(run, NAME)
    assert not hub.repositories
    sizes = push_checkpoint(run, NAME).files
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("huggingface_hub.HfApi.create_commit", interrupt)
        push_checkpoint(run, NAME)
    assert hub.repositories["model", NAME].files.keys() - {".gitattributes"} == sizes.keys(), "what was there stays"


def test_the_command_prints_the_commit_or_one_line_of_what_is_wrong(hub, run, capsys):
    assert main(["push", str(run), NAME, "--private"]) == 0
    assert f"{hub.url}/{NAME}/commit/" in capsys.readouterr().out and hub.repositories["model", NAME].private
    assert main(["push", str(run), "google/x"]) == 2
    said = capsys.readouterr()
    assert said.err.endswith("of google who may write.\n") and "push: google/ is not yours" in said.err
    assert "Traceback" not in said.err
