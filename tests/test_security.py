"""What must never happen, whoever wrote the file, the name or the question: laws of the whole package.

No pickle runs, no code of a repository runs, nothing is read or written outside the folder that was named, and a film
is one file. Pages and the app: test_security_pages.py; tokens: test_security_tokens.py.
"""

import ast
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel

from hf_causal_video.cli.main import main
from hf_causal_video.features import decode_video
from hf_causal_video.features.build import build_feature_set
from hf_causal_video.features.extract import find_videos
from hf_causal_video.features.legacy_hdf5 import import_app_mot
from hf_causal_video.features.store import FeatureStore, Provenance, VideoFeatures
from hf_causal_video.features.store.card import merge_cards
from hf_causal_video.features.store.provenance import PROVENANCE_FILE
from hf_causal_video.hub import results
from hf_causal_video.hub.convert.command import command as convert
from hf_causal_video.models.ivrd import IVRDConfig, IVRDForVideoRelationDetection
from hf_causal_video.models.ivrd.processing_video_relation import VideoRelationProcessor
from hf_causal_video.tracks.track_set import CARD, TrackSet, write_tracks
from hf_causal_video.tracks.tracker import TrackedClip
from hf_causal_video.training import main as train
from hf_causal_video.training.checkpoints import claim_output_dir
from hf_causal_video.training.recipe import ConfigParser
from hf_causal_video.utils.errors import CausalVideoError
from tests.features.conftest import build_backbone, write_clip
from tests.pipelines.test_question_answering import checkpoint
from tests.training.conftest import write_recipe

__all__ = ["checkpoint"]  # fixture
ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(path for folder in ("hf_causal_video", "scripts") for path in (ROOT / folder).rglob("*.py"))


# the sources


def dangers(source: str) -> list[str]:
    """Calls in a source that open pickles, run text, run a shell, or run what a repository brings."""
    tree, found = ast.parse(source), []
    safe = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and "SafeLoader" in ast.dump(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom | ast.Import):
            names = [alias.name for alias in node.names]
            module = node.module if isinstance(node, ast.ImportFrom) else None
            risky = {"dill", "cloudpickle", "joblib", "marshal", "shelve"} & {module, *names}
            if risky or (module == "pickle" and names != ["UnpicklingError"]):
                found.append(ast.unparse(node))
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("pickle", "_pickle"):
            found += [] if node.attr == "UnpicklingError" else [ast.unparse(node)]
        if not isinstance(node, ast.Call):
            continue
        name, given = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
        bad = name in {
            "eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.unsafe_load", "yaml.full_load",
            "yaml.load_all", "torch.hub.load", "shutil.unpack_archive", "tempfile.mktemp",
        }  # fmt: skip
        bad |= name == "torch.load" and given.get("weights_only") != "True"
        bad |= name == "yaml.load" and given.get("Loader") not in safe | {"yaml.SafeLoader", "yaml.CSafeLoader"}
        bad |= given.get("allow_pickle", "False") != "False" or given.get("shell", "False") != "False"
        bad |= given.get("trust_remote_code", "False") != "False" or name.endswith(("extractall", ".read_pickle"))
        bad |= name.startswith("Auto") and name.endswith(".from_pretrained") and "trust_remote_code" not in given
        found += [ast.unparse(node)] if bad else []
    return found


@pytest.mark.parametrize(
    "line",
    [
        "import pickle\npickle.load(f)", "from pickle import loads", "import dill", "torch.load(p)",
        "torch.load(p, weights_only=False)", "np.load(p, allow_pickle=True)", "yaml.load(t, Loader=yaml.Loader)",
        "yaml.load(t, yaml.SafeLoader)", "eval(t)", "exec(t)", "subprocess.run(c, shell=True)", "os.system(c)",
        "AutoModel.from_pretrained(n)", "AutoModel.from_pretrained(n, trust_remote_code=True)", "z.extractall(d)",
    ],
)  # fmt: skip
def test_the_law_of_the_sources_sees_each_danger(line):
    assert dangers(line)


def test_no_source_opens_pickles_runs_text_or_runs_what_a_repository_brings():
    own = {ROOT / "scripts" / "benchmarks" / "relations_world.py"}  # opens the model that it trained itself
    found = {str(path): lines for path in SOURCES if path not in own and (lines := dangers(path.read_text()))}
    assert not found and len(SOURCES) > 150


# pickles, YAML tags, repository code


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def malice(tmp_path):
    """Files that make a folder if anything in them runs; after the test, nothing has run."""
    marker, folder = tmp_path / "it ran", tmp_path / "malice"
    folder.mkdir()
    payload = Payload(marker)
    torch.save({"weight": payload}, folder / "evil.pt")
    (folder / "evil.bin").write_bytes(pickle.dumps(payload))
    np.save(folder / "evil.npy", np.array([payload], dtype=object), allow_pickle=True)
    (folder / "evil.yaml").write_text(f"method: !!python/object/apply:os.mkdir [{str(marker)!r}]\n")
    (folder / "evil.py").write_text(f"import os\nos.mkdir({str(marker)!r})\nclass Evil: pass\n")
    yield folder
    assert not marker.exists()


def test_the_payloads_would_run(malice, tmp_path):
    marker = tmp_path / "it ran"
    for run in (
        lambda: pickle.loads((malice / "evil.bin").read_bytes()),
        lambda: torch.load(malice / "evil.pt", weights_only=False),
        lambda: np.load(malice / "evil.npy", allow_pickle=True),
        lambda: __import__("yaml").unsafe_load((malice / "evil.yaml").read_text()),
    ):
        run()
        marker.rmdir()


@pytest.mark.parametrize("name", ["evil.pt", "evil.bin", "evil.npy"])
def test_conversion_and_import_refuse_what_is_more_than_tensors(malice, tmp_path, name, capsys):
    given = [str(malice / name), "--method", "transtr", "--variant", "next", "--output", str(tmp_path / "converted")]
    assert convert(given) == 2 and not (tmp_path / "converted").exists()
    card = {"frame_model": "org/vit", "frame_revision": "a", "frame_layer": "b", "frame_dim": 4, "sampling": "c"}
    (tmp_path / "card.json").write_text(json.dumps(card))
    for layout, files in (("app-mot", [name]), ("appearance-motion", [name, name]), ("transtr", [name, name])):
        given = ["import", layout, *(str(malice / file) for file in files), "--durations", "1"]
        assert main([*given, "--provenance", str(tmp_path / "card.json"), "--output", str(tmp_path / "set")]) == 2
        assert main([*given, "--provenance", str(malice / name), "--output", str(tmp_path / "set")]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["evil.pt", "evil.bin", "evil.npy"])
def test_feature_and_track_sets_refuse_pickles(malice, tmp_path, name):
    for target in (PROVENANCE_FILE, "features/train-00000.parquet"):
        folder = tmp_path / target.replace("/", "-")
        build_feature_set({"a": 0}, make_row, folder, PROVENANCE, progress=False)
        shutil.copy(malice / name, folder / target)
        with pytest.raises(CausalVideoError, match="cannot be read|Parquet"):
            FeatureStore.open(folder)
    for target, words in (("tracks/a.safetensors", "a.safetensors cannot be read"), (CARD, "tracks.json cannot be")):
        folder = write_track_set(tmp_path / target.replace("/", "-"))
        shutil.copy(malice / name, folder / target)
        with pytest.raises(CausalVideoError, match=words):
            TrackSet.open(folder)["a"]


def test_recipes_and_cards_refuse_tags(malice, tmp_path):
    with pytest.raises(CausalVideoError, match="evil.yaml cannot be read"):
        ConfigParser().parse(["--config", str(malice / "evil.yaml"), "--output_dir", str(tmp_path / "out")])
    shutil.copy(malice / "evil.yaml", tmp_path / "recipe.yaml")
    with pytest.raises(CausalVideoError, match="recipe.yaml cannot be read"):
        results.read_recipe(tmp_path)
    with pytest.raises(CausalVideoError, match="recipe.yaml cannot be read"):
        claim_output_dir(tmp_path, {}, resume=True)
    with pytest.raises(CausalVideoError, match="the head of a card"):
        merge_cards("---\nlicense: mit\n---\n", f"---\n{(malice / 'evil.yaml').read_text()}---\nhello\n")


def spoil(folder: Path, malice: Path, how: str) -> None:
    """Turn a checkpoint into one of a stranger."""
    config = json.loads((folder / "config.json").read_text())
    if how == "code":
        config |= {"model_type": "evil", "auto_map": {f"Auto{part}": "evil.Evil" for part in ("Config", "Model")}}
        shutil.copy(malice / "evil.py", folder)
    elif how == "shards":
        shutil.copy(malice / "evil.pt", folder / "pytorch_model-00001-of-00001.bin")
        index = {"metadata": {}, "weight_map": {"classifier.bias": "pytorch_model-00001-of-00001.bin"}}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    elif how == "adapters":
        shutil.copy(malice / "evil.pt", folder / "adapter_model.bin")
        about = {"peft_type": "LORA", "base_model_name_or_path": "org/base", "target_modules": ["query"], "r": 2}
        (folder / "adapter_config.json").write_text(json.dumps(about))
    else:
        shutil.copy(malice / how, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize("how", ["evil.pt", "evil.bin", "shards", "adapters", "code"])
def test_no_verb_opens_pickled_weights_or_runs_the_code_of_a_checkpoint(malice, checkpoint, tmp_path, how, capsys):
    folder = Path(shutil.copytree(checkpoint, tmp_path / "theirs"))
    spoil(folder, malice, how)
    clip, path = str(write_clip(tmp_path / "c.mp4")), str(folder)
    verbs = {
        "answer": [path, clip, "who is doing jump", "--choices", "star", "ring"], "select": [path, clip, "why"],
        "evaluate": [path, "--dataset", "world", "--output", str(tmp_path / "out")], "relations": [path, clip],
        "stress": [path, "--dataset", "world"], "push": [path, "org/x", "--dry-run"], "app": [path],
    }  # fmt: skip
    for verb, given in verbs.items():
        assert main([verb, *given]) == 2, verb
        said = capsys.readouterr()
        assert "Traceback" not in said.err and "[y/N]" not in said.out + said.err, "nobody is asked to run it"
    if how != "code":
        with pytest.raises((OSError, ValueError)):
            AutoModel.from_pretrained(folder)


@pytest.mark.parametrize("how", ["evil.pt", "evil.bin", "shards", "code"])
def test_no_verb_opens_a_relation_checkpoint_of_another_form(malice, tmp_path, how, capsys):
    folder, processor = tmp_path / "theirs", VideoRelationProcessor(["dog", "cat"], ["chase", "watch"])
    config = IVRDConfig(num_object_classes=2, num_predicates=2, hidden_size=8)
    for part in (IVRDForVideoRelationDetection(config), processor):
        part.save_pretrained(folder)
    spoil(folder, malice, how)
    clip, path = str(write_clip(tmp_path / "c.mp4")), str(folder)
    verbs = {
        "relations": [path, clip],
        "evaluate": [path, "--dataset", "world", "--output", str(tmp_path / "out")],
        "push": [path, "org/x", "--dry-run"],
    }
    for verb, given in verbs.items():
        assert main([verb, *given]) == 2, verb
        said = capsys.readouterr()
        assert "Traceback" not in said.err and "[y/N]" not in said.out + said.err
    if how != "code":
        with pytest.raises((OSError, ValueError)):
            AutoModel.from_pretrained(folder)


def test_extraction_refuses_a_pickled_network(malice, tmp_path, capsys):
    for part in build_backbone("vit"):
        part.save_pretrained(tmp_path / "net")
    (tmp_path / "net" / "model.safetensors").unlink()
    shutil.copy(malice / "evil.pt", tmp_path / "net" / "pytorch_model.bin")
    clip = write_clip(tmp_path / "c.mp4")
    given = ["extract", str(clip), "--frame-model", str(tmp_path / "net"), "--output", str(tmp_path / "set")]
    assert main(given) == 2 and "hold more than tensors" in capsys.readouterr().err


def test_a_resumed_training_runs_no_pickle_of_its_checkpoint(malice, tmp_path):
    recipe = write_recipe(tmp_path / "tiny.yaml", num_train_epochs=1, test_splits=[])
    given = ["--config", str(recipe), "--output_dir", str(tmp_path / "run"), "--save_strategy", "steps"]
    given += ["--eval_strategy", "steps", "--save_steps", "3", "--eval_steps", "3", "--resume"]
    train(given)
    for path in (tmp_path / "run").iterdir():
        if path.is_dir() and path.name != "checkpoint-3":
            shutil.rmtree(path)
        elif path.is_file() and path.name != "recipe.yaml":
            path.unlink()
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        folder = shutil.copytree(tmp_path / "run", tmp_path / name)
        shutil.copy(malice / "evil.pt", folder / "checkpoint-3" / name)
        given[3] = str(folder)
        with pytest.raises(CausalVideoError, match="nothing of them was run"):
            train(given)


# names, paths, files that point elsewhere


PROVENANCE = Provenance("org/vit", "abc", "pooled", 4, sampling="uniform-2")
HOSTILE_IDS = [
    "../../x", "../x", "/tmp/x", "a/b", "a/../../x", "..\\..\\x", "C:\\x", "C:x", "\\\\host\\x", "nul\0l",
    "line\nline",
    "CON", "aux.mp4", "Lpt1", "x" * 300, "\udcff",
]  # fmt: skip


def make_row(video_id: str, _: object = None) -> VideoFeatures:
    return VideoFeatures(video_id, torch.tensor([0.5, 1.5]), torch.ones(2, 4))


def write_track_set(folder: Path) -> Path:
    folder.mkdir()
    (folder / CARD).write_text(json.dumps({"provenance": {}, "feature_dim": 0}))
    write_tracks(folder, "a", TrackedClip([], np.arange(3) / 8, (20, 10)))
    return folder


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_no_video_id_leads_a_feature_set_out_of_its_folder(tmp_path):
    ids = [name for name in HOSTILE_IDS if name.isprintable() or name == "line\nline"]
    build_feature_set(dict.fromkeys(ids), make_row, tmp_path / "a" / "b" / "set", PROVENANCE, progress=False)
    assert FeatureStore.open(tmp_path / "a" / "b" / "set").video_ids == ids
    inside = {"README.md", "failed.json", "provenance.json", "features/train-00000.parquet"}
    assert files_in(tmp_path) == {f"a/b/set/{name}" for name in inside}


@pytest.mark.parametrize("video_id", [*HOSTILE_IDS, ""])
def test_no_video_id_leads_a_track_set_out_of_its_folder(tmp_path, video_id):
    folder = write_track_set(tmp_path / "set")
    before = files_in(tmp_path)
    with pytest.raises(CausalVideoError, match="is not a file name"):
        write_tracks(folder, video_id, TrackedClip([], np.arange(3) / 8, (20, 10)))
    assert files_in(tmp_path) == before
    shutil.copy(folder / "tracks" / "a.safetensors", tmp_path / "x.safetensors")
    with pytest.raises(CausalVideoError, match="not among"):
        TrackSet.open(folder)[video_id]


@pytest.mark.parametrize("split", ["../x", "/x", "a/b", "..", "", "a\0"])
def test_no_split_leads_out_of_the_folder(tmp_path, split):
    with pytest.raises(CausalVideoError, match="invalid split"):
        build_feature_set({"a": 0}, make_row, tmp_path / "set", PROVENANCE, split=split, progress=False)
    assert files_in(tmp_path) <= {f"set/{name}" for name in ("README.md", "provenance.json")}


def test_a_film_is_one_file(tmp_path, monkeypatch):
    """Neither a playlist that calls itself a film nor a name that FFmpeg takes for an address opens another file."""
    secret = write_clip(tmp_path / "secret.ts")
    dash = '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT2S"><Period>'
    dash += '<AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="9"><BaseURL>secret.ts</BaseURL>'
    playlists = {
        "concat.mp4": "ffconcat version 1.0\nfile secret.ts\n",
        "hls.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:4.0,\n{secret}\n#EXT-X-ENDLIST\n",
        "hls.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:4.0,\nsecret.ts\n#EXT-X-ENDLIST\n",
        "dash.mp4": f"{dash}</Representation></AdaptationSet></Period></MPD>",
        "call.sdp": "v=0\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    }
    for name, text in playlists.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    addresses = [
        "concat:secret.ts|secret.ts",
        "subfile,,start,0,end,0,,:secret.ts",
        "secret%d.ts",
        "http://127.0.0.1:9/x",
    ]
    for name in [*playlists, *addresses, "pipe:0", "nul\0.mp4", ""]:
        with pytest.raises(CausalVideoError, match="is not a video"):
            decode_video(name)
    assert len(decode_video("secret.ts", "uniform-2").frames) == 2


def test_an_hdf5_file_may_not_point_into_another(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["feat"] = np.ones((1, 16, 4), np.float32)
    (tmp_path / "raw").write_bytes(bytes(256))
    layout = h5py.VirtualLayout((1, 16, 4), np.float32)
    layout[:] = h5py.VirtualSource(tmp_path / "secret.h5", "feat", (1, 16, 4))
    ways = {
        "link": lambda file: file.__setitem__("feat", h5py.ExternalLink(str(tmp_path / "secret.h5"), "feat")),
        "virtual": lambda file: file.create_virtual_dataset("feat", layout),
        "raw": lambda file: file.create_dataset("feat", (1, 16, 4), "f4", external=[(str(tmp_path / "raw"), 0, 256)]),
        "group": lambda file: file.create_group("feat"),
    }
    for way, make in ways.items():
        with h5py.File(tmp_path / f"{way}.h5", "w") as file:
            file["ids"] = [b"v"]
            make(file)
        with pytest.raises(CausalVideoError, match="not a dataset of this file"):
            import_app_mot(tmp_path / f"{way}.h5", tmp_path / "set", PROVENANCE, 1.0, progress=False)


def test_files_of_one_id_in_two_folders_are_never_mixed_up(tmp_path):
    for name in ("a/x.mp4", "b/x.mp4"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    with pytest.raises(CausalVideoError, match="occurs twice"):
        find_videos(tmp_path)
