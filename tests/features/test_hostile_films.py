"""Films as they come: cut off, empty, mislabelled, silent or blind, turned, odd, and with a thousand bytes changed.

Either frames of one shape at increasing seconds, or our error; never another exception, and never the end of the
process: the damaged ones are decoded in a child, so that a codec that crashed would be a failure and not the end.
"""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import hf_causal_video.pipelines.question_answering as pipelines
from hf_causal_video import TranSTRConfig, TranSTRForVideoQuestionAnswering, VideoQAProcessor
from hf_causal_video.cli.main import main
from hf_causal_video.features import FrameEncoder, VideoFeatureExtractor, decode_video
from hf_causal_video.features.store import FeatureStore
from hf_causal_video.utils.errors import CausalVideoError
from hf_causal_video.worlds import tiny_text_config, world_tokenizer
from tests.features.conftest import write_clip
from tests.killing import Countdown, forked

KINDS = {  # of the films that are damaged: ending, and how they are written
    "h264.mp4": {}, "h264.mkv": {}, "h264.ts": {}, "h264.flv": {}, "mpeg4.avi": {"codec": "mpeg4"},
    "vp9.webm": {"codec": "libvpx-vp9"}, "any.gif": {"codec": "gif", "pix_fmt": "rgb8"},
    "mjpeg.mov": {"codec": "mjpeg", "pix_fmt": "yuvj420p"}, "h265.mp4": {"codec": "libx265"},
    "wmv2.wmv": {"codec": "wmv2"},
}  # fmt: skip


def write_sound(path: Path) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_joined(path: Path, sizes: tuple[int, int], start_s: float) -> None:
    """A broadcast that goes on with another one, as one file; the second begins at this second."""
    parts = [path.with_name(f"part{number}.ts") for number in range(2)]
    for number, part in enumerate(parts):
        times = [number * start_s + frame / 8 for frame in range(16)]
        write_clip(part, frames=16, size=(sizes[number], 48), times=times)
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    for part in parts:
        part.unlink()


def cut(path: Path, share: float) -> None:
    whole = write_clip(path, frames=40, size=(128, 96), noise=True).read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])


FILMS = {  # how each is written, and what is said of it; None: it is a film
    "plain.mp4": (lambda p: write_clip(p), None),
    "really a matroska.mp4": (lambda p: shutil.move(write_clip(p.with_suffix(".mkv")), p), None),
    "one frame.mkv": (lambda p: write_clip(p, frames=1), None),
    "variable rate.mkv": (lambda p: write_clip(p, frames=6, times=[0, 0.1, 0.9, 1.4, 2.2, 3.0]), None),
    "odd.mkv": (lambda p: write_clip(p, size=(49, 37), codec="ffv1", pix_fmt="yuv444p"), None),
    "a line.mp4": (lambda p: write_clip(p, size=(900, 2), pix_fmt="yuv444p"), None),
    "a dot.mp4": (lambda p: write_clip(p, size=(1, 1), pix_fmt="yuv444p"), None),
    "two films.ts": (lambda p: write_joined(p, (64, 64), 2.0), None),
    "two sizes.ts": (lambda p: write_joined(p, (64, 96), 2.0), "changes the size of its picture: found 64 x 48"),
    "two clocks.ts": (lambda p: write_joined(p, (64, 64), 0.0), "the clock of two clocks.ts starts again"),
    "cut early.mp4": (lambda p: cut(p, 0.5), "is not a video"),
    "cut.mkv": (lambda p: cut(p, 0.5), "does not hold the frames asked for"),
    "a start.mkv": (lambda p: cut(p, 0.01), "is not a video|has no frames|does not hold"),
    "empty.mp4": (lambda p: p.write_bytes(b""), "an empty file"),
    "words.mp4": (lambda p: p.write_bytes(b"no film at all\n" * 99), "is not a video"),
    "zeros.avi": (lambda p: p.write_bytes(bytes(4096)), "is not a video"),
    "sound.mp4": (write_sound, "has no picture"),
}  # fmt: skip
SHORT = "one frame.mkv"


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    for name, (write, _) in FILMS.items():
        write(folder / name)
    return folder


@pytest.fixture(scope="module")
def extractor(save_network) -> VideoFeatureExtractor:
    return VideoFeatureExtractor(FrameEncoder(save_network("backbone", "vit")), sampling="uniform-3")


@pytest.fixture(scope="module")
def checkpoint(extractor, tmp_path_factory) -> Path:
    """A question model that reads what the extractor gives."""
    folder, tokenizer = tmp_path_factory.mktemp("asked"), world_tokenizer()
    torch.manual_seed(0)
    config = TranSTRConfig(
        text_config=tiny_text_config(len(tokenizer), 16, 1).to_dict(), hidden_size=16, num_attention_heads=2,
        intermediate_size=16, frame_feature_dim=32, num_frames_kept=2, num_objects_kept=0,
        feature_provenance=extractor.provenance.to_dict(),
    )  # fmt: skip
    TranSTRForVideoQuestionAnswering(config).save_pretrained(folder)
    VideoQAProcessor(tokenizer).save_pretrained(folder)
    return folder


def check(path: Path, sampling: str, count: int | None) -> bool:
    """Frames as promised, or our error; say which."""
    try:
        video = decode_video(path, sampling)
    except CausalVideoError as error:
        assert error.what and str(error.found) and str(error.expected) and error.fix
        return False
    shapes = {frame.shape for frame in video.frames}
    assert len(video.frames) == len(video.timestamps_s) and count in (None, len(video.frames))
    assert shapes == {(video.size[1], video.size[0], 3)} and {frame.dtype for frame in video.frames} == {
        np.dtype("u1")
    }
    assert np.isfinite(video.timestamps_s).all() and (np.diff(video.timestamps_s) > 0).all()
    assert video.timestamps_s[0] >= 0 and 0 < video.duration_s < np.inf
    return True


@pytest.mark.parametrize("name", FILMS)
def test_every_film_gives_frames_or_says_why_not(films, extractor, name):
    expected = FILMS[name][1]
    count = 1 if name == SHORT else 3
    assert check(films / name, "uniform-3", 3) == (expected is None and count == 3)
    if expected is None:
        row, frames = extractor(films / name)
        assert row.frame_features.shape == (count, 32) and row.frame_features.isfinite().all()
        assert len(frames) == count
    else:
        with pytest.raises(CausalVideoError, match=expected):
            extractor(films / name)


def test_the_extract_command_takes_what_it_can_names_the_rest_and_ends_with_1(films, save_network, tmp_path, capsys):
    command = ["extract", str(films), "--frame-model", save_network("backbone", "vit"), "--sampling", "uniform-3"]
    assert main([*command, "--output", str(tmp_path / "set"), "--no-progress"]) == 1
    said, good = capsys.readouterr(), {name for name, (_, words) in FILMS.items() if words is None}
    bad = FILMS.keys() - good
    assert f"{len(good)} videos written, 0 kept, {len(bad)} failed" in said.out
    assert all(f"failed: {Path(name).stem}: " in said.out for name in bad) and "Traceback" not in said.err
    store = FeatureStore.open(tmp_path / "set")
    assert set(store.video_ids) == {Path(name).stem for name in good}
    assert all(len(row.frame_features) == (1 if row.video_id == Path(SHORT).stem else 3) for row in store)
    assert "note: one frame has 1 of the 3 frames" in said.out
    listed = json.loads((tmp_path / "set" / "failed.json").read_text())
    assert {entry["video_id"] for entry in listed} == {Path(name).stem for name in bad}
    command[1] = str(films / "plain.mp4")
    assert main([*command, "--output", str(tmp_path / "good"), "--no-progress"]) == 0
    command[1] = str(films / "empty.mp4")
    assert main([*command, "--output", str(tmp_path / "none"), "--no-progress"]) == 2


def test_the_answer_command_answers_or_says_why_not_in_one_line(films, checkpoint, capsys, monkeypatch):
    qa = pipelines.load_pipeline(checkpoint)
    monkeypatch.setattr(pipelines, "load_pipeline", lambda *_, **__: qa)
    for name, (_, expected) in FILMS.items():
        code = main(["answer", str(checkpoint), str(films / name), "who is doing jump", "--choices", "star", "ring"])
        said = capsys.readouterr()
        assert code == (0 if expected is None else 2), f"{name}: {said.err}"
        if expected is not None:
            assert said.err.startswith("hf-causal-video answer: ") and ". Fix: " in said.err and not said.out
            assert said.err.count("\n") == 1, said.err


def test_a_name_that_is_no_text_is_refused_before_anything_is_decoded(tmp_path, capsys):
    import os

    odd = os.fsencode(tmp_path) + b"/\xff.mp4"
    with open(odd, "wb"):
        pass
    assert main(["extract", str(tmp_path), "--frame-model", "org/none", "--output", str(tmp_path / "set")]) == 2
    assert "not text" in capsys.readouterr().err


def damage(data: bytes, seed: int) -> bytes:
    """A thousand bytes at random: anywhere, or in every other ten within four thousand, so that the rest is whole."""
    rng, spoilt = random.Random(seed), bytearray(data)
    start, end = 0, len(data)
    if seed // len(KINDS) % 2:
        start = rng.randrange(max(1, end - 4000))
        end = min(end, start + 4000)
    for _ in range(1000):
        spoilt[rng.randrange(start, end)] = rng.randrange(256)
    return bytes(spoilt)


def test_a_hundred_films_with_a_thousand_bytes_changed(tmp_path):
    """Seeds 0 to 99 over ten kinds of file; in a child, which tells the film that ended it."""
    written = {name: write_clip(tmp_path / name, noise=True, size=(128, 96), **how) for name, how in KINDS.items()}
    sources = {name: path.read_bytes() for name, path in written.items()}
    film, good, bad = Countdown(), Countdown(), Countdown()

    def decode_all() -> None:
        for seed in range(100):
            film.tick()
            name = list(KINDS)[seed % len(KINDS)]
            path = tmp_path / f"spoilt{Path(name).suffix}"
            path.write_bytes(damage(sources[name], seed))
            for sampling, count in (("uniform-4", 4), ("fps-2", None)):
                (good if check(path, sampling, count) else bad).tick()

    code = forked(decode_all)
    assert code == 0, f"exit code {code} at film {film.count - 1}"
    assert film.count == 100 and good.count + bad.count == 200 and min(good.count, bad.count) > 20, good.count
