"""Laws of extraction: resumable to the byte, never stopped by a bad clip, frames and objects of the same instants."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from hf_causal_video.cli.extract import Options, run
from hf_causal_video.cli.options import parse_options
from hf_causal_video.features import FrameEncoder, ObjectEncoder, VideoFeatureExtractor, decode_video, extract_folder
from hf_causal_video.features.extract import find_videos
from hf_causal_video.features.store import FeatureStore, Provenance
from hf_causal_video.features.store.writer import claim_folder
from hf_causal_video.utils.errors import CausalVideoError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def clips(tmp_path_factory, make_clip) -> Path:
    """Nine clips, of which one is cut off, one is empty and one has fewer frames than are looked at."""
    folder = tmp_path_factory.mktemp("clips")
    (folder / "deep").mkdir()
    for number in range(6):
        name = f"deep/clip{number}.mkv" if number == 3 else f"clip{number}.mp4"
        make_clip(folder / name, frames=16 + 3 * number, noise=True)
    make_clip(folder / "clip2short.mp4", frames=3)
    whole = make_clip(folder / "clip4cut.mkv", frames=40, size=(128, 96), noise=True)
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (folder / "clip9empty.mp4").write_bytes(b"")
    (folder / "notes.txt").write_text("not a clip")
    return folder


@pytest.fixture(scope="module")
def networks(save_network) -> dict:
    return {
        "frame_model": save_network("backbone", "vit"),
        "object_model": save_network("detector", "yolos"),
        "num_objects": 4,
        "sampling": "uniform-8",
        "progress": False,
    }


GOOD = ["clip0", "clip1", "clip2", "clip2short", "clip3", "clip4", "clip5"]


def contents(folder: Path) -> dict:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_folder_becomes_a_feature_set_and_bad_clips_are_listed(clips, networks, tmp_path):
    report = extract_folder(clips, tmp_path, **networks)
    good = GOOD
    assert report.written == good and not report.kept
    failed = {entry["video_id"]: entry["reason"] for entry in json.loads((tmp_path / "failed.json").read_text())}
    assert failed == report.failed and set(failed) == {"clip4cut", "clip9empty"}
    assert "clip4cut.mkv does not hold" in failed["clip4cut"] and "an empty file" in failed["clip9empty"]
    store = FeatureStore.open(tmp_path)
    assert store.video_ids == good
    card = store.provenance
    assert (card.frame_layer, card.frame_dim, card.object_dim, card.num_objects) == ("pooled", 32, 32, 4)
    assert card.sampling == "uniform-8" and card.frame_revision.startswith("sha256-")
    assert "note: clip2short has 3 of the 8 frames that are looked at" in str(report)
    assert store["clip2short"].frame_features.shape == (3, 32)
    assert len(set(store["clip2short"].timestamps_s.tolist())) == 3
    assert "7 videos written" in str(report) and "failed: clip9empty" in str(report)
    assert not [path for path in tmp_path.rglob("*.part")]


def test_frames_and_objects_show_the_same_instants(clips, networks, tmp_path):
    extract_folder([clips / "clip5.mp4"], tmp_path, **networks)
    row = FeatureStore.open(tmp_path)["clip5"]
    decoded = decode_video(clips / "clip5.mp4", "uniform-8")
    assert torch.equal(row.timestamps_s, torch.from_numpy(decoded.timestamps_s))
    frames = FrameEncoder(networks["frame_model"])(decoded.frames)
    objects = ObjectEncoder(networks["object_model"], 4)(decoded.frames)
    torch.testing.assert_close(row.frame_features, frames.half(), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(row.object_boxes, objects["object_boxes"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(row.object_scores, objects["object_scores"], atol=1e-4, rtol=1e-4)


def test_a_second_run_changes_nothing(clips, networks, tmp_path):
    extract_folder(clips, tmp_path, **networks)
    before = contents(tmp_path)
    report = extract_folder(clips, tmp_path, **networks)
    assert not report.written and len(report.kept) == 7 and len(report.failed) == 2
    assert contents(tmp_path) == before


def test_other_settings_do_not_mix_into_a_set(clips, networks, tmp_path):
    extract_folder([clips / "clip0.mp4"], tmp_path, **networks)
    with pytest.raises(CausalVideoError, match="sampling 'uniform-8'.*sampling 'uniform-4'"):
        extract_folder(clips, tmp_path, **{**networks, "sampling": "uniform-4"})


# A run that stops at the clips named by its second argument and waits to be killed, however slow the machine. The
# processes of a launcher have sessions of their own, so that each ends itself when its launcher is gone.
STOPPING_RUN = """
import json, os, signal, sys, time
from pathlib import Path
from hf_causal_video.features import extract_folder, extractor
decode, parent = extractor.decode_video, os.getppid()
def until_killed(path, *args, **options):
    while Path(path).stem in sys.argv[2].split(","):
        time.sleep(0.1)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
    return decode(path, *args, **options)
extractor.decode_video = until_killed
extract_folder(**json.loads(sys.argv[1]))
"""


def environment() -> dict[str, str]:
    paths = os.pathsep.join(path for path in [str(ROOT), *sys.path] if path)
    return {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": paths}


def kill_when(condition, command: list[str]) -> None:
    """Start a command with all its children, and end them with SIGKILL as soon as the condition holds."""
    child = subprocess.Popen(command, env=environment(), start_new_session=True)
    deadline = time.monotonic() + 600  # for a run that hangs
    try:
        while not condition():
            assert time.monotonic() < deadline and child.poll() is None
            time.sleep(0.01)
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def test_a_killed_extraction_resumes_to_the_same_bytes(clips, networks, tmp_path):
    """SIGKILL in the second shard; whole shards stay, the rest is made, nothing is left over."""
    networks = {**networks, "batch_size": 8}  # the frames of one clip: clips do not wait for each other
    extract_folder(clips, tmp_path / "whole", rows_per_shard=2, **networks)
    killed = tmp_path / "killed"
    options = {"videos": str(clips), "output": str(killed), "rows_per_shard": 2, **networks}
    shards = killed / "features"

    def in_the_middle() -> bool:
        return (shards / "train-00000.parquet").exists() and any(shards.glob(".train-00001.parquet.*.part"))

    # the second row of the second shard: this shard stays begun until the run is killed
    kill_when(in_the_middle, [sys.executable, "-c", STOPPING_RUN, json.dumps(options), "clip2short"])
    assert [path.name for path in shards.glob("*.parquet")] == ["train-00000.parquet"]
    assert FeatureStore.open(killed).video_ids == ["clip0", "clip1"]  # usable as it is
    assert not (killed / ".parts").exists(), "one process writes a row once"
    report = extract_folder(clips, killed, rows_per_shard=2, **networks)
    assert report.kept == GOOD[:2] and report.written == GOOD[2:]
    assert contents(killed) == contents(tmp_path / "whole")


@pytest.mark.slow
def test_two_processes_killed_and_started_again_give_the_bytes_of_one(clips, networks, tmp_path):
    """Through accelerate's launcher and the script that a person starts; the split falls between clip3 and clip4."""
    networks = {**networks, "batch_size": 8}  # the frames of one clip: clips do not wait for each other
    extract_folder(clips, tmp_path / "whole", rows_per_shard=2, **networks)
    killed = tmp_path / "killed"
    (tmp_path / "stopping.py").write_text(STOPPING_RUN)
    options = {"videos": str(clips), "output": str(killed), "rows_per_shard": 2, **networks}
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]

    def both_have_written() -> bool:
        parts = {path.name for path in (killed / ".parts" / "train").glob("[!.]*.parquet")}
        first = (killed / "features" / "train-00000.parquet").exists() or name_of("clip0") in parts
        return first and bool(parts & {name_of(f"clip{number}") for number in (3, 4, 5)})

    kill_when(both_have_written, [*launch, str(tmp_path / "stopping.py"), json.dumps(options), "clip1,clip5"])
    assert contents(killed) != contents(tmp_path / "whole")
    command = [*launch, str(ROOT / "scripts" / "extract_features.py"), str(clips), "--output", str(killed)]
    command += ["--frame-model", networks["frame_model"], "--object-model", networks["object_model"]]
    command += ["--num-objects", "4", "--sampling", "uniform-8", "--rows-per-shard", "2", "--no-progress"]
    command += ["--batch-size", "8"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=900)
    assert done.returncode == 1, done.stderr[-3000:]  # two clips failed, as said
    assert done.stdout.count("2 failed") == 1, "one process speaks for all"
    assert contents(killed) == contents(tmp_path / "whole")


def name_of(video_id: str) -> str:
    return f"{hashlib.sha256(video_id.encode()).hexdigest()[:32]}.parquet"


def test_one_clip_through_the_provenance_equals_its_row(clips, networks, tmp_path):
    extract_folder([clips / "clip1.mp4"], tmp_path, **networks)
    store = FeatureStore.open(tmp_path)
    extractor = VideoFeatureExtractor.from_provenance(store.provenance.to_dict())
    row, frames = extractor(clips / "clip1.mp4")
    stored = store["clip1"]
    for name in ("timestamps_s", "frame_features", "object_features", "object_boxes", "object_labels"):
        torch.testing.assert_close(getattr(row, name), getattr(stored, name), atol=1e-3, rtol=1e-3)
    assert len(frames) == 8 and frames[0].shape == (48, 64, 3)
    again, _ = extractor(np.stack(frames), timestamps_s=row.timestamps_s)
    torch.testing.assert_close(again.frame_features, row.frame_features)
    at, _ = extractor(clips / "clip1.mp4", timestamps_s=[0.3, 1.2])
    assert at.timestamps_s.tolist() == pytest.approx([0.3, 1.2])
    moved = VideoFeatureExtractor.from_provenance(
        {**store.provenance.to_dict(), "frame_model": "gone/away"}, frame_model=networks["frame_model"]
    )
    assert torch.equal(moved(clips / "clip1.mp4")[0].frame_features, row.frame_features)
    with pytest.raises(CausalVideoError, match="without their times"):
        extractor(frames)
    with pytest.raises(CausalVideoError, match="frames of a clip: found float64"):
        extractor([np.zeros((4, 4, 3))], timestamps_s=[0.0])


def test_features_that_are_no_pixels_have_no_extractor():
    card = Provenance("org/text", "abc", "captions, mean", 8, sampling="captions-fps-1")
    with pytest.raises(CausalVideoError, match="not extracted from frames"):
        VideoFeatureExtractor.from_provenance(card)


def test_files_are_found_once_and_in_order(tmp_path):
    with pytest.raises(CausalVideoError, match="no videos"):
        find_videos(tmp_path)
    for name in ("b.mp4", "a.MKV", "c.txt"):
        (tmp_path / name).touch()
    assert list(find_videos(tmp_path)) == ["a", "b"]
    (tmp_path / "b.gif").touch()
    with pytest.raises(CausalVideoError, match="'b' occurs twice.*b.gif and .*b.mp4"):
        find_videos(tmp_path)
    with pytest.raises(CausalVideoError, match="no videos.*nothing.mp4"):
        find_videos(["nothing.mp4"])


def test_linked_folders_are_followed_and_hidden_files_left_out(tmp_path, caplog):
    """Without loops, each file once, under its own name; and both are said."""
    root, elsewhere = tmp_path / "videos", tmp_path / "elsewhere"
    for name in ("a.mp4", "._a.mp4", "sub/b.mp4", ".ipynb_checkpoints/a.mp4", "sub/.trash/deep/c.mp4"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    elsewhere.mkdir()
    (elsewhere / "d.mp4").touch()
    (root / "gone.mp4").symlink_to(tmp_path / "nothing.mp4")
    (root / "aaa").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(root)
    (elsewhere / "up").symlink_to(tmp_path)
    (root / "sub" / "itself").symlink_to(root / "sub")
    (root / "sub" / "a.mp4").symlink_to(root / "a.mp4")
    with caplog.at_level("WARNING"):
        found = find_videos(root)
    assert list(found) == ["a", "b", "d"] and found["d"] == root / "aaa" / "d.mp4"
    assert found["a"].resolve() == root / "a.mp4"
    said = caplog.text
    assert "3 hidden, left out: ._a.mp4, .ipynb_checkpoints/a.mp4, sub/.trash/deep/c.mp4" in said
    assert "linked folders, followed: aaa" in said and "1 links to nothing, left out: gone.mp4" in said


def test_a_second_run_into_one_set_is_refused_and_told_of_the_first(clips, networks, tmp_path):
    with claim_folder(tmp_path), pytest.raises(CausalVideoError, match=f"another run.*found process {os.getpid()} on"):
        extract_folder([clips / "clip0.mp4"], tmp_path, **networks)
    assert not list(tmp_path.iterdir())
    (tmp_path / ".claim").write_text("left by a kill")
    extract_folder([clips / "clip0.mp4"], tmp_path, **networks)
    assert len(FeatureStore.open(tmp_path)) == 1 and not (tmp_path / ".claim").exists()


@pytest.mark.parametrize("call", ["write_table", "close"])
def test_a_write_that_fails_leaves_no_temporary_file(clips, networks, tmp_path, monkeypatch, call):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, call, full)
    with pytest.raises(OSError, match="No space left"):
        extract_folder([clips / "clip0.mp4"], tmp_path, **networks)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} <= {"provenance.json", "failed.json"}


def test_the_command_teaches_and_runs(clips, networks, tmp_path, capsys):
    command = [str(clips / "clip0.mp4"), str(clips / "clip1.mp4"), "--frame-model", networks["frame_model"]]
    command += ["--sampling", "fps-2", "--output", str(tmp_path / "set"), "--split", "test", "--no-progress"]
    run(parse_options(Options, command))
    assert "2 videos written" in capsys.readouterr().out
    store = FeatureStore.open(tmp_path / "set")
    assert len(store["clip0"].timestamps_s) == 4 and store["clip0"].object_mask is None
    with pytest.raises(CausalVideoError, match="no video could be read"):
        command[:2] = [str(clips / "clip9empty.mp4")]
        run(parse_options(Options, [*command, "--output", str(tmp_path / "none")]))


def test_real_clips_of_every_kind(shared, networks, tmp_path):
    videos = [shared / "data/videos" / name for name in ("book.mkv", "help.mkv", "person-bicycle-car-detection.gif")]
    report = extract_folder(videos, tmp_path, **networks)
    assert len(report.written) == 3 and not report.failed
    for row in FeatureStore.open(tmp_path):
        assert row.frame_features.shape == (8, 32) and row.object_features.shape == (8, 4, 32)
