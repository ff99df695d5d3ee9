"""What is pushed to a Hub comes back as it went, through the real clients, each step in a process of its own.

The file is its own client: `python test_round_trip.py STEP FOLDER` runs one step below. The HF libraries read their
endpoint when they are imported, so a step never runs inside the pytest process.
"""

import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
QUESTION, CHOICES = "who is doing jump", ["star", "ring", "heart"]
ROWS = {
    "train": [
        {"question_id": "a_0", "video_id": "a", "question": QUESTION, "choices": CHOICES, "answer": 2,
         "spans": [[0, 1.5]]},
        {"question_id": "b_0", "video_id": "b", "question": "wer läuft", "answer_text": "Tür", "duration_s": 4.5},
    ],
    "validation": [{"question_id": "c_0", "video_id": "c", "question": QUESTION, "choices": CHOICES, "answer": 0}],
}  # fmt: skip
BOTH = ("org/features-first", "org/questions-first")


def publish(folder):
    """Push question rows, feature sets, both in one repository, and a model with its processor."""
    import torch
    from datasets import DatasetDict
    from huggingface_hub import HfApi
    from safetensors.torch import save_file

    from hf_causal_video import VideoQAProcessor
    from hf_causal_video.data import questions_dataset
    from hf_causal_video.features.store import FeatureStore
    from hf_causal_video.worlds import world_tokenizer

    _push_questions("org/questions")
    store = FeatureStore.open(_write_features(folder / "set"))
    (folder / "set" / "private-notes.txt").write_text("not a part of the set")
    with pytest.raises(ValueError, match="found features in memory"):
        FeatureStore.from_rows(store.provenance, store).push_to_hub("org/features")
    store.push_to_hub("org/features")
    HfApi().create_tag("org/features", tag="v1", repo_type="dataset")
    FeatureStore.open(_write_features(folder / "later", scale=2.0, rows_per_shard=9)).push_to_hub("org/features")

    store.push_to_hub(BOTH[0])
    _push_questions(BOTH[0])
    store.push_to_hub(BOTH[0])
    splits = DatasetDict({split: questions_dataset(rows) for split, rows in ROWS.items()})
    splits.push_to_hub(BOTH[1], config_name="questions", set_default=True)
    store.push_to_hub(BOTH[1])
    store.push_to_hub("org/secret-features", private=True)
    with pytest.raises(ValueError, match="found public; expected private"):
        store.push_to_hub("org/features", private=True)

    model, processor = _tiny_model(), VideoQAProcessor(world_tokenizer())
    for name, private in (("org/transtr", False), ("org/secret-transtr", True)):
        model.push_to_hub(name, private=private)
        processor.push_to_hub(name)
    clip = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = model(**processor(QUESTION, CHOICES, frame_features=clip)).logits
    save_file({"clip": clip, "logits": logits}, folder / "expected.safetensors")


def read_tables(folder):
    """Read the tables back, and train's own loader reads both of one repository."""
    import numpy as np
    from datasets import load_dataset

    from hf_causal_video.data import questions_dataset
    from hf_causal_video.features.store import FeatureStore
    from hf_causal_video.training.arguments import DataArguments
    from hf_causal_video.training.questions.splits import load_split

    here = FeatureStore.open(folder / "set")
    for name in ("org/questions", *BOTH):
        for split, rows in ROWS.items():
            assert load_dataset(name, "questions", split=split).to_list() == questions_dataset(rows).to_list()
    for name in BOTH:
        _assert_same_store(FeatureStore.open(name), here)
        for split, ids in (("train", ["a", "b"]), ("validation", ["c"])):
            table = load_dataset(name, "features", split=split)
            assert table["video_id"][:] == ids
            for line in table.with_format("numpy", dtype=np.float16, columns=["frame_features", "object_features"]):
                row = here[ids.pop(0)]
                np.testing.assert_array_equal(np.asarray(line["frame_features"]), row.frame_features.numpy())
                np.testing.assert_array_equal(np.asarray(line["object_features"]), row.object_features.numpy())
            items = load_split(DataArguments(dataset=name, features=name), split)
            assert [item["question_id"] for item in items] == [row["question_id"] for row in ROWS[split]]
            assert (items[0]["object_boxes"] == here[items[0]["video_id"]].object_boxes).all()
    assert load_dataset(BOTH[0], split="train").column_names[-1] == "object_labels", "the first table is the default"
    assert load_dataset(BOTH[1], split="train").column_names[-1] == "duration_s"


def read_revisions(folder):
    """A tag and a commit are read as they were; the head holds the later set and nothing of the older one."""
    from huggingface_hub import HfApi

    from hf_causal_video.features.store import FeatureStore
    from hf_causal_video.utils.errors import CausalVideoError

    older, later = FeatureStore.open(folder / "set"), FeatureStore.open(folder / "later")
    commit = HfApi().dataset_info("org/features", revision="v1").sha
    for revision in ("v1", commit):
        _assert_same_store(FeatureStore.open("org/features", revision=revision), older)
    _assert_same_store(FeatureStore.open("org/features"), later)
    with pytest.raises(CausalVideoError, match="revision 'v0'.*Revision Not Found"):
        FeatureStore.open("org/features", revision="v0")


def answer(folder):
    """Load the model by the Auto classes and ask it, with nothing but the package imported."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModel, AutoProcessor, pipeline

    import hf_causal_video
    from hf_causal_video.features.store import VideoFeatures

    expected = load_file(folder / "expected.safetensors")
    model, processor = AutoModel.from_pretrained("org/transtr"), AutoProcessor.from_pretrained("org/transtr")
    assert type(model) is hf_causal_video.TranSTRForVideoQuestionAnswering and not model.training
    with torch.no_grad():
        logits = model(**processor(QUESTION, CHOICES, frame_features=expected["clip"])).logits
    assert torch.equal(logits, expected["logits"])
    clip = VideoFeatures("clip", torch.arange(8) + 0.5, expected["clip"])
    result = pipeline("video-question-answering", model="org/transtr")(
        features=clip, question=QUESTION, choices=CHOICES
    )
    assert result["answer"] == CHOICES[int(expected["logits"].argmax())]
    assert sorted(result["evidence"].scores) == pytest.approx(sorted(expected["logits"].softmax(-1)[0].tolist()))


def read_private(folder):
    """With the token, a private repository is a repository."""
    from transformers import AutoModel

    from hf_causal_video.features.store import FeatureStore

    _assert_same_store(FeatureStore.open("org/secret-features"), FeatureStore.open(folder / "set"))
    assert AutoModel.from_pretrained("org/secret-transtr").config.frame_feature_dim == 6


def stranger(folder):
    """Without a token a private repository is refused, and so is every upload; the words are printed."""
    from datasets import load_dataset
    from huggingface_hub.errors import HfHubHTTPError
    from transformers import AutoModel, AutoProcessor

    from hf_causal_video.features.store import FeatureStore
    from hf_causal_video.utils.errors import CausalVideoError

    store = FeatureStore.open(folder / "set")
    attempts = {
        "open features": lambda: FeatureStore.open("org/secret-features"),
        "load features": lambda: load_dataset("org/secret-features", "features"),
        "load model": lambda: AutoModel.from_pretrained("org/secret-transtr"),
        "load processor": lambda: AutoProcessor.from_pretrained("org/secret-transtr"),
        "push features": lambda: store.push_to_hub("org/features"),
        "push with a wrong token": lambda: store.push_to_hub("org/features", token="hf_wrongTokenOfAStranger"),
    }
    for what, attempt in attempts.items():
        try:
            attempt()
        except (CausalVideoError, HfHubHTTPError, OSError) as error:
            print(f"{what}: {type(error).__name__}: {' '.join(str(error).split())}")
        else:
            raise AssertionError(f"{what} was not refused")


def _push_questions(name):
    from hf_causal_video.data import questions_dataset

    for split, rows in ROWS.items():
        questions_dataset(rows).push_to_hub(name, config_name="questions", split=split)


def _write_features(folder, scale=1.0, rows_per_shard=1):
    import torch

    from hf_causal_video.features.store import FeatureWriter, Provenance, VideoFeatures

    card = Provenance("org/vit", "abc", "pooled", 6, "org/detr", "def", "last", 8, 3, "uniform-4")
    source = torch.Generator().manual_seed(0)
    for split, names in (("train", "ab"), ("validation", "c")):
        with FeatureWriter(folder, card, split=split, rows_per_shard=rows_per_shard) as writer:
            for frames, name in enumerate(names, start=2):
                numbers = [torch.rand(frames, *shape, generator=source) for shape in ((6,), (3, 8), (3, 4), (3,))]
                labels = torch.randint(0, 9, (frames, 3), generator=source, dtype=torch.int32)
                numbers[:2] = [scale * values.half() for values in numbers[:2]]
                writer.add(VideoFeatures(name, torch.arange(frames) + 0.5, *numbers, labels))
    return folder


def _tiny_model():
    import torch

    from hf_causal_video import TranSTRConfig, TranSTRForVideoQuestionAnswering
    from hf_causal_video.worlds import tiny_text_config, world_tokenizer

    torch.manual_seed(0)
    config = TranSTRConfig(
        text_config=tiny_text_config(len(world_tokenizer()), 16, 1).to_dict(), hidden_size=16, num_attention_heads=2,
        intermediate_size=16, frame_feature_dim=6, num_frames_kept=3, num_objects_kept=0,
    )  # fmt: skip
    return TranSTRForVideoQuestionAnswering(config).eval()


def _assert_same_store(there, here):
    assert there.provenance == here.provenance and there.video_ids == here.video_ids
    for ours, theirs in zip(here, there, strict=True):
        for name, tensor in vars(ours).items():
            assert name == "video_id" or (tensor == getattr(theirs, name)).all(), name


def run_steps(hub, folder, *steps, token=None):
    from tests.loopback_hub import run_client

    return run_client(hub, __file__, folder, *steps, token=token)


@pytest.fixture(scope="module")
def hub():
    sys.path.insert(0, str(ROOT))
    from tests.loopback_hub import LoopbackHub

    with LoopbackHub() as hub:
        yield hub


@pytest.fixture(scope="module")
def published(hub, tmp_path_factory):
    """The folder whose contents have been pushed by another process."""
    folder = tmp_path_factory.mktemp("pushed")
    run_steps(hub, folder, "publish", token=hub.token)
    return folder


def test_tables_come_back_as_they_went(hub, published):
    """Question rows and feature sets, alone and in one repository, and by revision; private ones with the token."""
    run_steps(hub, published, "read_tables", "read_revisions", "read_private", token=hub.token)


def test_a_model_answers_the_same_in_a_new_process(hub, published):
    run_steps(hub, published, "answer")


def test_a_stranger_is_refused_in_words_and_nothing_is_written(hub, published):
    before = {key: len(repository.commits) for key, repository in hub.repositories.items()}
    printed = run_steps(hub, published, "stranger")
    lines = {line.split(": ")[0]: line for line in printed.splitlines() if ": " in line}
    assert "CausalVideoError" in lines["open features"] and "make sure you are authenticated" in lines["open features"]
    assert "org/secret-features" in lines["open features"] and "org/secret-features" in lines["load features"]
    for what in ("load model", "load processor"):
        assert "org/secret-transtr" in lines[what] and "private" in lines[what]
    assert "hf_wrongTokenOfAStranger" not in printed
    assert {key: len(repository.commits) for key, repository in hub.repositories.items()} == before


def test_what_lies_on_the_hub_is_whole_and_tells_its_origin(hub, published):
    for name in ("org/features", *BOTH):
        files = hub.repositories["dataset", name].files
        card = files["README.md"].decode()
        assert "provenance.json" in files and "| frame_model | org/vit |" in card and "config_name: features" in card
        assert ("config_name: questions" in card) == (name in BOTH)
    assert len(hub.repositories["dataset", "org/features"].commits) == 3, "made, pushed, pushed: one commit each"
    *_, older, later = hub.repositories["dataset", "org/features"].commits.values()
    shards = {"train-00000", "train-00001", "validation-00000"}
    for files, names in ((older, shards), (later, shards - {"train-00001"})):
        expected = {".gitattributes", "README.md", "provenance.json", *(f"features/{name}.parquet" for name in names)}
        assert files.keys() == expected, "what is no part of the set stays home, stale shards go"
    model_files = hub.repositories["model", "org/transtr"].files.keys()
    assert {"config.json", "model.safetensors", "processor_config.json"} <= model_files
    secret = hub.token.encode()
    assert not any(secret in data for repo in hub.repositories.values() for data in repo.files.values())
    assert hub.repositories["model", "org/transtr"].files["model.safetensors"] in hub.uploads.values()


def test_the_loopback_hub_serves_ranges_and_headers_and_refuses_a_lost_race(hub, published):
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    whole = hub.repositories["model", "org/transtr"].files["model.safetensors"]
    url = f"{hub.url}/org/transtr/resolve/main/model.safetensors"
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Range": "bytes=8-107"})) as reply:
        assert reply.status == 206 and reply.read() == whole[8:108]
        assert reply.headers["X-Repo-Commit"] == hub.repositories["model", "org/transtr"].refs["main"]
        assert reply.headers["Content-Range"] == f"bytes 8-107/{len(whole)}" and reply.headers["ETag"]
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{hub.url}/org/secret-transtr/resolve/main/model.safetensors")
    api = HfApi(endpoint=hub.url, token=hub.token)
    assert api.whoami()["name"] == "me"
    first = next(iter(hub.repositories["dataset", "org/features"].commits))
    late = [CommitOperationAdd("note.txt", b"late")]
    with pytest.raises(HfHubHTTPError, match="412"):
        api.create_commit("org/features", late, commit_message="late", repo_type="dataset", parent_commit=first)


if __name__ == "__main__":
    for step in sys.argv[2:]:
        globals()[step](Path(sys.argv[1]))
