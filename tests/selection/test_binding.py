"""Laws of the binding: the chosen frames with their true seconds, on this instance, in this block, and not after."""

import copy
from contextlib import ExitStack

import av
import numpy as np
import pytest
from transformers.feature_extraction_utils import BatchFeature
from transformers.video_processing_utils import VideoProcessorMixin
from transformers.video_utils import VideoMetadata, make_batched_metadata, make_batched_videos

from hf_causal_video.selection import FrameSelector, Ranking, UniformSelector, bind_selector
from hf_causal_video.utils.errors import CausalVideoError

VIDEO = np.arange(24, dtype=np.uint8)[:, None, None, None].repeat(8, 1).repeat(8, 2).repeat(3, 3)  # frame k is grey k
RATE = {"total_num_frames": 24, "fps": 4.0, "duration": 6.0}


class PlainVideoProcessor(VideoProcessorMixin):
    """A video processor of transformers without torchvision: it hands its frames on, sampled in its own way."""

    def __init__(self, **kwargs):
        self.num_frames = kwargs.get("num_frames", 3)

    def sample_frames(self, metadata, **kwargs):
        return np.arange(self.num_frames)

    def preprocess(self, videos, video_metadata=None, do_sample_frames=True, **kwargs):
        videos = make_batched_videos(videos)
        seen = make_batched_metadata(videos, video_metadata)
        if do_sample_frames:
            videos = [video[self.sample_frames(one)] for video, one in zip(videos, seen, strict=True)]
        return BatchFeature({"frames": videos, "video_metadata": seen})


class Pick(FrameSelector):
    """Takes the frames it is told to, best first, and remembers what it was asked."""

    def __init__(self, *wanted, sampling="uniform-64"):
        super().__init__(sampling)
        self.wanted, self.asked = wanted, []

    def rank(self, clip, question, choices):
        self.asked.append((question, choices, len(clip)))
        scores = np.zeros(len(clip))
        scores[list(self.wanted)] = np.arange(len(self.wanted), 0, -1)
        return Ranking(scores, "that were picked")


def grey(frames):
    return [int(frame[0, 0, 0]) for frame in frames]


def test_the_chosen_frames_arrive_in_order_of_time_with_their_true_seconds():
    processor = PlainVideoProcessor()
    with bind_selector(processor, Pick(20, 3, 11), "why", 3) as bound:
        given = processor(VIDEO, video_metadata=RATE)
    assert grey(given["frames"][0]) == [3, 11, 20] == bound.selections[0].frame_indices
    assert given["video_metadata"][0].timestamps == [0.75, 2.75, 5.0] == bound.selections[0].timestamps_s
    assert given["video_metadata"][0].total_num_frames == 24 and given["video_metadata"][0].duration == 6.0


def test_its_own_sampling_has_no_say_inside_and_all_say_outside():
    processor = PlainVideoProcessor(num_frames=5)
    with bind_selector(processor, Pick(20, 3), "why", 2):
        for own in ({}, {"do_sample_frames": True, "num_frames": 9}, {"do_sample_frames": False, "fps": 2}):
            assert grey(processor(VIDEO, video_metadata=RATE, **own)["frames"][0]) == [3, 20]
    assert grey(processor(VIDEO, video_metadata=RATE)["frames"][0]) == [0, 1, 2, 3, 4]


def test_the_instance_is_what_it_was_afterwards_also_after_an_error():
    processor = PlainVideoProcessor()
    before = dict(processor.__dict__)
    for wrong in (0, 3):
        with pytest.raises(CausalVideoError if wrong == 0 else ZeroDivisionError):
            with bind_selector(processor, Pick(1), "why", wrong):
                processor(VIDEO, video_metadata=RATE)
                1 / 0  # noqa: B018
        assert type(processor) is PlainVideoProcessor and processor.__dict__ == before


def test_no_other_instance_is_bound_and_the_class_is_untouched():
    bound, free = PlainVideoProcessor(), PlainVideoProcessor()
    own = dict(vars(PlainVideoProcessor))
    with bind_selector(bound, Pick(20), "why", 1):
        assert grey(free(VIDEO, video_metadata=RATE)["frames"][0]) == [0, 1, 2]
        assert grey(bound(VIDEO, video_metadata=RATE)["frames"][0]) == [20]
        assert isinstance(bound, PlainVideoProcessor) and type(bound).__name__ == "PlainVideoProcessor"
        assert bound.to_dict() == free.to_dict() and bound.to_json_string() == free.to_json_string()
    assert dict(vars(PlainVideoProcessor)) == own


def test_of_nested_bindings_the_inner_one_chooses_and_the_outer_one_comes_back():
    processor = PlainVideoProcessor()
    outer, inner = Pick(5), Pick(9)
    with bind_selector(processor, outer, "why", 1):
        with bind_selector(processor, inner, "why", 1):
            assert grey(processor(VIDEO, video_metadata=RATE)["frames"][0]) == [9]
        assert len(outer.asked) == 0 and len(inner.asked) == 1
        assert grey(processor(VIDEO, video_metadata=RATE)["frames"][0]) == [5]
    assert type(processor) is PlainVideoProcessor


def test_bindings_left_in_another_order_still_end():
    processor = PlainVideoProcessor()
    outer, inner = ExitStack(), ExitStack()
    outer.enter_context(bind_selector(processor, Pick(5), "why", 1))
    inner.enter_context(bind_selector(processor, Pick(9), "why", 1))
    outer.close()
    assert grey(processor(VIDEO, video_metadata=RATE)["frames"][0]) == [9]
    inner.close()
    assert type(processor) is PlainVideoProcessor


def test_frames_that_keep_no_rate_get_the_seconds_that_are_given():
    times = np.cumsum(np.linspace(0.1, 0.9, 24))
    with bind_selector(processor := PlainVideoProcessor(), Pick(2, 7, 23), "why", 3, timestamps_s=times):
        seen = processor(VIDEO)["video_metadata"][0]
    np.testing.assert_allclose(seen.timestamps, times[[2, 7, 23]], atol=5e-4)
    assert abs(seen.sampled_fps - 3 / seen.duration) < 1e-3  # the mean spacing that Qwen2.5-VL works with


def test_frames_sampled_before_keep_their_places_in_the_clip():
    early = VideoMetadata(total_num_frames=240, fps=10.0, duration=24.0, frames_indices=list(range(0, 240, 10)))
    with bind_selector(processor := PlainVideoProcessor(), Pick(4, 6), "why", 2):
        seen = processor(VIDEO, video_metadata=[early])["video_metadata"][0]
    assert list(seen.frames_indices) == [40, 60] and seen.timestamps == [4.0, 6.0]
    assert early.frames_indices[:2] == [0, 10]  # what the caller gave is not written to


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"total_num_frames": 24},
        {"total_num_frames": 90, "fps": 4.0},
        {"total_num_frames": 24, "fps": 4.0, "frames_indices": [0] * 24},
        {"total_num_frames": 24, "fps": 4.0, "frames_indices": list(range(23, -1, -1))},
    ],
)
def test_decoded_frames_whose_times_are_missing_or_do_not_increase_are_refused(metadata):
    with bind_selector(processor := PlainVideoProcessor(), Pick(1), "why", 1):
        with pytest.raises(CausalVideoError, match="times of the frames"):
            processor(VIDEO, video_metadata=metadata)


def test_each_clip_of_a_call_gets_its_question():
    selector = Pick(1)
    with bind_selector(processor := PlainVideoProcessor(), selector, ["why", "how"], 1, choices=["a", "b"]) as bound:
        given = processor([VIDEO, VIDEO[:12]], video_metadata=[RATE, {**RATE, "total_num_frames": 12}])
        with pytest.raises(CausalVideoError, match="2 for 1 clips"):
            processor(VIDEO, video_metadata=RATE)
    assert selector.asked == [("why", ["a", "b"], 24), ("how", ["a", "b"], 12)]
    assert len(bound.selections) == len(given["frames"]) == 2


def test_frames_with_channels_first_are_understood_and_handed_on_as_they_are():
    with bind_selector(processor := PlainVideoProcessor(), Pick(3, 8), "why", 2):
        given = processor(VIDEO.transpose(0, 3, 1, 2), video_metadata=RATE)["frames"][0]
    assert given.shape == (2, 3, 8, 8) and given[:, 0, 0, 0].tolist() == [3, 8]


def test_a_file_is_decoded_at_the_moments_looked_at(tmp_path):
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(32):
            image = np.full((48, 64, 3), 7 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    with bind_selector(processor := PlainVideoProcessor(), Pick(1, 6, sampling="uniform-8"), "why", 2):
        for video in (path, str(path), [path], [[str(path)]]):
            given = processor(video)
            assert [round(float(frame.mean()) / 7) for frame in given["frames"][0]] == [6, 26]
            assert given["video_metadata"][0].timestamps == [0.75, 3.25]
        with pytest.raises(CausalVideoError, match="missing clip: found no absent.mp4"):
            processor("absent.mp4")


def test_a_model_that_merges_frames_in_pairs_gets_at_least_one_pair():
    processor = PlainVideoProcessor()
    processor.temporal_patch_size = 2
    with bind_selector(processor, Pick(9), "why", 1) as bound:
        given = processor(VIDEO, video_metadata=RATE)
    assert grey(given["frames"][0]) == [9, 9] and bound.selections[0].frame_indices == [9]
    assert given["video_metadata"][0].timestamps == [2.25, 2.25]


def test_what_cannot_be_bound_says_what_can():
    for wrong in (object(), copy.copy, 3):
        with pytest.raises(CausalVideoError, match="cannot be bound.*Qwen2.5-VL, Qwen3-VL"):
            with bind_selector(wrong, UniformSelector(), "why", 2):
                pass
    with pytest.raises(CausalVideoError, match="expected a FrameSelector"):
        with bind_selector(PlainVideoProcessor(), lambda *_: [1], "why", 2):
            pass
