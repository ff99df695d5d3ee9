"""Laws of the rendered twin: real files, the truth of the world, the same pixels for the same seed."""

import hashlib

import av
import numpy as np
import pytest
from datasets import Dataset

from hf_causal_video.utils.errors import CausalVideoError
from hf_causal_video.worlds import WorldConfig, draw_clips
from hf_causal_video.worlds.config import ACTIONS, CLASSES, COLOURS, ENVIRONMENTS
from hf_causal_video.worlds.render import draw_clip, read_truth, render_split
from hf_causal_video.worlds.shapes import RGB, backdrop, mark_sprite, shape_sprite


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rendered")
    return folder, render_split(folder, "train", 4, seed=5, progress=False)


def decode(path):
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return [frame.time for frame in frames], np.stack([frame.to_ndarray(format="rgb24") for frame in frames])


def test_every_file_decodes_to_its_frames_at_its_times(rendered):
    folder, questions = rendered
    assert sorted(path.stem for path in (folder / "videos").iterdir()) == sorted(questions["video_id"])
    for video_id in questions["video_id"]:
        times, pixels = decode(folder / "videos" / f"{video_id}.mp4")
        assert pixels.shape == (64, 128, 128, 3)
        assert np.allclose(times, np.arange(64) / 4)


def test_questions_and_truth_agree(rendered):
    folder, questions = rendered
    stored = Dataset.from_parquet(str(folder / "questions" / "train.parquet"))
    assert stored.to_list() == questions.to_list()
    truth = read_truth(folder, "train")
    for row in questions:
        clip, (start, end) = truth[row["video_id"]], row["spans"][0]
        acts = clip.actions[:, row["causal_object"]] >= 0
        seconds = np.arange(64) / clip.fps
        assert (acts == ((start <= seconds) & (seconds < end))).all()
        assert (acts == np.repeat(row["causal_frames"], clip.fps)).all()
        assert (clip.actions >= 0).sum(axis=1).max() == 1
        assert clip.environment == row["environment"]
        looks = (ACTIONS[clip.actions.max(axis=0)[row["causal_object"]]], CLASSES[clip.classes[row["causal_object"]]])
        asked = {"action": looks[0], "class": looks[1], "colour": COLOURS[clip.colours[row["causal_object"]]]}
        assert row["choices"][row["answer"]] == asked[row["question_type"]]


def test_the_colour_of_an_object_fills_its_box_in_the_decoded_picture(rendered):
    folder, _ = rendered
    for video_id, clip in read_truth(folder, "train").items():
        _, pixels = decode(folder / "videos" / f"{video_id}.mp4")
        for frame in (0, 21, 63):
            for thing, colour in enumerate(clip.colours):
                x0, y0, x1, y1 = (clip.boxes[frame, thing] * 128).round().astype(int)
                if ACTIONS[clip.actions[frame, thing]] == "flashing" and clip.actions[frame, thing] >= 0:
                    continue
                inside = pixels[frame, y0:y1, x0:x1].reshape(-1, 3).astype(int)
                near = np.abs(inside - RGB[COLOURS[colour]]).max(axis=1) < 60
                assert near.mean() > 0.2, f"{video_id} frame {frame} object {thing} is not {COLOURS[colour]}"


def test_the_backdrop_is_seen_only_while_nobody_acts():
    pictures, truth = draw_clip(draw_clips(WorldConfig.rendered(), "iid", 1), 0)
    colours = np.array([len(picture.getcolors(1 << 15)) for picture in pictures])
    corner = np.array([np.asarray(picture)[[0, 0, -1, -1], [0, -1, 0, -1]] for picture in pictures])
    acting = (truth.actions >= 0).any(axis=1)
    assert (corner[acting] == (70, 70, 74)).all() and not (corner[~acting] == (70, 70, 74)).all(axis=(1, 2)).any()
    assert colours.min() > 4
    shown, _ = draw_clip(draw_clips(WorldConfig.rendered(), "iid", 1), 0, backdrop_while_acting=1.0)
    assert (np.asarray(shown[int(acting.argmax())])[0, 0] != (70, 70, 74)).any()


def test_same_seed_same_bytes_other_seed_other_bytes(rendered, tmp_path):
    folder, _ = rendered
    render_split(tmp_path, "train", 4, seed=5, progress=False)

    def digest(path):
        return hashlib.sha256(path.read_bytes()).hexdigest()

    for path in sorted((folder / "videos").iterdir()):
        assert digest(path) == digest(tmp_path / "videos" / path.name)
    assert digest(folder / "truth" / "train.json") == digest(tmp_path / "truth" / "train.json")
    first, other = (draw_clip(draw_clips(WorldConfig.rendered(), "train", 1, seed), 0)[0][0] for seed in (5, 6))
    assert not np.array_equal(np.asarray(first), np.asarray(other))


def test_long_and_crowded_clips_have_their_sizes_and_nobody_hides_another():
    pictures, truth = draw_clip(draw_clips(WorldConfig.rendered(), "both", 1), 0)
    assert len(pictures) == 256 and truth.boxes.shape == (256, 12, 4)
    assert truth.boxes.min() >= 0 and truth.boxes.max() <= 1
    boxes = truth.boxes[:, :, None, :], truth.boxes[:, None, :, :]
    overlap = np.minimum(boxes[0][..., 2:], boxes[1][..., 2:]) - np.maximum(boxes[0][..., :2], boxes[1][..., :2])
    hidden = (overlap > 0).all(axis=-1)
    assert not hidden[:, ~np.eye(12, dtype=bool)].any()


def test_all_shapes_colours_marks_and_backdrops_look_different():
    def distinct(pictures):
        arrays = [np.asarray(picture).astype(int) for picture in pictures]
        return min(np.abs(a - b).mean() for i, a in enumerate(arrays) for b in arrays[:i])

    assert distinct([shape_sprite(kind, "red", 14) for kind in range(8)]) > 3
    assert distinct([shape_sprite(1, colour, 14) for colour in COLOURS]) > 3
    assert distinct([mark_sprite(action, 14) for action in range(8)]) > 10
    assert distinct([backdrop(environment, 128) for environment in range(len(ENVIRONMENTS))]) > 5


def test_bad_settings_and_absent_splits_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(CausalVideoError, match="size 99"):
        render_split(tmp_path / "new", "train", 1, size=99)
    with pytest.raises(CausalVideoError, match="unknown split"):
        render_split(tmp_path / "new", "test", 1)
    assert not (tmp_path / "new").exists()
    with pytest.raises(CausalVideoError, match="render_split"):
        read_truth(tmp_path, "train")


@pytest.mark.parametrize("follows", ["answer", "question", "both"])
def test_the_rendered_twin_shows_the_environment_of_every_world(follows, tmp_path):
    config = WorldConfig.rendered(environment_follows=follows, background_everywhere=True, cause_noise=0.5, rho=0.9)
    questions = render_split(tmp_path, "train", 3, config, seed=2, fps=1, progress=False)
    truth = read_truth(tmp_path, "train")
    for index, row in enumerate(questions):
        clip = truth[row["video_id"]]
        assert clip.tint == (row["tint"] if follows == "both" else None)
        pictures, _ = draw_clip(draw_clips(config, "train", 3, seed=2), index, fps=1)
        hidden, drawn = draw_clip(draw_clips(config, "train", 3, seed=2), index, fps=1, backdrop_while_acting=0.0)
        acting = (drawn.actions >= 0).any(axis=1)
        for frame in np.flatnonzero(acting):
            assert np.asarray(pictures[frame])[0, 0].tolist() != [70, 70, 74]
            assert np.asarray(hidden[frame])[0, 0].tolist() == [70, 70, 74]
        shown = {"action": clip.actions[:, row["causal_object"]].max(), "class": clip.classes[row["causal_object"]]}
        shown["colour"] = clip.colours[row["causal_object"]]
        words = {"action": ACTIONS, "class": CLASSES, "colour": COLOURS}[row["question_type"]]
        agrees = words[shown[row["question_type"]]] == row["answer_text"]
        assert agrees == (row["cause_answer"] == row["answer"])


def test_the_tint_is_the_hue_of_the_backdrop_and_the_environment_its_pattern():
    pictures = {tint: np.asarray(backdrop(2, 128, tint=tint)).astype(int) for tint in (0, 4)}
    assert pictures[0][..., 0].mean() > pictures[0][..., 1].mean() + 10  # red
    assert pictures[4][..., 0].mean() < pictures[4][..., 1].mean() - 10  # teal
    assert ((pictures[0].max(2) > 80) == (pictures[4].max(2) > 80)).all()  # the same dots
