"""Laws of decoding: the frame shown at the stated second, or an error that counts; never a frame twice."""

import struct

import numpy as np
import pytest

from hf_causal_video.features import decode_video
from hf_causal_video.features.decode import sample_instants
from hf_causal_video.utils.errors import CausalVideoError

CLIPS = ["bigbuckbunny.mp4", "walk.mkv", "car-detection.mp4", "store-aisle-detection.gif"]


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi", "ts"])
@pytest.mark.parametrize("sampling", ["uniform-16", "uniform-5", "fps-2", "seconds-0,0.3,3.9", [0.05, 2.51]])
def test_each_instant_shows_its_frame(tmp_path, make_clip, numbers_of, ending, sampling):
    video = decode_video(make_clip(tmp_path / f"clip.{ending}", frames=32, fps=8), sampling)
    instants = sample_instants(sampling, 4.0)
    assert numbers_of(video.frames) == [int(t * 8 + 1e-6) for t in instants]
    np.testing.assert_allclose(video.timestamps_s, instants, atol=1e-6)
    assert video.size == (64, 48) and abs(video.duration_s - 4.0) < 0.13
    assert video.frames[0].dtype == np.uint8 and video.frames[0].shape == (48, 64, 3)


def test_as_many_instants_as_frames_gives_every_frame_once(tmp_path, make_clip, numbers_of):
    assert numbers_of(decode_video(make_clip(tmp_path / "c.mp4"), "uniform-32").frames) == list(range(32))


def test_more_instants_than_frames_is_an_error_that_counts(tmp_path, make_clip):
    with pytest.raises(CausalVideoError, match="found 5 different decodable frames.*expected 16"):
        decode_video(make_clip(tmp_path / "c.mp4", frames=5), "uniform-16")


def test_a_clip_of_one_frame(tmp_path, make_clip, numbers_of):
    assert numbers_of(decode_video(make_clip(tmp_path / "c.mp4", frames=1), "fps-0.1").frames) == [0]


def test_variable_frame_rate_follows_the_clock(tmp_path, make_clip, numbers_of):
    times = [0, 0.1, 0.2, 2.0, 2.1, 3.5]
    clip = make_clip(tmp_path / "c.mkv", frames=6, times=times)
    assert numbers_of(decode_video(clip, "seconds-0.05,0.25,2.05,3.4,3.52").frames) == [0, 2, 3, 4, 5]
    with pytest.raises(CausalVideoError, match="found 2 different"):
        decode_video(clip, "seconds-0.25,1.9,2.05")  # nothing new between 0.2 and 2.0


def test_a_late_first_frame_is_second_zero(tmp_path, make_clip, numbers_of):
    clip = make_clip(tmp_path / "c.mkv", frames=4, times=[5.0, 5.5, 6.0, 6.5])
    assert numbers_of(decode_video(clip, "seconds-0.1,1.6").frames) == [0, 3]


def test_a_stream_without_times_is_counted_by_its_rate(tmp_path, make_clip, numbers_of):
    clip = make_clip(tmp_path / "c.h264", frames=20, fps=25)
    video = decode_video(clip, "uniform-4")
    numbers = numbers_of(video.frames)
    assert len(set(numbers)) == 4 and abs(video.duration_s - 0.8) < 0.05
    assert np.abs(np.array(numbers) - np.array([2.5, 7.5, 12.5, 17.5])).max() <= 1


def test_sound_without_picture_is_refused(tmp_path):
    import av

    with av.open(str(tmp_path / "song.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(CausalVideoError, match="song.wav has no picture.*audio"):
        decode_video(tmp_path / "song.wav")


@pytest.mark.parametrize("content", [b"", b"not a video at all" * 100])
def test_what_is_no_video_is_refused(tmp_path, content):
    (tmp_path / "x.mp4").write_bytes(content)
    with pytest.raises(CausalVideoError, match="x.mp4 is not a video"):
        decode_video(tmp_path / "x.mp4")
    with pytest.raises(CausalVideoError, match="no.mp4 is not a video"):
        decode_video(tmp_path / "no.mp4")


@pytest.mark.parametrize("ending, header", [("mp4", {"movflags": "faststart"}), ("mkv", {})])
@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9])
def test_a_cut_off_file_counts_what_it_still_holds(tmp_path, make_clip, ending, header, keep):
    whole = make_clip(tmp_path / f"whole.{ending}", frames=80, size=(128, 96), noise=True, container=header)
    cut = tmp_path / f"cut.{ending}"
    cut.write_bytes(whole.read_bytes()[: int(keep * whole.stat().st_size)])
    with pytest.raises(CausalVideoError) as error:
        decode_video(cut, "uniform-16")
    held = int(str(error.value.found).split()[0])
    assert 0 < held < 16
    assert len(decode_video(cut, [0.05, 0.2]).frames) == 2  # what is there can still be asked for


def test_a_real_clip_cut_off(shared, tmp_path):
    source = (shared / "data/videos/store-aisle-detection.gif").read_bytes()
    (tmp_path / "cut.gif").write_bytes(source[: len(source) // 3])
    try:
        frames = decode_video(tmp_path / "cut.gif", "uniform-16").frames  # a gif declares no length
    except CausalVideoError as error:
        assert "decodable" in str(error)
    else:
        assert len({frame.tobytes() for frame in frames}) == 16


def test_damage_in_the_middle_is_an_error_or_leaves_the_frames_alone(tmp_path, make_clip, numbers_of):
    clip = make_clip(tmp_path / "c.mp4", frames=64, size=(128, 96), gop=64)
    content = bytearray(clip.read_bytes())
    at = content.index(b"mdat") + (len(content) - content.index(b"mdat")) // 3
    content[at : at + 600] = bytes(600)
    clip.write_bytes(content)
    try:
        frames = decode_video(clip, "uniform-8").frames
    except CausalVideoError as error:
        assert "decodable" in str(error) or "not a video" in str(error)
    else:
        assert len(set(numbers_of(frames))) == 8


UPRIGHT = {  # a, b, c, d of the display matrix, x' = a x + c y and y' = b x + d y, and what a player shows
    (0, 1, -1, 0): lambda picture: np.rot90(picture, 3),
    (0, -1, 1, 0): lambda picture: np.rot90(picture, 1),
    (-1, 0, 0, -1): lambda picture: np.rot90(picture, 2),
    (-1, 0, 0, 1): np.fliplr,  # as the front camera of a telephone writes it
    (1, 0, 0, -1): np.flipud,
    (0, 1, 1, 0): lambda picture: picture.swapaxes(0, 1),
    (0, -1, -1, 0): lambda picture: np.rot90(picture.swapaxes(0, 1), 2),
}


@pytest.mark.parametrize("matrix", UPRIGHT)
def test_rotation_and_mirroring_of_the_metadata_are_applied(tmp_path, matrix):
    import av

    path = tmp_path / "turned.mp4"
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:24, :32] = 255  # top left corner is white
    picture[:12, :8] = 128  # and its own corner grey
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40  # version 0: the matrix starts 40 bytes into the box
    a, b, c, d = (value * 65536 for value in matrix)
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    video = decode_video(path, "uniform-2")
    expected = UPRIGHT[matrix](picture)
    assert video.frames[0].shape == expected.shape and video.size == expected.shape[1::-1]
    assert np.abs(video.frames[0].astype(int) - expected).mean() < 6


def test_what_a_header_claims_is_bounded(tmp_path, make_clip):
    clip = make_clip(tmp_path / "c.gif", frames=4, codec="gif", pix_fmt="rgb8")
    content = bytearray(clip.read_bytes())
    content[6:10] = struct.pack("<HH", 9000, 9000)
    clip.write_bytes(content)
    with pytest.raises(CausalVideoError, match="too large: found 9000 x 9000"):
        decode_video(clip, "uniform-1")
    for sampling, duration in (("fps-30", 1e12), ("uniform-99999999999", 4.0), ("fps-1e300", 4.0), ("fps-1", np.inf)):
        with pytest.raises(CausalVideoError, match="too many instants"):
            sample_instants(sampling, duration)


@pytest.mark.parametrize("bad", ["uniform-0", "fps-0", "fps-inf", "seconds-2,1", "x", [], [0.1, 0.1], [-1]])
def test_an_unknown_sampling_is_refused(bad):
    with pytest.raises(CausalVideoError, match="unknown sampling"):
        sample_instants(bad, 4.0)


@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.parametrize("sampling", ["uniform-16", "fps-2"])
def test_jumping_and_reading_through_agree_on_real_clips(shared, name, sampling, monkeypatch):
    from hf_causal_video.features import decode

    path = shared / "data/videos" / name
    jumped = decode_video(path, sampling)
    monkeypatch.setattr(decode, "_decode_exactly", lambda *args: None)
    through = decode_video(path, sampling)
    assert all(np.array_equal(a, b) for a, b in zip(jumped.frames, through.frames, strict=True))
    assert len({frame.tobytes() for frame in jumped.frames}) == len(jumped.frames)


def write_tracks(path, *tracks: dict) -> None:
    """Write a file of several video tracks: a colour, a size, a rate, seconds, a codec and a disposition each."""
    from fractions import Fraction

    import av
    from av.stream import Disposition

    with av.open(str(path), "w") as container:
        streams = []
        for track in tracks:
            stream = container.add_stream(track.get("codec", "libx264"), rate=track.get("rate", 8))
            stream.width, stream.height = track["size"]
            stream.pix_fmt = track.get("pix_fmt", "yuv420p")
            if "pixel" in track:
                stream.codec_context.sample_aspect_ratio = Fraction(track["pixel"])
            stream.disposition = Disposition.default if track.get("default") else Disposition(0)
            streams.append(stream)
        for stream, track in zip(streams, tracks, strict=True):
            image = np.zeros((track["size"][1], track["size"][0], 3), np.uint8)
            image[..., "rgb".index(track["colour"])] = 255
            for _ in range(track.get("frames", 16)):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode(None))


def colour(frame) -> str:
    return "rgb"[int(frame.reshape(-1, 3).mean(0).argmax())]


BLUE, RED = {"colour": "b", "size": (80, 60)}, {"colour": "r", "size": (160, 120)}
PREVIEW = {"colour": "b", "size": (64, 48), "codec": "mjpeg", "pix_fmt": "yuvj420p", "frames": 1, "rate": 1}


@pytest.mark.parametrize("tracks", [
    [BLUE, {**RED, "default": True}],
    [BLUE, RED],
    [RED, BLUE],
    [{**BLUE, "size": (320, 240)}, {**RED, "default": True}],
    [PREVIEW, {**RED, "default": True}],
    [{**PREVIEW, "default": True}, RED],
    [{**PREVIEW, "size": (640, 480)}, RED],
])  # fmt: skip
def test_the_track_is_the_one_that_a_player_shows(tmp_path, tracks):
    """The default track, else the largest; never one picture that stands next to a film."""
    write_tracks(tmp_path / "two.mkv", *tracks)
    for sampling in ("uniform-1", "uniform-4"):
        clip = decode_video(tmp_path / "two.mkv", sampling)
        assert clip.size == (160, 120) and {colour(frame) for frame in clip.frames} == {"r"}


def test_a_first_track_without_a_decoder_is_passed_over(tmp_path):
    write_tracks(tmp_path / "two.mkv", {**BLUE, "codec": "mpeg4", "default": True}, RED)
    content = (tmp_path / "two.mkv").read_bytes()
    unknown = content.replace(b"V_MPEG4/ISO/ASP", b"V_UNKNOWN/X/ABC")
    assert unknown != content
    (tmp_path / "two.mkv").write_bytes(unknown)
    assert colour(decode_video(tmp_path / "two.mkv", "uniform-4").frames[0]) == "r"
    write_tracks(tmp_path / "film.mkv", {**PREVIEW}, {**RED, "codec": "mpeg4"})
    content = (tmp_path / "film.mkv").read_bytes().replace(b"V_MPEG4/ISO/ASP", b"V_UNKNOWN/X/ABC")
    (tmp_path / "film.mkv").write_bytes(content)
    with pytest.raises(CausalVideoError, match="no picture.*without a decoder"):
        decode_video(tmp_path / "film.mkv", "uniform-1")  # and not the preview in its place


@pytest.mark.parametrize("pixel, size", [("16/15", (85, 60)), ("2", (160, 60)), ("1/2", (80, 120)), ("1", (80, 60))])
def test_pixels_that_are_not_square_are_shown_as_on_a_screen(tmp_path, pixel, size):
    write_tracks(tmp_path / "wide.mp4", {**BLUE, "pixel": pixel})
    clip = decode_video(tmp_path / "wide.mp4", "uniform-2")
    assert clip.size == size and clip.frames[0].shape == (size[1], size[0], 3)


def test_a_short_clip_gives_the_frames_it_has_where_fewer_are_allowed(tmp_path, make_clip, numbers_of):
    clip = make_clip(tmp_path / "c.mp4", frames=5, fps=5)
    video = decode_video(clip, "uniform-16", allow_fewer=True)
    assert numbers_of(video.frames) == [0, 1, 2, 3, 4] and video.missing == 11
    assert (np.floor(video.timestamps_s * 5) == np.arange(5)).all(), "each instant lies in its frame"
    assert decode_video(clip, "uniform-4", allow_fewer=True).missing == 0
    with pytest.raises(CausalVideoError, match="4 different"):
        decode_video(clip, "seconds-0.1,0.12,0.5,0.55,0.6,0.7,0.8,0.9", allow_fewer=True)
    slides = make_clip(tmp_path / "slides.mkv", frames=3, times=[0, 9, 10])
    video = decode_video(slides, "uniform-8", allow_fewer=True)
    assert numbers_of(video.frames) == [0, 1] and video.missing == 6


def test_a_cut_off_clip_is_no_short_one(tmp_path, make_clip):
    whole = make_clip(tmp_path / "whole.mkv", frames=80, size=(128, 96), noise=True)
    (tmp_path / "cut.mkv").write_bytes(whole.read_bytes()[: whole.stat().st_size // 3])
    with pytest.raises(CausalVideoError, match="does not hold the frames asked for"):
        decode_video(tmp_path / "cut.mkv", "uniform-16", allow_fewer=True)
